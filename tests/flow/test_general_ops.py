"""Operators beside the first two dozen, as integers: interpreter, reference semantics and simulator agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from insitu.arch.load import load_chip
from insitu.flow.chain import Options, deploy
from insitu.frontend.onnx import import_model
from tests.flow.line import captured, check_network, chip_of
from tests.graph.networks import model, node

RNG = np.random.default_rng(5)


def real(*shape: int, fan: int = 1) -> np.ndarray[Any, Any]:
    return (RNG.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)


def image(*nodes: onnx.NodeProto, out: str, channels: int = 6, opset: int = 17, **tensors: Any) -> onnx.ModelProto:
    """A convolution, these nodes from "a" to `out`, and another convolution."""
    weights = {"w": real(6, 2, 3, 3, fan=18), "b": real(6), "v": real(3, channels, 1, 1, fan=channels)}
    ends = [node("Conv", ["x", "w", "b"], ["a"], pads=[1] * 4), *nodes, node("Conv", [out, "v"], ["y"])]
    return model(ends, inputs={"x": (1, 2, 5, 5)}, outputs=["y"], tensors={**weights, **tensors}, opset=opset)


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "curves": lambda: image(
        node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["m"]), node("Tanh", ["m"], ["t"]),
        node("Sub", ["t", "s"], ["d"]), node("Max", ["d", "a"], ["z"]), out="z",
    ),
    "quotient": lambda: image(
        node("Exp", ["a"], ["e"]), node("ReduceSum", ["e", "one"], ["t"]), node("Div", ["e", "t"], ["z"]), out="z",
        one=ints(1),
    ),
    "norms": lambda: image(
        node("InstanceNormalization", ["a", "g", "h"], ["i"]), node("Relu", ["i"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]), node("LayerNormalization", ["t", "g", "h"], ["n"]),
        node("Transpose", ["n"], ["z"], perm=[0, 3, 1, 2]), out="z", g=1 + real(6, fan=9), h=real(6, fan=9),
    ),
    "lrn": lambda: image(node("LRN", ["a"], ["z"], size=3, alpha=0.5), out="z"),
    "moves": lambda: image(
        node("Gather", ["a", "order"], ["g"], axis=1), node("Pad", ["g", "pads"], ["p"], mode="reflect"),
        node("ReduceMax", ["p"], ["m"], axes=[1]), node("Expand", ["m", "shape"], ["e"]),
        node("Add", ["e", "p"], ["z"]), out="z", channels=3, order=ints(4, 0, 2), pads=ints(0, 0, 1, 0, 0, 0, 1, 1),
        shape=ints(1, 3, 1, 1),
    ),
    "up": lambda: image(
        node("ConvTranspose", ["a", "u"], ["c"], strides=[2, 2]), node("LeakyRelu", ["c"], ["l"]),
        node("Resize", ["l", "", "scale"], ["z"], mode="linear"), out="z", channels=4, u=real(6, 4, 3, 3, fan=12),
        scale=np.float32([1, 1, 0.5, 1]),
    ),
    "steps": lambda: model(
        [node("GRU", ["x", "w", "r", "b"], ["h", "e"], hidden_size=6, linear_before_reset=1),
         node("Squeeze", ["e", "zero"], ["s"]), node("MatMul", ["s", "o"], ["y"])],
        inputs={"x": (4, 1, 5)}, outputs=["y"],
        tensors={"w": real(1, 18, 5, fan=5), "r": real(1, 18, 6, fan=6), "b": real(1, 36), "o": real(6, 3),
                 "zero": ints(0)},
    ),
}  # fmt: skip


CASES = [
    *((name, "exact-small") for name in NETWORKS),
    *(pytest.param(name, "adc-small", marks=pytest.mark.slow) for name in NETWORKS),
    *((name, "wtm2101") for name in NETWORKS if name != "norms"),  # norms are the host's there
]


@pytest.mark.parametrize(("name", "chip"), CASES)
def test_integers(name: str, chip: str, tmp_path: Path) -> None:
    check_network(captured(NETWORKS[name]()), chip_of(chip), tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_reference_semantics_too(name: str, tmp_path: Path) -> None:
    check_network(captured(NETWORKS[name]()), chip_of("exact-small"), tmp_path)


def test_the_host_is_said_and_counted() -> None:
    proto = image(node("TopK", ["a", "k"], ["t", "i"], axis=1), out="t", channels=2, k=ints(2))
    result = deploy(import_model(proto), load_chip("dcim-28nm"), options=Options(physics="ideal")).result
    assert result.coverage is not None
    assert result.coverage.host_ops == {"TopK": 1}
    assert result.coverage.array_macs_fraction == 1.0
    assert result.bit_exact is not None
    assert result.bit_exact.mismatches == 0
    assert result.bit_exact.excluded_values > 0
    assert result.metrics["sqnr_db"].value > 25
    assert {r.name: r.unit for r in result.layers}["t_node"] == "host"


def test_weights_that_the_host_multiplies_count_against_the_arrays() -> None:
    weights = {"w": real(6, 2, 1, 1), "r": real(1, 12, 6), "u": real(1, 12, 3), "p": ints(2, 0, 1), "s": ints(25, 1, 6)}
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Reshape", ["a", "s"], ["q"]),
        node("LSTM", ["q", "r", "u"], ["h", "y"], hidden_size=3, input_forget=1),
    ]
    proto = model(nodes, inputs={"x": (1, 2, 5, 5)}, outputs=["y"], tensors=weights)
    result = deploy(import_model(proto), load_chip("dcim-28nm"), options=Options(physics="ideal")).result
    assert result.coverage is not None
    assert result.coverage.host_ops == {"LSTM": 1}
    arrays, host = 25 * 6 * 2, 25 * 12 * (6 + 3)
    assert result.coverage.array_macs_fraction == pytest.approx(arrays / (arrays + host))


@pytest.mark.parametrize(("rows", "host"), [(50, {}), (4200, {"Gather": 1})])
def test_rows_of_a_table_are_picked_on_the_chip_or_where_the_table_is(rows: int, host: dict[str, int]) -> None:
    """A table larger than an eighth of the memory stays with the host; whole numbers that pick rows give reals."""
    nodes = [node("Gather", ["t", "ids"], ["e"]), node("MatMul", ["e", "w"], ["y"])]
    proto = model(nodes, inputs={"ids": (1, 6)}, outputs=["y"], tensors={"t": real(rows, 64), "w": real(64, 8, fan=64)})
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    deployed = deploy(import_model(proto), load_chip("dcim-28nm"), options=Options(physics="ideal"))
    result, ids = deployed.result, np.arange(6)[None, None]
    assert result.coverage is not None
    assert result.coverage.host_ops == host
    assert result.bit_exact is not None
    assert result.bit_exact.mismatches == 0
    assert result.metrics["sqnr_db"].value > 25
    (y,) = deployed.run(ids).values()
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    assert np.abs(y[0] - tensors["t"][ids[0]] @ tensors["w"]).max() < 0.1
