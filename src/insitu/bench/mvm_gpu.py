"""`insitu bench mvm-gpu`: the layer of `mvm` on a GPU, full physics in one Triton kernel, over torch's float32 product.

Inputs and outputs are floats in the GPU's memory.  DESIGN 11 has no bar for it: the ratio is told, nothing is held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from insitu.base.errors import UsageError
from insitu.bench.layer import Layer, bench_chip, layer
from insitu.bench.mvm import SIZES
from insitu.bench.pairs import paired
from insitu.bench.result import BenchResult, Case
from insitu.sim.backends import check_backend

if TYPE_CHECKING:
    from torch import Tensor

BATCHES = (512, 4096)


def run() -> BenchResult:
    """Every size at both batches; UsageError on a machine without a GPU."""
    try:
        check_backend("cuda")
    except UsageError as error:
        same = "insitu bench mvm, the same layer on the processor"
        raise UsageError("insitu bench mvm-gpu", error.got, error.need, try_=(same,)) from None
    import torch

    cases = list[Case]()
    for size in SIZES:
        rng = np.random.default_rng(size)
        w = (rng.standard_normal((size, size)) / np.sqrt(size)).astype(np.float32)
        x = rng.standard_normal((max(BATCHES), size)).astype(np.float32)
        own = layer(w, bench_chip(), physics="full", inputs=x[:16], backend="cuda")
        weights, inputs = torch.from_numpy(w).cuda(), torch.from_numpy(x).cuda()
        for batch in BATCHES:
            cases.append(_case(f"{size} x {size}, batch {batch}", own, inputs[:batch], weights))
    return BenchResult("mvm-gpu", tuple(cases), "none")


def layer_of(own: Layer, x: Tensor) -> Tensor:
    """The layer on the device of float inputs [vectors, rows]; float32 [vectors, columns]."""
    import torch

    from insitu.sim.gpu.fused import run as product
    from insitu.sim.gpu.tensors import Stream, TensorMatrix

    matrix, source = own.matrix, own.source
    assert isinstance(matrix, TensorMatrix)
    codes = torch.clip(torch.round(x * (1.0 / source.scale[0])), source.lo, source.hi).to(torch.int8)
    (launch,) = matrix.launches
    stream = Stream(own.model.seed, own.model.instance, matrix.stream << 12, 0)
    return product(launch, matrix, codes, stream) * float(own.target.scale[0])


def _case(name: str, own: Layer, x: Tensor, w: Tensor) -> Case:
    import torch

    def ours() -> None:
        layer_of(own, x)
        torch.cuda.synchronize()

    def plain() -> None:
        torch.matmul(x, w)
        torch.cuda.synchronize()

    pair = paired(ours, plain)
    return Case(name, pair.ratio, "of the baseline's speed", 1.0, pair.ratio, pair.ratios)
