"""Drift of cells that were read more than once: level ~ ((t + t0) / t0)^-nu, nu of its own for every cell.

Where a cell's first reading is at a time above zero that time is t0 (level ~ time^-nu).  Where it is at zero, t0 comes
from the shape of the mean curve, which takes two later times; with one, t0 is an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from insitu.device.measured import Floats, Ints, Measurements

ASSUMED_T0 = 1.0
ENOUGH = 0.5  # r2 below which a person is told
MOST_TIMES = 50  # distinct times at which the mean curve is held against the law


@dataclass(frozen=True)
class DriftFit:
    """Mean and spread of exponents, how many cells they come from, and what a person should know of them."""

    nu: float = 0.0
    nu_sd: float = 0.0
    t0: float = ASSUMED_T0
    cells: int = 0
    notes: tuple[str, ...] = ()
    assumption: str = ""


def fit_drift(rows: Measurements) -> DriftFit:
    """Exponents of all cells with readings at several times."""
    if not rows.timed:
        return DriftFit()
    if not rows.followed:
        several = len(np.unique(rows.time)) > 1
        notes = ("drift not fitted: a column `cell` would say which readings are of one cell",) if several else ()
        return DriftFit(notes=notes)
    cell, time, level, dropped = _moving(rows)
    notes = [f"{dropped} readings of zero and below left out of the drift"] if dropped else []
    if not len(cell):
        return DriftFit(notes=tuple(notes))
    first = np.full(cell.max() + 1, np.inf)
    np.minimum.at(first, cell, time)
    zero, assumption = bool(np.any(first == 0.0)), ""
    t0 = float(np.median(first))
    if zero and len(np.unique(time)) > 2:
        t0 = _early(cell, time, level)
        notes.append(f"t0 {t0:.3g} s from the curve")
    elif zero:
        t0, assumption = ASSUMED_T0, f"; t0 is an assumption, {ASSUMED_T0:g} s"
        notes.append(f"t0 {t0:g} s is an assumption: readings at 0 and one later time do not show it")
    x = np.log1p(time / t0) if zero else np.log(time)
    exponents, own, r2 = _exponents(cell, x, level)
    nu, spread = float(exponents.mean()), float(exponents.std(ddof=1)) if len(exponents) > 1 else 0.0
    if own is None:
        notes.append("spread of exponents holds the noise of reads: two times a cell do not tell them apart")
    spread = max(spread**2 - (own or 0.0), 0.0) ** 0.5
    if nu < 0:
        notes.append(f"levels grow with time (exponent {nu:.3g}), which is not modelled: no drift")
        return DriftFit(0.0, 0.0, t0, len(exponents), tuple(notes), assumption)
    little = ", which explains little of them" if r2 < ENOUGH else ""
    notes.append(
        f"drift: nu {nu:.3g} +- {spread:.2g}, r2 {r2:.3f} of the changes{little}{_worst(cell, x, time, level, nu)}"
    )
    return DriftFit(
        float(f"{nu:.6g}"), float(f"{spread:.6g}"), float(f"{t0:.6g}"), len(exponents), tuple(notes), assumption
    )


def _moving(rows: Measurements) -> tuple[Ints, Floats, Floats, int]:
    """(cell numbered anew, time, log level) of cells with at least two times; readings that have no logarithm."""
    good = rows.measured > 0
    cell, time, level = rows.cell[good], rows.time[good], np.log(rows.measured[good])
    lowest, highest = np.full(rows.cell.max() + 1, np.inf), np.full(rows.cell.max() + 1, -np.inf)
    np.minimum.at(lowest, cell, time)
    np.maximum.at(highest, cell, time)
    several = (highest > lowest)[cell]
    return np.unique(cell[several], return_inverse=True)[1], time[several], level[several], int((~good).sum())


def _centred(cell: Ints, values: Floats) -> Floats:
    """Values less the mean of their cell's."""
    return values - (np.bincount(cell, values) / np.bincount(cell))[cell]


def _exponents(cell: Ints, x: Floats, level: Floats) -> tuple[Floats, float | None, float]:
    """(exponent of every cell, variance of an exponent from the noise of reads or None, r2 of all changes)."""
    dx, dy = _centred(cell, x), _centred(cell, level)
    width = np.bincount(cell, dx**2)
    slope = np.bincount(cell, dx * dy) / width
    left = (dy - slope[cell] * dx) ** 2
    degrees = int((np.bincount(cell) - 2).sum())
    own = float(left.sum()) / degrees * float((1.0 / width).mean()) if degrees > len(width) // 2 else None
    total = float((dy**2).sum())
    return -slope, own, 1.0 - float(left.sum()) / total if total > 0 else 1.0


def _early(cell: Ints, time: Floats, level: Floats) -> float:
    """t0 with which one law fits the mean of all cells best: tried on a grid, then finer around the best."""
    late = float(time.max())
    soon = float(time[time > 0].min())
    tried = np.geomspace(soon * 1e-4, late * 10.0, 121)
    for _ in range(3):
        misses = [_miss(cell, np.log1p(time / t0), level) for t0 in tried]
        at = int(np.argmin(misses))
        tried = np.geomspace(tried[max(at - 1, 0)], tried[min(at + 1, len(tried) - 1)], 21)
    return float(tried[int(np.argmin([_miss(cell, np.log1p(time / t0), level) for t0 in tried]))])


def _miss(cell: Ints, x: Floats, level: Floats) -> float:
    """What one exponent for all cells leaves of their changes."""
    dx, dy = _centred(cell, x), _centred(cell, level)
    slope = float((dx * dy).sum() / (dx**2).sum())
    return float(((dy - slope * dx) ** 2).sum())


def _worst(cell: Ints, x: Floats, time: Floats, level: Floats, nu: float) -> str:
    """How far the law is from the mean curve at the time where it is furthest."""
    times, place = np.unique(time, return_inverse=True)
    if len(times) > MOST_TIMES:
        return ""
    away = _centred(cell, level) + nu * _centred(cell, x)
    means = np.bincount(place, away) / np.bincount(place)
    at = int(np.argmax(np.abs(means)))
    away_at = abs(float(np.expm1(np.clip(means[at], -50.0, 50.0))))
    return f"; the mean curve is at most {100 * away_at:.2g} % away (at {times[at]:g} s)"
