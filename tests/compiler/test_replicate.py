"""Copies of layers: legal, bit-exact, never slower, and no choice of copies beats the bound."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insitu.compiler.estimate import Load
from insitu.compiler.partition import allot
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.place import place
from insitu.compiler.replicate import water_fill
from insitu.flow.check import compare
from insitu.graph.graph import Graph
from insitu.isa.check import check_program, find_faults
from insitu.runtime.objective import best_program
from insitu.runtime.session import Session
from insitu.sim.timing import simulate_time
from tests.compiler.test_place import legal
from tests.flow.line import build, captured, chip_of, inputs_of
from tests.graph.networks import model, node


def deep(rng, size=12, group=1):
    """Convolutions wide enough in space that copies pay, with a shortcut, a strided and a depthwise layer."""
    shapes = {"a": (8, 3, 3, 3), "b": (8, 8, 3, 3), "c": (8, 1, 3, 3), "d": (12, 8, 1, 1)}
    nodes = [
        node("Conv", ["x", "a"], ["a0"], pads=[1, 1, 1, 1]),
        node("Relu", ["a0"], ["a1"]),
        node("Conv", ["a1", "b"], ["b0"], pads=[1, 1, 1, 1]),
        node("Add", ["b0", "a1"], ["s"]),
        node("Conv", ["s", "c"], ["c0"], pads=[1, 1, 1, 1], strides=[2, 2], group=8),
        node("Conv", ["c0", "d"], ["d0"]),
        node("GlobalAveragePool", ["d0"], ["g"]),
        node("Flatten", ["g"], ["h"]),
        node("Gemm", ["h", "w"], ["y"], transB=1),
    ]
    tensors = {n: rng.standard_normal(s).astype(np.float32) / np.sqrt(np.prod(s[1:])) for n, s in shapes.items()}
    tensors["w"] = rng.standard_normal((5, 12)).astype(np.float32)
    return captured(model(nodes, inputs={"x": ["N", 3, size, size]}, outputs=["y"], tensors=tensors))


@cache
def quantized(chip: str) -> Graph:
    return build(deep(np.random.default_rng(0)), chip_of(chip))[0]


def mismatches(graph, program, samples=2):
    session = Session(program, graph=graph)
    return compare(session, session.codes(inputs_of(graph, samples, seed=3))).mismatches


@pytest.mark.parametrize("chip", ["exact", "adc"])
@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_copies_are_legal_exact_and_the_same_every_time(chip, objective):
    graph, spec = quantized(chip), chip_of(chip)
    mapping = allot(graph, spec, objective=objective)[1]
    assert mapping.copies
    legal([p for places in mapping.layers.values() for p in places], mapping, chip)
    assert mapping.cells_used == place(graph, spec).cells_used + mapping.copied_cells
    program = compile_graph(graph, spec, objective=objective)
    check_program(program)
    assert mismatches(graph, program) == 0
    assert compile_graph(graph, spec, objective=objective) == program
    assert program.meta["replicas"] == {n: 1 + len(c) for n, c in mapping.copies.items()}
    if objective == "latency":
        assert program.meta["latency_gap"] >= 0


@pytest.mark.parametrize("chip", ["exact", "adc", "exact-small", "exact-joined", "wtm2101"])
def test_copies_never_make_a_program_slower(chip):
    graph, spec = quantized(chip), chip_of(chip)
    plain = simulate_time(compile_graph(graph, spec, objective="cells"), spec).latency_ps
    best = simulate_time(best_program(graph, spec), spec).latency_ps
    assert best <= plain
    if chip in ("exact", "adc"):
        assert best < 0.6 * plain  # four cores


def test_physics_gives_each_copy_cells_of_its_own():
    graph, spec = quantized("adc"), chip_of("adc")
    copied = compile_graph(graph, spec)
    plain = compile_graph(graph, spec, objective="cells")
    codes = Session(plain, graph=graph).codes(inputs_of(graph, 4, seed=1))
    outputs = [Session(p, graph=graph, physics="full", seed=5).run_codes(codes)["y"] for p in (plain, copied)]
    ideal = [Session(p, graph=graph).run_codes(codes)["y"] for p in (plain, copied)]
    assert (ideal[0] == ideal[1]).all()
    assert (outputs[0] != outputs[1]).any()


def test_a_copy_that_lacks_a_tile_is_found():
    """Each binding of a copied layer has to cover its matrix, the copies' like the first one's."""
    program = compile_graph(quantized("exact"), chip_of("exact"))
    [layer, *_] = program.meta["replicas"]
    holders = [s for s in program.sections if any(b.label == layer for b in s.bindings)]
    assert len(holders) == program.meta["replicas"][layer]
    last = holders[-1]
    bindings = tuple(replace(b, tiles=b.tiles[1:]) if b.label == layer else b for b in last.bindings)
    broken = tuple(replace(s, bindings=bindings) if s is last else s for s in program.sections)
    assert {f.rule for f in find_faults(replace(program, sections=broken))} == {"B1"}


def test_a_layer_with_one_position_gets_no_copy():
    assert not any(
        name.startswith("y") for name in compile_graph(quantized("exact"), chip_of("exact")).meta["replicas"]
    )


# the bound

LOADS = st.lists(
    st.tuples(st.floats(1e-6, 1e-3), st.floats(0, 1e-4), st.integers(1, 6), st.integers(1, 50)), min_size=1, max_size=4
)


@settings(max_examples=200, deadline=None)
@given(LOADS, st.integers(0, 200), st.integers(1, 4))
def test_no_choice_of_copies_beats_the_bound(rows, free, cores):
    loads = [Load(f"l{i}", compute, port, positions, cells) for i, (compute, port, positions, cells) in enumerate(rows)]
    bound = water_fill(loads, free, most=cores)
    choices = product(*(range(1, min(cores, load.positions) + 1) for load in loads))
    times = [
        sum(load.seconds(n) for load, n in zip(loads, counts, strict=True))
        for counts in choices
        if sum(load.cells * (n - 1) for load, n in zip(loads, counts, strict=True)) <= free
    ]
    assert bound <= min(times) * (1 + 1e-9)
    if free >= sum(load.cells * (cores - 1) for load in loads):
        assert bound == pytest.approx(min(times))  # and with room for all, it is reached
