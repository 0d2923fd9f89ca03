"""Bit slices of weights and planes of inputs: exact digits whose weighted sum is the number again (DESIGN 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.numeric.affine import Ints


def digit_shifts(bits: int, step: int) -> tuple[int, ...]:
    """Bit positions at which digits of `step` bits start, least significant first."""
    return tuple(range(0, bits, step))


def slice_weights(w: npt.NDArray[Any], *, bits: int, step: int) -> list[tuple[int, Ints]]:
    """[(shift, digits)] with sum(digits << shift) = w; sign and magnitude, as a differential pair stores them.

    `bits` counts the magnitude.  One slice (step >= bits) is the weight itself.
    """
    w = np.asarray(w, np.int64)
    if step >= bits:
        return [(0, w)]
    sign, magnitude, mask = np.sign(w), np.abs(w), (1 << step) - 1
    return [(s, sign * ((magnitude >> s) & mask)) for s in digit_shifts(bits, step)]


def input_planes(x: npt.NDArray[Any], *, bits: int, step: int, signed: bool) -> list[tuple[int, Ints]]:
    """[(shift, digits)] with sum(digits << shift) = x; the top digit of two's complement inputs is signed."""
    x = np.asarray(x, np.int64)
    if step >= bits:
        return [(0, x)]
    mask, shifts = (1 << step) - 1, digit_shifts(bits, step)
    planes = [(s, (x >> s) & mask) for s in shifts[:-1]]
    top = x >> shifts[-1]  # arithmetic: carries the sign of signed inputs
    return [*planes, (shifts[-1], top if signed else top & mask)]
