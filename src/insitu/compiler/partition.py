"""Partition: where the weights go when one chip cannot hold them all at once."""

from __future__ import annotations

from insitu.arch.spec import Chip
from insitu.base.errors import InfeasibleError
from insitu.compiler.mapping import Mapping
from insitu.compiler.place import place
from insitu.compiler.segment import place_reloaded
from insitu.graph.graph import Graph


def allot(graph: Graph, chip: Chip) -> Mapping:
    """Resident weights where they fit, else weights that take turns where the cell allows it, else InfeasibleError."""
    try:
        return place(graph, chip)
    except InfeasibleError:
        reloaded = place_reloaded(graph, chip) if chip.capabilities.wload else None
        if reloaded is None:
            raise
        return reloaded
