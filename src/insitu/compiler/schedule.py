"""Schedule: tasks of several cores in one order, with a token on every edge between cores that needs one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from insitu.compiler.commands import Code, Task
from insitu.compiler.footprint import Touched, any_meet
from insitu.isa.program import Command


@dataclass
class _Clock:
    """Which tasks are known to have finished: per core, how many of its tasks."""

    seen: dict[int, int] = field(default_factory=dict[int, int])

    def join(self, other: _Clock) -> None:
        for core, count in other.seen.items():
            self.seen[core] = max(self.seen.get(core, 0), count)

    def copy(self) -> _Clock:
        return _Clock(dict(self.seen))


def sync_edges(tasks: Sequence[Task], overlaps: Callable[[str, str], bool]) -> list[tuple[int, int]]:
    """Pairs (earlier task, later task) on different cores whose order nothing else ensures.

    A later task must wait for earlier ones that wrote what it reads, or that touched memory it writes: the elements,
    so that one row of a value waits for no other.  `overlaps` tells whether two symbols share bytes.  Tasks of one
    node write disjoint parts and need no order among themselves.
    """
    edges: list[tuple[int, int]] = []
    clocks: list[_Clock] = []
    last_on: dict[int, int] = {}
    position: list[int] = []
    counts: dict[int, int] = {}
    touched = [Touched(task) for task in tasks]
    near = _Near(overlaps)
    for index, task in enumerate(tasks):
        clock = clocks[last_on[task.core]].copy() if task.core in last_on else _Clock()
        for earlier in near.earlier(touched[index].symbols):
            other = tasks[earlier]
            if other.core == task.core or clock.seen.get(other.core, 0) > position[earlier]:
                continue
            if conflict(touched[earlier], touched[index], overlaps):
                edges.append((earlier, index))
                clock.join(clocks[earlier])
        counts[task.core] = counts.get(task.core, 0) + 1
        position.append(counts[task.core] - 1)
        clock.seen[task.core] = counts[task.core]
        clocks.append(clock)
        last_on[task.core] = index
        near.add(index, touched[index].symbols)
    return edges


class _Near:
    """Tasks so far by the symbols they touch, and which symbols share bytes."""

    def __init__(self, overlaps: Callable[[str, str], bool]) -> None:
        self._overlaps = overlaps
        self._tasks: dict[str, list[int]] = {}
        self._beside: dict[str, list[str]] = {}

    def earlier(self, symbols: Iterable[str]) -> list[int]:
        """Tasks that touch one of these symbols or its bytes, the latest first."""
        for symbol in sorted(symbols):
            if symbol not in self._beside:
                self._beside[symbol] = [s for s in self._beside if self._overlaps(s, symbol)]
                for other in self._beside[symbol]:
                    self._beside[other].append(symbol)
        names = {n for s in symbols for n in (s, *self._beside[s])}
        return sorted({t for n in names for t in self._tasks.get(n, ())}, reverse=True)

    def add(self, index: int, symbols: Iterable[str]) -> None:
        """Enter a task."""
        for symbol in symbols:
            self._tasks.setdefault(symbol, []).append(index)


def conflict(first: Touched, second: Touched, overlaps: Callable[[str, str], bool]) -> bool:
    """Whether `second` must run after `first`."""

    def share(a: Iterable[str], b: Iterable[str]) -> bool:
        return any(overlaps(x, y) for x in a for y in b)

    if any_meet(first.writes, second.reads) or any_meet(first.reads, second.writes):
        return True
    if first.task.node != second.task.node and any_meet(first.writes, second.writes):
        return True  # tasks of one node write disjoint parts, but any other memory may be the same
    return share(first.writes, second.reads) or share(first.symbols, second.writes)


def sections(tasks: Sequence[Task], edges: Sequence[tuple[int, int]], *, also: Iterable[int] = ()) -> dict[int, Code]:
    """One section of code per core: tasks in order, SIG after a task, AWAIT before the task that needs it.

    `also` names cores that have a section even without tasks.
    """
    codes: dict[int, Code] = {core: Code() for core in also}
    after: dict[int, list[int]] = {}
    before: dict[int, list[int]] = {}
    for token, (earlier, later) in enumerate(edges):
        after.setdefault(earlier, []).append(token)
        before.setdefault(later, []).append(token)
    for index, task in enumerate(tasks):
        code = codes.setdefault(task.core, Code())
        code.commands += [Command("AWAIT", (token, 1)) for token in before.get(index, ())]
        for op in task.ops:
            code.add(op)
        code.commands += [Command("SIG", (token,)) for token in after.get(index, ())]
    for code in codes.values():
        code.commands.append(Command("HALT"))
    return codes
