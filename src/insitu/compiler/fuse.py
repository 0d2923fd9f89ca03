"""Fusion: neighbours that a macro or the vector unit does in one go become one node.

Per-channel Mul and Add after a weight layer go into its weights and bias, unless they are kept `apart`; zero padding
goes into Conv and AveragePool; Relu and Clip become the bounds `act_lo` and `act_hi` of the node before (an absent
bound is infinite), which takes over their output name.  An activation behind operators that only move values is moved
before them first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.graph.graph import Attr, Graph, Node, const_type
from insitu.graph.rewrite import Names, live, pinned
from insitu.graph.types import TensorType
from insitu.numeric.affine import QuantSpec

Array = npt.NDArray[Any]
ACTIVE = ("Conv", "MatMul", "Add", "Sub", "Mul", "AveragePool", "ReduceMean", "ReduceSum")
MOVES = ("Reshape", "Transpose", "Slice", "MaxPool")  # an activation may as well come before these


def run(graph: Graph) -> Graph:
    """The same network with fused nodes; expects the normal form of `canonicalize`."""
    work = _Work(graph)
    for node in graph.nodes:
        work.add(_fused(work, _padded(work, node)))
    result = graph.with_nodes((n for n in work.nodes if n is not None), types=work.types, constants=work.constants)
    return live(result)


@dataclass
class _Work:
    """The graph while it is rewritten: nodes in place, those that were absorbed are None."""

    graph: Graph
    nodes: list[Node | None] = field(default_factory=list[Node | None])
    places: dict[str, int] = field(default_factory=dict[str, int])
    types: dict[str, TensorType] = field(default_factory=dict[str, TensorType])
    constants: dict[str, Array] = field(default_factory=dict[str, Array])

    def __post_init__(self) -> None:
        self.types.update(self.graph.types)
        self.constants.update(self.graph.constants)
        self.names = Names(self.graph.types)
        self.readers = {v: len(r) for v, r in self.graph.consumers().items()}
        self.fixed = pinned(self.graph)

    def add(self, node: Node | None) -> None:
        if node is not None:
            self.places.update(dict.fromkeys(node.outputs, len(self.nodes)))
            self.nodes.append(node)

    def alone(self, value: str) -> Node | None:
        """The node that writes `value`, if exactly one node reads it, nobody outside does, and no model rounds it."""
        place = self.places.get(value)
        rounded = self.types[value].quant is not None if value in self.types else False
        if place is None or value in self.fixed or self.readers.get(value) != 1 or rounded:
            return None
        return self.nodes[place]

    def put(self, old: Node, new: Node) -> None:
        """`new` in the place of `old`; its output may have another name."""
        place = self.places[old.output]
        self.nodes[place] = new
        self.places[new.output] = place
        if new.output != old.output:
            self.types[new.output] = self.types[old.output] if new.output not in self.types else self.types[new.output]

    def constant(self, base: str, array: Array, *, quant: QuantSpec | None = None, wide: bool = False) -> str:
        name = self.names.fresh(base)
        values = np.asarray(array, np.float64 if wide else np.float32, order="C")
        self.constants[name], self.types[name] = values, replace(const_type(values), quant=quant)
        return name


def _fused(work: _Work, node: Node) -> Node | None:
    """`node`, or None where the node before it has taken it over."""
    before = work.alone(node.inputs[0]) if node.inputs else None
    if before is None:
        return node
    if node.op in ("Mul", "Add") and _absorb(work, before, node):
        return None
    if node.op in ("Relu", "Clip") and _activate(work, before, node):
        return None
    return node


# per-channel scale and shift


def _absorb(work: _Work, layer: Node, node: Node) -> bool:
    """Folds a constant Mul or Add per output channel into a weight layer."""
    constant = work.constants.get(node.inputs[1])
    if constant is None or layer.op not in ("Conv", "MatMul") or layer.attrs.keys() & {"act_lo", "act_hi"}:
        return False
    if node.attr("apart", 0):
        return False
    weight = work.constants.get(layer.inputs[1]) if len(layer.inputs) == 3 else None
    same = work.types[layer.output].shape == work.types[node.output].shape
    if weight is None or not same:
        return False
    rank, conv = len(work.types[node.output].shape), layer.op == "Conv"
    channels = _per_channel(constant, 1 if conv else rank - 1, rank, weight.shape[0 if conv else 1])
    if channels is None:
        return False
    tables = _scaled(work, layer, node, channels)
    if not all(np.all(np.abs(t) < np.finfo(np.float32).max) for t in tables.values()):
        return False
    spec = _rescaled(work.types[layer.inputs[1]].quant, node, channels)
    bare = node.op == "Add" and not np.any(work.constants[layer.inputs[2]])
    specs = {"weight": spec if "weight" in tables else None, "bias": _own(work, node) if bare else None}
    wide = work.types[layer.inputs[1]].quant is not None  # a bias beside quantized weights keeps its 32 bits
    names = {
        kind: work.constant(f"{layer.name}_{kind}", table, quant=specs.get(kind), wide=wide and kind == "bias")
        for kind, table in tables.items()
    }
    x, w, b = layer.inputs
    inputs = (x, names.get("weight", w), names.get("bias", b))
    work.put(layer, replace(layer, inputs=inputs, outputs=node.outputs))
    return True


def _rescaled(spec: QuantSpec | None, node: Node, channels: Array) -> QuantSpec | None:
    """The spec of quantized weights times a factor per channel: their codes stay, or change sign."""
    if spec is None or node.op != "Mul" or np.any(channels == 0):
        return None
    axis = spec.axis if spec.axis is not None else (0 if len(set(np.abs(channels).tolist())) > 1 else None)
    scale = np.broadcast_to(np.asarray(spec.scale), channels.shape) * np.abs(channels)
    return replace(spec, scale=tuple(scale.tolist()) if axis is not None else (float(scale[0]),), axis=axis)


def _own(work: _Work, node: Node) -> QuantSpec | None:
    """The spec of a quantized constant that becomes a bias."""
    spec = work.types[node.inputs[1]].quant
    return None if spec is None else replace(spec, axis=None if spec.axis is None else 0)


def _per_channel(constant: Array, axis: int, rank: int, channels: int) -> Array | None:
    """The constant as one number per channel; none where it varies along other axes."""
    if constant.ndim > rank:
        return None
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if any(d != 1 for i, d in enumerate(shape) if i != axis):
        return None
    return np.broadcast_to(constant.reshape(-1).astype(np.float64), (channels,))


def _scaled(work: _Work, layer: Node, node: Node, channels: Array) -> dict[str, Array]:
    """What changes of a layer's weights and bias when a Mul or Add per channel goes into it."""
    weight, bias = (work.constants[v].astype(np.float64) for v in layer.inputs[1:3])
    if node.op == "Add":
        return {"bias": bias + channels}
    along = channels.reshape(-1, *(1,) * (weight.ndim - 1)) if layer.op == "Conv" else channels
    return {"weight": weight * along, "bias": bias * channels}


