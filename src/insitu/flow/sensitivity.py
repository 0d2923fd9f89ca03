"""Which constants a result rests on: each is scaled, and what energy and latency do is its weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from insitu.arch import cost as arch_cost
from insitu.arch.spec import Chip
from insitu.isa.program import Program
from insitu.sim.energy import CHARGES, Energy
from insitu.sim.poly import whole
from insitu.sim.timing import Timing, simulate_time

STEP = 1.01
TIMES = (("macro", "t_read", "s"), ("macro", "t_adc", "s"), ("chip", "clock", "Hz"))


def weighed(
    rows: Sequence[dict[str, Any]], program: Program, chip: Chip, timing: Timing, spent: Energy
) -> list[dict[str, Any]]:
    """The rows of `figures.constants` with `elasticity` and `weighs`, and the chip's times; the heaviest first.

    Elasticity: percent that energy_j or latency_s changes when the constant grows by one percent.
    """
    total = spent.total.value or 0.0
    events: dict[str, float] = {}
    for event, (name, _) in CHARGES.items():
        events[name] = events.get(name, 0.0) + whole(timing.counts.total[event])
    found: list[dict[str, Any]] = []
    for row in rows:
        joules = events.get(row["name"], program.chips * timing.latency if row["unit"] == "W" else 0.0) * row["value"]
        if row["unit"] in ("J", "W"):
            found.append(_row(row, energy=joules / total if total else 0.0))
    static = sum(r["elasticity"]["energy_j"] for r in found if r["unit"] == "W")
    for level, name, unit in TIMES:
        found += _timed(program, chip, timing, level, name, unit, static)
    return by_weight(found)


def by_weight(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The heaviest first: by the most that energy, time or error owe to a constant."""
    return sorted(rows, key=lambda r: -max(abs(v) for v in r["elasticity"].values()))


def _timed(
    program: Program, chip: Chip, timing: Timing, level: str, name: str, unit: str, static: float
) -> list[dict[str, Any]]:  # fmt: skip
    """One of the chip's times: the program timed again with it one percent longer, and what then leaks longer."""
    part = getattr(chip, level)
    value: float | None = getattr(part, name)
    if not value or not timing.latency:
        return []
    other = chip.model_copy(update={level: part.model_copy(update={name: value * STEP})})
    moved = (simulate_time(program, other).latency / timing.latency - 1.0) / (STEP - 1.0)
    kind, source = arch_cost.origin_of(chip, f"{level}.{name}")
    row = {"name": name, "value": value, "unit": unit, "source": source, "kind": kind}
    return [_row(row, latency=moved, energy=moved * static)]


def _row(row: dict[str, Any], *, energy: float = 0.0, latency: float = 0.0) -> dict[str, Any]:
    elasticity = {"energy_j": round(energy, 4), "latency_s": round(latency, 4)}
    words = [f"{100 * v:+.0f} % of the {w}" for v, w in ((energy, "energy"), (latency, "latency")) if abs(v) >= 0.005]
    return {**row, "elasticity": elasticity, **({"weighs": ", ".join(words)} if words else {})}
