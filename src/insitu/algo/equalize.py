"""One scale per channel where that lowers the error at the outputs of the layers behind (equalization).

A channel's own range wastes no codes on it; but the next layer's weights are multiplied by it and share one step per
output.  Steps lie between a common one (share 0) and each channel's own (share 1); both errors are added up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.calibrate import Calibration
from insitu.algo.channels import Reader, readers
from insitu.algo.search import Steps, channel_steps
from insitu.compiler.draft import is_weight_layer
from insitu.graph.graph import Graph

Floats = npt.NDArray[np.float64]
OWN = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of each channel's own range in its step
WEAK = (0.0, 0.25, 0.5)
FAINT = 1e-3  # of the channel that counts most: others count no less here


@dataclass(frozen=True)
class Channels:
    """What is known of a value's channels: cost of steps, variance, worth of an error, and the layers behind."""

    steps: Steps
    variance: Floats
    worth: Floats
    readers: tuple[tuple[Reader, float], ...]  # with 1 / power of the layer's output
    bound: float  # largest number the activation lets through
    bounded: Floats  # share of positions at the bound
    above: int  # largest code

    def blend(self, share: float) -> Floats:
        """Steps between the common one and each channel's own."""
        least = self.steps.least
        return least**share * least.max() ** (1 - share)

    def cost(self, steps: Floats, *, inner: Floats | float = 0.0) -> float:
        """Error at these steps, `inner` squared steps of other noise included, weighed by what it does behind.

        Channels share the largest code, so that a step above the finest one lets more through than the bound.
        """
        own = self.steps.cost(steps) + inner * steps**2
        if np.isfinite(self.bound):
            top = min(float(np.rint(self.bound / steps.min())), float(self.above))
            own = own + self.bounded * np.maximum(top * steps - self.bound, 0) ** 2
        return float((self.worth * own).sum())


def channels_of(graph: Graph, seen: Calibration, value: str, *, below: int, above: int) -> Channels | None:
    """The channels of a value that may have scales of their own; none where they may not, or nothing was seen."""
    found = readers(graph, value)
    stats = seen.ranges[value]
    if found is None or stats.peak == 0:
        return None
    behind = tuple((r, 1 / max(_power(seen, r), 1e-30)) for r in found)
    live = np.maximum(np.abs(stats.low_of), np.abs(stats.high_of)) > 0  # what is always 0 may clip as it likes
    behind = tuple((replace(r, peak=r.peak * live), w) for r, w in behind)
    worth = np.sum([r.energy * live * w for r, w in behind], axis=0)
    made = graph.producer(value)
    bound = float(made.attr("act_hi", np.inf)) if made is not None else np.inf
    summed = made is None or is_weight_layer(graph, made)
    steps = channel_steps(stats, below=below, above=above, bound=bound, tails=not summed)
    bounded = (stats.rows >= bound).mean(axis=0)
    return Channels(steps, stats.var_of, worth, behind, bound, bounded, above)


def _power(seen: Calibration, reader: Reader) -> float:
    out = seen.ranges[reader.node.output]
    return float((out.mean_of**2 + out.var_of).sum())


def behind(channels: Channels, steps: Any, *, limit: int) -> float:
    """Error of the readers' weights at their outputs: one step per output, `limit` steps to the largest weight."""
    steps = np.asarray(steps, np.float64)
    total = 0.0
    for reader, worth in channels.readers:
        size = (reader.peak * steps).max(axis=1) / limit
        noise = (reader.peak > 0) @ (reader.rows * channels.variance / steps**2)
        total += worth * float((size**2 / 12 * noise).sum())
    return total


def equalized(channels: Channels, *, limit: int) -> tuple[float, Floats]:
    """(error, steps per channel) of least error between nearly common steps and each channel's own."""
    options = [channels.blend(share) * weak for share in OWN for weak in _weak(channels)]
    costs = [channels.cost(s) + behind(channels, s, limit=limit) for s in options]
    at = int(np.argmin(costs))
    return costs[at], options[at]


def _weak(channels: Channels) -> list[Floats]:
    """Factors of steps, 1 for the channel that counts most: coarse steps of light channels spare those of weights."""
    strength = np.sqrt(channels.worth)
    share = np.maximum(strength / max(float(strength.max()), 1e-30), FAINT)
    return [share**-power for power in WEAK]
