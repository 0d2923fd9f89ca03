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


def slice_shifts(bits: int, step: int, shift: int = 0) -> tuple[int, ...]:
    """Bit positions of the slices of a weight, least significant first: all hold `step` bits, the least what is left.

    A cell's error counts by its place value, so a slice that is not full belongs at the bottom (decision 0045).  With
    `shift` they lie that many bits apart, where `bits` counts those of all cells (decision 0047).
    """
    if shift and step < bits:
        return tuple(shift * k for k in range(-(-bits // step)))
    return (0, *range(bits - (-(-bits // step) - 1) * step, bits, step))


def most_weight(step: int, slices: int, shift: int) -> int:
    """The largest magnitude that slices of `step` bits hold, `shift` bits apart."""
    return ((1 << step) - 1) * sum(1 << shift * k for k in range(slices))


def slice_weights(
    w: npt.NDArray[Any], *, bits: int, step: int, shift: int = 0, offset: bool = False
) -> list[tuple[int, Ints]]:
    """[(shift, digits)] with sum(digits << shift) = w; sign and magnitude, as a differential pair stores them.

    `bits` counts what the slices hold (`compiler.quantize_layers.stored_bits`).  One slice (step >= bits) is the weight
    itself.  With `offset` cells hold w + 2**(bits - 1), and a digit is a cell's less its reference column's: only the
    top one has a sign.  Of slices that lie `shift` bits apart each takes the least that lets those below hold the rest,
    so that a small weight lies in cells whose errors count least.
    """
    w = np.asarray(w, np.int64)
    if step >= bits:
        return [(0, w)]
    if offset:
        held, shifts = offset_slices(w, bits=bits, step=step), slice_shifts(bits, step)
        return [(up, cells - reference) for up, (cells, reference) in zip(shifts, held, strict=True)]
    if shift:
        return _overlapping(w, bits, step, shift)
    sign, magnitude, shifts = np.sign(w), np.abs(w), (*slice_shifts(bits, step), bits)
    return [(a, sign * ((magnitude >> a) & ((1 << b - a) - 1))) for a, b in pairwise(shifts)]


def _overlapping(w: Ints, bits: int, step: int, shift: int) -> list[tuple[int, Ints]]:
    sign, rest, shifts = np.sign(w), np.abs(w), slice_shifts(bits, step, shift)
    found: list[tuple[int, Ints]] = []
    for k in range(len(shifts) - 1, 0, -1):
        digit = np.maximum(-((most_weight(step, k, shift) - rest) >> shifts[k]), 0)
        found.insert(0, (shifts[k], sign * digit))
        rest = rest - (digit << shifts[k])
    return [(0, sign * rest), *found]


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
