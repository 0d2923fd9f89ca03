"""Emit weight layers: one command covers as many output positions as addresses allow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from insitu.base.errors import InternalError
from insitu.compiler.banks import in_banks
from insitu.compiler.commands import Axis, Op, Operand, TableVector, Task, descriptor, merge, split_loops
from insitu.compiler.emitter import Emitter, axes_of, fill_halo, operand_at, vector_op
from insitu.compiler.mapping import Placed
from insitu.compiler.tile import Piece, owners, part_bounds, piece_columns, piece_matrix, readout_steps
from insitu.graph.graph import Node
from insitu.graph.ops.mvm import bias_parts, block_signs
from insitu.isa.program import Binding, Post, Readout, Tile, Vector
from insitu.numeric.affine import Ints
from insitu.numeric.readout import finer_step

WIDE = Post()  # column sums as they are


@dataclass(frozen=True)
class _Window:
    """How a weight layer walks its input: positions (input and output strides), row axes, column stride."""

    positions: list[Axis]
    rows: list[Axis]
    column: int
    source: Operand
    target: Operand


def emit_layer(emitter: Emitter, node: Node) -> None:
    """A layer whose weights live in arrays."""
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
        for part in _runs(chunk, _converted(emitter, node, piece)):
            out += write(emitter, node, piece, part, window)
    return out


def _converted(emitter: Emitter, node: Node, piece: Piece) -> Ints:
    """How much finer each column of a piece is converted; a binding has one converter's range."""
    if node.attr("readout") != "adc":
        return np.zeros(piece.cols, np.int64)
    return readout_steps(emitter.graph, node, piece_columns(emitter.graph, node, piece))


def _runs(chunk: list[Placed], steps: Ints) -> list[list[Placed]]:
    """Rectangles grouped into runs of adjacent columns that are read in the same steps."""
    out: list[list[Placed]] = []
    end = -1
    for p in sorted(chunk, key=lambda p: (p.rect.col0, p.rect.row0)):
        if not out or p.rect.col0 > end or steps[p.rect.col0] != steps[out[-1][0].rect.col0]:
            out.append([])
        out[-1].append(p)
        end = max(end, p.rect.col0 + p.rect.cols)
    return out


def _whole(emitter: Emitter, node: Node, piece: Piece, chunk: list[Placed], window: _Window) -> list[tuple[int, Op]]:
    binding = _binding(emitter, node, piece, chunk, rows=(0, piece.rows), wide=False)
    first = min(p.rect.col0 for p in chunk)
    target = replace(window.target, offset=window.target.offset + first * window.column)
    op = _mvm(window, binding, window.source, target, window.rows, window.column, window.positions)
    return [(chunk[0].core, in_banks(emitter, op) if emitter.chip.capabilities.gemv else op)]


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
    blocks = [Axis(len(block_signs(node)), (0,))] if len(block_signs(node)) > 1 else []  # the same inputs again
    if node.op == "MatMul":
        positions = axes_of(x.shape[:-1], x.strides[:-1], y.strides[:-1])
        rows = [*blocks, Axis(x.shape[-1], (x.strides[-1],))]
        return _Window(positions, rows, y.strides[-1], operand_at(x, 0), operand_at(y, 1))
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
    rows = [*blocks, Axis(piece.groups * each_in, (x.strides[1],)), *kernel]
    return _Window(positions, rows, y.strides[1], source, target)


def _owner(emitter: Emitter, node: Node) -> str:
    """The layer whose weights these are: another one where both read the same cells."""
    if not emitter.owners:
        emitter.owners.update(owners(emitter.graph))
    owner, layers = emitter.owners.get(node.name, node.name), emitter.mapping.layers
    return owner if layers.get(owner) == layers[node.name] else node.name


