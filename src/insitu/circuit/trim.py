"""Trims of columns: gain and offset of each converter input, set from what known inputs were read as.

A column reads a * wanted + b.  Estimates from few inputs are uncertain; of what tells columns apart only the share
that stands out of that uncertainty is believed (an empirical Bayes estimate: Efron and Morris, JASA 68:117, 1973).
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
    """By column: the signal is multiplied by `gain` after `offset` codes were taken from it."""

    gain: Floats
    offset: Floats


def column_trims(wanted: Floats, seen: Floats, weight: Floats, *, lo: float, hi: float) -> Trims:
    """Trims for what known inputs should give and were read as, both [inputs, columns] in codes.

    `weight` [inputs] says how much each input counts.  Readings near the ends lo, hi of the converter do not.
    """
    whole = weight[:, None] * ((wanted > lo + 1) & (wanted < hi - 1) & (seen > lo) & (seen < hi))
    total = np.maximum(whole.sum(axis=0), 1e-30)
    count = np.maximum(total**2 / np.maximum((whole**2).sum(axis=0), 1e-30), 1e-30)
    mean, mean_seen = (whole * wanted).sum(axis=0) / total, (whole * seen).sum(axis=0) / total
    x, y = wanted - mean, seen - mean_seen
    power = (whole * x * x).sum(axis=0) / total
    known = (power > 0) & (count > 3)
    slope = np.where(known, (whole * x * y).sum(axis=0) / total / np.where(known, power, 1.0), 1.0)
    rest = (whole * (y - slope * x) ** 2).sum(axis=0) / total * count / np.maximum(count - 2.0, 1.0)
    error = np.where(known, rest / np.where(known, power * count, 1.0), 0.0)
    slope = _believed(slope, error, known, around=None)
    found = np.where(known, mean_seen - slope * mean, 0.0)
    offset = _believed(found, rest / np.maximum(count, 1.0), known, around=0.0)
    gain = np.clip(np.rint(1.0 / np.clip(slope, 0.25, 4.0) / GAIN_STEP) * GAIN_STEP, 1.0 / GAIN_MOST, GAIN_MOST)
    reach = (hi - lo) / 4.0
    return Trims(gain, np.clip(np.rint(offset / OFFSET_STEP) * OFFSET_STEP, -reach, reach))


def _believed(found: Floats, error: Floats, known: npt.NDArray[np.bool_], *, around: float | None) -> Floats:
    """Estimates drawn toward `around` (their mean without it) as far as their own variance `error` explains them."""
    if not known.any():
        return found
    middle = float(found[known].mean()) if around is None else around
    spread = float(((found[known] - middle) ** 2).mean())
    own = max(spread - float(error[known].mean()), 0.0)
    keep = own / np.maximum(own + error, 1e-30)
    return np.where(known, middle + keep * (found - middle), middle)
