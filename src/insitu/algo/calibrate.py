"""What a network's values look like on calibration inputs: ranges and moments per channel, samples to test on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.channels import channel_axis
from insitu.base.errors import DataError
from insitu.graph.export import float_session
from insitu.graph.graph import Graph

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
KEPT = 1 << 18  # elements kept of each value
BLOCK = 32
FAINT = 12.0  # exp(-12) is far below a step of a softmax's codes
BIG = 1e30  # what is infinite counts as
STEPS = 4  # steps a network with state runs on each sample


@dataclass(frozen=True)
class Range:
    """What was seen of one value.

    `rows` is a seeded sample of positions [positions, channels] in which each channel's extremes are kept apart as
    `low_of` and `high_of`; a value without a channel axis counts as one channel.  `positions` counts what was seen.
    """

    low_of: Floats
    high_of: Floats
    mean_of: Floats
    var_of: Floats
    rows: npt.NDArray[np.float32]
    positions: int
    observer: str = "mse"  # how the range of codes is chosen from what was seen (search.py)

    @property
    def low(self) -> float:
        """Smallest number seen."""
        return float(self.low_of.min())

    @property
    def high(self) -> float:
        """Largest number seen."""
        return float(self.high_of.max())

    @property
    def peak(self) -> float:
        """Largest magnitude seen."""
        return max(-self.low, self.high, 0.0)

    @property
    def sample(self) -> npt.NDArray[np.float32]:
        """Some elements."""
        return self.rows.reshape(-1)


@dataclass(frozen=True)
class Calibration:
    """Ranges of every value, and the inputs they were seen on."""

    ranges: Mapping[str, Range]
    data: Mapping[str, Array]


def calibrate(graph: Graph, data: Mapping[str, Array], *, seed: int = 0) -> Calibration:
    """Run the float network on `data` (samples, *shape) and note what every value does."""
    data = {k: _finite(k, v) if graph.type(k).dtype == "f32" else np.asarray(v) for k, v in data.items()}
    made = [v for n in graph.nodes for v in n.outputs if v and graph.type(v).dtype == "f32"]
    session, floors = float_session(graph, expose=made), _softmax_inputs(graph)
    rng = np.random.default_rng(seed)
    samples = len(next(iter(data.values())))
    given = [v for v in (*graph.inputs, *graph.state_inputs) if graph.type(v).dtype == "f32"]
    axes = {v: channel_axis(graph, v) for v in (*given, *made)}
    seen: dict[str, list[Range]] = {}
    steps = STEPS if graph.states else 1
    share = max(64, KEPT * BLOCK // max(samples * steps, 1))
    for start in range(0, samples, BLOCK):
        block = {k: v[start : start + BLOCK] for k, v in data.items()}
        block |= {s: _zeros(graph, s, block) for s in graph.state_inputs if s not in block}
        for _ in range(steps):
            values = {**block, **session(block)}
            for name in axes:
                value = _raised(values[name], floors[name]) if name in floors else values[name]
                seen.setdefault(name, []).append(_range(value, axes[name], rng, share))
            block |= {s.input: values[s.output] for s in graph.states}
    return Calibration({name: _joined(parts) for name, parts in seen.items()}, data)


def _finite(name: str, array: Array) -> Array:
    real = np.asarray(array, np.float32)
    if len(real) == 0 or not np.isfinite(real).all():
        raise DataError(
            f"calibration input {name!r}", "no samples" if len(real) == 0 else "NaN or inf", "finite numbers"
        )
    return real


def _softmax_inputs(graph: Graph) -> dict[str, int]:
    """Scores that only softmaxes read and a mask may have gone into, with the axis that is summed (samples counted)."""
    found: dict[str, int] = {}
    masked = {v for n in graph.nodes if n.op in ("Add", "Sub", "Mul", "Host") for v in n.outputs}
    for value, nodes in graph.consumers().items():
        axes = {int(n.attr("axis", -1)) % graph.type(value).rank for n in nodes if n.op == "Softmax"}
        if value in masked and value not in graph.outputs and len(axes) == 1 and all(n.op == "Softmax" for n in nodes):
            found[value] = axes.pop() + 1
    return found


def _raised(value: Array, axis: int) -> Array:
    """Without what no softmax sees: FAINT below the smallest of all maxima."""
    return np.maximum(value, value.max(axis=axis).min() - FAINT)


def _zeros(graph: Graph, name: str, block: Mapping[str, Array]) -> Array:
    """A state before the first step."""
    return np.zeros((len(next(iter(block.values()))), *graph.type(name).sizes()), np.float32)


def _range(value: Array, axis: int | None, rng: np.random.Generator, share: int) -> Range:
    value = np.nan_to_num(value, nan=0.0, posinf=BIG, neginf=-BIG)
    rows = value.reshape(-1, 1) if axis is None else np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis])
    keep = max(8, share // rows.shape[1])
    sample = rows if len(rows) <= keep else rows[np.sort(rng.integers(0, len(rows), keep))]
    mean, var = rows.mean(axis=0, dtype=np.float64), rows.var(axis=0, dtype=np.float64)
    low, high = (np.asarray(v, np.float64) for v in (rows.min(axis=0), rows.max(axis=0)))
    return Range(low, high, mean, var, np.asarray(sample, np.float32), len(rows))


def _joined(parts: list[Range]) -> Range:
    """Several blocks as one: extremes, mean and variance over all of them."""
    count = np.array([p.positions for p in parts], np.float64)
    weight = (count / count.sum())[:, None]
    means = np.stack([p.mean_of for p in parts])
    mean = (weight * means).sum(axis=0)
    var = (weight * (np.stack([p.var_of for p in parts]) + (means - mean) ** 2)).sum(axis=0)
    low, high = np.min([p.low_of for p in parts], axis=0), np.max([p.high_of for p in parts], axis=0)
    return Range(low, high, mean, var, np.concatenate([p.rows for p in parts]), int(count.sum()))
