"""Fitting the shared constants of circuit/calibrated.yaml on the calibration rows: `python -m insitu.validate.fit`.

An energy is a sum of terms, each proportional to one constant, and what is known without a fit.  The constants minimise
the mean over chips of the mean over their points of |log(modelled / published)|, the factor that is published (smoothed
near zero, so that the minimum is one point); every chip counts once.
Hold-out rows are never read.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from insitu.arch.cost import event_energy
from insitu.circuit.cost import converter_bits, drawn_energy, switching_cells, tile_events
from insitu.circuit.model import constants, unit_energy
from insitu.validate.entries import Entry, entries
from insitu.validate.fit_time import fit_time
from insitu.validate.model import Point, point_of

SMOOTH = 0.05
Floats = npt.NDArray[np.float64]
ENERGY = ("kinds.sram.cell", "walden.ff_per_um", "digital.product", "kinds.reram.sense", "kinds.pcm.current")
KINDS: Mapping[str, tuple[str, ...]] = {
    "sram_analog": ("kinds.sram.cell", "walden.ff_per_um"),
    "sram_digital": ("digital.product",),
    "reram": ("kinds.reram.sense", "walden.ff_per_um"),
    "pcm": ("kinds.pcm.current", "walden.ff_per_um"),
}  # the constants that move a chip's energy, by its kind


@dataclass(frozen=True)
class Sample:
    """One operating point: joules a MAC, what each constant adds to it per unit, and the rest."""

    chip: str
    published: float
    units: tuple[float, ...]
    rest: float


def fit_energy() -> dict[str, float]:
    """The energy constants, all at once: some are shared by several kinds."""
    samples = [s for entry in _rows() for s in _samples(entry)]
    best = _minimise(np.log([_value(name) for name in ENERGY]), samples)
    return dict(zip(ENERGY, np.exp(best).tolist(), strict=True))


def fit_all() -> dict[str, float]:
    """Every constant that is fitted here; the constants a kind shares with another come from that one's fit."""
    return {**fit_energy(), **fit_time()}


def shipped(name: str) -> float:
    """The value of a constant in calibrated.yaml."""
    return _value(name)


def _rows() -> list[Entry]:
    return [e for e in entries() if e.kind in KINDS and e.split == "calibration" and e.measured and not e.preset]


def _samples(entry: Entry) -> list[Sample]:
    samples: list[Sample] = []
    for label, tops_per_w in entry.published.get("tops_per_w", {}).items():
        point = point_of(entry, label)
        if isinstance(point, Point):
            units = tuple(_unit(point, name) if name in KINDS[entry.kind] else 0.0 for name in ENERGY)
            known = sum(u * _value(name) for u, name in zip(units, ENERGY, strict=True))
            samples.append(Sample(entry.name, 2e-12 / tops_per_w, units, _joules(point) - known))
    return samples


def _joules(point: Point) -> float:
    """Joules of one MAC of full arrays."""
    array = point.chip.array
    events = tile_events(point.chip, rows=array.rows, cols=array.cols)
    energy = event_energy(point.chip, point.operands)
    return sum(n * (energy[e].value or 0.0) for e, n in events.items()) / (array.rows * array.cols)


def _unit(point: Point, name: str) -> float:
    """Joules a MAC for one unit of a constant."""
    chip, macro = point.chip, point.chip.macro
    each = float(unit_energy(chip.technology.node, chip.technology.supply))
    events = tile_events(chip, rows=chip.array.rows, cols=chip.array.cols)
    macs = chip.array.rows * chip.array.cols
    conversions, planes = events["adc"] / macs, macro.passes * macro.weights.slices * chip.calibration.reads
    match name:
        case "digital.product":
            bits = macro.input.bits * macro.weights.slices * chip.array.bits_per_cell
            return bits * each * point.operands.factor * chip.calibration.reads
        case "walden.ff_per_um":
            return conversions * 2.0 ** converter_bits(chip) * each
        case "kinds.sram.cell":
            return planes * switching_cells(chip) * each * point.operands.factor
        case "kinds.pcm.current":
            return planes * _drawn(point)
        case _:
            return conversions * each


def _drawn(point: Point) -> float:
    return drawn_energy(point.chip) * point.operands.activity


def _minimise(start: Floats, samples: Sequence[Sample]) -> Floats:
    from scipy.optimize import minimize

    chips = sorted({s.chip for s in samples})

    def loss(logs: Floats) -> float:
        errors = {chip: list[float]() for chip in chips}
        for s in samples:
            errors[s.chip].append(
                float(np.hypot(np.log((s.rest + np.dot(s.units, np.exp(logs))) / s.published), SMOOTH))
            )
        return float(np.mean([np.mean(e) for e in errors.values()]))

    found = minimize(
        loss, start, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12, "maxiter": 20000, "maxfev": 20000}
    )
    return np.asarray(found.x, np.float64)


def _value(name: str) -> float:
    value = constants()
    for key in name.split("."):
        value = value[key]
    return float(value)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}: {value:.6g}\n" for name, value in fit_all().items())
