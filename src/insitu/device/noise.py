"""What reading cells adds: independent normal noise per cell and read, seen at the foot of a column."""

from __future__ import annotations

from typing import Any

from insitu.device.cell import CellSpec


def read_variance(x_squares: Any, cell: CellSpec, *, full_scale: float | None = None, cells: int = 1) -> Any:
    """Variance of a column's analog sum in one read, in units of (input code * weight step) squared.

    `x_squares` is sum(x**2) over the driven rows (of programmed cells, where erased cells are exact), `cells` how many
    cells stand for one weight (2 in a differential pair).  Exact for noise that is independent between cells and
    does not depend on their level: sum(x**2 * sd**2).
    """
    scale = cell.levels if full_scale is None else full_scale
    sd = cell.read_sd * scale / (1.0 - cell.off_ratio)
    return x_squares * (cells * sd * sd)
