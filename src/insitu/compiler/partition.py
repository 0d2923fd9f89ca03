"""Partition: where the weights go when one chip cannot hold them all at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from typing import Literal

from insitu.arch.spec import Chip
from insitu.base.errors import Infeasible, InfeasibleError
from insitu.compiler.banks import place_in_banks
from insitu.compiler.mapping import Mapping
from insitu.compiler.multichip import column_step, layer_cells, spread
from insitu.compiler.place import Shelf, place, place_on_shelf
from insitu.compiler.replicate import layer_loads, replicate, without_copies
from insitu.compiler.search import pack, searched
from insitu.compiler.segment import place_reloaded
from insitu.compiler.stages import in_stages, vector_seconds
from insitu.compiler.stored import reserve
from insitu.compiler.tile import pieces, rectangles, rows_may_part, usable_columns, weight_nodes
from insitu.graph.graph import Graph

Objective = Literal["latency", "throughput", "cells"]
OBJECTIVES: tuple[Objective, ...] = ("latency", "throughput", "cells")  # cells: nothing is held more than once
LIFETIME_RUNS = 1e9  # a chip that reloads must last this long: 10 years of 3 inferences a second (our assumption)
SEARCH = 4  # times the least number of chips, when looking for how many would do


def allot(
    graph: Graph, chip: Chip, *, max_chips: int = 1, objective: Objective = "latency", search: float = 0.0
) -> tuple[Graph, Mapping]:
    """The graph as it is placed, and its places: the first of `allotments`."""
    return next(allotments(graph, chip, max_chips=max_chips, objective=objective, search=search))


def allotments(
    graph: Graph, chip: Chip, *, max_chips: int = 1, objective: Objective = "latency", search: float = 0.0
) -> Iterator[tuple[Graph, Mapping]]:
    """Graphs as they are placed, with their places, the best by estimate first; at least one.

    Resident weights on one chip where they fit, else on as few chips as `max_chips` allows, else weights that take
    turns on one chip where its cells allow that; else InfeasibleError with resource, demand and bound.  `search`
    seconds are spent on better places (compiler/search.py).
    """
    if chip.capabilities.gemv:
        yield graph, place_in_banks(graph, chip)
        return
    try:
        found = _resident(graph, chip, objective, search)
    except InfeasibleError as error:
        yield _larger(graph, chip, error, max_chips)
    else:
        yield from ((graph, mapping) for mapping in found)


def _larger(graph: Graph, chip: Chip, error: InfeasibleError, max_chips: int) -> tuple[Graph, Mapping]:
    """Places of a network that one chip does not hold at once."""
    several = spread(graph, chip, most=max_chips) if max_chips > 1 else None
    if several is not None:
        return several
    reloaded = place_reloaded(graph, chip) if chip.capabilities.wload else None
    if reloaded is None:
        raise InfeasibleError([_shortage(graph, chip, error.items[0], max_chips)], chip.name) from None
    _check_endurance(chip, reloaded, max_chips)
    return graph, reloaded


def _resident(graph: Graph, chip: Chip, objective: Objective, search: float) -> list[Mapping]:
    """All weights at once on one chip, as the objective wants them, the best by estimate first."""
    plain, shelf = _placed(graph, chip, search)
    loads = layer_loads(graph, chip, plain)
    if objective == "cells" or not loads:
        return [plain]
    reserve(graph, chip, shelf)
    copied = replicate(graph, chip, plain, shelf)
    ways = [copied]
    if objective == "throughput":
        staged = in_stages(graph, chip, loads)
        later = copied.facts["layers_s"] + vector_seconds(graph, chip)
        ways = [copied] if staged is None else [staged, copied] if staged.facts["stage_s"] < later else [copied, staged]
    elif copied.copies:
        ways.append(without_copies(plain, copied, loads))
    return ways if search <= 0 else searched(graph, chip, loads, ways, seconds=search)


def _placed(graph: Graph, chip: Chip, search: float) -> tuple[Mapping, Shelf]:
    """Places as the packer finds them; where it finds none and there is time to search, as the solver does."""
    try:
        return place_on_shelf(graph, chip)
    except InfeasibleError:
        packed = pack(graph, chip, seconds=search) if search > 0 else None
        if packed is None:
            raise
        return packed


def _check_endurance(chip: Chip, mapping: Mapping, max_chips: int) -> None:
    """InfeasibleError where cells wear out before LIFETIME_RUNS runs."""
    writes, endurance = float(mapping.facts["cell_writes"]) * LIFETIME_RUNS, chip.cell.endurance
    if endurance is not None and writes > endurance:
        ways = (
            f"hold more weights at once: more chips than {max_chips} (--max-chips), or a chip with more cells",
            "a cell that endures more writes",
            "use a smaller network or prune its largest layers",
        )
        item = Infeasible("write cycles of a cell", writes, endurance, "writes", ("weights that take turns",), ways)
        raise InfeasibleError([item], chip.name)


def _shortage(graph: Graph, chip: Chip, item: Infeasible, max_chips: int) -> Infeasible:
    """What is short: a layer that no chip holds, or chips, with the number that would do."""
    cells = layer_cells(graph, chip)
    alone = next((n.name for n in weight_nodes(graph) if not _fits_alone(graph, chip, n.name)), "")
    if alone:
        need, room = float(cells[alone]), float(chip.capacity)
        resource = "cells of one chip" if need > room else "array space of one chip"
        return Infeasible(resource, need, room, "cells", (alone,), item.ways_out)
    least = max(max_chips + 1, ceil(sum(cells.values()) / chip.capacity))
    found = spread(graph, chip, most=SEARCH * least)
    if found is None:
        return item
    way = f"spread it over several chips: --max-chips {found[1].chips}"
    ways = (way, *item.ways_out)
    if max_chips == 1:
        return replace(item, ways_out=ways)
    return Infeasible("chips", float(found[1].chips), float(max_chips), "chips", item.filled_by, ways)


def _fits_alone(graph: Graph, chip: Chip, name: str) -> bool:
    """Whether a layer fits an empty chip, or its columns do some at a time."""
    node = next(n for n in graph.nodes if n.name == name)
    if int(node.attr("group", 1)) == 1:
        [piece] = pieces(graph, node, chip, pack=1)
        rects = [r for r in rectangles(graph, node, piece, chip) if r.col0 == 0]
        cores = chip.cores if rows_may_part(graph, node, rectangles(graph, node, piece, chip, apart=True)) else 1
        beside = usable_columns(chip) // column_step(chip)
        return len(rects) <= cores * chip.core.macros * chip.macro.arrays * beside
    try:
        place(graph, chip, nodes=[node])
    except InfeasibleError:
        return False
    return True
