"""Normal forms: one way to write each meaning.  That numbers stay is tested with fusion (test_fuse.py)."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from insitu.compiler import canonicalize
from insitu.frontend.onnx import import_model
from insitu.graph.export import float_session
from insitu.graph.graph import Graph
from insitu.graph.verify import verify
from tests.graph.networks import model, node, run_onnx

IMAGE = {"x": ["N", 2, 4, 6]}
ROW = {"x": ["N", 6]}


def normal(proto: onnx.ModelProto, *, batch: bool = True) -> Graph:
    """The normal form, after a check that it gives what ONNX Runtime gives, of one sample where `batch` is not open."""
    graph = verify(canonicalize.run(verify(import_model(proto))))
    name, shape = graph.inputs[0], graph.types[graph.inputs[0]].sizes()
    x = np.random.default_rng(0).normal(size=(3 if batch else 1, *shape)).astype(np.float32)
    want = run_onnx(proto, {proto.graph.input[0].name: x[:, 0] if batch else x[0]})
    got = float_session(graph)({name: x})
    for value, array in zip(graph.outputs, want, strict=True):
        found = got[value][:, 0] if batch else got[value][0]
        assert found.shape == array.shape
        assert np.allclose(found, array, atol=1e-5), value
    return graph


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


def test_convolution_gets_a_bias() -> None:
    w = np.ones((3, 2, 1, 1), np.float32)
    (layer,) = normal(model([node("Conv", ["x", "w"], ["y"])], inputs=IMAGE, outputs=["y"], tensors={"w": w})).nodes
    assert len(layer.inputs) == 3


def test_one_dimensional_convolution_stays_one() -> None:
    w = np.ones((3, 2, 3), np.float32)
    nodes = [node("Conv", ["x", "w"], ["y"], pads=[1, 0], strides=[2])]
    (layer,) = normal(model(nodes, inputs={"x": ["N", 2, 8]}, outputs=["y"], tensors={"w": w})).nodes
    assert (layer.op, layer.attrs["pads"], layer.attrs["strides"]) == ("Conv", (1, 0), (2,))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 4)])
def test_gemm_is_matmul_with_bias(shape: tuple[int, ...]) -> None:
    w, c = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32), np.full(shape, 2, np.float32)
    nodes = [node("Gemm", ["x", "w", "c"], ["y"], transB=1, alpha=0.5, beta=3.0)]
    graph = normal(model(nodes, inputs=ROW, outputs=["y"], tensors={"w": w, "c": c}))
    (layer,) = graph.nodes
    assert layer.op == "MatMul"
    assert graph.types[layer.inputs[1]].shape == (6, 4)
    assert np.all(graph.constants[layer.inputs[2]] == 6)


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize(
    ("given", "weight"),
    [
        ((5, 6), (3, 6, 4)),
        ((3, 5, 6), (3, 6, 4)),
        ((1, 5, 6), (3, 6, 4)),
        ((3, 5, 6), (1, 6, 4)),
        ((2, 3, 5, 6), (3, 6, 4)),
        ((2, 1, 5, 6), (2, 3, 6, 4)),
        ((3, 5, 6), (2, 1, 6, 4)),
        ((5, 6), (1, 1, 6, 4)),
    ],
)
def test_products_with_several_constant_matrices_are_a_layer_each(given, weight, left) -> None:
    w = np.random.default_rng(1).normal(size=weight).astype(np.float32)
    operands = ["x", "w"]
    if left:
        given, w, operands = (*given[:-2], given[-1], given[-2]), w.swapaxes(-1, -2).copy(), ["w", "x"]
    nodes = [node("Reshape", ["v", "shape"], ["x"]), node("MatMul", operands, ["y"])]
    tensors = {"w": w, "shape": np.array(given, np.int64)}
    inputs = {"v": [1, int(np.prod(given))]}
    graph = normal(model(nodes, inputs=inputs, outputs=["y"], tensors=tensors), batch=False)
    layers = [n for n in graph.nodes if n.op == "MatMul"]
    assert len(layers) == np.prod(weight[:-2])
    assert all(graph.constants[n.inputs[1]].ndim == 2 and len(n.inputs) == 3 for n in layers)


def test_a_vector_times_several_constant_matrices() -> None:
    w = np.random.default_rng(1).normal(size=(3, 4, 6)).astype(np.float32)
    nodes = [node("Reshape", ["v", "shape"], ["x"]), node("MatMul", ["w", "x"], ["y"])]
    tensors = {"w": w, "shape": np.array([6], np.int64)}
    normal(model(nodes, inputs={"v": [1, 6]}, outputs=["y"], tensors=tensors), batch=False)


def test_gemm_with_one_bias_per_row_keeps_it_apart() -> None:
    w, c = np.ones((6, 3), np.float32), np.array([[1], [2], [3]], np.float32)
    nodes = [node("Gemm", ["r", "w", "c"], ["g"]), node("Reshape", ["g", "s"], ["y"])]
    tensors = {"w": w, "c": c, "t": np.array([3, 6]), "s": np.array([1, 9])}
    proto = model([node("Reshape", ["x", "t"], ["r"]), *nodes], inputs={"x": [1, 18]}, outputs=["y"], tensors=tensors)
    assert ops(verify(canonicalize.run(import_model(proto)))) == ["Reshape", "MatMul", "Add", "Reshape"]


def test_vector_of_weights() -> None:
    w = np.arange(6, dtype=np.float32)
    graph = normal(model([node("MatMul", ["x", "w"], ["y"])], inputs=ROW, outputs=["y"], tensors={"w": w}))
    assert ops(graph) == ["MatMul", "Reshape"]


def test_weights_on_the_left() -> None:
    w = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    graph = normal(model([node("MatMul", ["w", "x"], ["y"])], inputs=IMAGE, outputs=["y"], tensors={"w": w}))
    assert ops(graph) == ["Transpose", "MatMul", "Transpose"]


def test_batch_norm_alone_is_scale_and_shift() -> None:
    two = np.array([0.5, 2], np.float32)
    nodes = [node("BatchNormalization", ["x", *"ssss"], ["y"])]
    assert ops(normal(model(nodes, inputs=IMAGE, outputs=["y"], tensors={"s": two}))) == ["Mul", "Add"]


@pytest.mark.parametrize(
    "nodes",
    [
        [node("GlobalAveragePool", ["x"], ["y"])],
        [node("AveragePool", ["x"], ["y"], kernel_shape=[4, 6], strides=[2, 2])],
        [node("ReduceMean", ["x"], ["y"], axes=[-1, 2])],
    ],
)
def test_whole_map_averages_are_one_form(nodes: list[onnx.NodeProto]) -> None:
    (mean,) = normal(model(nodes, inputs=IMAGE, outputs=["y"])).nodes
    assert (mean.op, mean.attrs) == ("ReduceMean", {"axes": (2, 3), "keepdims": 1})


def test_global_max_is_a_pool() -> None:
    (pool,) = normal(model([node("GlobalMaxPool", ["x"], ["y"])], inputs=IMAGE, outputs=["y"])).nodes
    assert (pool.op, pool.attrs["kernel_shape"]) == ("MaxPool", (4, 6))


def test_renaming_of_sizes_is_one_reshape() -> None:
    nodes = [
        node("Unsqueeze", ["x", "a"], ["u"]),
        node("Squeeze", ["u", "a"], ["s"]),
        node("Flatten", ["s"], ["f"]),
        node("Reshape", ["f", "t"], ["y"]),
    ]
    tensors = {"a": np.array([1]), "t": np.array([0, 4, -1])}
    (shape,) = normal(model(nodes, inputs=IMAGE, outputs=["y"], tensors=tensors)).nodes
    assert (shape.op, shape.attrs["shape"]) == ("Reshape", (1, 4, 12))


def test_transposes_cancel() -> None:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        node("Transpose", ["t"], ["u"], perm=[0, 3, 1, 2]),
        node("Relu", ["u"], ["y"]),
    ]
    (relu,) = normal(model(nodes, inputs=IMAGE, outputs=["y"])).nodes
    assert relu.inputs == ("x",)


def test_transpose_of_single_channel_is_a_reshape() -> None:
    nodes = [node("Transpose", ["x"], ["y"], perm=[0, 3, 1, 2])]
    assert ops(normal(model(nodes, inputs={"x": ["N", 5, 7, 1]}, outputs=["y"]))) == ["Reshape"]


def test_what_changes_nothing_goes() -> None:
    nodes = [
        node("Pad", ["x", "zero"], ["a"]),
        node("Slice", ["a", "start", "end", "axis"], ["b"]),
        node("Mul", ["b", "one"], ["c"]),
        node("Add", ["nothing", "c"], ["d"]),
        node("Clip", ["d"], ["e"]),
        node("Dropout", ["e"], ["f"]),
        node("Relu", ["f"], ["y"]),
    ]
    tensors = {"zero": np.zeros(8, np.int64), "start": np.array([0]), "end": np.array([99]), "axis": np.array([2])}
    tensors |= {"one": np.ones(1, np.float32), "nothing": np.zeros((2, 1, 1), np.float32)}
    (relu,) = normal(model(nodes, inputs=IMAGE, outputs=["y"], tensors=tensors)).nodes
    assert (relu.op, relu.inputs, relu.output) == ("Relu", ("x",), "y")


def test_copy_from_input_to_output_stays() -> None:
    graph = normal(model([node("Identity", ["x"], ["y"])], inputs=ROW, outputs=["y"]))
    assert [(n.op, n.inputs, n.output) for n in graph.nodes] == [("Reshape", ("x",), "y")]


def test_softmax_runs_over_the_last_axis() -> None:
    graph = normal(model([node("Softmax", ["x"], ["y"], axis=1)], inputs=IMAGE, outputs=["y"]))
    assert ops(graph) == ["Transpose", "Softmax", "Transpose"]


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_softmax_before_opset_13_runs_over_all_that_follows(axis: int) -> None:
    nodes = [node("Softmax", ["x"], ["y"], axis=axis)]
    graph = normal(model(nodes, inputs=IMAGE, outputs=["y"], opset=12))
    assert graph.nodes[0].op == ("Softmax" if axis == 3 else "Reshape")


def test_pure_and_stable() -> None:
    proto = model([node("Flatten", ["x"], ["f"]), node("Relu", ["f"], ["y"])], inputs=IMAGE, outputs=["y"])
    graph = import_model(proto)
    before = str(graph)
    once = canonicalize.run(graph)
    assert str(graph) == before
    assert str(canonicalize.run(once)) == str(once)
