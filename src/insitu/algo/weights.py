"""Scales of weights: per output channel, by error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.compiler.quantize_layers import effective_weight, weight_limit, weight_rows
from insitu.graph.graph import Graph, Node
from insitu.numeric.affine import QuantSpec

Floats = npt.NDArray[np.float64]
STEPS = np.linspace(1.0, 0.7, 13)  # ranges tried, of the largest weight
FEWER = np.linspace(1.0, 0.3, 29)  # where cells err
BIAS_CODES = 2.0**24  # a bias is at most so many weight-times-input steps, and an output step at most so many


def weight_scales(
    graph: Graph, chip: Chip, node: Node, source: QuantSpec, out: QuantSpec, *, cells: Floats | None = None
) -> tuple[float, ...]:  # fmt: skip
    """One scale per output channel: the one whose rounding and clipping cost least.

    `cells`, the mean square error of what cells hold by code (cells.py), counts beside them where it is given.
    A channel of (almost) no weights takes the smallest scale at which its bias and the requantize ratio stay integers
    of sane size.  Where the vector unit only shifts, the ratio sx * sw / sy is a power of two.
    """
    real, sx = effective_weight(np.asarray(graph.constants[node.inputs[1]], np.float64), source, node)
    rows, limit = weight_rows(real, node), weight_limit(chip)
    bias = np.abs(np.asarray(graph.constants[node.inputs[2]], np.float64))
    sy = np.broadcast_to(np.asarray(out.scale), (len(rows),))
    least = np.maximum(bias, sy) / (sx * BIAS_CODES)
    peak = np.abs(rows).max(axis=1, initial=0.0) / limit
    trials = np.maximum(peak[None] * (STEPS if cells is None else FEWER)[:, None], least)
    if chip.capabilities.scales == "power_of_two":
        near = np.array([1.0, 0.0] if cells is None else [1.0, 0.0, -1.0])
        exponents = np.floor(np.log2(trials[0] * sx / sy)) + near[:, None]
        trials = 2.0**exponents * sy / sx
    errors = [_error(rows, s[:, None], limit, cells) for s in trials]
    chosen = trials[np.argmin(errors, axis=0), np.arange(len(rows))]
    return tuple(float(s) for s in chosen)


def _error(rows: Floats, scale: Floats, limit: int, cells: Floats | None) -> Floats:
    """Sum of squares by output channel."""
    codes = np.clip(np.rint(rows / scale), -limit, limit)
    found = (codes * scale - rows) ** 2
    if cells is not None:
        found += cells[np.abs(codes).astype(np.int64)] * scale**2
    return found.sum(axis=1)
