"""`insitu bench llm-shape`: seconds for prefill and the decode curve of a shape without weights, medians of five."""

from __future__ import annotations

import time
from statistics import median

from insitu.bench.result import BenchResult, Case

RUNS = 5
BARS = {"llama-3-70b": 2.0, "llama-3-405b": 10.0, "deepseek-v3": 10.0}
CHIP = "aim-gddr6"


def run() -> BenchResult:
    """Prefill, the curves over context and batch, time and energy by part, and an H100 beside."""
    from insitu.arch.load import load_chip
    from insitu.flow.shape import ShapeOptions, run_shape
    from insitu.llm.shapes import load_shape

    cases: list[Case] = []
    for name, most in BARS.items():
        spent: list[float] = []
        for _ in range(RUNS):
            start = time.perf_counter()
            chip, (_, shape) = load_chip(CHIP), load_shape(name)
            run_shape(name, shape, chip, ShapeOptions(context=8192))
            spent.append(time.perf_counter() - start)
        cases.append(Case(name, median(spent), "s", runs=tuple(spent), most=most))
    return BenchResult("llm-shape", tuple(cases), "Llama-3-70B in 2 s, 405B in 10 s")