def _binding(
    emitter: Emitter, node: Node, piece: Piece, chunk: list[Placed], *, rows: tuple[int, int], wide: bool
) -> Binding:
    """The weights of these rectangles, their places, and the path from codes in to codes out."""
    first = min(p.rect.col0 for p in chunk)
    cols = max(p.rect.col0 + p.rect.cols for p in chunk) - first
    columns = piece_columns(emitter.graph, node, piece)
    own = slice(columns.start + first, columns.start + first + cols)
    prefix = f"{_owner(emitter, node)}.{piece.index}.{first}.{rows[0]}"
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
        tiles=() if emitter.chip.capabilities.gemv else tiles,
        readout=_readout(emitter, node, piece, own, prefix, rows),
        post=WIDE if wide else _post(emitter, node, own, prefix=prefix),
        input_shift=node.attr("input_shift", 0),
        input_offset=node.attr("input_offset", 0),
        expected=_expected(emitter, node, piece, rows, prefix),
        drive=tuple(int(v) for v in node.attr("drive", ())),
        negated=_negated(node, piece, rows),
    )
    if chunk[0].segment >= 0:
        emitter.reloaded[binding] = chunk[0].segment
    return binding


def _negated(node: Node, piece: Piece, rows: tuple[int, int]) -> tuple[int, ...]:
    """Ranges (first, end) of these rows that are driven negated, counted from the first."""
    signs = block_signs(node)
    each = piece.rows // len(signs)
    ranges = [(max(i * each, rows[0]), min((i + 1) * each, rows[1])) for i, sign in enumerate(signs) if sign < 0]
    return tuple(end - rows[0] for a, b in ranges if a < b for end in (a, b))


def _expected(emitter: Emitter, node: Node, piece: Piece, rows: tuple[int, int], prefix: str) -> str:
    """Mean driven codes of these rows, and behind them inputs to play, where calibration gave them."""
    codes = emitter.expected.get(node.attr("layer", _owner(emitter, node)))
    if codes is None:
        return ""
    count = len(codes) if codes.ndim == 3 else 1
    groups = slice(piece.group0, piece.group0 + piece.groups)
    own = codes.reshape(count, len(block_signs(node)), -1, codes.shape[-1])[:, :, groups]
    own = own.reshape(count, -1)[:, rows[0] : rows[1]]
    return emitter.weight(f"{prefix}.expected", own if count > 1 else own[0])


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


def _readout(emitter: Emitter, node: Node, piece: Piece, columns: slice, prefix: str, rows: tuple[int, int]) -> Readout:
    kind, a = node.attr("readout"), node.attr
    bounds = part_bounds(node, piece) or (0, rows[1])
    parts = tuple(p - rows[0] for p in bounds if rows[0] <= p <= rows[1])
    mine = [i for i, p in enumerate(bounds[:-1]) if rows[0] <= p < rows[1]]
    finer = tuple(int(a("finer")[i]) for i in mine) if a("finer", ()) else ()
    finest = max((int(up) for up in a("finer", ())), default=0)
    reads = int(a("reads", 0))
    if kind == "exact":
        return Readout(plane_bits=(a("input_bits"), a("plane_bits")) if a("input_bits", 0) else ())
    if kind == "wtm2101":
        gain = _column_values(emitter, node, 5, columns, f"{prefix}.gain")
        held = bias_parts(node, piece.rows // piece.groups)
        biased = held if len(held) > 1 else ()
        return Readout(
            "wtm2101",
            bits=8,
            gain=gain,
            parts=parts,
            k=a("k", 0),
            finer=finer,
            finest=finest,
            biased=biased,
            reads=reads,
        )
    more = int(readout_steps(emitter.graph, node, columns)[0])
    multiplier, shift = finer_step(int(a("adc_m", 1)), int(a("adc_s", 0)), more)
    return Readout(
        "adc", bits=a("adc_bits"), signed=bool(a("adc_signed")), multiplier=multiplier, shift=shift,
        parts=parts, slice_bits=(a("weight_bits"), a("slice_bits")), plane_bits=(a("input_bits"), a("plane_bits")),
        encoding=emitter.chip.macro.weights.encoding, finer=finer, finest=finest, reads=reads,
        slice_shift=int(a("slice_shift", 0)),
    )  # fmt: skip
