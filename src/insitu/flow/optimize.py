"""`insitu run --optimize accuracy`: a precision plan searched by what simulated chips make of calibration samples.

Every candidate is compiled and run on chip instances with the run's physics; its score is the signal over the error of
the outputs against the float network's, over calibration inputs, so that no label and no evaluated sample is looked at.
First come ranges of weights that weigh what cells err by, which cost nothing, and the chip's procedures that its file
leaves off (copies in empty rows, levels ahead of their drift, columns trimmed, a trial that the last layer is solved
for), then the same transforms on all layers, from few cells to many, until the target is reached: a share of the gap
between the errors of this chip and of an ideal one, or that share of what the best plan closes.  Then they are taken
back layer by layer, the largest first, as far as the target stays reached.  Target 1 asks for the best there is,
whatever it takes.
Layers are held once while it is searched, whatever the run's objective: copies for other positions err alike.
Scored samples are the last of the calibration inputs, which no procedure is given.  Each step states its energy, the
cells it takes, and what it costs once before use: programming, known inputs that are played, trials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo import ptq
from insitu.algo.spare import filled
from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError, InfeasibleError, UsageError
from insitu.circuit.effects import Physics
from insitu.circuit.held import ahead_of_drift
from insitu.compiler import adapt, given
from insitu.compiler.plan import QuantPlan
from insitu.compiler.tile import weight_nodes
from insitu.flow import figures
from insitu.flow.physics import instance_session
from insitu.flow.precision import PrecisionFile, Transforms
from insitu.flow.trial import SAMPLES as TRIAL
from insitu.flow.trial import Tuner, recompiled
from insitu.graph.export import float_session
from insitu.graph.graph import Graph
from insitu.graph.verify import verify
from insitu.isa.program import Program
from insitu.runtime.session import Session

Array = npt.NDArray[Any]
Build = Callable[..., tuple[QuantPlan | None, Graph, Program]]
SAMPLES, INSTANCES = 48, 3
LOSS = 0.1  # decibels that taking a layer's transforms back may cost where the best is asked for
TARGET = 0.9  # of the gap in the error's power, where nothing else is asked for: two thirds of that in its size
AHEAD = 30 * 86400.0  # seconds of drift_ahead: levels then stand as well an hour after programming as after a year
LADDER: tuple[Mapping[str, Any], ...] = (
    {"reads": 2}, {"reads": 4}, {"finer": 1}, {"copies": 2}, {"copies": 2, "apart": True}, {"copies": 2, "reads": 4},
    {"copies": 4, "apart": True}, {"copies": 4, "reads": 4}, {"copies": 4, "apart": True, "reads": 4},
    {"copies": 8, "reads": 4}, {"copies": 8, "apart": True}, {"copies": 8, "apart": True, "reads": 4},
    {"copies": 16, "apart": True},
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One plan that was tried."""

    what: str
    error: float  # of the outputs, over their power
    energy_j: float | None  # of one inference
    cells: int
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    procedures: tuple[str, ...] = ()  # of the chip's calibration, those that are on beside its own
    ranges: str = "codes"  # of weights
    once_j: float | None = None  # before the chip is used
    share: float = 0.0  # of the gap between the default and an ideal chip that it closes

    @property
    def score_db(self) -> float:
        """Signal over error."""
        return -10.0 * float(np.log10(self.error)) if self.error > 0 else float("inf")

    def row(self) -> dict[str, Any]:
        """As the report takes it."""
        return {
            "plan": self.what, "sqnr_db": round(self.score_db, 2), "gap_share": round(self.share, 3),
            "energy_j": self.energy_j, "cells": self.cells, "once_j": self.once_j,
        }  # fmt: skip


@dataclass(frozen=True)
class Searched:
    """The plan that was chosen, and all that were tried, the default first."""

    chosen: Step
    tried: tuple[Step, ...]
    target: float = TARGET

    @property
    def precision(self) -> PrecisionFile | None:
        """The transforms as `deploy` takes them; none where the default is best."""
        layers = {n: Transforms(**t) for n, t in self.chosen.layers.items() if t}
        return PrecisionFile(layers=layers) if layers else None

    def chip(self, chip: Chip) -> Chip:
        """The chip with the procedures that were chosen."""
        return with_procedures(chip, self.chosen.procedures)

    def choices(self, given: ptq.Choices) -> ptq.Choices:
        """How the network is quantized."""
        return replace(given, ranges=self.chosen.ranges)

    def extra(self) -> dict[str, Any]:
        """What the run's result says of it: the trade in energy and area (cells)."""
        first = self.tried[0]
        return {
            "optimize": {
                "target": self.target, "reached": self.chosen.share >= self.target,
                "chosen": self.chosen.row(), "default": first.row(), "tried": [s.row() for s in self.tried],
                "layers": {n: dict(t) for n, t in self.chosen.layers.items() if t},
                "procedures": list(self.chosen.procedures), "ranges": self.chosen.ranges,
                "energy_ratio": _ratio(self.chosen.energy_j, first.energy_j),
                "cells_ratio": _ratio(self.chosen.cells, first.cells),
            }
        }  # fmt: skip


