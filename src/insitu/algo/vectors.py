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

Array = npt.NDArray[Any]
Cut = tuple[slice, ...]


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
        return cuts(self.places, most)


def vectors_of(x: Array, node: Node, *, kernel: tuple[int, ...], pad: float) -> Vectors:
    """The vectors of inputs (samples, *shape), whose borders hold `pad`."""
    if node.op == "MatMul":
        return Vectors(x, x.shape[:-1], 1)
    windows = mvm.patches(x, node, kernel=kernel, pad_value=pad)
    return Vectors(windows, windows.shape[: windows.ndim - len(kernel) - 1], int(node.attr("group", 1)))


def in_groups(windows: Array, lead: int, groups: int) -> Array:
    """Windows [*places, channels, *kernel] with `lead` dims of places as [vectors, groups, rows]."""
    return windows.reshape(prod(windows.shape[:lead]), groups, prod(windows.shape[lead:]) // groups)


def cuts(shape: tuple[int, ...], most: int) -> Iterator[Cut]:
    """Boxes that fill an array of a shape in C order, of at most `most` elements (one, where that is less)."""
    if prod(shape) <= most or not shape:
        yield (slice(None),) * len(shape)
        return
    inner = prod(shape[1:])
    if inner <= most:
        step = max(1, most // max(inner, 1))
        for start in range(0, shape[0], step):
            yield (slice(start, start + step), *(slice(None),) * (len(shape) - 1))
        return
    for index in range(shape[0]):
        for rest in cuts(shape[1:], most):
            yield (slice(index, index + 1), *rest)
