"""Emit: nodes become commands over descriptors.  One command covers as many output positions as addresses allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.errors import InternalError
from insitu.compiler.commands import Axis, Op, Operand, TableVector, Task, descriptor, merge, split_loops
from insitu.compiler.mapping import Mapping, Placed
from insitu.compiler.storage import RESHAPES, Segment, Storage, permutation, segments
from insitu.compiler.tile import Piece, piece_columns, piece_matrix
from insitu.graph.graph import Graph, Node
from insitu.graph.types import Dim
from insitu.isa.program import Binding, Descriptor, Location, Post, Readout, Tile, Vector, WeightRef, weight_ref

WIDE = Post()  # column sums as they are


@dataclass
class Emitter:
    """The tasks of a program while they are written, with the weights and extra memory they need."""

    graph: Graph
    chip: Chip
    mapping: Mapping
    storage: Storage
    expected: Dict[str, npt.NDArray[Any]] = field(default_factory=dict[str, npt.NDArray[Any]])
    tasks: list[Task] = field(default_factory=list[Task])
    weights: dict[str, WeightRef] = field(default_factory=dict[str, WeightRef])
    scratch: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])  # symbols: type, count
    tables: dict[str, str] = field(default_factory=dict[str, str])  # weight symbols: WeightRef name
    cores: dict[str, int] = field(default_factory=dict[str, int])  # value -> core that wrote it last
    filled: set[str] = field(default_factory=set[str])
    numbers: Dict[str, tuple[Tile, ...]] = field(default_factory=dict[str, tuple[Tile, ...]])  # matrices without codes
    reloaded: dict[Binding, int] = field(default_factory=dict[Binding, int])  # what WLOAD brings: segment

    def at(self, value: str) -> Location:
        """Where a value lives."""
        return self.storage.locations[value]

    def core_of(self, node: Node) -> int:
        """The core of a node without weights: the one that wrote its first operand, of those of the node's chip."""
        cores = [self.cores[v] for v in node.inputs if v in self.cores]
        home = self.mapping.homes.get(node.name)
        if home is None:
            return cores[0] if cores else 0
        return next((c for c in cores if c // self.chip.cores == home), home * self.chip.cores)

    def task(self, node: Node, core: int, ops: Sequence[Op]) -> None:
        """Append a task; its output is now written by `core`."""
        self.tasks.append(Task(node.name, core, tuple(ops)))
        self.cores[node.output] = core

    def weight(self, name: str, array: npt.NDArray[Any]) -> str:
        """Keep an array as a weight; returns its name."""
        self.weights[name] = weight_ref(array)
        return name

    def table(self, name: str, array: npt.NDArray[Any]) -> str:
        """Keep an array as a weight symbol in memory; returns the symbol's name."""
        self.tables[name] = self.weight(name, array)
        return name

    def post(self, node: Node) -> Post:
        """Requantize settings of a node with one multiplier."""
        quant = self.graph.type(node.output).quant
        assert quant is not None
        a = node.attr
        return Post(
            a("multiplier", 1),
            a("shift", 0),
            a("rounding", "half_even"),
            quant.zero_point,
            a("lo", quant.lo),
            a("hi", quant.hi),
        )

    def zero(self, value: str) -> int:
        """Zero point of a value."""
        quant = self.graph.type(value).quant
        return quant.zero_point if quant else 0


def emit_node(emitter: Emitter, node: Node) -> None:
    """Append the tasks of one node."""
    if node.output in emitter.storage.views:
        if node.inputs[0] in emitter.cores:
            emitter.cores[node.output] = emitter.cores[node.inputs[0]]
        return
    if node.op in RESHAPES or node.op in ("Transpose", "Slice"):
        _copy_reshaped(emitter, node)
        return
    rule = RULES.get(node.op)
    if rule is None:
        raise InternalError(node.name, f"operator {node.op}", "an operator with an emission rule")
    rule(emitter, node)


def fill_halo(emitter: Emitter, value: str) -> list[Op]:
    """Commands that write the halo of a stored value, once."""
    halo = emitter.storage.halos.get(value, ())
    if not any(sum(h) for h in halo):
        return []
    at, code = emitter.at(value), emitter.storage.fills.get(value, 0)
    if value in emitter.filled or not any(sum(h) for h in halo):
        return []
    emitter.filled.add(value)
    padded: list[Dim] = [d if isinstance(d, str) else d + sum(h) for d, h in zip(at.shape, halo, strict=True)]
    ops: list[Op] = []
    for axis, (before, after) in enumerate(halo):
        size = at.shape[axis]
        assert isinstance(size, int) or not (before or after), "a halo needs a known size"
        for width, first in ((before, 0), (after, before + (size if isinstance(size, int) else 0))):
            if width:
                axes = [
                    Axis(width if i == axis else d, (s,))
                    for i, (d, s) in enumerate(zip(padded, at.strides, strict=True))
                ]
                ops.append(vector_op("FILL", axes, [Operand(at.symbol, first * at.strides[axis], 0)], code))
    return ops


def vector_op(
    op: str, axes: Sequence[Axis], operands: Sequence[Operand], *extra: Vector | int, inner: Sequence[Axis] = ()
) -> Op:
    """A command over `axes`, merged; `inner` axes belong to the last operand alone (a window or reduced axes)."""
    window = merge(inner)
    loops, dims = split_loops(merge(axes), inner=len(window))
    out = [descriptor(o, loops, dims) for o in operands]
    if window:
        last = operands[-1]
        out[-1] = descriptor(last, loops, [*(dims or [Axis(1, (1,) * (last.index + 1))]), *window])
    return Op(op, (*out, *extra), tuple(a.size for a in loops))


def axes_of(shape: Sequence[Dim], *strides: Sequence[int]) -> list[Axis]:
    return [Axis(d, tuple(s[i] for s in strides)) for i, d in enumerate(shape)]


def operand_at(at: Location, index: int) -> Operand:
    return Operand(at.symbol, at.offset, index)


# weight layers


@dataclass(frozen=True)
class _Window:
    """How a weight layer walks its input: positions (input and output strides), row axes, column stride."""

    positions: list[Axis]
    rows: list[Axis]
    column: int
    source: Operand
    target: Operand


def _layer(emitter: Emitter, node: Node) -> None:
    if node.inputs[1] not in emitter.graph.constants:
        _product(emitter, node)
        return
    placed = emitter.mapping.layers[node.name]
    home = placed[0].core
    halo = fill_halo(emitter, node.output)
    if halo:
        emitter.tasks.append(Task(node.name, home, tuple(halo)))  # beside what the layer writes
    found: dict[Piece, list[Placed]] = {}
    for p in placed:
        found.setdefault(p.rect.piece, []).append(p)
    ops: dict[tuple[bool, int], list[Op]] = {}  # sums that are joined come after all that give them
    for piece, rects in found.items():
        for core, op in _piece_ops(emitter, node, piece, rects):
            ops.setdefault((op.op in ("ACC", "REQ"), core), []).append(op)
    for joins, core in sorted(ops):
        emitter.task(node, core, ops[joins, core])


def _piece_ops(emitter: Emitter, node: Node, piece: Piece, rects: list[Placed]) -> list[tuple[int, Op]]:
    """Commands of one matrix: one MVM per group of columns and core; row tiles on several cores are added up."""
    out: list[tuple[int, Op]] = []
    window = _window(emitter, node, piece)
    columns: dict[tuple[int, int], list[Placed]] = {}
    for p in rects:
        columns.setdefault((p.rect.col0, p.rect.cols), []).append(p)
    alike: dict[tuple[tuple[int, int, int], ...], list[Placed]] = {}  # columns whose rows lie on the same cores
    for chunk in columns.values():
        alike.setdefault(tuple(sorted((p.rect.row0, p.segment, p.core) for p in chunk)), []).extend(chunk)
    for rows, chunk in alike.items():
        write = _whole if len({(segment, core) for _, segment, core in rows}) == 1 else _joined
        for part in _runs(chunk):
            out += write(emitter, node, piece, part, window)
    return out


def _runs(chunk: list[Placed]) -> list[list[Placed]]:
    """Rectangles grouped into runs of adjacent columns."""
    out: list[list[Placed]] = []
    end = -1
    for p in sorted(chunk, key=lambda p: (p.rect.col0, p.rect.row0)):
        if not out or p.rect.col0 > end:
            out.append([])
        out[-1].append(p)
        end = max(end, p.rect.col0 + p.rect.cols)
    return out


def _whole(emitter: Emitter, node: Node, piece: Piece, chunk: list[Placed], window: _Window) -> list[tuple[int, Op]]:
    binding = _binding(emitter, node, piece, chunk, rows=(0, piece.rows), wide=False)
    first = min(p.rect.col0 for p in chunk)
    target = replace(window.target, offset=window.target.offset + first * window.column)
    return [(chunk[0].core, _mvm(window, binding, window.source, target, window.rows, window.column, window.positions))]


def _joined(emitter: Emitter, node: Node, piece: Piece, chunk: list[Placed], window: _Window) -> list[tuple[int, Op]]:
    """Row tiles on several cores: each writes its column sums, the first adds the others' and requantizes."""
    if node.attr("readout") == "wtm2101":
        raise InternalError(node.name, "row parts on several cores", "one core for a readout that requantizes")
    ops: list[tuple[int, Op]] = []
    first, cols = (
        min(p.rect.col0 for p in chunk),
        len({c for p in chunk for c in range(p.rect.col0, p.rect.col0 + p.rect.cols)}),
    )
    count = prod(int(a.size) for a in window.positions)
    sums: list[str] = []
    home = chunk[0].core
    strides = [int(prod(int(b.size) for b in window.positions[i + 1 :])) * cols for i in range(len(window.positions))]
    positions = [Axis(a.size, (a.strides[0], a.strides[1], s)) for a, s in zip(window.positions, strides, strict=True)]
    flat = [Axis(a.size, (a.strides[0], s)) for a, s in zip(window.positions, strides, strict=True)]
    for segment, core in sorted({(p.segment, p.core) for p in chunk}, key=lambda c: (c[0], c[1] != home, c[1])):
        mine = [p for p in chunk if (p.segment, p.core) == (segment, core)]
        for r0, r1, source, rows in _row_boxes(emitter, node, window, mine):
            name = f"{node.name}.sum{piece.index}.{first}.{r0}"
            emitter.scratch[name] = ("i32", count * cols)
            sums.append(name)
            binding = _binding(emitter, node, piece, _within(mine, r0, r1), rows=(r0, r1), wide=True)
            ops.append((core, _mvm(window, binding, source, Operand(name, 0, 1), rows, 1, flat)))
    whole = [Axis(count * cols, (1, 1))]
    ops += [(home, vector_op("ACC", whole, [Operand(sums[0], 0, 0), Operand(s, 0, 1)])) for s in sums[1:]]
    return [*ops, (home, _narrow_sums(emitter, node, piece, sums[0], first, cols, positions, window))]


def _row_runs(tiles: list[Placed]) -> list[tuple[int, int]]:
    """Row ranges of adjacent tiles."""
    ranges = sorted({(p.rect.row0, p.rect.row0 + p.rect.rows) for p in tiles})
    out = [ranges[0]]
    for a, b in ranges[1:]:
        out = [*out[:-1], (out[-1][0], b)] if a == out[-1][1] else [*out, (a, b)]
    return out


def _within(tiles: list[Placed], r0: int, r1: int) -> list[Placed]:
    """The parts of rectangles that hold rows r0..r1."""
    out: list[Placed] = []
    for p in tiles:
        low, high = max(p.rect.row0, r0), min(p.rect.row0 + p.rect.rows, r1)
        if low < high:
            rect = replace(p.rect, row0=low, rows=high - low)
            out.append(replace(p, rect=rect, y=p.y + low - p.rect.row0))
    return out


def _row_boxes(
    emitter: Emitter, node: Node, window: _Window, tiles: list[Placed]
) -> list[tuple[int, int, Operand, list[Axis]]]:
    """(first row, end, operand, row axes) of one core's rows, cut where one descriptor cannot reach on.

    Placement cuts rows between channels where it can; a kernel larger than an array leaves cuts inside one.
    """
    out: list[tuple[int, int, Operand, list[Axis]]] = []
    for r0, r1 in _row_runs(tiles):
        found = boxes(tuple(int(a.size) for a in window.rows), r0, r1)
        if len(found) > 1 and node.attr("readout") != "exact":
            raise InternalError(node.name, f"rows {r0}..{r1} on a core", "parts that end with a channel")
        for start, sizes in found:
            offset, below = window.source.offset, start
            for i, axis in enumerate(window.rows):
                inner = prod(int(a.size) for a in window.rows[i + 1 :])
                offset, below = offset + below // inner * axis.strides[0], below % inner
            axes = [Axis(n, a.strides) for n, a in zip(sizes, window.rows, strict=True)]
            out.append((start, start + prod(sizes), replace(window.source, offset=offset), axes))
    return out


def boxes(sizes: tuple[int, ...], start: int, end: int) -> list[tuple[int, tuple[int, ...]]]:
    """The fewest boxes (first index, sizes) that make up the row-major range start..end of an array."""
    if len(sizes) <= 1:
        return [(start, (end - start,) * len(sizes))] if start < end else []
    inner = prod(sizes[1:])
    first, last = -(-start // inner), end // inner
    if first > last:  # inside one outer index
        base = last * inner
        return [(base + at, (1, *box)) for at, box in boxes(sizes[1:], start - base, end - base)]
    head = [
        ((first - 1) * inner + at, (1, *box)) for at, box in boxes(sizes[1:], inner - (first * inner - start), inner)
    ]
    middle = [(first * inner, (last - first, *sizes[1:]))] if last > first else []
    tail = [(last * inner + at, (1, *box)) for at, box in boxes(sizes[1:], 0, end - last * inner)]
    return [*head, *middle, *tail]


def _narrow_sums(
    emitter: Emitter, node: Node, piece: Piece, sums: str, first: int, cols: int, positions: list[Axis], window: _Window
) -> Op:
    """Requantize joined column sums into the output, with a multiplier and shift per column."""
    columns = piece_columns(emitter.graph, node, piece)
    own = slice(columns.start + first, columns.start + first + cols)
    post = _post(emitter, node, own, prefix="")
    tables = [_column_table(emitter, node, i, own, suffix) for i, suffix in ((3, "multiplier"), (4, "shift"))]
    axes = [Axis(a.size, (a.strides[1], a.strides[2], 0)) for a in positions] + [Axis(cols, (window.column, 1, 1))]
    loops, dims = split_loops(merge(axes), inner=0)
    operands = [
        descriptor(Operand(window.target.symbol, window.target.offset + first * window.column, 0), loops, dims),
        descriptor(Operand(sums, 0, 1), loops, dims),
    ]
    table_descriptors = [descriptor(Operand(t, 0, 2), loops, dims) for t in tables]
    settings = TableVector(
        Vector(post=replace(post, multiplier=1, shift=0), label=node.attr("layer", node.name)), *table_descriptors
    )
    return Op("REQ", (*operands, settings), tuple(a.size for a in loops))


def _column_table(emitter: Emitter, node: Node, index: int, columns: slice, suffix: str) -> str:
    array = np.asarray(emitter.graph.constants[node.inputs[index]])
    array = np.broadcast_to(array, (columns.stop,))[columns] if array.size == 1 else array[columns]
    return emitter.table(f"{node.name}.{suffix}.{columns.start}", array.astype(np.int32))


def _mvm(
    window: _Window,
    binding: Binding,
    source: Operand,
    target: Operand,
    rows: list[Axis],
    column: int,
    positions: list[Axis],
) -> Op:
    """One MVM over all positions; positions that do not fit four dimensions become hardware loops."""
    row_axes = merge(rows) or [Axis(1, (1,))]
    loops, dims = split_loops(merge(positions), inner=max(len(row_axes), 1))
    in_dims = [*(Axis(a.size, (a.strides[0],)) for a in dims), *(Axis(a.size, (a.strides[0],)) for a in row_axes)]
    out_dims = [*(Axis(a.size, (a.strides[1],)) for a in dims), Axis(binding.cols, (column,))]
    in_loops = [Axis(a.size, (a.strides[0],)) for a in loops]
    out_loops = [Axis(a.size, (a.strides[1],)) for a in loops]
    operands = (
        descriptor(replace(target, index=0), out_loops, out_dims),
        descriptor(replace(source, index=0), in_loops, in_dims),
        binding,
    )
    return Op("MVM", operands, tuple(a.size for a in loops))


def _window(emitter: Emitter, node: Node, piece: Piece) -> _Window:
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    if node.op == "MatMul":
        positions = axes_of(x.shape[:-1], x.strides[:-1], y.strides[:-1])
        return _Window(
            positions, [Axis(x.shape[-1], (x.strides[-1],))], y.strides[-1], operand_at(x, 0), operand_at(y, 1)
        )
    w = emitter.graph.constants[node.inputs[1]]
    rank, each_in, each_out = w.ndim - 2, w.shape[1], w.shape[0] // int(node.attr("group", 1))
    strides, dilations = (tuple(node.attr(n, (1,) * rank)) for n in ("strides", "dilations"))
    pads = tuple(node.attr("pads", (0,) * (2 * rank)))
    corner = x.offset - sum(p * s for p, s in zip(pads, x.strides[2:], strict=False))
    channels = piece.group0 * each_in
    source = Operand(x.symbol, corner + channels * x.strides[1], 0)
    target = Operand(y.symbol, y.offset + piece.group0 * each_out * y.strides[1], 1)
    steps = [x.strides[0], *(s * k for s, k in zip(x.strides[2:], strides, strict=True))]
    positions = axes_of((y.shape[0], *y.shape[2:]), steps, (y.strides[0], *y.strides[2:]))
    kernel = axes_of(w.shape[2:], [s * d for s, d in zip(x.strides[2:], dilations, strict=True)])
    return _Window(positions, [Axis(piece.groups * each_in, (x.strides[1],)), *kernel], y.strides[1], source, target)


def _binding(
    emitter: Emitter, node: Node, piece: Piece, chunk: list[Placed], *, rows: tuple[int, int], wide: bool
) -> Binding:
    """The weights of these rectangles, their places, and the path from codes in to codes out."""
    first = min(p.rect.col0 for p in chunk)
    cols = max(p.rect.col0 + p.rect.cols for p in chunk) - first
    columns = piece_columns(emitter.graph, node, piece)
    own = slice(columns.start + first, columns.start + first + cols)
    prefix = f"{node.name}.{piece.index}.{first}.{rows[0]}"
    matrix = piece_matrix(emitter.graph, node, piece)[rows[0] : rows[1], first : first + cols]
    bias = np.asarray(emitter.graph.constants[node.inputs[2]])
    bias = np.broadcast_to(bias, (own.stop,))[own] if bias.size == 1 else bias[own]
    bias_name = emitter.weight(f"{prefix}.bias", bias.astype(np.int32)) if rows[0] == 0 and bias.any() else ""
    tiles = tuple(
        Tile(
            p.macro,
            p.rect.row0 - rows[0],
            p.rect.rows,
            p.rect.col0 - first,
            p.rect.cols,
            p.x,
            p.y,
            p.bias0,
            p.rect.bias_rows,
        )
        for p in chunk
    )
    binding = Binding(
        label=node.attr("layer", node.name),
        weight=emitter.weight(f"{prefix}.weight", np.ascontiguousarray(matrix)),
        bias=bias_name,
        rows=rows[1] - rows[0],
        cols=cols,
        zero_in=0,
        tiles=tiles,
        readout=_readout(emitter, node, own, prefix, rows),
        post=WIDE if wide else _post(emitter, node, own, prefix=prefix),
        input_shift=node.attr("input_shift", 0),
        input_offset=node.attr("input_offset", 0),
        expected=_expected(emitter, node, piece, rows, prefix),
    )
    if chunk[0].segment >= 0:
        emitter.reloaded[binding] = chunk[0].segment
    return binding


def _expected(emitter: Emitter, node: Node, piece: Piece, rows: tuple[int, int], prefix: str) -> str:
    """Mean driven codes of these rows, where calibration gave them."""
    codes = emitter.expected.get(node.attr("layer", node.name))
    if codes is None:
        return ""
    return emitter.weight(
        f"{prefix}.expected", codes[piece.group0 : piece.group0 + piece.groups].reshape(-1)[rows[0] : rows[1]]
    )


def _column_values(emitter: Emitter, node: Node, index: int, columns: slice, name: str) -> int | str:
    """A per-column setting: a number when all columns share it, else the name of a weight."""
    array = np.asarray(emitter.graph.constants[node.inputs[index]], np.int64)
    array = array if array.size == 1 else array[columns]
    if (array == array.flat[0]).all():
        return int(array.flat[0])
    return emitter.weight(name, array.astype(np.int32))


def _post(emitter: Emitter, node: Node, columns: slice, *, prefix: str) -> Post:
    quant = emitter.graph.type(node.output).quant
    assert quant is not None
    lo, hi, rounding = node.attr("lo"), node.attr("hi"), node.attr("rounding", "half_even")
    if node.attr("readout") == "wtm2101" or not prefix:
        return Post(1, 0, rounding, quant.zero_point, lo, hi)
    multiplier = _column_values(emitter, node, 3, columns, f"{prefix}.multiplier")
    shift = _column_values(emitter, node, 4, columns, f"{prefix}.shift")
    return Post(multiplier, shift, rounding, quant.zero_point, lo, hi)


def _readout(emitter: Emitter, node: Node, columns: slice, prefix: str, rows: tuple[int, int]) -> Readout:
    kind, a = node.attr("readout"), node.attr
    bounds = tuple(int(p) for p in a("parts", ())) or (0, rows[1])
    parts = tuple(p - rows[0] for p in bounds if rows[0] <= p <= rows[1])
    if kind == "exact":
        return Readout()
    if kind == "wtm2101":
        gain = _column_values(emitter, node, 5, columns, f"{prefix}.gain")
        return Readout("wtm2101", bits=8, gain=gain, parts=parts, k=a("k", 0))
    return Readout(
        "adc", bits=a("adc_bits"), signed=bool(a("adc_signed")), multiplier=a("adc_m", 1), shift=a("adc_s", 0),
        parts=parts, slice_bits=(a("weight_bits"), a("slice_bits")), plane_bits=(a("input_bits"), a("plane_bits")),
        encoding=emitter.chip.macro.weights.encoding,
    )  # fmt: skip


# vector operators


def _product(emitter: Emitter, node: Node) -> None:
    """Two run-time matrices: leading dimensions broadcast, then (m, k) x (k, n)."""
    a, b, y = (emitter.at(v) for v in (*node.inputs[:2], node.output))
    rank = len(y.shape)
    lead = [_broadcast(at, rank, y.shape[:-2]) for at in (a, b)]
    axes = [Axis(d, (y.strides[i], lead[0][i], lead[1][i])) for i, d in enumerate(y.shape[:-2])]
    loops, dims = split_loops(merge(axes), inner=2)
    tail = {0: (y.shape[-2:], y.strides[-2:]), 1: (a.shape[-2:], a.strides[-2:]), 2: (b.shape[-2:], b.strides[-2:])}
    operands: list[Descriptor] = []
    for index, at in ((0, y), (1, a), (2, b)):
        sizes, strides = tail[index]
        own = [Axis(d.size, (d.strides[index],)) for d in dims] + [
            Axis(n, (s,)) for n, s in zip(sizes, strides, strict=True)
        ]
        operands.append(descriptor(operand_at(at, 0), [Axis(x.size, (x.strides[index],)) for x in loops], own))
    settings = Vector(
        zero_a=emitter.zero(node.inputs[0]),
        zero_b=emitter.zero(node.inputs[1]),
        post=emitter.post(node),
        label=node.name,
    )
    _with_halo(emitter, node, [Op("MMA", (*operands, settings), tuple(x.size for x in loops))])


def _broadcast(at: Location, rank: int, lead: Sequence[Dim]) -> list[int]:
    """Strides of a location's leading dimensions against `lead`; broadcast ones are 0."""
    missing = rank - len(at.shape)
    return [0 if i < missing or at.shape[i - missing] != lead[i] else at.strides[i - missing] for i in range(len(lead))]


def _with_halo(emitter: Emitter, node: Node, ops: list[Op]) -> None:
    emitter.task(node, emitter.core_of(node), [*fill_halo(emitter, node.output), *ops])


def _binary(emitter: Emitter, node: Node) -> None:
    y = emitter.at(node.output)
    rank = len(y.shape)
    names = [_in_memory(emitter, v) for v in node.inputs[:2]]
    strides = [_broadcast(emitter.at(v), rank, y.shape) for v in names]
    settings = Vector(
        emitter.zero(names[0]),
        emitter.zero(names[1]),
        node.attr("scale_a", 1),
        node.attr("scale_b", 1),
        emitter.post(node),
        label=node.name,
    )
    operands = [operand_at(y, 0), *(operand_at(emitter.at(v), i + 1) for i, v in enumerate(names))]
    _with_halo(emitter, node, [vector_op(node.op.upper(), axes_of(y.shape, y.strides, *strides), operands, settings)])


def _in_memory(emitter: Emitter, value: str) -> str:
    """A value's name; a constant is first entered as a table in memory."""
    if value in emitter.graph.constants and value not in emitter.tables:
        array = emitter.graph.constants[value]
        dtype = {"i8": np.int8, "u8": np.uint8, "i16": np.int16, "u16": np.uint16}.get(
            emitter.graph.type(value).dtype, np.int32
        )
        emitter.table(value, array.astype(dtype))
    return value


def _lut(emitter: Emitter, node: Node) -> None:
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    table = emitter.weight(f"{node.name}.table", np.asarray(emitter.graph.constants[node.inputs[1]]).astype(np.int32))
    scale = 1 << int(node.attr("input_shift", 0))
    settings = Vector(scale_a=scale, post=emitter.post(node), lut=table, label=node.name)
    op = vector_op("LUT", axes_of(y.shape, y.strides, x.strides), [operand_at(y, 0), operand_at(x, 1)], settings)
    _with_halo(emitter, node, [op])


def _rescale(emitter: Emitter, node: Node) -> None:
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    settings = Vector(emitter.zero(node.inputs[0]), post=emitter.post(node), label=node.name)
    op = vector_op("REQ", axes_of(y.shape, y.strides, x.strides), [operand_at(y, 0), operand_at(x, 1)], settings)
    _with_halo(emitter, node, [op])


def _pool(emitter: Emitter, node: Node) -> None:
    """Windows reduced to their sum or largest code."""
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    kernel = tuple(node.attr("kernel_shape"))
    rank = len(kernel)
    strides, dilations = (tuple(node.attr(n, (1,) * rank)) for n in ("strides", "dilations"))
    corner = x.offset - sum(p * s for p, s in zip(tuple(node.attr("pads", (0,) * rank)), x.strides[2:], strict=False))
    steps = [*x.strides[:2], *(s * k for s, k in zip(x.strides[2:], strides, strict=True))]
    window = [Axis(k, (0, s * d)) for k, s, d in zip(kernel, x.strides[2:], dilations, strict=True)]
    source = Operand(x.symbol, corner, 1)
    axes = axes_of(y.shape, y.strides, steps)
    settings = Vector(emitter.zero(node.inputs[0]), post=emitter.post(node), label=node.name)
    if node.op == "MaxPool":  # codes stay as they are
        settings = Vector(post=replace(settings.post, zero_point=0), label=node.name)
    if node.op == "AveragePool" and len(node.inputs) > 1:
        _mapped_pool(emitter, node, axes, window, source, settings)
        return
    op = vector_op("MAX" if node.op == "MaxPool" else "SUM", axes, [operand_at(y, 0), source], settings, inner=window)
    _with_halo(emitter, node, [op])


def _mapped_pool(
    emitter: Emitter, node: Node, axes: list[Axis], window: list[Axis], source: Operand, settings: Vector
) -> None:
    """An average whose border windows divide by fewer: one multiplier per output position."""
    name = _in_memory(emitter, node.inputs[1])
    at, y = emitter.at(name), emitter.at(node.output)
    own = [Axis(a.size, (*a.strides, s)) for a, s in zip(axes, (0, 0, *at.strides), strict=True)]
    inner = merge(window)
    loops, dims = split_loops(merge(own), inner=len(inner))
    out = descriptor(operand_at(y, 0), loops, dims)
    read = descriptor(source, loops, [*(dims or [Axis(1, (1, 1, 1))]), *(Axis(a.size, (*a.strides, 0)) for a in inner)])
    table = TableVector(settings, descriptor(Operand(at.symbol, at.offset, 2), loops, dims))
    _with_halo(emitter, node, [Op("SUM", (out, read, table), tuple(a.size for a in loops))])


def _reduce(emitter: Emitter, node: Node) -> None:
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    axes = [a % len(x.shape) for a in node.attr("axes")]
    kept = [i for i in range(len(x.shape)) if i not in axes]
    out_strides = [y.strides[i] for i in kept] if node.attr("keepdims", 1) else list(y.strides)
    outer = axes_of([x.shape[i] for i in kept], out_strides, [x.strides[i] for i in kept])
    inner = [Axis(x.shape[i], (0, x.strides[i])) for i in axes]
    settings = Vector(emitter.zero(node.inputs[0]), post=emitter.post(node), label=node.name)
    _with_halo(emitter, node, [vector_op("SUM", outer, [operand_at(y, 0), operand_at(x, 1)], settings, inner=inner)])


def _softmax(emitter: Emitter, node: Node) -> None:
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    axis = int(node.attr("axis", -1)) % len(x.shape)
    table = emitter.weight(f"{node.name}.table", np.asarray(emitter.graph.constants[node.inputs[1]]).astype(np.int32))
    settings = Vector(post=emitter.post(node), lut=table, label=node.name)
    others = [i for i in range(len(x.shape)) if i != axis]
    loops, dims = split_loops(
        merge(axes_of([x.shape[i] for i in others], [y.strides[i] for i in others], [x.strides[i] for i in others])),
        inner=1,
    )
    last = Axis(x.shape[axis], (y.strides[axis], x.strides[axis]))
    operands = [descriptor(operand_at(at, i), loops, [*dims, last]) for i, at in enumerate((y, x))]
    _with_halo(emitter, node, [Op("SOFTMAX", (*operands, settings), tuple(a.size for a in loops))])


# data movement


def _copy(target: Location, source: Location, shape: Sequence[Dim]) -> Op:
    return vector_op(
        "DMA", axes_of(shape, target.strides, source.strides), [operand_at(target, 0), operand_at(source, 1)]
    )


def _copy_reshaped(emitter: Emitter, node: Node) -> None:
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
        _with_halo(emitter, node, reshape_copies(emitter, node, y, x))
        return
    _with_halo(emitter, node, [op])


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


def _transfer(emitter: Emitter, node: Node) -> None:
    """A value of another chip, copied."""
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    _with_halo(emitter, node, [_copy(y, x, y.shape)])


def _concat(emitter: Emitter, node: Node) -> None:
    y = emitter.at(node.output)
    axis, start, ops = int(node.attr("axis")) % len(y.shape), 0, list[Op]()
    for value in node.inputs:
        x = emitter.at(_in_memory(emitter, value))
        target = Location(y.symbol, y.offset + start * y.strides[axis], x.shape, y.strides)
        ops.append(_copy(target, x, x.shape))
        start += int(x.shape[axis])
    _with_halo(emitter, node, ops)


def _pad(emitter: Emitter, node: Node) -> None:
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    before = tuple(node.attr("pads"))[: len(y.shape)]
    fill = vector_op("FILL", axes_of(y.shape, y.strides), [operand_at(y, 0)], int(node.attr("code")))
    offset = y.offset + sum(b * s for b, s in zip(before, y.strides, strict=True))
    _with_halo(emitter, node, [fill, _copy(Location(y.symbol, offset, x.shape, y.strides), x, x.shape)])


Rule = Callable[[Emitter, Node], None]
RULES: dict[str, Rule] = {
    "Conv": _layer, "MatMul": _layer, "Add": _binary, "Mul": _binary, "Requantize": _rescale, "AveragePool": _pool,
    "MaxPool": _pool, "ReduceMean": _reduce, "Softmax": _softmax, "Lut": _lut, "Concat": _concat, "Pad": _pad,
    "Transfer": _transfer,
}  # fmt: skip
