"""Scales of weights: per output channel, by error."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.compiler.quantize import out_axis, weight_limit
from insitu.graph.graph import Node

STEPS = np.linspace(1.0, 0.7, 13)


def weight_scales(w: npt.NDArray[Any], chip: Chip, node: Node) -> tuple[float, ...]:
    """One scale per output channel: the one whose rounding and clipping cost least."""
    limit = weight_limit(chip)
    rows = np.moveaxis(w, out_axis(node), 0).reshape(w.shape[out_axis(node)], -1)
    peak = np.abs(rows).max(axis=1)
    scales = np.where(peak > 0, peak, 1.0)[None] / limit * STEPS[:, None]
    errors = [((np.clip(np.rint(rows / s[:, None]), -limit, limit) * s[:, None] - rows) ** 2).sum(axis=1) for s in scales]
    return tuple(float(s) for s in scales[np.argmin(errors, axis=0), np.arange(len(peak))])
