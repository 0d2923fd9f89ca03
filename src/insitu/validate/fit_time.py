"""Fitting the gate delays of a pass (circuit/times.py) on the calibration rows whose time of a pass is published.

Delays are a sum of terms, each proportional to one constant.  Levels of adder trees are fitted on digital macros; bits,
input bits and rows together on analog ones; how much slower a kind with small signals is, on its own rows; a pulse on
macros with pulsed inputs; a plane on those that integrate planes.
The loss is that of fit.py: the mean over chips of |log(modelled / published)|, smoothed near zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.circuit.times import bitline_rows, fo4
from insitu.validate.entries import entries
from insitu.validate.model import Point, point_of

SMOOTH = 0.05
SLOW = ("mram",)  # kinds whose small signals take their own time
Floats = npt.NDArray[np.float64]
Terms = Callable[[Chip], tuple[float, ...]]


@dataclass(frozen=True)
class Pass:
    """One published time of a pass, in gate delays of its process."""

    name: str
    chip: Chip
    delays: float


def fit_time() -> dict[str, float]:
    """Every fitted constant of the time model."""
    passes = published_passes()
    macros = [p for p in passes if not p.chip.macro.integrate]
    analog = [p for p in macros if p.chip.macro.readout.kind != "exact"]
    digital = [p for p in macros if p.chip.macro.readout.kind == "exact"]
    [level] = _fit(digital, _levels)
    plain = [p for p in analog if not p.chip.macro.pulses]
    shared = _fit([p for p in plain if p.chip.cell.kind not in SLOW], _analog)
    bit, given, row = shared
    slow = {
        f"kinds.{kind}.slow": _fit(
            [p for p in plain if p.chip.cell.kind == kind], lambda chip: (float(np.dot(_analog(chip), shared)),)
        )[0]
        for kind in SLOW
    }
    pulsed = [Pass(p.name, p.chip, p.delays - row * bitline_rows(p.chip)) for p in analog if p.chip.macro.pulses]
    [pulse] = _fit(pulsed, lambda chip: (2.0**chip.macro.input.bits_per_pass,))
    [plane] = _fit([p for p in passes if p.chip.macro.integrate], lambda chip: (1.0,))
    names = ("level", "bit", "input_bit", "row", "pulse", "plane")
    values = (level, bit, given, row, pulse, plane)
    return {f"time.delays_per_{n}": v for n, v in zip(names, values, strict=True)} | slow


def published_passes() -> list[Pass]:
    """Times of calibration rows: those stated, and those of throughputs that follow from no published clock."""
    found: list[Pass] = []
    for entry in (e for e in entries() if e.split == "calibration" and e.measured and not e.preset):
        for quantity in ("latency_s", "tops"):
            for label, value in entry.published.get(quantity, {}).items():
                point = point_of(entry, label)
                if isinstance(point, Point) and (quantity == "latency_s" or not point.clocked):
                    found.append(Pass(entry.name, point.chip, _delays(point.chip, value, quantity)))
    return found


def _delays(chip: Chip, value: float, quantity: str) -> float:
    operations = 2.0 * chip.array.rows * chip.array.cols * chip.macros
    seconds = value if quantity == "latency_s" else operations / (value * 1e12)
    each = seconds / (chip.macro.passes * chip.calibration.reads)
    return each / float(fo4(chip.technology.node, chip.technology.supply))


def _levels(chip: Chip) -> tuple[float, ...]:
    return (float(np.ceil(np.log2(max(chip.array.rows, 2)))),)


def _analog(chip: Chip) -> tuple[float, ...]:
    """(decisions of the converter, input bits beyond the first, rows on the bitline)."""
    macro = chip.macro
    decisions = {"flash": 1.0, "cco": 0.0, "ramp": 2.0**macro.readout.bits}.get(
        macro.converter or "sar", macro.readout.bits
    )
    return float(decisions), macro.input.bits_per_pass - 1.0, float(bitline_rows(chip))


def _fit(passes: Sequence[Pass], terms: Terms) -> list[float]:
    """Constants of the terms; every chip counts once."""
    from scipy.optimize import minimize

    units = np.array([terms(p.chip) for p in passes])
    delays = np.array([p.delays for p in passes])
    names = [p.name for p in passes]
    weight = np.array([1.0 / names.count(name) for name in names])

    def loss(logs: Floats) -> float:
        errors = np.log(units @ np.exp(logs) / delays)
        return float(np.sum(weight * np.hypot(errors, SMOOTH)) / np.sum(weight))

    starts = [np.full(units.shape[1], np.log(guess)) for guess in (3.0, 30.0, 300.0)]
    options = {"xatol": 1e-7, "fatol": 1e-12, "maxiter": 20000, "maxfev": 20000}
    found = min((minimize(loss, s, method="Nelder-Mead", options=options) for s in starts), key=lambda o: o.fun)
    return [float(v) for v in np.exp(found.x)]
