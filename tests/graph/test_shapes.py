"""Shape rules in the corners that networks rarely reach, with their words."""

from __future__ import annotations

from typing import Any

import pytest

from insitu.base.errors import ModelError
from insitu.graph.graph import Node
from insitu.graph.ops.shapes import infer, resolve_reshape, text
from insitu.graph.types import Dim, TensorType


def shape(op: str, *inputs: tuple[Dim, ...], dtype: str = "f32", **attrs: Any) -> tuple[Dim, ...]:
    names = tuple("abcdefg"[: len(inputs)])
    types = {n: TensorType(s, dtype) for n, s in zip(names, inputs, strict=True)}
    return infer(Node("n", op, names, ("y",), attrs), types, {})[0].shape


def test_named_sizes_pass_where_no_number_is_needed() -> None:
    assert shape("Relu", ("N", "T")) == ("N", "T")
    assert shape("Add", ("N", 3), (3,)) == ("N", 3)
    assert shape("Add", ("N", 1), ("N", "T")) == ("N", "T")
    assert shape("Conv", ("N", 2, 5, 5), (4, 2, 3, 3)) == ("N", 4, 3, 3)
    assert shape("MatMul", ("N", "T", 4), (4, 2)) == ("N", "T", 2)
    assert shape("Concat", ("N", 3), ("N", 2), axis=1) == ("N", 5)
    assert shape("Slice", ("N", 5), starts=(1,), ends=(4,), axes=(1,), steps=(2,)) == ("N", 2)
    assert shape("Flatten", ("N", 3, 4)) == ("N", 12)
    assert shape("Reshape", ("N", 6), shape=("N", 2, 3)) == ("N", 2, 3)
    assert shape("Pad", ("N", 6), pads=(0, 1, 0, 2), value=0.0) == ("N", 9)


@pytest.mark.parametrize(
    ("a", "b", "out"),
    [((4,), (4,), ()), ((4,), (4, 2), (2,)), ((3, 4), (4,), (3,)), ((5, 1, 3, 4), (2, 4, 6), (5, 2, 3, 6))],
)
def test_matmul_ranks(a: tuple[int, ...], b: tuple[int, ...], out: tuple[int, ...]) -> None:
    assert shape("MatMul", a, b) == out


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "word"),
    [
        ("Add", [("N", 3), ("M", 3)], {}, "inputs of the shapes Nx3 and Mx3"),
        ("Add", [(2,)], {}, "1 inputs"),
        ("MatMul", [(3, 4), (5, 2)], {}, "equal inner sizes"),
        ("MatMul", [(), (5, 2)], {}, "scalar and 5x2"),
        ("Gemm", [(1, 2, 3), (3, 4)], {}, "two matrices"),
        ("Conv", [(1, 3, 5, 5), (4, 2, 3, 3)], {}, "3 channels for weights 4x2x3x3"),
        ("Conv", [(1, 4, 5, 5), (4, 2, 3, 3)], {"group": 3}, "group = 3"),
        ("Conv", [(1, 2, 5, 5), (4, 2, 6, 3)], {}, "no larger than the padded input"),
        ("Conv", [(1, 2, "H", 5), (4, 2, 3, 3)], {}, "size 'H' is not known"),
        ("Conv", [(1, 2, 5, 5), (4, 2, 3, 3)], {"strides": (1,)}, "2 numbers each"),
        ("Conv", [(1, 2, 5, 5), (4, 2, 3, 3)], {"strides": (0, 1)}, "at least 1"),
        ("Conv", [(1, 2, 5, 5), (4, 2, 3, 3), (5,)], {}, "one per output channel"),
        ("MaxPool", [(1, 2, 5, 5)], {}, "kernel_shape is None"),
        ("MaxPool", [(5, 5)], {"kernel_shape": (2, 2)}, "at least 3 dimensions"),
        ("BatchNormalization", [(1, 2), (2,), (2,), (3,), (2,)], {}, "four vectors"),
        ("Concat", [(1, 2), (2, 2)], {"axis": 1}, "equal shapes except along axis 1"),
        ("Concat", [(1, 2)], {"axis": 2}, "axis 2 of 2 dimensions"),
        ("Slice", [("N", 2)], {"starts": (0,), "ends": (1,), "axes": (0,), "steps": (1,)}, "cut along a size 'N'"),
        ("Slice", [(4, 2)], {"starts": (3,), "ends": (1,), "axes": (0,), "steps": (1,)}, "every size at least 1"),
        ("Pad", [("N", 2)], {"pads": (1, 0, 0, 0)}, "padding of a size 'N'"),
        ("Reshape", [(2, 3)], {"shape": (7,)}, "as many elements"),
        ("Transpose", [(2, 3)], {"perm": (0, 0)}, "an order of 0 to 1"),
        ("Squeeze", [(2, 3)], {"axes": (0,)}, "a size of 1"),
        ("Unsqueeze", [(2, 3)], {"axes": (0, 0)}, "each axis once"),
        ("Flatten", [("N", "T", 2)], {"axis": 2}, "in one"),
        ("Pad", [(1 << 20, 1 << 12)], {"pads": (0, 0, 0, 1)}, "at most 2,147,483,648"),
        ("Einsum", [(2,)], {}, "not supported"),
    ],
)
def test_faults(op: str, inputs: list[tuple[Dim, ...]], attrs: dict[str, Any], word: str) -> None:
    with pytest.raises(ModelError) as caught:
        shape(op, *inputs, **attrs)
    assert str(caught.value).startswith(f"node 'n' ({op})")
    assert word in str(caught.value)


def test_types_do_not_mix() -> None:
    types = {"a": TensorType((2,), "f32"), "b": TensorType((2,), "i64")}
    with pytest.raises(ModelError, match="f32, i64"):
        infer(Node("n", "Add", ("a", "b"), ("y",)), types, {})


@pytest.mark.parametrize(
    ("x", "target", "out"),
    [
        ((2, 3, 4), [0, -1], (2, 12)),
        ((2, 3, 4), [-1, 0], (8, 3)),
        (("N", 3, 4), [-1, 12], ("N", 12)),
        (("N", 3, 4), [0, -1], ("N", 12)),
        (("N", 3, 4), [0, 3, -1], ("N", 3, 4)),
        (("N", 3, 4), [-1, 3], None),
        (("N", 3, 4), [-1, 6], None),
        ((2, 3), [-1, -1], None),
        ((2, 3), [-2, 3], None),
        ((2, 3), [0, 0, 0], None),
        ((2, 3), [-1, 4], None),
    ],
)
def test_reshape_targets(x: tuple[Dim, ...], target: list[int], out: tuple[Dim, ...] | None) -> None:
    assert resolve_reshape(x, target) == out


def test_zero_as_a_size() -> None:
    assert resolve_reshape((0, 3), [0, 3], allow_zero=True) == (0, 3)
    assert resolve_reshape((2, 3), [0, 3], allow_zero=True) == (0, 3)


def test_shapes_as_people_write_them() -> None:
    assert (text((1, "N", 3)), text(())) == ("1xNx3", "scalar")