# activations


def bounds(node: Node) -> tuple[float, float]:
    """The limits of a Relu or Clip, or of the activation fused into a node."""
    if node.op == "Relu":
        return (0.0, np.inf)
    low, high = ("lo", "hi") if node.op == "Clip" else ("act_lo", "act_hi")
    return float(node.attr(low, -np.inf)), float(node.attr(high, np.inf))


def _activate(work: _Work, before: Node, node: Node) -> bool:
    """Fuses a Relu or Clip into the node before, or into the one before operators that only move values."""
    target, movers = before, list[Node]()
    while target.op in MOVES:
        movers.append(target)
        source = work.alone(target.inputs[0])
        if source is None:
            return False
        target = source
    if target.op not in (*ACTIVE, "Relu", "Clip"):
        return False
    outputs = target.outputs if movers else node.outputs
    work.put(target, replace(_narrowed(target, bounds(node)), outputs=outputs))
    if movers:
        work.put(movers[0], replace(movers[0], outputs=node.outputs))
    return True


def _narrowed(target: Node, outer: tuple[float, float]) -> Node:
    """`target` with its bounds followed by `outer`; one activation after another is one Relu or Clip."""
    lo, hi = (min(max(bound, outer[0]), outer[1]) for bound in bounds(target))
    if target.op in ("Relu", "Clip"):
        relu = (lo, hi) == (0.0, np.inf)
        return replace(target, op="Relu" if relu else "Clip", attrs={} if relu else {"lo": lo, "hi": hi})
    rest = {k: v for k, v in target.attrs.items() if k not in ("act_lo", "act_hi")}
    limits: dict[str, Attr] = {k: v for k, v in (("act_lo", lo), ("act_hi", hi)) if np.isfinite(v)}
    return replace(target, attrs={**rest, **limits})


# padding


def _padded(work: _Work, node: Node) -> Node:
    """A Conv or AveragePool that takes over the zero padding of its input."""
    if node.op not in ("Conv", "AveragePool"):
        return node
    place = work.places.get(node.inputs[0])
    pad = work.nodes[place] if place is not None else None
    if pad is None or pad.op != "Pad" or float(pad.attr("value", 0.0)) != 0.0:
        return node
    widths = tuple(int(p) for p in pad.attr("pads"))
    rank = len(widths) // 2
    if any(widths[:2]) or any(widths[rank : rank + 2]):
        return node
    own = tuple(node.attr("pads", ())) or (0,) * (2 * (rank - 2))
    pads = tuple(a + b for a, b in zip(own, (*widths[2:rank], *widths[rank + 2 :]), strict=True))
    if node.op == "AveragePool":
        return _padded_average(node, pads, pad.inputs[0], any(own))
    return replace(node, inputs=(pad.inputs[0], *node.inputs[1:]), attrs={**node.attrs, "pads": pads})


def _padded_average(node: Node, pads: tuple[int, ...], source: str, own: bool) -> Node:
    """The zeros of a Pad count as elements, so this holds only where the pool's own padding counts too, or is none."""
    kernel = tuple(node.attr("kernel_shape"))
    too_wide = any(p >= k for p, k in zip(pads, (*kernel, *kernel), strict=True))
    if too_wide or (own and not node.attr("count_include_pad", 0)):
        return node
    return replace(node, inputs=(source,), attrs={**node.attrs, "pads": pads, "count_include_pad": 1})
