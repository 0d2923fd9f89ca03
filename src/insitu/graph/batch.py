"""Where the batch goes: for every value the axis that grows when a network of hardware batch 1 runs many samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from insitu.graph.graph import Graph, Node
from insitu.graph.types import Dim


class _MixedError(Exception):
    """The batch would mix with another axis."""


def batch_axes(graph: Graph) -> dict[str, int] | None:
    """Value -> its batch axis; none where samples would mix, so that they have to run one by one."""
    axes: dict[str, int] = {}
    for name in (*graph.inputs, *graph.state_inputs):
        shape = graph.type(name).shape
        if not shape or shape[0] != 1:
            return None
        axes[name] = 0
    try:
        for node in graph.nodes:
            axis = RULES.get(node.op, _same)(_Place(graph, node, axes))
            axes.update(dict.fromkeys(node.outputs, axis))
    except _MixedError:
        return None
    return axes if all(o in axes for o in graph.outputs) else None


@dataclass(frozen=True)
class _Place:
    """One node with the batch axes of what it reads."""

    graph: Graph
    node: Node
    axes: dict[str, int]

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.graph.type(self.node.inputs[0]).shape

    @property
    def out(self) -> tuple[Dim, ...]:
        return self.graph.type(self.node.output).shape

    @property
    def axis(self) -> int:
        """The batch axis of the first input."""
        axis = self.axes.get(self.node.inputs[0])
        if axis is None:
            raise _MixedError
        return axis

    def positive(self, axes: Sequence[int]) -> set[int]:
        return {a % len(self.shape) for a in axes}


def _need(fine: bool) -> None:
    if not fine:
        raise _MixedError


def _same(place: _Place) -> int:
    return place.axis


def _leading(place: _Place) -> int:
    _need(place.axis == 0)
    return 0


def _aligned(place: _Place) -> int:
    """Elementwise operands: one batch axis, counted from the right; constants have size 1 there."""
    names = place.node.inputs[:2]
    from_right = {len(place.graph.type(v).shape) - place.axes[v] for v in names if v in place.axes}
    _need(len(from_right) == 1)
    back = from_right.pop()
    for name in names:
        shape = place.graph.type(name).shape
        _need(name in place.axes or len(shape) < back or shape[-back] == 1)
        _need(name not in place.axes or len(shape) == len(place.out) or len(shape) - place.axes[name] == back)
    return len(place.out) - back


def _matmul(place: _Place) -> int:
    a, b = place.node.inputs[:2]
    ranks = [len(place.graph.type(v).shape) for v in (a, b)]
    if b not in place.axes:
        _need(ranks[1] == 2 and place.axis < ranks[0] - 1)
        return place.axis
    _need(min(ranks) > 2 and b in place.axes and place.axes[b] < ranks[1] - 2)
    if a in place.axes:
        _need(place.axes[a] < ranks[0] - 2)
    return _aligned(place)


def _gemm(place: _Place) -> int:
    _need(place.axis == 0 and place.node.inputs[1] not in place.axes)
    addend = place.node.inputs[2] if len(place.node.inputs) > 2 else ""
    _need(not addend or addend not in place.axes)
    shape = place.graph.type(addend).shape if addend else ()
    _need(len(shape) < 2 or shape[0] == 1)
    return 0


def _softmax(place: _Place) -> int:
    _need(place.axis not in place.positive([place.node.attr("axis", -1)]))
    return place.axis


def _reduce(place: _Place) -> int:
    reduced = place.positive(place.node.attr("axes"))
    _need(place.axis not in reduced)
    return place.axis if place.node.attr("keepdims", 1) else place.axis - sum(a < place.axis for a in reduced)


def _concat(place: _Place) -> int:
    found = {place.axes.get(v) for v in place.node.inputs}
    _need(len(found) == 1 and found != {None} and place.axis not in place.positive([place.node.attr("axis")]))
    return place.axis


def _slice(place: _Place) -> int:
    cuts = zip(place.node.attr("axes"), place.node.attr("starts"), place.node.attr("ends"), strict=True)
    _need(all(axis % len(place.shape) != place.axis or (start == 0 and end >= 1) for axis, start, end in cuts))
    return place.axis


def _pad(place: _Place) -> int:
    pads = place.node.attr("pads")
    _need(not pads[place.axis] and not pads[place.axis + len(place.shape)])
    return place.axis


def _reshape(place: _Place) -> int:
    """The axis of the result with as many elements before it; the nearest where sizes of 1 leave a choice."""
    before, after = place.shape[: place.axis], place.shape[place.axis + 1 :]
    _need(not any(isinstance(d, str) for d in (*before, *after)))
    fits = [
        i
        for i, d in enumerate(place.out)
        if d == 1 and _count(place.out[:i]) == _count(before) and _count(place.out[i + 1 :]) == _count(after)
    ]
    _need(bool(fits))
    return min(fits, key=lambda i: abs(i - place.axis))


def _count(dims: Sequence[Dim]) -> int:
    return prod(d for d in dims if isinstance(d, int))


def _transpose(place: _Place) -> int:
    return tuple(place.node.attr("perm")).index(place.axis)


def _norm(place: _Place) -> int:
    _need(place.axis not in place.positive(place.node.attr("axes")))
    return place.axis


def _gather(place: _Place) -> int:
    """Samples may be picked from by constant indices; a table may be picked from by samples of indices."""
    x, index = place.node.inputs[:2]
    axis = int(place.node.attr("axis", 0)) % len(place.shape)
    if x not in place.axes:
        _need(index in place.axes)
        return axis + place.axes[index]
    _need(index not in place.axes and place.axis != axis)
    return place.axis + (len(place.graph.type(index).shape) - 1 if place.axis > axis else 0)


def _never(place: _Place) -> int:
    raise _MixedError


RULES: dict[str, Callable[[_Place], int]] = {
    "Conv": _leading, "BatchNormalization": _leading, "MaxPool": _leading, "AveragePool": _leading,
    "GlobalAveragePool": _leading, "Gemm": _gemm, "MatMul": _matmul, "Add": _aligned, "Sub": _aligned,
    "Mul": _aligned, "Norm": _norm, "Gather": _gather, "Scatter": _never, "Host": _never,
    "ReduceSum": _reduce, "ReduceMax": _reduce,
    "Softmax": _softmax, "ReduceMean": _reduce, "Concat": _concat, "Slice": _slice, "Pad": _pad,
    "Reshape": _reshape, "Flatten": _reshape, "Squeeze": _reshape, "Unsqueeze": _reshape, "Transpose": _transpose,
}  # fmt: skip
