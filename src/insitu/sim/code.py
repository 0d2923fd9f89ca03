"""A section's code as nested loops and blocks under a condition, ready to walk."""

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
    body: tuple[Item, ...]


@dataclass(frozen=True)
class Block:
    """Commands under a PRED."""

    condition: Step
    body: tuple[Item, ...]


Item = Step | Loop | Block


def nest(code: Sequence[Command]) -> tuple[Item, ...]:
    """The structure of balanced code with all sizes bound."""
    stack: list[tuple[int, list[Item]]] = [(1, [])]  # trips of a loop, or the index of a PRED
    for index, command in enumerate(code):
        if command.op == "LOOP":
            stack.append((int(command.args[0]), []))
        elif command.op == "ENDL":
            trips, body = stack.pop()
            stack[-1][1].append(Loop(trips, tuple(body)))
        elif command.op == "PRED":
            stack.append((index, []))
        elif command.op == "ENDP":
            start, body = stack.pop()
            stack[-1][1].append(Block(Step(start, code[start]), tuple(body)))
        else:
            stack[-1][1].append(Step(index, command))
    return tuple(stack[0][1])
