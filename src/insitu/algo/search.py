"""Ranges by error: the step whose rounding and clipping together cost least on the calibration sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.calibrate import Range
from insitu.numeric.affine import QuantSpec, dequantize, quantize

Floats = npt.NDArray[np.float64]
QUIET = 0.5  # of the mean square that rows are driven with, below which a bit of resolution is worth less
SHRINK = tuple(2.0 ** (-i / 8) for i in range(49))  # ranges tried, of the largest magnitude seen
PATIENCE = 3  # ranges tried past the best one
LOOKED_AT = 1 << 15  # elements an error is measured on
TINY = 1e-30  # below this a value counts as always 0
ROOMS = (1.0, 1.25, 1.5, 2.0, 3.0)  # times the range that a normal variable would need
LEAST_ROWS = 16  # positions that say something of tails
SHARES = (1.0, 0.92, 0.84, 0.76, 0.68, 0.6, 0.5)  # steps tried per channel, of the step without clipping
REACH = 4.5  # standard deviations that values reach in use
UNSEEN = 2.0  # as many values at the extremes are expected beside those seen
INSIDE, BINS, FEW = 0.9999, 2048, 1e-4  # of the percentile observer; of the entropy observer, bins and empty ones
DOUBT = 16.0  # a channel's own range counts as its share of positions among this many of the whole value's


def error(values: npt.NDArray[Any], spec: QuantSpec) -> float:
    """Mean square of what quantization changes."""
    return float(np.mean((dequantize(quantize(values, spec), spec) - values) ** 2))


def few_rows(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Evenly spaced rows (all channels of a position) of about LOOKED_AT elements."""
    return values[:: max(1, values.size // LOOKED_AT)]


def best(seen: Range, specs: Iterable[QuantSpec]) -> QuantSpec:
    """The spec that the value's observer picks of specs from wide to narrow.

    mse: the least error, the first of equals; stops once `PATIENCE` specs in a row were worse.  The extremes count once
    each beside the sample, which may lack them, and stand for what was not seen.
    """
    if seen.observer != "mse":
        return OBSERVERS[seen.observer](seen, tuple(specs))
    return _least_error(seen, specs)


def _widest(seen: Range, specs: tuple[QuantSpec, ...]) -> QuantSpec:
    """All that was seen."""
    del seen
    return specs[0]


def _percentile(seen: Range, specs: tuple[QuantSpec, ...]) -> QuantSpec:
    """The narrowest that leaves at most 0.01 % of the sample outside at either end, and the widest where none does."""
    low, high = np.quantile(few_rows(seen.rows), (1.0 - INSIDE, INSIDE))
    ends = [dequantize(np.array([s.lo, s.hi]), s) for s in specs]
    wide = [spec for spec, (a, b) in zip(specs, ends, strict=True) if (a <= low or low >= 0) and b >= high]
    return wide[-1] if wide else specs[0]


def _entropy(seen: Range, specs: tuple[QuantSpec, ...]) -> QuantSpec:
    """The one whose codes tell most of the distribution: least divergence of the histogram from what codes keep of it.

    As in Migacz, 8-bit inference with TensorRT, GTC 2017: what is clipped counts at the ends, a code's share is spread
    evenly over its bins that were met.  Zeros, which every range holds, are not counted: behind a ReLU they are most.
    """
    values = few_rows(seen.rows)
    counts, edges = np.histogram(values[values != 0], bins=BINS)
    middles = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
    return min(specs, key=lambda spec: _divergence(counts.astype(np.float64), middles, spec))


def _divergence(counts: Floats, middles: npt.NDArray[np.float32], spec: QuantSpec) -> float:
    low, high = dequantize(np.array([spec.lo, spec.hi]), spec)
    inside = np.flatnonzero((middles >= low) & (middles <= high))
    if not inside.size:
        return float("inf")
    real = counts[inside].copy()
    real[0] += counts[: inside[0]].sum()
    real[-1] += counts[inside[-1] + 1 :].sum()
    codes, met = quantize(middles[inside], spec) - spec.lo, counts[inside] > 0
    shares = np.bincount(codes, counts[inside]) / np.maximum(np.bincount(codes, met), 1.0)
    kept = np.where(met, shares[codes], 0.0)
    p, q = real / max(real.sum(), 1.0), (kept + FEW) / (kept + FEW).sum()
    here = p > 0
    return float((p[here] * np.log(p[here] / q[here])).sum())


OBSERVERS: Mapping[str, Callable[[Range, tuple[QuantSpec, ...]], QuantSpec]] = {
    "mse": lambda seen, specs: _least_error(seen, specs), "minmax": _widest, "percentile": _percentile,
    "entropy": _entropy,
}  # fmt: skip


def _least_error(seen: Range, specs: Iterable[QuantSpec]) -> QuantSpec:
    """`best` by mean square error."""
    values, extremes = few_rows(seen.rows), np.array([seen.low, seen.high])
    rare = UNSEEN / (seen.positions * seen.rows.shape[1])
    found: QuantSpec | None = None
    least, worse = np.inf, 0
    for spec in specs:
        now = error(values, spec) + rare * error(extremes, spec)
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
    return peak * headroom(seen.rows.shape[1] * seen.positions) if peak > TINY else default


def top_code(bits: int, *, signed: bool) -> int:
    """The largest code of a width."""
    return (1 << (bits - signed)) - 1


def asymmetric(seen: Range, *, signed: bool, default: float = 1.0, bits: int = 8) -> QuantSpec:
    """Any scale and zero point; the range always holds 0."""
    if seen.peak <= TINY:
        zero = -(1 << (bits - 1)) if signed else 0
        return QuantSpec(bits, signed=signed, scale=(default / top_code(bits, signed=False),), zero_point=zero)
    wide = headroom(seen.rows.shape[1] * seen.positions)
    return best(seen, (_asymmetric(seen, signed=signed, shrink=s * wide, bits=bits) for s in SHRINK))


def _asymmetric(seen: Range, *, signed: bool, shrink: float, bits: int) -> QuantSpec:
    low, high = min(seen.low, 0.0) * shrink, max(seen.high, 0.0) * shrink
    codes, base = top_code(bits, signed=False), -(1 << (bits - 1)) if signed else 0
    scale = (high - low) / codes
    zero = int(np.clip(np.rint(base - low / scale), base, base + codes))
    return QuantSpec(bits, signed=signed, scale=(scale,), zero_point=zero)


def drives_much(seen: Range, spec: QuantSpec) -> bool:
    """Whether a spec's codes drive rows much harder than values around a code 0 at 0 would.

    Cells err and reads are noisy by the squares of codes: by those of values less what code 0 stands for, in real
    numbers, however fine the codes are.
    """
    rows, middle = few_rows(seen.rows), -spec.zero_point * max(spec.scale)
    return bool(np.square(rows).mean() < QUIET * np.square(rows - middle).mean())


def symmetric(seen: Range, *, relu: bool, default: float = 1.0, bits: int = 8) -> QuantSpec:
    """Zero point 0, signed; with a ReLU only half of the codes occur."""
    peak, top = peak_of(seen, relu=relu, default=default), top_code(bits, signed=True)
    return best(seen, (QuantSpec(bits, signed=True, scale=(peak * s / top,)) for s in SHRINK))


def unsigned(seen: Range, *, default: float = 1.0) -> QuantSpec:
    """Zero point 0, codes 0..255."""
    peak = peak_of(seen, relu=True, default=default)
    return best(seen, (QuantSpec(8, signed=False, scale=(peak * s / 255,)) for s in SHRINK))


def power_of_two(seen: Range, *, base: float, signed: bool, default: float = 1.0, bits: int = 8) -> QuantSpec:
    """Zero point 0 and a scale of `base` times a power of two."""
    peak, top = peak_of(seen, relu=not signed, default=default), top_code(bits, signed=signed)
    exponent = int(np.ceil(np.log2(peak / top / base)))
    return best(seen, (QuantSpec(bits, signed=signed, scale=(base * 2.0 ** (exponent - e),)) for e in range(7)))


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


def headroom(count: int) -> float:
    """How much farther than the largest of `count` values others will reach: as for a normal variable."""
    return max(1.0, REACH / float(np.sqrt(2 * np.log(max(count, 2)))))


def channel_steps(seen: Range, *, below: int, above: int, bound: float = np.inf, tails: bool = False) -> Steps:
    """Costs of steps for codes from -below to above.

    A channel's extremes are trusted as far as it was seen often; a seldom seen one leans on the whole value's.
    `bound` is the largest number an activation lets through; with `tails` ranges are as wide as halves of what was
    seen ask for (products; sums over many rows are nearly normal).
    """
    reach = np.maximum(seen.high_of, 0) / above if above else np.zeros_like(seen.high_of)
    if below:
        reach = np.maximum(reach, -seen.low_of / below)
    whole = float(reach.max()) * headroom(seen.positions * len(reach))
    whole = min(whole, max(float(reach.max()), bound / above)) if above else whole
    room = _tails(seen.rows, below=below, above=above) if tails else 1.0
    own = np.minimum(reach * headroom(seen.positions) * room, whole)
    natural = (seen.positions * own + DOUBT * whole) / (seen.positions + DOUBT)
    natural = np.maximum(natural, max(whole, TINY) * np.where(reach > 0, 2.0**-10, 2.0**-6))
    rows = seen.rows
    far = UNSEEN / seen.positions * (natural * above) ** 2
    table = [_squared(rows, natural * s, below, above) + far * (1 - s) ** 2 for s in SHARES]
    return Steps(natural, np.stack(table))


def _tails(rows: npt.NDArray[np.float32], *, below: int, above: int) -> float:
    """How much wider channels' ranges must be than a normal variable's: what serves the half they were not taken from.

    Tails of products are long: a number far out, clipped, costs more than all rounding of its channel.
    """
    half, power = len(rows) // 2, rows.var(axis=0, dtype=np.float64)
    live = power > 0
    if half < LEAST_ROWS or not live.any():
        return 1.0
    costs = np.zeros(len(ROOMS))
    for seen, other in ((rows[:half], rows[half:]), (rows[half:], rows[:half])):
        reach = np.maximum(seen.max(axis=0), 0) / above if above else np.zeros(rows.shape[1])
        reach = np.maximum(reach, -seen.min(axis=0) / below) if below else reach
        base = np.maximum(np.maximum(reach, reach.max() * 2.0**-10), TINY) * headroom(half)
        costs += [float((_squared(other, base * room, below, above)[live] / power[live]).mean()) for room in ROOMS]
    return ROOMS[int(np.argmin(costs))]


def _squared(rows: npt.NDArray[np.float32], steps: Floats, below: int, above: int) -> Floats:
    return ((np.clip(np.rint(rows / steps), -below, above) * steps - rows) ** 2).mean(axis=0)
