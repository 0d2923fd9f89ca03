"""Schedule: tasks of several cores in one order, with a token on every edge between cores that needs one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from insitu.compiler.commands import Code, Task
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

    A later task must wait for earlier ones that wrote what it reads, or that touched memory it writes.  `overlaps`
    tells whether two symbols share bytes.  Tasks of one node write disjoint parts and need no order among themselves.
    """
    edges: list[tuple[int, int]] = []
    clocks: list[_Clock] = []
    last_on: dict[int, int] = {}
    position: list[int] = []
    counts: dict[int, int] = {}
    for index, task in enumerate(tasks):
        clock = clocks[last_on[task.core]].copy() if task.core in last_on else _Clock()
        for earlier in range(index - 1, -1, -1):
            other = tasks[earlier]
            if other.core == task.core or clock.seen.get(other.core, 0) > position[earlier]:
                continue
            if conflict(other, task, overlaps):
                edges.append((earlier, index))
                clock.join(clocks[earlier])
        counts[task.core] = counts.get(task.core, 0) + 1
        position.append(counts[task.core] - 1)
        clock.seen[task.core] = counts[task.core]
        clocks.append(clock)
        last_on[task.core] = index
    return edges


def conflict(first: Task, second: Task, overlaps: Callable[[str, str], bool]) -> bool:
    """Whether `second` must run after `first`."""

    def meet(a: set[str], b: set[str]) -> bool:
        return bool(a & b) or any(overlaps(x, y) for x in a for y in b)

    if meet(first.writes, second.reads):
        return True
    if first.node == second.node:  # disjoint parts of one symbol, but any other memory may be the same
        touched = first.writes | first.reads
        return bool(first.reads & second.writes) or any(overlaps(x, y) for x in touched for y in second.writes)
    return meet(first.writes | first.reads, second.writes)


def sections(tasks: Sequence[Task], edges: Sequence[tuple[int, int]]) -> dict[int, Code]:
    """One section of code per core: tasks in order, SIG after a task, AWAIT before the task that needs it."""
    codes: dict[int, Code] = {}
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
