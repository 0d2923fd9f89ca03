"""Ours and a baseline timed in turns in one process, so that what else the machine does meets both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.bench.result import Case
from insitu.runtime.parallel import ranges, spread, threads

Array = npt.NDArray[Any]
Work = Callable[[], Any]
RUNS = 5
LEAST_SECONDS = 0.15  # of one run, shorter work is repeated: a shared machine takes a core away for some hundredths


@dataclass(frozen=True)
class Pair:
    """Median seconds of both sides and the ratio of each run, baseline over ours: 1 is as fast as the baseline."""

    seconds: float
    baseline: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return median(self.ratios)


def paired(ours: Work, *baselines: Work, runs: int = RUNS) -> Pair:
    """Run all in turns; the baseline of a run is the fastest of `baselines` over all runs."""
    works = (ours, *baselines)
    repeats = [_repeats(work) for work in works]
    times = [[_seconds(work, n) for work, n in zip(works, repeats, strict=True)] for _ in range(runs)]
    best = min(range(1, len(works)), key=lambda i: median(row[i] for row in times))
    own, base = [row[0] for row in times], [row[best] for row in times]
    return Pair(median(own), median(base), tuple(b / o for b, o in zip(base, own, strict=True)))


def case(name: str, pair: Pair, least: float) -> Case:
    """The ratio as a benchmark's case; `least` is its bar."""
    return Case(name, pair.ratio, "of the baseline's speed", 1.0, pair.ratio, pair.ratios, least=least)


def _seconds(work: Work, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def _repeats(work: Work) -> int:
    """As many as make a run long enough; the first call warms caches and compiles kernels."""
    work()
    once = _seconds(work, 1)
    return max(1, int(LEAST_SECONDS / max(once, 1e-9)))


def products(x: Array, w: Array) -> tuple[Work, ...]:
    """The float32 product x @ w on all cores: NumPy's, rows spread over threads, and torch's where it is there."""
    found: list[Work] = [partial(_numpy_product, x, w, np.empty((len(x), w.shape[1]), np.float32))]
    try:
        import torch
    except ImportError:
        return tuple(found)
    torch.set_num_threads(threads())
    a, b = torch.from_numpy(x), torch.from_numpy(w)
    out = torch.empty((len(x), w.shape[1]))
    found.append(lambda: torch.matmul(a, b, out=out))
    return tuple(found)


def _numpy_product(x: Array, w: Array, out: Array) -> None:
    spread_rows(lambda a, b: np.matmul(x[a:b], w, out=out[a:b]), len(x))


def spread_rows(work: Callable[[int, int], Any], rows: int) -> None:
    """work(begin, end) for as many parts as there are threads."""
    parts = ranges(rows, -(-rows // threads()))
    spread(lambda part: work(*part), parts)
