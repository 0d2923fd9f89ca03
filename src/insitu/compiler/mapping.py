"""Mapping: where every rectangle of weights lives."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from typing import Any

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
class Copy:
    """The rectangles of a layer once more, on other cores, in the same order; it serves `share` of the positions."""

    places: tuple[Placed, ...]
    share: float


@dataclass(frozen=True)
class Mapping:
    """All placed rectangles by layer, and how much of the chip they use."""

    layers: Dict[str, tuple[Placed, ...]]
    cells_used: int  # at one time
    cells: int
    chips: int = 1
    homes: Dict[str, int] = field(default_factory=dict[str, int])  # node: its chip, where there are several
    facts: Dict[str, Any] = field(default_factory=dict[str, Any])
    copies: Dict[str, tuple[Copy, ...]] = field(default_factory=dict[str, tuple[Copy, ...]])  # beside `layers`
    staged: bool = False  # cores in order are stages: a node runs on the last core that one of its operands is from

    @property
    def copied_cells(self) -> int:
        """Cells of all copies; `cells_used` counts them too."""
        return sum(p.rect.rows * p.rect.cols for c in self.copies.values() for copy in c for p in copy.places)

    @property
    def utilization(self) -> float:
        """Fraction of the cells that hold a rectangle."""
        return self.cells_used / self.cells if self.cells else 0.0

    def cores(self, layer: str) -> tuple[int, ...]:
        """Cores that hold a part of a layer."""
        return tuple(sorted({p.core for p in self.layers[layer]}))
