"""Stream: a program run again and again without waiting for its end, as one program.

Each run in flight has memory of its own, a context; weights are shared.  A core goes on with the next run as soon as it
is done with its part of this one; before a context is used again, all cores must be done with the run that had it.
Tokens need no copies: each has one sender and one waiting section, and both keep the order of the runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from insitu.isa.program import Command, Descriptor, Program, Section, Symbol, Vector
from insitu.isa.setup import setup_length
from insitu.isa.walk import operands

ALIGN = 16
SHARED = "weight"  # the kind of symbol that all runs read and none writes


def can_stream(program: Program) -> bool:
    """Whether runs may overlap: nothing goes from one run to the next, and the host takes no part."""
    states = any(s.kind == "state" for s in program.symbols)
    other = any(c.op in ("WLOAD", "WVERIFY", "BAR", "SUB") for s in program.sections for c in s.code)
    return not (states or other or program.sizes or program.meta.get("host_values") or program.meta.get("host_ops"))


def can_take_turns(program: Program) -> bool:
    """Whether runs may take turns on a core: where tables are loaded on the way, each run needs those it loaded."""
    return not any(c.op == "LUTLD" for s in program.sections for c in s.code[setup_length(s.code) :])


def contexts_that_fit(program: Program, memory: int) -> int:
    """How many runs have room at a time where each memory has so many bytes; at least 1."""
    fits = [1 + (memory - _aligned(top)) // _extent(program, space)[1] for space, top in program.spaces.items()]
    return max(1, min(fits, default=1))


def streamed(program: Program, runs: int, *, contexts: int, together: int = 1) -> Program:
    """The program of `runs` runs, at most `contexts` of them at a time; values of context c > 0 are named value#c.

    `together` runs take turns at every wait for another core, so that one works while the other would wait (1 unless
    `can_take_turns`).
    """
    assert together == 1 or can_take_turns(program), "runs need the tables that they loaded"
    used = min(runs, contexts)
    symbols = list(program.symbols)
    spaces = {space: _aligned(top) for space, top in program.spaces.items()}
    for context in range(1, used):
        symbols += [_moved(s, context, program, spaces) for s in program.symbols if s.kind != SHARED]
    spaces = {space: top + (used - 1) * _extent(program, space)[1] for space, top in spaces.items()}
    kinds = {s.name: s.kind for s in program.symbols}
    gates = _gates(program, runs, used, together)
    values = {
        f"{v}{_mark(c)}": replace(at, symbol=f"{at.symbol}{_mark(c)}")
        for c in range(used)
        for v, at in program.values.items()
        if c == 0 or kinds[at.symbol] != SHARED
    }
    sections = tuple(_section(s, number, kinds, gates) for number, s in enumerate(program.sections))
    return replace(program, symbols=tuple(symbols), sections=sections, values=values, spaces=spaces)


def run_places(program: Program, runs: int, *, contexts: int, together: int = 1) -> list[list[list[int]]]:
    """For each section of the streamed program and each run the indices of its commands."""
    gates = _gates(program, runs, min(runs, contexts), together)
    out: list[list[list[int]]] = []
    for number, section in enumerate(program.sections):
        places, at = [list[int]() for _ in range(runs)], 0
        for run, commands in gates.order(number, section):
            if run >= 0:
                places[run] += range(at, at + len(commands))
            at += len(commands)
        out.append(places)
    return out


def _mark(context: int) -> str:
    return f"#{context}" if context else ""


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _extent(program: Program, space: str) -> tuple[int, int]:
    """(lowest address, bytes from it on) of what each run needs for itself."""
    own = [s for s in program.symbols if s.space == space and s.kind != SHARED]
    low = min((s.address for s in own), default=0) // ALIGN * ALIGN
    return low, max(ALIGN, _aligned(program.spaces[space] - low))


def _moved(symbol: Symbol, context: int, program: Program, tops: Mapping[str, int]) -> Symbol:
    low, size = _extent(program, symbol.space)
    address = tops[symbol.space] + (context - 1) * size + symbol.address - low
    return replace(symbol, name=f"{symbol.name}{_mark(context)}", address=address)


def _gates(program: Program, runs: int, contexts: int, together: int) -> _Gates:
    used = [int(c.args[0]) for s in program.sections for c in s.code if c.op in ("SIG", "AWAIT")]
    return _Gates(1 + max(used, default=-1), len(program.sections), runs, contexts, min(together, contexts))


@dataclass(frozen=True)
class _Gates:
    """The order of the runs in each section, and tokens that hold a run back until its context is free.

    All sections report to the first one when they are done with a run, and it lets them go on.
    """

    first: int  # token
    sections: int
    runs: int
    contexts: int
    together: int

    def order(self, number: int, section: Section) -> Iterator[tuple[int, tuple[Command, ...]]]:
        """(run, commands as they stand in the section), all of it but HALT; run -1: gates, and the setup before all."""
        first = setup_length(section.code)
        body = section.code[first:-1]
        cuts = [(first + a, first + b) for a, b in (_turns(body) if self.together > 1 else [(0, len(body))])]
        yield -1, section.code[:first]
        for start in range(0, self.runs, self.together):
            group = range(start, min(start + self.together, self.runs))
            for run in group:
                yield -1, self._before(number, run)
            for a, b in cuts:
                for run in group:
                    yield run, section.code[a:b]
            for run in group:
                yield -1, self._behind(number, run)

    def _before(self, section: int, run: int) -> tuple[Command, ...]:
        if run < self.contexts or self.sections == 1:
            return ()
        others = range(1, self.sections)
        if section:
            return (Command("AWAIT", (self.first + self.sections + section, 1)),)
        done = [Command("AWAIT", (self.first + other, 1)) for other in others]
        return (*done, *(Command("SIG", (self.first + self.sections + other,)) for other in others))

    def _behind(self, section: int, run: int) -> tuple[Command, ...]:
        reports = section and run + self.contexts < self.runs
        return (Command("SIG", (self.first + section,)),) if reports else ()


def _turns(code: Sequence[Command]) -> list[tuple[int, int]]:
    """Stretches of code that begin where it waits for another core, outside loops."""
    starts, depth = [0], 0
    for index, command in enumerate(code):
        waits = command.op == "AWAIT" and index and code[index - 1].op != "AWAIT"
        starts += [index] if waits and depth == 0 else []
        depth += (command.op == "LOOP") - (command.op == "ENDL")
    return list(pairwise((*starts, len(code))))


def _section(section: Section, number: int, kinds: Mapping[str, str], gates: _Gates) -> Section:
    tables = _Tables(section, kinds)
    code: list[Command] = []
    for run, commands in gates.order(number, section):
        code += commands if run < 0 else [tables.command(c, run % gates.contexts) for c in commands]
    return replace(
        section, descriptors=tuple(tables.descriptors), vectors=tuple(tables.vectors), code=(*code, section.code[-1])
    )


class _Tables:
    """A section's tables with entries for further contexts."""

    def __init__(self, section: Section, kinds: Mapping[str, str]) -> None:
        self._section, self._kinds = section, kinds
        self.descriptors: dict[Descriptor, int] = {d: i for i, d in enumerate(section.descriptors)}
        self.vectors: dict[Vector, int] = {v: i for i, v in enumerate(section.vectors)}
        self._made: dict[tuple[Command, int], Command] = {}

    def command(self, command: Command, context: int) -> Command:
        """A command as it runs in a context."""
        if context == 0:
            return command
        if (command, context) not in self._made:
            self._made[command, context] = self._renamed(command, context)
        return self._made[command, context]

    def _renamed(self, command: Command, context: int) -> Command:
        rows = operands(command.op)
        args = (
            self._descriptor(int(a), context) if o.kind == "descriptor"
            else self._vector(int(a), context) if o.kind == "vector" else a
            for o, a in zip(rows, command.args, strict=True)
        )  # fmt: skip
        return replace(command, args=tuple(args))

    def _descriptor(self, index: int, context: int) -> int:
        old = self._section.descriptors[index]
        if self._kinds[old.symbol] == SHARED:
            return index
        return self.descriptors.setdefault(replace(old, symbol=f"{old.symbol}{_mark(context)}"), len(self.descriptors))

    def _vector(self, index: int, context: int) -> int:
        old = self._section.vectors[index]
        found = (None if i is None else self._descriptor(i, context) for i in (old.multiplier, old.shift))
        multiplier, shift = found
        return self.vectors.setdefault(replace(old, multiplier=multiplier, shift=shift), len(self.vectors))
