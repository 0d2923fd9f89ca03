"""Emit data movement: copies between layouts, concatenation, padding, transfers between chips."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from insitu.base.errors import InternalError
from insitu.compiler.commands import Axis, Op
from insitu.compiler.emitter import Emitter, axes_of, in_memory, operand_at, vector_op, with_halo
from insitu.compiler.storage import Segment, permutation, segments
from insitu.graph.graph import Node
from insitu.graph.types import Dim
from insitu.isa.program import Location


def _copy(target: Location, source: Location, shape: Sequence[Dim]) -> Op:
    return vector_op(
        "DMA", axes_of(shape, target.strides, source.strides), [operand_at(target, 0), operand_at(source, 1)]
    )


def copy_reshaped(emitter: Emitter, node: Node) -> None:
    """A reshape or slice that needs memory of its own."""
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    if node.op == "Slice":
        starts = dict(
            zip(
                node.attr("axes"),
                zip(node.attr("starts"), node.attr("ends"), node.attr("steps"), strict=True),
                strict=True,
            )
        )
        offset, strides = x.offset, list(x.strides)
        for axis, (start, end, step) in starts.items():
            size = x.shape[axis]
            assert isinstance(size, int)
            offset += slice(start, end, step).indices(size)[0] * strides[axis]
            strides[axis] *= step
        op = _copy(y, Location(x.symbol, offset, y.shape, tuple(strides)), y.shape)
    elif node.op == "Transpose":
        order = permutation(node, len(y.shape))
        op = _copy(y, Location(x.symbol, x.offset, y.shape, tuple(x.strides[p] for p in order)), y.shape)
    else:
        with_halo(emitter, node, reshape_copies(emitter, node, y, x))
        return
    with_halo(emitter, node, [op])


def reshape_copies(emitter: Emitter, node: Node, y: Location, x: Location) -> list[Op]:
    """Copy elements in row-major order between two shapes; where they have no common factors, by way of a line."""
    direct = _reshape_copy(y, x)
    if direct is not None:
        return [direct]
    count = prod(int(d) for d in x.shape)
    line = Location(f"{node.name}.line", 0, (count,), (1,))
    emitter.scratch[line.symbol] = (emitter.graph.type(node.output).dtype, count)
    steps = (_reshape_copy(line, x), _reshape_copy(y, line))
    return [op for op in steps if op is not None]


def _reshape_copy(y: Location, x: Location) -> Op | None:
    """One copy between two shapes cut into their common factors; none where they have none."""
    parts_y, parts_x = segments(y.shape, y.strides), segments(x.shape, x.strides)
    if [p.symbol for p in parts_y] != [p.symbol for p in parts_x]:
        raise InternalError("compiler", f"reshape {x.shape} to {y.shape}", "run-time sizes that stay what they are")
    axes: list[Axis] = []
    for a, b in zip(parts_y, parts_x, strict=True):
        cut = _common_axes(a, b)
        if cut is None:
            return None
        axes += cut + ([Axis(a.symbol, (a.stride, b.stride))] if a.symbol else [])
    return vector_op("DMA", axes, [operand_at(y, 0), operand_at(x, 1)])


def _common_axes(y: Segment, x: Segment) -> list[Axis] | None:
    """Both segments' dimensions cut into factors that they share, in row-major order."""
    left, right = ([[d, s] for d, s in zip(g.sizes, g.strides, strict=True) if d != 1] for g in (y, x))
    axes: list[Axis] = []
    while left and right:
        size = min(left[-1][0], right[-1][0])
        if left[-1][0] % size or right[-1][0] % size:
            return None
        axes.insert(0, Axis(size, (left[-1][1], right[-1][1])))
        for dims in (left, right):
            dims[-1] = [dims[-1][0] // size, dims[-1][1] * size]
            if dims[-1][0] == 1:
                dims.pop()
    return axes


def transfer(emitter: Emitter, node: Node) -> None:
    """A value of another chip, copied."""
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    with_halo(emitter, node, [_copy(y, x, y.shape)])


def concat(emitter: Emitter, node: Node) -> None:
    """Inputs side by side along one axis."""
    y = emitter.at(node.output)
    axis, start, ops = int(node.attr("axis")) % len(y.shape), 0, list[Op]()
    for value in node.inputs:
        x = emitter.at(in_memory(emitter, value))
        target = Location(y.symbol, y.offset + start * y.strides[axis], x.shape, y.strides)
        ops.append(_copy(target, x, x.shape))
        start += int(x.shape[axis])
    with_halo(emitter, node, ops)


def pad(emitter: Emitter, node: Node) -> None:
    """The output filled with one code, the input copied inside."""
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    before = tuple(node.attr("pads"))[: len(y.shape)]
    fill = vector_op("FILL", axes_of(y.shape, y.strides), [operand_at(y, 0)], int(node.attr("code")))
    offset = y.offset + sum(b * s for b, s in zip(before, y.strides, strict=True))
    with_halo(emitter, node, [fill, _copy(Location(y.symbol, offset, x.shape, y.strides), x, x.shape)])
