"""Several chips: as few as needed, values copied over links, the same integers; else an answer that says how many."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.algo import ptq
from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import InfeasibleError
from insitu.bench.networks import Network
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.quantize import quantize
from insitu.flow.chain import capture
from insitu.flow.check import compare
from insitu.frontend.onnx import import_model
from insitu.graph.graph import Graph
from insitu.isa import semantics
from insitu.isa.check import check_program
from insitu.isa.program import Program
from insitu.runtime.session import Session
from insitu.sim.counts import count
from insitu.sim.timing import check_trace, simulate_time

SMALL = {
    "exact": ("dcim-28nm", ("array.rows=16", "array.cols=8", "core.macros=3", "chip.tiles=2")),
    "exact-one-core": ("dcim-28nm", ("array.rows=24", "array.cols=8", "core.macros=5", "chip.tiles=1")),
    "adc": (
        "parametric-reram-adc8",
        ("array.rows=18", "array.cols=8", "macro.columns_per_adc=8", "core.macros=6", "chip.tiles=1"),
    ),
    "wtm2101": ("wtm2101", ("array.rows=40", "array.cols=16", "macro.bias_rows=16")),
}


def chip_of(name: str) -> Chip:
    preset, overrides = SMALL[name]
    return load_chip(preset, overrides=overrides)


def dense(width: int = 20) -> Network:
    net = Network("mlp", (1, width))
    x = "x"
    for out in (30, 12, 30, 12, 10):
        x = net.dense(x, out, "Relu")
    return net


def residual() -> Network:
    """Skips that jump over chips, one value read on several, branches joined, pooling."""
    net = Network("residual", (1, 4, 6, 6))
    a = net.conv("x", 8, 3)
    b = net.conv(net.conv(a, 8, 3), 8, 3, act="")
    c = net.add(a, b)
    d = net.concat([net.conv(c, 8, 1), net.conv(c, 8, 3), a])
    e = net.add(net.conv(d, 8, 1), c)
    net.dense(net.average(net.pool(e, 2, stride=2)), 10)
    return net


def quantized(net: Network, chip: Chip) -> Graph:
    last = list(net.shapes)[-1]
    graph = capture(import_model(net.model(last), name=net.name))
    data = {"x": np.random.default_rng(0).standard_normal((8, *net.start)).astype(np.float32)}
    return quantize(graph, chip, plan=ptq.plan(graph, chip, data=data))


def checked(graph: Graph, program: Program) -> None:
    check_program(program)
    session = Session(program, graph=graph)
    spec = session.spec("x")
    shape = graph.type("x").sizes()
    codes = {
        "x": np.random.default_rng(1)
        .integers(spec.lo, spec.hi + 1, (3, *shape))
        .astype(graph.type("x").dtype.replace("u", "uint") if spec.lo >= 0 else "int8")
    }
    result = compare(session, codes)
    assert result.mismatches == 0, result.first
    one = semantics.run(program, {"x": codes["x"][0]})
    ours = session.run_codes({"x": codes["x"][:1]})
    assert all((one[name] == ours[name][0]).all() for name in session.outputs)


@pytest.mark.parametrize("net", [dense, residual])
@pytest.mark.parametrize("name", SMALL)
def test_a_network_larger_than_the_chip_runs_on_several(name: str, net) -> None:
    chip = chip_of(name)
    graph = quantized(net(), chip)
    program = compile_graph(graph, chip, max_chips=40)
    assert program.chips == program.meta["chips"] > 1
    assert program.chips >= program.meta["chips_at_least"]
    assert set(program.spaces) == {"ram", *(f"ram@{i}" for i in range(1, program.chips))}
    checked(graph, program)
    timing = simulate_time(program, chip, trace=True)
    assert check_trace(timing.spans) == []
    total = count(program, chip).total
    assert total["link_bytes"] > 0
    links = chip.system.links
    busy = sum(v for unit, v in timing.busy_ps.items() if unit.endswith(".link"))
    assert busy >= total["link_bytes"] / links.bandwidth * 1e12


def test_a_layer_larger_than_a_chip_is_cut_by_columns() -> None:
    chip = chip_of("exact-one-core")  # 960 weights
    net = Network("wide", (1, 24))
    net.dense(net.dense("x", 90, "Relu"), 6)
    graph = quantized(net, chip)
    program = compile_graph(graph, chip, max_chips=8)
    chips = {s.chip for s in program.sections for b in s.bindings if b.label == graph.nodes[0].name}
    assert len(chips) >= 3
    assert program.meta["fan_in"][graph.nodes[0].name] == 24
    checked(graph, program)


def test_one_chip_is_used_where_one_does() -> None:
    chip = load_chip("dcim-28nm")
    program = compile_graph(quantized(residual(), chip), chip, max_chips=9)
    assert program.chips == 1
    assert set(program.spaces) == {"ram"}


def test_too_few_chips_say_how_many_may_do() -> None:
    chip = chip_of("adc")
    with pytest.raises(InfeasibleError) as error:
        compile_graph(quantized(dense(), chip), chip, max_chips=1)
    [item] = error.value.items
    assert item.resource == "cells"
    assert item.demand > item.bound == chip.capacity
    assert item.filled_by
    assert len(item.ways_out) >= 3
    assert item.ways_out[0].startswith("spread it over several chips: --max-chips ")
    enough = int(item.ways_out[0].split()[-1])
    assert compile_graph(quantized(dense(), chip), chip, max_chips=enough + 1).chips >= enough


def test_feature_maps_that_do_not_fit_are_an_answer() -> None:
    chip = load_chip("dcim-28nm", overrides=["memories.ram.size=64 B"])
    with pytest.raises(InfeasibleError) as error:
        compile_graph(quantized(residual(), chip), chip, max_chips=4)
    [item] = error.value.items
    assert (item.resource, item.bound, item.unit) == ("memory ram", 64.0, "B")
    assert item.demand > 64
    assert item.filled_by
    assert len(item.ways_out) >= 2


def test_the_same_graph_gives_the_same_program() -> None:
    from insitu.isa.container import program_bytes

    chip = chip_of("exact")
    graph = quantized(residual(), chip)
    a, b = (program_bytes(compile_graph(graph, chip, max_chips=9)) for _ in range(2))
    assert a == b
