"""ONNX out of graphs: valid, batched where samples cannot mix, and the float reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.base.errors import DataError, ModelError
from insitu.compiler import canonicalize, fuse
from insitu.frontend.onnx import import_model
from insitu.graph.batch import batch_axes
from insitu.graph.export import export_onnx, float_session
from insitu.graph.graph import Graph, Node, State
from insitu.graph.interpret import interpret
from insitu.graph.types import TensorType
from insitu.graph.verify import verify
from insitu.numeric.affine import QuantSpec, dequantize, multiplier_of, quantize
from tests.graph.networks import model, node, random_model, run_onnx


@given(seed=st.integers(0, 2**32 - 1))
def test_export_is_valid_and_imports_again(seed: int) -> None:
    proto, shape = random_model(seed)
    graph = import_model(proto)
    for each in (graph, fuse.run(canonicalize.run(graph))):
        out = export_onnx(each)
        onnx.checker.check_model(out, full_check=True)
        again = import_model(out)
        assert again.outputs == each.outputs
        x = np.random.default_rng(seed).normal(size=(2, 1, *shape)).astype(np.float32)
        a, b = float_session(each)({"x": x}), float_session(again)({"x": x})
        for name in each.outputs:
            assert np.allclose(a[name], b[name], atol=1e-5 * max(1.0, float(np.abs(a[name]).max())))


def test_batched_equals_one_by_one() -> None:
    counts = {True: 0, False: 0}
    for seed in range(40):
        proto, shape = random_model(seed)
        graph = fuse.run(canonicalize.run(import_model(proto)))
        exposed = [n.output for n in graph.nodes]
        x = np.random.default_rng(seed).normal(size=(5, 1, *shape)).astype(np.float32)
        together = float_session(graph, exposed, block=3)
        many = together({"x": x})
        alone = float_session(graph, exposed)
        alone.axes = None  # type: ignore[attr-defined]
        one = alone({"x": x})
        counts[together.axes is not None] += 1  # type: ignore[attr-defined]
        for name in exposed:
            assert many[name].shape == (5, *graph.types[name].shape)
            assert np.allclose(many[name], one[name], atol=1e-4 * max(1.0, float(np.abs(one[name]).max()))), (
                seed,
                name,
            )
    assert counts[True] > 35


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("ReduceMean", ["t"], ["y"], axes=[1])],
        [node("Reshape", ["x", "merge"], ["r"]), node("Softmax", ["r"], ["y"], axis=0)],
        [node("Concat", ["x", "x"], ["y"], axis=0)],
        [node("Concat", ["x", "table"], ["y"], axis=1)],
    ],
)
def test_samples_that_would_mix_run_one_by_one(nodes: list[onnx.NodeProto]) -> None:
    tensors = {"merge": np.array([3, 4]), "table": np.ones((1, 2, 4), np.float32)}
    proto = model(nodes, inputs={"x": [1, 3, 4]}, outputs=["y"], tensors=tensors)
    graph = import_model(proto)
    assert batch_axes(graph) is None
    x = np.random.default_rng(0).normal(size=(3, 1, 3, 4)).astype(np.float32)
    got = float_session(graph)({"x": x})["y"]
    for i in range(3):
        assert np.allclose(got[i], run_onnx(proto, {"x": x[i]})[0], atol=1e-6)


def test_the_batch_moves_with_transposes() -> None:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node("MatMul", ["t", "w"], ["m"]),
        node("Relu", ["m"], ["y"]),
    ]
    w = np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)
    graph = import_model(model(nodes, inputs={"x": ["N", 3, 4]}, outputs=["y"], tensors={"w": w}))
    assert batch_axes(graph) == {"x": 0, "t": 1, "m": 1, "y": 1}
    x = np.random.default_rng(0).normal(size=(3, 1, 3, 4)).astype(np.float32)
    got = float_session(graph)({"x": x})["y"]
    assert np.allclose(got, np.maximum(x.transpose(0, 2, 1, 3) @ w, 0), atol=1e-6)


def test_session_falls_back_where_batched_differs() -> None:
    graph = import_model(model([node("Softmax", ["x"], ["y"], axis=0)], inputs={"x": ["N", 4]}, outputs=["y"]))
    session = float_session(graph)
    session.axes = {"x": 0, "y": 0}  # type: ignore[attr-defined]  # as if the analysis had been wrong
    got = session({"x": np.ones((3, 1, 4), np.float32)})["y"]
    assert np.all(got == 1.0)


def test_states_are_inputs_and_outputs() -> None:
    kind = TensorType((1, 2), "f32")
    nodes = (Node("a", "Add", ("x", "s"), ("t",)),)
    graph = Graph("g", "captured", ("x",), ("t",), nodes, dict.fromkeys("xst", kind), states=(State("s", "t"),))
    one = np.ones((2, 1, 2), np.float32)
    assert np.all(float_session(verify(graph))({"x": one, "s": 2 * one})["t"] == 3)


def test_wrong_arrays_are_named() -> None:
    graph = import_model(model([node("Relu", ["x"], ["y"])], inputs={"x": ["N", 4]}, outputs=["y"]))
    with pytest.raises(DataError, match="'x': no array"):
        float_session(graph)({})
    with pytest.raises(DataError, match=r"an array 3x5.*1x4"):
        float_session(graph)({"x": np.ones((3, 5))})
    with pytest.raises(ModelError, match="no such value"):
        export_onnx(graph, expose=["nothing"])


def test_same_bytes_at_any_thread_count() -> None:
    graph = import_model(random_model(5)[0])
    x = np.random.default_rng(0).normal(size=(40, *graph.types["x"].sizes())).astype(np.float32)
    one, two = (float_session(graph, threads=n)({"x": x}) for n in (1, 2))
    assert all(one[v].tobytes() == two[v].tobytes() for v in graph.outputs)


# quantized graphs


def coded(shape: tuple[int, ...], scale: float = 0.1, zero: int = 0, *, signed: bool = True) -> TensorType:
    return TensorType(shape, "i8" if signed else "u8", QuantSpec(8, signed, (scale,), zero))


def quantized_convolution(*, axis: int | None = None) -> Graph:
    """A small convolution with a ReLU, then a mean, as integers."""
    rng = np.random.default_rng(0)
    scales = (0.1, 0.05) if axis is not None else (0.1,)
    x = TensorType((1, 2, 5, 5), "i8", QuantSpec(8, True, scales, -4, axis))
    w, sw = rng.integers(-127, 128, (3, 2, 3, 3)).astype(np.int8), np.array([0.01, 0.02, 0.03])
    y = coded((1, 3, 5, 5), 0.2, -128)
    bias = rng.integers(-500, 500, 3) + 4 * w.astype(np.int64).sum(axis=(1, 2, 3))
    m, r = multiplier_of(0.1 * sw / 0.2)
    conv = Node("conv", "Conv", ("x", "w", "b", "m", "r"), ("y",), {
        "readout": "exact", "lo": -128, "hi": 100, "pads": (1, 1, 1, 1), "strides": (1, 1),
    })  # fmt: skip
    mm, mr = multiplier_of(0.2 / (25 * 0.2))
    mean = Node("mean", "ReduceMean", ("y",), ("z",), {
        "axes": (2, 3), "keepdims": 1, "multiplier": int(mm[0]), "shift": int(mr[0]), "lo": -128, "hi": 127,
    })  # fmt: skip
    types = {"x": x, "y": y, "z": coded((1, 3, 1, 1), 0.2, -128), **dict.fromkeys("bmr", TensorType((3,), "i64"))}
    types["w"] = TensorType(w.shape, "i8", QuantSpec(8, True, tuple(sw), 0, 0))
    constants = {"w": w, "b": bias, "m": m, "r": r}
    return verify(Graph("q", "quantized", ("x",), ("z",), (conv, mean), types, constants))


@pytest.mark.parametrize("axis", [None, 1])
def test_qdq_form_is_close_to_the_integers(axis: int | None) -> None:
    graph = quantized_convolution(axis=axis)
    proto = export_onnx(graph)
    onnx.checker.check_model(proto, full_check=True)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {n.op_type for n in proto.graph.node}
    quant, out = graph.types["x"].quant, graph.types["z"].quant
    assert quant is not None
    assert out is not None
    x = np.random.default_rng(0).normal(size=(6, 1, 2, 5, 5)) * 3
    codes = quantize(x, replace(quant, axis=None if axis is None else axis + 1))
    want = dequantize(interpret(graph, {"x": codes})["z"], out)
    got = float_session(graph)({"x": x.astype(np.float32)})["z"]
    assert np.abs(got - want).max() <= out.scale[0] * 1.01
    by_default = run_onnx(proto, {"x": x[:, 0].astype(np.float32)})[0]
    assert np.abs(by_default - want[:, 0]).max() <= out.scale[0] * 1.01


@pytest.mark.parametrize("chip", ["dcim-28nm", "wtm2101"])
def test_real_network_as_qdq(chip: str, shared_data: Path) -> None:
    from insitu.algo.ptq import plan
    from insitu.arch.load import load_chip
    from insitu.compiler.quantize import quantize as apply
    from insitu.frontend.onnx import import_onnx

    graph = fuse.run(canonicalize.run(import_onnx(shared_data / "kws_arm" / "dnn_s.onnx")))
    data = np.load(shared_data / "kws_arm" / "dnn_s_features.npz")["x"][:64].astype(np.float32)
    x = data.reshape(-1, *graph.types[graph.inputs[0]].sizes())
    target = load_chip(chip)
    name = graph.inputs[0]
    coded_graph = verify(apply(graph, target, plan=plan(graph, target, data={name: x})))
    quant, out = coded_graph.types[name].quant, coded_graph.types[graph.outputs[0]].quant
    assert quant is not None
    assert out is not None
    want = dequantize(interpret(coded_graph, {name: quantize(x, quant)})[graph.outputs[0]], out)
    got = float_session(coded_graph)({name: x})[graph.outputs[0]]
    assert np.mean(got.argmax(-1) == want.argmax(-1)) > 0.9
