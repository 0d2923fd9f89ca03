"""Extremes, mean and variance of arrays by channel: in float64, piece by piece, joined in the order of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
AT_ONCE = 1 << 15  # numbers that the second-level cache holds as float64
LONG = 128  # numbers in a row from which they are summed before the channels are


@dataclass(frozen=True)
class Moments:
    """By channel: smallest, largest, mean and variance of `count` numbers each."""

    low: Floats
    high: Floats
    mean: Floats
    var: Floats
    count: int


def moments(value: Array, axis: int | None) -> Moments:
    """Moments of an array along an axis of channels; one channel without.  Numbers must be finite."""
    at = value.ndim if axis is None else axis % value.ndim
    channels = 1 if axis is None else value.shape[at]
    inner = prod(value.shape[at + 1 :])
    x = np.ascontiguousarray(value).reshape(-1, channels, inner)
    if axis is None:
        x = x.reshape(1, 1, -1)
    if x.shape[2] >= LONG:
        low, high = x.min(axis=2).min(axis=0), x.max(axis=2).max(axis=0)
    else:
        flat = x.reshape(len(x), -1)
        low, high = flat.min(axis=0).reshape(x.shape[1:]).min(axis=1), flat.max(axis=0).reshape(x.shape[1:]).max(axis=1)
    count = value.size // channels
    middle = x[0, :, 0].astype(np.float64)
    total, squares = (_long if x.shape[2] >= LONG else _wide)(x, middle)
    mean = total / count
    var = np.maximum(squares / count - mean**2, 0.0)
    return Moments(low.astype(np.float64), high.astype(np.float64), middle + mean, var, count)


def _long(x: Array, middle: Floats) -> tuple[Floats, Floats]:
    """Sums and sums of squares of x [outer, channels, inner] less `middle`, by channel: rows of inner numbers."""
    outer, channels, inner = x.shape
    rows, less = x.reshape(outer * channels, inner), np.tile(middle, outer)[:, None]
    found = np.zeros((2, outer * channels))
    step = max(1, AT_ONCE // inner)
    for a in range(0, len(rows), step):
        for b in range(0, inner, AT_ONCE):
            part = rows[a : a + step, b : b + AT_ONCE] - less[a : a + step]
            found[0, a : a + step] += part.sum(axis=1)
            found[1, a : a + step] += np.einsum("ij,ij->i", part, part)
    total, squares = found.reshape(2, outer, channels).sum(axis=1)
    return total, squares


def _wide(x: Array, middle: Floats) -> tuple[Floats, Floats]:
    """The same over the outer numbers first."""
    outer, channels, inner = x.shape
    rows, less = x.reshape(outer, channels * inner), np.repeat(middle, inner)
    found = np.zeros((2, channels * inner))
    step = max(1, AT_ONCE // (channels * inner))
    for a in range(0, outer, step):
        part = rows[a : a + step] - less
        found[0] += part.sum(axis=0)
        found[1] += np.einsum("ij,ij->j", part, part)
    total, squares = found.reshape(2, channels, inner).sum(axis=2)
    return total, squares


def joined(parts: Sequence[Moments]) -> Moments:
    """Several as one."""
    count = np.array([p.count for p in parts], np.float64)
    weight = (count / count.sum())[:, None]
    means = np.stack([p.mean for p in parts])
    mean = (weight * means).sum(axis=0)
    var = (weight * (np.stack([p.var for p in parts]) + (means - mean) ** 2)).sum(axis=0)
    low, high = np.min([p.low for p in parts], axis=0), np.max([p.high for p in parts], axis=0)
    return Moments(low, high, mean, var, int(count.sum()))
