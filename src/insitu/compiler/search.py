"""Search: a CP-SAT solver looks for better places than the greedy ones, and says how far from proven bounds they are.

Which layer goes to which cores, how often, with what share, is the solver's to decide, with the cells of a core as the
bound; the packer then finds rectangles, and where it finds none the solver is told so and tries again.  On a chip with
one core the solver packs the rectangles themselves, where the packer found no room for them.  One worker, a fixed seed
and a budget of deterministic work: the same places every time, unless the clock stops it first.
"""

from __future__ import annotations

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from insitu.arch.spec import Chip
from insitu.base.errors import UsageError
from insitu.compiler.estimate import Load
from insitu.compiler.mapping import Mapping, Placed
from insitu.compiler.place import Shelf, empty_shelf, most_in_turn, packings, place_on
from insitu.compiler.replicate import mapping_of
from insitu.compiler.stages import LEAST_SHARE, Parts, Work, stage_mapping, work_line
from insitu.compiler.tile import Rect, pieces, rectangles, weight_nodes
from insitu.graph.graph import Graph

MOST_CHOICES = 20_000  # layers x cores; beyond that the greedy answer stands
TRIES = 5  # with what the packer could not place ruled out
PARTS = 256  # a layer's positions are shared in these
SCALE = 10_000_000  # integer units of the whole time
WORK = 0.3  # deterministic seconds of a wall second, so that the clock seldom decides
FEASIBLE = ("OPTIMAL", "FEASIBLE")


def solver() -> Any:
    """The CP-SAT module; UsageError where it is not installed."""
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        got, need = "the package ortools is not installed", 'the extra "solver"'
        raise UsageError("--search", got, need, try_=('pip install "insitu[solver]"',)) from None
    return cp_model


def searched(
    graph: Graph, chip: Chip, loads: Dict[str, Load], ways: Sequence[Mapping], *, seconds: float
) -> list[Mapping]:
    """The ways with the solver's in front where it is better by estimate; the first one carries the proven gap."""
    single = all(len({p.core for p in places}) == 1 for places in ways[-1].layers.values())
    if chip.cores == 1 or not single or len(loads) * chip.cores > MOST_CHOICES:
        solver()
        return list(ways)
    staged = next((w for w in ways if w.staged), None)
    model = _Stages(graph, chip, loads) if staged else _Copies(graph, chip, loads)
    greedy = staged or ways[0]
    found, bound = _solved(model, greedy, seconds=seconds)
    best = found if found is not None and model.seconds(found) < model.seconds(greedy) else greedy
    value = model.seconds(best)
    facts: dict[str, Any] = {"search_s": seconds, "searched": best is not greedy, "search_bound_s": bound}
    facts["search_gap"] = max(0.0, value / bound - 1) if bound else None
    made = replace(best, facts={**best.facts, **facts})
    rest = [w for w in ways if w is not greedy]
    return [made, *rest] if ways[0] is greedy or best is not greedy else [*rest, made]


def _solved(model: _Choices, greedy: Mapping, *, seconds: float) -> tuple[Mapping | None, float]:
    """(the best mapping that could be packed, the bound that no choice of cores beats)."""
    model.hint(greedy)
    bound = 0.0
    for number in range(TRIES):
        share = 0.5 if number == 0 else 0.5 / (TRIES - 1)
        engine = _run(model.model, seconds * share)
        if engine is None:
            break
        if number == 0:
            bound = max(0.0, float(engine.best_objective_bound) * model.unit - model.slack)
        made, stuck = model.placed(engine)
        if made is not None:
            return made, bound
        model.rule_out(stuck)
    return None, bound


def _run(model: Any, seconds: float) -> Any:
    """A solver that has found something in its time, else none."""
    engine = solver().CpSolver()
    engine.parameters.num_workers = 1
    engine.parameters.random_seed = 0
    engine.parameters.max_time_in_seconds = seconds
    engine.parameters.max_deterministic_time = seconds * WORK
    status = engine.solve(model)
    return engine if engine.status_name(status) in FEASIBLE else None


