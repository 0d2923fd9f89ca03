"""Networks that decide as they run: branches, places and ranges that come from values, on the whole line."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from insitu.arch.load import load_chip
from insitu.backend import CHIP
from insitu.compiler.pipeline import compile_graph
from insitu.frontend.general import General, import_general
from insitu.graph.interpret import interpret
from insitu.graph.ops.float import needed
from insitu.isa.check import check_program
from insitu.isa.container import program_bytes, program_from_bytes
from insitu.isa.program import Program
from insitu.isa.semantics import run as run_reference
from insitu.sim.arms import conditions
from insitu.sim.functional import load, run
from insitu.sim.timing import simulate_time

F, I64, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def model(nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], **constants: Any) -> onnx.ModelProto:
    held = [onnx.numpy_helper.from_array(np.asarray(c), n) for n, c in constants.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializer=held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    made.ir_version = 10
    return made


def body(name: str, nodes: list[onnx.NodeProto], out: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(out, F, None)])


def deploy(made: onnx.ModelProto, samples: dict[str, np.ndarray]) -> tuple[General, Program, dict[str, Any]]:
    """Compile for the first sample; run all at once; every value, the reference and ONNX Runtime say the same."""
    general = import_general(made, {n: a[0] for n, a in samples.items()})
    chip = load_chip(CHIP)
    program = compile_graph(general.graph, chip)
    check_program(program)
    assert program_from_bytes(program_bytes(program)) == program
    seen: dict[str, np.ndarray] = {}
    fed = {general.inputs[n]: a for n, a in samples.items()}
    found = run(load(program), fed, observe=lambda n, a: seen.__setitem__(n, a.copy()))
    wanted: dict[str, np.ndarray] = {}
    interpret(general.graph, fed, observe=lambda n, a: wanted.__setitem__(n, a))
    makers = {v: n for n in general.graph.nodes for v in n.outputs}
    for name, got in seen.items():
        if name in makers:
            mask = needed(makers[name], {**fed, **wanted})
            rows = slice(None) if mask is None else mask
            assert np.array_equal(wanted[name][rows], got[rows]), name
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = {}
    for i in range(len(next(iter(samples.values())))):
        ort = session.run(None, {n: np.asarray(a[i]) for n, a in samples.items()})
        reference = run_reference(program, {n: np.asarray(a[i]) for n, a in fed.items()})
        for (name, inner), array in zip(general.outputs, ort, strict=True):
            assert np.allclose(found[inner][i], array, rtol=1e-5, atol=1e-6), name
            assert np.array_equal(reference[inner].astype(found[inner].dtype), found[inner][i]), name
            outputs[name] = found[inner]
    assert simulate_time(program, chip).latency_ps > 0
    return general, program, outputs


def ops(program: Program) -> list[str]:
    return [c.op for s in program.sections for c in s.code]


CHOICE = model(
    [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "limit"], ["large"]),
        helper.make_node(
            "If", ["large"], ["picked"],
            then_branch=body(
                "a", [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Relu", ["p"], ["r"])], "r"
            ),
            else_branch=body("b", [helper.make_node("Neg", ["x"], ["n"])], "n"),
        ),
        helper.make_node("Add", ["picked", "x"], ["y"]),
    ],
    [value("x", F, 2, 3)], [value("y", F, 2, 3)],
    limit=np.float32(0), w=np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32),
)  # fmt: skip


def test_both_branches_are_compiled_and_each_sample_takes_one() -> None:
    x = np.stack([np.full((2, 3), v, np.float32) for v in (1, -2, 3)])
    general, program, _ = deploy(CHOICE, {"x": x})
    assert general.host_ops == ()
    assert ops(program).count("PRED") == ops(program).count("ENDP") == 2  # neighbours share a block
    assert {"MVM", "SEL"} <= set(ops(program))
    (condition,), chip = conditions(program), load_chip(CHIP)
    macs = {v: simulate_time(program, chip, taken={condition: v}).counts.total["macs"] for v in (0, 1)}
    assert macs == {0: 0, 1: 2 * 3 * 3}, "the product stands in the branch for 1"
    assert simulate_time(program, chip).counts.total["macs"] == 18


def test_a_branch_that_is_not_taken_does_nothing_wrong() -> None:
    """The place is outside unless the condition holds: nobody looks there."""
    made = model(
        [
            helper.make_node("Less", ["at", "size"], ["inside"]),
            helper.make_node(
                "If", ["inside"], ["y"],
                then_branch=body("a", [helper.make_node("Gather", ["x", "at"], ["g"], axis=0)], "g"),
                else_branch=body("b", [helper.make_node("Mul", ["far", "far"], ["f"])], "f"),
            ),
        ],
        [value("x", F, 4, 2), value("at", I64), value("far", F, 2)], [value("y", F, 2)], size=np.int64(4),
    )  # fmt: skip
    x = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    far = np.full((3, 2), 9, np.float32)
    _, _, found = deploy(made, {"x": x, "at": np.array([2, 77, -1]), "far": far})
    assert found["y"].tolist() == [[4, 5], [81, 81], [22, 23]]


def test_a_choice_inside_a_choice() -> None:
    inner = helper.make_node(
        "If", ["small"], ["i"],
        then_branch=body("c", [helper.make_node("Exp", ["x"], ["e"])], "e"),
        else_branch=body("d", [helper.make_node("Abs", ["x"], ["s"])], "s"),
    )  # fmt: skip
    made = model(
        [
            helper.make_node(
                "If", ["go"], ["y"],
                then_branch=body("a", [inner, helper.make_node("Add", ["i", "x"], ["t"])], "t"),
                else_branch=body("b", [helper.make_node("Neg", ["x"], ["n"])], "n"),
            ),
        ],
        [value("x", F, 5), value("go", B), value("small", B)], [value("y", F, 5)],
    )  # fmt: skip
    x = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    go, small = np.array([True, True, False, False]), np.array([True, False, True, False])
    _, program, _ = deploy(made, {"x": x, "go": go, "small": small})
    assert ops(program).count("PRED") >= 4


def test_a_cache_that_grows_at_a_place_of_the_run() -> None:
    """Rows of a key cache written at the step's own place, then read whole."""
    made = model(
        [
            helper.make_node("ScatterND", ["cache", "step", "key"], ["kept"]),
            helper.make_node("MatMul", ["query", "kept"], ["scores"]),
        ],
        [value("cache", F, 6, 4), value("step", I64, 1, 1), value("key", F, 1, 4), value("query", F, 2, 6)],
        [value("kept", F, 6, 4), value("scores", F, 2, 4)],
    )
    draw = np.random.default_rng(3)
    samples = {
        n: draw.normal(size=(3, *s)).astype(np.float32)
        for n, s in (("cache", (6, 4)), ("key", (1, 4)), ("query", (2, 6)))
    }
    general, program, _ = deploy(made, {**samples, "step": np.array([0, 5, 3]).reshape(3, 1, 1)})
    assert general.host_ops == ()
    assert "SCATTER" in ops(program)


