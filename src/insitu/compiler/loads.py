"""Loads: a WLOAD for every binding whose weights take turns, as early as its macros are done with the segment before.

WVERIFY and CAL follow it where cells and columns ask for them.

WLOAD runs beside the commands that follow, so the earliest place hides most of it.  Loads of a core keep the order in
which its commands need them, since they share one store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from insitu.arch.spec import Chip
from insitu.compiler.commands import Op, Task
from insitu.compiler.setup import procedures
from insitu.isa.program import Binding
from insitu.isa.setup import COLUMNS, OFFSETS

Place = tuple[int, int]  # task, command in it; (-1, 0): before all


def insert_loads(tasks: Sequence[Task], reloaded: Mapping[Binding, int], chip: Chip) -> list[Task]:
    """The tasks with loads among their commands; `reloaded` says the segment of each binding that takes turns."""
    checks = cells_verified(chip)
    if not reloaded:
        return list(tasks)
    early: dict[int, list[Op]] = {}  # core: what is loaded before its first command
    behind: dict[Place, list[Op]] = {}
    for core in sorted({t.core for t in tasks}):
        for binding, at in _places(tasks, core, reloaded):
            into = early.setdefault(core, []) if at[0] < 0 else behind.setdefault(at, [])
            into.append(Op("WLOAD", (binding,)))
            into += [Op("WVERIFY", (binding,))] if checks else []
            wanted = procedures(chip, binding)  # what was just written has not drifted
            into += [Op("CAL", (binding, procedure)) for procedure in (OFFSETS, COLUMNS) if procedure in wanted]
    first = [Task("weights", core, tuple(ops)) for core, ops in early.items()]
    return [*first, *(_with(task, number, behind) for number, task in enumerate(tasks))]


def cells_verified(chip: Chip) -> bool:
    """Whether cells take pulses and reads in turn until they hold their level."""
    write = chip.cell.write
    return write is not None and write.pulses is not None and write.time is not None


def _places(tasks: Sequence[Task], core: int, reloaded: Mapping[Binding, int]) -> list[tuple[Binding, Place]]:
    """Each binding of a core in the order of use, and the command behind which it can be loaded."""
    macros: dict[int, _Macro] = {}
    found: dict[Binding, Place] = {}
    latest: Place = (-1, 0)
    for number, task in enumerate(tasks):
        for index, op in enumerate(task.ops if task.core == core else ()):
            binding = next((o for o in op.operands if isinstance(o, Binding)), None)
            if binding is None or binding not in reloaded:
                continue
            used = [macros.setdefault(m, _Macro()) for m in sorted({t.macro for t in binding.tiles})]
            for macro in used:
                macro.enter(reloaded[binding])
            if binding not in found:
                latest = found[binding] = max(latest, *(macro.before for macro in used))
            for macro in used:
                macro.last = number, index
    return list(found.items())


@dataclass
class _Macro:
    """When a macro was last read: in the segment it is in, and before that one."""

    segment: int = -1
    last: Place = (-1, 0)
    before: Place = (-1, 0)

    def enter(self, segment: int) -> None:
        if segment != self.segment:
            self.segment, self.before = segment, self.last


def _with(task: Task, number: int, behind: dict[Place, list[Op]]) -> Task:
    """A task with the loads that stand behind its commands."""
    ops = [each for index, op in enumerate(task.ops) for each in (op, *behind.get((number, index), ()))]
    return replace(task, ops=tuple(ops)) if len(ops) > len(task.ops) else task
