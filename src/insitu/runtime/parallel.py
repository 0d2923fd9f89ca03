"""Blocks of work on threads: the blocks are of fixed size, so results do not depend on how many threads there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def threads() -> int:
    """Threads to use: INSITU_THREADS or OMP_NUM_THREADS, else the cores this process may run on."""
    for name in ("INSITU_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text.isdigit() and int(text) > 0:
            return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[T], R], blocks: Sequence[T], *, done: Callable[[int], None] | None = None) -> list[R]:
    """work(block) for every block, in order; `done` is told how many have ended.  An error in one ends all."""
    results: list[R] = []
    for index, result in enumerate(_mapped(work, blocks)):
        results.append(result)
        if done is not None:
            done(index + 1)
    return results


def _mapped(work: Callable[[T], R], blocks: Sequence[T]) -> Iterable[R]:
    count = min(threads(), len(blocks))
    if count <= 1:
        yield from map(work, blocks)
        return
    pool = ThreadPoolExecutor(count)
    try:
        yield from pool.map(work, blocks)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def ranges(total: int, size: int) -> list[tuple[int, int]]:
    """(start, end) of consecutive blocks of `size`, the last one shorter."""
    return [(i, min(total, i + size)) for i in range(0, total, size)]
