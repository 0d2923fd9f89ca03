"""Cut weight layers into rectangles that fit an array: pieces (packed groups), row parts, column chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.graph.graph import Graph, Node
from insitu.graph.ops.mvm import bias_parts, block_signs, programmed_rows
from insitu.numeric.affine import Ints
from insitu.numeric.readout import WTM_BIAS_UNIT

REGIONS = {"up": 0, "down": 1}
NARROWEST = 16  # columns that placement cuts a layer to


@dataclass(frozen=True)
class Piece:
    """One matrix [rows, cols] of a layer: all of it, or `groups` groups on the diagonal of one block."""

    layer: str
    index: int
    group0: int
    groups: int
    rows: int
    cols: int


@dataclass(frozen=True)
class Rect:
    """A rectangle of a piece that goes onto one array, with the bias rows it needs there."""

    piece: Piece
    row0: int
    rows: int
    col0: int
    cols: int
    bias_rows: int
    region: int | None = None  # the only array of a macro that it may lie on


def weight_nodes(graph: Graph) -> list[Node]:
    """Nodes whose second operand is a constant matrix: the layers that live in arrays."""
    return [n for n in graph.nodes if n.op in ("Conv", "MatMul") and n.inputs[1] in graph.constants]


def owners(graph: Graph) -> dict[str, str]:
    """Weight layer -> the first one with the same constants and settings, itself where there is none before it."""
    first: dict[tuple[object, ...], str] = {}
    out: dict[str, str] = {}
    for node in weight_nodes(graph):
        attrs = tuple(sorted((k, v) for k, v in node.attrs.items() if k != "layer"))
        out[node.name] = first.setdefault((node.op, node.inputs[1:], attrs), node.name)
    return out


def layer_matrix(graph: Graph, node: Node) -> npt.NDArray[Any]:
    """Weights as [groups, rows, cols], rows in the order of the patch (channel, then kernel)."""
    w = graph.constants[node.inputs[1]]
    if node.op == "MatMul":
        return w[None]
    groups = int(node.attr("group", 1))
    return w.reshape(groups, w.shape[0] // groups, -1).transpose(0, 2, 1)


def balanced(total: int, most: int) -> tuple[int, ...]:
    """Boundaries of the fewest contiguous parts of at most `most`, sizes differing by at most one, earlier larger."""
    count = -(-total // most)
    small, extra = divmod(total, count)
    sizes = [small + (i < extra) for i in range(count)]
    return tuple(int(v) for v in np.cumsum([0, *sizes]))


def pieces(graph: Graph, node: Node, chip: Chip, *, pack: int) -> list[Piece]:
    """The matrices of a layer; groups share a block, at most `pack` of them and as many as an array holds."""
    groups, rows, cols = layer_matrix(graph, node).shape
    rows *= len(block_signs(node))
    if groups == 1:
        return [Piece(node.name, 0, 0, 1, rows, cols)]
    room = min(chip.array.rows // rows, usable_columns(chip) // cols)
    if chip.capabilities.gemv:
        room = chip.core.macros // cols  # a column for each bank
    bounds = balanced(groups, max(1, min(pack, room)))
    return [Piece(node.name, i, a, b - a, (b - a) * rows, (b - a) * cols) for i, (a, b) in enumerate(pairwise(bounds))]


def piece_matrix(graph: Graph, node: Node, piece: Piece) -> npt.NDArray[Any]:
    """The weights of a piece: all blocks of rows, in each of which several groups lie on the diagonal."""
    return programmed_rows(_block(graph, node, piece), node)


def _block(graph: Graph, node: Node, piece: Piece) -> npt.NDArray[Any]:
    blocks = layer_matrix(graph, node)[piece.group0 : piece.group0 + piece.groups]
    if piece.groups == 1:
        return blocks[0]
    _, rows, cols = blocks.shape
    full = np.zeros((piece.groups, rows, piece.groups, cols), blocks.dtype)
    index = np.arange(piece.groups)
    full[index, :, index, :] = blocks
    return full.reshape(piece.groups * rows, piece.cols)


def usable_columns(chip: Chip) -> int:
    """Columns of an array that may be used."""
    return chip.array.cols - chip.macro.reserved_columns


def row_bounds(graph: Graph, node: Node, piece: Piece, chip: Chip, *, apart: bool = False) -> tuple[int, ...]:
    """Row boundaries of a piece: those the quantized graph fixed, else whatever fits an array.

    `apart`: parts may lie on several cores, so they end with a channel where an array holds one.
    """
    fixed = part_bounds(node, piece)
    if fixed:
        return fixed
    each = rows_per_channel(graph, node) if apart else 1
    if each > chip.array.rows:
        each = 1
    return tuple(each * b for b in balanced(piece.rows // each, chip.array.rows // each))


def part_bounds(node: Node, piece: Piece) -> tuple[int, ...]:
    """Row boundaries that the quantized graph fixed; those of several groups side by side end with whole blocks."""
    return tuple(int(p) * piece.groups for p in node.attr("parts", ()))


def rows_per_channel(graph: Graph, node: Node) -> int:
    """Rows that one input channel takes: the elements of the kernel."""
    return prod(graph.constants[node.inputs[1]].shape[2:]) if node.op == "Conv" else 1


def rows_may_part(graph: Graph, node: Node, rects: Sequence[Rect]) -> bool:
    """Whether these row parts may lie on several cores: their sums add up, and one command reaches each."""
    kind, each = node.attr("readout"), rows_per_channel(graph, node)
    return kind == "exact" or (kind == "adc" and all(r.row0 % each == 0 for r in rects))


def rectangles(graph: Graph, node: Node, piece: Piece, chip: Chip, *, apart: bool = False, cuts: int = 1) -> list[Rect]:
    """The grid of rectangles of one piece; `cuts` parts its columns further, which changes no number."""
    rows, cols = row_bounds(graph, node, piece, chip, apart=apart), column_bounds(graph, node, piece, chip, cuts)
    region = REGIONS.get(str(node.attr("region", "")))
    held = bias_parts(node, layer_matrix(graph, node).shape[1] * len(block_signs(node)))
    rects: list[Rect] = []
    for part, (r0, r1) in enumerate(pairwise(rows)):
        for c0, c1 in pairwise(cols):
            need = bias_rows(graph, node, piece, chip, columns=(c0, c1)) if part in held else 0
            rects.append(Rect(piece, r0, r1 - r0, c0, c1 - c0, need, region))
    return rects


def column_bounds(graph: Graph, node: Node, piece: Piece, chip: Chip, cuts: int = 1) -> tuple[int, ...]:
    """Column boundaries of a piece: no wider than an array, and one step to a rectangle, since a read has one."""
    widest = min(usable_columns(chip), max(-(-piece.cols // cuts), NARROWEST))
    steps = readout_steps(graph, node, piece_columns(graph, node, piece))
    changes = (0, *(int(c) + 1 for c in np.flatnonzero(np.diff(steps))), piece.cols)
    inner = [a + b for a, end in pairwise(changes) for b in balanced(end - a, widest)[:-1]]
    return (*inner, piece.cols)


def readout_steps(graph: Graph, node: Node, columns: slice) -> Ints:
    """What sets the readout's step of each column: its gain, or the powers of two by which a converter's is finer."""
    table = np.asarray(graph.constants[node.inputs[5]], np.int64) if len(node.inputs) > 5 and node.inputs[5] else None
    if table is None or table.size == 1:
        return np.full(columns.stop - columns.start, 0 if table is None else table.flat[0], np.int64)
    return table[columns]


def piece_columns(graph: Graph, node: Node, piece: Piece) -> slice:
    """Output channels of a piece."""
    each = layer_matrix(graph, node).shape[2]
    return slice(piece.group0 * each, piece.group0 * each + piece.cols)


def bias_rows(graph: Graph, node: Node, piece: Piece, chip: Chip, *, columns: tuple[int, int]) -> int:
    """Bias rows that hold the largest bias of these columns, where the bias sits in the array."""
    if node.attr("readout") != "wtm2101":
        return 0
    bias = np.asarray(graph.constants[node.inputs[2]])[piece_columns(graph, node, piece)][columns[0] : columns[1]]
    return -(-int(np.abs(bias).max(initial=0)) // (WTM_BIAS_UNIT * chip.array.cell_range[1]))
