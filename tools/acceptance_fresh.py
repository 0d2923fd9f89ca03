"""Clone the last commit, empty HOME, `make demo` twice; print the seconds of each and what was installed, as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        clone, home = Path(folder) / "clone", Path(folder) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if ".venv" not in part)
        environment = {**os.environ, "HOME": str(home), "PATH": path}
        environment.pop("VIRTUAL_ENV", None)
        seconds: list[float] = []
        for _ in range(2):
            start = time.monotonic()
            done = subprocess.run(["make", "demo"], cwd=clone, env=environment, stdout=sys.stderr, check=False)
            seconds.append(round(time.monotonic() - start, 1))
            if done.returncode:
                return done.returncode
        has_torch = any(clone.glob(".venv/lib/python3*/site-packages/torch"))
        reports = len(list(clone.glob("insitu-runs/*/report.html")))
    print(json.dumps({"first_s": seconds[0], "second_s": seconds[1], "torch": int(has_torch), "reports": reports}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
