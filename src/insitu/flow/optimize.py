"""`insitu run --optimize accuracy`: a precision plan searched by what simulated chips make of calibration samples.

Every candidate is compiled and run on chip instances with the run's physics; its score is the signal over the error of
the outputs against the float network's, over calibration inputs, so that no label and no evaluated sample is looked at.
First the chip's procedures that its file leaves off are tried (columns trimmed, a trial that the last layer is solved
for), then the same transforms on all layers, from cheap to dear; then they are taken back layer by layer where the
score hardly moves.  Scored samples are the last of the calibration inputs, which no procedure is given.
Each step states its energy and the cells it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo import ptq
from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError, InfeasibleError, UsageError
from insitu.circuit.effects import Physics
from insitu.compiler import adapt, given
from insitu.compiler.plan import QuantPlan
from insitu.compiler.tile import weight_nodes
from insitu.flow import figures
from insitu.flow.physics import instance_session
from insitu.flow.precision import PrecisionFile, Transforms
from insitu.flow.trial import Tuner, recompiled
from insitu.graph.export import float_session
from insitu.graph.graph import Graph
from insitu.graph.verify import verify
from insitu.isa.program import Program
from insitu.runtime.session import Session

Array = npt.NDArray[Any]
Build = Callable[..., tuple[QuantPlan | None, Graph, Program]]
SAMPLES, INSTANCES = 48, 3
LOSS = 0.1  # decibels that taking a layer's transforms back may cost
LADDER: tuple[Mapping[str, Any], ...] = (
    {"reads": 2}, {"reads": 4}, {"finer": 1}, {"copies": 2}, {"copies": 2, "reads": 4}, {"copies": 4, "reads": 4},
    {"copies": 8, "reads": 4}, {"copies": 2, "apart": True}, {"copies": 4, "apart": True},
    {"copies": 4, "apart": True, "reads": 4}, {"copies": 8, "apart": True}, {"copies": 8, "apart": True, "reads": 4},
    {"copies": 16, "apart": True},
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One plan that was tried."""

    what: str
    score_db: float
    energy_j: float | None
    cells: int
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    procedures: tuple[str, ...] = ()  # of the chip's calibration, those that are on beside its own

    def row(self) -> dict[str, Any]:
        """As the report takes it."""
        return {"plan": self.what, "sqnr_db": round(self.score_db, 2), "energy_j": self.energy_j, "cells": self.cells}


@dataclass(frozen=True)
class Searched:
    """The plan that was chosen, and all that were tried, the default first."""

    chosen: Step
    tried: tuple[Step, ...]

    @property
    def precision(self) -> PrecisionFile | None:
        """The transforms as `deploy` takes them; none where the default is best."""
        layers = {n: Transforms(**t) for n, t in self.chosen.layers.items() if t}
        return PrecisionFile(layers=layers) if layers else None

    def chip(self, chip: Chip) -> Chip:
        """The chip with the procedures that were chosen."""
        return with_procedures(chip, self.chosen.procedures)

    def extra(self) -> dict[str, Any]:
        """What the run's result says of it: the trade in energy and area (cells)."""
        first = self.tried[0]
        return {
            "optimize": {
                "chosen": self.chosen.row(), "default": first.row(), "tried": [s.row() for s in self.tried],
                "layers": {n: dict(t) for n, t in self.chosen.layers.items() if t},
                "procedures": list(self.chosen.procedures),
                "energy_ratio": _ratio(self.chosen.energy_j, first.energy_j),
                "cells_ratio": _ratio(self.chosen.cells, first.cells),
            }
        }  # fmt: skip


def with_procedures(chip: Chip, names: tuple[str, ...]) -> Chip:
    """The chip with these procedures on beside its own."""
    if not names:
        return chip
    return chip.model_copy(update={"calibration": chip.calibration.model_copy(update=dict.fromkeys(names, True))})


def _left_off(chip: Chip, effects: Physics) -> list[str]:
    """Procedures that could help and that the chip's file leaves off, each on top of those before."""
    columns = "column_drift" if effects.moves and effects.time > 0 else "column_gain"
    return [n for n in (columns, "last_layer") if not getattr(chip.calibration, n)]


