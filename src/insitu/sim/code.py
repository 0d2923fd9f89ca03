"""A section's code as nested loops, ready to walk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from insitu.isa.program import Command


@dataclass(frozen=True)
class Step:
    """A command and its place in the section."""

    index: int
    command: Command


@dataclass(frozen=True)
class Loop:
    """A hardware loop: how often its body runs."""

    trips: int
    body: tuple[Step | Loop, ...]


def nest(code: Sequence[Command]) -> tuple[Step | Loop, ...]:
    """The loop structure of balanced code with all sizes bound."""
    stack: list[tuple[int, list[Step | Loop]]] = [(1, [])]
    for index, command in enumerate(code):
        if command.op == "LOOP":
            stack.append((int(command.args[0]), []))
        elif command.op == "ENDL":
            trips, body = stack.pop()
            stack[-1][1].append(Loop(trips, tuple(body)))
        else:
            stack[-1][1].append(Step(index, command))
    return tuple(stack[0][1])
