"""Fusion keeps what a network computes, and leaves the nodes it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.compiler import canonicalize, fuse
from insitu.frontend.onnx import import_model, import_onnx
from insitu.graph.export import float_session
from insitu.graph.graph import Graph
from insitu.graph.verify import verify
from tests.graph.networks import model, node, random_model, run_onnx

REAL = ("mlperf_tiny", "kws_arm", "cifar_resnet")


def compiled(proto: onnx.ModelProto) -> Graph:
    graph = import_model(proto)
    for step in (canonicalize.run, fuse.run):
        graph = verify(step(verify(graph)))
    return graph


def assert_close(got: np.ndarray, want: np.ndarray, *, what: object = "") -> None:
    peak = float(np.abs(want).max()) or 1.0
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 2e-5 * max(peak, 1.0), what


@given(seed=st.integers(0, 2**32 - 1))
def test_import_and_passes_keep_the_numbers(seed: int) -> None:
    proto, shape = random_model(seed)
    x = np.random.default_rng(seed).normal(size=(3, *shape)).astype(np.float32)
    want = run_onnx(proto, {"x": x})
    captured = verify(import_model(proto))
    normal = verify(canonicalize.run(captured))
    for graph in (captured, normal, verify(fuse.run(normal))):
        assert graph.outputs == captured.outputs
        session = float_session(graph)
        got = session({"x": x[:, None]})
        for name, array in zip(graph.outputs, want, strict=True):
            assert_close(got[name][:, 0], array, what=(seed, name))


@pytest.mark.parametrize("folder", REAL)
def test_real_networks(folder: str, shared_data: Path) -> None:
    for path in sorted((shared_data / folder).glob("*.onnx")):
        graph = import_onnx(path)
        fused = verify(fuse.run(canonicalize.run(graph)))
        name = graph.inputs[0]
        x = np.random.default_rng(0).normal(size=(4, *graph.types[name].sizes())).astype(np.float32)
        original = onnx.load(path)
        want = run_onnx(original, {original.graph.input[0].name: x[:, 0]})[0]
        for each in (graph, fused):
            assert_close(float_session(each)({name: x})[graph.outputs[0]][:, 0], want, what=path.name)
        assert not {n.op for n in fused.nodes} & {"Relu", "Clip", "BatchNormalization", "Gemm"}, path.name


def conv_model(*tail: onnx.NodeProto, output: str, **tensors: np.ndarray) -> onnx.ModelProto:
    w = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    head = node("Conv", ["x", "w"], ["c"])
    return model([head, *tail], inputs={"x": ["N", 3, 6, 6]}, outputs=[output], tensors={"w": w, **tensors})


def test_chain_becomes_one_layer() -> None:
    four = np.arange(1, 5, dtype=np.float32)
    proto = conv_model(
        node("BatchNormalization", ["c", "s", "s", "s", "s"], ["n"]),
        node("Mul", ["n", "m"], ["p"]),
        node("Relu", ["p"], ["y"]),
        output="y",
        s=four,
        m=four.reshape(4, 1, 1),
    )
    (layer,) = compiled(proto).nodes
    assert (layer.op, layer.output, layer.attrs["act_lo"]) == ("Conv", "y", 0.0)
    assert "act_hi" not in layer.attrs
    assert len(layer.inputs) == 3


def test_activations_in_a_row_meet() -> None:
    proto = conv_model(
        node("Relu", ["c"], ["r"]), node("Clip", ["r", "lo", "hi"], ["y"]), output="y",
        lo=np.float32(-1), hi=np.float32(6),
    )  # fmt: skip
    (layer,) = compiled(proto).nodes
    assert (layer.attrs["act_lo"], layer.attrs["act_hi"]) == (0.0, 6.0)


def test_value_with_two_readers_is_left_alone() -> None:
    proto = conv_model(node("Relu", ["c"], ["r"]), node("Add", ["c", "r"], ["y"]), output="y")
    assert [n.op for n in compiled(proto).nodes] == ["Conv", "Relu", "Add"]


def test_output_is_not_absorbed() -> None:
    w = np.ones((4, 3, 3, 3), np.float32)
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["y"])]
    graph = compiled(model(nodes, inputs={"x": ["N", 3, 6, 6]}, outputs=["c", "y"], tensors={"w": w}))
    assert [n.op for n in graph.nodes] == ["Conv", "Relu"]


def test_activation_moves_before_pool_and_reshape() -> None:
    proto = conv_model(
        node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["f"]),
        node("Relu", ["f"], ["y"]),
        output="y",
    )
    graph = compiled(proto)
    assert [(n.op, n.attr("act_lo")) for n in graph.nodes] == [("Conv", 0.0), ("MaxPool", None), ("Reshape", None)]
    assert graph.nodes[-1].output == "y"


def test_scale_after_an_activation_stays() -> None:
    proto = conv_model(node("Relu", ["c"], ["r"]), node("Mul", ["r", "m"], ["y"]), output="y", m=np.float32([2]))
    assert [n.op for n in compiled(proto).nodes] == ["Conv", "Mul"]


def test_padding_of_zeros_goes_into_the_convolution() -> None:
    w, pads = np.ones((4, 3, 3, 3), np.float32), np.array([0, 0, 1, 0, 0, 0, 2, 3])
    nodes = [node("Pad", ["x", "pads"], ["p"]), node("Conv", ["p", "w"], ["y"], pads=[1, 1, 1, 1])]
    inputs = {"x": ["N", 3, 6, 6]}
    (layer,) = compiled(model(nodes, inputs=inputs, outputs=["y"], tensors={"w": w, "pads": pads})).nodes
    assert layer.attrs["pads"] == (2, 1, 3, 4)


@pytest.mark.parametrize(("inclusive", "own", "merges"), [(1, 1, True), (0, 0, True), (0, 1, False)])
def test_padding_goes_into_an_average_only_where_zeros_count(inclusive: int, own: int, merges: bool) -> None:
    pads = np.array([0, 0, 1, 1, 0, 0, 0, 0])
    attrs = {"kernel_shape": [3, 3], "pads": [own] * 4, "count_include_pad": inclusive}
    nodes = [node("Pad", ["x", "pads"], ["p"]), node("AveragePool", ["p"], ["y"], **attrs)]
    proto = model(nodes, inputs={"x": ["N", 2, 6, 6]}, outputs=["y"], tensors={"pads": pads})
    graph = compiled(proto)
    assert len(graph.nodes) == (1 if merges else 2)
    x = np.random.default_rng(0).normal(size=(2, 2, 6, 6)).astype(np.float32)
    assert_close(float_session(graph)({"x": x[:, None]})["y"][:, 0], run_onnx(proto, {"x": x})[0])


def test_pure() -> None:
    proto, _ = random_model(7)
    graph = canonicalize.run(import_model(proto))
    before = str(graph)
    fuse.run(graph)
    assert str(graph) == before
