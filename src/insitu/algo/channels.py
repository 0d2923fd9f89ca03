"""Which values may have one scale per channel, and which layers read them: where equalization is free.

A weight layer multiplies the scales of its input's channels into its own weights, so a value that only weight layers
read (perhaps behind operators that move or average codes) can give every channel the range it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.compiler.draft import MOVES, follow, is_weight_layer
from insitu.graph.graph import Graph, Node
from insitu.numeric.affine import QuantSpec

Floats = npt.NDArray[np.float64]
LARGEST = 1 << 24  # weights of a layer whose channels are looked at one by one


@dataclass(frozen=True)
class Reader:
    """A weight layer behind a value: largest weight [outputs, channels], per channel sum of squares and row count."""

    node: Node
    peak: Floats
    energy: Floats
    rows: Floats


def channel_axis(graph: Graph, value: str) -> int | None:
    """The axis (from the end) that counts channels for the layers around a value; none where they disagree."""
    rank = graph.type(value).rank
    made = graph.producer(value)
    layers = [n for n in graph.consumers().get(value, []) if is_weight_layer(graph, n) and n.inputs[0] == value]
    layers += [made] if made is not None and is_weight_layer(graph, made) else []
    found = {1 - rank if n.op == "Conv" else -1 for n in layers}
    if len(found) > 1 or rank < 2:
        return None
    return found.pop() if found else _axis_behind(graph, value)


def _axis_behind(graph: Graph, value: str) -> int:
    """The axis that counts channels for layers behind operators that move codes; the one of images where none do."""
    rank = graph.type(value).rank
    for axis in dict.fromkeys((1 - rank, -1)):
        size = graph.type(value).shape[axis]
        if isinstance(size, int) and any(n.op in MOVES for n in graph.consumers().get(value, [])):
            reached = list(_reached(graph, value, _numbered(size, axis)))
            if reached and all(reached):
                return axis
    return 1 - rank


def _numbered(size: int, axis: int) -> QuantSpec:
    """A spec that carries each channel's number as its scale."""
    return QuantSpec(8, signed=False, scale=tuple(float(i + 1) for i in range(size)), axis=axis)


def _reached(graph: Graph, value: str, spec: QuantSpec) -> Iterator[bool]:
    """For each weight layer behind, whether it counts its inputs along the channels of `spec`."""
    for node in graph.consumers().get(value, []):
        if is_weight_layer(graph, node):
            yield spec.axis == (1 - graph.type(value).rank if node.op == "Conv" else -1)
        elif (onward := follow(graph, node, spec)) is not None:
            yield from _reached(graph, node.output, onward)


def readers(graph: Graph, value: str) -> list[Reader] | None:
    """The weight layers behind a value, channel by channel; none where its channels must share one scale."""
    axis = channel_axis(graph, value)
    size = graph.type(value).shape[axis] if axis is not None else 0
    if axis is None or not isinstance(size, int) or size < 2:
        return None
    if value in graph.inputs and axis != -1:
        return None
    found: list[Reader] = []
    return found if _collect(graph, value, _numbered(size, axis), size, found) and found else None


def _collect(graph: Graph, value: str, numbered: QuantSpec, channels: int, found: list[Reader]) -> bool:
    """Adds the layers that read `value`."""
    if value in graph.outputs or any(value in (s.input, s.output) for s in graph.states):
        return False
    for node in graph.consumers().get(value, []):
        if is_weight_layer(graph, node) and node.inputs[0] == value:
            axis = 1 - graph.type(value).rank if node.op == "Conv" else -1
            fixed = graph.types[node.inputs[1]].quant is not None  # codes that the model brings along
            if fixed or numbered.axis != axis or graph.constants[node.inputs[1]].size > LARGEST:
                return False
            found.append(_reader(graph, node, np.asarray(numbered.scale, int) - 1, channels))
            continue
        onward = follow(graph, node, numbered)
        if onward is None or not _collect(graph, node.output, onward, channels, found):
            return False
    return True


def _reader(graph: Graph, node: Node, numbers: npt.NDArray[Any], channels: int) -> Reader:
    """`numbers` says which channel of the value each input channel of the layer is."""
    peak, energy, each = _per_input(graph, node)
    out = Reader(node, np.zeros((len(peak), channels)), np.zeros(channels), np.zeros(channels))
    np.maximum.at(out.peak.T, numbers, peak.T)
    np.add.at(out.energy, numbers, energy)
    np.add.at(out.rows, numbers, np.full(len(numbers), float(each)))
    return out


def _per_input(graph: Graph, node: Node) -> tuple[Floats, Floats, int]:
    """(largest weight [outputs, inputs], sum of squares per input, rows per input) of a layer."""
    w = np.abs(np.asarray(graph.constants[node.inputs[1]], np.float64))
    if node.op == "MatMul":
        return w.T, (w**2).sum(axis=1), 1
    out, each, groups = w.shape[0], w.shape[1], int(node.attr("group", 1))
    flat = w.reshape(out, each, -1)
    peak = np.zeros((out, each * groups))
    first = np.arange(out) // (out // groups) * each
    peak[np.arange(out)[:, None], first[:, None] + np.arange(each)] = flat.max(axis=2)
    energy = (flat**2).sum(axis=2).reshape(groups, out // groups, each).sum(axis=1)
    return peak, energy.reshape(-1), flat.shape[2]
