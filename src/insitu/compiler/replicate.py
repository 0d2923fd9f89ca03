"""Replicate: layers whose arrays are the bottleneck get copies on other cores, each of which serves some positions.

Copies go where they save most time for a cell (marginal gain).  A layer's time is convex in its copies, so filling the
same cells with fractions of copies in that order is the optimum of the relaxed problem: no choice of copies in these
cells is faster by this estimate, and the distance to it is reported.
"""

from __future__ import annotations

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from math import ceil
from typing import Any

from insitu.arch.spec import Chip
from insitu.compiler.estimate import Load, load_of
from insitu.compiler.mapping import Copy, Mapping, Placed
from insitu.compiler.place import Shelf, most_in_turn, place_copy
from insitu.compiler.tile import Rect, weight_nodes
from insitu.graph.graph import Graph

MOST_COPIES = 256  # of all layers together, so that programs stay small
LEAST_CYCLES = 64  # what a copy has to save: its commands and tokens take cycles of their own (our choice)


@dataclass(frozen=True)
class Choice:
    """Copies of each layer (1: none beside the first), the estimated seconds, and the least any copies could reach."""

    copies: Dict[str, int]
    seconds: float
    bound: float

    @property
    def gap(self) -> float:
        """How far the estimate is above the bound."""
        return max(0.0, self.seconds / self.bound - 1) if self.bound else 0.0


def replicate(graph: Graph, chip: Chip, mapping: Mapping, shelf: Shelf) -> Mapping:
    """The mapping with copies of layers in the cells that are left, and with facts about them."""
    loads = layer_loads(graph, chip, mapping)
    if not loads:
        return mapping
    found = {name: [mapping.layers[name]] for name in loads}
    free = sum(m.cells - m.used for core in shelf for m in core)
    bound = water_fill(list(loads.values()), free, most=chip.cores)
    total, waiting = 0, [_entry(load, 1) for load in loads.values() if _may_copy(mapping.layers[load.layer], chip)]
    heapify(waiting)
    while waiting and total < MOST_COPIES:
        gain, name = heappop(waiting)
        load, copies = loads[name], found[name]
        if -gain * load.cells <= LEAST_CYCLES / chip.chip.clock or len(copies) >= min(chip.cores, load.positions):
            continue
        copy = _one_more(name, copies, shelf)
        if copy is None:
            continue
        copies.append(copy)
        total += 1
        heappush(waiting, _entry(load, len(copies)))
    return _with_copies(mapping, loads, found, bound)


def layer_loads(graph: Graph, chip: Chip, mapping: Mapping) -> dict[str, Load]:
    """The load of each weight layer; none where sizes are bound at run time, or weights take turns."""
    several = mapping.chips > 1 or "segments" in mapping.facts
    if several or graph.symbols() or "ram" not in chip.memories:
        return {}
    return {n.name: load_of(graph, n, mapping.layers[n.name], chip) for n in weight_nodes(graph)}


def water_fill(loads: Sequence[Load], free: float, *, most: int) -> float:
    """The least sum of layer times with fractions of copies in `free` cells: the best gain for a cell first."""
    seconds = sum(load.seconds() for load in loads)
    steps = [
        ((load.seconds(n) - load.seconds(n + 1)) / load.cells, load.cells)
        for load in loads
        for n in range(1, min(most, load.positions, _useful(load)))
    ]
    for rate, cells in sorted(steps, reverse=True):
        if free <= 0:
            break
        seconds -= rate * min(cells, free)
        free -= cells
    return seconds


def _useful(load: Load) -> int:
    """Copies beyond which the memory port decides."""
    if load.compute >= load.port * load.positions:
        return load.positions
    return ceil(load.compute / load.port)


def _entry(load: Load, copies: int) -> tuple[float, str]:
    """What the next copy saves for a cell, the largest first."""
    return -(load.seconds(copies) - load.seconds(copies + 1)) / load.cells, load.layer


def _may_copy(places: Sequence[Placed], chip: Chip) -> bool:
    """Whether every block of columns lies whole on one core, and there are other cores."""
    cores: dict[tuple[int, int], set[int]] = {}
    for p in places:
        cores.setdefault((p.rect.piece.index, p.rect.col0), set()).add(p.core)
    return chip.cores > 1 and all(len(c) == 1 for c in cores.values())


def _one_more(layer: str, copies: Sequence[tuple[Placed, ...]], shelf: Shelf) -> tuple[Placed, ...] | None:
    """Places of one more copy, on cores that hold nothing of the layer; what shares a core still does."""
    first, held = copies[0], {p.core for copy in copies for p in copy}
    groups: dict[int, list[Rect]] = {}
    for p in first:
        groups.setdefault(p.core, []).append(p.rect)
    free = [core for core in shelf if core[0].core not in held]
    placed = place_copy(list(groups.values()), layer, free, most=most_in_turn(first))
    if placed is None:
        return None
    at = {core: iter(places) for core, places in zip(groups, placed, strict=True)}
    return tuple(next(at[p.core]) for p in first)


def _with_copies(
    mapping: Mapping, loads: Dict[str, Load], found: Dict[str, list[tuple[Placed, ...]]], bound: float
) -> Mapping:
    counts = {name: len(copies) for name, copies in found.items()}
    choice = Choice(counts, sum(load.seconds(counts[name]) for name, load in loads.items()), bound)
    copies = {
        name: tuple(Copy(places, 1 / len(all_)) for places in all_[1:]) for name, all_ in found.items() if len(all_) > 1
    }
    made = replace(mapping, copies=copies, facts={**mapping.facts, **_facts(choice)})
    return replace(made, cells_used=mapping.cells_used + made.copied_cells)


def _facts(choice: Choice) -> dict[str, Any]:
    return {
        "replicas": {name: n for name, n in choice.copies.items() if n > 1},
        "layers_s": choice.seconds,
        "layers_bound_s": choice.bound,
        "latency_gap": choice.gap,
    }


def without_copies(plain: Mapping, copied: Mapping, loads: Dict[str, Load]) -> Mapping:
    """The mapping without copies, measured by the same bound."""
    counts = dict.fromkeys(loads, 1)
    choice = Choice(counts, sum(load.seconds() for load in loads.values()), copied.facts["layers_bound_s"])
    return replace(plain, facts={**plain.facts, **_facts(choice)})


def mapping_of(copies: Dict[str, list[tuple[Placed, ...]]], chip: Chip, loads: Dict[str, Load]) -> Mapping:
    """The mapping of given copies, all on one core each; the first of each layer is its home."""
    first = {name: each[0] for name, each in copies.items()}
    used = sum(p.rect.rows * p.rect.cols for places in first.values() for p in places)
    plain = Mapping(first, used, chip.macros * chip.weight_rows * chip.array.cols)
    bound = water_fill(list(loads.values()), chip.capacity - used, most=chip.cores)
    return _with_copies(plain, loads, copies, bound)