def test_codes_by_the_range_of_the_data() -> None:
    """A product of dynamically quantized data with 8-bit weights, as exporters write it."""
    w = (
        np.random.default_rng(4).integers(-63, 64, (8, 3)).astype(np.int8)
    )  # larger ones saturate in ONNX Runtime on AVX2
    made = model(
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["acc"]),
            helper.make_node("Cast", ["acc"], ["real"], to=F),
            helper.make_node("Mul", ["s", "ws"], ["scale"]),
            helper.make_node("Mul", ["real", "scale"], ["y"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["again"]),
        ],
        [value("x", F, 2, 8)], [value("y", F, 2, 3), value("again", F, 2, 8)],
        w=w, wz=np.int8(0), ws=np.float32(0.01),
    )  # fmt: skip
    draw = np.random.default_rng(5)
    x = (draw.normal(size=(4, 2, 8)) * np.array([0, 1e-3, 1, 1e4]).reshape(4, 1, 1)).astype(np.float32)
    general, program, found = deploy(made, {"x": x})
    assert general.host_ops == ()
    assert {"QDYN", "DQ"} <= set(ops(program))
    ranges = np.maximum(x.max((1, 2)), 0) - np.minimum(x.min((1, 2)), 0)
    assert (np.abs(found["again"] - x).max((1, 2)) <= ranges / 255 * 0.51).all()


@pytest.mark.parametrize("batch", [1, 2])
def test_rows_appended_to_a_cache(batch: int) -> None:
    """ONNX's TensorScatter: one sequence by a descriptor that is moved, several by their indices."""
    graph = helper.make_graph(
        [helper.make_node("TensorScatter", ["cache", "new", "at"], ["y"], axis=1)], "net",
        [value("cache", F, batch, 6, 3), value("new", F, batch, 2, 3), value("at", I64, batch)],
        [value("y", F, batch, 6, 3)],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)])
    draw = np.random.default_rng(6)
    cache, new = (draw.normal(size=(3, batch, n, 3)).astype(np.float32) for n in (6, 2))
    at = draw.integers(0, 5, (3, batch))
    general = import_general(made, {"cache": cache[0], "new": new[0], "at": at[0]})
    program = compile_graph(general.graph, load_chip(CHIP))
    check_program(program)
    assert ("SETD" in ops(program)) == (batch == 1)
    assert ("SCATTER" in ops(program)) == (batch > 1)
    fed = {general.inputs[n]: a for n, a in (("cache", cache), ("new", new), ("at", at))}
    got = run(load(program), fed)[general.outputs[0][1]]
    wanted = cache.copy()
    for i, b in np.ndindex(3, batch):
        wanted[i, b, at[i, b] : at[i, b] + 2] = new[i, b]
    assert np.array_equal(got, wanted)
    for i in range(3):
        reference = run_reference(program, {n: np.asarray(a[i]) for n, a in fed.items()})
        assert np.array_equal(reference[general.outputs[0][1]].astype(np.float32), got[i])
