"""Every operator, with every setting it has, on every readout: 0 differing integers between all that compute them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from insitu.base.errors import InfeasibleError
from tests.flow.line import CHIPS, FULL, SMALL, captured, check_network, chip_of, cores_of, ops_of
from tests.graph.networks import model, node, random_model

Net = Callable[[np.random.Generator], Any]
NETS: dict[str, Net] = {}


def net(build: Net) -> Net:
    NETS[build.__name__] = build
    return build


def normal(rng, *shape):
    return (rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)


def one(rng: np.random.Generator, op: str, shape: Sequence[int], *tensors: Any, after: str = "", **attrs: Any) -> Any:
    """One operator on an input of `shape`; `after` another one behind it."""
    names = [f"t{i}" for i in range(len(tensors))]
    nodes = [node(op, ["x", *names], ["y"], **attrs)]
    if after:
        nodes.append(node(after, ["y"], ["z"]))
    return model(
        nodes,
        inputs={"x": ["N", *shape]},
        outputs=["z" if after else "y"],
        tensors=dict(zip(names, tensors, strict=True)),
    )


@net
def conv_2d(rng):
    w, b = normal(rng, 7, 5, 3, 2), normal(rng, 7)
    return one(rng, "Conv", (5, 6, 7), w, b, strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2], after="Relu")


@net
def conv_1d(rng):
    return one(rng, "Conv", (3, 20), normal(rng, 6, 3, 4), strides=[3], pads=[2, 1], dilations=[2])


@net
def conv_pointwise(rng):
    return one(rng, "Conv", (20, 5, 5), normal(rng, 13, 20, 1, 1), normal(rng, 13))


@net
def conv_grouped(rng):
    return one(rng, "Conv", (6, 6, 5), normal(rng, 9, 2, 3, 3), normal(rng, 9), group=3, pads=[1, 1, 1, 1])


@net
def conv_depthwise(rng):
    return one(
        rng, "Conv", (8, 7, 6), normal(rng, 8, 1, 3, 3), normal(rng, 8), group=8, pads=[0, 1, 2, 1], strides=[2, 2]
    )


@net
def conv_depthwise_doubling(rng):
    return one(rng, "Conv", (5, 6), normal(rng, 10, 1, 3), group=5, pads=[1, 1])


@net
def conv_tall(rng):  # more rows than any small array: row parts on several macros
    return one(rng, "Conv", (17, 4, 4), normal(rng, 5, 17, 3, 3), normal(rng, 5), pads=[1, 1, 1, 1], after="Relu")


@net
def gemm_tall_and_wide(rng):
    return one(rng, "Gemm", (131,), normal(rng, 23, 131), normal(rng, 23), transB=1, after="Relu")


@net
def matmul_of_rows(rng):
    return one(rng, "MatMul", (7, 9), normal(rng, 9, 5))


@net
def pool_max(rng):
    return one(rng, "MaxPool", (3, 7, 6), kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1])


@net
def pool_max_dilated(rng):
    return one(rng, "MaxPool", (2, 9, 9), kernel_shape=[2, 3], dilations=[3, 2], pads=[1, 1, 1, 1])


@net
def pool_max_ceil(rng):
    return one(rng, "MaxPool", (2, 7, 7), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)


@net
def pool_max_beside_a_conv(rng):
    """Both read one value with padding: zero points for one, the lowest code for the other."""
    nodes = [
        node("Conv", ["x", "a"], ["h"], pads=[1, 1, 1, 1]),
        node("MaxPool", ["h"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Conv", ["h", "b"], ["q"], pads=[1, 1, 1, 1]),
        node("Add", ["p", "q"], ["y"]),
    ]
    tensors = {"a": normal(rng, 3, 2, 3, 3), "b": normal(rng, 3, 3, 3, 3)}
    return model(nodes, inputs={"x": ["N", 2, 5, 5]}, outputs=["y"], tensors=tensors)


@net
def pool_average_of_all_but_padding(rng):
    return one(
        rng, "AveragePool", (3, 6, 7), kernel_shape=[3, 3], strides=[2, 1], pads=[1, 1, 1, 2], count_include_pad=0
    )


@net
def pool_average_with_padding(rng):
    return one(
        rng, "AveragePool", (3, 6, 7), kernel_shape=[3, 2], strides=[1, 2], pads=[1, 0, 1, 1], count_include_pad=1
    )


@net
def pool_average_1d(rng):
    return one(rng, "AveragePool", (3, 9), kernel_shape=[4], strides=[2], pads=[1, 2])


@net
def pool_average_ceil(rng):
    return one(rng, "AveragePool", (2, 7, 5), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)


@net
def mean_of_maps(rng):
    return one(rng, "GlobalAveragePool", (5, 4, 6), after="Flatten")


@net
def mean_over_channels(rng):
    return one(rng, "ReduceMean", (6, 4, 3), axes=[1], keepdims=0)


@net
def softmax_last(rng):
    return one(rng, "Softmax", (4, 11), axis=-1)


@net
def softmax_of_channels(rng):
    return one(rng, "Softmax", (5, 3, 4), axis=1)


@net
def clip_alone(rng):
    return one(rng, "Clip", (4, 5), np.float32(-0.3), np.float32(0.9))


@net
def relu_alone(rng):
    return one(rng, "Relu", (4, 5))


@net
def add_constant_map(rng):
    return one(rng, "Add", (3, 4, 5), normal(rng, 3, 4, 5))


@net
def multiply_channels(rng):
    return one(rng, "Mul", (3, 4, 5), normal(rng, 3, 1, 1), after="Relu")


@net
def slice_steps(rng):
    tables = [np.array(v, np.int64) for v in ([1, 6], [8, 0], [1, 2], [3, -2])]
    return one(rng, "Slice", (9, 8), *tables, after="Relu")


@net
def pad_with_a_value(rng):
    return one(rng, "Pad", (2, 3, 4), np.array([0, 0, 1, 2, 0, 1, 0, 1], np.int64), np.float32(0.7), after="Relu")


@net
def moves(rng):
    nodes = [
        node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]),
        node("Relu", ["a"], ["b"]),
        node("Reshape", ["b", "s"], ["c"]),
        node("Unsqueeze", ["c", "one"], ["d"]),
        node("Squeeze", ["d", "one"], ["e"]),
        node("Transpose", ["e"], ["f"], perm=[0, 2, 1]),
        node("Flatten", ["f"], ["g"]),
        node("MatMul", ["g", "w"], ["y"]),
    ]
    tensors = {"s": np.array([0, 10, 12], np.int64), "one": np.array([1], np.int64), "w": normal(rng, 120, 4)}
    return model(nodes, inputs={"x": ["N", 4, 5, 6]}, outputs=["y"], tensors=tensors)


@net
def reshape_across_padding(rng):
    """A reshape without common factors of a value that lies in padded storage."""
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Conv", ["r", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("Reshape", ["r", "s"], ["f"]),
        node("MatMul", ["f", "v"], ["m"]),
    ]
    tensors = {"w": normal(rng, 2, 2, 3, 3), "s": np.array([1, 8, 9], np.int64), "v": normal(rng, 9, 2)}
    return model(nodes, inputs={"x": [1, 2, 6, 6]}, outputs=["c", "m"], tensors=tensors)


@net
def concat_of_everything(rng):
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1, 1]),
        node("Relu", ["x"], ["b"]),
        node("MaxPool", ["x"], ["c"], kernel_shape=[3], pads=[1, 1]),
        node("Concat", ["a", "b", "c", "x"], ["d"], axis=1),
        node("Conv", ["d", "v"], ["y"], pads=[0, 2]),
    ]
    tensors = {"w": normal(rng, 3, 2, 3), "v": normal(rng, 2, 9, 3)}
    return model(nodes, inputs={"x": ["N", 2, 8]}, outputs=["y"], tensors=tensors)


@net
def residual(rng):
    nodes = [
        node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1]),
        node("Add", ["b", "c"], ["d"]),
        node("Relu", ["d"], ["e"]),
        node("Conv", ["e", "w3"], ["f"], strides=[2, 2]),
        node("Conv", ["e", "w4"], ["g"], strides=[2, 2], pads=[1, 1, 0, 0]),
        node("Add", ["f", "g"], ["h"]),
        node("Mul", ["h", "h"], ["i"]),
        node("GlobalAveragePool", ["i"], ["j"]),
        node("Flatten", ["j"], ["k"]),
        node("Gemm", ["k", "w5"], ["l"], transB=1),
        node("Softmax", ["l"], ["y"]),
    ]
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (6, 8, 1, 1), "w4": (6, 8, 2, 2), "w5": (4, 6)}
    tensors = {n: normal(rng, *s) for n, s in shapes.items()}
    return model(nodes, inputs={"x": ["N", 3, 6, 6]}, outputs=["y"], tensors=tensors)


@net
def two_inputs_two_outputs(rng):
    nodes = [
        node("MatMul", ["u", "w"], ["a"]),
        node("Add", ["a", "v"], ["b"]),
        node("Relu", ["b"], ["y"]),
        node("Mul", ["v", "v"], ["z"]),
    ]
    return model(nodes, inputs={"u": ["N", 6], "v": ["N", 4]}, outputs=["y", "z"], tensors={"w": normal(rng, 6, 4)})


@pytest.mark.parametrize("chip", FULL)
@pytest.mark.parametrize("name", NETS)
def test_an_operator_is_exact(name, chip, tmp_path):
    check_network(captured(NETS[name](np.random.default_rng(5))), chip_of(chip), tmp_path)


@net
def conv_of_a_large_kernel(rng):  # one channel takes more rows than a small array has
    return one(rng, "Conv", (3, 9, 8), normal(rng, 4, 3, 5, 5), normal(rng, 4), pads=[2, 2, 2, 2], strides=[2, 1])


SPLIT = (
    "conv_2d", "conv_tall", "conv_of_a_large_kernel", "gemm_tall_and_wide", "conv_grouped", "conv_depthwise",
    "residual", "matmul_of_rows",
)  # fmt: skip


@pytest.mark.parametrize("chip", SMALL)
@pytest.mark.parametrize("name", SPLIT)
def test_a_split_layer_is_exact(name, chip, tmp_path):
    graph = captured(NETS[name](np.random.default_rng(6)))
    if chip == "adc-joined" and name in ("conv_tall", "conv_of_a_large_kernel"):
        with pytest.raises(InfeasibleError):  # parts that the converter reads may not end inside a channel
            check_network(graph, chip_of(chip), tmp_path)
        return
    program = check_network(graph, chip_of(chip), tmp_path, slow=chip[:3] != "adc" or name == "conv_2d")
    if name in ("conv_tall", "gemm_tall_and_wide") and "joined" not in chip and chip != "banks":
        assert max(len(b.tiles) for s in program.sections for b in s.bindings) > 1


@pytest.mark.parametrize(
    ("name", "chip"),
    [
        ("gemm_tall_and_wide", "exact-joined"), ("conv_tall", "exact-joined"), ("gemm_tall_and_wide", "adc-joined"),
        ("conv_of_a_large_kernel", "exact-joined"),
    ],
)  # fmt: skip
def test_row_tiles_on_several_cores_are_added_up(name, chip, tmp_path):
    program = check_network(captured(NETS[name](np.random.default_rng(7))), chip_of(chip), tmp_path)
    assert len(cores_of(program)) > 1
    assert {"ACC", "REQ", "SIG", "AWAIT"} <= ops_of(program)
    tables = [v for s in program.sections for v in s.vectors if v.multiplier is not None]
    assert tables  # a multiplier per column


@settings(max_examples=25)
@example(seed=5266, chip="exact-small")  # a layer whose values are all negative
@example(seed=1757, chip="exact-unsigned")  # a mean with negative values before a layer of unsigned inputs
@given(seed=st.integers(0, 100_000), chip=st.sampled_from(sorted(CHIPS)))
def test_a_random_network_is_exact(tmp_path_factory, seed, chip):
    proto, _ = random_model(seed, steps=9)
    try:
        check_network(captured(proto), chip_of(chip), tmp_path_factory.mktemp("net"), seed=seed, slow=seed % 2 == 0)
    except InfeasibleError:
        assert chip in SMALL
