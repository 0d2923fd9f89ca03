"""Ranges by error: the step whose rounding and clipping together cost least on the calibration sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.calibrate import Range
from insitu.numeric.affine import QuantSpec, dequantize, quantize

Floats = npt.NDArray[np.float64]
SHRINK = tuple(2.0 ** (-i / 8) for i in range(49))  # ranges tried, of the largest magnitude seen
PATIENCE = 3  # ranges tried past the best one
LOOKED_AT = 1 << 15  # elements an error is measured on
TINY = 1e-30  # below this a value counts as always 0
SHARES = (1.0, 0.92, 0.84, 0.76, 0.68, 0.6, 0.5)  # steps tried per channel, of the step without clipping
DOUBT = 16.0  # a channel's own range counts as its share of positions among this many of the whole value's


def error(values: npt.NDArray[Any], spec: QuantSpec) -> float:
    """Mean square of what quantization changes."""
    return float(np.mean((dequantize(quantize(values, spec), spec) - values) ** 2))


def few_rows(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Evenly spaced rows (all channels of a position) of about LOOKED_AT elements."""
    return values[:: max(1, values.size // LOOKED_AT)]


def best(values: npt.NDArray[Any], specs: Iterable[QuantSpec]) -> QuantSpec:
    """The spec with the least error; the first of equals.  Stops once `PATIENCE` specs in a row were worse."""
    values = few_rows(values)
    found: QuantSpec | None = None
    least, worse = np.inf, 0
    for spec in specs:
        now = error(values, spec)
        if found is None or now < least:
            found, least, worse = spec, now, 0
        else:
            worse += 1
        if worse >= PATIENCE:
            break
    assert found is not None
    return found


def peak_of(seen: Range, *, relu: bool, default: float) -> float:
    """The largest magnitude that codes must reach; `default` for a value that is always 0."""
    peak = seen.high if relu else seen.peak
    return peak if peak > TINY else default


def asymmetric(seen: Range, *, signed: bool, default: float = 1.0) -> QuantSpec:
    """8 bits, any scale and zero point; the range always holds 0."""
    if seen.peak <= TINY:
        return QuantSpec(8, signed=signed, scale=(default / 255,), zero_point=-128 if signed else 0)
    return best(seen.rows, (_asymmetric(seen, signed=signed, shrink=s) for s in SHRINK))


def _asymmetric(seen: Range, *, signed: bool, shrink: float) -> QuantSpec:
    low, high = min(seen.low, 0.0) * shrink, max(seen.high, 0.0) * shrink
    scale, base = (high - low) / 255, -128 if signed else 0
    zero = int(np.clip(np.rint(base - low / scale), base, base + 255))
    return QuantSpec(8, signed=signed, scale=(scale,), zero_point=zero)


def symmetric(seen: Range, *, relu: bool, default: float = 1.0) -> QuantSpec:
    """Zero point 0, signed 8 bits; with a ReLU only codes 0..127 occur."""
    peak = peak_of(seen, relu=relu, default=default)
    return best(seen.rows, (QuantSpec(8, signed=True, scale=(peak * s / 127,)) for s in SHRINK))


def unsigned(seen: Range, *, default: float = 1.0) -> QuantSpec:
    """Zero point 0, codes 0..255."""
    peak = peak_of(seen, relu=True, default=default)
    return best(seen.rows, (QuantSpec(8, signed=False, scale=(peak * s / 255,)) for s in SHRINK))


def power_of_two(seen: Range, *, base: float, signed: bool, default: float = 1.0) -> QuantSpec:
    """Zero point 0 and a scale of `base` times a power of two."""
    peak, top = peak_of(seen, relu=not signed, default=default), 127 if signed else 255
    exponent = int(np.ceil(np.log2(peak / top / base)))
    return best(seen.rows, (QuantSpec(8, signed=signed, scale=(base * 2.0 ** (exponent - e),)) for e in range(7)))


@dataclass(frozen=True)
class Steps:
    """What each channel's rounding and clipping cost at any step.

    `natural` is the smallest step that clips nothing, `table` the mean square error at each of SHARES of it.
    """

    natural: Floats
    table: Floats

    def cost(self, steps: Floats) -> Floats:
        """Mean square error per channel: from the table below the natural step, growing with its square above."""
        share = steps / self.natural
        place = np.interp(-np.log(np.clip(share, SHARES[-1], 1.0)), -np.log(SHARES), np.arange(len(SHARES)))
        low = np.minimum(place.astype(int), len(SHARES) - 2)
        at, part = np.arange(len(steps)), place - low
        inside = self.table[low, at] * (1 - part) + self.table[low + 1, at] * part
        return inside * np.maximum(share, 1.0) ** 2

    @property
    def least(self) -> Floats:
        """The step of least error per channel."""
        return self.natural * np.asarray(SHARES)[np.argmin(self.table, axis=0)]


def channel_steps(seen: Range, *, below: int, above: int) -> Steps:
    """Costs of steps for codes from -below to above.

    A channel's extremes are trusted as far as it was seen often; a seldom seen one leans on the whole value's.
    """
    reach = np.maximum(seen.high_of, 0) / above
    if below:
        reach = np.maximum(reach, -seen.low_of / below)
    whole = float(reach.max())
    natural = (seen.positions * reach + DOUBT * whole) / (seen.positions + DOUBT)
    natural = np.maximum(natural, max(whole, TINY) * np.where(reach > 0, 2.0**-10, 2.0**-6))
    rows = np.asarray(seen.rows, np.float32)
    table = [_squared(rows, natural * s, below, above) for s in SHARES]
    return Steps(natural, np.stack(table))


def _squared(rows: Floats, steps: Floats, below: int, above: int) -> Floats:
    return ((np.clip(np.rint(rows / steps), -below, above) * steps - rows) ** 2).mean(axis=0)
