"""Functions of codes in fixed point: the same integers in interpreter, simulator and training."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.numeric.affine import Ints

SOFTMAX_ONE = 1 << 15  # exp(0) in the table


def softmax_table(scale: float, codes: int = 256, *, one: int = SOFTMAX_ONE) -> Ints:
    """table[d] = exp(-d * scale) in units of 1 / one, for code differences d = 0..codes-1; error half a unit."""
    return np.rint(np.exp(-np.arange(codes, dtype=np.float64) * scale) * one).astype(np.int64)


def lut_codes(index: npt.NDArray[Any], table: npt.NDArray[Any]) -> Ints:
    """table[index mod entries]: a negative code finds its entry in two's complement."""
    entries = np.asarray(table, np.int64).ravel()
    return entries[np.asarray(index, np.int64) % len(entries)]


def softmax_codes(
    x: npt.NDArray[Any],
    table: npt.NDArray[Any],
    *,
    zero_point: int,
    lo: int,
    hi: int,
    multiplier: int = 1,
    shift: int = 0,
) -> Ints:
    """Softmax over the last axis of codes; the result has scale 2**shift / (256 * multiplier).

    e = table[max - x]; y = clip(half_up(256 * multiplier * e / (2**shift * sum e)) + zero_point, lo, hi), the division
    exact in integers.  Differences past the table count as its last entry.
    """
    codes = np.asarray(x, np.int64)
    distance = np.minimum(codes.max(axis=-1, keepdims=True) - codes, len(table) - 1)
    e = np.asarray(table, np.int64)[distance]
    total = e.sum(axis=-1, keepdims=True)
    whole = total << shift
    return np.clip(((e << 9) * multiplier + whole) // (2 * whole) + zero_point, lo, hi)
