"""Objective: the program that the timing simulator finds best among those the compiler proposes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.errors import UsageError, did_you_mean
from insitu.compiler.partition import OBJECTIVES, Objective
from insitu.compiler.pipeline import compilations
from insitu.graph.graph import Graph
from insitu.isa.program import Program
from insitu.sim.steady import steady_state
from insitu.sim.timing import simulate_time


def objective_of(text: str, *, where: str = "--objective") -> Objective:
    """The objective of this name; UsageError where there is none."""
    for known in OBJECTIVES:
        if text == known:
            return known
    raise UsageError(where, text, " or ".join(OBJECTIVES), try_=did_you_mean(text, OBJECTIVES))


def best_program(
    graph: Graph,
    chip: Chip,
    *,
    expected: Mapping[str, npt.NDArray[Any]] | None = None,
    max_chips: int = 1,
    objective: str = "latency",
    search: float = 0.0,
) -> Program:
    """The fastest program of a quantized graph; so copies of layers never make it slower than it is without.

    latency: the shortest inference; throughput: the shortest time between results; cells: nothing is held twice.
    """
    wanted = objective_of(objective)
    made = list(
        compilations(graph, chip, expected=dict(expected or {}), max_chips=max_chips, objective=wanted, search=search)
    )
    if len(made) == 1 or any(program.sizes for program in made):
        return made[0]
    measure = _interval if wanted == "throughput" else _latency
    times = [measure(program, chip) for program in made]
    return made[times.index(min(times))]


def _latency(program: Program, chip: Chip) -> float:
    return simulate_time(program, chip).latency_ps


def _interval(program: Program, chip: Chip) -> float:
    timing = simulate_time(program, chip)
    steady = steady_state(program, chip, timing)
    return timing.latency_ps if steady is None else steady.interval_ps
