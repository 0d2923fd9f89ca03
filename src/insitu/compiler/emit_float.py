"""Emit nodes on numbers without quantization, moves of them, and host operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Dict
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from insitu.arch.spec import Chip
from insitu.base.errors import Infeasible, InfeasibleError, InternalError
from insitu.compiler.commands import Axis, HostCall, Moved, Op, Operand, descriptor, merge, split_loops
from insitu.compiler.emit_moves import reshape_copies
from insitu.compiler.emitter import Emitter, axes_of, fill_halo, operand_at, vector_op
from insitu.compiler.storage import plain_view
from insitu.graph.graph import Graph, Node
from insitu.graph.ops.float import VIEWS, numpy_type
from insitu.graph.types import HOST
from insitu.isa.program import MAX_DIMS, Binding, Descriptor, Host, HostValue, Location, Tile, Vector


def emit_plain(emitter: Emitter, node: Node) -> None:
    """Append the commands of one node."""
    if node.output in emitter.storage.views:
        return
    before = len(emitter.tasks)
    RULES[node.op](emitter, node)
    when = tuple(zip((_one(emitter, v) for v in node.attr("when", ())), node.attr("taken", ()), strict=True))
    for index in range(before, len(emitter.tasks) if when else before):
        task = emitter.tasks[index]
        emitter.tasks[index] = replace(task, ops=tuple(replace(op, when=when) for op in task.ops))


def _one(emitter: Emitter, value: str) -> Descriptor:
    """The only element of a value."""
    return descriptor(operand_at(_stored(emitter, value), 0), [], [])


def place_numbers(graph: Graph, chip: Chip) -> dict[str, tuple[Tile, ...]]:
    """Tiles of every matrix of numbers: cut to arrays, side by side on shelves of one macro after the other."""
    rows, cols, taken = chip.array.rows, chip.array.cols, _Shelf()
    found: dict[str, tuple[Tile, ...]] = {}
    for node in graph.nodes:
        name = node.inputs[1] if node.op == "MVM" else ""
        if name and name not in found:
            height, width = graph.constants[name].shape
            found[name] = tuple(
                taken.place(row, min(rows, height - row), col, min(cols, width - col), rows, cols)
                for row in range(0, height, rows)
                for col in range(0, width, cols)
            )
    if taken.macro >= chip.core.macros * chip.macro.arrays:
        need = float((taken.macro + 1) * rows * cols)
        ways = ("choose a chip with more cells",)
        raise InfeasibleError(
            [Infeasible("cells", need, float(chip.core.macros * rows * cols), "cells", (), ways)], chip.name
        )
    return found


class _Shelf:
    """Where the next matrix goes: left to right, then upward, then the next macro."""

    def __init__(self) -> None:
        self.macro, self.x, self.y, self.top = 0, 0, 0, 0

    def place(self, row: int, height: int, col: int, width: int, rows: int, cols: int) -> Tile:
        if self.x + width > cols:
            self.x, self.y = 0, self.top
        if self.y + height > rows:
            self.macro, self.x, self.y, self.top = self.macro + 1, 0, 0, 0
        tile = Tile(self.macro, row, height, col, width, self.x, self.y)
        self.x, self.top = self.x + width, max(self.top, self.y + height)
        return tile


# operands


def _stored(emitter: Emitter, value: str) -> Location:
    """Where a value lies; a constant is first entered as a table in memory."""
    if value in emitter.graph.constants and value not in emitter.tables:
        emitter.table(value, np.ascontiguousarray(emitter.graph.constants[value]))
    return emitter.at(value)


def _broadcast(at: Location, shape: Sequence[Any]) -> tuple[int, ...]:
    """Strides against a larger shape; repeated axes have stride 0."""
    missing = len(shape) - len(at.shape)
    return tuple(
        0 if i < missing or (at.shape[i - missing] == 1 and size != 1) else at.strides[i - missing]
        for i, size in enumerate(shape)
    )


def _task(emitter: Emitter, node: Node, ops: Sequence[Op]) -> None:
    emitter.task(node, emitter.core_of(node), [*fill_halo(emitter, node.output), *ops])


def _line(emitter: Emitter, node: Node, value: str, suffix: str) -> tuple[Location, list[Op]]:
    """A copy of a value in row-major order, and the commands that make it."""
    at, kind = _stored(emitter, value), emitter.graph.types[value]
    shape = tuple(int(d) for d in at.shape)
    name = f"{node.name}.{suffix}"
    emitter.scratch[name] = (kind.dtype, prod(shape))
    line = Location(name, 0, shape, tuple(prod(shape[i + 1 :]) for i in range(len(shape))))
    return line, [_copy(line, at)]


def _copy(target: Location, source: Location) -> Op:
    axes = axes_of(target.shape, target.strides, source.strides)
    return vector_op("DMA", axes, [operand_at(target, 0), operand_at(source, 1)])


# commands


def _elementwise(emitter: Emitter, node: Node) -> None:
    y = emitter.at(node.output)
    sources = [_stored(emitter, v) for v in node.inputs]
    axes = axes_of(y.shape, y.strides, *(_broadcast(s, y.shape) for s in sources))
    operands = [operand_at(at, i) for i, at in enumerate((y, *sources))]
    settings = [Vector(label=node.name, fn=str(node.attr("fn")))] if node.op in ("V1", "V2") else []
    _task(emitter, node, [vector_op(node.op, axes, operands, *settings)])


def _reduce(emitter: Emitter, node: Node) -> None:
    x, y = _stored(emitter, node.inputs[0]), emitter.at(node.output)
    axes = tuple(node.attr("axes"))
    kept = [i for i in range(len(x.shape)) if i not in axes]
    out = [y.strides[i] for i in kept] if node.attr("keepdims", 1) else list(y.strides)
    outer = axes_of([x.shape[i] for i in kept], out, [x.strides[i] for i in kept])
    inner = [Axis(x.shape[i], (0, x.strides[i])) for i in axes]
    settings = Vector(label=node.name, fn=str(node.attr("fn")))
    _task(emitter, node, [vector_op("RED", outer, [operand_at(y, 0), operand_at(x, 1)], settings, inner=inner)])


def _product(emitter: Emitter, node: Node) -> None:
    y = emitter.at(node.output)
    a, b = (_stored(emitter, v) for v in node.inputs)
    lead = y.shape[:-2]
    axes = axes_of(lead, y.strides[:-2], *(_broadcast(_outer(at), lead) for at in (a, b)))
    loops, dims = split_loops(merge(axes), inner=2)
    operands: list[Descriptor] = []
    for index, at in enumerate((y, a, b)):
        own = [Axis(d.size, (d.strides[index],)) for d in dims]
        own += [Axis(n, (s,)) for n, s in zip(at.shape[-2:], at.strides[-2:], strict=True)]
        operands.append(descriptor(operand_at(at, 0), [Axis(x.size, (x.strides[index],)) for x in loops], own))
    settings = Vector(label=node.name)
    _task(emitter, node, [Op("MMA", (*operands, settings), tuple(x.size for x in loops))])


def _outer(at: Location) -> Location:
    return Location(at.symbol, at.offset, at.shape[:-2], at.strides[:-2])


def _bound(emitter: Emitter, node: Node) -> None:
    x, y = _stored(emitter, node.inputs[0]), emitter.at(node.output)
    name, cut = node.inputs[1], len(x.shape) - int(node.attr("rows"))
    matrix = emitter.graph.constants[name]
    bias = ""
    if len(node.inputs) > 2:
        bias = emitter.weight(node.inputs[2], np.ascontiguousarray(emitter.graph.constants[node.inputs[2]]))
    weight = name if name in emitter.weights else emitter.weight(name, np.ascontiguousarray(matrix))
    binding = Binding(node.name, weight, bias, matrix.shape[0], matrix.shape[1], 0, emitter.numbers[name])
    rows = merge(axes_of(x.shape[cut:], x.strides[cut:])) or [Axis(1, (1,))]
    positions = merge(axes_of(x.shape[:cut], y.strides[:-1], x.strides[:cut]))
    loops, dims = split_loops(positions, inner=len(rows))
    target = [*(Axis(d.size, (d.strides[0],)) for d in dims), Axis(matrix.shape[1], (y.strides[-1],))]
    source = [*(Axis(d.size, (d.strides[1],)) for d in dims), *rows]
    operands = [
        descriptor(operand_at(at, 0), [Axis(a.size, (a.strides[i],)) for a in loops], own)
        for i, (at, own) in enumerate(((y, target), (x, source)))
    ]
    _task(emitter, node, [Op("MVM", (*operands, binding), tuple(a.size for a in loops))])


# moves


def _concat(emitter: Emitter, node: Node) -> None:
    y, axis, at, ops = emitter.at(node.output), int(node.attr("axis")), 0, list[Op]()
    for value in node.inputs:
        x = _stored(emitter, value)
        ops.append(_copy(Location(y.symbol, y.offset + at * y.strides[axis], x.shape, y.strides), x))
        at += int(x.shape[axis])
    _task(emitter, node, ops)


def _pad(emitter: Emitter, node: Node) -> None:
    x, y = _stored(emitter, node.inputs[0]), emitter.at(node.output)
    dtype = numpy_type(emitter.graph.types[node.output].dtype)
    table = emitter.table(f"{node.name}.value", np.array([node.attr("value")], dtype))
    fill = _copy(y, Location(table, 0, y.shape, (0,) * len(y.shape)))
    before = tuple(node.attr("pads"))[: len(y.shape)]
    offset = y.offset + sum(b * s for b, s in zip(before, y.strides, strict=True))
    _task(emitter, node, [fill, _copy(Location(y.symbol, offset, x.shape, y.strides), x)])


def _gather(emitter: Emitter, node: Node) -> None:
    y, axis = emitter.at(node.output), int(node.attr("axis"))
    (x, before), (index, more) = (_contiguous(emitter, node, v) for v in node.inputs)
    shape = [int(d) for d in x.shape]
    outer, inner, count = prod(shape[:axis]), prod(shape[axis + 1 :]), prod(int(d) for d in index.shape)
    size = shape[axis]
    line, after = _target(emitter, node, y)
    out = Descriptor(line.symbol, line.offset, (outer, count, inner), (count * inner, inner, 1))
    source = Descriptor(x.symbol, x.offset, (outer, size, inner), (size * inner, inner, 1))
    places = Descriptor(index.symbol, index.offset, (count,), (1,))
    _task(emitter, node, [*before, *more, Op("GATHER", (out, source, places)), *after])


def _target(emitter: Emitter, node: Node, y: Location) -> tuple[Location, list[Op]]:
    """Where a command that writes row-major order writes: the value, or a line that is copied into it (a halo)."""
    shape = tuple(int(d) for d in y.shape)
    strides = tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
    if all(n == 1 or a == b for n, a, b in zip(shape, strides, y.strides, strict=True)):
        return y, []
    name = f"{node.name}.result"
    emitter.scratch[name] = (emitter.graph.types[node.output].dtype, prod(shape))
    line = Location(name, 0, shape, strides)
    return line, [_copy(y, line)]


def _contiguous(emitter: Emitter, node: Node, value: str) -> tuple[Location, list[Op]]:
    """A value in row-major order: itself, or a copy."""
    at = _stored(emitter, value)
    run = 1
    for size, stride in zip(reversed(at.shape), reversed(at.strides), strict=True):
        if size != 1 and stride != run:
            return _line(emitter, node, value, f"line{node.inputs.index(value)}")
        run *= int(size)
    return at, []


def _scattered(emitter: Emitter, node: Node) -> None:
    """A copy of the data, then the new entries into it."""
    y, axis = emitter.at(node.output), int(node.attr("axis"))
    (index, before), (new, more) = (_contiguous(emitter, node, v) for v in node.inputs[1:])
    shape, count = [int(d) for d in y.shape], prod(int(d) for d in index.shape)
    outer, inner, size = prod(shape[:axis]), prod(shape[axis + 1 :]), shape[axis]
    out = Descriptor(y.symbol, y.offset, (outer, size, inner), (size * inner, inner, 1))
    source = Descriptor(new.symbol, new.offset, (outer, count, inner), (count * inner, inner, 1))
    places = Descriptor(index.symbol, index.offset, (count,), (1,))
    x = _stored(emitter, node.inputs[0])
    copy = [] if x == y else [_copy(y, x)]
    _task(emitter, node, [*before, *more, *copy, Op("SCATTER", (out, source, places))])


def _placed(emitter: Emitter, node: Node) -> None:
    """A copy of the data, then the new entries where a descriptor that is moved says."""
    y, axis = emitter.at(node.output), int(node.attr("axis"))
    new, before = _contiguous(emitter, node, node.inputs[2])
    shape, count = [int(d) for d in y.shape], int(new.shape[axis])
    outer, inner, size = prod(shape[:axis]), prod(shape[axis + 1 :]), shape[axis]
    target = Moved(Descriptor(y.symbol, y.offset, (outer, count, inner), (size * inner, inner, 1)))
    source = Descriptor(new.symbol, new.offset, (outer, count, inner), (count * inner, inner, 1))
    move = Op("SETD", (target, _one(emitter, node.inputs[1]), 1, size - count))
    copy = _copy(y, _stored(emitter, node.inputs[0]))
    _task(emitter, node, [*before, copy, move, Op("DMA", (target, source))])


def _dynamic(emitter: Emitter, node: Node) -> None:
    (x, before), ends = _contiguous(emitter, node, node.inputs[0]), [emitter.at(v) for v in node.outputs]
    shape, lead = [int(d) for d in x.shape], int(node.attr("lead"))
    rows, rest = prod(shape[:lead]), prod(shape[lead:])
    codes, source = (Descriptor(at.symbol, at.offset, (rows, rest), (rest, 1)) for at in (ends[0], x))
    scale, zero = (Descriptor(at.symbol, at.offset, (rows,), (1,)) for at in ends[1:])
    _task(emitter, node, [*before, Op("QDYN", (codes, scale, zero, source), results=3)])
    emitter.cores.update(dict.fromkeys(node.outputs, emitter.cores[node.output]))


def _copied(emitter: Emitter, node: Node) -> None:
    _task(emitter, node, [_copy(emitter.at(node.output), _stored(emitter, node.inputs[0]))])


def _moved(emitter: Emitter, node: Node) -> None:
    """A Reshape, Slice, ... whose output needs memory of its own."""
    x, y = _stored(emitter, node.inputs[0]), emitter.at(node.output)
    if node.op == "Reshape":
        _task(emitter, node, reshape_copies(emitter, node, y, x))
        return
    view = plain_view(emitter.graph, node, x)
    if view is None:
        raise InternalError(node.name, f"{node.op} that is no view", "a view of its input")
    _task(emitter, node, [_copy(y, view)])


# the host


def _host(emitter: Emitter, node: Node) -> None:
    ops: list[Op] = []
    reads = [_operand(emitter, node, v, ops) for v in node.inputs if v]
    outputs = [v for v in node.outputs if v]
    writes = [_written(emitter, v) for v in outputs]
    values = [tuple(_host_value(emitter, v) for v in names) for names in (node.inputs, outputs)]
    host = Host(node.name, str(node.attr("operator")), str(node.attr("model")), values[0], values[1])
    core = 0 if any(emitter.graph.types[v].dtype == HOST for v in (*node.inputs, *outputs)) else emitter.core_of(node)
    halos = [op for v in outputs if emitter.graph.types[v].dtype != HOST for op in fill_halo(emitter, v)]
    emitter.task(node, core, [*halos, *ops, Op("HOST", (HostCall(host, tuple(reads), tuple(writes)),))])
    emitter.cores.update(dict.fromkeys(outputs, core))


def _host_value(emitter: Emitter, value: str) -> HostValue:
    kind = emitter.graph.types[value]
    return HostValue(value, kind.dtype, kind.sizes())


def _written(emitter: Emitter, value: str) -> Descriptor | None:
    if emitter.graph.types[value].dtype == HOST:
        return None
    return _flat(emitter.at(value))


def _operand(emitter: Emitter, node: Node, value: str, ops: list[Op]) -> Descriptor | None:
    """The descriptor of an operand in memory; one that four dimensions cannot reach is copied first."""
    if emitter.graph.types[value].dtype == HOST:
        return None
    found = _flat(_stored(emitter, value))
    if found is None:
        line, copies = _line(emitter, node, value, f"line{node.inputs.index(value)}")
        ops += copies
        found = _flat(line)
    return found


def _flat(at: Location) -> Descriptor | None:
    dims = merge(axes_of(at.shape, at.strides))
    if len(dims) > MAX_DIMS:
        return None
    return descriptor(Operand(at.symbol, at.offset, 0), [], dims)


Rule = Callable[[Emitter, Node], None]
RULES: Dict[str, Rule] = {
    "V1": _elementwise, "V2": _elementwise, "SEL": _elementwise, "CVT": _elementwise, "Q": _elementwise,
    "DQ": _elementwise, "QDYN": _dynamic, "RED": _reduce, "MMA": _product, "MVM": _bound, "Concat": _concat,
    "Pad": _pad, "Gather": _gather, "Scatter": _scattered, "Place": _placed, "Copy": _copied, "Host": _host,
    **dict.fromkeys(VIEWS, _moved),
}  # fmt: skip
