"""Give the commands broken and hostile ONNX files, each in a process of its own; print what happened, as JSON.

{"cases": files tried, "bad": what went wrong, "slowest_s": ..., "largest_mb": ...}.  A file is bad where a command does not
end with exit code 1 and one message (files that mean something may also run, or not fit: 0 or 2), shows a traceback, takes
10 s or 2 GB, or leaves anything behind.  Arguments: names of cases; without them all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.frontend.hostile import CASES, SOUND  # noqa: E402

MOST_S, MOST_MB, MOST_TEXT = 10.0, 2048, 6000


def commands(path: Path, out: Path) -> dict[str, list[str]]:
    return {
        "run": ["run", str(path), "--chip", "wtm2101", "--out", str(out / "run"), "--instances", "1"],
        "compile": ["compile", str(path), "--chip", "wtm2101", "-o", str(out / "net.insitu")],
        "check": ["check", str(path)],
    }


def ran(words: Sequence[str]) -> tuple[int, str, float, float]:
    """(exit code, what it said, seconds, peak MB) of one command."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-m", "insitu.cli.main", *words], stdout=said, stderr=said, cwd=ROOT)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        said.seek(0)
        return child.returncode, said.read().decode("utf-8", "replace"), seconds, used.ru_maxrss / 1024


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
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) // 2)) as pool:
        results = list(pool.map(tried, names or list(CASES)))
    faults = [fault for found, _, _ in results for fault in found]
    print("\n".join(faults), file=sys.stderr)
    figures = {
        "cases": len(results), "bad": len(faults), "slowest_s": round(max(r[1] for r in results), 2),
        "largest_mb": round(max(r[2] for r in results)),
    }  # fmt: skip
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
