"""Ranges by error: the scale whose rounding and clipping together cost least on the calibration sample."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.calibrate import Range
from insitu.numeric.affine import QuantSpec, dequantize, quantize

SHRINK = tuple(float(s) for s in np.linspace(1.0, 0.5, 21))


def error(values: npt.NDArray[Any], spec: QuantSpec) -> float:
    """Mean square of what quantization changes."""
    return float(np.mean((dequantize(quantize(values, spec), spec) - values) ** 2))


def best(values: npt.NDArray[Any], specs: Iterable[QuantSpec]) -> QuantSpec:
    """The spec with the least error; the first of equals."""
    return min(((error(values, s), i, s) for i, s in enumerate(specs)), key=lambda t: t[:2])[2]


def asymmetric(seen: Range, *, signed: bool, bits: int = 8) -> QuantSpec:
    """Any scale and zero point; the range always holds 0."""
    return best(seen.sample, [_asymmetric(seen, signed=signed, bits=bits, shrink=s) for s in SHRINK])


def _asymmetric(seen: Range, *, signed: bool, bits: int, shrink: float) -> QuantSpec:
    low, high = min(seen.low, 0.0) * shrink, max(seen.high, 0.0) * shrink
    scale = max((high - low) / ((1 << bits) - 1), 1e-12)
    base = -(1 << (bits - 1)) if signed else 0
    zero = int(np.clip(np.rint(base - low / scale), base, base + (1 << bits) - 1))
    return QuantSpec(bits, signed=signed, scale=(scale,), zero_point=zero)


def symmetric(seen: Range, *, relu: bool) -> QuantSpec:
    """Zero point 0, signed 8 bits; with a ReLU only codes 0..127 occur."""
    peak = max(seen.high if relu else max(-seen.low, seen.high), 1e-12)
    return best(seen.sample, [QuantSpec(8, signed=True, scale=(peak * s / 127,)) for s in SHRINK])


def unsigned(seen: Range) -> QuantSpec:
    """Zero point 0, codes 0..255."""
    peak = max(seen.high, 1e-12)
    return best(seen.sample, [QuantSpec(8, signed=False, scale=(peak * s / 255,)) for s in SHRINK])


def power_of_two(seen: Range, *, signed: bool, bits: int, relu: bool = False) -> QuantSpec:
    """Zero point 0 and a power-of-two scale."""
    peak = max(seen.high if relu else max(-seen.low, seen.high), 1e-12)
    top = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
    exponent = int(np.ceil(np.log2(peak / top)))
    return best(seen.sample, [QuantSpec(bits, signed=signed, scale=(2.0**e,)) for e in (exponent, exponent - 1, exponent - 2)])
