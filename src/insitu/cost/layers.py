"""Layers as the shapes that cost: how many rows, columns and input vectors a weight matrix has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from insitu.base.errors import RangeError
from insitu.graph.graph import Graph

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """A weight matrix of rows x cols that `vectors` input vectors meet; `groups` of them side by side."""

    name: str
    rows: int
    cols: int
    vectors: int
    groups: int = 1

    def __post_init__(self) -> None:
        for key in ("rows", "cols", "vectors", "groups"):
            if getattr(self, key) < 1:
                raise RangeError(f"layer {self.name}: {key}", str(getattr(self, key)), "at least 1")

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those of padding included: an array multiplies zeros too."""
        return self.rows * self.cols * self.vectors * self.groups


@dataclass(frozen=True)
class Layers:
    """Many layers as arrays of shape [layers, 1], to meet design points of shape [points]."""

    names: tuple[str, ...]
    rows: Floats
    cols: Floats
    vectors: Floats
    groups: Floats


def stack(layers: Iterable[Layer]) -> Layers:
    """Layers as arrays."""
    given = list(layers)
    if not given:
        raise RangeError("layers", "none", "at least one")

    def column(key: str) -> Floats:
        return np.array([getattr(layer, key) for layer in given], np.float64)[:, None]

    return Layers(tuple(layer.name for layer in given), *(column(k) for k in ("rows", "cols", "vectors", "groups")))


def convolution(
    name: str, *, channels: tuple[int, int], kernel: Sequence[int], size: Sequence[int], stride: int = 1,
    padding: int = 0, groups: int = 1,
) -> Layer:  # fmt: skip
    """A convolution over a map of `size`: every output position is a vector, those that see padding included."""
    out = [(s + 2 * padding - k) // stride + 1 for s, k in zip(size, kernel, strict=True)]
    rows = channels[0] // groups * int(np.prod(list(kernel)))
    return Layer(name, rows, channels[1] // groups, int(np.prod(out)), groups)


def layers_of(graph: Graph) -> tuple[Layer, ...]:
    """The weight layers of a graph whose sizes are bound."""
    found: list[Layer] = []
    for node in graph.nodes:
        if node.op not in ("Conv", "MatMul", "Gemm") or node.inputs[1] not in graph.constants:
            continue
        weights = graph.constants[node.inputs[1]].shape
        outputs = graph.type(node.output).count()
        groups = int(node.attr("group", 1))
        if node.op == "Conv":
            rows, cols = int(np.prod(weights[1:])), weights[0] // groups
        else:
            rows, cols = weights[::-1] if node.attr("transB", 0) else weights
        found.append(Layer(node.name or node.output, rows, cols, outputs // (cols * groups), groups))
    return tuple(found)
