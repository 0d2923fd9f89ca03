"""`insitu bench mvm`: a linear layer with full physics over the float32 product of the same size.

8-bit drivers and converters, 512 x 512 arrays, programming error, column gain, read noise in proportion to the norm of
the inputs, converter noise; float inputs to float outputs.  Programming happens once, before the clock starts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from insitu.arch.spec import Chip
from insitu.bench.layer import bench_chip, layer
from insitu.bench.pairs import case, paired, products
from insitu.bench.result import BenchResult, Case

SIZES = (512, 1024, 2048, 4096)
BARS = {512: 0.7, 32: 0.35}  # by batch; the best peer with noise has 0.31 and 0.17


def run() -> BenchResult:
    """Every size at both batches."""
    return sweep("mvm", bench_chip(), BARS)


def sweep(name: str, chip: Chip, bars: Mapping[int, float], *, physics: str = "full") -> BenchResult:
    """A layer of every size on a chip at the batches of `bars`, over the float product."""
    cases = list[Case]()
    for size in SIZES:
        rng = np.random.default_rng(size)
        w = (rng.standard_normal((size, size)) / np.sqrt(size)).astype(np.float32)
        x = rng.standard_normal((max(bars), size)).astype(np.float32)
        own = layer(w, chip, physics=physics, inputs=x[:16])
        for batch, least in bars.items():
            given, out = np.ascontiguousarray(x[:batch]), np.empty((batch, size), np.float32)
            pair = paired(lambda own=own, given=given, out=out: own(given, out), *products(given, w))
            cases.append(case(f"{size} x {size}, batch {batch}", pair, least))
    bar = ", ".join(f"{least} at batch {batch}" for batch, least in bars.items())
    return BenchResult(name, tuple(cases), f"of float32 matmul: {bar}")
