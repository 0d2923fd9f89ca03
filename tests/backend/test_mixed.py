"""Codes and numbers in one graph: a quantized layer, a float operator on the host, codes again."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from insitu.arch.load import load_chip
from insitu.base.errors import ProgramError
from insitu.compiler.pipeline import compile_graph
from insitu.flow.check import compare
from insitu.graph.graph import Graph, Node, const_type
from insitu.graph.interpret import interpret
from insitu.graph.text import parse_graph, print_graph
from insitu.graph.types import TensorType
from insitu.graph.verify import verify
from insitu.isa.assembler import parse_section, print_section
from insitu.isa.check import check_program
from insitu.isa.container import program_bytes, program_from_bytes
from insitu.isa.host import encode_model, run_host
from insitu.isa.semantics import run as run_reference
from insitu.numeric.affine import QuantSpec
from insitu.runtime.session import Session
from insitu.sim.energy import energy
from insitu.sim.functional import load, run
from insitu.sim.timing import simulate_time

CODES = TensorType((2, 4), "i8", QuantSpec(8, True, (0.05,)))
NUMBERS = TensorType((2, 4), "f32")
KINDS = {"i8": TensorProto.INT8, "f32": TensorProto.FLOAT}


def host(op: str, x: str, y: str, types: dict[str, TensorType], **attrs: object) -> Node:
    """One operator for the host; Q and DQ with the scale and zero point of CODES."""
    more = {"QuantizeLinear": ["s", "z"], "DequantizeLinear": ["s", "z"]}.get(op, [])
    made = helper.make_node(op, [x, *more], [y], **attrs)
    ends = [helper.make_tensor_value_info(v, KINDS[types[v].dtype], types[v].shape) for v in (x, y)]
    tensors = [
        helper.make_tensor("s", TensorProto.FLOAT, [], [0.05]),
        helper.make_tensor("z", TensorProto.INT8, [], [0]),
    ]
    graph = helper.make_graph([made], "one", ends[:1], ends[1:], initializer=tensors[: len(more)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    return Node(y, "Host", (x,), (y,), {"operator": op, "model": encode_model(model.SerializeToString())})


def mixed() -> Graph:
    """x -> Add(x, x) -> DQ -> Softmax -> Q -> Mul: the middle three on the host."""
    types = {"x": CODES, "a": CODES, "f": NUMBERS, "g": NUMBERS, "q": CODES, "y": CODES}
    add = {"scale_a": 1, "scale_b": 1, "multiplier": 1, "shift": 1, "lo": -128, "hi": 127}
    mul = {"multiplier": 1, "shift": 3, "lo": -128, "hi": 127}
    nodes = (
        Node("a", "Add", ("x", "x"), ("a",), add),
        host("DequantizeLinear", "a", "f", types),
        host("Softmax", "f", "g", types, axis=1),
        host("QuantizeLinear", "g", "q", types),
        Node("y", "Mul", ("q", "a"), ("y",), mul),
    )
    return Graph("mixed", "quantized", ("x",), ("y",), nodes, types)


X = np.random.default_rng(3).integers(-128, 128, (3, 2, 4)).astype(np.int8)


@pytest.mark.parametrize("chip", ["dcim-28nm", "parametric-reram-adc8"])
def test_host_operators_stand_between_codes_on_a_chip_without_floats(chip: str) -> None:
    graph = verify(mixed())
    program = compile_graph(graph, load_chip(chip))
    check_program(program)
    assert program.meta["host_ops"] == {"DequantizeLinear": 1, "QuantizeLinear": 1, "Softmax": 1}
    assert program.meta["excluded_values"] == 24
    wanted = interpret(graph, {"x": X})["y"]
    assert np.array_equal(run(load(program), {"x": X})["y"], wanted)
    for sample, codes in zip(X, wanted, strict=True):
        assert np.array_equal(run_reference(program, {"x": sample})["y"], codes)


def test_sessions_run_it_and_the_check_leaves_the_host_out() -> None:
    program = compile_graph(mixed(), load_chip("dcim-28nm"))
    session = Session(program)
    found = compare(session, {"x": X})
    assert (found.mismatches, found.checked_values, found.excluded_values) == (0, 3 * 16, 3 * 24)
    codes = session.run({"x": X})["y"]
    assert np.array_equal(codes, interpret(session.graph, {"x": X})["y"])


def test_numbers_pass_through_sessions_as_they_are() -> None:
    types = {"x": NUMBERS, "y": NUMBERS}
    graph = Graph("float", "quantized", ("x",), ("y",), (Node("y", "V1", ("x",), ("y",), {"fn": "tanh"}),), types)
    session = Session(compile_graph(graph, load_chip("conformance-fp32")))
    x = np.linspace(-2, 2, 8).reshape(1, 2, 4)
    assert np.allclose(session.run(x)["y"], np.tanh(x), rtol=1e-6)
    assert session.run(x)["y"].dtype == np.float32


def test_the_program_its_graph_and_its_assembly_read_back() -> None:
    graph = mixed()
    program = compile_graph(graph, load_chip("dcim-28nm"))
    assert program_bytes(program_from_bytes(program_bytes(program))) == program_bytes(program)
    assert print_graph(parse_graph(program.graph)) == print_graph(graph)
    [section] = program.sections
    assert parse_section(print_section(section)) == section


def test_host_work_takes_time_and_energy_that_are_marked_as_assumed() -> None:
    chip = load_chip("dcim-28nm")
    program = compile_graph(mixed(), chip)
    timing = simulate_time(program, chip)
    assert timing.busy_ps["chip0.host"] == 6 * 8 * 8 * 5000
    assert timing.counts.total["host_values"] == 48
    found = energy(timing.counts, timing, chip)
    assert found.components["host"].source == "assumed"
    assert "host" in found.components["host"].note or "microcontroller" in found.components["host"].note


def test_a_host_operator_is_one_operator_without_files() -> None:
    made = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    ends = [helper.make_tensor_value_info(v, TensorProto.FLOAT, [2]) for v in "xy"]
    two = helper.make_model(helper.make_graph(made, "two", ends[:1], ends[1:]))
    with pytest.raises(ProgramError, match="one operator a command"):
        run_host(encode_model(two.SerializeToString()), [np.zeros(2, np.float32)])
    outside = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    outside.data_location = TensorProto.EXTERNAL
    add = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "add", ends[:1], ends[1:], initializer=[outside]
    )
    with pytest.raises(ProgramError, match="another file"):
        run_host(encode_model(helper.make_model(add).SerializeToString()), [np.zeros(2, np.float32)])


def test_numbers_need_a_chip_that_has_them() -> None:
    types = {"x": NUMBERS, "y": NUMBERS}
    graph = Graph("float", "quantized", ("x",), ("y",), (Node("y", "V1", ("x",), ("y",), {"fn": "exp"}),), types)
    program = compile_graph(verify(graph), load_chip("dcim-28nm"))
    with pytest.raises(ProgramError, match="without capability floats"):
        check_program(program)
    check_program(compile_graph(graph, load_chip("conformance-fp32")))


def test_codes_become_numbers_and_codes_again_on_a_chip_with_floats() -> None:
    types = {"x": CODES, "f": NUMBERS, "g": NUMBERS, "r": NUMBERS, "q": CODES, "y": CODES}
    scale = np.float32(0.5)
    types["s"] = const_type(np.asarray(scale))
    nodes = (
        Node("f", "CVT", ("x",), ("f",), {"to": "f32"}),
        Node("g", "V2", ("f", "s"), ("g",), {"fn": "mul"}),
        Node("r", "V1", ("g",), ("r",), {"fn": "round"}),
        Node("q", "CVT", ("r",), ("q",), {"to": "i8"}),
        Node("y", "Mul", ("q", "x"), ("y",), {"multiplier": 1, "shift": 5, "lo": -128, "hi": 127}),
    )
    graph = Graph("there", "quantized", ("x",), ("y",), nodes, types, {"s": np.asarray(scale)})
    program = compile_graph(verify(graph), load_chip("conformance-fp32"))
    check_program(program)
    assert np.array_equal(run(load(program), {"x": X})["y"], interpret(graph, {"x": X})["y"])
