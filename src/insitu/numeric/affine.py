"""Quantized numbers: what an integer stands for, and how wide results become narrow ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from insitu.base.errors import RangeError

Rounding = Literal["half_even", "half_away", "half_up", "floor", "trunc", "trunc_q2"]
ROUNDINGS: tuple[Rounding, ...] = ("half_even", "half_away", "half_up", "floor", "trunc", "trunc_q2")

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class QuantSpec:
    """What the integers of a tensor stand for: real = (q - zero_point) * scale.

    `scale` holds one number, or one per index of `axis`.  `lo` and `hi` narrow the codes in use (a fused ReLU).
    """

    bits: int
    signed: bool
    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 32:
            raise RangeError("QuantSpec.bits", str(self.bits), "1 to 32")
        if not self.scale or not all(s > 0 and np.isfinite(s) for s in self.scale):
            raise RangeError("QuantSpec.scale", str(self.scale), "positive finite numbers")
        if (self.axis is None) != (len(self.scale) == 1) and self.axis is None:
            raise RangeError("QuantSpec.axis", "none", "an axis, since there are several scales")
        if not self.lo <= self.zero_point <= self.hi:
            raise RangeError("QuantSpec.zero_point", str(self.zero_point), f"{self.lo} to {self.hi}")

    @property
    def lo(self) -> int:
        """The smallest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def hi(self) -> int:
        """The largest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    def scales(self, rank: int) -> Floats:
        """The scale shaped to broadcast against a tensor of `rank` dimensions."""
        values = np.asarray(self.scale, np.float64)
        if self.axis is None:
            return values.reshape(())
        shape = [1] * rank
        shape[self.axis] = len(values)
        return values.reshape(shape)


def quantize(x: npt.NDArray[Any], spec: QuantSpec) -> Ints:
    """Real numbers to codes, rounded half to even and clipped.

    float32 numbers over scales that float32 holds are divided in float32, as ONNX's QuantizeLinear does: the codes of a
    model with its own scales are then ONNX's, ties included.
    """
    real, scales = np.asarray(x), spec.scales(np.ndim(x))
    single = real.dtype == np.float32 and bool(np.all(scales == scales.astype(np.float32)))
    ratio = real / scales.astype(np.float32) if single else np.asarray(real, np.float64) / scales
    return np.clip(np.rint(ratio).astype(np.float64) + spec.zero_point, spec.lo, spec.hi).astype(np.int64)


def dequantize(q: npt.NDArray[Any], spec: QuantSpec) -> Floats:
    """Codes to the real numbers they stand for."""
    codes = np.asarray(q, np.int64)
    return (codes - spec.zero_point) * spec.scales(codes.ndim)


def round_shift(value: npt.NDArray[Any], shift: npt.NDArray[Any] | int, mode: Rounding) -> Ints:
    """Value / 2**shift as an integer, rounded by `mode`; exact for every int64 value and shift 0..62.

    Works on quotient and remainder, so nothing is added that could overflow.
    """
    value = np.asarray(value, np.int64)
    shift = np.asarray(shift, np.int64)
    if mode == "trunc_q2":  # wtm2101: keep two fractional bits toward zero, then half up
        fine = round_shift(value, np.maximum(shift - 2, 0), "trunc")
        up = (fine & 3) >= 2
        return np.where(shift >= 2, (fine >> 2) + up, round_shift(value, np.minimum(shift, 1), "half_up"))
    quotient = value >> shift
    rest = value - (quotient << shift)  # 0 <= rest < 2**shift
    twice = rest << 1
    whole = np.int64(1) << shift
    if mode == "floor":
        up = np.zeros_like(rest, dtype=bool)
    elif mode == "trunc":
        up = (value < 0) & (rest > 0)
    elif mode == "half_up":
        up = twice >= whole
    elif mode == "half_away":
        up = (twice > whole) | ((twice == whole) & (value > 0))
    else:
        up = (twice > whole) | ((twice == whole) & (quotient & 1 == 1))
    up = up & (shift > 0)
    return np.asarray(quotient + up, np.int64)


def requantize(
    acc: npt.NDArray[Any],
    multiplier: npt.NDArray[Any] | int,
    shift: npt.NDArray[Any] | int,
    *,
    zero_point: int,
    lo: int,
    hi: int,
    rounding: Rounding = "half_even",
) -> Ints:
    """clip(round(acc * multiplier / 2**shift) + zero_point, lo, hi); the product is int64 (DESIGN 2)."""
    product = np.asarray(acc, np.int64) * np.asarray(multiplier, np.int64)
    return np.clip(round_shift(product, shift, rounding) + zero_point, lo, hi)


def multiplier_of(ratio: npt.NDArray[Any] | float, *, power_of_two: bool = False) -> tuple[Ints, Ints]:
    """(multiplier, shift) with multiplier / 2**shift closest to `ratio`; 31 significant bits, or a pure power of two.

    A ratio below 2**-63 becomes 0, to which it brings every int32.  Raises RangeError when a ratio is not positive and
    finite, or too large.
    """
    ratio = np.atleast_1d(np.asarray(ratio, np.float64))
    if not np.all(np.isfinite(ratio) & (ratio > 0)):
        raise RangeError(
            "requantize ratio", str(ratio[~(np.isfinite(ratio) & (ratio > 0))][:1]), "positive finite numbers"
        )
    if power_of_two:
        exponent = np.rint(np.log2(ratio)).astype(np.int64)
        multiplier, shift = np.int64(1) << np.clip(exponent, 0, 62), np.clip(-exponent, 0, 62)
        multiplier = np.where(exponent < -62, 0, multiplier)
    else:
        mantissa, exponent = np.frexp(ratio)  # ratio = mantissa * 2**exponent, mantissa in [0.5, 1)
        multiplier = np.rint(mantissa * (1 << 31)).astype(np.int64)
        carry = multiplier == 1 << 31
        multiplier, exponent = np.where(carry, 1 << 30, multiplier), exponent.astype(np.int64) + carry
        shift = 31 - exponent
        excess = np.maximum(shift - 62, 0)  # ratios below 2**-31 keep fewer bits
        multiplier, shift = round_shift(multiplier, np.minimum(excess, 62), "half_even"), shift - excess
        even = np.where(multiplier > 0, multiplier & -multiplier, 1)  # powers of two read as 1 / 2**n
        drop = np.minimum(np.rint(np.log2(even.astype(np.float64))).astype(np.int64), np.maximum(shift, 0))
        multiplier, shift = multiplier >> drop, shift - drop
    if np.any((shift < 0) | (shift > 62) | (multiplier >= 1 << 31)):
        raise RangeError("requantize ratio", f"{ratio.min():g} to {ratio.max():g}", "ratios below 2**31")
    return multiplier, shift
