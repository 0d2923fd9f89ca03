"""Bit slices of weights and planes of inputs: exact digits whose weighted sum is the number again (DESIGN 2)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.numeric.affine import Ints


def digit_shifts(bits: int, step: int) -> tuple[int, ...]:
    """Bit positions at which digits of `step` bits start, least significant first."""
    return tuple(range(0, bits, step))


def slice_shifts(bits: int, step: int) -> tuple[int, ...]:
    """Bit positions of the slices of a weight, least significant first: all hold `step` bits, the least what is left.

    A cell's error counts by its place value, so a slice that is not full belongs at the bottom (decision 0045).
    """
    return (0, *range(bits - (-(-bits // step) - 1) * step, bits, step))


def slice_weights(w: npt.NDArray[Any], *, bits: int, step: int) -> list[tuple[int, Ints]]:
    """[(shift, digits)] with sum(digits << shift) = w; sign and magnitude, as a differential pair stores them.

    `bits` counts what the slices hold (`compiler.quantize_layers.stored_bits`).  One slice (step >= bits) is the weight
    itself.
    """
    w = np.asarray(w, np.int64)
    if step >= bits:
        return [(0, w)]
    sign, magnitude, shifts = np.sign(w), np.abs(w), (*slice_shifts(bits, step), bits)
    return [(a, sign * ((magnitude >> a) & ((1 << b - a) - 1))) for a, b in pairwise(shifts)]


def offset_slices(w: npt.NDArray[Any], *, bits: int, step: int) -> list[tuple[Ints, int]]:
    """[(what cells hold, what the reference column holds)] of the same slices, where cells hold w + 2**(bits - 1)."""
    middle = 1 << (bits - 1)
    whole = np.asarray(w, np.int64) + middle
    if step >= bits:
        return [(whole, middle)]
    shifts = (*slice_shifts(bits, step), bits)
    return [((whole >> a) & ((1 << b - a) - 1), middle >> a if b == bits else 0) for a, b in pairwise(shifts)]


def input_planes(x: npt.NDArray[Any], *, bits: int, step: int, signed: bool) -> list[tuple[int, Ints]]:
    """[(shift, digits)] with sum(digits << shift) = x; the top digit of two's complement inputs is signed."""
    x = np.asarray(x, np.int64)
    if step >= bits:
        return [(0, x)]
    mask, shifts = (1 << step) - 1, digit_shifts(bits, step)
    planes = [(s, (x >> s) & mask) for s in shifts[:-1]]
    top = x >> shifts[-1]  # arithmetic: carries the sign of signed inputs
    return [*planes, (shifts[-1], top if signed else top & mask)]
