"""The verifier finds what is wrong, all of it at once, and lets sound graphs pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from insitu.base.errors import ModelError
from insitu.frontend.onnx import import_model
from insitu.graph.graph import Graph, Node, State
from insitu.graph.types import TensorType
from insitu.graph.verify import driven_range, peak_sum, verify
from insitu.numeric.affine import QuantSpec
from tests.graph.networks import random_model


def faults(graph: Graph) -> str:
    with pytest.raises(ModelError) as caught:
        verify(graph, where="g")
    assert caught.value.code == "graph_invariant"
    return str(caught.value)


def captured(*nodes: Node, **changes: Any) -> Graph:
    kind = TensorType((1, 4), "f32")
    nodes = nodes or (Node("n", "Relu", ("x",), ("y",)),)
    types = {v: kind for n in nodes for v in (*n.inputs, *n.outputs)} | {"x": kind}
    return replace(Graph("g", "captured", ("x",), ("y",), nodes, types), **changes)


SPEC = QuantSpec(8, True, (0.5,), 3)


def layer(*, attrs: dict[str, Any] | None = None, **arrays: np.ndarray) -> Graph:
    """A quantized MatMul of 4 rows and 2 columns."""
    tables = {
        "w": np.full((4, 2), 5, np.int8), "b": np.array([7, -7]), "m": np.array([1 << 20, 3]), "r": np.array([24, 5]),
    } | arrays  # fmt: skip
    node = Node("fc", "MatMul", ("x", *tables), ("y",), {"readout": "exact", "lo": -128, "hi": 127} | (attrs or {}))
    types = {k: TensorType(v.shape, "i8" if v.dtype == np.int8 else "i64") for k, v in tables.items()}
    types["w"] = replace(types["w"], quant=QuantSpec(8, True, (0.25, 0.5), 0, 1))
    types |= {"x": TensorType((1, 4), "i8", SPEC), "y": TensorType((1, 2), "i8", SPEC)}
    return Graph("g", "quantized", ("x",), ("y",), (node,), types, tables)


def test_sound_graphs_pass() -> None:
    for graph in (captured(), layer(), layer(m=np.array([1]), r=np.array([0]))):
        assert verify(graph) is graph
    for seed in range(20):
        verify(import_model(random_model(seed)[0]))


def test_all_faults_are_listed() -> None:
    graph = captured(
        Node("n", "Relu", ("q",), ("y",)), Node("n", "Magic", ("x",), ("y",)), outputs=("y", "z"),
    )  # fmt: skip
    text = faults(replace(graph, types={}))
    for word in ("faults", "reads 'q' before", "two nodes are called 'n'", "'n' (Magic) is no operator",
                 "writes 'y', which is there already", "output 'z' is never written", "'x' has no type"):  # fmt: skip
        assert word in text


def test_order() -> None:
    nodes = (Node("a", "Relu", ("m",), ("y",)), Node("b", "Relu", ("x",), ("m",)))
    assert "'a' (Relu) reads 'm' before" in faults(captured(*nodes))


def test_types_follow_the_rules() -> None:
    graph = captured()
    wrong = {**graph.types, "y": TensorType((1, 5), "f32")}
    assert "'y' is f32 1x5; needs f32 1x4" in faults(replace(graph, types=wrong))
    wrong = {**graph.types, "y": TensorType((1, 4), "f64")}
    assert "needs f32 1x4" in faults(replace(graph, types=wrong))


def test_constants_match_their_types() -> None:
    graph = captured(Node("n", "Add", ("x", "c"), ("y",)))
    assert "constant 'c' is float64 4" in faults(replace(graph, constants={"c": np.zeros(4)}))


def test_states_are_alike() -> None:
    graph = captured()
    types = {**graph.types, "s": TensorType((1, 3), "f32")}
    assert "different types" in faults(replace(graph, types=types, states=(State("s", "y"),)))
    assert "state output 'q'" in faults(replace(graph, types=types, states=(State("s", "q"),)))


@pytest.mark.parametrize(
    ("attrs", "word"),
    [
        ({"lo": 5, "hi": 4}, "codes 5 to 4"),
        ({"lo": -129}, "needs a range within -128 to 127"),
        ({"lo": "text"}, "lo = 'text'; needs an integer"),
        ({"hi": 1.5}, "needs an integer"),
        ({"hi": 1 << 70}, "needs an integer"),
        ({"rounding": "up"}, "rounding 'up'"),
        ({"readout": "magic"}, "readout 'magic'"),
        ({"parts": (0, 3)}, "rising bounds from 0 to 4"),
        ({"parts": (0, 3, 2, 4)}, "rising bounds"),
        ({"parts": "all"}, "a list of integers"),
        ({"readout": "wtm2101"}, "has 5 inputs"),
        ({"readout": "adc", "adc_m": 0}, "adc_m = 0"),
        ({"input_shift": 1 << 40}, "needs an integer in range"),
    ],
)  # fmt: skip
def test_attributes_of_a_layer(attrs: dict[str, Any], word: str) -> None:
    assert word in faults(layer(attrs=attrs))


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"b": np.array([1, 2, 3])}, "'b'"),
        ({"m": np.array([1 << 31, 1])}, "out of range"),
        ({"r": np.array([63, 1])}, "out of range"),
        ({"b": np.array([1 << 31, 0])}, "sums up to 2,147,4"),
    ],
)  # fmt: skip
def test_tables_of_a_layer(arrays: dict[str, np.ndarray], word: str) -> None:
    assert word in faults(layer(**arrays))


def test_missing_attributes() -> None:
    graph = layer()
    (node,) = graph.nodes
    assert "lacks lo" in faults(replace(graph, nodes=(replace(node, attrs={"hi": 1}),)))


def test_values_hold_their_codes() -> None:
    graph = layer()
    types = {**graph.types, "x": TensorType((1, 4), "i8", QuantSpec(9, True, (1.0,)))}
    assert "'x' is i8 with 9 bits" in faults(replace(graph, types=types))
    types = {**graph.types, "x": TensorType((1, 4), "i8")}
    assert "no quantization" in faults(replace(graph, types=types))
    types = {**graph.types, "w": replace(graph.types["w"], quant=QuantSpec(3, True, (1.0, 1.0), 0, 1))}
    assert "codes 5 to 5; needs -4 to 3" in faults(replace(graph, types=types))


def test_moves_keep_the_meaning_of_codes() -> None:
    node = Node("n", "Reshape", ("x",), ("y",), {"shape": (4,)})
    types = {"x": TensorType((1, 4), "i8", SPEC), "y": TensorType((4,), "i8", replace(SPEC, zero_point=0))}
    graph = Graph("g", "quantized", ("x",), ("y",), (node,), types)
    assert "changes what codes stand for" in faults(graph)
    verify(replace(graph, types={**types, "y": replace(types["x"], shape=(4,))}))


def test_gains_are_powers_of_two_above_k() -> None:
    graph = layer(attrs={"readout": "wtm2101", "k": 3})
    (node,) = graph.nodes
    for gain, fine in ((512, True), (500, False), (4, False), (8, True)):
        constants = {**graph.constants, "g": np.array([gain, gain])}
        types = {**graph.types, "g": TensorType((2,), "i64")}
        inputs = ("x", "w", "b", "", "", "g")
        each = replace(graph, nodes=(replace(node, inputs=inputs),), constants=constants, types=types)
        if fine:
            verify(each)
        else:
            assert "powers of two above 2^k" in faults(each)


def test_the_largest_sum_is_exact() -> None:
    rng = np.random.default_rng(0)
    w, b = rng.integers(-128, 128, (6, 3)), rng.integers(-1000, 1000, 3)
    corners = np.array(np.meshgrid(*[[-128, 127]] * 6)).reshape(6, -1).T
    sums = np.concatenate([(corners @ w + b).ravel(), (corners @ w).ravel()])
    assert np.abs(sums).max() <= peak_sum(w, b, lo=-128, hi=127) <= np.abs(sums).max() + 1000


def test_driven_codes() -> None:
    node = Node("n", "MatMul", (), (), {"readout": "wtm2101", "input_shift": 1, "input_offset": 0})
    assert driven_range(node, QuantSpec(8, True, (1.0,))) == (0, 254)
    assert driven_range(replace(node, attrs={}), QuantSpec(8, True, (1.0,))) == (-128, 127)


def test_hostile_attributes_are_faults() -> None:
    for attrs in ({"axis": "one"}, {"axis": 7}, {"axis": 1 << 63}):
        assert "Softmax" in faults(captured(Node("n", "Softmax", ("x",), ("y",), attrs)))
    assert "NaN" not in faults(captured(Node("n", "Clip", ("x",), ("y",), {"lo": float("nan")})))
