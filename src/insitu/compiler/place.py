"""Place weight rectangles on arrays: maximal free rectangles, best short side; bias rows disjoint per column.

Deterministic.  A layer stays on one core where one has room (the least filled first), else its columns spread over
several; rows do only where that is not enough, since then sums travel between cores.
Grouped layers are packed as many groups to a block as fit; when the network does not fit so, fewer are tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.errors import Infeasible, InfeasibleError
from insitu.compiler.mapping import Mapping, Placed
from insitu.compiler.tile import Piece, Rect, owners, pieces, rectangles, rows_may_part, usable_columns, weight_nodes
from insitu.graph.graph import Graph, Node

Free = tuple[int, int, int, int]  # x, y, width, height


@dataclass
class Macro:
    """One macro while it fills: free rectangles per region, bias rows taken per column, cells in use."""

    core: int
    macro: int
    cells: int
    free: list[Free]
    bias: npt.NDArray[np.bool_]
    used: int = 0
    layers: dict[str, int] = field(default_factory=dict[str, int])  # rectangles of each
    rows: int = 0  # of one of its arrays

    @classmethod
    def empty(cls, core: int, macro: int, chip: Chip) -> Macro:
        """A macro that holds nothing."""
        x, width, rows = chip.macro.reserved_columns, usable_columns(chip), chip.array.rows
        regions = [(x, r * rows, width, rows) for r in range(chip.macro.arrays)]
        bias = np.zeros((chip.macro.bias_rows, chip.array.cols), bool)
        return cls(core, macro, width * rows * chip.macro.arrays, regions, bias, rows=rows)


Shelf = list[list[Macro]]  # by core


def place(graph: Graph, chip: Chip, *, nodes: Sequence[Node] | None = None) -> Mapping:
    """A legal place for every weight rectangle; InfeasibleError with resource, demand and bound where there is none.

    `nodes` are the weight layers to place; all of the graph without it.
    """
    return place_on_shelf(graph, chip, nodes=nodes)[0]


def place_on_shelf(graph: Graph, chip: Chip, *, nodes: Sequence[Node] | None = None) -> tuple[Mapping, Shelf]:
    """`place`, and the macros as they are filled then."""
    nodes = weight_nodes(graph) if nodes is None else list(nodes)
    every, owner, nodes = nodes, *_once(graph, nodes)
    failed = ""
    for order, pack, cuts in _attempts(graph, chip, nodes):
        shelf = empty_shelf(chip)
        layers: dict[str, tuple[Placed, ...]] = {}
        for node in order:
            placed = _place_layer(graph, node, pieces(graph, node, chip, pack=pack), shelf, chip, cuts=cuts)
            if placed is None:
                failed = failed or node.name
                break
            layers[node.name] = placed
        else:
            used = sum(m.used for core in shelf for m in core)
            cells = chip.macros * chip.macro.arrays * chip.array.rows * chip.array.cols
            return Mapping({n.name: layers[owner[n.name]] for n in every}, used, cells), shelf
    raise InfeasibleError(shortage(graph, chip, nodes, failed), chip.name)


def _once(graph: Graph, nodes: Sequence[Node]) -> tuple[dict[str, str], list[Node]]:
    """(layer: the one among `nodes` that is placed for it, those): steps that share their weights are placed once."""
    first, owner = dict[str, str](), dict[str, str]()
    shared = owners(graph)
    for node in nodes:
        owner[node.name] = first.setdefault(shared[node.name], node.name)
    return owner, [n for n in nodes if owner[n.name] == n.name]


def _attempts(graph: Graph, chip: Chip, nodes: Sequence[Node]) -> Iterator[tuple[Sequence[Node], int, int]]:
    """(order of the layers, groups in a block, cuts of the columns) to try one after the other.

    Where the cells are enough but the network's own order leaves no room, the largest layers go first, then in pieces.
    """
    packs = packings(nodes)
    yield from ((nodes, pack, 1) for pack in packs)
    sizes = {n.name: _cells(graph, n, chip) for n in nodes}
    if sum(sizes.values()) <= chip.macros * chip.macro.arrays * chip.array.rows * usable_columns(chip):
        larger = sorted(nodes, key=lambda n: -sizes[n.name])
        yield from ((larger, packs[-1], cuts) for cuts in (1, 2, 3, 4, 8))


def _cells(graph: Graph, node: Node, chip: Chip) -> int:
    return sum(p.rows * p.cols for p in pieces(graph, node, chip, pack=1))


def packings(nodes: Sequence[Node]) -> list[int]:
    """How many groups of a layer to put into one block: as many as there are, then fewer."""
    most = max([int(n.attr("group", 1)) for n in nodes], default=1)
    return sorted({max(1, most >> k) for k in range(most.bit_length())}, reverse=True)


def empty_shelf(chip: Chip) -> Shelf:
    """All macros of a chip, by core."""
    return [[Macro.empty(core, m, chip) for m in range(chip.core.macros)] for core in range(chip.cores)]


def _place_layer(
    graph: Graph, node: Node, cut: list[Piece], shelf: Shelf, chip: Chip, *, cuts: int = 1
) -> tuple[Placed, ...] | None:
    """Places of all rectangles of a layer: on one core, else columns apart, else rows apart where sums can join."""
    rects = [r for p in cut for r in rectangles(graph, node, p, chip, cuts=cuts)]
    placed = place_together(rects, node.name, shelf)
    if placed is not None or chip.cores == 1:
        return placed
    columns: dict[tuple[int, int], list[Rect]] = {}
    for rect in rects:
        columns.setdefault((rect.piece.index, rect.col0), []).append(rect)
    placed = _place_each(list(columns.values()), node.name, shelf)
    if placed is not None:
        return placed
    apart = [r for p in cut for r in rectangles(graph, node, p, chip, apart=True)]
    everywhere = [m for core in shelf for m in core]
    for rows in (apart, rects):  # cut between channels where there is room for that: fewer commands
        placed = place_on(rows, node.name, everywhere) if rows_may_part(graph, node, rows) else None
        if placed is not None:
            return placed
    return None


def place_together(rects: Sequence[Rect], layer: str, shelf: Shelf) -> tuple[Placed, ...] | None:
    """Places on one core, the least filled that has room."""
    need = sum(r.rows * r.cols for r in rects)
    fill = [(sum(m.used for m in core), core[0].core, core) for core in shelf]
    for used, _, core in sorted(fill, key=lambda f: f[:2]):
        if used + need > sum(m.cells for m in core):
            return None  # the others are fuller
        placed = place_on(rects, layer, core)
        if placed is not None:
            return placed
    return None


def _place_each(groups: list[list[Rect]], layer: str, shelf: Shelf) -> tuple[Placed, ...] | None:
    """Places of groups of rectangles, each group on one core; on failure nothing has changed."""
    everywhere = [m for core in shelf for m in core]
    saved = _saved(everywhere)
    placed: list[Placed] = []
    for group in groups:
        found = place_together(group, layer, shelf)
        if found is None:
            _restore(everywhere, saved)
            return None
        placed += found
    return tuple(placed)


def place_copy(
    groups: Sequence[Sequence[Rect]], layer: str, shelf: Shelf, *, most: int
) -> list[tuple[Placed, ...]] | None:
    """Places of groups of rectangles, each on a core of its own, at most `most` to a macro; nothing changes if none."""
    everywhere = [m for core in shelf for m in core]
    saved = _saved(everywhere)
    placed: list[tuple[Placed, ...]] = []
    for group in groups:
        taken = {p.core for places in placed for p in places}
        found = place_together(group, layer, [core for core in shelf if core[0].core not in taken])
        if found is None or most_in_turn(found) > most:
            _restore(everywhere, saved)
            return None
        placed.append(found)
    return placed


def most_in_turn(places: Sequence[Placed]) -> int:
    """The most rectangles of these that one macro holds: it reads them one after the other."""
    return max(Counter((p.core, p.macro) for p in places).values(), default=0)


_Saved = list[tuple[list[Free], npt.NDArray[np.bool_], int, dict[str, int]]]


def _saved(macros: Sequence[Macro]) -> _Saved:
    return [(list(m.free), m.bias.copy() if m.bias.size else m.bias, m.used, dict(m.layers)) for m in macros]


def _restore(macros: Sequence[Macro], saved: _Saved) -> None:
    for macro, (free, bias, used, layers) in zip(macros, saved, strict=True):
        macro.free, macro.bias, macro.used, macro.layers = free, bias, used, layers


def place_on(rects: Sequence[Rect], layer: str, macros: Sequence[Macro]) -> tuple[Placed, ...] | None:
    """Places on these macros only; on failure nothing has changed."""
    if sum(r.rows * r.cols for r in rects) > sum(m.cells - m.used for m in macros):
        return None
    saved = _saved(macros)
    placed: dict[int, Placed] = {}
    for index in sorted(range(len(rects)), key=lambda i: (-rects[i].rows * rects[i].cols, i)):
        spot = _best_spot(rects[index], layer, macros)
        if spot is None:
            _restore(macros, saved)
            return None
        macro, x, y, bias0 = spot
        _take(macro, rects[index], x, y, bias0, layer)
        placed[index] = Placed(rects[index], macro.core, macro.macro, x, y, bias0)
    return tuple(placed[i] for i in range(len(rects)))


def _best_spot(rect: Rect, layer: str, macros: Sequence[Macro]) -> tuple[Macro, int, int, int] | None:
    """The first legal spot in order of: macros this layer uses least, emptier macros, tightest short side."""
    need = rect.rows * rect.cols
    roomy = [m for m in macros if m.used + need <= m.cells]
    roomy.sort(key=lambda m: (m.layers.get(layer, 0), m.used, m.core, m.macro))
    for macro in roomy:
        fits = [f for f in macro.free if f[2] >= rect.cols and f[3] >= rect.rows]
        fits = fits if rect.region is None else [f for f in fits if f[1] // macro.rows == rect.region]
        fits.sort(key=lambda f: (min(f[2] - rect.cols, f[3] - rect.rows), f[1], f[0]))
        for x0, y0, width, _ in fits:
            for x in dict.fromkeys((x0, x0 + width - rect.cols)):
                bias0 = _free_bias(macro.bias[:, x : x + rect.cols], rect.bias_rows)
                if bias0 is not None:
                    return macro, x, y0, bias0
    return None


def _free_bias(taken: npt.NDArray[np.bool_], need: int) -> int | None:
    """First bias row of `need` consecutive ones that are free in all these columns."""
    if need == 0:
        return 0
    free = np.flatnonzero(~taken.any(axis=1)).tolist()
    return next((b for b in free if all(b + k in free for k in range(need))), None)


def _take(macro: Macro, rect: Rect, x: int, y: int, bias0: int, layer: str) -> None:
    """Mark a spot as used and cut it out of the free rectangles."""
    if rect.bias_rows:
        macro.bias[bias0 : bias0 + rect.bias_rows, x : x + rect.cols] = True
    macro.used += rect.rows * rect.cols
    macro.layers[layer] = macro.layers.get(layer, 0) + 1
    macro.free = _cut(macro.free, (x, y, rect.cols, rect.rows))


def _cut(free: list[Free], hole: Free) -> list[Free]:
    """Maximal free rectangles after taking `hole` away."""
    hx, hy, hw, hh = hole
    out: list[Free] = []
    for x, y, w, h in free:
        if hx >= x + w or hx + hw <= x or hy >= y + h or hy + hh <= y:
            out.append((x, y, w, h))
            continue
        out += [(x, y, hx - x, h)] if hx > x else []
        out += [(hx + hw, y, x + w - hx - hw, h)] if hx + hw < x + w else []
        out += [(x, y, w, hy - y)] if hy > y else []
        out += [(x, hy + hh, w, y + h - hy - hh)] if hy + hh < y + h else []
    unique = list(dict.fromkeys(out))
    return [a for a in unique if not any(a != b and _inside(a, b) for b in unique)]


def _inside(a: Free, b: Free) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a[0] + a[2] <= b[0] + b[2] and a[1] + a[3] <= b[1] + b[3]


def shortage(graph: Graph, chip: Chip, nodes: Sequence[Node], failed: str) -> list[Infeasible]:
    """What ran out: cells, bias rows, or room of the right shape."""
    sizes: dict[str, int] = {}
    bias = 0
    for node in nodes:
        rects = [r for p in pieces(graph, node, chip, pack=1) for r in rectangles(graph, node, p, chip)]
        sizes[node.name] = sum(r.rows * r.cols for r in rects)
        bias += sum(r.bias_rows * r.cols for r in rects)
    cells = chip.macros * chip.macro.arrays * chip.array.rows * usable_columns(chip)
    biggest = tuple(sorted(sizes, key=lambda n: (-sizes[n], n))[:5])
    ways = (
        "choose a chip with more cells (`insitu chips` lists them)",
        "use a smaller network or prune its largest layers",
        f"copy the chip file and enlarge it: insitu chips --copy {chip.name} my.yaml",
    )
    if sum(sizes.values()) > cells:
        return [Infeasible("cells", float(sum(sizes.values())), float(cells), "cells", biggest, ways)]
    bias_bound = chip.macros * chip.macro.bias_rows * usable_columns(chip)
    if bias > bias_bound:
        return [Infeasible("bias rows", float(bias), float(bias_bound), "bias cells", biggest, ways)]
    reserved = chip.macro.reserved_columns
    beside = f" beside {reserved} reserved columns" if reserved and _fits_unreserved(graph, chip, nodes) else ""
    if beside:
        ways = ("use the reserved columns, with which it fits: --set macro.reserved_columns=0", *ways)
    return [
        Infeasible(
            f"array space in one rectangle{beside}",
            float(sizes[failed]),
            float(cells - sum(sizes.values()) + sizes[failed]),
            "cells",
            tuple(dict.fromkeys((failed, *biggest))),
            ways,
        )
    ]


def _fits_unreserved(graph: Graph, chip: Chip, nodes: Sequence[Node]) -> bool:
    """Whether the layers would fit if no column were reserved."""
    macro = chip.macro.model_copy(update={"reserved_columns": 0})
    try:
        place(graph, chip.model_copy(update={"macro": macro}), nodes=nodes)
    except InfeasibleError:
        return False
    return True
