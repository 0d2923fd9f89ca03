"""Spare columns: where cells of a column came out worst, a reserved column of the array takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from insitu.circuit.spec import MacroChip
from insitu.circuit.tile import Cells
from insitu.isa.program import Tile

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Moved:
    """A column of a tile that lies elsewhere: its number in the tile, the array's column, and that one's cells."""

    column: int
    x: int
    cells: Cells


def moved_columns(
    tile: Tile, wanted: Array, made: Array, chip: MacroChip, cells: Callable[[int, int], tuple[Cells, Cells]]
) -> Iterator[Moved]:
    """The columns of a tile that reserved ones replace: `wanted` [rows, cols] was asked for, `made` was verified.

    The columns behind the reserved ones are cut into as many groups of neighbours, a spare for each; it serves the tile
    that holds the group's first column, the column of the largest squared error first.  `cells(column, x)` gives
    what the cells of array column x hold of a column as verified and as they are now.
    """
    spares = chip.macro.reserved_columns
    usable = chip.array.cols - spares
    damage = ((made - wanted) ** 2).sum(axis=0)
    for spare in range(spares):
        first, end = (spares + -(-n * usable // spares) for n in (spare, spare + 1))
        if not tile.x <= first < tile.x + tile.cols:
            continue
        own = damage[first - tile.x : end - tile.x]
        worst = first - tile.x + int(own.argmax())
        then, now = cells(worst, spare)
        if float(((then.weights[:, 0] - wanted[:, worst]) ** 2).sum()) < damage[worst]:
            yield Moved(worst, spare, now)
