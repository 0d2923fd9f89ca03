"""Run one network twice with one seed, at 1 and 2 threads; print how many files of the run folders differ, as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from acceptance_data import prepare

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "host.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def main(name: str, chip: str) -> int:
    model, data = prepare(name)
    with tempfile.TemporaryDirectory() as folder:
        runs: list[dict[str, bytes]] = []
        for threads in ("1", "2"):
            out = Path(folder) / threads / "run"
            command = [
                "insitu",
                "run",
                str(model),
                "--chip",
                chip,
                "--data",
                str(data),
                "--out",
                str(out),
                "--seed",
                "7",
            ]
            environment = {**os.environ, **dict.fromkeys(THREADS, threads)}
            subprocess.run(command, env=environment, stdout=sys.stderr, check=True)
            runs.append(contents(out))
    one, two = runs
    differ = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    print(json.dumps({"files": len(one), "differ": len(differ), "names": differ}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
