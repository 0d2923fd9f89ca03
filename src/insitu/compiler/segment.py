"""Reload: a network that is larger than the chip is cut into segments whose weights take turns in the macros.

Macros are two banks: while one computes, the other is loaded.  Segments are runs of items (the columns of a layer that
one array holds, all their rows), chosen so that as little loading as possible is not hidden behind compute; an item
too tall for a bank takes the whole chip, one too tall for that is cut by rows.
"""

from __future__ import annotations

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from insitu.arch.spec import Chip
from insitu.compiler.mapping import Mapping, Placed
from insitu.compiler.place import Macro, Shelf, empty_shelf, place_on, place_together
from insitu.compiler.tile import Rect, pieces, rectangles, rows_may_part, weight_nodes
from insitu.graph.graph import Graph, Node

MAX_ITEMS = 256  # of one segment, so that the search stays short


@dataclass(frozen=True)
class Item:
    """Rectangles that are computed together: one chunk of a layer's columns, or some of its rows."""

    layer: str
    rects: tuple[Rect, ...]
    apart: tuple[Rect, ...]  # the same rows cut so that they may lie on several cores; empty where they may not
    load: float  # seconds to bring its weights
    compute: float  # seconds its layer works, whole


@dataclass(frozen=True)
class Plan:
    """Segments as boundaries of the item list, with the seconds of loading that nothing hides."""

    bounds: tuple[int, ...]
    exposed: float
    load: float


def place_reloaded(graph: Graph, chip: Chip) -> Mapping | None:
    """Places by segment for every weight rectangle; none where an item does not fit the whole chip."""
    items = _items(graph, chip)
    banks = _banks(chip)
    reach = [_reach(items, i, banks, chip) for i in range(len(items))]
    if any(not placed for placed, _ in reach):
        return None
    plan = _cut(items, reach)
    layers: dict[str, list[Placed]] = {}
    for number, (a, b) in enumerate(pairwise(plan.bounds)):
        placed, wide = reach[a]
        for item, places in zip(items[a:b], placed, strict=False):
            layers.setdefault(item.layer, []).extend(
                replace(p, segment=number, **({} if wide or number % 2 == 0 else _other_bank(p, chip))) for p in places
            )
    used = max(sum(r.rows * r.cols for item in items[a:b] for r in item.rects) for a, b in pairwise(plan.bounds))
    facts = {"segments": len(plan.bounds) - 1, "load_s": plan.load, "exposed_load_s": plan.exposed}
    facts["cell_writes"] = _most_writes(layers)  # a run
    return Mapping({k: tuple(v) for k, v in layers.items()}, used, chip.capacity, facts=facts)


def _most_writes(layers: Dict[str, list[Placed]]) -> int:
    """How often a run writes the cells of the macro that is loaded most."""
    turns: dict[tuple[int, int], set[int]] = {}
    for places in layers.values():
        for p in places:
            turns.setdefault((p.core, p.macro), set()).add(p.segment)
    return max(len(segments) for segments in turns.values())


# items


def _items(graph: Graph, chip: Chip) -> list[Item]:
    most = max([int(n.attr("group", 1)) for n in weight_nodes(graph)], default=1)
    return [item for node in weight_nodes(graph) for item in _items_of(graph, node, chip, pack=most)]


