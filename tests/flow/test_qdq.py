"""Models that come quantized: random QDQ graphs on the whole line, ONNX's operators one by one, what is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from insitu.base.errors import ModelError
from insitu.compiler import given
from insitu.flow.agreement import between
from insitu.flow.chain import Deployment, Options, capture, deploy
from insitu.flow.check import reference
from insitu.flow.data import load_samples
from insitu.frontend.onnx import import_model
from tests.flow.line import chip_of
from tests.flow.qdq import qdq_model
from tests.flow.qdq_line import Run, run
from tests.graph.networks import node

Array = np.ndarray[Any, Any]
EXACT = ("exact", "exact-small", "exact-unsigned", "exact-joined")
GRAPHS = 50
BAR = 0.9999
FAST = Options(physics="ideal", instances=1, check=1)
DTYPES = ("uint8", "int8", "uint16", "int16")


# random graphs


def totals(runs: Sequence[Run]) -> tuple[int, float, int]:
    """(values compared with ONNX Runtime, share that is equal, largest difference)."""
    agreed = [(r.values, r.agreed) for r in runs if r.agreed is not None]
    values = sum(v for v, _ in agreed)
    equal = sum(v * a.equal_fraction for v, a in agreed)
    return values, equal / max(values, 1), max((a.max_difference for _, a in agreed), default=0)


def check(seeds: Sequence[int], chips: Sequence[str]) -> None:
    runs: list[Run] = []
    for seed in seeds:
        proto, inputs = qdq_model(seed)
        one = run(proto, chip_of(chips[seed % len(chips)]), inputs["x"], samples=2)
        assert one.exact.mismatches == 0, (seed, one.exact.first)
        runs.append(one)
    values, equal, apart = totals(runs)
    assert values > 1000 * len(runs)
    assert equal >= BAR
    assert apart <= 1


def test_random_graphs_give_onnx_runtimes_integers() -> None:
    check(range(1000, 1008), EXACT)


@pytest.mark.slow
def test_many_random_graphs() -> None:
    """tools/acceptance_qdq.py takes three hundred on every readout."""
    check(range(GRAPHS), EXACT)


@pytest.mark.parametrize("chip", ["adc-small", "wtm2101-small"])
def test_random_graphs_on_readouts_that_round(chip: str) -> None:
    """Simulator and interpreter agree; where scales stay the model's, operators outside the arrays are ONNX's."""
    for seed in (2, 5, 9):
        proto, inputs = qdq_model(seed)
        one = run(proto, chip_of(chip), inputs["x"], samples=1)
        assert one.exact.mismatches == 0
        assert (one.agreed is None) == (chip == "wtm2101-small")
        assert one.agreed is None or (one.agreed.equal_fraction >= BAR and one.agreed.max_difference <= 1)


# ONNX's operators one by one


def one_model(
    nodes: Sequence[onnx.NodeProto],
    x: Array,
    out: Any,
    tensors: Mapping[str, Any],
    *,
    others: Mapping[str, Array] | None = None,
) -> onnx.ModelProto:
    """A model of these nodes from "x" to "y"."""
    feeds = {"x": x, **(others or {})}
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()
    ]
    end = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(out)), None)
    weights = [
        a if isinstance(a, onnx.TensorProto) else numpy_helper.from_array(np.asarray(a), n) for n, a in tensors.items()
    ]
    graph = helper.make_graph(list(nodes), "one", infos, [end], weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def by_insitu(proto: onnx.ModelProto, feeds: Mapping[str, Array], folder: Path) -> tuple[Array, Deployment]:
    """The output of a deployment in the model's own type, for inputs in the model's own types."""
    onnx.save(proto, folder / "one.onnx")
    deployment = deploy(folder / "one.onnx", chip_of("exact"), options=FAST)
    session = deployment.session
    assert session is not None
    inputs = load_samples({k: v[None] for k, v in feeds.items()}, deployment.captured).inputs
    codes = session.run_codes(session.codes(inputs))["y"][0].astype(np.int64)
    spec = session.spec("y")
    if proto.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
        return ((codes - spec.zero_point) * spec.scales(codes.ndim)).astype(np.float32), deployment
    return codes, deployment


def by_onnx(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> Array:
    """ONNX's reference, or ONNX Runtime for operators of its own."""
    if any(n.domain for n in proto.graph.node):
        import onnxruntime as ort

        session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, dict(feeds))[0])
    return np.asarray(ReferenceEvaluator(proto).run(None, dict(feeds))[0])


def same(proto: onnx.ModelProto, feeds: Mapping[str, Array], folder: Path) -> Deployment:
    got, deployment = by_insitu(proto, feeds, folder)
    wanted = by_onnx(proto, feeds)
    assert np.array_equal(got.reshape(wanted.shape), wanted.astype(got.dtype))
    assert deployment.result.calibration == "model"
    exact = deployment.result.bit_exact
    assert exact is not None
    assert exact.mismatches == 0
    return deployment


