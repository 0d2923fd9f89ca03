"""`insitu bench sliced`: 2-bit cells, inputs bit by bit, 8-bit converters, 256 rows, over float32 matmul.

The codes of every plane, slice and row part are what the converters put out, none is left out: ideal physics.
"""

from __future__ import annotations

from insitu.bench.layer import bench_chip
from insitu.bench.mvm import sweep
from insitu.bench.result import BenchResult

CHIP = (
    "cell=reram-isaac-2b", "array.bits_per_cell=2", "array.rows=256", "array.cols=256",
    "macro.weights={encoding: differential_pair, slices: 4}", "macro.input.bits_per_pass=1", "core.macros=1024",
)  # fmt: skip
BARS = {512: 0.03}  # the best peer has 0.011


def run() -> BenchResult:
    """Every size at batch 512."""
    return sweep("sliced", bench_chip(*CHIP), BARS, physics="ideal")
