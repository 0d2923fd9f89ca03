"""Mapping: where every rectangle of weights lives."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from dataclasses import dataclass, field

from insitu.compiler.tile import Rect


@dataclass(frozen=True)
class Placed:
    """A rectangle on an array: core, macro of that core, first column x, first row y, first bias row.

    Cores are numbered over all chips.  `segment` counts the loads of a network whose weights take turns; -1: resident.
    """

    rect: Rect
    core: int
    macro: int
    x: int
    y: int
    bias0: int
    segment: int = -1


@dataclass(frozen=True)
class Mapping:
    """All placed rectangles by layer, and how much of the chip they use."""

    layers: Dict[str, tuple[Placed, ...]]
    cells_used: int  # at one time
    cells: int
    chips: int = 1
    homes: Dict[str, int] = field(default_factory=dict[str, int])  # node: its chip, where there are several
    facts: Dict[str, int | float] = field(default_factory=dict[str, int | float])

    @property
    def utilization(self) -> float:
        """Fraction of the cells that hold a rectangle."""
        return self.cells_used / self.cells if self.cells else 0.0

    def cores(self, layer: str) -> tuple[int, ...]:
        """Cores that hold a part of a layer."""
        return tuple(sorted({p.core for p in self.layers[layer]}))
