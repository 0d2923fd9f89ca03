"""What cells hold after write-and-verify."""

from __future__ import annotations

import math
from typing import Any

from insitu.base.arrays import namespace
from insitu.device.cell import CellSpec


def programming_sd(value: Any, cell: CellSpec, *, refine_passes: int = 0, full_scale: float | None = None) -> Any:
    """Standard deviation of the level a cell holds after it was asked for `value`, in units of `value`.

    `full_scale` is the value of the highest level (default: 2**bits - 1).  The sd polynomial is in r, the share of the
    highest conductance: r = off + |value| / full_scale * (1 - off).  A step of `value` is (1 - off) / full_scale of it.
    """
    xp = namespace(value)
    if cell.programming is None:
        return xp.zeros_like(value)
    scale = cell.levels if full_scale is None else full_scale
    off = cell.off_ratio
    whole, smaller = scale / (1.0 - off), cell.programming.refine**refine_passes
    if len(cell.programming.sd) == 1:  # the same for every level
        sd = math.hypot(max(cell.programming.sd[0] * smaller, 0.0), cell.programming.floor) * whole
        alike = 0.0 * value + sd  # in the type of value
        return alike * (value != 0) if cell.erased_exact else alike
    r = off + abs(value) * ((1.0 - off) / scale)
    sd = _polynomial(cell.programming.sd, r) * smaller
    sd = xp.sqrt(xp.clip(sd, 0.0, None) ** 2 + cell.programming.floor**2)
    if cell.erased_exact:
        sd = sd * (value != 0)
    return sd * whole


def program(value: Any, normal: Any, cell: CellSpec, *, refine_passes: int = 0, full_scale: float | None = None) -> Any:
    """The levels that cells hold: value + sd(value) * normal, `normal` standard normal draws of the same shape."""
    return value + programming_sd(value, cell, refine_passes=refine_passes, full_scale=full_scale) * normal


def _polynomial(coefficients: tuple[float, ...], r: Any) -> Any:
    total: Any = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = total * r + coefficient
    return total
