"""What a network's values look like on calibration inputs: ranges and moments per channel, samples to test on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.channels import channel_axis
from insitu.algo.moments import Moments, joined, moments
from insitu.base.errors import DataError
from insitu.graph.graph import Graph
from insitu.graph.passes import Passes

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
KEPT = 1 << 18  # elements kept of each value
BLOCK = 32  # samples whose positions are drawn together
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
    """Run the float network on `data` (samples, *shape), a few samples at once, and note what every value does."""
    data = {k: _finite(k, v) if graph.type(k).dtype == "f32" else np.asarray(v) for k, v in data.items()}
    made = [v for n in graph.nodes for v in n.outputs if v and graph.type(v).dtype == "f32"]
    samples, steps = len(next(iter(data.values()))), STEPS if graph.states else 1
    given = [v for v in (*graph.inputs, *graph.state_inputs) if graph.type(v).dtype == "f32"]
    notes = _Notes(graph, (*given, *made), max(64, KEPT * BLOCK // (max(samples, BLOCK) * steps)), seed)
    passes = Passes(graph, made)
    for start in range(0, samples, BLOCK):
        block = {k: v[start : start + BLOCK] for k, v in data.items()}
        notes.begin(len(next(iter(block.values()))))
        for piece in passes.pieces(notes.samples):
            few = {k: v[piece] for k, v in block.items()}
            few |= {s: _zeros(graph, s, few) for s in graph.state_inputs if s not in few}
            for step in range(steps):
                for name in given:
                    notes.add(name, few[name], piece, step)
                ends = _noted(passes.values(few), notes, piece, step)
                few |= {s.input: ends[s.output] for s in graph.states}
    return Calibration(notes.ranges(), data)


def _noted(values: Iterable[tuple[str, Array]], notes: _Notes, piece: slice, step: int) -> dict[str, Array]:
    """What a state becomes, after all values are noted."""
    ends = {s.output for s in notes.graph.states}
    kept: dict[str, Array] = {}
    for name, value in values:
        if name in notes.axes:
            notes.add(name, value, piece, step)
        if name in ends:
            kept[name] = value
    return kept


class _Notes:
    """What was seen of every value so far.

    Positions to keep are drawn for BLOCK samples together, whether these come at once or piece by piece.
    """

    def __init__(self, graph: Graph, names: Sequence[str], share: int, seed: int) -> None:
        self.graph, self.share, self.samples = graph, share, 0
        self.axes = {v: channel_axis(graph, v) for v in names}
        self._floors, self._rng = _softmax_inputs(graph), np.random.default_rng(seed)
        self._seen: dict[str, list[Moments]] = {}
        self._rows: dict[str, list[Array]] = {}
        self._drawn: dict[tuple[str, int], npt.NDArray[np.int64] | None] = {}

    def begin(self, samples: int) -> None:
        """A block of so many samples comes next."""
        self.samples, self._drawn = samples, {}

    def add(self, name: str, value: Array, piece: slice, step: int) -> None:
        """Note a value of some samples of the block (samples, *shape)."""
        value, axis = _real(_raised(value, self._floors[name]) if name in self._floors else value), self.axes[name]
        self._seen.setdefault(name, []).append(moments(value, axis))
        rows = np.moveaxis(value, axis, -1) if axis is not None else value[..., None]
        each = prod(rows.shape[1:-1])
        if (name, step) not in self._drawn:
            self._drawn[name, step] = self._positions(each * self.samples, rows.shape[-1])
        picked = self._drawn[name, step]
        if picked is not None:
            a, b = np.searchsorted(picked, (each * piece.start, each * piece.stop))
            rows = rows[np.unravel_index(picked[a:b] - each * piece.start, rows.shape[:-1])]
        self._rows.setdefault(name, []).append(np.asarray(rows, np.float32).reshape(-1, rows.shape[-1]).copy())

    def _positions(self, total: int, channels: int) -> npt.NDArray[np.int64] | None:
        """Which of a block's positions are kept, in order; none where all are."""
        keep = max(8, self.share // channels)
        return None if total <= keep else np.sort(self._rng.integers(0, total, keep))

    def ranges(self) -> dict[str, Range]:
        """All that was seen, by value."""
        return {name: self._range(name, parts) for name, parts in self._seen.items()}

    def _range(self, name: str, parts: list[Moments]) -> Range:
        whole = joined(parts)
        rows = np.concatenate(self._rows.pop(name))
        return Range(whole.low, whole.high, whole.mean, whole.var, rows, whole.count)


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


def _real(value: Array) -> Array:
    """Finite numbers."""
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(value.min(initial=0.0)) and np.isfinite(value.max(initial=0.0))
    return value if finite else np.nan_to_num(value, nan=0.0, posinf=BIG, neginf=-BIG)
