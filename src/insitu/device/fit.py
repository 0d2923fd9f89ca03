"""A cell from a user's measurements: spread of levels, noise of a read and drift, and how good each fit is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from insitu.base.errors import ConfigError
from insitu.device.cell import CellSpec, Drift, Programming
from insitu.device.drift_fit import DriftFit, fit_drift
from insitu.device.measured import Floats, Measurements, read, read_csv

__all__ = ["CellFit", "cell_yaml", "fit_cell", "read_csv"]
MOST_TERMS, AT_LEVEL = 5, 8
ENOUGH_REPEATS = 30


@dataclass(frozen=True)
class CellFit:
    """A fitted cell and how good it is.

    r2: of the spread over levels; rms_residual: what it leaves unexplained; sampling: what spreads of so few samples
    scatter by themselves; bias: the mean error, which is not modelled.  All but r2 are shares of full scale.
    """

    cell: CellSpec
    samples: int
    levels: int
    r2: float
    rms_residual: float
    sampling: float
    bias: float
    drift_samples: int
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """What a person wants to know of the fit, as comment lines."""
        more = ": more than sampling explains" if self.rms_residual > 2 * self.sampling else ""
        lines = [
            f"{self.samples} measurements of {self.levels} levels",
            f"spread: r2 {self.r2:.3f}, residual {self.rms_residual:.2e} of full scale where sampling alone leaves "
            f"{self.sampling:.2e}{more}",
            f"mean error {self.bias:+.2e} of full scale (not modelled)",
            f"drift from {self.drift_samples} cells measured more than once" if self.drift_samples else "no drift data",
            *self.notes,
        ]
        return "".join(f"# {line}\n" for line in lines)


def fit_cell(text: str, *, base: CellSpec, name: str, where: str = "csv") -> CellFit:
    """A cell like `base` with the programming error, noise of a read and drift that the measurements show.

    Columns: target and measured; optional time (after programming, a cell's earliest is its programmed level) and cell
    (so that a cell's later and repeated readings are known to be its own).  measured.py says how they may be written.
    """
    rows = read(text, where)
    full = float(np.max(rows.target))
    target, error, read_variance, repeats = _programmed(rows)
    target, error = target / full, error / full
    noise = read_variance / full**2
    levels, spreads, counts = _spreads(target, error, where)
    if repeats:
        spreads = np.sqrt(np.maximum(spreads**2 - noise / repeats, 0.0))
    coefficients, r2, residual, sampling = _polynomial(levels, spreads, counts)
    moved = fit_drift(rows)
    update = _update(base, where, coefficients, noise**0.5 if repeats else None, moved)
    notes = (*rows.notes, *_notes(base, repeats, noise**0.5, levels, error), *moved.notes)
    cell = base.model_copy(update={"name": name, **update})
    return CellFit(
        cell, len(target), len(levels), r2, residual, sampling, float(error.mean()), moved.cells, tuple(notes)
    )


def cell_yaml(fit: CellFit) -> str:
    """The cell as a file for the library or for a chip, its goodness of fit on top."""
    from insitu.base.schema import dump_yaml

    return fit.text() + dump_yaml(fit.cell)


def _update(base: CellSpec, where: str, sd: Floats, read_sd: float | None, moved: DriftFit) -> dict[str, Any]:
    measured = f"measured: fitted to {where}"
    sources = {**base.sources, "programming": measured, "drift": measured + moved.assumption}
    update: dict[str, Any] = {
        "programming": Programming(sd=tuple(float(f"{c:.6g}") for c in sd)),
        "drift": Drift(nu=moved.nu, nu_sd=moved.nu_sd, t0=moved.t0) if moved.nu > 0 else None,
        "law": None,
    }
    if read_sd is not None:
        update["read_sd"] = float(f"{read_sd:.6g}")
        sources["read_sd"] = measured
    return update | {"sources": sources}


def _programmed(rows: Measurements) -> tuple[Floats, Floats, float, float]:
    """(target, error) of every cell at its earliest time, repeated reads averaged; variance of a read and repeats."""
    if rows.timed and not rows.followed:
        first = rows.time <= rows.time.min()
        return rows.target[first], (rows.measured - rows.target)[first], 0.0, 0.0
    order = np.lexsort((rows.time, rows.cell))
    cell, time, target, measured = (v[order] for v in (rows.cell, rows.time, rows.target, rows.measured))
    starts = np.r_[True, cell[1:] != cell[:-1]]
    earliest = time == time[starts][np.cumsum(starts) - 1]
    place = np.unique(cell[earliest], return_inverse=True)[1]
    count = np.bincount(place)
    mean, asked = (np.bincount(place, v[earliest]) / count for v in (measured, target))
    degrees = int((count - 1).sum())
    variance = float(((measured[earliest] - mean[place]) ** 2).sum()) / degrees if degrees >= ENOUGH_REPEATS else 0.0
    return asked, mean - asked, variance, float(count.mean()) if variance > 0 else 0.0


def _notes(base: CellSpec, repeats: float, read_sd: float, levels: Floats, error: Floats) -> list[str]:
    notes: list[str] = []
    if repeats:
        notes.append(
            f"noise of a read {read_sd:.2e} of full scale, from {repeats:.3g} readings a cell; taken off the spread"
        )
    elif base.read_sd:
        notes.append(f"the spread holds the noise of one read; read_sd {base.read_sd:g} is that of {base.name}")
    if levels.min() > 0.25:
        notes.append(f"levels from {levels.min():.2g} of full scale on; below, the spread is extrapolated")
    spread = float(error.std())
    if abs(float(error.mean())) > spread:
        notes.append("the mean error is larger than the spread: calibrate the targets first")
    return notes


def _spreads(target: Floats, error: Floats, where: str) -> tuple[Floats, Floats, Floats]:
    """Standard deviation at each level; levels that are all different are gathered in groups of neighbours."""
    levels, place = np.unique(target, return_inverse=True)
    if len(target) / len(levels) < AT_LEVEL:
        order = np.argsort(target)
        groups = np.array_split(order, max(3, len(target) // (2 * AT_LEVEL)))
    else:
        groups = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])
    groups = [g for g in groups if len(g) > 2]
    if len(groups) < 2:
        raise ConfigError(where, f"{len(groups)} levels", "at least two levels, each measured on several cells")
    middles = np.array([target[g].mean() for g in groups])
    return middles, np.array([error[g].std(ddof=1) for g in groups]), np.array([len(g) for g in groups], float)


def _polynomial(levels: Floats, spreads: Floats, counts: Floats) -> tuple[Floats, float, float, float]:
    """Coefficients, r2, residual and expected residual of the polynomial that the Bayesian criterion prefers.

    A standard deviation of n samples scatters by itself, s / sqrt(2 (n - 1)): misses are counted in that, so that a
    term has to explain more than chance.
    """
    around = float(np.sqrt(np.average(spreads**2, weights=counts))) or 1e-12
    scatter = np.maximum(np.maximum(spreads, 0.5 * around), 1e-12) / np.sqrt(2.0 * (counts - 1.0))
    best: tuple[float, Floats, Floats] | None = None
    for terms in range(1, min(MOST_TERMS, len(levels) - 1 or 1) + 1):
        powers = levels[:, None] ** np.arange(terms)
        found = np.asarray(np.linalg.lstsq(powers / scatter[:, None], spreads / scatter, rcond=None)[0], np.float64)
        left = spreads - powers @ found
        score = float(((left / scatter) ** 2).sum()) + terms * np.log(len(levels))
        if best is None or score < best[0]:
            best = (score, found, left)
    assert best is not None
    _, found, left = best
    total = np.average((spreads - np.average(spreads, weights=counts)) ** 2, weights=counts)
    unexplained = np.average(left**2, weights=counts)
    r2 = 1.0 - unexplained / total if total > 0 else 1.0
    expected = np.sqrt(np.average(scatter**2, weights=counts) * (1.0 - len(found) / len(levels)))
    return found, float(max(r2, 0.0)), float(np.sqrt(unexplained)), float(expected)
