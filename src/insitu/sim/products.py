"""Exact products of codes and weights: float32 or float64 matrix products where they cannot round, int64 else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FLOAT32_EXACT = 1 << 24
FLOAT64_EXACT = 1 << 53


def product_bound(weights: Array, *, peak: int, bias: Array | None) -> int:
    """max|x| * max_c sum_r |w[r, c]| + |bias|: no partial sum in any order is larger (DESIGN 2)."""
    columns = np.abs(weights.astype(np.int64)).sum(axis=0)
    extra = int(np.abs(bias.astype(np.int64)).max(initial=0)) if bias is not None else 0
    return peak * int(columns.max(initial=0)) + extra


def product_type(bound: int) -> npt.DTypeLike:
    """The fastest type whose product is exact below `bound`."""
    return np.float32 if bound < FLOAT32_EXACT else np.float64 if bound < FLOAT64_EXACT else np.int64


@dataclass(frozen=True)
class Matrix:
    """Weights in the type their product is exact in; `bound` is above any sum with its bias."""

    data: Array
    bound: int

    @cached_property
    def panels(self) -> Array:
        """Float32 weights [columns / COLUMNS, rows, COLUMNS] as insitu.sim.direct.kernels takes them."""
        from insitu.sim.direct.kernels import COLUMNS

        rows, columns = self.data.shape
        wide = -(-columns // COLUMNS)
        padded = np.zeros((rows, wide * COLUMNS), np.float32)
        padded[:, :columns] = self.data
        return np.ascontiguousarray(padded.reshape(rows, wide, COLUMNS).transpose(1, 0, 2))

    def times(self, x: Array) -> Array:
        """X [n, rows] times the weights, exact integers in the product's type."""
        return np.asarray(x, self.data.dtype) @ self.data


def exact_matrix(weights: Array, *, peak: int, bias: Array | None = None) -> Matrix:
    """The matrix to multiply codes of magnitude up to `peak` with."""
    bound = product_bound(weights, peak=peak, bias=bias)
    return Matrix(np.ascontiguousarray(weights.astype(product_type(bound))), bound)