def reals(step: float) -> Array:
    """Numbers of all sizes, ties between codes and what saturates."""
    x = (np.random.default_rng(1).normal(size=(1, 4, 48)) * 40).astype(np.float32)
    x[0, 0] = (np.arange(48) - 24 + 0.5) * np.float32(step)
    x[0, 1, :3] = [1e6, -1e6, 0.0]
    return x


def all_codes(dtype: str, *shape: int, seed: int = 0) -> Array:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [None, 1])
def test_quantize_and_dequantize_alone(dtype: str, axis: int | None, tmp_path: Path) -> None:
    scale: Any = np.float32(0.3) if axis is None else np.array([0.1, 0.3, 0.5, 0.07], np.float32)
    tensors = {"s": scale, "z": np.full(np.shape(scale), 3, dtype)}
    attrs = {} if axis is None else {"axis": axis}
    quantize, back = node("QuantizeLinear", ["x", "s", "z"], ["y"], **attrs), ["x", "s", "z"]
    same(one_model([quantize], reals(0.3), dtype, tensors), {"x": reals(0.3)}, tmp_path)
    x = all_codes(dtype, 1, 4, 48)
    same(one_model([node("DequantizeLinear", back, ["y"], **attrs)], x, np.float32, tensors), {"x": x}, tmp_path)


@pytest.mark.parametrize("kind", [onnx.TensorProto.INT4, onnx.TensorProto.UINT4])
def test_four_bit_codes(kind: int, tmp_path: Path) -> None:
    zero = helper.make_tensor("z", kind, [], [1])
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    proto = one_model(nodes, reals(2.0), np.float32, {"s": np.float32(2.0), "z": zero})
    deployment = same(proto, {"x": reals(2.0)}, tmp_path)
    assert deployment.captured.type("y").quant is not None


@pytest.mark.parametrize("scales", [(0.3, 0.2), (0.1, 0.2), (0.02, 0.5), (0.5, 0.25)])
def test_codes_to_other_codes(scales: tuple[float, float], tmp_path: Path) -> None:
    """0.3 / 0.2 is 1.5 in float32, so every other code is a tie."""
    tensors = {"s": np.float32(scales[0]), "z": np.uint8(7), "t": np.float32(scales[1]), "w": np.int8(-5)}
    nodes = [node("DequantizeLinear", ["x", "s", "z"], ["r"]), node("QuantizeLinear", ["r", "t", "w"], ["y"])]
    x = np.arange(256, dtype=np.uint8)[None]
    same(one_model(nodes, x, np.int8, tensors), {"x": x}, tmp_path)


@pytest.mark.parametrize("zero", [0, 5])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_integer_products(dtype: str, zero: int, tmp_path: Path) -> None:
    """Weights whose distance from the zero point no cell holds take two rows."""
    x, w = all_codes("uint8", 2, 12), all_codes(dtype, 12, 7, seed=1)
    tensors = {"w": w, "a": np.uint8(120), "b": np.full(7, zero, dtype)}
    proto = one_model([node("MatMulInteger", ["x", "w", "a", "b"], ["y"])], x, np.int32, tensors)
    same(proto, {"x": x}, tmp_path)
    x, w = all_codes("uint8", 1, 4, 7, 6), all_codes(dtype, 6, 2, 3, 3, seed=2)
    tensors = {"w": w, "a": np.uint8(3), "b": np.asarray(zero, dtype)}
    conv = node("ConvInteger", ["x", "w", "a", "b"], ["y"], pads=[1, 0, 1, 1], strides=[2, 1], group=2)
    same(one_model([conv], x, np.int32, tensors), {"x": x}, tmp_path)


