"""The interpreter against the operators' own words: loops over elements, in integers and rationals."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.base.errors import InternalError
from insitu.graph.graph import Graph, Node, State, const_type
from insitu.graph.interpret import interpret
from insitu.graph.types import TensorType
from insitu.numeric.affine import QuantSpec

ZERO, OUT_ZERO = 3, -7


def graph_of(nodes, types, *, constants=None, inputs=("x",), outputs=("y",), states=()):
    constants = {n: np.asarray(a) for n, a in (constants or {}).items()}
    kinds = {**types, **{n: const_type(a) for n, a in constants.items()}}
    return Graph("net", "quantized", inputs, outputs, tuple(nodes), kinds, constants, states)


def kind(*shape, zero=ZERO):
    return TensorType(shape, "i8", QuantSpec(8, signed=True, scale=(0.5,), zero_point=zero))


def narrowed(acc, multiplier, shift, zero=OUT_ZERO, lo=-128, hi=127):
    return min(max(round(Fraction(int(acc) * multiplier, 1 << shift)) + zero, lo), hi)


@given(st.data())
def test_conv_is_its_definition(data):
    """Every setting of a 2-D convolution, by loops over everything."""
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    group, each_in, each_out = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel, strides, dilations = ([draw(st.integers(1, 2)) for _ in range(2)] for _ in range(3))
    pads = [draw(st.integers(0, 2)) for _ in range(4)]
    h, w = 4, 5
    x = rng.integers(-128, 128, (1, group * each_in, h, w))
    weight = rng.integers(-127, 128, (group * each_out, each_in, *kernel)).astype(np.int8)
    bias = rng.integers(-999, 999, group * each_out)
    m, r = rng.integers(1, 1 << 10, group * each_out), rng.integers(5, 14, group * each_out)
    size = [
        (n + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i, n in enumerate((h, w))
    ]
    folded = bias - ZERO * weight.astype(int).sum(axis=(1, 2, 3))
    attrs = {"strides": tuple(strides), "pads": tuple(pads), "dilations": tuple(dilations), "group": group,
             "readout": "exact", "lo": -128, "hi": 127}  # fmt: skip
    graph = graph_of(
        [Node("c", "Conv", ("x", "w", "b", "m", "r"), ("y",), attrs)],
        {"x": kind(*x.shape), "y": kind(1, len(weight), *size, zero=OUT_ZERO)},
        constants={"w": weight, "b": folded, "m": m, "r": r},
    )
    got = interpret(graph, {"x": x[None]})["y"][0]
    with pytest.MonkeyPatch.context() as patch:  # few windows at once
        patch.setattr("insitu.graph.interpret.AT_ONCE", draw(st.integers(1, 60)))
        assert np.array_equal(interpret(graph, {"x": x[None]})["y"][0], got)
    for o, i, j in product(range(len(weight)), range(size[0]), range(size[1])):
        acc = int(bias[o])
        for c, u, v in product(range(each_in), range(kernel[0]), range(kernel[1])):
            a, b = i * strides[0] - pads[0] + u * dilations[0], j * strides[1] - pads[1] + v * dilations[1]
            if 0 <= a < h and 0 <= b < w:  # padding adds nothing
                acc += (int(x[0, o // each_out * each_in + c, a, b]) - ZERO) * int(weight[o, c, u, v])
        assert got[0, o, i, j] == narrowed(acc, int(m[o]), int(r[o]))


@given(st.integers(0, 9999), st.sampled_from([(4, 3), (2, 4, 3), (1, 2, 4, 3)]))
def test_products_of_two_run_time_operands(seed, shape):
    rng = np.random.default_rng(seed)
    other = (*shape[:-2], shape[-1], 5)
    a, b = rng.integers(-128, 128, shape), rng.integers(-128, 128, other)
    attrs = {"multiplier": 77, "shift": 13, "lo": -128, "hi": 127}
    types = {"a": kind(*shape), "b": kind(*other, zero=11), "y": kind(*shape[:-1], 5, zero=OUT_ZERO)}
    graph = graph_of([Node("p", "MatMul", ("a", "b"), ("y",), attrs)], types, inputs=("a", "b"))
    got = interpret(graph, {"a": a[None], "b": b[None]})["y"][0]
    acc = (a - ZERO) @ (b - 11)
    assert got.reshape(-1).tolist() == [narrowed(v, 77, 13) for v in acc.reshape(-1)]


@given(st.integers(0, 9999), st.integers(-99, 99), st.integers(-99, 99))
def test_add_and_mul_broadcast(seed, scale_a, scale_b):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-128, 128, (1, 2, 3)), rng.integers(-128, 128, (3,))
    types = {"a": kind(1, 2, 3), "y": kind(1, 2, 3, zero=OUT_ZERO), "z": kind(1, 2, 3, zero=OUT_ZERO)}
    nodes = [
        Node(
            "s", "Add", ("a", "b"), ("y",), {"scale_a": scale_a, "scale_b": scale_b, "shift": 5, "lo": -100, "hi": 100}
        ),
        Node("m", "Mul", ("a", "b"), ("z",), {"multiplier": 9, "shift": 10, "lo": -128, "hi": 127}),
    ]
    graph = graph_of(nodes, types, constants={"b": b.astype(np.int16)}, inputs=("a",), outputs=("y", "z"))
    got = interpret(graph, {"a": a[None]})
    for index in np.ndindex(a.shape):
        left, right = int(a[index]) - ZERO, int(b[index[-1]])
        assert got["y"][0][index] == narrowed(left * scale_a + right * scale_b, 1, 5, lo=-100, hi=100)
        assert got["z"][0][index] == narrowed(left * right, 9, 10)


def test_pools_pad_with_what_changes_nothing():
    x = np.array([[[-100, 5, -3, 60]]])
    window = {"kernel_shape": (3,), "pads": (1, 1), "strides": (1,)}
    nodes = [
        Node("m", "MaxPool", ("x",), ("y",), window),
        Node("a", "AveragePool", ("x",), ("z",), {**window, "multiplier": 1, "shift": 0, "lo": -1000, "hi": 1000}),
    ]
    types = {"x": kind(1, 1, 4), "y": kind(1, 1, 4), "z": kind(1, 1, 4, zero=OUT_ZERO)}
    got = interpret(graph_of(nodes, types, outputs=("y", "z")), {"x": x[None]})
    assert got["y"].reshape(-1).tolist() == [5, 5, 60, 60]
    sums = [-100 + 5 - 2 * ZERO, -98 - 3 * ZERO, 62 - 3 * ZERO, 57 - 2 * ZERO]
    assert got["z"].reshape(-1).tolist() == [s + OUT_ZERO for s in sums]


def test_means_over_any_axes():
    x = np.random.default_rng(0).integers(-128, 128, (1, 3, 4, 5))
    attrs = {"axes": (1, 3), "keepdims": 0, "multiplier": 21, "shift": 8, "lo": -128, "hi": 127}
    graph = graph_of(
        [Node("r", "ReduceMean", ("x",), ("y",), attrs)], {"x": kind(*x.shape), "y": kind(1, 4, zero=OUT_ZERO)}
    )
    wanted = [narrowed(v, 21, 8) for v in (x - ZERO).sum(axis=(1, 3)).reshape(-1)]
    assert interpret(graph, {"x": x[None]})["y"].reshape(-1).tolist() == wanted


@pytest.mark.parametrize(
    ("op", "attrs", "shape", "wanted"),
    [
        ("Reshape", {}, (4, 6), lambda x: x.reshape(4, 6)),
        ("Transpose", {"perm": (2, 0, 1)}, (4, 2, 3), lambda x: x.transpose(2, 0, 1)),
        ("Transpose", {}, (4, 3, 2), lambda x: x.T),
        (
            "Slice", {"axes": (1, 2), "starts": (2, 3), "ends": (-9, 0), "steps": (-1, -2)}, (2, 3, 2),
            lambda x: x[:, ::-1, 3:0:-2],
        ),
        (
            "Slice", {"axes": (0, 2), "starts": (1, -3), "ends": (99, 99), "steps": (1, 2)}, (1, 3, 2),
            lambda x: x[1:, :, -3::2],
        ),
        (
            "Pad", {"pads": (0, 1, 0, 2, 0, 3), "code": 9}, (4, 4, 7),
            lambda x: np.pad(x, [(0, 2), (1, 0), (0, 3)], constant_values=9),
        ),
    ],
)  # fmt: skip
def test_moves_move_codes(op, attrs, shape, wanted):
    x = np.arange(48).reshape(2, 2, 3, 4) - 20
    graph = graph_of([Node("n", op, ("x",), ("y",), attrs)], {"x": kind(2, 3, 4), "y": kind(*shape)})
    got = interpret(graph, {"x": x})["y"]
    assert np.array_equal(got, np.stack([wanted(s) for s in x]))


def test_concat_takes_constants_along():
    graph = graph_of(
        [Node("n", "Concat", ("x", "c"), ("y",), {"axis": -1})], {"x": kind(1, 2), "y": kind(1, 4)},
        constants={"c": np.array([[7, 8]], np.int8)},
    )  # fmt: skip
    got = interpret(graph, {"x": np.array([[[1, 2]], [[3, 4]]])})["y"]
    assert got.tolist() == [[[1, 2, 7, 8]], [[3, 4, 7, 8]]]


def test_states_come_out_beside_the_outputs():
    nodes = [Node("n", "Reshape", ("s",), ("y",)), Node("m", "Reshape", ("x",), ("t",))]
    types = {n: kind(1, 2) for n in ("x", "s", "t", "y")}
    graph = graph_of(nodes, types, states=(State("s", "t"),))
    got = interpret(graph, {"x": np.array([[[1, 2]]]), "s": np.array([[[5, 6]]])})
    assert got["y"].tolist() == [[[5, 6]]]
    assert got["t"].tolist() == [[[1, 2]]]


def test_values_are_observed_in_order_and_samples_stay_apart():
    nodes = [Node("a", "Reshape", ("x",), ("h",)), Node("b", "Transpose", ("h",), ("y",), {"perm": (1, 0)})]
    graph = graph_of(nodes, {"x": kind(6), "h": kind(2, 3), "y": kind(3, 2)})
    seen = []
    x = np.arange(24).reshape(4, 6)
    whole = interpret(graph, {"x": x}, observe=lambda name, value: seen.append((name, value.shape)))["y"]
    assert seen == [("h", (4, 2, 3)), ("y", (4, 3, 2))]
    for i in range(4):
        assert np.array_equal(interpret(graph, {"x": x[i : i + 1]})["y"][0], whole[i])


def test_an_operator_without_integer_meaning_is_our_fault():
    graph = graph_of([Node("n", "Gelu", ("x",), ("y",))], {"x": kind(2), "y": kind(2)})
    with pytest.raises(InternalError, match="Gelu"):
        interpret(graph, {"x": np.zeros((1, 2), int)})
