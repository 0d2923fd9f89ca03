"""Operators beside the first two dozen: the captured graph computes what ONNX Runtime does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from insitu.compiler import canonicalize, fuse
from insitu.frontend.onnx import import_model
from insitu.graph.export import float_session
from insitu.graph.graph import Graph
from insitu.graph.verify import verify
from tests.graph.networks import model, node, run_onnx

RNG = np.random.default_rng(0)
IMAGE = (1, 4, 6, 6)
VOLUME = (1, 4, 5, 6, 6)


def real(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def captured(proto: onnx.ModelProto) -> Graph:
    return verify(fuse.run(canonicalize.run(import_model(proto, name="net"))))


def same(proto: onnx.ModelProto, shape: Sequence[int] = IMAGE, *, positive: bool = False) -> Graph:
    """The captured graph, whose float numbers are those of the file."""
    graph = captured(proto)
    x = real(2, *shape)
    x = np.abs(x) + 0.1 if positive else x
    found = float_session(graph)({"x": x})
    for i in range(2):
        for name, wanted in zip(graph.outputs, run_onnx(proto, {"x": x[i]}), strict=True):
            np.testing.assert_allclose(
                found[name][i], wanted, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(wanted).max()))
            )
    return graph


def one(
    op: str, *more: np.ndarray[Any, Any], opset: int = 17, shape: Sequence[int] = IMAGE, **attrs: Any
) -> onnx.ModelProto:
    """A model of one operator with constants as its other inputs; an empty one is left out."""
    names = ["x", *("" if a.size == 0 else f"c{i}" for i, a in enumerate(more))]
    tensors = {f"c{i}": a for i, a in enumerate(more) if a.size}
    return model([node(op, names, ["y"], **attrs)], inputs={"x": shape}, outputs=["y"], tensors=tensors, opset=opset)


def hosted(graph: Graph) -> list[str]:
    return [str(n.attr("operator")) for n in graph.nodes if n.op == "Host"]


CURVES = ("Abs", "Neg", "Exp", "Sigmoid", "Tanh", "Erf", "Softplus", "Softsign", "LeakyRelu", "HardSigmoid",
          "HardSwish",
          "Elu", "Celu", "Selu", "Sin", "Cos", "Atan", "Asinh", "Floor", "Ceil", "Round", "Sign", "ThresholdedRelu",
          "Shrink")  # fmt: skip


@pytest.mark.parametrize("op", CURVES)
def test_functions_of_one_number_are_one_curve(op: str) -> None:
    assert [n.op for n in same(one(op)).nodes] == ["Curve"]


@pytest.mark.parametrize(("op", "opset"), [("Sqrt", 17), ("Log", 17), ("Reciprocal", 17), ("Mish", 18), ("Gelu", 20)])
def test_functions_of_positive_numbers(op: str, opset: int) -> None:
    assert [n.op for n in same(one(op, opset=opset), positive=True).nodes] == ["Curve"]


def test_a_written_out_function_is_one_curve() -> None:
    c = {"r": np.float32(np.sqrt(2)), "i": np.float32(1), "h": np.float32(0.5), "z": np.float32(6), "d": np.float32(3)}
    gelu = [
        node("Div", ["x", "r"], ["a"]),
        node("Erf", ["a"], ["b"]),
        node("Add", ["b", "i"], ["e"]),
        node("Mul", ["x", "e"], ["f"]),
        node("Mul", ["f", "h"], ["y"]),
    ]
    swish = [node("Sigmoid", ["x"], ["a"]), node("Mul", ["x", "a"], ["y"])]
    hard = [
        node("Add", ["x", "d"], ["a"]),
        node("Clip", ["a", "o", "z"], ["b"]),
        node("Mul", ["x", "b"], ["e"]),
        node("Div", ["e", "z"], ["y"]),
    ]
    for nodes in (gelu, swish, hard):
        proto = model(nodes, inputs={"x": IMAGE}, outputs=["y"], tensors={**c, "o": np.float32(0)})
        assert [n.op for n in same(proto).nodes] == ["Curve"]


def test_a_written_out_norm_is_one_norm() -> None:
    c = {"two": np.float32(2), "e": np.float32(1e-5)}
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=[-1]),
        node("Sub", ["x", "m"], ["d"]),
        node("Pow", ["d", "two"], ["s"]),
        node("ReduceMean", ["s"], ["v"], axes=[-1]),
        node("Add", ["v", "e"], ["w"]),
        node("Sqrt", ["w"], ["r"]),
        node("Div", ["d", "r"], ["y"]),
    ]
    graph = same(model(nodes, inputs={"x": IMAGE}, outputs=["y"], tensors=c))
    assert [(n.op, n.attr("center")) for n in graph.nodes] == [("Norm", 1)]


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


NONE = np.zeros(0, np.float32)
CASES: dict[str, onnx.ModelProto] = {
    "prelu": one("PRelu", np.abs(real(4, 1, 1))),
    "prelu-one": one("PRelu", np.float32([0.2])),
    "pow": one("Pow", np.float32(2)),
    "max": one("Max", real(4, 1, 1)), "min": one("Min", real(1, 4, 6, 6), np.float32(0.3)),
    "sub": model([node("Sub", ["c", "x"], ["y"])], inputs={"x": IMAGE}, outputs=["y"], tensors={"c": real(4, 1, 1)}),
    "where": model([node("Where", ["c", "x", "m"], ["y"])], inputs={"x": IMAGE}, outputs=["y"],
                   tensors={"c": real(6, 6) > 0, "m": np.float32(-2)}),
    "where-data": model([node("Greater", ["x", "z"], ["c"]), node("Where", ["c", "x", "m"], ["y"])],
                        inputs={"x": IMAGE}, outputs=["y"], tensors={"z": np.float32(0.1), "m": real(6)}),
    "sum": one("ReduceSum", ints(1, 3), keepdims=0), "top": one("ReduceMax", axes=[2, 3]),
    "least": one("ReduceMin", axes=[1], keepdims=0), "l1": one("ReduceL1", axes=[-1]), "l2": one("ReduceL2", axes=[1]),
    "squares": one("ReduceSumSquare", axes=[2]), "log-sum": one("LogSoftmax", axis=1),
    "split": model([node("Split", ["x"], ["a", "y"], axis=2), node("Exp", ["a"], ["z"])], inputs={"x": IMAGE},
                   outputs=["y", "z"], opset=11),
    "gather": one("Gather", ints(2, 0, -1), axis=2), "gather-one": one("Gather", np.array(1), axis=1),
    "gather-matrix": one("Gather", ints(0, 3, 1, 1).reshape(2, 2), axis=1),
    "expand": one("Expand", ints(3, 1, 4, 6, 6)), "tile": one("Tile", ints(1, 2, 1, 3)),
    "d2s": one("DepthToSpace", blocksize=2), "d2s-crd": one("DepthToSpace", blocksize=2, mode="CRD"),
    "s2d": one("SpaceToDepth", blocksize=2), "trilu": one("Trilu", np.array(1), upper=0),
    "reflect": one("Pad", ints(0, 0, 2, 1, 0, 0, 1, 3), mode="reflect"),
    "edge": one("Pad", ints(0, 1, 0, 1, 0, 0, 1, 3), mode="edge"),
    "nearest": one("Resize", NONE, np.float32([1, 1, 2, 1.5]), mode="nearest"),
    "linear": one("Resize", NONE, NONE, ints(1, 4, 11, 4), mode="linear",
                  coordinate_transformation_mode="align_corners"),
    "cubic": one("Resize", NONE, np.float32([1, 1, 2, 2]), mode="cubic"),
    "upsample": one("Upsample", np.float32([1, 1, 2, 3]), opset=9, mode="nearest"),
    "up-2": one("ConvTranspose", real(4, 3, 2, 2), real(3), strides=[2, 2]),
    "up-odd": one("ConvTranspose", real(4, 3, 3, 5), real(3), strides=[2, 3], pads=[1, 2, 0, 1], output_padding=[1, 0]),
    "up-groups": one("ConvTranspose", real(4, 3, 4, 4), real(6), strides=[2, 2], pads=[1] * 4, group=2),
    "up-dilated": one("ConvTranspose", real(4, 2, 3, 3), strides=[2, 1], dilations=[2, 2]),
    "up-same": one("ConvTranspose", real(4, 2, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    "up-shape": one("ConvTranspose", real(4, 2, 3, 3), strides=[2, 2], output_shape=[12, 12]),
    "norm": one("LayerNormalization", real(6), real(6)), "norm-2": one("LayerNormalization", real(6, 6), axis=2),
    "instance": one("InstanceNormalization", real(4), real(4)),
    "groups": one("GroupNormalization", real(4), real(4), num_groups=2, opset=21),
    "rms": one("RMSNormalization", real(6), opset=23), "unit": one("LpNormalization", axis=1),
    "mvn": one("MeanVarianceNormalization"), "lrn": one("LRN", size=3, alpha=0.3, bias=2.0),
    "volume-groups": one("Conv", real(6, 2, 2, 3, 3), real(6), shape=VOLUME, group=2, strides=[1, 2, 1]),
    "volume-same": one("Conv", real(3, 4, 2, 3, 3), shape=VOLUME, auto_pad="SAME_LOWER", strides=[2, 1, 2]),
    "volume-up": one("ConvTranspose", real(4, 3, 2, 3, 2), real(3), shape=VOLUME, strides=[2, 2, 1], pads=[0, 1] * 3),
    "volume-up-groups": one("ConvTranspose", real(4, 3, 3, 2, 2), shape=VOLUME, strides=[1, 2, 2], group=2),
    "turned": one("Gemm", real(6, 3), real(3), transA=1, shape=(6, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_without_the_host(name: str) -> None:
    proto = CASES[name]
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert not hosted(same(proto, shape))


def test_a_convolution_in_three_dimensions_is_one_in_two() -> None:
    proto = one("Conv", real(3, 2, 3, 3, 3), real(3), shape=(1, 2, 5, 6, 6), pads=[1, 1, 1, 0, 1, 1], strides=[2, 1, 2])
    graph = same(proto, (1, 2, 5, 6, 6))
    assert [n.op for n in graph.nodes if n.op in ("Conv", "Host")] == ["Conv"]


@pytest.mark.parametrize(
    "equation", ["bcij,cd->bdij", "bcij,bcij->bij", "bcij,bdij->bcd", "bcij->bji", "...ij,jk->...ik"]
)
def test_einsum(equation: str) -> None:
    second = {"cd": real(4, 3), "jk": real(6, 2)}
    terms = equation.split("->")[0].split(",")
    constant = second.get(terms[-1])
    names = ["x"] if len(terms) == 1 else ["x", "x" if constant is None else "w"]
    proto = model(
        [node("Einsum", names, ["y"], equation=equation)],
        inputs={"x": IMAGE},
        outputs=["y"],
        tensors={} if constant is None else {"w": constant},
    )
    assert not hosted(same(proto))


@pytest.mark.parametrize("equation", ["bcij,jk,bcik->bci", "bcij,cd,bcik->bdjk", "bcij,bcik,kl->bcjl"])
def test_einsum_of_three(equation: str) -> None:
    tensors = {"jk": real(6, 6), "cd": real(4, 3), "kl": real(6, 2)}
    terms = equation.split("->")[0].split(",")
    names = [t if t in tensors else "x" for t in terms]
    used = {t: tensors[t] for t in terms if t in tensors}
    proto = model([node("Einsum", names, ["y"], equation=equation)], inputs={"x": IMAGE}, outputs=["y"], tensors=used)
    assert not hosted(same(proto))


@pytest.mark.parametrize("way", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "before"), [("LSTM", 0), ("GRU", 0), ("GRU", 1), ("RNN", 0)])
def test_recurrent(op: str, before: int, way: str) -> None:
    gates, count, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2 if way == "bidirectional" else 1, 3
    tensors = {"w": real(count, gates * hidden, 4), "r": real(count, gates * hidden, hidden),
               "b": real(count, 2 * gates * hidden)}  # fmt: skip
    attrs = {"hidden_size": hidden, "direction": way, **({"linear_before_reset": before} if op == "GRU" else {})}
    ends = ["y", "last"]
    proto = model(
        [node(op, ["x", "w", "r", "b"], ends, **attrs)], inputs={"x": (5, 1, 4)}, outputs=ends, tensors=tensors
    )
    graph = same(proto, (5, 1, 4))
    assert not hosted(graph)
    recurrent = {n.inputs[1] for n in graph.nodes if n.op == "MatMul"}
    assert len(recurrent) == count * (3 if op == "GRU" and not before else 2)  # however many steps


@pytest.mark.parametrize("op", ["TopK", "CumSum", "LpPool"])
def test_what_has_no_rule_goes_to_the_host_alone(op: str) -> None:
    middle = {"TopK": node("TopK", ["a", "k"], ["b", "i"], axis=1), "CumSum": node("CumSum", ["a", "one"], ["b"]),
              "LpPool": node("LpPool", ["a"], ["b"], kernel_shape=[2, 2])}[op]  # fmt: skip
    nodes = [node("Relu", ["x"], ["a"]), middle, node("Tanh", ["b"], ["y"])]
    tensors = {"k": ints(2), "one": np.array(1, np.int64)}
    graph = same(model(nodes, inputs={"x": IMAGE}, outputs=["y"], tensors=tensors))
    assert hosted(graph) == [op]
    assert [n.op for n in graph.nodes] == ["Relu", "Host", "Curve"]


def test_integer_results_are_numbers() -> None:
    nodes = [node("ArgMax", ["x"], ["a"], axis=1), node("Cast", ["a"], ["y"], to=TensorProto.FLOAT)]
    graph = same(model(nodes, inputs={"x": IMAGE}, outputs=["y"]))
    assert [n.op for n in graph.nodes] == ["Host"]
    assert hosted(graph) == ["ArgMax"]


def test_branches_and_loops_that_are_known_are_taken_apart() -> None:
    value = helper.make_tensor_value_info
    then = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["t"])], "then", [], [value("t", 1, None)])
    other = helper.make_graph([helper.make_node("Magic", ["x"], ["e"])], "else", [], [value("e", 1, None)])
    body = helper.make_graph(
        [helper.make_node("Add", ["h", "x"], ["h2"]), helper.make_node("Identity", ["going"], ["on"]),
         helper.make_node("Tanh", ["h2"], ["row"])],
        "body", [value("i", 7, []), value("going", TensorProto.BOOL, []), value("h", 1, None)],
        [value("on", TensorProto.BOOL, []), value("h2", 1, None), value("row", 1, None)],
    )  # fmt: skip
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Size", ["s"], ["n"]),
        node("Equal", ["n", "four"], ["c"]),
        node("If", ["c"], ["a"], then_branch=then, else_branch=other),
        node("Loop", ["three", "", "a"], ["h_end", "rows"], body=body),
    ]
    tensors = {"four": np.array(4, np.int64), "three": np.array(3, np.int64)}
    graph = captured(model(nodes, inputs={"x": IMAGE}, outputs=["h_end", "rows"], tensors=tensors))
    assert not hosted(graph)
    x = real(1, *IMAGE)
    found = float_session(graph)({"x": x})
    sums = 1 / (1 + np.exp(-x[0])) + x[0] * np.array([1, 2, 3]).reshape(3, 1, 1, 1, 1)
    np.testing.assert_allclose(found["h_end"][0], sums[-1], atol=1e-5)
    np.testing.assert_allclose(found["rows"][0], np.tanh(sums), atol=1e-5)


def test_an_operator_is_what_onnx_says_it_is_made_of() -> None:
    nodes = [node("Attention", ["x", "x", "x"], ["y"], is_causal=1)]
    graph = same(model(nodes, inputs={"x": (1, 2, 5, 8)}, outputs=["y"], opset=23), (1, 2, 5, 8))
    assert not hosted(graph)
    assert sum(n.op == "MatMul" for n in graph.nodes) == 2