def with_procedures(chip: Chip, names: tuple[str, ...]) -> Chip:
    """The chip with these procedures on beside its own."""
    if not names:
        return chip
    on = {name: AHEAD if name == "drift_ahead" else True for name in names}
    return chip.model_copy(update={"calibration": chip.calibration.model_copy(update=on)})


def procedures_off(chip: Chip, effects: Physics) -> list[str]:
    """Procedures that could help and that the chip's file leaves off, each on top of those before."""
    later = effects.moves and effects.time > 0
    names = ["column_drift" if later else "column_gain", "last_layer"]
    if later and ahead_of_drift(with_procedures(chip, ("drift_ahead",)), effects) > 0:
        names.insert(0, "drift_ahead")
    if chip.macro.readout.kind == "adc":
        names.insert(0, "spare_rows")
    return [n for n in names if not getattr(chip.calibration, n)]


def _ratio(a: float | None, b: float | None) -> float | None:
    return round(a / b, 4) if a is not None and b else None


def searched(
    captured: Graph, chip: Chip, build: Build, *, calibration: Mapping[str, Array], choices: ptq.Choices,
    seed: int = 0, target: float = TARGET,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Searched:  # fmt: skip
    """The cheapest plan found that reaches the target, else that share of what the best does; `build` is the chain's.

    Chips have the effects of `choices`.  UsageError where none is on, or for a target that is no share.
    """
    effects = choices.effects
    if effects is None or effects.ideal:
        raise UsageError("--optimize accuracy", "no physics", "effects that a plan can fight, such as --physics full")
    if not 0.0 < target <= 1.0:
        raise UsageError("--target", f"{target:g}", "a share of the gap: above 0, at most 1 (the best there is)")
    few = {n: a[-SAMPLES:] for n, a in calibration.items()}
    work = _Search(captured, chip, build, few, calibration, effects, seed, choices)
    both = [work, work.weighing("cells")] if choices.ranges == "codes" else [work]
    names = work.names
    default = work.tried("as it is", {})
    if default is None:
        return Searched(nothing := Step("as it is", np.inf, None, 0), (nothing,), target)
    steps = [default]

    def best() -> Step:
        return max(steps, key=lambda s: s.score_db)

    def enough() -> bool:
        return target < 1.0 and best().share >= target

    for other in both[1:]:
        step = None if enough() else other.tried("ranges for cells", {})
        if step is not None and step.score_db > best().score_db + LOSS:
            work = other
        steps += [step] if step is not None else []
    for name in procedures_off(chip, effects) if effects.calibrated else ():
        step = None if enough() else work.beside(*work.own, name).tried(_named((*work.own, name)), {})
        if step is not None and step.score_db > best().score_db + LOSS:
            work = work.beside(*step.procedures)
        steps += [step] if step is not None else []
    for number, transforms in enumerate(LADDER):
        progress("search a precision plan", number, len(LADDER) + len(names))
        step = None if enough() else work.tried(_named(work.own, transforms), work.everywhere(transforms))
        steps += [step] if step is not None else []
    chosen, goal = picked(steps, target)
    work = next(w for w in both if w.choices.ranges == chosen.ranges).beside(*chosen.procedures)
    for number, name in enumerate(work.largest(names)):
        progress("search a precision plan", len(LADDER) + number, len(LADDER) + len(names))
        for less in _less(chosen.layers.get(name, {})):
            step = work.tried(f"{name} {_words(less) or 'as it is'}", {**chosen.layers, name: less})
            steps += [step] if step is not None else []
            if step is not None and _as_good(step, chosen, goal):
                chosen = step
                break
    return Searched(chosen, tuple(steps), target)


def picked(steps: Sequence[Step], target: float) -> tuple[Step, float | None]:
    """(a step, the share of the gap that it must keep); none where the best is asked for.

    Where no step reaches the target, that share of what the best one closes: its last tenths cost most.
    """
    best = max(steps, key=lambda s: s.score_db)
    if target >= 1.0 or best.share >= target:
        return best, None if target >= 1.0 else target
    goal = target * best.share
    enough = [s for s in steps if s.share >= goal]
    return min(enough, key=lambda s: s.cells * (s.energy_j or 1.0)), goal


def _as_good(step: Step, before: Step, goal: float | None) -> bool:
    """Whether less will do: the goal is still reached, or where the best is asked for, the score hardly moves."""
    return step.score_db > before.score_db - LOSS if goal is None else step.share >= goal


def _less(transforms: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a layer could do with instead, the least first: nothing, or copies down to half of what it has."""
    if not transforms:
        return
    yield {}
    copies = 2
    while copies < transforms.get("copies", 1):
        yield {**transforms, "copies": copies}
        copies *= 2


def _named(own: tuple[str, ...], transforms: Mapping[str, Any] | None = None) -> str:
    """The words for a step, with the procedures it comes on top of."""
    return ", ".join([*own, *([_words(transforms)] if transforms else [])])


def _words(transforms: Mapping[str, Any]) -> str:
    return ", ".join(k if v is True else f"{k} {v}" for k, v in transforms.items())


@dataclass
class _Search:
    """What every candidate shares."""

    captured: Graph
    chip: Chip
    build: Build
    few: Mapping[str, Array]
    calibration: Mapping[str, Array]
    effects: Physics
    seed: int
    choices: ptq.Choices
    ends: list[float] = field(default_factory=list[float])  # errors of the default on chips and on an ideal one

    own: tuple[str, ...] = field(default=(), init=False)  # procedures beside those of the chip's file

    def __post_init__(self) -> None:
        count = len(next(iter(self.calibration.values())))
        enough = count >= 2 * SAMPLES  # then what is scored is kept from the procedures
        self.given = {n: a[:-SAMPLES] for n, a in self.calibration.items()} if enough else self.calibration
        self.on = self.chip
        self.adapted = verify(adapt.run(given.run(self.captured, self.chip), self.chip))
        self.names = [n.name for n in weight_nodes(self.adapted)]
        self.plan = self.planned()
        self.real = float_session(self.captured)(self.few)

    def beside(self, *names: str) -> _Search:
        """The same search on the chip with these procedures beside its own."""
        other = copy(self)
        other.own, other.on = names, with_procedures(self.chip, names)
        other.plan = filled(self.adapted, other.on, self.plan)
        return other

    def everywhere(self, transforms: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """The transforms on all layers; those that have as many copies in empty rows already keep these."""
        rest = {k: v for k, v in transforms.items() if k not in ("copies", "apart")}
        asked, own = transforms.get("copies", 1), {n: p.precision.copies for n, p in self.plan.layers.items()}
        return {n: rest if 1 < asked <= own.get(n, 1) else transforms for n in self.names}

    def weighing(self, ranges: str) -> _Search:
        """The same search with weights in other ranges."""
        other = copy(self)
        other.choices = replace(self.choices, ranges=ranges)
        other.plan = other.planned()
        return other

    def planned(self) -> QuantPlan:
        """How the network is quantized."""
        return ptq.plan(self.adapted, self.chip, data=self.calibration, seed=self.seed, choices=self.choices)

    def largest(self, names: list[str]) -> list[str]:
        """Layers by their cells, the most first."""
        nodes = {n.name: self.adapted.constants[n.inputs[1]].size for n in weight_nodes(self.adapted)}
        return sorted(names, key=lambda n: -nodes[n])

    def tried(self, what: str, layers: Mapping[str, Mapping[str, Any]]) -> Step | None:
        """A plan's score and cost; none where the chip cannot do it or does not hold it."""
        kept = {n: Transforms(**t) for n, t in layers.items() if t}
        try:
            _, graph, program = self.build(
                self.captured, self.on, calibration=self.given, seed=self.seed, plan=self.plan,
                precision=PrecisionFile(layers=kept) if kept else None,
            )  # fmt: skip
        except (InfeasibleError, ConfigError):
            return None
        cost = figures.cost(program, self.on)
        energy = cost.metrics["energy_j"].value
        spare = self.on.macro.reserved_columns if self.on.calibration.spare_columns else 0
        cells = sum(t.rows * (t.cols + spare) for s in program.sections for b in s.bindings for t in b.tiles)
        error = self._error(self._instance(Session(program, graph=graph), i) for i in range(INSTANCES))
        if not self.ends:  # the first plan is the default, which also says what an ideal chip would leave
            self.ends += [error, self._error([Session(program, graph=graph)])]
        first, ideal = self.ends
        share = (first - error) / (first - ideal) if first > ideal else 1.0
        return Step(what, error, energy, cells, layers, self.own, self.choices.ranges, self._once(cost, energy), share)

    def _once(self, cost: figures.Cost, energy: float | None) -> float | None:
        """Joules before the chip is used: programming, inputs that are played, and the trial's inferences."""
        made = cost.metrics.get("setup_energy_j")
        trial = (
            len(next(iter(self.given.values()))[:TRIAL]) * (energy or 0.0) if self.on.calibration.last_layer else 0.0
        )
        return None if made is None or made.value is None else made.value + trial

    def _error(self, sessions: Iterable[Session]) -> float:
        """Error over signal of all outputs, averaged over chips."""
        signal, error = 0.0, 0.0
        for session in sessions:
            codes = session.run_codes(session.codes(dict(self.few)))
            for name, real in self.real.items():
                if name in codes:
                    own = session.real(name, codes[name]).reshape(real.shape)
                    signal, error = signal + float((real**2).sum()), error + float(((own - real) ** 2).sum())
        return error / signal if signal > 0 else 0.0

    def _instance(self, session: Session, instance: int) -> Session:
        """A chip, after a trial on samples that are not scored where there is one."""
        seed = self.seed + 1
        if not self.on.calibration.last_layer or self.given is self.calibration:
            return instance_session(session, self.effects, instance=instance, seed=seed)
        tuner = Tuner(self.captured, self.given, lambda graph: recompiled(self.captured, graph, self.on, self.given))
        return tuner.session(session, self.effects, instance=instance, seed=seed)