def _ratio(a: float | None, b: float | None) -> float | None:
    return round(a / b, 4) if a is not None and b else None


def searched(
    captured: Graph, chip: Chip, build: Build, *, calibration: Mapping[str, Array], effects: Physics, seed: int = 0,
    choices: ptq.Choices | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Searched:  # fmt: skip
    """The plan of best score, thinned out; `build` is that of the chain.  UsageError where no physics is on."""
    if effects.ideal:
        raise UsageError("--optimize accuracy", "no physics", "effects that a plan can fight, such as --physics full")
    few = {n: a[-SAMPLES:] for n, a in calibration.items()}
    work = _Search(captured, chip, build, few, calibration, effects, seed, choices)
    names = [n.name for n in weight_nodes(work.adapted)]
    default = work.tried("as it is", {})
    if default is None:
        return Searched(Step("as it is", -np.inf, None, 0), (Step("as it is", -np.inf, None, 0),))
    steps = [default]
    for name in _left_off(chip, effects) if effects.calibrated else ():
        step = replace(work, own=(*work.own, name)).tried(f"{', '.join(work.own)} {name}".strip(), {})
        steps += [step] if step is not None else []
        if step is not None and step.score_db > max(s.score_db for s in steps[:-1]) + LOSS:
            work = replace(work, own=step.procedures)
    for number, transforms in enumerate(LADDER):
        progress("search a precision plan", number, len(LADDER) + len(names))
        step = work.tried(work.named(_words(transforms)), dict.fromkeys(names, transforms))
        steps += [step] if step is not None else []
    best = max(steps, key=lambda s: s.score_db)
    for number, name in enumerate(names):
        progress("search a precision plan", len(LADDER) + number, len(LADDER) + len(names))
        if not best.layers.get(name):
            continue
        same = replace(work, own=best.procedures)
        without = same.tried(f"{best.what}, {name} as it is", {**best.layers, name: {}})
        if without is not None:
            steps.append(without)
            best = without if without.score_db > best.score_db - LOSS else best
    return Searched(best, tuple(steps))


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
    choices: ptq.Choices | None = None
    own: tuple[str, ...] = ()  # procedures beside those of the chip's file

    def __post_init__(self) -> None:
        count = len(next(iter(self.calibration.values())))
        enough = count >= 2 * SAMPLES  # then what is scored is kept from the procedures
        self.given = {n: a[:-SAMPLES] for n, a in self.calibration.items()} if enough else self.calibration
        self.on = with_procedures(self.chip, self.own)
        self.adapted = verify(adapt.run(given.run(self.captured, self.chip), self.chip))
        self.plan = ptq.plan(self.adapted, self.chip, data=self.calibration, seed=self.seed, choices=self.choices)
        self.real = float_session(self.captured)(self.few)

    def named(self, words: str) -> str:
        """The words for a step, with the procedures it comes on top of."""
        return ", ".join([*self.own, words])

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
        cells = sum(t.rows * t.cols for s in program.sections for b in s.bindings for t in b.tiles)
        return Step(what, self._score(program, graph), energy, cells, layers, self.own)

    def _score(self, program: Program, graph: Graph) -> float:
        """10 log10 of signal over error, errors averaged over instances."""
        signal, error = 0.0, 0.0
        for instance in range(INSTANCES):
            session = self._instance(Session(program, graph=graph), instance)
            codes = session.run_codes(session.codes(dict(self.few)))
            for name, real in self.real.items():
                if name in codes:
                    own = session.real(name, codes[name]).reshape(real.shape)
                    signal, error = signal + float((real**2).sum()), error + float(((own - real) ** 2).sum())
        return 10.0 * float(np.log10(signal / error)) if error > 0 and signal > 0 else float("inf")

    def _instance(self, session: Session, instance: int) -> Session:
        """A chip, after a trial on samples that are not scored where there is one."""
        seed = self.seed + 1
        if not self.on.calibration.last_layer or self.given is self.calibration:
            return instance_session(session, self.effects, instance=instance, seed=seed)
        tuner = Tuner(self.captured, self.given, lambda graph: recompiled(self.captured, graph, self.on, self.given))
        return tuner.session(session, self.effects, instance=instance, seed=seed)
