"""Placement files in the vendor's form (layers.txt): one line `x0, x1, y0, y1, bias0, bias1, G` for each block.

All ends are included; y counts rows over both regions; a block without bias rows has bias1 = bias0 - 1.  Lines stand in
the order of the layers; the blocks of one layer by rows, then by columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError, UsageError
from insitu.compiler.mapping import Mapping, Placed
from insitu.compiler.tile import Piece, Rect, bias_rows, pieces, weight_nodes
from insitu.graph.graph import Graph, Node
from insitu.isa.program import Binding, Program

MOST_LISTED = 10


@dataclass(frozen=True)
class Block:
    """One line: columns x0..x1, rows y0..y1, bias rows bias0..bias1, all included, and the gain."""

    x0: int
    x1: int
    y0: int
    y1: int
    bias0: int
    bias1: int
    gain: int

    @property
    def rows(self) -> int:
        """Rows it takes."""
        return self.y1 - self.y0 + 1

    @property
    def cols(self) -> int:
        """Columns it takes."""
        return self.x1 - self.x0 + 1

    @property
    def bias_rows(self) -> int:
        """Bias rows it takes."""
        return self.bias1 - self.bias0 + 1

    def __str__(self) -> str:
        return ", ".join(map(str, (self.x0, self.x1, self.y0, self.y1, self.bias0, self.bias1, self.gain)))


def placement_text(program: Program) -> str:
    """The placement of a compiled program, one line a block."""
    return "".join(f"{block}\n" for _, block in blocks_of(program))


def blocks_of(program: Program) -> list[tuple[str, Block]]:
    """(layer, block) of every tile, columns of another gain apart, in the order of the layers."""
    found: dict[str, list[tuple[tuple[int, int], Block]]] = {}
    for section in program.sections:
        for binding in section.bindings:
            if binding.readout.kind != "wtm2101" or section.core or any(t.macro for t in binding.tiles):
                need = "a program for one array with the wtm2101 readout"
                raise UsageError(f"program {program.name}", f"layer {binding.label} placed otherwise", need)
            found.setdefault(binding.label, []).extend(_blocks(program, binding))
    return [(name, block) for name, blocks in found.items() for _, block in sorted(blocks, key=lambda b: b[0])]


def _blocks(program: Program, binding: Binding) -> Iterator[tuple[tuple[int, int], Block]]:
    gains = _gains(program, binding)
    # the bindings of one layer hold different columns; their order is that of the weights' names
    first = int(re.findall(r"\.(\d+)\.\d+\.weight$", binding.weight)[0]) if binding.weight.endswith(".weight") else 0
    for tile in binding.tiles:
        own = gains[tile.col0 : tile.col0 + tile.cols]
        cuts = [0, *(np.flatnonzero(np.diff(own)) + 1).tolist(), tile.cols]
        for a, b in pairwise(cuts):
            x, bias1 = tile.x + a, tile.bias0 + tile.bias_rows - 1
            block = Block(x, x + b - a - 1, tile.y, tile.y + tile.rows - 1, tile.bias0, bias1, int(own[a]))
            yield (tile.row0, first + tile.col0 + a), block


def _gains(program: Program, binding: Binding) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The gain of each column, as its part is read."""
    gain = binding.readout.gain
    values = program.weight(gain).astype(np.int64).ravel() if isinstance(gain, str) else np.array([gain], np.int64)
    apart = binding.readout.k if len(binding.readout.parts) > 2 else 0
    return np.broadcast_to(values, (binding.cols,)) >> apart


def read_placement(path: str | Path) -> list[Block]:
    """The blocks of a placement file; ConfigError names the line that is none."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not text"
        raise ConfigError(str(path), reason.lower(), "a placement file (layers.txt)") from None
    return parse_placement(text, where=str(path))


def parse_placement(text: str, *, where: str = "placement") -> list[Block]:
    """The blocks of a placement file's text; empty lines are skipped."""
    blocks: list[Block] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = [w.strip() for w in line.split(",")]
        if words == [""]:
            continue
        if len(words) != 7 or not all(re.fullmatch(r"-?\d{1,9}", w) for w in words):
            raise ConfigError(f"{where}:{number}", repr(line[:60]), "seven integers: x0, x1, y0, y1, bias0, bias1, G")
        blocks.append(Block(*map(int, words)))
    return blocks


