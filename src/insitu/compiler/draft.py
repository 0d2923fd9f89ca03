"""The quantized graph while it is written, and the small rules every operator's integers follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.compiler.plan import QuantPlan
from insitu.graph.graph import Attr, Graph, Node, const_type
from insitu.graph.types import TensorType, integer_dtype
from insitu.numeric.affine import Ints, QuantSpec, multiplier_of

MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Pad", "MaxPool", "ReduceMax")
RATIOS = (2.0**-50, 2.0**30)  # beyond these every code is 0, or at its bound


@dataclass
class Draft:
    """Nodes, types and constants so far."""

    graph: Graph
    chip: Chip
    plan: QuantPlan
    specs: dict[str, QuantSpec] = field(default_factory=dict[str, QuantSpec])
    nodes: list[Node] = field(default_factory=list[Node])
    types: dict[str, TensorType] = field(default_factory=dict[str, TensorType])
    constants: dict[str, npt.NDArray[Any]] = field(default_factory=dict[str, npt.NDArray[Any]])
    layers: dict[str, list[str]] = field(default_factory=dict[str, list[str]])  # float weights: constants made of them

    @property
    def power_of_two(self) -> bool:
        """True where the vector unit only shifts."""
        return self.chip.capabilities.scales == "power_of_two"

    def value(self, name: str, spec: QuantSpec, *, shape: tuple[int | str, ...] | None = None) -> None:
        """Declare a value with its spec."""
        shape = self.graph.type(name).shape if shape is None else shape
        self.specs[name] = spec
        self.types[name] = TensorType(shape, integer_dtype(spec.bits, signed=spec.signed), spec)

    def constant(self, name: str, array: npt.NDArray[Any], quant: QuantSpec | None = None) -> str:
        """Declare a constant; returns its name."""
        self.constants[name] = array
        self.types[name] = replace(const_type(array), quant=quant)
        if quant is not None:
            self.specs[name] = quant
        return name

    def add(self, node: Node, *, inputs: Iterable[str], attrs: dict[str, Attr], op: str = "") -> None:
        """Append `node` with other inputs and attributes."""
        self.nodes.append(Node(node.name, op or node.op, tuple(inputs), node.outputs[:1], attrs))

    def tables(self, ratio: npt.NDArray[Any] | float, *, shifts: bool | None = None) -> tuple[Ints, Ints]:
        """Multipliers and shifts of ratios; powers of two where the chip (or `shifts`) asks for them."""
        bounded = np.clip(np.asarray(ratio, np.float64), *RATIOS)
        return multiplier_of(bounded, power_of_two=self.power_of_two if shifts is None else shifts)

    def scaling(self, ratio: float, *, shifts: bool | None = None) -> dict[str, Attr]:
        """Attributes multiplier and shift of one ratio."""
        m, r = self.tables(ratio, shifts=shifts)
        return {"multiplier": int(m[0]), "shift": int(r[0])}


def activation_codes(node: Node, spec: QuantSpec) -> dict[str, Attr]:
    """Bounds lo and hi of a node's output codes: the spec's range narrowed by a fused activation.

    Channels with scales of their own share the bounds of the finest one; a coarser one is bounded by its range.
    """
    scale = min(spec.scale)
    low, high = float(node.attr("act_lo", -np.inf)), float(node.attr("act_hi", np.inf))
    lo = spec.lo if low == -np.inf else _code(low, scale, spec, least=spec.lo)
    hi = spec.hi if high == np.inf else _code(high, scale, spec, least=lo)
    return {"lo": lo, "hi": hi, "rounding": "half_even"}


def _code(real: float, scale: float, spec: QuantSpec, *, least: int) -> int:
    return int(np.clip(np.rint(np.clip(real / scale, -(2.0**40), 2.0**40)) + spec.zero_point, least, spec.hi))


def is_weight_layer(graph: Graph, node: Node) -> bool:
    """True for a layer that lives in arrays: Conv or MatMul with constant weights."""
    return node.op in ("Conv", "MatMul") and node.inputs[1] in graph.constants


def follow(graph: Graph, node: Node, spec: QuantSpec) -> QuantSpec | None:
    """What scales per channel become behind an operator that moves or averages codes; none where they cannot stay.

    Axes of values count from the end, so that they hold with and without a leading sample axis.
    """
    if spec.axis is None:
        return spec if node.op in MOVES else None
    if node.op not in (*MOVES, "AveragePool", "ReduceMean"):
        return None
    rank, out = graph.type(node.inputs[0]).rank, graph.type(node.output).rank
    moved = _followed(graph, node, replace(spec, axis=spec.axis % rank), spec.axis % rank)
    return None if moved is None or moved.axis is None else replace(moved, axis=moved.axis - out)


def _followed(graph: Graph, node: Node, spec: QuantSpec, axis: int) -> QuantSpec | None:
    if node.op in ("AveragePool", "ReduceMean"):
        return _averaged(graph, node, spec, axis)
    if node.op == "ReduceMax":
        return _averaged(graph, node, spec, axis)
    if node.op in ("MaxPool", "Pad"):
        pads = node.attr("pads", ()) if node.op == "Pad" else ()
        half = len(pads) // 2
        fine = not pads or (pads[axis] == pads[axis + half] == 0 and float(node.attr("value", 0.0)) == 0.0)
        return spec if fine and (node.op == "Pad" or axis < 2) else None
    if node.op == "Transpose":
        order = tuple(node.attr("perm") or reversed(range(graph.type(node.output).rank)))
        return replace(spec, axis=order.index(axis))
    if node.op == "Slice":
        return _sliced(graph, node, spec, axis)
    return _reshaped(graph, node, spec, axis) if node.op in MOVES else None


def _averaged(graph: Graph, node: Node, spec: QuantSpec, axis: int) -> QuantSpec | None:
    if node.op == "AveragePool":
        return spec if axis == 1 else None
    axes = [a % graph.type(node.inputs[0]).rank for a in node.attr("axes")]
    if axis in axes:
        return None
    return spec if node.attr("keepdims", 1) else replace(spec, axis=axis - sum(a < axis for a in axes))


def _sliced(graph: Graph, node: Node, spec: QuantSpec, axis: int) -> QuantSpec | None:
    scales, rank = list(spec.scale), graph.type(node.inputs[0]).rank
    for along, start, end, step in zip(*(node.attr(n) for n in ("axes", "starts", "ends", "steps")), strict=True):
        if along % rank == axis:
            scales = scales[slice(start, end, step)] if step > 0 else []
    return replace(spec, scale=tuple(scales)) if len(scales) > 1 else None


def _reshaped(graph: Graph, node: Node, spec: QuantSpec, axis: int) -> QuantSpec | None:
    """The axis with the same elements before it; it may swallow what lies behind."""
    before, after = graph.type(node.inputs[0]), graph.type(node.output)
    if before.symbols or after.symbols:
        return None
    shape, out = before.sizes(), after.sizes()
    inner = prod(shape[axis + 1 :])
    for place, size in enumerate(out):
        if prod(out[:place]) == prod(shape[:axis]) and size in (shape[axis], shape[axis] * inner):
            repeats = size // shape[axis]
            return replace(spec, scale=tuple(s for s in spec.scale for _ in range(repeats)), axis=place)
    return None