def test_linear_convolution_and_product(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x, w = all_codes("uint8", 1, 3, 9, 9), all_codes("int8", 5, 3, 3, 3, seed=1)
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    tensors: dict[str, Any] = {"w": w, "xs": np.float32(0.02), "xz": np.uint8(120), "yz": np.uint8(127)}
    tensors |= {"ws": rng.uniform(0.01, 0.02, 5).astype(np.float32), "wz": np.zeros(5, np.int8), "ys": np.float32(0.11)}
    bias = {"b": rng.integers(-9999, 9999, 5).astype(np.int32)}
    conv = node("QLinearConv", [*names, "b"], ["y"], pads=[1, 1, 1, 1])
    same(one_model([conv], x, np.uint8, {**tensors, **bias}), {"x": x}, tmp_path)
    x = all_codes("uint8", 4, 12)
    tensors |= {"w": all_codes("int8", 12, 7), "ws": np.float32(0.013), "wz": np.int8(3)}
    same(one_model([node("QLinearMatMul", names, ["y"])], x, np.uint8, tensors), {"x": x}, tmp_path)


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"])
def test_operators_of_onnx_runtime(op: str, tmp_path: Path) -> None:
    x, other = all_codes("uint8", 1, 256), all_codes("uint8", 1, 256, seed=1)
    tensors = {"xs": np.float32(0.02), "xz": np.uint8(120), "ws": np.float32(0.013), "wz": np.uint8(3)}
    tensors |= {"ys": np.float32(0.0053), "yz": np.uint8(11)}
    two = op in ("QLinearAdd", "QLinearMul")
    names = ["x", "xs", "xz", *(["w", "ws", "wz"] if two else []), "ys", "yz"]
    attrs = {"axis": -1, "opset": 13} if op == "QLinearSoftmax" else {}
    others = {"w": other} if two else {}
    used = {n: a for n, a in tensors.items() if n in names}
    proto = one_model([node(op, names, ["y"], domain="com.microsoft", **attrs)], x, np.uint8, used, others=others)
    got, deployment = by_insitu(proto, {"x": x, **others}, tmp_path)
    assert np.abs(got - by_onnx(proto, {"x": x, **others})).max() <= 1
    agreed = deployment.result.onnx_agreement
    assert agreed is not None
    assert agreed.equal_fraction >= BAR
    assert agreed.max_difference <= 1


# what is refused, what is said


def dense(bits: str = "uint8", *, weights: Array | None = None) -> onnx.ModelProto:
    """x -> Q -> DQ -> MatMul -> Q -> DQ -> y."""
    w = np.arange(-6, 6, dtype=np.int8).reshape(4, 3) if weights is None else weights
    tensors = {"s": np.float32(0.05), "z": np.asarray(3, bits), "w": w, "ws": np.float32(0.01), "wz": w.dtype.type(0)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["r"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["v"]),
        node("MatMul", ["r", "v"], ["p"]),
        node("QuantizeLinear", ["p", "s", "z"], ["t"]),
        node("DequantizeLinear", ["t", "s", "z"], ["y"]),
    ]
    return one_model(nodes, np.zeros((1, 200, 4), np.float32), np.float32, tensors)


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 0, 0]])
def test_results_between_two_codes_are_not_counted(pads: list[int], tmp_path: Path) -> None:
    """An average of four codes that keeps its scale is one in a quarter of all cases; float noise decides there."""
    x = all_codes("uint8", 1, 4, 24, 24)
    tensors = {"s": np.float32(0.1), "z": np.uint8(7)}
    nodes = [
        node("DequantizeLinear", ["x", "s", "z"], ["r"]),
        node("AveragePool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], pads=pads),
        node("QuantizeLinear", ["p", "s", "z"], ["y"]),
    ]
    onnx.save(one_model(nodes, x, np.uint8, tensors), tmp_path / "net.onnx")
    deployment = deploy(tmp_path / "net.onnx", chip_of("exact"), options=FAST)
    session, agreed = deployment.session, deployment.result.onnx_agreement
    assert session is not None
    assert agreed is not None
    assert agreed.equal_fraction == 1.0
    codes = {"x": x[None].astype(np.int64)}
    values = {**codes, **reference(session.graph, codes)}
    share = between(session.graph, "y", values).mean()
    assert 0.15 < share < 0.35


def test_sixteen_bit_codes_cannot_drive_eight_bit_rows() -> None:
    with pytest.raises(ModelError, match="16 bits drive a weight layer"):
        given.run(capture(import_model(dense("uint16"))), chip_of("exact"))


def test_codes_that_nothing_scales_are_refused() -> None:
    proto = dense()
    proto.graph.node[1].input[0] = "x"
    with pytest.raises(ModelError, match="which has no scale"):
        import_model(proto)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_scales_that_are_none(scale: float) -> None:
    proto = dense()
    next(t for t in proto.graph.initializer if t.name == "s").CopyFrom(numpy_helper.from_array(np.float32(scale), "s"))
    with pytest.raises(ModelError, match="positive ones"):
        import_model(proto)


def test_own_scales_are_reported_and_re_derived_where_chips_only_shift(tmp_path: Path) -> None:
    onnx.save(dense(), tmp_path / "net.onnx")
    kept = deploy(tmp_path / "net.onnx", chip_of("exact"), options=FAST).result
    assert kept.calibration == "model"
    assert kept.extra["scales"]["calibrated_values"] == 0
    assert kept.onnx_agreement is not None
    other = deploy(tmp_path / "net.onnx", chip_of("wtm2101"), options=FAST).result
    assert other.calibration == "random"
    assert other.onnx_agreement is None
    assert other.extra["scales"]["source"].startswith("re-derived")


def test_weights_keep_all_their_codes(tmp_path: Path) -> None:
    """-128 too, which our own quantization leaves out; and an int32 bias that float32 does not hold."""
    w = np.array([[-128, 127, 1], [0, -128, 5], [3, 2, 1], [-1, 0, 7]], np.int8)
    proto = dense(weights=w)
    bias = np.array([16777217, -16777219, 123], np.int32)
    scale = np.float32(0.05) * np.float32(0.01)
    proto.graph.initializer.extend([numpy_helper.from_array(bias, "b"), numpy_helper.from_array(scale, "bs")])
    proto.graph.node[3].output[0] = "m"
    proto.graph.node.insert(4, node("Add", ["m", "c"], ["p"]))
    proto.graph.node.insert(3, node("DequantizeLinear", ["b", "bs"], ["c"]))
    onnx.save(proto, tmp_path / "net.onnx")
    deployment = deploy(tmp_path / "net.onnx", chip_of("exact"), options=FAST)
    assert deployment.session is not None
    graph = deployment.session.graph
    layer = next(n for n in graph.nodes if n.op == "MatMul")
    assert np.array_equal(graph.constants[layer.inputs[1]], w)
    zero = graph.type(layer.inputs[0]).quant
    assert zero is not None
    assert np.array_equal(graph.constants[layer.inputs[2]] + zero.zero_point * w.sum(axis=0, dtype=np.int64), bias)


def test_integers_are_taken_as_they_are_only_where_the_model_takes_integers() -> None:
    float_input = capture(import_model(dense()))
    x = np.tile(np.array([3, 4, 5, 255]), (1, 200, 1))
    whole = load_samples({"x": x}, float_input)
    assert np.array_equal(whole.inputs["x"].reshape(-1), x.reshape(-1))
    coded = dense()
    del coded.graph.node[0]
    coded.graph.node[0].input[0] = "x"
    coded.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    graph = capture(import_model(coded))
    taken = load_samples({"x": x}, graph)
    assert np.allclose(taken.inputs["x"].reshape(-1, 4), np.array([0, 1, 2, 252]) * 0.05)


def test_a_dynamic_model_keeps_its_weights() -> None:
    w = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z", "wz"], ["i"]),
        node("Cast", ["i"], ["f"], to=1),
        node("Mul", ["s", "ws"], ["m"]),
        node("Mul", ["f", "m"], ["p"]),
        node("Add", ["p", "b"], ["y"]),
    ]
    tensors = {"w": w, "wz": np.int8(0), "ws": np.float32(0.02), "b": np.ones(3, np.float32)}
    proto = one_model(nodes, np.zeros((1, 4), np.float32), np.float32, tensors)
    graph = given.run(capture(import_model(proto)), chip_of("exact"))
    (layer,) = graph.nodes
    spec = given.given_weights(graph, layer)
    assert spec is not None
    assert spec.scale == (float(np.float32(0.02)),)
    assert np.array_equal(given.weight_steps(graph.constants[layer.inputs[1]], spec), w)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_weights_that_are_rounded_in_the_file(dtype: str) -> None:
    """As QAT exports write them: real weights through Q and DQ, turned behind that."""
    real = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    scale, zero = np.array([0.01, 0.02, 0.03], np.float32), np.full(3, 128 if dtype == "uint8" else 0, dtype)
    proto = dense()
    del proto.graph.node[2]
    proto.graph.node.insert(2, node("Transpose", ["d"], ["v"]))
    proto.graph.node.insert(2, node("DequantizeLinear", ["c", "ws", "wz"], ["d"], axis=0))
    proto.graph.node.insert(2, node("QuantizeLinear", ["w", "ws", "wz"], ["c"], axis=0))
    del proto.graph.initializer[:]
    tensors = {"s": np.float32(0.05), "z": np.uint8(3), "w": real, "ws": scale, "wz": zero}
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in tensors.items())
    graph = given.run(capture(import_model(proto)), chip_of("exact"))
    layer = next(n for n in graph.nodes if n.op == "MatMul")
    spec = given.given_weights(graph, layer)
    assert spec is not None
    assert (spec.bits, spec.axis) == (8, 1)
    codes = np.clip(np.rint(real / scale[:, None]), -128, 127)
    assert np.array_equal(given.weight_steps(graph.constants[layer.inputs[1]], spec), codes.T)


def test_specs_stay_in_the_text_of_a_captured_graph() -> None:
    from insitu.graph.text import parse_graph, print_graph, same_graph

    graph = capture(import_model(qdq_model(4)[0], name="net"))
    assert given.given(graph)
    assert same_graph(parse_graph(print_graph(graph, weights=True)), graph)
    assert not given.given(replace(graph, level="quantized"))