class _Choices:
    """Which layer goes to which cores: what both models share."""

    unit: float  # seconds of one unit of the objective
    slack = 0.0  # seconds by which the true optimum may be below that of the model

    def __init__(self, graph: Graph, chip: Chip, loads: Dict[str, Load]) -> None:
        self.chip, self.loads, self.cp = chip, loads, solver()
        self.model: Any = self.cp.CpModel()
        self.line: dict[str, Work] = {w.layer: w for w in work_line(graph, chip, loads)}
        cores = range(chip.cores)
        self.on: dict[str, list[Any]] = {n: [self.model.new_bool_var(f"{n}@{c}") for c in cores] for n in self.line}
        room = sum(m.cells for m in empty_shelf(chip)[0])
        for core in cores:
            cells = [self.on[n][core] * sum(r.rows * r.cols for r in w.rects) for n, w in self.line.items()]
            self.model.add(sum(cells) <= room)
        for name in self.line:
            self.model.add(sum(self.on[name]) >= 1)

    def hint(self, greedy: Mapping) -> None:
        """Start from the greedy answer."""
        for name, places in greedy.layers.items():
            held = {places[0].core, *(copy.places[0].core for copy in greedy.copies.get(name, ()))}
            for core, var in enumerate(self.on[name]):
                self.model.add_hint(var, core in held)

    def rule_out(self, names: Sequence[str]) -> None:
        """These layers together have no room on any core."""
        for core in range(self.chip.cores):
            self.model.add(sum(self.on[n][core] for n in names) <= len(names) - 1)

    def packed(self, engine: Any) -> tuple[dict[tuple[str, int], tuple[Placed, ...]], tuple[str, ...]]:
        """Places of each layer on each of its cores, or the layers of the first core that the packer could not fill."""
        shelf = empty_shelf(self.chip)
        found: dict[tuple[str, int], tuple[Placed, ...]] = {}
        for core in range(self.chip.cores):
            here = [n for n in self.line if engine.value(self.on[n][core])]
            here.sort(key=lambda n: -self.loads[n].cells)
            for index, name in enumerate(here):
                places = place_on(self.line[name].rects, name, shelf[core])
                if places is None:
                    return {}, tuple(here[: index + 1])
                found[name, core] = places
        return found, ()

    def placed(self, engine: Any) -> tuple[Mapping | None, tuple[str, ...]]:
        """The mapping of a solution, or the layers that found no room together."""
        raise NotImplementedError

    def seconds(self, mapping: Mapping) -> float:
        """The estimate that is minimized."""
        raise NotImplementedError


class _Copies(_Choices):
    """Latency: the sum of the layers' times, each convex in its copies."""

    def __init__(self, graph: Graph, chip: Chip, loads: Dict[str, Load]) -> None:
        super().__init__(graph, chip, loads)
        self.unit = sum(load.seconds() for load in loads.values()) / SCALE
        times: list[Any] = []
        for name, load in loads.items():
            most = min(chip.cores, load.positions)
            count = self.model.new_int_var(1, most, f"{name} copies")
            self.model.add(count == sum(self.on[name]))
            table = [int(load.seconds(n) / self.unit) for n in range(1, most + 1)]
            time = self.model.new_int_var(min(table), max(table), f"{name} time")
            self.model.add_element(count - 1, table, time)
            times.append(time)
        self.model.minimize(sum(times))

    def placed(self, engine: Any) -> tuple[Mapping | None, tuple[str, ...]]:
        found, stuck = self.packed(engine)
        if stuck:
            return None, stuck
        copies = {n: [places for (layer, _), places in found.items() if layer == n] for n in self.line}
        for each in copies.values():
            each.sort(key=most_in_turn)
        return mapping_of(copies, self.chip, self.loads), ()

    def seconds(self, mapping: Mapping) -> float:
        return float(mapping.facts["layers_s"])


class _Stages(_Choices):
    """Throughput: the longest stretch of work, cores in the order of the layers."""

    def __init__(self, graph: Graph, chip: Chip, loads: Dict[str, Load]) -> None:
        super().__init__(graph, chip, loads)
        self.total = sum(w.shared + w.tail for w in self.line.values())
        self.unit = self.total / SCALE
        # shares in PARTS: a core has at most two layers that it shares with another, each off by less than one part
        self.slack = 2 * max(w.shared for w in self.line.values()) / PARTS
        longest, cores = self.model.new_int_var(0, 2 * SCALE, "longest"), range(chip.cores)
        self.share = {n: [self._share(n, c) for c in cores] for n in self.line}
        for name in self.line:
            self.model.add(sum(self.share[name]) == PARTS)
        for first, second in zip(self.line, list(self.line)[1:], strict=False):
            for core in cores:
                for before in range(core):
                    self.model.add(self.on[first][core] + self.on[second][before] <= 1)
        for core in cores:
            work = [int(w.shared / self.unit / PARTS) * self.share[n][core] for n, w in self.line.items()]
            tails = [int(w.tail / self.unit) * self._home(n, core) for n, w in self.line.items() if w.tail]
            self.model.add(sum(work) + sum(tails) <= longest)
        self.model.minimize(longest)

    def _share(self, name: str, core: int) -> Any:
        least = max(1, int(PARTS * max(LEAST_SHARE, 1 / max(1, self.line[name].positions))))
        share, on = self.model.new_int_var(0, PARTS, f"{name} share {core}"), self.on[name][core]
        self.model.add(share <= PARTS * on)
        self.model.add(share >= least * on)
        return share

    def _home(self, name: str, core: int) -> Any:
        """Whether a core is the last one of a layer."""
        home = self.model.new_bool_var(f"{name} home {core}")
        self.model.add(home >= self.on[name][core] - sum(self.on[name][core + 1 :]))
        return home

    def placed(self, engine: Any) -> tuple[Mapping | None, tuple[str, ...]]:
        found, stuck = self.packed(engine)
        if stuck:
            return None, stuck
        parts: Parts = {
            n: [(places, engine.value(self.share[n][c]) / PARTS) for (layer, c), places in found.items() if layer == n]
            for n in self.line
        }
        return stage_mapping(parts, list(self.line.values()), self.chip), ()

    def seconds(self, mapping: Mapping) -> float:
        return float(mapping.facts["stage_s"])


