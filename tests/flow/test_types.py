"""What later work stands on, run through the whole line: state, sizes bound at run time, sections, products of two
run-time operands, weights by shape, samples beside a hardware batch, grids of tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from insitu.algo import ptq
from insitu.base.errors import DataError, ModelError, ProgramError
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.quantize import quantize
from insitu.flow.chain import capture
from insitu.flow.check import compare
from insitu.graph.graph import Graph, Node, State, const_type
from insitu.graph.interpret import interpret
from insitu.graph.text import parse_graph, print_graph, same_graph
from insitu.graph.types import TensorType
from insitu.graph.verify import verify
from insitu.isa import semantics
from insitu.isa.check import check_program
from insitu.isa.program import load_program, save_program
from insitu.runtime.session import Session
from insitu.sim.counts import count
from insitu.sim.functional import load
from insitu.sim.timing import simulate_time
from tests.flow.line import FULL, captured, check_network, check_semantics, chip_of, inputs_of, ops_of
from tests.graph.networks import model, node


def graph_of(nodes, *, inputs, outputs, types, constants=None, states=()):
    """A captured graph by hand."""
    constants = {n: np.asarray(a, np.float32) for n, a in (constants or {}).items()}
    kinds = {n: TensorType(s, "f32") for n, s in types.items()} | {n: const_type(a) for n, a in constants.items()}
    return verify(Graph("net", "captured", inputs, outputs, tuple(nodes), kinds, constants, states))


def recurrent(seed=0):
    """h' = relu(x W + h U + b), y = h' V; and a shift register of two inputs, whose oldest entry is added."""
    rng = np.random.default_rng(seed)
    tables = {"w": (6, 8), "u": (8, 8), "v": (8, 6), "b": (8,), "c": (8,), "d": (6,)}
    constants = {n: rng.standard_normal(s) / np.sqrt(s[0]) for n, s in tables.items()}
    nodes = (
        Node("in", "MatMul", ("x", "w", "b"), ("a",)),
        Node("again", "MatMul", ("h", "u", "c"), ("r",)),
        Node("sum", "Add", ("a", "r"), ("s",)),
        Node("relu", "Relu", ("s",), ("h2",)),
        Node("out", "MatMul", ("h2", "v", "d"), ("z",)),
        Node("old", "Add", ("z", "x2"), ("y",)),
    )
    shapes = {"x": (1, 6), "a": (1, 8), "h": (1, 8), "r": (1, 8), "s": (1, 8), "h2": (1, 8), "z": (1, 6), "y": (1, 6)}
    states = (State("h", "h2"), State("x1", "x"), State("x2", "x1"))
    return graph_of(
        nodes, inputs=("x",), outputs=("y",), types=shapes | {"x1": (1, 6), "x2": (1, 6)}, constants=constants,
        states=states,
    )  # fmt: skip


def rolled(graph: Graph, steps: int, *, samples: int = 4) -> Mapping[str, np.ndarray]:
    """Calibration data of a recurrent network: inputs and the states they meet."""
    from insitu.graph.export import float_session

    run, rng = float_session(graph), np.random.default_rng(1)
    states = {s.input: np.zeros((samples, *graph.type(s.input).sizes()), np.float32) for s in graph.states}
    rows = []
    for _ in range(steps):
        feeds = {
            **states,
            **{n: rng.standard_normal((samples, *graph.type(n).sizes()), np.float32) for n in graph.inputs},
        }
        rows.append(feeds)
        values = {**feeds, **run(feeds)}
        states = {s.input: values[s.output] for s in graph.states}
    return {n: np.concatenate([r[n] for r in rows]) for n in rows[0]}


@pytest.mark.parametrize("chip", FULL)
def test_state_is_carried_from_step_to_step(chip, tmp_path):
    graph = capture(recurrent())
    data = rolled(graph, 12)
    plan = ptq.plan(graph, chip_of(chip), data=data)
    quantized = verify(quantize(graph, chip_of(chip), plan=plan))
    assert same_graph(parse_graph(print_graph(quantized, weights=True)), quantized)
    program = compile_graph(quantized, chip_of(chip))
    check_program(program)
    session = Session(load_program(save_program(program, tmp_path / "net.insitu")))
    xs = np.random.default_rng(3).standard_normal((7, 3, 1, 6)).astype(np.float32)  # steps, samples
    states = {
        s.input: np.full((3, *quantized.type(s.input).sizes()), session.spec(s.input).zero_point) for s in graph.states
    }
    first = None
    for x in xs:
        codes = session.codes({"x": x})
        wanted = interpret(quantized, {**states, **codes})
        values = semantics.run(
            program, {"x": codes["x"][0]}, states={n: s[0] for n, s in states.items()}, observe=list(states)
        )
        got = session.step({"x": codes["x"]})["y"]
        assert np.array_equal(np.rint(got / session.spec("y").scale[0]) + session.spec("y").zero_point, wanted["y"])
        known = {**codes, **states, **wanted}
        states = {s.input: known[s.output] for s in quantized.states}
        for name, value in states.items():
            assert np.array_equal(session.states[name], value), name
            assert np.array_equal(values[name], value[0]), name
        first = got if first is None else first
    assert not np.array_equal(session.step({"x": xs[0]})["y"], first)  # the past matters
    session.reset()
    assert np.array_equal(session.step({"x": xs[0]})["y"], first)


def test_samples_of_a_program_with_state_stay_the_same_ones():
    graph = capture(recurrent())
    quantized = quantize(graph, chip_of("exact"), plan=ptq.plan(graph, chip_of("exact"), data=rolled(graph, 4)))
    session = Session(compile_graph(quantized, chip_of("exact")))
    session.step(np.zeros((3, 1, 6), np.float32))
    with pytest.raises(DataError, match="3, those whose state is kept"):
        session.step(np.zeros((2, 1, 6), np.float32))


# sizes bound at run time


def rows_network():
    """MatMul and Relu over L rows, heads split off and put back, a residual, softmax."""
    rng = np.random.default_rng(2)
    constants = {
        "w": rng.standard_normal((12, 8)) / 3,
        "b": rng.standard_normal(8),
        "v": rng.standard_normal((8, 12)) / 3,
    }
    nodes = (
        Node("up", "MatMul", ("x", "w", "b"), ("a",)),
        Node("relu", "Relu", ("a",), ("r",)),
        Node("split", "Reshape", ("r",), ("s",), {"shape": (1, "L", 2, 4)}),
        Node("heads", "Transpose", ("s",), ("t",), {"perm": (0, 2, 1, 3)}),
        Node("act", "Mul", ("t", "t"), ("m",)),
        Node("back", "Transpose", ("m",), ("u",), {"perm": (0, 2, 1, 3)}),
        Node("join", "Reshape", ("u",), ("j",), {"shape": (1, "L", 8)}),
        Node("down", "MatMul", ("j", "v", "d"), ("k",)),
        Node("add", "Add", ("k", "x"), ("n",)),
        Node("soft", "Softmax", ("n",), ("y",), {"axis": 2}),
    )
    shapes = {"x": (1, "L", 12), "a": (1, "L", 8), "r": (1, "L", 8), "s": (1, "L", 2, 4), "t": (1, 2, "L", 4)}
    shapes |= {"m": (1, 2, "L", 4), "u": (1, "L", 2, 4), "j": (1, "L", 8), "k": (1, "L", 12), "n": (1, "L", 12)}
    return graph_of(
        nodes,
        inputs=("x",),
        outputs=("y",),
        types=shapes | {"y": (1, "L", 12)},
        constants=constants | {"d": np.zeros(12)},
    )


def rows_program(chip, most=128):
    graph = capture(rows_network())
    x = np.random.default_rng(0).standard_normal((8, 1, 32, 12)).astype(np.float32)
    plan = ptq.plan(graph.bind({"L": 32}), chip, data={"x": x})
    quantized = verify(quantize(graph, chip, plan=plan))
    program = compile_graph(quantized, chip, sizes={"L": most})
    check_program(program)
    return quantized, program


@pytest.mark.parametrize("chip", FULL)
def test_a_size_is_bound_at_run_time(chip, tmp_path):
    quantized, program = rows_program(chip_of(chip))
    assert program.sizes == {"L": 128}
    loaded = load_program(save_program(program, tmp_path / "net.insitu"))
    open_session = Session(loaded)
    rng = np.random.default_rng(4)
    for size in (1, 17, 128, 2):
        x = rng.standard_normal((3, 1, size, 12)).astype(np.float32)
        session = Session(loaded, sizes={"L": size})
        codes = session.codes(x)
        exact = compare(session, codes)
        assert exact.mismatches == 0, exact.first
        assert np.array_equal(open_session.run(codes)["y"], session.run(codes)["y"])
    size = 3
    bound = quantized.bind({"L": size})
    check_semantics(loaded.bind({"L": size}), bound, {"x": codes["x"][0][:, :1].repeat(size, axis=1)})


def test_counts_of_open_sizes_are_those_of_bound_ones():
    chip = chip_of("exact")
    _, program = rows_program(chip)
    symbolic = count(program, chip)
    for size in (1, 17, 128):
        bound = program.bind({"L": size})
        assert symbolic.at({"L": size}) == count(bound, chip) == simulate_time(bound, chip).counts
    assert str(symbolic.total["macs"]) == "192*L"


def test_sizes_that_cannot_be_are_refused():
    chip = chip_of("exact")
    quantized, program = rows_program(chip)
    with pytest.raises(ModelError, match="L without a bound"):
        compile_graph(quantized, chip)
    with pytest.raises(DataError, match="129; needs 1 to 128"):
        Session(program, sizes={"L": 129})
    session = Session(program)
    for shape in ((2, 1, 129, 12), (2, 1, 0, 12), (2, 12), (2, 1, 5, 11)):
        with pytest.raises(DataError):
            session.run(np.zeros(shape, np.float32))
    with pytest.raises(ProgramError, match="not bound"):
        load(program)


# a product of two run-time operands


def attention():
    nodes = [
        node("MatMul", ["x", "q"], ["Q"]),
        node("MatMul", ["x", "k"], ["K"]),
        node("Transpose", ["K"], ["T"], perm=[0, 2, 1]),
        node("MatMul", ["Q", "T"], ["S"]),
        node("Mul", ["S", "scale"], ["D"]),
        node("Softmax", ["D"], ["P"], axis=-1),
        node("MatMul", ["P", "x"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    tensors = {n: (rng.standard_normal((6, 4)) / 2).astype(np.float32) for n in "qk"}
    return captured(
        model(nodes, inputs={"x": ["N", 5, 6]}, outputs=["y"], tensors=tensors | {"scale": np.float32(0.5)})
    )


@pytest.mark.parametrize("chip", ["exact", "adc", "exact-small", "exact-unsigned"])
def test_two_run_time_operands_are_multiplied(chip, tmp_path):
    program = check_network(attention(), chip_of(chip), tmp_path)
    assert "MMA" in ops_of(program)


def test_heads_of_an_attention_are_leading_dimensions(tmp_path):
    nodes = [
        node("Reshape", ["x", "s"], ["h"]),
        node("Transpose", ["h"], ["a"], perm=[0, 2, 1, 3]),
        node("Transpose", ["h"], ["b"], perm=[0, 2, 3, 1]),
        node("MatMul", ["a", "b"], ["y"]),
    ]
    tensors = {"s": np.array([0, 5, 3, 4], np.int64)}
    graph = captured(model(nodes, inputs={"x": ["N", 5, 12]}, outputs=["y"], tensors=tensors))
    assert "MMA" in ops_of(check_network(graph, chip_of("exact"), tmp_path))


def test_a_chip_without_the_capability_says_so():
    graph, chip = attention(), chip_of("wtm2101")
    with pytest.raises(ModelError, match=r"'S_node' \(MatMul\).*capability mma, which wtm2101 lacks"):
        compile_graph(quantize(graph, chip, plan=ptq.plan(graph, chip, data=inputs_of(graph, 8))), chip)


# weights by shape


@pytest.mark.parametrize("chip", FULL)
def test_a_program_without_weight_data_is_counted_but_not_run(chip, tmp_path):
    chip = chip_of(chip)
    graph = captured(
        model(
            [node("Conv", ["x", "w"], ["a"]), node("Relu", ["a"], ["y"])], inputs={"x": ["N", 3, 6, 6]}, outputs=["y"],
            tensors={"w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)},
        )
    )  # fmt: skip
    program = check_network(graph, chip, tmp_path, slow=False)
    shapes = replace(program, weights={n: replace(w, data=None) for n, w in program.weights.items()})
    loaded = load_program(save_program(shapes, tmp_path / "shapes.insitu"))
    assert loaded == shapes
    assert all(w.data is None for w in loaded.weights.values())
    check_program(loaded)
    assert count(loaded, chip) == count(program, chip)
    assert simulate_time(loaded, chip).latency_ps == simulate_time(program, chip).latency_ps
    with pytest.raises(ProgramError, match="known by shape only"):
        Session(loaded)


# samples and hardware batch


@pytest.mark.parametrize("chip", FULL)
def test_a_hardware_batch_of_two_runs_any_number_of_samples(chip, tmp_path):
    """Leading dimension 2 in the model itself: one run computes both; samples are further runs."""
    rng = np.random.default_rng(0)
    tensors = {"w": rng.standard_normal((4, 3, 3, 3)), "v": rng.standard_normal((4, 5))}
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["c"], ["d"]),
        node("Flatten", ["d"], ["e"]),
        node("MatMul", ["e", "v"], ["y"]),
    ]
    tensors = {n: (t / 3).astype(np.float32) for n, t in tensors.items()}
    graph = captured(model(nodes, inputs={"x": [2, 3, 6, 6]}, outputs=["y"], tensors=tensors))
    assert graph.type("y").sizes() == (2, 5)
    program = check_network(graph, chip_of(chip), tmp_path)
    session = Session(program)
    x = session.codes(inputs_of(graph, 5))["x"]
    together = session.run({"x": x})["y"]
    assert together.shape == (5, 2, 5)
    for samples in (1, 2, 3):
        assert np.array_equal(session.run({"x": x[:samples]})["y"], together[:samples])
    twice = session.run({"x": x[:, ::-1]})["y"]
    assert np.array_equal(twice, together[:, ::-1])  # the two rows of a batch do not mix


# one binding, many macros


def test_one_binding_is_a_grid_of_tiles_over_many_macros(tmp_path):
    rng = np.random.default_rng(0)
    nodes = [node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
    w = (rng.standard_normal((20, 12, 3, 3)) / 10).astype(np.float32)
    graph = captured(model(nodes, inputs={"x": ["N", 12, 4, 4]}, outputs=["y"], tensors={"w": w}))
    program = check_network(graph, chip_of("exact-large-core"), tmp_path)
    (section,) = program.sections
    (binding,) = section.bindings
    assert (binding.rows, binding.cols) == (108, 20)
    assert len({t.macro for t in binding.tiles}) == len(binding.tiles) == 4  # 4 row tiles of at most 32 rows
    assert sum(c.op == "MVM" for c in section.code) == 1
    program = check_network(graph, chip_of("exact-unsigned"), tmp_path)
    bindings = [b for s in program.sections for b in s.bindings]
    assert max(len(b.tiles) for b in bindings) == 28  # 7 row tiles times 4 column tiles
