"""Trims of columns: gain and offset of each converter input, set from what known inputs were read as.

A column reads a * wanted + b.  Where inputs come plane by plane, what counts is the sum of a column's codes over
planes: they share the gain in front of the converter, and the sum's offset is the digital side's to take away.
Estimates from few inputs are uncertain; of what tells columns apart only the share that stands out of that uncertainty
is believed (an empirical Bayes estimate: Efron and Morris, JASA 68:117, 1973).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
GAIN_STEP, GAIN_MOST = 2.0**-10, 2.0  # registers of a trim, assumptions: gains of 1/2 to 2 in steps of 0.1 %
OFFSET_STEP = 2.0**-4  # codes


@dataclass(frozen=True)
class Trims:
    """By column: the signal is multiplied by `gain` after `offset` codes were taken from it.

    `after` is taken from the sum of the codes of all planes, in codes of the lowest.
    """

    gain: Floats
    offset: Floats
    after: Floats


def column_trims(wanted: Floats, seen: Floats, *, lo: float, hi: float) -> Trims:
    """Trims for what known inputs should give and were read as, both [inputs, columns] in codes of one conversion.

    Readings near the ends lo, hi of the converter do not count.
    """
    whole = ((wanted > lo + 1) & (wanted < hi - 1) & (seen > lo) & (seen < hi)).astype(np.float64)
    slope, offset = _line(wanted, seen, whole)
    reach = (hi - lo) / 4.0
    offset = np.clip(np.rint(offset / OFFSET_STEP) * OFFSET_STEP, -reach, reach)
    return Trims(_register(slope), offset, np.zeros(len(slope)))


def summed_trims(wanted: Floats, seen: Floats) -> Trims:
    """The same where a column's codes of several planes are added up: both [inputs, columns] in codes of the lowest."""
    slope, offset = _line(wanted, seen, np.ones(wanted.shape))
    gain = _register(slope)
    return Trims(gain, np.zeros(len(gain)), np.rint(offset * gain))


def _register(slope: Floats) -> Floats:
    return np.clip(np.rint(1.0 / np.clip(slope, 0.25, 4.0) / GAIN_STEP) * GAIN_STEP, 1.0 / GAIN_MOST, GAIN_MOST)


def _line(wanted: Floats, seen: Floats, whole: Floats) -> tuple[Floats, Floats]:
    """(slope, offset) of each column, as far as they are believed; `whole` [inputs, columns]: readings that count."""
    total = np.maximum(whole.sum(axis=0), 1e-30)
    mean, mean_seen = (whole * wanted).sum(axis=0) / total, (whole * seen).sum(axis=0) / total
    x, y = wanted - mean, seen - mean_seen
    power = (whole * x * x).sum(axis=0) / total
    known = (power > 0) & (total > 3)
    slope = np.where(known, (whole * x * y).sum(axis=0) / total / np.where(known, power, 1.0), 1.0)
    rest = (whole * (y - slope * x) ** 2).sum(axis=0) / np.maximum(total - 2.0, 1.0)
    error = np.where(known, rest / np.where(known, power * total, 1.0), 0.0)
    slope = _believed(slope, error, known, around=None)
    found = np.where(known, mean_seen - slope * mean, 0.0)
    return slope, _believed(found, rest / total, known, around=0.0)


def _believed(found: Floats, error: Floats, known: npt.NDArray[np.bool_], *, around: float | None) -> Floats:
    """Estimates drawn toward `around` (their mean without it) as far as their own variance `error` explains them."""
    if not known.any():
        return found
    middle = float(found[known].mean()) if around is None else around
    spread = float(((found[known] - middle) ** 2).mean())
    own = max(spread - float(error[known].mean()), 0.0)
    keep = own / np.maximum(own + error, 1e-30)
    return np.where(known, middle + keep * (found - middle), middle)
