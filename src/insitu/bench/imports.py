"""`insitu bench import`: seconds of `import insitu` in a fresh process."""

from __future__ import annotations

import sys

from insitu.bench.result import BenchResult
from insitu.bench.start import IMPORT, seconds


def run() -> BenchResult:
    """The import alone."""
    return BenchResult(
        "import", (seconds("import insitu", [sys.executable, "-c", "import insitu"], IMPORT),), "import insitu in 0.3 s"
    )
