"""Give the commands broken and hostile ONNX files, each in a process of its own; print what happened, as JSON.

{"cases": files tried, "bad": what went wrong, "slowest_s": start-up included, "largest_mb": peak of a process}.  A file
is bad where a command does not end with exit code 1 and one message (files that mean something may also run, or not
fit: 0 or 2), shows a traceback, takes 10 s or 2 GB, or leaves anything behind.  Arguments: names of cases.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from insitu.cli.main import main as insitu  # noqa: E402
from tests.frontend.hostile import CASES, SOUND  # noqa: E402

MOST_S, MOST_MB, MOST_TEXT, LONGEST_S = 10.0, 2048, 6000, 60


def commands(path: Path, out: Path) -> dict[str, list[str]]:
    return {
        "run": ["run", str(path), "--chip", "wtm2101", "--out", str(out / "run"), "--instances", "1"],
        "compile": ["compile", str(path), "--chip", "wtm2101", "-o", str(out / "net.insitu")],
        "check": ["check", str(path)],
    }


def ran(words: Sequence[str]) -> tuple[int, str, float, float]:
    """(exit code, what it said, seconds, peak MB) of one command, in a fork that has imported the package already."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        child = os.fork()
        if child == 0:
            signal.alarm(LONGEST_S)
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            code = insitu(words)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status, used = os.wait4(child, 0)
        seconds = time.perf_counter() - start
        said.seek(0)
        return os.waitstatus_to_exitcode(status), said.read().decode("utf-8", "replace"), seconds, used.ru_maxrss / 1024


def start_s() -> float:
    """Seconds until a command of its own process has refused an absent file."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "insitu.cli.main", "check", "absent.onnx"], capture_output=True, check=False)
    return time.perf_counter() - start


def tried(name: str) -> tuple[list[str], float, float]:
    """(faults, slowest refusal in seconds, peak MB) of one case."""
    faults: list[str] = []
    slowest = largest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        model, out = Path(folder) / "model", Path(folder) / "out"
        model.mkdir()
        out.mkdir()
        path = CASES[name](model)
        for command, words in commands(path, out).items():
            code, said, seconds, size = ran(words)
            if name in SOUND and code in (0, 2):
                continue
            slowest, largest = max(slowest, seconds), max(largest, size)
            wrong = code != 1 or "Traceback" in said or not 0 < len(said) < MOST_TEXT
            if wrong or seconds > MOST_S or size > MOST_MB or list(out.iterdir()):
                faults.append(f"{name}: {command} ends with {code} after {seconds:.1f} s and {size:.0f} MB")
    return faults, slowest, largest


def main(names: Sequence[str]) -> int:
    begin = start_s()
    import_everything()
    results = [tried(name) for name in names or list(CASES)]
    faults = [fault for found, _, _ in results for fault in found]
    print("\n".join(faults), file=sys.stderr)
    figures = {
        "cases": len(results), "bad": len(faults), "slowest_s": round(begin + max(r[1] for r in results), 2),
        "largest_mb": round(max(r[2] for r in results)),
    }  # fmt: skip
    print(json.dumps(figures))
    return 0


def import_everything() -> None:
    """What the commands import when they run, once for all forks."""
    for name in ("check", "compile", "run"):
        importlib.import_module(f"insitu.cli.{name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
