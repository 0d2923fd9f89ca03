"""The order in which sections run: each until it waits, tokens and barriers as they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from insitu.base.errors import ProgramError
from insitu.isa.program import Command, Program, Section
from insitu.sim.code import Item, Loop, Step, nest


@dataclass(frozen=True)
class Turn:
    """A command, or a loop without synchronisation, in one trip of the loops around it that are walked."""

    item: Item
    counters: tuple[int, ...]
    last: bool  # of all their trips


def interleaved(program: Program) -> Iterator[tuple[Section, Turn]]:
    """Steps of all sections, each as soon as the tokens it waits for have come."""
    sections = program.sections
    tokens: dict[int, int] = {}
    waiting = {i: _walk(nest(s.code)) for i, s in enumerate(sections)}
    blocked: dict[int, Turn] = {}
    barrier = _Barrier()
    while waiting:
        progress = False
        for index in list(waiting):
            while True:
                turn = blocked.pop(index, None) or next(waiting[index], None)
                if turn is None:
                    del waiting[index]
                    progress = True
                    break
                item = turn.item
                if isinstance(item, Step) and not _passes(item.command, tokens, barrier, index, len(sections)):
                    blocked[index] = turn
                    break
                progress = True
                yield sections[index], turn
        if not progress:
            stuck = ", ".join(f"core {sections[i].core}" for i in sorted(blocked))
            raise ProgramError(
                program.name,
                f"deadlock: {stuck} wait for tokens nobody sends",
                "a program that passes the static check",
            )


@dataclass
class _Barrier:
    """Sections that have arrived at a barrier, and those that may leave it because all had arrived."""

    arrived: set[int] = field(default_factory=set[int])
    leaving: set[int] = field(default_factory=set[int])

    def passes(self, index: int, sections: int) -> bool:
        if index in self.leaving:
            self.leaving.discard(index)
            return True
        self.arrived.add(index)
        if len(self.arrived) < sections:
            return False
        self.leaving, self.arrived = self.arrived - {index}, set()
        return True


def _passes(command: Command, tokens: dict[int, int], barrier: _Barrier, index: int, sections: int) -> bool:
    if command.op == "SIG":
        tokens[int(command.args[0])] = tokens.get(int(command.args[0]), 0) + 1
    elif command.op == "AWAIT":
        token, count = (int(a) for a in command.args)
        if tokens.get(token, 0) < count:
            return False
        tokens[token] -= count
    elif command.op == "BAR":
        return barrier.passes(index, sections)
    return True


def _walk(steps: tuple[Item, ...], counters: tuple[int, ...] = (), *, last: bool = True) -> Iterator[Turn]:
    """Top-level items; loops that hold sync commands are walked trip by trip, others stay whole."""
    for item in steps:
        if isinstance(item, Loop) and _has_sync(item):
            for trip in range(item.trips):
                yield from _walk(item.body, (*counters, trip), last=last and trip + 1 == item.trips)
        else:
            yield Turn(item, counters, last)


def _has_sync(loop: Loop) -> bool:
    return any(
        _has_sync(i) if isinstance(i, Loop) else isinstance(i, Step) and i.command.op in ("SIG", "AWAIT", "BAR")
        for i in loop.body
    )
