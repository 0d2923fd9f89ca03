"""What a network's values look like on calibration inputs: ranges, and samples to measure errors on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.graph.export import float_session
from insitu.graph.graph import Graph

Array = npt.NDArray[Any]
KEPT = 1 << 15  # elements kept of each value
FULL = 8  # samples of which layer inputs are kept whole
BLOCK = 32


@dataclass(frozen=True)
class Range:
    """What was seen of one value: extremes, largest magnitude per channel (axis 1), a seeded sample of elements."""

    low: float
    high: float
    peaks: npt.NDArray[np.float64]
    sample: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Ranges of every value, and layer inputs of a few samples in full."""

    ranges: Mapping[str, Range]
    inputs: Mapping[str, Array]


def calibrate(graph: Graph, data: Mapping[str, Array], *, seed: int = 0) -> Calibration:
    """Run the float network on `data` (samples, *shape) and note what every value does."""
    names = [n.output for n in graph.nodes]
    session = float_session(graph, expose=names)
    rng = np.random.default_rng(seed)
    samples = len(next(iter(data.values())))
    seen: dict[str, list[Range]] = {}
    wanted = {n.inputs[0] for n in graph.nodes if n.op in ("Conv", "MatMul")}
    full: dict[str, Array] = {}
    share = max(64, KEPT * BLOCK // max(samples, 1))
    for start in range(0, samples, BLOCK):
        block = {k: np.asarray(v[start : start + BLOCK], np.float32) for k, v in data.items()}
        values = {**block, **session(block)}
        for name, value in values.items():
            seen.setdefault(name, []).append(_range(value, rng, share))
        if start == 0:
            full = {name: values[name][:FULL] for name in wanted if name in values}
    return Calibration({name: _joined(parts) for name, parts in seen.items()}, full)


def _range(value: Array, rng: np.random.Generator, share: int) -> Range:
    flat = value.reshape(-1)
    sample = flat if flat.size <= share else flat[rng.integers(0, flat.size, share)]
    channels = np.moveaxis(value, 2, 0).reshape(value.shape[2], -1) if value.ndim >= 3 else flat[None]
    return Range(float(flat.min()), float(flat.max()), np.abs(channels).max(axis=1).astype(np.float64), sample.astype(np.float32))


def _joined(parts: list[Range]) -> Range:
    return Range(
        min(p.low for p in parts),
        max(p.high for p in parts),
        np.max([p.peaks for p in parts], axis=0),
        np.concatenate([p.sample for p in parts]),
    )
