"""Rows that layers leave empty in their arrays, filled with copies of them: errors of cells average, no array more.

Sums and converter steps grow alike, so that ideal codes stay what they are; rows driven, cells and the time to program
them are what it costs.
"""

from __future__ import annotations

from dataclasses import replace

from insitu.arch.spec import Chip
from insitu.compiler.plan import QuantPlan
from insitu.compiler.precision import MOST_COPIES, MOST_ROWS_AXES
from insitu.compiler.precision_layer import MOST_SHIFT
from insitu.compiler.tile import owners, pieces, rectangles, weight_nodes
from insitu.graph.graph import Graph, Node


def filled(graph: Graph, chip: Chip, plan: QuantPlan) -> QuantPlan:
    """The plan of a canonical graph with the copies that `copies_that_fit` names, where the chip asks for them."""
    if not chip.calibration.spare_rows:
        return plan
    layers = dict(plan.layers)
    for name, copies in copies_that_fit(graph, chip).items():
        layer = layers.get(name)
        if layer is not None and layer.adc[1] + copies.bit_length() - 1 <= MOST_SHIFT:  # the step grows with them
            layers[name] = replace(layer, precision=replace(layer.precision, copies=copies))
    return replace(plan, layers=layers)


def copies_that_fit(graph: Graph, chip: Chip) -> dict[str, int]:
    """How often the arrays that each weight layer takes anyway hold its rows: a power of two, 1 where there is no room.

    None has room where there are so few arrays that layers may have to share them.
    """
    first, nodes = owners(graph), weight_nodes(graph)
    arrays = sum(len(_rows(graph, n, chip)) for n in nodes if first[n.name] == n.name)
    room = arrays <= chip.macros * chip.macro.arrays
    return {n.name: _copies(graph, n, chip) if room else 1 for n in nodes}


def _rows(graph: Graph, node: Node, chip: Chip) -> list[int]:
    """Rows of each array that a layer takes, its groups packed as densely as they go."""
    found = pieces(graph, node, chip, pack=chip.array.rows)
    return [r.rows for p in found for r in rectangles(graph, node, p, chip)]


def _copies(graph: Graph, node: Node, chip: Chip) -> int:
    """Copies that fit beside a layer; 1 where it is read in row parts."""
    if node.op == "Conv" and graph.constants[node.inputs[1]].ndim - 1 >= MOST_ROWS_AXES:
        return 1  # rows of a command have four axes, one of which counts copies
    taken = max(_rows(graph, node, chip), default=chip.array.rows)
    if taken < pieces(graph, node, chip, pack=chip.array.rows)[0].rows:
        return 1
    most = min(MOST_COPIES, chip.array.rows // taken)
    return 1 << (most.bit_length() - 1)
