"""Modelled against published: every entry, the factor of each quantity, and the statistics of each split."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from insitu.arch.spec import Chip
from insitu.circuit.model import constants
from insitu.validate.described import described
from insitu.validate.entries import Entry, entries
from insitu.validate.given import given_point
from insitu.validate.model import Point, modelled, point_of
from insitu.validate.sweeps import by_chip, sweeps

CLOCKED = ("tops", "latency_s", "tops_per_mm2")


@dataclass(frozen=True)
class Figure:
    """One quantity of one chip over its operating points; r = modelled / published."""

    published: Mapping[str, float]
    modelled: Mapping[str, float]
    prediction: bool = True

    @property
    def ratio(self) -> float:
        """Geometric mean of modelled / published."""
        return math.exp(statistics.fmean(math.log(self.modelled[p] / self.published[p]) for p in self.modelled))

    @property
    def factor(self) -> float:
        """Geometric mean of max(r, 1/r)."""
        logs = (abs(math.log(self.modelled[p] / self.published[p])) for p in self.modelled)
        return math.exp(statistics.fmean(logs))


@dataclass(frozen=True)
class Row:
    """One chip: what could be compared, and what was missing to compare the rest."""

    entry: Entry
    figures: Mapping[str, Figure] = field(default_factory=dict[str, Figure])
    missing: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    unfitted: bool = False  # no calibration row stands behind the constants of this kind of cell


def compare(given: Iterable[Entry] | None = None, *, chip: Chip | None = None) -> tuple[Row, ...]:
    """Rows of all entries (those that ship unless given); `chip` is the chip that given entries are figures of."""
    return tuple(_row(entry, chip) for entry in (entries() if given is None else given))


def summary(rows: Sequence[Row], name: str = "tops_per_w") -> dict[str, Any]:
    """Per split: chips counted, median and 90 % factor, chips beyond 3, over measured chips and predictions only."""
    return {split: _statistics(rows, split, name) for split in ("calibration", "holdout", "unseen")}


def fitted_constants() -> dict[str, list[str]]:
    """The constants that were fitted, by their place in circuit/calibrated.yaml: of energies and of times."""
    model = constants()
    energy = [f"kinds.{kind}.{key}" for kind, row in model["kinds"].items() for key in row["fitted"]]
    energy += [f"digital.{key}" for key in model["digital"]["fitted"]]
    energy += ["walden.ff_per_um"] if model["walden"]["fitted"] else []
    slow = [f"kinds.{kind}.{key}" for kind, row in model["kinds"].items() for key in row.get("fitted_time", ())]
    return {"energy": energy, "time": [*(f"time.{key}" for key in model["time"]["fitted"]), *slow]}


def constants_json(rows: Sequence[Row]) -> dict[str, Any]:
    """How many constants were fitted, beside the number of calibration rows they were fitted on."""
    fitted = fitted_constants()
    used = {
        "energy": _fitted_on(rows, ("tops_per_w",)),
        "time": _fitted_on(rows, ("latency_s", "tops")),
    }
    return {
        "fitted": sum(map(len, fitted.values())),
        "names": [name for names in fitted.values() for name in names],
        "calibration_rows": _fitted_on(rows, ("tops_per_w", "latency_s", "tops")),
        **{part: {"fitted": len(fitted[part]), "calibration_rows": used[part]} for part in fitted},
    }


def _fitted_on(rows: Sequence[Row], names: Sequence[str]) -> int:
    """Calibration chips that a fit of these quantities sees."""
    return sum(
        any(name in row.figures and row.figures[name].prediction for name in names)
        for row in rows
        if row.entry.split == "calibration" and row.entry.measured
    )


def report(rows: Sequence[Row]) -> dict[str, Any]:
    """The object that `insitu validate --json` prints."""
    names = ("tops_per_w", "tops", "latency_s")
    overall, inside = summary(rows), sweeps()
    counts = {split: overall[split] for split in ("calibration", "holdout")}
    unseen = {"unseen": overall["unseen"]} if overall["unseen"]["chips"] else {}
    return {
        "schema": 1,
        "chips": [row_json(row) for row in rows],
        "summary": {
            **counts,
            **unseen,
            "by_quantity": {name: summary(rows, name) for name in names},
            "constants": constants_json(rows),
            "chips_on_energy": counts["calibration"]["chips"] + counts["holdout"]["chips"],
            "chips_on_time": sum(1 for row in rows if row.entry.measured and {"tops", "latency_s"} & set(row.figures)),
            "sweeps": {"worst_chip": max(by_chip(inside).values())},
        },
        "sweeps": [
            {
                "chip": s.chip,
                "quantity": s.quantity,
                "points": len(s.errors),
                "fitted_on": s.fitted_on,
                "factors": list(s.factors),
                "median_error": s.median_error,
            }
            for s in inside
        ],
    }


def row_json(row: Row) -> dict[str, Any]:
    """One chip of the report."""
    entry = row.entry
    return {
        "name": entry.name,
        "kind": entry.kind,
        "split": entry.split,
        "measured": entry.measured,
        "quantities": {name: _figure_json(figure) for name, figure in row.figures.items()},
        "missing": [f"not enough data: {field}" for field in row.missing],
        "defaults": list(row.defaults),
        "unfitted": row.unfitted,
        "source": entry.source,
    }


def _unfitted(entry: Entry, chip: Chip | None) -> bool:
    """Whether the energy constants of this kind of cell are from literature alone."""
    digital = chip.macro.readout.kind == "exact" if chip else entry.chip.get("digital", False)
    if digital or entry.preset:
        return False
    kinds = {"sram_analog": "sram", "edram_gain_cell": "gain_cell"}
    model = constants()["kinds"].get(chip.cell.kind if chip else kinds.get(entry.kind, entry.kind))
    return model is None or not model["fitted"]


def _row(entry: Entry, chip: Chip | None) -> Row:
    entry = described(entry) if chip is None and entry.fields else entry
    figures: dict[str, Figure] = {}
    defaults, gaps = list[str](), dict[str, dict[str, None]]()
    for name, points in entry.published.items():
        values, clocked = dict[str, float](), list[bool]()
        for label in points:
            point = point_of(entry, label) if chip is None else given_point(entry, label, chip)
            if not isinstance(point, Point):
                for part in point:
                    gaps.setdefault(part, {})[label] = None
                continue
            value = modelled(point, name)
            if value is not None and value > 0:
                values[label] = value
                clocked.append(point.clocked and (point.whole or name != "latency_s"))
                defaults += (d for d in point.defaults if name == "tops_per_w" or not d.startswith("sparsity"))
        if values:
            prediction = not (name in CLOCKED and all(clocked))
            figures[name] = Figure({p: points[p] for p in values}, values, prediction)
    lacking = (f"{', '.join(filter(None, labels))}: {part}".removeprefix(": ") for part, labels in gaps.items())
    filled, absent = tuple(dict.fromkeys(defaults)), tuple(dict.fromkeys([*entry.missing, *lacking]))
    return Row(entry, figures, absent, filled, _unfitted(entry, chip))


def _figure_json(figure: Figure) -> dict[str, Any]:
    single = len(figure.modelled) == 1
    given, found = (next(iter(d.values())) if single else dict(d) for d in (figure.published, figure.modelled))
    return {
        "published": given,
        "modelled": found,
        "ratio": figure.ratio,
        "factor": figure.factor,
        "kind": "prediction" if figure.prediction else "consistency with the published clock",
    }


def _statistics(rows: Sequence[Row], split: str, name: str) -> dict[str, Any]:
    counted = [
        (row.entry.name, row.figures[name].factor)
        for row in rows
        if row.entry.split == split and row.entry.measured and name in row.figures and row.figures[name].prediction
    ]
    factors = sorted(factor for _, factor in counted)
    return {
        "chips": len(factors),
        "median_factor": statistics.median(factors) if factors else None,
        "p90_factor": factors[math.ceil(0.9 * len(factors)) - 1] if factors else None,
        "beyond_3": [chip for chip, factor in counted if factor > 3],
    }
