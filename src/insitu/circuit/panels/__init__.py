"""Weights packed the way registers take them, and products with them whose bytes depend on no library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
WIDE = 16  # columns of a panel: two vectors of eight, which lie side by side in memory row after row
STEPS = 4095  # of the largest variance of a column; with as many of the largest square, 128 rows add up within int32


@dataclass(frozen=True)
class Panels:
    """Rows of a float32 matrix [rows, columns], WIDE columns a panel, the last one filled up with zeros."""

    data: Floats  # [columns / WIDE, rows of the whole matrix, WIDE]
    columns: int
    begin: int
    end: int

    __array_ufunc__ = None  # an array leaves `x @ panels` to these

    def __rmatmul__(self, x: Array) -> Floats:
        """X [vectors, rows] times the matrix; an element is the same whatever other vectors are there."""
        from insitu.circuit.panels.kernels import product

        x = _together(x)
        out = np.empty((len(x), self.columns), np.float32)
        product(x, 0, self.data, self.begin, out)
        return out

    @property
    def dense(self) -> Floats:
        """The matrix [rows, columns], a copy."""
        part = self.data[:, self.begin : self.end].transpose(1, 0, 2)
        return np.ascontiguousarray(part.reshape(self.end - self.begin, -1)[:, : self.columns])


@dataclass(frozen=True)
class Variances:
    """Non-negative rows of a matrix in 12 bits, two rows beside each other, for sums of squares.

    A sum over n rows is right to some 2e-4 / sqrt(n / 16).
    """

    data: npt.NDArray[np.int16]  # [columns / WIDE, pairs of rows of the whole matrix, 2 * WIDE]
    grain: Floats  # [columns], what a step is worth
    begin: int  # in pairs

    def dense(self, rows: int) -> Floats:
        """The matrix [rows, columns] as it was rounded, a copy."""
        wide, pairs = len(self.data), -(-rows // 2)
        both = self.data[:, self.begin : self.begin + pairs].reshape(wide, pairs, WIDE, 2)
        steps = both.transpose(1, 3, 0, 2).reshape(2 * pairs, wide * WIDE)
        return steps[:rows, : len(self.grain)].astype(np.float32) * self.grain

    def under(self, x: Array) -> Floats:
        """The squares of x [vectors, rows] times the matrix."""
        from insitu.circuit.panels.kernels import square_product, squares_of

        x = _together(x)
        out = np.empty((len(x), len(self.grain)), np.float32)
        words, steps = squares_of(x, 0, len(x))
        square_product(words, steps, self.data, self.begin, self.grain, out)
        return out


def packed(matrix: Array) -> Panels:
    """The panels of a matrix [rows, columns]."""
    rows, columns = matrix.shape
    wide = -(-columns // WIDE)
    padded = np.zeros((rows, wide * WIDE), np.float32)
    padded[:, :columns] = matrix
    return Panels(np.ascontiguousarray(padded.reshape(rows, wide, WIDE).transpose(1, 0, 2)), columns, 0, rows)


def packed_variances(matrix: Array) -> Variances:
    """A matrix [rows, columns] without negative elements, rounded to STEPS of each column's largest."""
    rows, columns = matrix.shape
    wide, pairs = -(-columns // WIDE), -(-rows // 2)
    grain = matrix.max(axis=0, initial=0.0) / STEPS
    padded = np.zeros((2 * pairs, wide * WIDE), np.int16)
    padded[:rows, :columns] = np.rint(matrix / np.where(grain > 0, grain, 1.0))
    data = padded.reshape(pairs, 2, wide, WIDE).transpose(2, 0, 3, 1).reshape(wide, pairs, 2 * WIDE)
    return Variances(np.ascontiguousarray(data), grain.astype(np.float32), 0)


def _together(x: Array) -> Floats:
    """X in float32 whose vectors, or whose rows, lie together in memory."""
    x = np.asarray(x, np.float32)
    return x if x.flags.c_contiguous or x.flags.f_contiguous else np.ascontiguousarray(x)