def fixed_mapping(graph: Graph, chip: Chip, blocks: Sequence[Block], *, where: str = "placement") -> Mapping:
    """The mapping that a placement file fixes; ConfigError with all that is wrong with it."""
    if chip.macros != 1:
        raise ConfigError(where, f"{chip.macros} macros on {chip.name}", "a chip with one: a line names no macro")
    faults = list(_faults(blocks, chip))
    left = list(enumerate(blocks, 1))
    layers: dict[str, tuple[Placed, ...]] = {}
    for node in [] if faults else weight_nodes(graph):
        placed: list[Placed] = []
        most = int(node.attr("group", 1))
        for piece in pieces(graph, node, chip, pack=most):
            placed += _taken(graph, node, piece, left, chip, faults)
        layers[node.name] = tuple(placed)
    if left and not faults:
        faults.append(f"{len(left)} blocks more than the network has, from line {left[0][0]}")
    if faults:
        more = f"; and {len(faults) - MOST_LISTED} more" if len(faults) > MOST_LISTED else ""
        need = f"a legal placement of {graph.name} on {chip.name}"
        raise ConfigError(where, "; ".join(faults[:MOST_LISTED]) + more, need)
    cells = chip.macros * chip.macro.arrays * chip.array.rows * chip.array.cols
    return Mapping(layers, sum(b.rows * b.cols for b in blocks), cells)


def _faults(blocks: Sequence[Block], chip: Chip) -> Iterator[str]:
    """Blocks outside the arrays, across regions, on reserved columns, over one another, with no gain of the chip."""
    rows, reserved = chip.array.rows, chip.macro.reserved_columns
    gains = chip.macro.readout.gain or (1, 1 << 30)
    for number, b in enumerate(blocks, 1):
        place = f"line {number}"
        if b.rows < 1 or b.cols < 1 or b.x0 < 0 or b.x1 >= chip.array.cols or b.y0 < 0:
            yield f"{place}: columns {b.x0}..{b.x1}, rows {b.y0}..{b.y1} are not on the array"
        elif b.y1 >= rows * chip.macro.arrays or b.y0 // rows != b.y1 // rows:
            yield f"{place}: rows {b.y0}..{b.y1} do not lie in one region of {rows}"
        if b.x0 < reserved:
            yield f"{place}: column {b.x0} is one of the {reserved} reserved"
        if b.bias_rows < 0 or b.bias0 < 0 or b.bias1 >= chip.macro.bias_rows:
            yield f"{place}: bias rows {b.bias0}..{b.bias1}, of {chip.macro.bias_rows}"
        if not gains[0] <= b.gain <= gains[1] or b.gain & (b.gain - 1):
            yield f"{place}: G = {b.gain}"
    for (i, a), (j, b) in combinations(enumerate(blocks, 1), 2):
        if a.x0 <= b.x1 and b.x0 <= a.x1:
            if a.y0 <= b.y1 and b.y0 <= a.y1:
                yield f"lines {i} and {j} overlap"
            if a.bias0 <= b.bias1 and b.bias0 <= a.bias1 and a.bias_rows and b.bias_rows:
                yield f"lines {i} and {j} share bias rows in the same columns"


def _taken(
    graph: Graph, node: Node, piece: Piece, left: list[tuple[int, Block]], chip: Chip, faults: list[str]
) -> list[Placed]:
    """The next blocks as the grid of one piece: its row parts, each cut into columns as the widths say."""
    parts = tuple(int(p) for p in node.attr("parts", ())) or (0, piece.rows)
    gains = np.asarray(graph.constants[node.inputs[5]]).ravel() if len(node.inputs) > 5 else np.zeros(1, np.int64)
    out: list[Placed] = []
    for r0, r1 in pairwise(parts):
        col = 0
        while col < piece.cols:
            if not left:
                faults.append(f"no block for rows {r0}..{r1}, columns {col}..{piece.cols} of layer {node.name!r}")
                return out
            number, b = left.pop(0)
            need = bias_rows(graph, node, piece, chip, columns=(col, col + b.cols)) if r0 == 0 else 0
            gain = int(gains[piece.group0 + col] if gains.size > 1 else gains[0]) >> (
                int(node.attr("k", 0)) if len(parts) > 2 else 0
            )
            if b.rows != r1 - r0 or col + b.cols > piece.cols:
                got = f"line {number} is {b.rows} x {b.cols}; layer {node.name!r} wants {r1 - r0} x {piece.cols - col}"
                faults.append(f"{got} there")
                return out
            if b.bias_rows < need or b.gain != gain:
                got = f"line {number} has {b.bias_rows} bias rows and G = {b.gain}"
                faults.append(f"{got}; layer {node.name!r} needs {need} and {gain}")
            rect = Rect(piece, r0, b.rows, col, b.cols, b.bias_rows if r0 == 0 else 0)
            out.append(Placed(rect, 0, 0, b.x0, b.y0, b.bias0))
            col += b.cols
    return out
