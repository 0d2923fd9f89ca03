"""`insitu bench mvm-statedep`: as `mvm`, with read noise that depends on what each cell holds.

Cells are phase change memory (pcm-hermes), pairs of them; their law has a read noise for every level.  It costs one
more product: the variance of an output is the sum of x**2 times each cell's own variance.
"""

from __future__ import annotations

from insitu.bench.layer import bench_chip
from insitu.bench.mvm import sweep
from insitu.bench.result import BenchResult

CHIP = ("cell=pcm-hermes", "macro.weights.encoding=differential_pair")
BARS = {512: 0.4, 32: 0.25}  # by batch; the peer has 0.001


def run() -> BenchResult:
    """Every size at both batches."""
    return sweep("mvm-statedep", bench_chip(*CHIP), BARS)
