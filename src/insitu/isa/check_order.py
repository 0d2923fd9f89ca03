"""Static check of order: tokens balance, nobody waits forever, and every exchange through memory is ordered.

The sections are run as skeletons of signals, waits and memory accesses.  Each keeps a vector clock, the number of
signals and barriers of every other section it knows to be over; a byte of memory remembers its last writer and
readers.  An access to a byte that another section wrote (or, for a write, read) without the clock knowing is a fault,
whatever the interleaving, since the clocks do not depend on it: a token has one waiting section (rule T2).
Commands under a PRED are taken to run and descriptors that SETD moves to reach all they may; signals, waits and
barriers stand outside every PRED (rule P2), so the order found holds whichever way the data go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.isa.elements import Element, element
from insitu.isa.fault import Fault, command_name, core_name
from insitu.isa.program import Command, Descriptor, Program, Section, Symbol
from insitu.isa.walk import accesses, covered, executed, expand, nest, reach, runs

LIMIT = 1_000_000  # commands; longer programs are checked by their totals only
MAX_SHADOW = 1 << 28  # bytes of shared memory; likewise
SYNC = ("SIG", "AWAIT", "BAR")
Clock = npt.NDArray[np.int64]


def order_faults(program: Program) -> Iterator[Fault]:
    """Faults of tokens, waits and orderings (T)."""
    sent = [_totals(section, "SIG") for section in program.sections]
    taken = [_totals(section, "AWAIT") for section in program.sections]
    balance = list(_balance_faults(program, sent, taken))
    yield from balance
    several = len(program.sections) > 1
    uses_sync = several or any(sent) or any(taken) or any(c.op == "BAR" for s in program.sections for c in s.code)
    if balance or not uses_sync or sum(executed(s.code) for s in program.sections) > LIMIT:
        return
    shared = _shared(program) if several else {}
    if sum(high - low for low, high in shared.values()) <= MAX_SHADOW:
        yield from _Run(program, sent, shared).faults()


def _totals(section: Section, op: str) -> dict[int, int]:
    """Token -> signals sent (or counts awaited) over all loops."""
    totals: dict[int, int] = {}
    for _, command, trips in nest(section.code):
        if command.op == op:
            token, times = int(command.args[0]), prod(int(n) for n in trips)
            totals[token] = totals.get(token, 0) + times * (int(command.args[1]) if op == "AWAIT" else 1)
    return totals


def _balance_faults(program: Program, sent: list[dict[int, int]], taken: list[dict[int, int]]) -> Iterator[Fault]:
    for token in sorted({t for totals in (*sent, *taken) for t in totals}):
        signals, waits = sum(s.get(token, 0) for s in sent), sum(t.get(token, 0) for t in taken)
        if signals != waits:
            yield Fault("T1", f"token t{token}", f"{signals} signals, {waits} awaited")
        waiting = [core_name(s) for s, t in zip(program.sections, taken, strict=True) if token in t]
        if len(waiting) > 1:
            yield Fault("T2", f"token t{token}", f"awaited by {' and '.join(waiting)}")


# memory that more than one section touches


def _shared(program: Program) -> dict[str, tuple[int, int]]:
    """Space -> the byte range within which some section writes what another one touches."""
    symbols = {s.name: s for s in program.symbols}
    touched: dict[str, list[tuple[int, int, int, bool]]] = {}
    for number, section in enumerate(program.sections):
        for low, high, space, writes in _touches(section, symbols):
            touched.setdefault(space, []).append((low, high, number, writes))
    ranges: dict[str, tuple[int, int]] = {}
    for space, items in touched.items():
        meets = list(_meetings(items))
        if meets:
            ranges[space] = min(low for low, _ in meets), max(high for _, high in meets)
    return ranges


def _touches(section: Section, symbols: Mapping[str, Symbol]) -> Iterator[tuple[int, int, str, bool]]:
    table = covered(section)
    for _, command, trips in nest(section.code):
        for access in accesses(section, command):
            descriptor = table[access.descriptor]
            symbol = symbols[descriptor.symbol]
            low, high = reach(descriptor, [int(n) for n in trips])
            first, end = _kind(symbol).extent(low, high + 1)
            yield symbol.address + first, symbol.address + end, symbol.space, access.role != "read"


def _meetings(items: list[tuple[int, int, int, bool]]) -> Iterator[tuple[int, int]]:
    """Byte ranges of pairs from different sections that meet, one of them writing."""
    active: list[tuple[int, int, int, bool]] = []
    for item in sorted(set(items)):
        active = [other for other in active if other[1] > item[0]]
        for other in active:
            if other[2] != item[2] and (other[3] or item[3]):
                yield item[0], min(item[1], other[1])
        active.append(item)


def _kind(symbol: Symbol) -> Element:
    kind = element(symbol.dtype)
    assert kind is not None, "memory is checked first"
    return kind


@dataclass(frozen=True)
class _Seen:
    """What happened to a byte: who wrote it last, when and in which command, and until when sections have read it."""

    writer: int = -1
    epoch: int = -1
    command: int = -1
    reads: tuple[tuple[int, int], ...] = ()  # section, epoch


@dataclass
class _Shadow:
    """For each byte of a range the number of its history; bytes that went through the same share one."""

    start: int
    held: npt.NDArray[np.int32]
    histories: list[_Seen] = field(default_factory=lambda: [_Seen()])
    numbers: dict[_Seen, int] = field(default_factory=lambda: {_Seen(): 0})

    @classmethod
    def of(cls, low: int, high: int) -> _Shadow:
        return cls(low, np.zeros(high - low, np.int32))

    def number(self, seen: _Seen) -> int:
        """The number of a history."""
        if seen not in self.numbers:
            self.numbers[seen] = len(self.histories)
            self.histories.append(seen)
        return self.numbers[seen]


@dataclass(frozen=True)
class _Footprint:
    """The bytes of an operand: runs of `run` bytes from each of `starts`, moved by `steps` in loops."""

    space: str
    starts: Clock
    run: int
    steps: tuple[int, ...]

    def bytes(self, counters: tuple[int, ...], shadow: _Shadow) -> npt.NDArray[np.int64] | slice:
        """Indices into the shadow, cut to its range."""
        count = len(shadow.held)
        starts = self.starts + (sum(c * s for c, s in zip(counters, self.steps, strict=False)) - shadow.start)
        if len(starts) == 1:
            return slice(min(max(int(starts[0]), 0), count), min(max(int(starts[0]) + self.run, 0), count))
        index = (starts[:, None] + np.arange(self.run)).ravel()
        return index[(index >= 0) & (index < count)]


def _footprint(descriptor: Descriptor, symbol: Symbol) -> _Footprint:
    """The bytes of an operand in the first trip of its loops; all of the symbol where elements share bytes unevenly."""
    kind = _kind(symbol)
    dims = [(int(size), stride) for size, stride in zip(descriptor.sizes, descriptor.strides, strict=True)]
    starts, run = runs(descriptor.offset, dims)
    if any(n % kind.share for n in (run, *starts, *descriptor.steps)):
        return _Footprint(symbol.space, np.array([symbol.address]), kind.bytes(symbol.count), ())
    steps = tuple(step * kind.width // kind.share for step in descriptor.steps)
    return _Footprint(symbol.space, symbol.address + starts * kind.width // kind.share, kind.bytes(run), steps)


# the run of the skeletons


@dataclass
class _Core:
    """One section on its way."""

    number: int
    section: Section
    clock: Clock
    steps: Iterator[str]
    epoch: int = 0  # signals and barriers passed
    taken: dict[int, int] = field(default_factory=dict[int, int])
    waiting: str = ""


class _Run:
    """All sections together, until they halt or none can go on."""

    def __init__(self, program: Program, sent: list[dict[int, int]], shared: Mapping[str, tuple[int, int]]) -> None:
        count = len(program.sections)
        self._sent = sent
        self._symbols = {s.name: s for s in program.symbols}
        self._shadows = {space: _Shadow.of(low, high) for space, (low, high) in shared.items()}
        self._signals: dict[int, list[list[Clock]]] = {}  # token -> producer -> clocks of its signals so far
        self._found: dict[tuple[Any, ...], Fault] = {}
        self._cores: list[_Core] = []
        for number, section in enumerate(program.sections):
            core = _Core(number, section, np.zeros(count, np.int64), iter(()))
            core.steps = self._steps(core)
            self._cores.append(core)

    def faults(self) -> Iterator[Fault]:
        """Run to the end; what was found on the way, then who is stuck."""
        running = list(self._cores)
        while running:
            moved = [core for core in running if self._advance(core)]
            running = [core for core in running if core.waiting != "done"]
            if not moved and not self._barrier(running):
                break
        yield from self._found.values()
        for core in running:
            yield Fault("T3", core_name(core.section), f"stuck at {core.waiting}")

    def _advance(self, core: _Core) -> bool:
        """Run a section until it waits or ends; whether it got anywhere."""
        before = core.waiting
        if before.endswith("(BAR)"):
            return False
        core.waiting = next(core.steps, "done")
        return core.waiting != before or core.waiting == "done"

    def _barrier(self, running: list[_Core]) -> bool:
        """Let everybody pass if all sections of the program stand at a barrier."""
        if len(running) != len(self._cores) or not all(core.waiting.endswith("(BAR)") for core in running):
            return False
        for core in running:
            core.epoch += 1
            core.clock[core.number] = core.epoch
        joined = np.max([core.clock for core in running], axis=0)
        for core in running:
            core.clock = joined.copy()
            core.waiting = ""
        return True

    def _steps(self, core: _Core) -> Iterator[str]:
        """Yields the name of the command at which the section has to wait."""
        footprints = self._footprints(core.section)
        code, indices = _relevant(core.section.code, footprints)
        for at, command, counters in expand(code):
            index = indices[at]
            if command.op == "SIG":
                self._signal(core, int(command.args[0]))
            elif command.op == "AWAIT":
                token, count = int(command.args[0]), int(command.args[1])
                core.taken[token] = core.taken.get(token, 0) + count
                while core.taken[token] > self._signalled(token):
                    yield f"{command_name(core.section, index, command)} t{token}, {self._signalled(token)} signals"
                self._acquire(core, token)
            elif command.op == "BAR":
                yield f"{command_name(core.section, index, command)[:-5]}(BAR)"
            for footprint, role, name in footprints.get(index, ()):
                self._touch(core, index, command, footprint, counters, writes=role != "read", name=name)

    def _signalled(self, token: int) -> int:
        return sum(len(clocks) for clocks in self._signals.get(token, ()))

    def _signal(self, core: _Core, token: int) -> None:
        core.epoch += 1
        core.clock[core.number] = core.epoch
        self._signals.setdefault(token, [[] for _ in self._cores])[core.number].append(core.clock.copy())

    def _acquire(self, core: _Core, token: int) -> None:
        """Learn from the signals that must have been sent, whoever else signals this token."""
        total = sum(sent.get(token, 0) for sent in self._sent)
        for producer, clocks in enumerate(self._signals[token]):
            certain = core.taken[token] - (total - self._sent[producer].get(token, 0))
            if certain > 0:
                core.clock = np.maximum(core.clock, clocks[certain - 1])

    def _footprints(self, section: Section) -> dict[int, list[tuple[_Footprint, str, str]]]:
        """Command index -> what it touches in shared memory; reads before writes."""
        found: dict[int, list[tuple[_Footprint, str, str]]] = {}
        known: dict[int, _Footprint] = {}
        table = covered(section)
        for index, command, trips in nest(section.code):
            for access in sorted(accesses(section, command), key=lambda a: a.role != "read"):
                descriptor = table[access.descriptor]
                symbol = self._symbols[descriptor.symbol]
                if not self._may_share(descriptor, symbol, [int(n) for n in trips]):
                    continue
                if access.descriptor not in known:
                    known[access.descriptor] = _footprint(descriptor, symbol)
                found.setdefault(index, []).append((known[access.descriptor], access.role, symbol.name))
        return found

    def _may_share(self, descriptor: Descriptor, symbol: Symbol, trips: list[int]) -> bool:
        shadow = self._shadows.get(symbol.space)
        if shadow is None:
            return False
        low, high = reach(descriptor, trips)
        first, end = (symbol.address + at for at in _kind(symbol).extent(low, high + 1))
        return end > shadow.start and first < shadow.start + len(shadow.held)

    def _touch(
        self,
        core: _Core,
        index: int,
        command: Command,
        footprint: _Footprint,
        counters: tuple[int, ...],
        *,
        writes: bool,
        name: str,
    ) -> None:
        shadow, me = self._shadows[footprint.space], core.number
        at = footprint.bytes(counters, shadow)
        held = shadow.held[at]
        if not held.size:
            return
        old = np.flatnonzero(np.bincount(held)).tolist()
        for number in old:
            self._compare(core, index, command, shadow.histories[number], writes=writes, name=name)
        if writes:
            shadow.held[at] = shadow.number(_Seen(me, core.epoch, index))
            return
        new = {n: shadow.number(_read(shadow.histories[n], me, core.epoch)) for n in old}
        if len(new) == 1:
            shadow.held[at] = new[old[0]]
        else:
            table = np.zeros(old[-1] + 1, np.int32)
            table[old] = [new[n] for n in old]
            shadow.held[at] = table[held]

    def _compare(self, core: _Core, index: int, command: Command, seen: _Seen, *, writes: bool, name: str) -> None:
        """Faults of an access to bytes with a history."""
        if seen.writer not in (-1, core.number) and core.clock[seen.writer] <= seen.epoch:
            other = self._cores[seen.writer].section
            where = command_name(other, seen.command, other.code[seen.command])
            self._report(core, index, command, where, writes=writes, name=name)
        for section, epoch in seen.reads if writes else ():
            if section != core.number and epoch >= core.clock[section]:
                other = core_name(self._cores[section].section)
                self._report(core, index, command, other, writes=True, name=name, verb="read")

    def _report(
        self, core: _Core, index: int, command: Command, other: str, *, writes: bool, name: str, verb: str = "written"
    ) -> None:
        where = command_name(core.section, index, command)
        does = "writes" if writes else "reads"
        fault = Fault("T4", where, f"{does} {name} in memory {verb} by {other} without an order between them")
        self._found.setdefault((core.number, index, other, verb), fault)


def _read(seen: _Seen, section: int, epoch: int) -> _Seen:
    """The history after a read."""
    return replace(seen, reads=tuple(sorted({**dict(seen.reads), section: epoch}.items())))


def _relevant(code: tuple[Command, ...], footprints: Mapping[int, Any]) -> tuple[list[Command], list[int]]:
    """Code reduced to loops, synchronisation and shared accesses, with the old index of each command."""
    kept: list[tuple[Command, int]] = []
    for index, command in enumerate(code):
        if command.op == "ENDL" and kept and kept[-1][0].op == "LOOP":
            kept.pop()  # an empty loop
        elif command.op in ("LOOP", "ENDL", *SYNC) or index in footprints:
            kept.append((command, index))
    return [command for command, _ in kept], [index for _, index in kept]