def _items_of(graph: Graph, node: Node, chip: Chip, *, pack: int) -> list[Item]:
    """A layer's items in the order of their columns."""
    work, arrays = _layer_time(graph, node, chip), chip.macros * chip.macro.arrays
    most = max(1, arrays // 2)
    out: list[Item] = []
    for piece in pieces(graph, node, chip, pack=pack):
        apart = rectangles(graph, node, piece, chip, apart=True)
        chunks = _by_columns(rectangles(graph, node, piece, chip))
        split = _by_columns(apart) if rows_may_part(graph, node, apart) else {}
        for column, rects in sorted(chunks.items()):
            rows = split.get(column, ())
            if len(rects) <= arrays or not rows:
                out.append(Item(node.name, tuple(rects), tuple(rows), _load_time(rects, chip), work))
            else:  # taller than the chip: some rows at a time
                for i in range(0, len(rows), most):
                    some = tuple(rows[i : i + most])
                    out.append(Item(node.name, some, some, _load_time(some, chip), work))
    return out


def _by_columns(rects: Sequence[Rect]) -> dict[int, list[Rect]]:
    chunks: dict[int, list[Rect]] = {}
    for rect in rects:
        chunks.setdefault(rect.col0, []).append(rect)
    return chunks


def _load_time(rects: Sequence[Rect], chip: Chip) -> float:
    bits = sum(r.rows * r.cols for r in rects) * chip.macro.weights.slices * chip.array.bits_per_cell
    return bits / 8 / chip.store_bandwidth


def _layer_time(graph: Graph, node: Node, chip: Chip) -> float:
    """Seconds a layer works at least: its vectors through the arrays, or its values through the memory port."""
    shape = graph.type(node.output).shape
    sizes = [d for d in (shape[0], *shape[2:]) if isinstance(d, int)] if node.op == "Conv" else shape[:-1]
    vectors = int(np.prod([d for d in sizes if isinstance(d, int)], dtype=np.int64))
    values = sum(_count(graph, v) for v in (node.inputs[0], node.output))
    return max(vectors * chip.t_vector, values / chip.memories["ram"].bandwidth)


def _count(graph: Graph, value: str) -> int:
    return int(np.prod([d for d in graph.type(value).shape if isinstance(d, int)], dtype=np.int64))


# banks


def _banks(chip: Chip) -> tuple[Shelf, Shelf | None]:
    """(all macros, the first bank): banks are halves of each core, or every other core; none with a single macro."""
    whole = empty_shelf(chip)
    half = chip.core.macros // 2
    if half:
        return whole, [[m for m in core if m.macro < half] for core in whole]
    if chip.cores > 1:
        return whole, [core for core in whole if core[0].core % 2 == 0 and core[0].core + 1 < chip.cores]
    return whole, None


def _other_bank(place: Placed, chip: Chip) -> Dict[str, int]:
    half = chip.core.macros // 2
    return {"macro": place.macro + half} if half else {"core": place.core + 1}


def _reach(
    items: Sequence[Item], first: int, banks: tuple[Shelf, Shelf | None], chip: Chip
) -> tuple[list[tuple[Placed, ...]], bool]:
    """(places of as many items from `first` on as one bank holds, whether they need the whole chip instead)."""
    whole, bank = banks
    for shelf, wide in ((bank, False), (whole, True)):
        if shelf is None:
            continue
        free = [[Macro.empty(m.core, m.macro, chip) for m in core] for core in shelf]
        placed: list[tuple[Placed, ...]] = []
        for item in items[first : first + MAX_ITEMS]:
            found = place_together(item.rects, item.layer, free)
            if found is None and item.apart:
                found = place_on(item.apart, item.layer, [m for core in free for m in core])
            if found is None:
                break
            placed.append(found)
        if placed:
            return placed, wide
    return [], False


# the cut


def _cut(items: Sequence[Item], reach: Sequence[tuple[list[tuple[Placed, ...]], bool]]) -> Plan:
    """Boundaries with the least exposed loading; among equals, the longest segments first.

    A segment loads while the one before it computes.  One that takes the whole chip, and the one after it, cannot.
    """
    n = len(items)
    load = np.concatenate([[0.0], np.cumsum([item.load for item in items])])
    costs: list[dict[int, tuple[float, int]]] = [{} for _ in range(n + 1)]  # end -> start -> (cost, start before)
    for start in range(n):
        before = costs[start]
        ends = np.arange(start + 1, start + len(reach[start][0]) + 1)
        loads = load[ends] - load[start]
        if start == 0:
            best, origin = loads, np.full(len(ends), -1)
        else:
            origins = np.array(sorted(before))
            hidden = np.array([0.0 if reach[h][1] or reach[start][1] else _compute(items[h:start]) for h in origins])
            total = np.array([before[h][0] for h in origins])[:, None]
            total = total + np.maximum(0.0, loads[None, :] - hidden[:, None])
            pick = total.argmin(axis=0)
            best, origin = total[pick, np.arange(len(ends))], origins[pick]
        for end, cost, h in zip(ends.tolist(), best.tolist(), origin.tolist(), strict=True):
            costs[end][start] = (cost, h)
    return _traced(costs, n, float(load[-1]))


def _traced(costs: list[dict[int, tuple[float, int]]], n: int, load: float) -> Plan:
    start = min(costs[n], key=lambda h: (costs[n][h][0], h))
    exposed, end, bounds = costs[n][start][0], n, [n]
    while start >= 0:
        bounds.append(start)
        start, end = costs[end][start][1], start
    return Plan(tuple(reversed(bounds)), exposed, load)


def _compute(items: Sequence[Item]) -> float:
    """Seconds a segment works: each of its layers once."""
    return sum({item.layer: item.compute for item in items}.values())
