"""Chip instances of a loaded program under physics: same code and weights, other cells, at times after programming."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from insitu.arch.spec import Chip
from insitu.base.errors import UsageError
from insitu.base.units import parse_time
from insitu.circuit.effects import Physics, chip_effects, missing_effects
from insitu.circuit.held import ahead_of_drift
from insitu.circuit.spec import Calibration
from insitu.report.result import AccuracyPoint
from insitu.runtime.session import Session

Times = str | float | Sequence[str | float]


@dataclass(frozen=True)
class Course:
    """Accuracy over instances and times; `uncalibrated` is without the chip's procedures, where those act."""

    points: tuple[AccuracyPoint, ...]
    uncalibrated: tuple[AccuracyPoint, ...] = ()

    def extra(self) -> list[dict[str, Any]]:
        """The points without procedures as the report takes them."""
        return [{"time_s": p.time_s, "values": list(p.values)} for p in self.uncalibrated]


def parse_times(given: Times, *, where: str = "time") -> tuple[float, ...]:
    """Seconds after programming, earliest first, each once: "0s,1h,1d", a number, or several of either."""
    words = given.split(",") if isinstance(given, str) else [given] if isinstance(given, int | float) else list(given)
    if not words:
        raise UsageError(where, "no times", "one at least, such as 0s")
    label = f"{where} {given}" if isinstance(given, str) else where
    return tuple(sorted({parse_time(w.strip() if isinstance(w, str) else w, where=label) for w in words}))


def instance_session(session: Session, effects: Physics, *, instance: int, seed: int) -> Session:
    """A session on one chip instance, on the same backend."""
    return Session(
        session.program, physics=effects, instance=instance, seed=seed, graph=session.graph, backend=session.backend
    )  # fmt: skip


def course(
    score: Callable[[Physics, int], float], effects: Physics, chip: Chip, *, times: Sequence[float], instances: int
) -> Course:
    """Accuracy of the same instances at every time; what no time moves is measured once and says so.

    `score` takes the effects and the number of an instance; an instance is done with before the next one comes, so that
    its draws are made once.
    """
    note = still(effects, chip)
    bare = [replace(effects, calibrated=False)] if effects.calibration(chip) != Calibration() else []
    runs = [(kind, time) for kind in (effects, *bare) for time in (times[:1] if note else times)]
    scored = [[score(kind.after(time), instance) for kind, time in runs] for instance in range(instances)]
    points = [AccuracyPoint(time, values) for (_, time), values in zip(runs, zip(*scored, strict=True), strict=True)]
    each = len(points) // (1 + len(bare))

    def over(found: list[AccuracyPoint]) -> tuple[AccuracyPoint, ...]:
        rest = times[1:] if note else ()
        return (*found, *(replace(found[0], time_s=time, note=note) for time in rest))

    return Course(over(points[:each]), over(points[each:]) if bare else ())


def still(effects: Physics, chip: Chip) -> str:
    """Why nothing moves with time; empty where something does."""
    if effects.moves:
        return ""
    if not chip.cell.analog:
        return f"nothing moves with time: {chip.name} computes with exact bits"
    if chip.cell.moves:
        return "nothing moves with time: neither drift nor retention is among the effects"
    return f"not known: the cell {chip.cell.name} has no drift or retention constants, levels stay as programmed"


def describe(effects: Physics, chip: Chip, *, full: bool = False) -> str:
    """Which effects and procedures were on, in one line, and with `full` which the chip has no constants for."""
    if effects.ideal:
        return "ideal: the chip has no analog effects" if chip.macro.readout.kind == "exact" else "ideal"
    own = effects.calibration(chip)
    offsets = "removed" if own.column_offset else "kept"
    when = "as it is used" if own.column_drift else "as programmed"
    offsets += f", columns trimmed {when}" if own.trims else ""
    if (ahead := ahead_of_drift(chip, effects)) > 0:
        offsets += f", levels programmed {ahead / 86400:g} days ahead of their drift"
    procedures = f"refine passes {own.refine_passes}, reads averaged {own.reads}, column offsets {offsets}"
    heat = f"; cells at {effects.kelvin(chip):.1f} K"
    left = ", ".join(missing_effects(chip)).replace("_", " ") if full and chip_effects(chip) else ""
    skipped = f"; no constants for: {left}" if left else ""
    return f"{', '.join(effects.effects).replace('_', ' ')}; {procedures}{heat}{skipped}"
