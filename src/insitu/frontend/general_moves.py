"""ONNX operators that move elements, or choose among them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.frontend.general_ops import TYPES, Op, Rule, UnloweredError

Array = npt.NDArray[Any]
LONGEST_SCAN = 64


def _reshape(op: Op) -> str:
    target, shape = op.ints(1, "shape"), op.shape()
    if target is None:
        raise UnloweredError
    if not op.attr("allowzero", 0):
        target = [shape[i] if d == 0 and i < len(shape) else d for i, d in enumerate(target)]
    return op.net.reshape(op.x(), target)


def _flatten(op: Op) -> str:
    axis, shape = op.attr("axis", 1), op.shape()
    axis = axis + op.rank if axis < 0 else axis
    return op.net.reshape(op.x(), (prod(shape[:axis]), prod(shape[axis:])))


def _transpose(op: Op) -> str:
    return op.net.transpose(op.x(), op.attr("perm") or tuple(reversed(range(op.rank))))


def _squeeze(op: Op) -> str:
    axes = op.ints(1, "axes")
    return op.net.squeeze(op.x(), [i for i, d in enumerate(op.shape()) if d == 1] if axes is None else axes)


def _unsqueeze(op: Op) -> str:
    return op.net.unsqueeze(op.x(), op.ints(1, "axes") or [])


def _concat(op: Op) -> str:
    return op.net.concat([v for v in op.inputs if v], op.attr("axis", 1))


def _slice(op: Op) -> str:
    starts, ends = op.ints(1, "starts"), op.ints(2, "ends")
    if starts is None or ends is None:
        raise UnloweredError
    axes = op.ints(3, "axes") or list(range(len(starts)))
    steps = op.ints(4) or [1] * len(starts)
    x = op.x()
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= op.rank
        begin, stop, step = slice(start, end, step).indices(op.net.shape(x)[axis])
        if not range(begin, stop, step):
            raise UnloweredError
        x = op.net.slice(x, axis, begin, stop, step)
    return x


def _split(op: Op) -> list[str]:
    axis, size = op.axis(0), op.shape()[op.axis(0)]
    parts = op.ints(1, "split")
    if parts is None:
        count = op.attr("num_outputs", op.outputs)
        each = -(-size // count)
        parts = [min(each, size - i * each) for i in range(count)]
    out: list[str] = []
    at = 0
    for width in parts:
        out.append(op.net.slice(op.x(), axis, at, at + width) if width else op.net.constant(_empty(op, axis)))
        at += width
    return out


def _empty(op: Op, axis: int) -> Array:
    from insitu.graph.ops.float import numpy_type

    return np.zeros([0 if i == axis else d for i, d in enumerate(op.shape())], numpy_type(op.net.dtype(op.x())))


def _expand(op: Op) -> str:
    return op.net.expand(op.x(), op.ints(1) or [])


def _tile(op: Op) -> str:
    repeats, shape = op.ints(1, "repeats"), op.shape()
    if repeats is None or len(repeats) != op.rank:
        raise UnloweredError
    pairs = op.net.reshape(op.x(), [v for d in shape for v in (1, d)])
    wide = op.net.expand(pairs, [v for d, r in zip(shape, repeats, strict=True) for v in (r, d)])
    return op.net.reshape(wide, [d * r for d, r in zip(shape, repeats, strict=True)])


def _pad(op: Op) -> str:
    net, x = op.net, op.x()
    widths, axes = op.ints(1, "pads") or op.ints(9, "paddings"), op.ints(3)
    if widths is None:
        raise UnloweredError
    axes = list(range(op.rank)) if axes is None else [a % op.rank for a in axes]
    before, after = [0] * op.rank, [0] * op.rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = widths[i], widths[i + len(axes)]
    mode = op.attr("mode", "constant")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if mode != "constant":
        return _mirrored(op, before, after, mode)
    value = op.const(2)
    number = op.attr("value", 0.0) if value is None else value.reshape(-1)[0].item() if value.size else 0
    return net.pad(x, before, after, number)


def _mirrored(op: Op, before: Sequence[int], after: Sequence[int], mode: str) -> str:
    net, x = op.net, op.x()
    for axis, (b, a) in enumerate(zip(before, after, strict=True)):
        if b or a:
            size = op.shape()[axis]
            kind: Any = mode if mode in ("edge", "reflect") else "wrap"
            index = np.pad(np.arange(size), (max(b, 0), max(a, 0)), mode=kind)
            index = index[max(-b, 0) : len(index) - max(-a, 0)]
            x = net.gather(x, net.constant(index.astype(np.int64)), axis)
    return x


def _gather(op: Op) -> str:
    return op.net.gather(op.x(), op.x(1), op.axis(0))


def _gather_elements(op: Op) -> str:
    """By places in the flattened data, calculated on the vector unit."""
    net, axis, shape = op.net, op.axis(0), op.shape()
    index = net.cast(op.x(1), "i64")
    size = net.like(shape[axis], index)
    index = net.select(net.v2n("less", index, 0), net.v2("add", index, size), index)
    steps = [prod(shape[i + 1 :]) for i in range(op.rank)]
    grid = np.indices(op.shape(1))
    rest = sum((grid[i] * steps[i] for i in range(op.rank) if i != axis), np.zeros(op.shape(1), np.int64))
    flat = net.v2("add", net.v2n("mul", index, steps[axis]), net.constant(np.asarray(rest, np.int64)))
    return net.gather(net.reshape(op.x(), (-1,)), flat, 0)


def _gather_nd(op: Op) -> str:
    net, shape, where = op.net, op.shape(), op.shape(1)
    batch, width = op.attr("batch_dims", 0), op.shape(1)[-1]
    index = net.cast(op.x(1), "i64")
    steps = [prod(shape[i + 1 : batch + width]) for i in range(batch, batch + width)]
    sizes = net.constant(np.array(shape[batch : batch + width], np.int64))
    index = net.select(net.v2n("less", index, 0), net.v2("add", index, sizes), index)
    flat = net.reduce("sum", net.v2("mul", index, net.constant(np.array(steps, np.int64))), [-1], keep=False)
    block = prod(shape[batch : batch + width])
    first = np.arange(prod(shape[:batch])).reshape(*shape[:batch], *(1,) * (len(where) - 1 - batch)) * block
    flat = net.v2("add", flat, net.constant(first.astype(np.int64)))
    return net.gather(net.reshape(op.x(), (-1, *shape[batch + width :])), flat, 0)


def _depth_to_space(op: Op) -> str:
    net, b = op.net, int(op.attr("blocksize"))
    n, c, h, w = op.shape()
    mode = op.attr("mode", "DCR")
    if mode in ("DCR", b"DCR"):
        y = net.transpose(net.reshape(op.x(), (n, b, b, c // b**2, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        y = net.transpose(net.reshape(op.x(), (n, c // b**2, b, b, h, w)), (0, 1, 4, 2, 5, 3))
    return net.reshape(y, (n, c // b**2, h * b, w * b))


def _space_to_depth(op: Op) -> str:
    net, b = op.net, int(op.attr("blocksize"))
    if op.attr("mode", "DCR") not in ("DCR", b"DCR"):
        raise UnloweredError
    n, c, h, w = op.shape()
    y = net.transpose(net.reshape(op.x(), (n, c, h // b, b, w // b, b)), (0, 3, 5, 1, 2, 4))
    return net.reshape(y, (n, c * b * b, h // b, w // b))


def _trilu(op: Op) -> str:
    net, k = op.net, op.const(1)
    rows, cols = op.shape()[-2:]
    at = int(k.reshape(())) if k is not None else 0
    mask = np.tri(rows, cols, at - 1, dtype=bool)
    kept = ~mask if op.attr("upper", 1) else np.tri(rows, cols, at, dtype=bool)
    return net.select(net.constant(kept), op.x(), net.like(0, op.x()))


def _one_hot(op: Op) -> str:
    net, depth = op.net, op.const(1)
    assert depth is not None
    count = int(depth.reshape(-1)[0])
    axis = op.attr("axis", -1) % (op.rank + 1)
    index = op.x()
    index = net.select(net.v2n("less", index, 0), net.v2n("add", index, count), index)
    index = net.unsqueeze(index, [axis])
    place = net.constant(
        np.arange(count).reshape([-1 if i == axis else 1 for i in range(op.rank + 1)]), net.dtype(index)
    )
    off, on = (net.slice(op.x(2), 0, i, i + 1) for i in (0, 1))
    return net.select(net.v2("equal", index, place), net.reshape(on, ()), net.reshape(off, ()))


def _cumulative(fn: str, start: float) -> Rule:
    def run(op: Op) -> str:
        net, x, given = op.net, op.x(), op.const(1)
        assert given is not None
        axis = int(given.reshape(())) % op.rank
        size = op.shape()[axis]
        if size > LONGEST_SCAN:
            raise UnloweredError
        parts = [net.slice(x, axis, i, i + 1) for i in range(size)]
        parts = parts[::-1] if op.attr("reverse", 0) else parts
        if op.attr("exclusive", 0):
            first = net.expand(net.like(start, x), net.shape(parts[0]))
            parts = [first, *parts[:-1]]
        for i in range(1, size):
            parts[i] = net.v2(fn, parts[i - 1], parts[i])
        return net.concat(parts[::-1] if op.attr("reverse", 0) else parts, axis)

    return run


def _identity(op: Op) -> str:
    return op.net.add("Copy", [op.x()]) if op.x() not in op.net.constants else op.x()


def _dropout(op: Op) -> list[str]:
    training = op.const(2)
    if training is not None and bool(training.reshape(())):
        ratio = op.const(1)
        if ratio is None or float(ratio.reshape(())) != 0:
            raise UnloweredError
    return [_identity(op), op.net.expand(op.net.constant(np.array(True)), op.shape())]


def _reverse_sequence(op: Op) -> str:
    net = op.net
    batch, time = op.attr("batch_axis", 1), op.attr("time_axis", 0)
    steps = op.shape()[time]
    x = net.transpose(op.x(), (time, batch, *(i for i in range(op.rank) if i not in (time, batch))))
    flat = net.reshape(x, (net.shape(x)[0] * net.shape(x)[1], *net.shape(x)[2:]))
    lengths = net.reshape(net.cast(op.x(1), "i64"), (1, -1))
    at = net.constant(np.arange(steps, dtype=np.int64).reshape(-1, 1))
    back = net.v2("sub", net.v2n("sub", lengths, 1), at)
    source = net.select(net.v2("less", at, lengths), back, at)
    lanes = net.constant(np.arange(op.shape()[batch], dtype=np.int64).reshape(1, -1))
    places = net.v2("add", net.v2n("mul", source, op.shape()[batch]), lanes)
    y = net.gather(flat, places, 0)
    order = [time, batch, *(i for i in range(op.rank) if i not in (time, batch))]
    return net.transpose(y, [order.index(i) for i in range(op.rank)])


def _shape(op: Op) -> str:
    start, end = op.attr("start", 0), op.attr("end")
    return op.net.constant(np.asarray(op.shape(), np.int64)[slice(start, end)])


def _constant_of_shape(op: Op) -> str:
    value = np.asarray(op.attr("value", np.zeros(1, np.float32))).reshape(-1)[0]
    return op.net.expand(op.net.constant(np.asarray(value)), op.ints(0) or [])


def _eye_like(op: Op) -> str:
    from insitu.graph.ops.float import numpy_type

    to = TYPES.get(int(op.attr("dtype", 0)), "") if "dtype" in op.attrs else op.net.dtype(op.x())
    return op.net.constant(np.eye(*op.shape(), k=op.attr("k", 0)).astype(numpy_type(to)))


MOVES: dict[str, Rule] = {
    "Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Concat": _concat, "Slice": _slice, "Split": _split, "Expand": _expand, "Tile": _tile, "Pad": _pad,
    "Gather": _gather, "GatherElements": _gather_elements, "GatherND": _gather_nd, "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth, "Trilu": _trilu, "OneHot": _one_hot, "CumSum": _cumulative("add", 0),
    "CumProd": _cumulative("mul", 1), "Identity": _identity, "Dropout": _dropout, "Shape": _shape,
    "Size": lambda op: op.net.constant(np.asarray(prod(op.shape()), np.int64)),
    "ConstantOfShape": _constant_of_shape, "EyeLike": _eye_like, "ReverseSequence": _reverse_sequence,
}  # fmt: skip
