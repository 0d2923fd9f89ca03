"""What a macro's readout makes of an exact column sum, in integers (DESIGN 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.numeric.affine import Ints, round_shift

WTM_BIAS_UNIT = 128  # a bias row is driven with this input code (wtm2101.md 0)


def adc_code(
    acc: npt.NDArray[Any], multiplier: npt.NDArray[Any] | int, shift: npt.NDArray[Any] | int, *, bits: int, signed: bool
) -> Ints:
    """Code = clip(half_even(acc * M / 2**S), lo, hi): a mid-tread converter of `bits` bits."""
    lo, hi = adc_range(bits, signed=signed)
    product = np.asarray(acc, np.int64) * np.asarray(multiplier, np.int64)
    return np.clip(round_shift(product, shift, "half_even"), lo, hi)


def adc_range(bits: int, *, signed: bool) -> tuple[int, int]:
    """The codes of a converter: two's complement when differential, from 0 when unipolar."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def wtm2101_code(acc: npt.NDArray[Any], gain: npt.NDArray[Any] | int, *, lo: int = -128, hi: int = 127) -> Ints:
    """clip((trunc(4 * acc / G) + 2) >> 2, lo, hi); `acc` includes the bias rows, `gain` is a power of two.

    Source: reference measurements of the vendor's dumps, 100 % over 1.6 M outputs (docs/design/wtm2101.md).
    """
    gain = np.asarray(gain, np.int64)
    shift = np.rint(np.log2(gain.astype(np.float64))).astype(np.int64)
    return np.clip(round_shift(np.asarray(acc, np.int64), shift, "trunc_q2"), lo, hi)


def finer_step(multiplier: int, shift: int, up: int) -> tuple[int, int]:
    """(M, S) of a converter's step 2**S / M made 2**up times finer."""
    return multiplier << max(up - shift, 0), max(shift - up, 0)


def wtm2101_join(partials: Ints, k: int, *, lo: int, hi: int = 127, finer: Sequence[int] = ()) -> Ints:
    """Sum of signed partial codes (first axis), read at G / 2**k each: clip(half_even(sum / 2**k), lo, hi).

    Part i may be read at G / 2**(k + finer[i]); codes are brought to the finest step before they are added.
    """
    most = max(finer, default=0)
    if most:
        partials = np.stack([p << (most - up) for p, up in zip(partials, finer, strict=True)])
    return np.clip(round_shift(partials.sum(axis=0), k + most, "half_even"), lo, hi)
