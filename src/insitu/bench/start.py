"""`insitu bench start` and `insitu bench import`: seconds of fresh processes, medians of five after one that warms up.

The demo's overhead is what is left of a warm `insitu demo` after the same run of it, called again in one process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

from insitu.bench.result import BenchResult, Case

RUNS = 5
IMPORT, HELP, DEMO = 0.3, 0.5, 2.0
AGAIN = """
import contextlib, io, sys, time
from insitu.cli.main import main
def run():
    start = time.perf_counter()
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), contextlib.suppress(SystemExit):
        main(["demo", "--out", sys.argv[1]])
    return time.perf_counter() - start
run()
print(run())
"""


def run() -> BenchResult:
    """Import, help and what the demo costs beside its work."""
    cases = (
        seconds("import insitu", [sys.executable, "-c", "import insitu"], IMPORT),
        seconds("insitu --help", [sys.executable, "-m", "insitu.cli.main", "--help"], HELP),
        demo_overhead(),
    )
    return BenchResult("start", cases, "import insitu in 0.3 s, insitu --help in 0.5 s, overhead of a warm demo 2 s")


def seconds(name: str, command: list[str], most: float) -> Case:
    """A command's wall time."""
    spent = [_timed(command) for _ in range(RUNS + 1)][1:]
    return Case(name, median(spent), "s", runs=tuple(spent), most=most)


def demo_overhead() -> Case:
    """A process of the warm demo less its second run within one process."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        whole = [_timed([sys.executable, "-m", "insitu.cli.main", "demo", "--out", f"{folder}/a"]) for _ in range(4)][
            1:
        ]
        command = [sys.executable, "-c", AGAIN, f"{folder}/b"]
        again = [float(_run(command)) for _ in range(3)]
    left = tuple(a - b for a, b in zip(whole, again, strict=True))
    return Case("insitu demo, overhead", median(left), "s", runs=left, most=DEMO)


def _timed(command: list[str]) -> float:
    start = time.perf_counter()
    _run(command)
    return time.perf_counter() - start


def _run(command: list[str]) -> str:
    """What a command prints; warm means that Python keeps compiled modules, which an environment may forbid."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=kept).stdout
