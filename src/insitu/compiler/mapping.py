"""Mapping: where every rectangle of weights lives."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from dataclasses import dataclass

from insitu.compiler.tile import Rect


@dataclass(frozen=True)
class Placed:
    """A rectangle on an array: core, macro of that core, first column x, first row y, first bias row."""

    rect: Rect
    core: int
    macro: int
    x: int
    y: int
    bias0: int


@dataclass(frozen=True)
class Mapping:
    """All placed rectangles by layer, and how much of the chip they use."""

    layers: Dict[str, tuple[Placed, ...]]
    cells_used: int
    cells: int

    @property
    def utilization(self) -> float:
        """Fraction of the cells that hold a rectangle."""
        return self.cells_used / self.cells if self.cells else 0.0

    def cores(self, layer: str) -> tuple[int, ...]:
        """Cores that hold a part of a layer."""
        return tuple(sorted({p.core for p in self.layers[layer]}))
