"""Walking through code: loops around each command, commands in the order they run, and the memory each touches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from math import prod

import numpy as np
import numpy.typing as npt

from insitu.isa.program import Command, Descriptor, Host, Section, Size, Vector
from insitu.isa.table import Operand, instruction


@dataclass(frozen=True)
class Access:
    """That a command reads, writes or updates the memory behind a descriptor."""

    operand: str
    descriptor: int
    role: str


@cache
def operands(mnemonic: str) -> tuple[Operand, ...]:
    """The operands of an instruction; none for an unknown one."""
    row = instruction(mnemonic)
    return row.operands if row else ()


def accesses(section: Section, command: Command) -> Iterator[Access]:
    """The memory operands of a command, per-element multipliers and shifts of its vector settings included."""
    for operand, value in zip(operands(command.op), command.args, strict=True):
        if operand.kind == "descriptor":
            yield Access(operand.name, int(value), operand.role)
        elif operand.kind == "host":
            yield from _host(section.hosts[int(value)])
        elif operand.kind == "vector":
            yield from _tables(section.vectors[int(value)])


def _host(host: Host) -> Iterator[Access]:
    """Operands of a host operator that lie in memory."""
    for role, values in (("read", host.inputs), ("write", host.outputs)):
        yield from (Access(v.name, v.descriptor, role) for v in values if v.descriptor >= 0)


def _tables(vector: Vector) -> Iterator[Access]:
    if vector.multiplier is not None:
        yield Access("multiplier", vector.multiplier, "read")
    if vector.shift is not None:
        yield Access("shift", vector.shift, "read")


def nest(code: Sequence[Command]) -> Iterator[tuple[int, Command, tuple[Size, ...]]]:
    """Each command that is no loop bracket, with its index and the trip counts around it, outermost first."""
    trips: list[Size] = []
    for index, command in enumerate(code):
        if command.op == "LOOP":
            trips.append(command.args[0])
        elif command.op == "ENDL":
            trips.pop()
        else:
            yield index, command, tuple(trips)


def expand(code: Sequence[Command]) -> Iterator[tuple[int, Command, tuple[int, ...]]]:
    """Each command as often as it runs, in order, with its index and the loop counters, outermost first."""
    at, starts, counters = 0, list[int](), list[int]()
    while at < len(code):
        command = code[at]
        if command.op == "LOOP":
            starts.append(at)
            counters.append(0)
        elif command.op == "ENDL":
            counters[-1] += 1
            if counters[-1] < int(code[starts[-1]].args[0]):
                at = starts[-1]
            else:
                starts.pop()
                counters.pop()
        else:
            yield at, command, tuple(counters)
        at += 1


@lru_cache(maxsize=64)
def blocks(code: tuple[Command, ...]) -> Mapping[int, int]:
    """Each PRED with the ENDP that ends it, by index, of balanced code."""
    found: dict[int, int] = {}
    starts: list[int] = []
    for index, command in enumerate(code):
        if command.op == "PRED":
            starts.append(index)
        elif command.op == "ENDP":
            found[starts.pop()] = index
    return found


def covered(section: Section) -> tuple[Descriptor, ...]:
    """The section's descriptors, those that a SETD moves with a dimension more for each of its moves.

    What such a descriptor addresses is all that the command might, whatever the value; it is for checks only.
    """
    table = list(section.descriptors)
    moves = {c.args for c in section.code if c.op == "SETD"}
    for target, _, dim, most in sorted(moves, key=str):
        d, own = table[int(target)], section.descriptors[int(target)]
        table[int(target)] = replace(d, sizes=(*d.sizes, int(most) + 1), strides=(*d.strides, own.strides[int(dim)]))
    return tuple(table)


def executed(code: Sequence[Command]) -> int:
    """How many commands run, loop brackets not counted."""
    return sum(prod(int(n) for n in trips) for _, _, trips in nest(code))


def reach(descriptor: Descriptor, trips: Sequence[int]) -> tuple[int, int]:
    """The smallest and largest element a descriptor addresses over all trips of the loops around it."""
    moves = [stride * (int(size) - 1) for size, stride in zip(descriptor.sizes, descriptor.strides, strict=True)]
    moves += [step * (count - 1) for step, count in zip(descriptor.steps, trips, strict=False)]
    low = descriptor.offset + sum(min(0, move) for move in moves)
    return low, descriptor.offset + sum(max(0, move) for move in moves)


def runs(offset: int, dims: Sequence[tuple[int, int]]) -> tuple[npt.NDArray[np.int64], int]:
    """The elements of an array of (size, stride) dims: `run` consecutive ones from each of the starts returned.

    Dimensions that lie close (a window that slides, rows without gaps) make the run longer; the others add starts.
    """
    starts, run = np.array([offset], np.int64), 1
    for size, stride in sorted(dims, key=lambda dim: abs(dim[1])):
        distance = abs(stride)
        starts = starts + min(stride, 0) * (size - 1)
        if len(starts) == 1 and distance <= run:
            run += distance * (size - 1)
        elif distance:
            starts = np.unique(starts[:, None] + np.arange(size) * distance)
    return starts, run
