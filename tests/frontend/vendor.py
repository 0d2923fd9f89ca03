"""Small networks in the WTM2101 dialect: integers in FLOAT tensors, written with onnx.helper as its users do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

Array = np.ndarray[Any, Any]
SHARED = os.environ.get("INSITU_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data"
SAMPLES = Path(SHARED) / "witmem"  # the vendor's sample networks, where they are at hand


def tensor(name: str, array: Array) -> onnx.TensorProto:
    """A FLOAT tensor."""
    return helper.make_tensor(name, TensorProto.FLOAT, array.shape, np.asarray(array, np.float32).ravel())


def network(
    nodes: Sequence[onnx.NodeProto], *, inputs: Mapping[str, Sequence[int]], outputs: Sequence[str],
    tensors: Mapping[str, Array] | None = None,
) -> onnx.ModelProto:  # fmt: skip
    """A model of the dialect; the shapes of outputs are not declared, as nobody reads them."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        initializer=[tensor(n, a) for n, a in (tensors or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)


def layer(
    op: str, x: str, y: str, *, gain: float = 1024, relu: bool = False, name: str = "", **attrs: Any
) -> list[onnx.NodeProto]:
    """An array layer with its Scale, and a Relu; its tensors are called y.w and y.b."""
    last = [helper.make_node("Relu", [f"{y}.scaled"], [y])] if relu else []
    scaled = f"{y}.scaled" if relu else y
    return [
        helper.make_node(op, [x, f"{y}.w", f"{y}.b"], [f"{y}.sum"], name=name or y, **attrs),
        helper.make_node("Scale", [f"{y}.sum"], [scaled], scale=1.0 / gain),
        *last,
    ]


def weights(rng: np.random.Generator, *shape: int, peak: int = 127) -> Array:
    """Random integers up to `peak`."""
    return rng.integers(-peak, peak + 1, shape).astype(np.float32)


def biases(rng: np.random.Generator, count: int, peak: int = 200) -> Array:
    """Random multiples of 128."""
    return 128 * rng.integers(-peak, peak + 1, count).astype(np.float32)


def read(acc: Array, gain: int, low: int = -128) -> Array:
    """The array's readout in Python's own integers, written apart from the package."""

    def one(value: int) -> int:
        fine = 4 * abs(value) // gain
        return min(max(((fine if value >= 0 else -fine) + 2) >> 2, low), 127)

    return np.vectorize(one, otypes=[np.int64])(np.asarray(acc, np.int64))


def sigmoid_table() -> Array:
    """1024 entries, index in two's complement, as the vendor's examples make them."""
    x = np.concatenate([np.arange(512), np.arange(-512, 0)])
    return np.clip(np.round(128 / (1 + np.exp(-x / 64))), None, 127)


def tanh_table(entries: int = 1024) -> Array:
    """Likewise for tanh."""
    half = entries // 2
    x = np.concatenate([np.arange(half), np.arange(-half, 0)])
    return np.clip(np.round(128 * np.tanh(x / (half / 4))), None, 127)
