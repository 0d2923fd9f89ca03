"""Cells that do not follow their programming: stuck at the lowest or the highest level."""

from __future__ import annotations

from typing import Any

from insitu.base.arrays import namespace
from insitu.device.cell import Stuck


def stick(value: Any, uniform: Any, stuck: Stuck, *, full_scale: float) -> Any:
    """Levels with some cells stuck: where `uniform` (0..1, one a cell) falls below the shares of the two faults."""
    xp = namespace(value, uniform)
    held = xp.where(uniform < stuck.off, 0.0 * value, value)
    on = (uniform >= stuck.off) & (uniform < stuck.off + stuck.on)
    return xp.where(on, 0.0 * value + full_scale, held)
