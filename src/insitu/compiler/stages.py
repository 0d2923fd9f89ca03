"""Stages: for throughput the network is a line of work that is cut into one stretch for each core.

While a core works on one inference, the core before it already works on the next one.  A cut may fall inside a layer:
then both cores hold it and share its positions.  The shortest stretch for which everything still finds a place is found
by bisection; no cut is shorter than the whole work over the number of cores.
"""

from __future__ import annotations

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from insitu.arch.spec import Chip
from insitu.compiler.estimate import Load
from insitu.compiler.mapping import Copy, Mapping, Placed
from insitu.compiler.place import Shelf, empty_shelf, packings, place_on
from insitu.compiler.tile import Rect, pieces, rectangles, weight_nodes
from insitu.graph.graph import Graph, Node
from insitu.graph.types import HOST

STEPS = 12  # of the bisection: the stretch is within 1/4096 of the shortest
LEAST_SHARE = 0.05  # of a layer that is worth a copy


Parts = dict[str, list[tuple[tuple[Placed, ...], float]]]  # layer: places and share on each of its cores, in order


@dataclass(frozen=True)
class Work:
    """A layer on the line: seconds that positions share, seconds of what follows it on its core, its rectangles."""

    layer: str
    shared: float
    tail: float
    positions: int
    rects: tuple[Rect, ...]


@dataclass
class _Line:
    """One try: what each layer has been given so far."""

    shelf: Shelf
    found: Parts = field(default_factory=dict[str, list[tuple[tuple[Placed, ...], float]]])


def in_stages(graph: Graph, chip: Chip, loads: Dict[str, Load]) -> Mapping | None:
    """Places of all layers in stages; none where a layer is larger than a core, or there is one core."""
    line = work_line(graph, chip, loads)
    if chip.cores < 2 or not line:
        return None
    total = sum(w.shared + w.tail for w in line)
    low, high = total / chip.cores, total
    best = _laid(line, chip, high)
    if best is None:
        return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        tried = _laid(line, chip, middle)
        low, high, best = (middle, high, best) if tried is None else (low, middle, tried)
    return stage_mapping(best.found, line, chip)


def work_line(graph: Graph, chip: Chip, loads: Dict[str, Load]) -> list[Work]:
    """The weight layers in order, each with the vector work that runs on its core."""
    tails = _tails(graph, chip)
    pack = packings(weight_nodes(graph))[0] if loads else 1
    out: list[Work] = []
    for node in weight_nodes(graph):
        load = loads[node.name]
        rects = tuple(r for p in pieces(graph, node, chip, pack=pack) for r in rectangles(graph, node, p, chip))
        shared = max(load.compute, load.port)
        out.append(Work(node.name, shared, tails.get(node.name, 0.0), load.positions, rects))
    return out


def _tails(graph: Graph, chip: Chip) -> dict[str, float]:
    """Seconds of nodes without weights, by the layer whose core they run on: that of the last of their operands."""
    order = {n.name: i for i, n in enumerate(weight_nodes(graph))}
    names, owner, tails = list(order), dict[str, str](), dict[str, float]()
    for node in graph.nodes:
        if node.name in order:
            owner[node.output] = node.name
            continue
        held = [order[owner[v]] for v in node.inputs if v in owner]
        name = names[max(held)] if held else names[0]
        owner |= dict.fromkeys(node.outputs, name)
        tails[name] = tails.get(name, 0.0) + _vector_seconds(graph, node, chip)
    return tails


def vector_seconds(graph: Graph, chip: Chip) -> float:
    """Seconds of all nodes without weights, one after the other."""
    return sum(_tails(graph, chip).values())


def _vector_seconds(graph: Graph, node: Node, chip: Chip) -> float:
    """Seconds of a node on the vector unit or the memory port, whichever is longer."""
    counts = [prod(graph.type(v).sizes()) for v in (*node.inputs, *node.outputs) if v and graph.type(v).dtype != HOST]
    lanes = max(counts, default=0) / chip.core.vector.lanes / chip.chip.clock
    return max(lanes, sum(counts) / chip.memories["ram"].bandwidth)


def _laid(line: list[Work], chip: Chip, stretch: float) -> _Line | None:
    """The line cut into stretches of at most so many seconds, in order of the cores; none where it does not fit."""
    made = _Line(empty_shelf(chip))
    core, room = 0, stretch
    for work in line:
        left = 1.0
        while left > 0:
            if core == chip.cores:
                return None
            share = _share(work, left, room, stretch)
            places = place_on(work.rects, work.layer, made.shelf[core]) if share else None
            if places is not None:
                made.found.setdefault(work.layer, []).append((places, share))
                left = 0.0 if share == left else left - share
                room -= work.shared * share + (work.tail if left == 0 else 0.0)
            if left > 0:
                core, room = core + 1, stretch
    return made


def _share(work: Work, left: float, room: float, stretch: float) -> float:
    """How much of what is left of a layer goes to a core with so much room: all, a part worth a copy, or none."""
    if work.shared * left + work.tail <= room * (1 + 1e-9):
        return left
    least = max(LEAST_SHARE, 1 / work.positions)
    share = min(left, room / work.shared) if work.shared else 0.0
    return share if share >= least and left - share >= least else 0.0


def stage_mapping(found: Parts, line: Sequence[Work], chip: Chip) -> Mapping:
    """The last core of a layer is its home: what follows stands there, and nothing waits for a core behind it."""
    layers = {name: parts[-1][0] for name, parts in found.items()}
    copies = {
        name: tuple(Copy(places, share) for places, share in parts[:-1])
        for name, parts in found.items()
        if len(parts) > 1
    }
    work = [0.0] * chip.cores
    for each in line:
        for places, share in found[each.layer]:
            work[places[0].core] += each.shared * share
        work[layers[each.layer][0].core] += each.tail
    bound = sum(work) / chip.cores
    facts = {
        "replicas": {name: len(c) + 1 for name, c in copies.items()},
        "stage_s": max(work),
        "stage_bound_s": bound,
        "stage_gap": max(work) / bound - 1 if bound else 0.0,
    }
    used = sum(p.rect.rows * p.rect.cols for parts in found.values() for places, _ in parts for p in places)
    cells = chip.macros * chip.macro.arrays * chip.array.rows * chip.array.cols
    return Mapping(layers, used, cells, facts=facts, copies=copies, staged=True)
