"""ONNX operators that write at places known only at run time: as scatters along one axis of the flattened data."""

from __future__ import annotations

from math import prod

import numpy as np

from insitu.frontend.general_ops import Op, Rule, UnloweredError


def _scatter_elements(op: Op) -> str:
    net, axis, shape = op.net, op.axis(0), op.shape()
    _refuse_sums(op)
    steps = [prod(shape[i + 1 :]) for i in range(op.rank)]
    index = _from_front(op, net.cast(op.x(1), "i64"), np.asarray(shape[axis]))
    grid = np.indices(op.shape(1))
    rest = sum((grid[i] * steps[i] for i in range(op.rank) if i != axis), np.zeros(op.shape(1), np.int64))
    flat = net.v2("add", net.v2n("mul", index, steps[axis]), net.constant(np.asarray(rest, np.int64)))
    return _flat(op, flat, (prod(shape),), op.x(2))


def _scatter_nd(op: Op) -> str:
    net, shape, width = op.net, op.shape(), op.shape(1)[-1]
    _refuse_sums(op)
    steps = np.array([prod(shape[i + 1 : width]) for i in range(width)], np.int64)
    index = _from_front(op, net.cast(op.x(1), "i64"), np.array(shape[:width], np.int64))
    flat = net.reduce("sum", net.v2("mul", index, net.constant(steps)), [-1], keep=False)
    return _flat(op, flat, (prod(shape[:width]), *shape[width:]), op.x(2))


def _tensor_scatter(op: Op) -> str:
    """A cache with rows appended at each sequence's own place."""
    net, shape, rows = op.net, op.shape(), op.shape(1)
    axis = op.attr("axis", -2) % op.rank
    count, size, lead = rows[axis], shape[axis], prod(shape[:axis])
    circular = op.attr("mode", "linear") in ("circular", b"circular")
    if shape[0] == 1 and axis and op.has(2) and not circular:
        return net.place(op.x(), op.x(2), op.x(1), axis)
    place = net.constant(np.arange(count, dtype=np.int64).reshape(1, -1))
    if op.has(2):
        place = net.v2("add", net.reshape(net.cast(op.x(2), "i64"), (-1, 1)), place)
    if circular:
        place = net.v2n("mod", place, size)
    place = net.expand(net.reshape(place, (net.shape(place)[0], 1, count)), (shape[0], lead // shape[0], count))
    first = np.arange(lead, dtype=np.int64).reshape(shape[0], -1, 1) * size
    flat = net.v2("add", place, net.constant(first))
    return _flat(op, flat, (lead * size, *shape[axis + 1 :]), op.x(1))


def _refuse_sums(op: Op) -> None:
    if op.attr("reduction", "none") not in ("none", b"none"):
        raise UnloweredError


def _from_front(op: Op, index: str, sizes: np.ndarray) -> str:
    net = op.net
    return net.select(net.v2n("less", index, 0), net.v2("add", index, net.constant(sizes.astype(np.int64))), index)


def _flat(op: Op, index: str, shape: tuple[int, ...], updates: str) -> str:
    """Scatter along the first axis of the data in another shape."""
    net = op.net
    index = net.reshape(index, (-1,))
    new = net.reshape(updates, (net.shape(index)[0], *shape[1:]))
    return net.reshape(net.scatter(net.reshape(op.x(), shape), index, new, 0), op.shape())


SCATTERS: dict[str, Rule] = {
    "ScatterElements": _scatter_elements, "Scatter": _scatter_elements, "ScatterND": _scatter_nd,
    "TensorScatter": _tensor_scatter,
}  # fmt: skip
