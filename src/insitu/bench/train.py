"""`insitu bench train`: a training step on the chip, with one draw of weight noise, over torch's own step.

A transformer encoder of 6 layers, width 384, on 16 sequences of 128 tokens with AdamW; every weight is rounded, drawn
anew from the cells' programming errors and read through 8-bit drivers and converters, every activation is rounded.
Both sides take some steps before any is timed: the first ones wait for pages of memory that later ones find again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from insitu.bench.layer import bench_chip
from insitu.bench.pairs import paired
from insitu.bench.result import BenchResult, Case
from insitu.runtime.parallel import threads

LAYERS, WIDTH, HEADS, BATCH, TOKENS = 6, 384, 6, 16, 128
WARM = 8  # steps of each side before the first that counts
MOST = 1.3  # of torch's time; peers 1.5 to 3


def run() -> BenchResult:
    """The ratio of step times, ours over torch's."""
    import torch

    from insitu.nn import Config, convert

    torch.set_num_threads(threads())
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    x = torch.randn(BATCH, TOKENS, WIDTH)
    noisy = convert(model, bench_chip(), config=Config(data=x[:1], physics="programming_noise"))
    ours, torchs = _step(noisy, x), _step(model, x)
    for _ in range(WARM):
        ours()
        torchs()
    pair = paired(ours, torchs)
    ratios = tuple(1.0 / r for r in pair.ratios)
    value = 1.0 / pair.ratio
    case = Case("6 layers, d 384, 16 x 128 tokens", value, "of torch's time", 1.0, pair.ratio, ratios, most=MOST)
    return BenchResult("train", (case,), f"1.3 times torch's time, after {WARM} steps of each")


def _step(module: Any, x: Any) -> Callable[[], None]:
    """One step of AdamW."""
    import torch

    optimizer = torch.optim.AdamW(module.parameters(), 1e-4)
    module.train()

    def step() -> None:
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()

    return step
