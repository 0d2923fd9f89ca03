"""The vectors a layer multiplies, of its inputs: a view of windows, of which so many are copied as are at work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.graph.graph import Node
from insitu.graph.ops import mvm
from insitu.graph.ops.mvm import Cut

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Vectors:
    """`windows` [*places, channels, *kernel] is a view; a vector has the dims behind the places, for all groups."""

    windows: Array
    places: tuple[int, ...]
    groups: int

    def __len__(self) -> int:
        return prod(self.places)

    @property
    def rows(self) -> int:
        """Numbers of a vector, of all groups."""
        return prod(self.windows.shape[len(self.places) :])

    def at(self, numbers: npt.NDArray[np.int64]) -> Array:
        """Vectors by their numbers, [vectors, channels, *kernel]."""
        return self.windows[np.unravel_index(numbers, self.places)]

    def take(self, cut: Cut) -> Array:
        """The vectors of a cut, [vectors, groups, rows]."""
        return in_groups(self.windows[cut], len(self.places), self.groups)

    def cuts(self, most: int) -> Iterator[Cut]:
        """All vectors in order, at most `most` at once (one, where that is less)."""
        return mvm.cuts(self.places, most)


def vectors_of(x: Array, node: Node, *, kernel: tuple[int, ...], pad: float) -> Vectors:
    """The vectors of inputs (samples, *shape), whose borders hold `pad`."""
    if node.op == "MatMul":
        return Vectors(x, x.shape[:-1], 1)
    windows = mvm.patches(x, node, kernel=kernel, pad_value=pad)
    return Vectors(windows, windows.shape[: windows.ndim - len(kernel) - 1], int(node.attr("group", 1)))


def in_groups(windows: Array, lead: int, groups: int) -> Array:
    """Windows [*places, channels, *kernel] with `lead` dims of places as [vectors, groups, rows]."""
    return windows.reshape(prod(windows.shape[:lead]), groups, prod(windows.shape[lead:]) // groups)


def evenly(samples: Array, count: int) -> Array:
    """So many rows from all over an array, all where there are fewer: it may lie in some order of its own."""
    return samples[np.unique(np.linspace(0, len(samples) - 1, count).astype(np.int64))]
