"""Cells that do not follow their programming: stuck at the lowest or the highest level, or open."""

from __future__ import annotations

from typing import Any

from insitu.base.arrays import namespace
from insitu.device.cell import Stuck


def stick(value: Any, uniform: Any, stuck: Stuck, *, full_scale: float, off_ratio: float = 0.0) -> Any:
    """Levels with some cells stuck: where `uniform` (0..1, one a cell) falls below the shares of the three faults.

    An open cell conducts nothing, which is below level 0 where that conducts `off_ratio` of what full scale does.
    """
    xp = namespace(value, uniform)
    held = xp.where(uniform < stuck.off, 0.0 * value, value)
    on = (uniform >= stuck.off) & (uniform < stuck.off + stuck.on)
    held = xp.where(on, 0.0 * value + full_scale, held)
    cut = (uniform >= stuck.off + stuck.on) & (uniform < stuck.off + stuck.on + stuck.open)
    return xp.where(cut, 0.0 * value - full_scale * off_ratio / (1.0 - off_ratio), held)
