"""Calls: code that a section runs from several places, and the same section with each call's body in its place.

Subroutines stand behind the HALT of a section, each from SUB to RET.  Their commands use the section's tables, and the
loops around a call are loops around its body.  Checks, the simulator and the clock work on the code written out, in
which CALL and RET stay as marks that only take their time; the reference jumps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from insitu.base.errors import ProgramError
from insitu.isa.fault import Fault, command_name, core_name
from insitu.isa.program import Command, Program, Section

MOST_DEPTH = 4
MOST_COMMANDS = 1 << 20  # of a section written out

Code = tuple[Command, ...]


@lru_cache(maxsize=64)
def split_code(code: Code) -> tuple[Code, Mapping[int, tuple[int, Code]]]:
    """(what a section runs, up to its HALT; number of a subroutine -> where its body starts, and the body)."""
    end = next((i + 1 for i, c in enumerate(code) if c.op == "HALT"), len(code))
    bodies: dict[int, tuple[int, Code]] = {}
    start = end
    for index in range(end, len(code)):
        if code[index].op == "SUB":
            start = index
        elif code[index].op == "RET" and code[start].op == "SUB":
            bodies.setdefault(int(code[start].args[0]), (start + 1, code[start + 1 : index]))
    return code[:end], bodies


def written_out(program: Program) -> Program:
    """The program with the body of each call in its place; itself where there are none."""
    if not any(c.op in ("CALL", "SUB") for s in program.sections for c in s.code):
        return program
    return replace(program, sections=tuple(_section(s) for s in program.sections))


def _section(section: Section) -> Section:
    if next(call_faults(section), None):
        raise ProgramError(core_name(section), "calls that cannot be followed", "a program that check_program accepts")
    main, bodies = split_code(section.code)
    return replace(section, code=tuple(_expanded(main, bodies)))


def _expanded(code: Code, bodies: Mapping[int, tuple[int, Code]]) -> Iterator[Command]:
    for command in code:
        yield command
        if command.op == "CALL":
            yield from _expanded(bodies[int(command.args[0])][1], bodies)
            yield Command("RET")


def call_faults(section: Section) -> Iterator[Fault]:
    """Faults of subroutines and calls (C)."""
    if not any(c.op in ("CALL", "SUB", "RET") for c in section.code):
        return
    for index, command in enumerate(section.code):
        if command.op in ("CALL", "SUB") and not (len(command.args) == 1 and isinstance(command.args[0], int)):
            yield Fault("S2", command_name(section, index, command), f"operands {command.args}")
            return
    main, bodies = split_code(section.code)
    placed = [*_place_faults(section, len(main)), *_balance_faults(section, bodies)]
    yield from placed
    unknown = False
    for index, command in enumerate(section.code):
        if command.op == "CALL" and int(command.args[0]) not in bodies:
            unknown = True
            yield Fault("C2", command_name(section, index, command), f"subroutine {command.args[0]}")
    if placed or unknown:
        return
    yield from _depth_faults(section, main, bodies)


def _place_faults(section: Section, end: int) -> Iterator[Fault]:
    """SUB and RET take turns behind HALT, with nothing between a RET and the next SUB."""
    opened, numbers = False, set[int]()
    for index, command in enumerate(section.code):
        where = command_name(section, index, command)
        if index < end:
            if command.op in ("SUB", "RET"):
                yield Fault("C1", where, "before HALT")
            continue
        if (command.op == "SUB") == opened:
            yield Fault("C1", where, "inside a subroutine" if opened else "outside subroutines")
        if command.op == "SUB":
            if int(command.args[0]) in numbers:
                yield Fault("C1", where, f"a second subroutine {command.args[0]}")
            numbers.add(int(command.args[0]))
        opened = command.op != "RET" and (opened or command.op == "SUB")
    if opened:
        yield Fault("C1", core_name(section), "a SUB without a RET")


def _balance_faults(section: Section, bodies: Mapping[int, tuple[int, Code]]) -> Iterator[Fault]:
    """Loops and blocks that a subroutine begins or ends but not both."""
    for number, (_, body) in bodies.items():
        depth, least = 0, 0
        for command in body:
            depth += (command.op in ("LOOP", "PRED")) - (command.op in ("ENDL", "ENDP"))
            least = min(least, depth)
        if depth or least:
            yield Fault("C1", core_name(section), f"loops or blocks across the ends of subroutine {number}")


def _depth_faults(section: Section, main: Code, bodies: Mapping[int, tuple[int, Code]]) -> Iterator[Fault]:
    """Recursion, calls too deep, and code that is too long written out."""
    callees = {n: _callees(body) for n, (_, body) in bodies.items()}
    depth: dict[int, int] = {}
    left = dict(callees)
    while ready := [n for n, calls in left.items() if all(c in depth for c in calls)]:
        for n in ready:
            depth[n] = 1 + max((depth[c] for c in left.pop(n)), default=0)
    if left:
        yield Fault("C3", core_name(section), f"subroutine {min(left)} comes to call itself")
        return
    deepest = max((depth[n] for n in _callees(main)), default=0)
    if max(deepest, *depth.values(), 0) > MOST_DEPTH:
        yield Fault("C3", core_name(section), f"calls {max(depth.values())} deep")
    lengths: dict[int, int] = {}
    for n in sorted(depth, key=lambda n: depth[n]):
        lengths[n] = _length(bodies[n][1], lengths)
    if (total := _length(main, lengths)) > MOST_COMMANDS:
        yield Fault("C3", core_name(section), f"{total} commands written out")


def _callees(code: Sequence[Command]) -> list[int]:
    return [int(c.args[0]) for c in code if c.op == "CALL"]


def _length(code: Sequence[Command], lengths: Mapping[int, int]) -> int:
    return len(code) + sum(1 + lengths[n] for n in _callees(code))
