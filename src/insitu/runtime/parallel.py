"""Blocks of work on threads: the blocks are of fixed size, so results do not depend on how many threads there are.

Helper threads live as long as the process and the caller works beside them, and both look for each other a short while
before they sleep: handing over a block costs some 10 us, or a tenth of a millisecond where Python has gone cold, so
work of some milliseconds gains too; kernels that hand over blocks among themselves (`company`) need neither.  A caller
never waits for a helper that has not begun, so calls from several threads, or from within a block, cannot wait for each
other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
R = TypeVar("R")
LOOKS = 5_000_000  # at a word that another thread changes: one or two milliseconds


def threads() -> int:
    """Threads to use: INSITU_THREADS or OMP_NUM_THREADS, else the cores this process may run on."""
    for name in ("INSITU_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text.isdigit() and int(text) > 0:
            return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[T], R], blocks: Sequence[T], *, done: Callable[[int], None] | None = None) -> list[R]:
    """work(block) for every block, in order; `done` is told how many have ended.  An error in one ends all."""
    job = _Job(work, blocks)
    for index in range(min(threads(), len(blocks)) - 1):
        _helper(os.getpid(), index).give(job)  # a fork has none of its parent's threads, so it starts its own
    told = 0
    while job.step():
        told = _tell(done, told, job.ended)
    job.wait()
    if job.errors:
        raise job.errors[0]
    _tell(done, told, job.ended)
    return job.results


def company() -> npt.NDArray[np.int64]:
    """The board of this process for insitu.runtime.kernels.together, helpers for all threads looking at it.

    Those that sleep are woken; they come when they are awake.
    """
    from insitu.runtime.kernels import AWAKE, MOST

    board, helpers = _board(os.getpid()), threads() - 1
    board[MOST] = helpers
    if board[AWAKE] < helpers < _cores():
        for index in range(helpers):
            _helper(os.getpid(), index).look()
    return board


def _tell(done: Callable[[int], None] | None, told: int, ended: int) -> int:
    for number in range(told, ended):
        if done is not None:
            done(number + 1)
    return ended


class _Job:
    """One call of `spread`: whoever has time takes the next block."""

    def __init__(self, work: Callable[[Any], Any], blocks: Sequence[Any]) -> None:
        self.work, self.blocks = work, blocks
        self.results: list[Any] = [None] * len(blocks)
        self.errors: list[BaseException] = []
        self.ended = 0  # blocks
        self._next = count()
        self._busy = 0  # threads inside a block
        self._closed = False  # no thread begins another block
        self._state = threading.Condition(threading.Lock())
        self._left = np.zeros(1, np.int64)  # how often all threads have left

    def step(self) -> bool:
        """Do one block; False where none is left.  An error is kept for the caller and stops the rest."""
        with self._state:
            index = next(self._next)
            if self._closed or index >= len(self.blocks):
                return False
            self._busy += 1
        try:
            self.results[index] = self.work(self.blocks[index])
        except BaseException as error:  # noqa: BLE001 (an interrupt too: the caller must not leave while others write)
            self.errors.append(error)
        with self._state:
            self._busy -= 1
            self.ended += 1
            self._closed = self._closed or bool(self.errors)
            if not self._busy:
                self._left[0] += 1
                self._state.notify()
        return True

    def wait(self) -> None:
        """Until no thread is inside a block; none begins one after that."""
        with self._state:
            self._closed, busy, left = True, self._busy, int(self._left[0])
        if busy:
            _look(self._left, left)
        with self._state:
            while self._busy:
                self._state.wait()


class _Helper:
    """A thread, and what it is to do."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._given = np.zeros(1, np.int64)
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def give(self, job: _Job) -> None:
        """Have it help with a job."""
        self._put(job)

    def look(self) -> None:
        """Have it look at the board for a while."""
        self._put(None)

    def _put(self, job: _Job | None) -> None:
        self._jobs.put(job)
        self._given[0] += 1

    def _serve(self) -> None:
        while True:
            job = self._next()
            while job is not None and job.step():
                pass
            del job  # nothing of a call may outlive it

    def _next(self) -> _Job | None:
        from insitu.runtime.kernels import serve

        given = int(self._given[0])
        if self._jobs.empty() and threads() <= _cores():
            serve(_board(os.getpid()), self._given, given, LOOKS)
        return self._jobs.get()


def _look(word: npt.NDArray[np.int64], seen: int) -> None:
    """Wait a short while for a word to change, without giving up the core."""
    from insitu.runtime.kernels import wait_for_change

    if threads() <= _cores():
        wait_for_change(word, seen, LOOKS)


def _cores() -> int:
    return os.cpu_count() or 1


@cache
def _board(process: int) -> npt.NDArray[np.int64]:
    """The board of this process: a fork has none of its parent's threads, nor their words."""
    from insitu.runtime.kernels import new_board

    return new_board()


@cache
def _helper(process: int, index: int) -> _Helper:
    """The index-th helper thread of this process."""
    return _Helper(f"insitu-{index}")


def ranges(total: int, size: int) -> list[tuple[int, int]]:
    """(start, end) of consecutive blocks of `size`, the last one shorter."""
    return [(i, min(total, i + size)) for i in range(0, total, size)]
