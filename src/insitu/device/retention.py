"""Loss of stored levels that is not drift of a conductance: charge that leaks away."""

from __future__ import annotations

import math
from typing import Any

from insitu.base.arrays import namespace
from insitu.device.cell import Retention


def retain(level: Any, normal: Any, t: float, spec: Retention) -> Any:
    """Levels (0 = erased) t seconds after programming; `normal` one standard normal draw a cell.

    Trapped charge: level (1 - (per_decade + sd n) log10(1 + t / t0)).  With `tau`, a leaking node: the same times
    exp(-t / tau), t at most the time between two refreshes.  A level never falls below zero.
    """
    xp = namespace(level, normal)
    t = t if spec.refresh is None else min(t, spec.refresh)
    decades = math.log10(1.0 + t / spec.t0)
    left = 1.0 - (spec.per_decade + spec.sd * normal) * decades
    leak = math.exp(-t / spec.tau) if spec.tau is not None else 1.0
    return level * xp.clip(left, 0.0, None) * leak
