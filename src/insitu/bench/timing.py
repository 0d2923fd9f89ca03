"""`insitu bench timing`: commands a second with skipping off, and ResNet-18 (224 x 224) timed in all.

The network's program is compiled and planned once, before the clock starts; the commands are those of many inferences
in a row, every one of them run.  "In all" is one call that times a single inference as any report does.
"""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median
from typing import Any

from insitu.bench.result import BenchResult, Case

RUNS = 5
INFERENCES = 1000
LEAST_RATE, MOST_SECONDS = 2e6, 1.0
PEER_RATE = 0.09e6  # the fastest of the peers' event simulators, in instructions a second


def run() -> BenchResult:
    """Median of five calls of each."""
    from insitu.sim.timing import simulate_time

    program, chip = resnet18_program()
    many = repeated(program, INFERENCES)
    simulate_time(program, chip)  # kernels compiled and loaded
    rates, seconds = list[float](), list[float]()
    for _ in range(RUNS):
        start = time.perf_counter()
        timing = simulate_time(many, chip, skip=False)
        rates.append(timing.stepped / (time.perf_counter() - start))
        start = time.perf_counter()
        simulate_time(program, chip)
        seconds.append(time.perf_counter() - start)
    rate, whole = median(rates), median(seconds)
    cases = (
        Case("commands, skipping off", rate, "1/s", PEER_RATE, rate / PEER_RATE, tuple(rates), least=LEAST_RATE),
        Case("ResNet-18 in all", whole, "s", runs=tuple(seconds), most=MOST_SECONDS),
    )
    return BenchResult("timing", cases, "2 M commands/s; ResNet-18 within 1 s")


def resnet18_program() -> tuple[Any, Any]:
    """ResNet-18 with random weights on the digital chip of the compile benchmark, and that chip."""
    import numpy as np

    from insitu.arch.load import load_chip
    from insitu.bench.compile import CHIP, OVERRIDES
    from insitu.bench.networks import resnet18
    from insitu.flow.chain import build, capture
    from insitu.frontend.onnx import import_model

    chip = load_chip(CHIP, overrides=OVERRIDES)
    graph = capture(import_model(resnet18()))
    data = {"x": np.random.default_rng(0).standard_normal((1, 1, 3, 224, 224), np.float32)}
    return build(graph, chip, calibration=data)[2], chip


def repeated(program: Any, times: int) -> Any:
    """The program's commands `times` times in a row, in every section."""
    from insitu.isa.calls import written_out
    from insitu.isa.program import Command
    from insitu.isa.setup import setup_length

    sections: list[Any] = []
    for section in written_out(program).sections:
        first, last = setup_length(section.code), section.code.index(Command("HALT"))
        body = (Command("LOOP", (times,)), *section.code[first:last], Command("ENDL"))
        sections.append(replace(section, code=(*section.code[:first], *body, Command("HALT"))))
    return replace(program, sections=tuple(sections))
