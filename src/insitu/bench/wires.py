"""`insitu bench wires`: a 256 x 256 array with resistive wires, after its network was solved once, over matmul.

A network of resistors is linear, so one factorisation and one adjoint solve per column give the conductances that the
columns really see (insitu.circuit.wires.transfer); every later vector is a plain product with them.
"""

from __future__ import annotations

import numpy as np

from insitu.bench.layer import bench_chip, layer
from insitu.bench.pairs import case, paired, products
from insitu.bench.result import BenchResult

SIZE, BATCH, LEAST = 256, 512, 0.33  # peers have 0.0004 to 0.003
CHIP = (
    "cell=pcm-hermes", "macro.weights.encoding=differential_pair", "array.rows=256",
    "array.cols=256", "physics.wires={row: 1 Ohm, column: 1 Ohm, exact: true}",
)  # fmt: skip


def run() -> BenchResult:
    """Batch 512, wires alone."""
    rng = np.random.default_rng(0)
    w = (rng.standard_normal((SIZE, SIZE)) / np.sqrt(SIZE)).astype(np.float32)
    x = rng.standard_normal((BATCH, SIZE)).astype(np.float32)
    own, out = layer(w, bench_chip(*CHIP), physics="ir_drop", inputs=x[:16]), np.empty((BATCH, SIZE), np.float32)
    pair = paired(lambda: own(x, out), *products(x, w))
    return BenchResult("wires", (case(f"{SIZE} x {SIZE}, batch {BATCH}", pair, LEAST),), "0.33 of float32 matmul")
