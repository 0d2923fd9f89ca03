"""Where the vectors of a matrix command lie in memory, as short contiguous lines that kernels walk.

An operand's elements are at start + sample * pitch + rows[r] + runs[j] + i * step: r counts the rows (or columns) of
the matrix, j and i the vectors.  A convolution reads lines along the innermost axis of its map, so its windows are
gathered row by row, without index arithmetic for each element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Lines:
    """Element offsets of an operand, in units of its element type; `memory` is all of its space as that type."""

    memory: Array  # unsigned words
    flip: int  # the sign bit of a signed type, else 0: code = (word ^ flip) - flip
    start: int
    pitch: int
    rows: Ints
    runs: Ints
    length: int
    step: int

    @property
    def vectors(self) -> int:
        """Vectors of one sample."""
        return len(self.runs) * self.length

    @property
    def fields(self) -> tuple[Any, ...]:
        """The lines as kernels take them."""
        return (self.memory, self.flip, self.start, self.pitch, self.rows, self.runs, self.length, self.step)

    def reach(self) -> tuple[int, int]:
        """First element and end of one sample's, from `start`."""
        along = (self.length - 1) * self.step
        low = int(self.rows.min()) + int(self.runs.min()) + min(along, 0)
        return low, int(self.rows.max()) + int(self.runs.max()) + max(along, 0) + 1

    def extent(self) -> tuple[int, int]:
        """First byte and end of one sample's elements, counted in its image."""
        (low, high), wide = self.reach(), self.memory.itemsize
        return (self.start + low) * wide, (self.start + high) * wide


def disjoint(a: Lines, b: Lines) -> bool:
    """Whether two operands surely have no byte in common."""
    if a.memory.ctypes.data != b.memory.ctypes.data:
        return True
    (low, high), (start, end) = a.extent(), b.extent()
    return high <= start or end <= low


def same(a: Lines, b: Lines) -> bool:
    """Whether two operands are the same elements in the same order."""
    if a.memory.ctypes.data != b.memory.ctypes.data or (a.start, a.flip, a.step) != (b.start, b.flip, b.step):
        return False
    return np.array_equal(a.runs, b.runs) and np.array_equal(a.rows, b.rows)


def lines(
    memory: npt.NDArray[np.uint8], dtype: np.dtype[Any], address: int, sizes: Sequence[int], strides: Sequence[int],
    rows: int,
) -> Lines | None:  # fmt: skip
    """The lines of an operand of a space's bytes [samples, bytes]; none where its last axes are not `rows` elements.

    `sizes` and `strides` are in elements, vectors first; none also for elements that are not aligned, or not codes of
    one or two bytes.
    """
    wide = dtype.itemsize
    cut = len(sizes)
    while cut and prod(sizes[cut:]) < rows:
        cut -= 1
    if wide > 2 or dtype.kind not in "iu":
        return None
    if prod(sizes[cut:]) != rows or address % wide or memory.shape[1] % wide or not memory.flags.c_contiguous:
        return None
    outer = [(n, s) for n, s in zip(sizes[:cut], strides[:cut], strict=True) if n > 1] or [(1, 1)]
    length, step = outer[-1]
    flat = memory.reshape(-1).view(np.uint8 if wide == 1 else np.uint16)
    flip = 1 << (8 * wide - 1) if dtype.kind == "i" else 0
    own = offsets(sizes[cut:], strides[cut:])
    runs = offsets([n for n, _ in outer[:-1]], [s for _, s in outer[:-1]])
    return Lines(flat, flip, address // wide, memory.shape[1] // wide, own, runs, int(length), int(step))


def offsets(sizes: Sequence[int], strides: Sequence[int]) -> Ints:
    """Offsets of the elements of axes, in row-major order."""
    found = np.zeros(1, np.int64)
    for size, stride in zip(sizes, strides, strict=True):
        found = (found[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
    return found


def across(source: Lines) -> bool:
    """Whether elements of consecutive vectors are neighbours in memory more than those of one vector are."""
    return source.step == 1 and gathers(source)


def gathers(source: Lines) -> bool:
    """Whether a run of vectors is longer than any piece of a vector that is contiguous in memory."""
    if source.vectors == 1:
        return False
    jumps = np.nonzero(np.diff(source.rows) != 1)[0]
    longest = int(np.diff(np.concatenate([[-1], jumps, [len(source.rows) - 1]])).max()) if len(source.rows) > 1 else 1
    return longest < source.length
