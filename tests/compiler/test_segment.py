"""Weights that take turns: the cut is the best one, loads are early, and an early or missing load is noticed."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.algo import ptq
from insitu.arch.load import load_chip
from insitu.base.errors import InfeasibleError, ProgramError
from insitu.bench.networks import Network
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.quantize import quantize
from insitu.compiler.segment import Item, _cut
from insitu.flow.chain import capture
from insitu.flow.check import compare
from insitu.frontend.onnx import import_model
from insitu.graph.graph import Graph
from insitu.isa.check import check_program, find_faults
from insitu.isa.program import Command, Program
from insitu.runtime.session import Session
from insitu.sim.counts import count
from insitu.sim.timing import simulate_time

TINY = ("array.rows=16", "array.cols=8", "core.macros=4", "chip.tiles=2")  # 1,024 weights


def quantized(widths=(24, 40, 30, 20, 10), *, overrides=TINY) -> Graph:
    net = Network("mlp", (1, widths[0]))
    x = "x"
    for width in widths[1:]:
        x = net.dense(x, width, "Relu")
    graph = capture(import_model(net.model(x), name="mlp"))
    data = {"x": np.random.default_rng(0).standard_normal((4, 1, widths[0])).astype(np.float32)}
    chip = load_chip("dcim-28nm", overrides=overrides)
    return quantize(graph, chip, plan=ptq.plan(graph, chip, data=data))


def checked(graph: Graph, program: Program) -> None:
    check_program(program)
    session = Session(program, graph=graph)
    codes = np.random.default_rng(1).integers(-128, 128, (5, *graph.type(graph.inputs[0]).sizes()), dtype=np.int8)
    result = compare(session, {graph.inputs[0]: codes})
    assert result.mismatches == 0, result.first


@pytest.mark.parametrize(
    "overrides",
    [
        TINY,
        (*TINY[:3], "chip.tiles=1"),
        (*TINY[:2], "core.macros=1", "chip.tiles=4"),  # banks are cores
        (*TINY[:2], "core.macros=1", "chip.tiles=1"),  # no banks; rows take turns
        (*TINY[:2], "core.macros=3", "chip.tiles=1"),  # columns need both banks
    ],
)
def test_a_network_larger_than_the_chip_takes_turns(overrides) -> None:
    graph, chip = quantized(overrides=overrides), load_chip("dcim-28nm", overrides=overrides)
    program = compile_graph(graph, chip)
    loads = [c for s in program.sections for c in s.code if c.op == "WLOAD"]
    assert program.meta["segments"] > 1
    assert loads
    checked(graph, program)
    total = count(program, chip).total
    assert total["store_read_bytes"] == program_bytes_of_weights(program)
    assert total["weight_bits"] == 8 * total["store_read_bytes"]
    timing = simulate_time(program, chip)
    assert timing.latency_ps >= timing.busy_ps["chip0.store"]
    assert simulate_time(program, chip, skip=False).latency_ps == timing.latency_ps


def program_bytes_of_weights(program: Program) -> int:
    return sum(program.weights[b.weight].data.size for s in program.sections for b in s.bindings)


def test_a_chip_that_cannot_reload_says_so() -> None:
    overrides = (*TINY, "capabilities.wload=false")
    with pytest.raises(InfeasibleError) as error:
        compile_graph(quantized(), load_chip("dcim-28nm", overrides=overrides))
    assert error.value.items[0].resource == "cells"


def test_cells_that_wear_out_are_an_answer() -> None:
    cell = "{name: weak, kind: sram, bits: 1, nonvolatile: false, area_f2: 150, endurance: 1e9}"
    graph = quantized()
    with pytest.raises(InfeasibleError) as error:
        compile_graph(graph, load_chip("dcim-28nm", overrides=(*TINY, f"cell={cell}")))
    [item] = error.value.items
    assert (item.resource, item.bound) == ("write cycles of a cell", 1e9)
    assert item.demand >= 2e9
    assert len(item.ways_out) == 3


def test_a_missing_load_is_noticed_by_check_and_simulator() -> None:
    graph, chip = quantized(), load_chip("dcim-28nm", overrides=TINY)
    program = compile_graph(graph, chip)
    section = program.sections[0]
    loads = [i for i, c in enumerate(section.code) if c.op == "WLOAD"]
    swapped = list(section.code)
    swapped.insert(loads[0] + 1, swapped.pop(loads[-1]))  # the last matrix is loaded too early
    broken = replace(program, sections=(replace(section, code=tuple(swapped)), *program.sections[1:]))
    assert {f.rule for f in find_faults(broken)} == {"W2"}
    with pytest.raises(ProgramError, match="WLOAD before the MVM"):
        Session(broken, graph=graph).run_codes({"x": np.zeros((1, 1, 24), np.int8)})


def test_loads_overlap_compute() -> None:
    """A convolution works long enough to hide the loading of what follows."""
    net = Network("conv", (1, 8, 24, 24))
    x = "x"
    for _ in range(4):
        x = net.conv(x, 8, 3)
    graph = capture(import_model(net.model(x), name="conv"))
    overrides = ("array.rows=72", "array.cols=8", "core.macros=2", "chip.tiles=1")
    chip = load_chip("dcim-28nm", overrides=overrides)
    data = {"x": np.random.default_rng(0).standard_normal((2, 1, 8, 24, 24)).astype(np.float32)}
    program = compile_graph(quantize(graph, chip, plan=ptq.plan(graph, chip, data=data)), chip)
    resident = load_chip("dcim-28nm", overrides=(*overrides[:2], "core.macros=4", "chip.tiles=1"))
    held = compile_graph(quantize(graph, resident, plan=ptq.plan(graph, resident, data=data)), resident)
    first = 576 / 12.8e9  # only the first matrix is waited for
    more = simulate_time(program, chip).latency - simulate_time(held, resident).latency
    assert 0 < more < 1.2 * first + 20 / chip.chip.clock
    assert program.meta["exposed_load_s"] == pytest.approx(first)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=7), st.integers(1, 4))
def test_the_cut_has_the_least_exposed_loading(times: list[tuple[int, int]], most: int) -> None:
    items = [Item(f"l{i}", (), (), float(load), float(work)) for i, (load, work) in enumerate(times)]
    reach = [([()] * min(most, len(items) - i), False) for i in range(len(items))]
    assert _cut(items, reach).exposed == min(_cost(items, bounds) for bounds in _all_bounds(len(items), most))


def _all_bounds(n: int, most: int) -> list[tuple[int, ...]]:
    inner = [c for k in range(n) for c in combinations(range(1, n), k)]
    every = [(0, *c, n) for c in inner]
    return [b for b in every if all(y - x <= most for x, y in pairwise(b))]


def _cost(items: list[Item], bounds: tuple[int, ...]) -> float:
    cost, hidden = 0.0, 0.0
    for a, b in pairwise(bounds):
        cost += max(0.0, sum(i.load for i in items[a:b]) - hidden)
        hidden = sum(i.compute for i in items[a:b])
    return cost


def test_halt_is_last_and_loads_stand_outside_loops() -> None:
    program = compile_graph(quantized(), load_chip("dcim-28nm", overrides=TINY))
    assert all(s.code[-1] == Command("HALT") for s in program.sections)
