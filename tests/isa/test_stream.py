"""Streamed programs: runs that overlap compute what single runs do, and the static check holds them in order."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from insitu.compiler.pipeline import compilations, compile_graph
from insitu.isa.check import check_program, find_faults
from insitu.isa.program import Program
from insitu.isa.stream import can_stream, contexts_that_fit, run_places, streamed
from insitu.sim.functional import load, run
from insitu.sim.steady import steady_state
from insitu.sim.timing import simulate_time
from tests.flow.line import build, captured, chip_of
from tests.flow.test_sections import residual
from tests.graph.networks import model, node


@cache
def program(chip: str, objective: str = "latency") -> Program:
    return compile_graph(
        build(residual(np.random.default_rng(0)), chip_of(chip))[0], chip_of(chip), objective=objective
    )


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("objective", ["latency", "throughput", "cells"])
def test_overlapping_runs_compute_what_single_runs_do(objective, together):
    single = program("exact", objective)
    check_program(streamed(single, 7, contexts=3, together=together))
    whole = streamed(single, 3, contexts=3, together=together)  # each context once: a run may write over its inputs
    inputs = np.random.default_rng(1).integers(-100, 100, (3, 2, 1, 3, 6, 6)).astype(np.int8)
    found = run(load(whole), {f"x{c}": inputs[i] for i, c in enumerate(("", "#1", "#2"))})
    for i, mark in enumerate(("", "#1", "#2")):
        assert (found[f"y{mark}"] == run(load(single), {"x": inputs[i]})["y"]).all()


def test_each_run_is_all_of_the_program_once():
    single = program("exact")
    whole = streamed(single, 5, contexts=2, together=2)
    for section, places, code in zip(
        single.sections, run_places(single, 5, contexts=2, together=2), whole.sections, strict=True
    ):
        for where in places:
            assert [code.code[i].op for i in where] == [c.op for c in section.code[:-1]]


def test_a_context_is_not_used_again_before_all_are_done_with_it():
    graph = build(residual(np.random.default_rng(0)), chip_of("exact"))[0]
    single = next(p for p in compilations(graph, chip_of("exact"), objective="throughput") if "stage_s" in p.meta)
    whole = streamed(single, 4, contexts=2)  # the first core waits for nobody: it would run ahead
    assert not find_faults(whole)
    gates = 1 + max(int(c.args[0]) for s in single.sections for c in s.code if c.op == "SIG")
    sections = tuple(
        replace(s, code=tuple(c for c in s.code if c.op not in ("SIG", "AWAIT") or int(c.args[0]) < gates))
        for s in whole.sections
    )
    assert {f.rule for f in find_faults(replace(whole, sections=sections))} == {"T4"}


def test_contexts_fit_the_memory():
    single = program("exact")
    size = single.spaces["ram"]
    assert contexts_that_fit(single, size) == 1
    most = contexts_that_fit(single, 3 * size)
    assert most >= 3
    assert streamed(single, 9, contexts=most).spaces["ram"] <= 3 * size + 16


@pytest.mark.parametrize("objective", ["latency", "throughput", "cells"])
@pytest.mark.parametrize("chip", ["exact", "adc", "wtm2101"])
def test_the_steady_state_lies_between_its_bound_and_single_runs(chip, objective):
    single, spec = program(chip, objective), chip_of(chip)
    timing = simulate_time(single, spec)
    steady = steady_state(single, spec, timing)
    assert steady is not None
    assert timing.lower_bound_ps <= steady.interval_ps <= timing.latency_ps
    assert steady.gap >= 0
    if spec.cores == 1:  # one core, one command at a time
        assert steady.interval_ps == pytest.approx(timing.latency_ps, rel=1e-3)
    else:
        assert steady.interval_ps < 0.95 * timing.latency_ps


def test_a_state_keeps_runs_from_overlapping():
    w = np.eye(4, dtype=np.float32)
    graph = captured(
        model([node("MatMul", ["x", "w"], ["y"])], inputs={"x": ["N", 4]}, outputs=["y"], tensors={"w": w})
    )
    single = build(graph, chip_of("exact"))[1]
    assert can_stream(single)
    first = single.symbols[0]
    assert not can_stream(replace(single, symbols=(*single.symbols, replace(first, name="s", kind="state"))))