# rectangles on one core


def pack(graph: Graph, chip: Chip, *, seconds: float) -> tuple[Mapping, Shelf] | None:
    """Places of all rectangles on the macros of one core, by the solver; none where it finds none in its time."""
    if chip.cores > 1:
        return None
    nodes = weight_nodes(graph)
    packs = packings(nodes)
    for number in dict.fromkeys((packs[0], packs[-1])):
        owned = [
            (n.name, r)
            for n in nodes
            for p in pieces(graph, n, chip, pack=number)
            for r in rectangles(graph, n, p, chip)
        ]
        if sum(r.rows * r.cols for _, r in owned) > chip.capacity:
            continue
        found = pack_rectangles([r for _, r in owned], chip, seconds=seconds / 2)
        if found is not None:
            layers: dict[str, tuple[Placed, ...]] = {}
            for (name, _), place in zip(owned, found, strict=True):
                layers[name] = (*layers.get(name, ()), place)
            used = sum(r.rows * r.cols for _, r in owned)
            mapping = Mapping(
                layers, used, chip.macros * chip.weight_rows * chip.array.cols, facts={"search_s": seconds}
            )
            return mapping, _full_shelf(chip)
    return None


def _full_shelf(chip: Chip) -> Shelf:
    """A core without room: nothing more is placed beside what the solver packed."""
    return [[replace(m, free=[], used=m.cells) for m in core] for core in empty_shelf(chip)]


def pack_rectangles(rects: Sequence[Rect], chip: Chip, *, seconds: float) -> list[Placed] | None:
    """Legal places of rectangles on the macros of core 0: no overlap, no region crossed, bias rows apart by columns."""
    cp = solver()
    model: Any = cp.CpModel()
    rows, arrays, bias = chip.array.rows, chip.macro.arrays, chip.macro.bias_rows
    left, right, macros = chip.macro.reserved_columns, chip.array.cols, chip.core.macros
    columns: list[Any] = []
    heights: list[Any] = []
    shared: list[tuple[Any, Any]] = []
    spots: list[tuple[Any, ...]] = []
    for i, rect in enumerate(rects):
        if rect.cols > right - left or rect.rows > rows or rect.bias_rows > bias:
            return None
        macro, array = model.new_int_var(0, macros - 1, f"m{i}"), model.new_int_var(0, arrays - 1, f"a{i}")
        x, y = model.new_int_var(left, right - rect.cols, f"x{i}"), model.new_int_var(0, rows - rect.rows, f"y{i}")
        top = model.new_int_var(0, macros * arrays * rows, f"t{i}")
        b = model.new_int_var(0, max(0, bias - rect.bias_rows), f"b{i}")
        model.add(top == (macro * arrays + array) * rows + y)
        if rect.region is not None:
            model.add(array == rect.region)
        columns.append(model.new_fixed_size_interval_var(x, rect.cols, f"xi{i}"))
        heights.append(model.new_fixed_size_interval_var(top, rect.rows, f"yi{i}"))
        if rect.bias_rows:
            start = model.new_int_var(0, macros * bias, f"bt{i}")
            model.add(start == macro * bias + b)
            shared.append((columns[-1], model.new_fixed_size_interval_var(start, rect.bias_rows, f"bi{i}")))
        spots.append((macro, array, x, y, b))
    model.add_no_overlap_2d(columns, heights)
    model.add_no_overlap_2d([c for c, _ in shared], [b for _, b in shared])
    engine = _run(model, seconds)
    if engine is None:
        return None
    return [_spot(engine, rect, spot, rows) for rect, spot in zip(rects, spots, strict=True)]


def _spot(engine: Any, rect: Rect, spot: tuple[Any, ...], rows: int) -> Placed:
    macro, array, x, y, bias0 = spot
    return Placed(
        rect, 0, engine.value(macro), engine.value(x), engine.value(array) * rows + engine.value(y), engine.value(bias0)
    )
