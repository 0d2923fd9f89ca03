"""Place weight rectangles on arrays: maximal free rectangles, best short side; bias rows disjoint per column.

Deterministic.  A layer stays on one core where one has room (the least filled first), else its columns spread over
several; rows do only where that is not enough, since then sums travel between cores.
Grouped layers are packed as many groups to a block as fit; when the network does not fit so, fewer are tried.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.errors import Infeasible, InfeasibleError
from insitu.compiler.mapping import Mapping, Placed
from insitu.compiler.tile import Piece, Rect, pieces, rectangles, rows_may_part, usable_columns, weight_nodes
from insitu.graph.graph import Graph, Node

Free = tuple[int, int, int, int]  # x, y, width, height


@dataclass
class _Array:
    """One macro while it fills: free rectangles per region, bias rows taken per column, cells in use."""

    core: int
    macro: int
    free: list[Free]
    bias: npt.NDArray[np.bool_]
    used: int = 0
    layers: list[str] = field(default_factory=list[str])


def place(graph: Graph, chip: Chip) -> Mapping:
    """A legal place for every weight rectangle; InfeasibleError with resource, demand and bound where there is none."""
    nodes = weight_nodes(graph)
    most = max([int(n.attr("group", 1)) for n in nodes], default=1)
    packs = sorted({max(1, most >> k) for k in range(most.bit_length())}, reverse=True)
    failed = ""
    for pack in packs:
        arrays = _empty(chip)
        layers: dict[str, tuple[Placed, ...]] = {}
        for node in nodes:
            placed = _place_layer(graph, node, pieces(graph, node, chip, pack=pack), arrays, chip)
            if placed is None:
                failed = node.name
                break
            layers[node.name] = placed
        else:
            return Mapping(
                layers, sum(a.used for a in arrays), chip.macros * chip.macro.arrays * chip.array.rows * chip.array.cols
            )
    raise InfeasibleError(_why(graph, chip, nodes, failed), chip.name)


def _empty(chip: Chip) -> list[_Array]:
    x, width, rows = chip.macro.reserved_columns, usable_columns(chip), chip.array.rows
    regions = [(x, r * rows, width, rows) for r in range(chip.macro.arrays)]
    return [
        _Array(core, macro, list(regions), np.zeros((chip.macro.bias_rows, chip.array.cols), bool))
        for core in range(chip.cores)
        for macro in range(chip.core.macros)
    ]


def _place_layer(
    graph: Graph, node: Node, cut: list[Piece], arrays: list[_Array], chip: Chip
) -> tuple[Placed, ...] | None:
    """Places of all rectangles of a layer: on one core, else columns apart, else rows apart where sums can join."""
    rects = [r for p in cut for r in rectangles(graph, node, p, chip)]
    cores = [[a for a in arrays if a.core == c] for c in range(chip.cores)]
    placed = _place_together(rects, node.name, cores)
    if placed is not None or chip.cores == 1:
        return placed
    columns: dict[tuple[int, int], list[Rect]] = {}
    for rect in rects:
        columns.setdefault((rect.piece.index, rect.col0), []).append(rect)
    placed = _place_each(list(columns.values()), node.name, cores)
    if placed is not None:
        return placed
    apart = [r for p in cut for r in rectangles(graph, node, p, chip, apart=True)]
    return _place_on(apart, node.name, arrays) if rows_may_part(graph, node, apart) else None


def _place_together(rects: list[Rect], layer: str, cores: list[list[_Array]]) -> tuple[Placed, ...] | None:
    """Places on one core, the least filled that has room."""
    for group in sorted(cores, key=lambda g: (sum(a.used for a in g), g[0].core)):
        placed = _place_on(rects, layer, group)
        if placed is not None:
            return placed
    return None


def _place_each(groups: list[list[Rect]], layer: str, cores: list[list[_Array]]) -> tuple[Placed, ...] | None:
    """Places of groups of rectangles, each group on one core; on failure nothing has changed."""
    everywhere = [a for group in cores for a in group]
    saved = _saved(everywhere)
    placed: list[Placed] = []
    for group in groups:
        found = _place_together(group, layer, cores)
        if found is None:
            _restore(everywhere, saved)
            return None
        placed += found
    return tuple(placed)


_Saved = list[tuple[list[Free], npt.NDArray[np.bool_], int, list[str]]]


def _saved(arrays: list[_Array]) -> _Saved:
    return [(list(a.free), a.bias.copy(), a.used, list(a.layers)) for a in arrays]


def _restore(arrays: list[_Array], saved: _Saved) -> None:
    for array, (free, bias, used, layers) in zip(arrays, saved, strict=True):
        array.free, array.bias, array.used, array.layers = free, bias, used, layers


def _place_on(rects: list[Rect], layer: str, arrays: list[_Array]) -> tuple[Placed, ...] | None:
    """Places on these arrays only; on failure nothing has changed."""
    saved = _saved(arrays)
    placed: dict[int, Placed] = {}
    for index in sorted(range(len(rects)), key=lambda i: (-rects[i].rows * rects[i].cols, i)):
        spot = _best_spot(rects[index], layer, arrays)
        if spot is None:
            _restore(arrays, saved)
            return None
        array, x, y, bias0 = spot
        _take(array, rects[index], x, y, bias0, layer)
        placed[index] = Placed(rects[index], array.core, array.macro, x, y, bias0)
    return tuple(placed[i] for i in range(len(rects)))


def _best_spot(rect: Rect, layer: str, arrays: list[_Array]) -> tuple[_Array, int, int, int] | None:
    """The first legal spot in order of: macros this layer does not use yet, emptier macros, tightest short side."""
    for array in sorted(arrays, key=lambda a: (a.layers.count(layer), a.used, a.core, a.macro)):
        fits = [f for f in array.free if f[2] >= rect.cols and f[3] >= rect.rows]
        fits.sort(key=lambda f: (min(f[2] - rect.cols, f[3] - rect.rows), f[1], f[0]))
        for x0, y0, width, height in fits:
            for x in dict.fromkeys((x0, x0 + width - rect.cols)):
                bias0 = _free_bias(array.bias[:, x : x + rect.cols], rect.bias_rows)
                if bias0 is not None:
                    del height
                    return array, x, y0, bias0
    return None


def _free_bias(taken: npt.NDArray[np.bool_], need: int) -> int | None:
    """First bias row of `need` consecutive ones that are free in all these columns."""
    if need == 0:
        return 0
    free = np.flatnonzero(~taken.any(axis=1)).tolist()
    return next((b for b in free if all(b + k in free for k in range(need))), None)


def _take(array: _Array, rect: Rect, x: int, y: int, bias0: int, layer: str) -> None:
    """Mark a spot as used and cut it out of the free rectangles."""
    array.bias[bias0 : bias0 + rect.bias_rows, x : x + rect.cols] = True
    array.used += rect.rows * rect.cols
    array.layers.append(layer)
    array.free = _cut(array.free, (x, y, rect.cols, rect.rows))


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


def _why(graph: Graph, chip: Chip, nodes: list[Node], failed: str) -> list[Infeasible]:
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
    return [
        Infeasible(
            "array space in one rectangle",
            float(sizes[failed]),
            float(cells - sum(sizes.values()) + sizes[failed]),
            "cells",
            tuple(dict.fromkeys((failed, *biggest))),
            ways,
        )
    ]
