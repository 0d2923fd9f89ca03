"""What cells hold after write-and-verify."""

from __future__ import annotations

from typing import Any

from insitu.base.arrays import namespace
from insitu.device.cell import CellSpec


def programming_sd(value: Any, cell: CellSpec, *, refine_passes: int = 0, full_scale: float | None = None) -> Any:
    """Standard deviation of the level a cell holds after it was asked for `value`, in units of `value`.

    `full_scale` is the value of the highest level (default: 2**bits - 1).  The sd polynomial is in r, the share of the
    highest conductance: r = off + |value| / full_scale * (1 - off).  A step of `value` is (1 - off) / full_scale of it.
    """
    xp = namespace(value)
    magnitude = abs(value)
    if cell.programming is None:
        return xp.zeros_like(magnitude)
    scale = cell.levels if full_scale is None else full_scale
    off = cell.off_ratio
    r = off + magnitude / scale * (1.0 - off)
    sd = _polynomial(cell.programming.sd, r) * cell.programming.refine**refine_passes
    sd = xp.sqrt(xp.clip(sd, 0.0, None) ** 2 + cell.programming.floor**2)
    if cell.erased_exact:
        sd = sd * (magnitude > 0)
    return sd * (scale / (1.0 - off))


def program(value: Any, normal: Any, cell: CellSpec, *, refine_passes: int = 0, full_scale: float | None = None) -> Any:
    """The levels that cells hold: value + sd(value) * normal, `normal` standard normal draws of the same shape."""
    return value + programming_sd(value, cell, refine_passes=refine_passes, full_scale=full_scale) * normal


def _polynomial(coefficients: tuple[float, ...], r: Any) -> Any:
    total = coefficients[-1] + 0.0 * r
    for coefficient in coefficients[-2::-1]:
        total = total * r + coefficient
    return total
