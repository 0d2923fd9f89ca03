"""Estimate: closed-form seconds of a layer, by which the compiler compares placements; `timing` says what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from insitu.arch.spec import Chip
from insitu.compiler.mapping import Placed
from insitu.compiler.place import most_in_turn
from insitu.graph.graph import Graph, Node


@dataclass(frozen=True)
class Load:
    """One layer: seconds of arrays and vector unit, which copies share, and of the memory port, which they do not."""

    layer: str
    compute: float
    port: float
    positions: int  # the most copies that have something to do
    cells: int

    def seconds(self, copies: float = 1) -> float:
        """Time of the layer with so many copies; convex in them."""
        return max(self.port, self.compute / copies)


def load_of(graph: Graph, node: Node, places: Sequence[Placed], chip: Chip) -> Load:
    """What a layer asks of the cores that hold one copy of it."""
    shape = graph.type(node.output).sizes()
    sizes = (shape[0], *shape[2:]) if node.op == "Conv" else shape[:-1]
    return Load(
        node.name,
        prod(sizes) * _vector_time(places, chip) + _starts(graph, node, places, chip),
        _bytes(graph, node) / chip.memories["ram"].bandwidth,
        next((n for n in sizes if n > 1), 1),
        sum(p.rect.rows * p.rect.cols for p in places),
    )


def _vector_time(places: Sequence[Placed], chip: Chip) -> float:
    """Seconds for one position: the matrices of a core one after the other, cores side by side."""
    cores: dict[int, dict[int, list[Placed]]] = {}
    for p in places:
        cores.setdefault(p.core, {}).setdefault(p.rect.piece.index, []).append(p)
    return max(sum(_matrix_time(tiles, chip) for tiles in matrices.values()) for matrices in cores.values())


def _starts(graph: Graph, node: Node, places: Sequence[Placed], chip: Chip) -> float:
    """Seconds until the first vector of each command is in, and its last one out: a command for each row of windows."""
    kernel = prod(graph.type(node.inputs[1]).sizes()[2:]) if node.op == "Conv" else 1
    shape = graph.type(node.output).sizes()
    rows = prod((shape[0], *shape[2:-1])) if kernel > 1 else 1
    pieces = {p.rect.piece for p in places}
    moved = sum(p.rows + p.cols for p in pieces) / chip.memories["ram"].bandwidth
    return rows * (moved + 3 * len(pieces) / chip.chip.clock)


def _matrix_time(tiles: Sequence[Placed], chip: Chip) -> float:
    """Arrays and vector unit work as a pipeline: the longer of the two."""
    lanes = -(-sum(p.rect.cols for p in tiles) // chip.core.vector.lanes) / chip.chip.clock
    return max(most_in_turn(tiles) * chip.t_vector, lanes)


def _bytes(graph: Graph, node: Node) -> float:
    """Codes through the memory port: a row of a convolution's windows is read once for each row of outputs."""
    again = 1.0
    if node.op == "Conv":
        kernel = graph.type(node.inputs[1]).sizes()[2:]
        strides = tuple(node.attr("strides", (1,) * len(kernel)))
        again = max(1.0, kernel[0] / strides[0]) if kernel else 1.0
    return again * graph.type(node.inputs[0]).count() + graph.type(node.output).count()
