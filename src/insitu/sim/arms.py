"""Which of the blocks under a condition a run takes: those that its values say, else the arm with more work.

The two arms of an If stand under one condition, once for 1 and once for 0; one of them runs.  A block alone has nothing
beside it, so where nobody says what the value is, it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from insitu.base.errors import UsageError
from insitu.isa.program import Program, Section
from insitu.isa.walk import blocks

Condition = tuple[str, int]  # symbol, element of it
Guard = tuple[Condition, int]  # a condition, and what its value has to be


def guards(section: Section) -> list[tuple[Guard, ...]]:
    """What each command stands under, the outermost condition first; a PRED stands under those around it."""
    ends = blocks(tuple(section.code))
    out: list[tuple[Guard, ...]] = []
    around: list[tuple[int, Guard]] = []
    for index, command in enumerate(section.code):
        while around and around[-1][0] < index:
            around.pop()
        out.append(tuple(guard for _, guard in around))
        if command.op == "PRED":
            place = section.descriptors[int(command.args[0])]
            around.append((ends[index], ((place.symbol, int(place.offset)), int(command.args[1]))))
    return out


def conditions(program: Program) -> tuple[Condition, ...]:
    """The conditions of a program, in the order of its code."""
    found = (c for section in program.sections for g in guards(section) for c, _ in g)
    return tuple(dict.fromkeys(found))


def chosen(
    program: Program, work: Sequence[Sequence[int]], given: Mapping[Condition, int] | None = None
) -> dict[Condition, int]:
    """What every condition is taken to be; `work` is what each command of each section costs in all its runs.

    Conditions in `given` are what it says.  Of the others the arm with more work is taken, inner ones first.
    """
    known = conditions(program)
    taken = {c: int(bool(v)) for c, v in (given or {}).items()}
    strange = [c for c in taken if c not in known]
    if strange:
        raise UsageError(f"program {program.name}", f"no condition {strange[0]}", f"one of {list(known)}")
    under = [
        (guard, cost)
        for section, costs in zip(program.sections, work, strict=True)
        for guard, cost in zip(guards(section), costs, strict=True)
        if guard
    ]
    depth = {c: max(i for g, _ in under for i, (other, _) in enumerate(g) if other == c) for c in known}
    for condition in sorted((c for c in known if c not in taken), key=lambda c: -depth[c]):
        sums = [0, 0]
        for guard, cost in under:
            if all(taken.get(c, when) == when for c, when in guard) and condition in (values := dict(guard)):
                sums[values[condition]] += cost
        taken[condition] = int(sums[1] >= sums[0])
    return taken


def left_over(section: Section, taken: Mapping[Condition, int]) -> list[int]:
    """The places of the commands that run; the PRED of a block that does not run is one, for it reads its condition."""
    ends, out, at = blocks(tuple(section.code)), list[int](), 0
    while at < len(section.code):
        command = section.code[at]
        out.append(at)
        if command.op == "PRED":
            place = section.descriptors[int(command.args[0])]
            if taken[place.symbol, int(place.offset)] != int(command.args[1]):
                at = ends[at]
        at += 1
    return out
