"""`insitu bench cost`: closed-form (layer x design) points per CPU second, median of five sweeps in one process."""

from __future__ import annotations

import time
from statistics import median

from insitu.bench.result import BenchResult, Case

RUNS = 5
LEAST = 1e5  # points a second per core
PEER = 83.0  # the fastest published peer, CiMLoop (paper)
GRID = {
    "rows": [64, 128, 256],
    "cols": [16, 64],
    "node": [22e-9, 32e-9, 65e-9],
    "supply": [0.8, 1.0],
    "adc_bits": list(range(4, 10)),
    "input_bits": [4, 8],
}


def run() -> BenchResult:
    """60 layers on 432 variants of an analog chip."""
    from insitu.arch.load import load_chip
    from insitu.cost.designs import sweep
    from insitu.cost.layers import Layer, stack
    from insitu.cost.points import cost

    chip, layers = load_chip("parametric-reram-adc8"), stack([Layer(str(i), 64 + i, 32 + i, 100) for i in range(60)])
    rates: list[float] = []
    for _ in range(RUNS):
        start = time.process_time()
        found = cost(layers, sweep(chip, GRID))
        rates.append(found.latency.size / (time.process_time() - start))
    value = median(rates)
    case = Case("points", value, "1/s", PEER, value / PEER, tuple(rates), least=LEAST)
    return BenchResult("cost", (case,), "1e5 points per second per core")
