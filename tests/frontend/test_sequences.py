"""Sequences of tensors: what is only taken apart and joined becomes slices and joins; numbers are ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from insitu.frontend.onnx import import_model
from insitu.frontend.sequences import without_sequences
from insitu.graph.export import float_session
from tests.graph.networks import model, node, run_onnx

ROWS = {"x": ["N", 6, 8]}


def checked(nodes: list[onnx.NodeProto], tensors: dict[str, np.ndarray], outputs: list[str]) -> list[str]:
    """Operators of the network without its sequences, after a check of its numbers."""
    proto = model(nodes, inputs=ROWS, outputs=outputs, tensors=tensors)
    graph = import_model(proto)
    x = np.random.default_rng(0).normal(size=(2, 1, 6, 8)).astype(np.float32)
    want = run_onnx(proto, {"x": x[:, 0]})
    got = float_session(graph)({"x": x})
    for value, array in zip(graph.outputs, want, strict=True):
        np.testing.assert_allclose(got[value][:, 0], array, rtol=1e-6)
    return [n.op_type for n in without_sequences(proto, 17).graph.node]


def at(index: int, of: str = "s") -> onnx.NodeProto:
    return node("SequenceAt", [of, f"i{index}"], [f"y{index}"])


def places(*indices: int) -> dict[str, np.ndarray]:
    return {f"i{i}": np.array(i, np.int64) for i in indices}


def test_lengths_given_one_by_one() -> None:
    nodes = [node("SplitToSequence", ["x", "lengths"], ["s"], axis=2), at(0), at(2), at(-2)]
    tensors = {"lengths": np.array([3, 1, 4], np.int64), **places(0, 2, -2)}
    assert checked(nodes, tensors, ["y0", "y2", "y-2"]) == ["Slice"] * 3


def test_parts_of_one_length_and_a_shorter_one() -> None:
    nodes = [node("SplitToSequence", ["x", "size"], ["s"], axis=1), at(0), at(1)]
    tensors = {"size": np.array(4, np.int64), **places(0, 1)}
    assert checked(nodes, tensors, ["y0", "y1"]) == ["Slice"] * 2


@pytest.mark.parametrize("keepdims", [0, 1])
def test_elements_one_by_one(keepdims: int) -> None:
    nodes = [node("SplitToSequence", ["x"], ["s"], axis=1, keepdims=keepdims), at(0), at(5)]
    assert checked(nodes, places(0, 5), ["y0", "y5"]) == [["Gather"] * 2, ["Slice"] * 2][keepdims]


@pytest.mark.parametrize(("new", "ops"), [(0, ["Concat"]), (1, ["Unsqueeze", "Unsqueeze", "Concat"])])
def test_a_list_that_is_joined(new: int, ops: list[str]) -> None:
    nodes = [
        node("Relu", ["x"], ["r"]), node("SequenceConstruct", ["x", "r"], ["s"]),
        node("ConcatFromSequence", ["s"], ["y"], axis=2, new_axis=new), at(1),
    ]  # fmt: skip
    assert checked(nodes, places(1), ["y", "y1"]) == ["Relu", *ops, "Identity"]


def test_how_many_there_are() -> None:
    nodes = [
        node("SplitToSequence", ["x", "lengths"], ["s"], axis=2), node("SequenceLength", ["s"], ["n"]),
        node("Cast", ["n"], ["f"], to=1), node("Mul", ["x", "f"], ["y"]),
    ]  # fmt: skip
    assert checked(nodes, {"lengths": np.array([2, 6], np.int64)}, ["y"]) == ["Constant", "Cast", "Mul"]


def test_what_is_not_known_stays() -> None:
    """A negative place among parts of one length hangs on how many there are."""
    nodes = [node("SplitToSequence", ["x", "size"], ["s"], axis=1), at(-1)]
    proto = model(nodes, inputs=ROWS, outputs=["y-1"], tensors={"size": np.array(4, np.int64), **places(-1)})
    assert [n.op_type for n in without_sequences(proto, 17).graph.node] == ["SplitToSequence", "SequenceAt"]
    plain = model([node("Relu", ["x"], ["y"])], inputs=ROWS, outputs=["y"])
    assert without_sequences(plain, 17) is plain
