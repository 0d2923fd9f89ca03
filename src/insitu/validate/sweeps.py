"""Sweeps inside one chip: does the model move with supply, bits and data as the silicon does, its level apart.

Each sweep has one or two terms of the model; their scale factors are fitted on a quarter of the points, evenly spaced
in the published order, and judged on all.  No shared constant is touched.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from insitu.base.schema import load_yaml
from insitu.circuit.model import constants
from insitu.circuit.times import fo4

Given = Mapping[str, Any]
COLONNADE_NODE, COLONNADE_COLUMNS = 65e-9, 128


@dataclass(frozen=True)
class Sweep:
    """One sweep of one chip: relative error of every point, and the scale factors that were fitted."""

    chip: str
    quantity: str
    factors: tuple[float, ...]
    fitted_on: int
    errors: tuple[float, ...]

    @property
    def median_error(self) -> float:
        """Median |modelled / published - 1| of all points."""
        return statistics.median(self.errors)


def sweeps() -> tuple[Sweep, ...]:
    """Every sweep that ships."""
    text = (files("insitu.validate") / "sweeps.yaml").read_text(encoding="utf-8")
    data = load_yaml("validate/sweeps.yaml", text=text).data
    return tuple(_sweep(chip, name, rows["points"]) for chip, kinds in data.items() for name, rows in kinds.items())


def by_chip(given: Sequence[Sweep]) -> dict[str, float]:
    """Median error over all points of each chip."""
    chips = dict.fromkeys(s.chip for s in given)
    return {chip: statistics.median([e for s in given if s.chip == chip for e in s.errors]) for chip in chips}


def _sweep(chip: str, quantity: str, points: Sequence[Given]) -> Sweep:
    terms = TERMS[chip, quantity]
    basis = np.array([[term(point) for term in terms] for point in points])
    published = np.array([float(point["value"]) for point in points])
    used = np.arange(max(1, len(points) // 4)) * (len(points) // max(1, len(points) // 4))
    scale = _fit(basis[used], published[used])
    errors = np.abs(basis @ scale / published - 1.0)
    return Sweep(chip, quantity, tuple(scale.tolist()), len(used), tuple(errors.tolist()))


def _fit(basis: Any, published: Any) -> Any:
    """Scale factors, never negative, by least squares of relative errors; one factor for all terms on few points."""
    relative = basis / published[:, None]
    if len(published) < basis.shape[1]:
        return np.full(basis.shape[1], 1.0 / relative.sum(axis=1).mean())
    from scipy.optimize import nnls

    return nnls(relative, np.ones(len(published)))[0]


def _square(point: Given) -> float:
    return float(point["supply"]) ** 2


def _planes(point: Given) -> float:
    """NeuRRAM's signed inputs are sign and magnitude: pulses of both signs, one plane a magnitude bit."""
    return float(max(1, point["bits"] - 1))


def _neurram_converter(point: Given) -> float:
    model = constants()
    return float(model["kinds"]["reram"]["sense"] + model["walden"]["ff_per_um"] * 2.0 ** point["out"]) / 1000


def _colonnade_flow(point: Given) -> float:
    """V times what transistors conduct in a fixed cycle: V^2 over the gate delay, which is proportional to V / current.

    The clock is the test bench's 100 MHz at every supply, so charge that flows for a cycle grows with the drive
    current; charge on capacitances, V^2, would grow 1.8 times from 0.6 to 0.8 V where 4.0 was measured.
    """
    return _square(point) / float(fo4(COLONNADE_NODE, point["supply"]))


def _colonnade_row(point: Given) -> float:
    """A pass of one input bit works all columns; sums of 128 products make a weight 7 columns wider than its bits."""
    weights = COLONNADE_COLUMNS // (point["bits"] + 7)
    return _colonnade_flow(point) * point["bits"] * COLONNADE_COLUMNS / weights


def _colonnade_weight(point: Given) -> float:
    return _colonnade_flow(point) * point["bits"] ** 2


TERMS: Mapping[tuple[str, str], tuple[Callable[[Given], float], ...]] = {
    ("jia_jssc_2020_cima", "energy"): (_square,),
    ("jia_jssc_2020_cima", "time"): (lambda point: float(point["bits"]),),
    ("sinangil_dong_7nm_2020_2021", "energy"): (_square, lambda point: _square(point) * point["code"] / 15),
    ("neurram_nature_2022", "energy"): (_planes, _neurram_converter),
    ("neurram_nature_2022", "time"): (_planes, lambda point: 1.0),
    ("colonnade_jssc_2021", "energy"): (_colonnade_row, _colonnade_weight),
}
