"""The event loop of the timing simulator in plain Python, slow and obvious: what its kernels are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from insitu.sim.stages import Plan, Stage

# What a core does at its next event; WAIT, MEET and DONE have no event of their own.
FETCH, READ, WRITE, POST, TAKE, ARRIVE, WAIT, MEET, DONE = range(9)
MAX_SEEN = 1024  # states remembered in the search for one that repeats

State = tuple[object, ...]
Trips = tuple[tuple[int, ...], ...]  # left, by core and loop


@dataclass
class Core:
    """A sequencer: where it stands, and the loops around it as [first command, trips left]."""

    number: int
    plans: Sequence[Plan]
    port: int
    issue: int
    at: int = 0
    phase: int = FETCH
    position: int = 0
    started: int = 0
    loops: list[list[int]] = field(default_factory=list[list[int]])


@dataclass(frozen=True)
class Snapshot:
    """When a state was met; the trips left, the beginning of each core's command and what had run by then."""

    state: State
    time: int
    trips: Trips
    started: tuple[int, ...]
    executed: list[list[int]]
    elapsed: list[list[int]]


class Machine:
    """Runs plans in time order; afterwards holds, per section and command, how often, when and how long."""

    def __init__(
        self, plans: Sequence[Sequence[Plan]], *, ports: Sequence[int], issue: Sequence[int], units: int,
        trace: bool, skip: bool,
    ) -> None:  # fmt: skip
        self.cores = [Core(i, p, ports[i], issue[i]) for i, p in enumerate(plans)]
        self.free = [0] * units
        self.tokens: dict[int, int] = {}
        self.events: list[tuple[int, int]] = []
        self.executed = [[0] * len(p) for p in plans]
        self.elapsed = [[0] * len(p) for p in plans]
        self.first = [[-1] * len(p) for p in plans]
        self.last = [[0] * len(p) for p in plans]
        self.stepped = 0
        self.spans: list[tuple[int, int, int, int, int]] = []
        self.trace = trace
        self.skip = skip
        self.seen: dict[State, tuple[int, Trips]] = {}
        self.armed: dict[tuple[int, int], Snapshot] = {}

    def run(self, starts: Sequence[int]) -> None:
        """To the end, each core from its first command on: every core is done or waits forever."""
        steps = (self._fetch, self._read, self._write, self._post, self._take, self._arrive)
        for core, start in zip(self.cores, starts, strict=True):
            core.position = start
            self._resume(core, 0, FETCH)
        while self.events:
            _, number = heappop(self.events)
            core = self.cores[number]
            while True:  # on with the same core while nothing else comes first
                steps[core.phase](core)
                if core.phase > ARRIVE:
                    break
                if self.events and self.events[0] < (core.at, number):
                    heappush(self.events, (core.at, number))
                    break

    @property
    def end(self) -> int:
        """When the last core is done."""
        return max((core.at for core in self.cores), default=0)

    @property
    def waiting(self) -> list[tuple[int, int, str]]:
        """(section, command, what for) of the cores that are not done."""
        reasons = {WAIT: "a token", MEET: "a barrier"}
        return [(c.number, c.position, reasons[c.phase]) for c in self.cores if c.phase in reasons]

    # one step of a core

    def _fetch(self, core: Core) -> None:
        if core.position >= len(core.plans):
            core.phase = DONE
            return
        plan = core.plans[core.position]
        core.started = core.at
        if plan.op == "ENDL":
            self._end_loop(core)
            return
        if plan.issue:
            self._hold(core, core.issue, core.at, core.at + plan.issue)
            core.at += plan.issue
        match plan.op:
            case "ENDP" | "CALL" | "RET":
                self._finish(core)
            case "LOOP":
                core.loops.append([core.position + 1, plan.args[0]])
                self._finish(core)
            case "SIG":
                core.phase = POST
            case "AWAIT":
                core.phase = TAKE
            case "BAR":
                core.phase = ARRIVE
            case "HALT":
                self._finish(core)
                core.phase = DONE
            case "WLOAD" | "WVERIFY":
                self._occupy(core, plan.stages[0], core.at, core.at)
                self._finish(core)
            case _:
                if plan.read:
                    core.phase = READ
                else:
                    self._compute(core, plan, core.at, core.at, 0)

    def _end_loop(self, core: Core) -> None:
        loop = core.loops[-1]
        loop[1] -= 1
        again = loop[1] > 0
        if not again:
            core.loops.pop()
        self._finish(core)
        if again:
            core.position = loop[0]
            if self.skip and loop[1] > 1:
                self._skip_trips(core)

    def _read(self, core: Core) -> None:
        plan = core.plans[core.position]
        assert plan.read
        start = max(core.at, self.free[core.port])
        end = start + plan.read.total
        self._hold(core, core.port, start, end)
        self._compute(core, plan, start, end, plan.read.edge)

    def _compute(self, core: Core, plan: Plan, start: int, end: int, step: int) -> None:
        """All after the operands: `start`, `end` and `step` (one vector's time) are those of the stage before."""
        for stage in plan.stages:
            start, end = self._occupy(core, stage, start + step, end)
            step = stage.step
        core.at = end
        if plan.write is None:
            self._finish(core)
            return
        # So late that the burst then never starves: the port is not held while results are being made.
        core.at = max(start + step, end + plan.write.edge - plan.write.total)
        core.phase = WRITE

    def _occupy(self, core: Core, stage: Stage, earliest: int, before: int) -> tuple[int, int]:
        """Hold a stage's units; `before` is when the stage before ends."""
        start = earliest
        for unit in stage.units:
            start = max(start, self.free[unit])
        end = max(start + stage.count * stage.step, before + stage.step)
        for unit, work in zip(stage.units, stage.work, strict=True):
            self._hold(core, unit, start, end - stage.step + work)
        return start, end

    def _write(self, core: Core) -> None:
        write = core.plans[core.position].write
        assert write
        start = max(core.at, self.free[core.port])
        core.at = start + write.total
        self._hold(core, core.port, start, core.at)
        self._finish(core)

    def _post(self, core: Core) -> None:
        token = core.plans[core.position].args[0]
        self.tokens[token] = self.tokens.get(token, 0) + 1
        for other in self.cores:
            if other.phase == WAIT and other.plans[other.position].args[0] == token and self._take_token(other):
                other.at = core.at
                self._finish(other)
                self._resume(other, core.at, FETCH)
        self._finish(core)

    def _take(self, core: Core) -> None:
        if self._take_token(core):
            self._finish(core)
        else:
            core.phase = WAIT

    def _take_token(self, core: Core) -> bool:
        token, wanted = core.plans[core.position].args
        if self.tokens.get(token, 0) < wanted:
            return False
        self.tokens[token] -= wanted
        return True

    def _arrive(self, core: Core) -> None:
        core.phase = MEET
        if any(other.phase != MEET for other in self.cores):
            return
        for other in self.cores:
            other.at = core.at
            self._finish(other)
            if other is not core:
                self._resume(other, core.at, FETCH)

    def _resume(self, core: Core, time: int, phase: int) -> None:
        core.at, core.phase = time, phase
        heappush(self.events, (time, core.number))

    def _finish(self, core: Core) -> None:
        """The command at the core's position ends now; the next one follows."""
        s, i = core.number, core.position
        self.stepped += 1
        self.executed[s][i] += 1
        self.elapsed[s][i] += core.at - core.started
        if self.first[s][i] < 0:
            self.first[s][i] = core.started
        self.last[s][i] = core.at
        core.position += 1
        core.phase = FETCH

    def _hold(self, core: Core, unit: int, start: int, end: int) -> None:
        self.free[unit] = end
        if self.trace and end > start:
            self.spans.append((unit, core.number, core.position, start, end))

    # loop trips that repeat

    def _skip_trips(self, core: Core) -> None:
        """Where the whole machine is in a state it was in before, jump over the trips that would be the same.

        The first return of a state takes a snapshot, the second one knows what a period does, and jumps.
        """
        state, trips = self._state(core), tuple(tuple(left for _, left in c.loops) for c in self.cores)
        place = (core.number, core.position)
        armed = self.armed.get(place)
        if armed is not None and armed.state == state:
            periods = _periods(armed.trips, trips)
            if periods and self._steady(armed, core.at - armed.time):
                self._jump(armed, trips, periods, core.at - armed.time)
                del self.armed[place]
                return
        before = self.seen.get(state)
        fresh = armed is None or armed.state == state or (before is not None and armed.time < before[0])
        if before is not None and fresh and _periods(before[1], trips) > 1:
            self.armed[place] = self._snapshot(state, trips, core.at)
        if len(self.seen) >= MAX_SEEN:
            self.seen.clear()
        self.seen[state] = (core.at, trips)

    def _state(self, core: Core) -> State:
        """All that decides what happens next, but trips left; times are relative to now."""
        now = core.at
        cores = tuple(
            (c.position, c.phase, c.at - now if c.phase <= ARRIVE else 0, tuple(start for start, _ in c.loops))
            for c in self.cores
        )
        held = tuple((unit, free - now) for unit, free in enumerate(self.free) if free > now)
        tokens = tuple(sorted((token, n) for token, n in self.tokens.items() if n))
        return core.number, cores, held, tokens

    def _snapshot(self, state: State, trips: Trips, now: int) -> Snapshot:
        started = tuple(c.started for c in self.cores)
        return Snapshot(state, now, trips, started, [*map(list, self.executed)], [*map(list, self.elapsed)])

    def _steady(self, old: Snapshot, period: int) -> bool:
        """Each core either did nothing since, or began what it does now one period later than it did then."""
        return all(
            c.started - began == period or (c.started == began and not self._ran(old, c))
            for c, began in zip(self.cores, old.started, strict=True)
        )

    def _ran(self, old: Snapshot, core: Core) -> bool:
        return self.executed[core.number] != old.executed[core.number]

    def _jump(self, old: Snapshot, trips: Trips, periods: int, period: int) -> None:
        shift = periods * period
        for c, before, left in zip(self.cores, old.trips, trips, strict=True):
            if c.phase <= ARRIVE or self._ran(old, c):
                c.at += shift
            if c.started != old.started[c.number]:
                c.started += shift
            for loop, was, now in zip(c.loops, before, left, strict=True):
                loop[1] = now - periods * (was - now)
            executed, elapsed = self.executed[c.number], self.elapsed[c.number]
            for i, n in enumerate(old.executed[c.number]):
                if executed[i] != n:
                    executed[i] += periods * (executed[i] - n)
                    elapsed[i] += periods * (elapsed[i] - old.elapsed[c.number][i])
                    self.last[c.number][i] += shift
        self.free = [free + shift for free in self.free]
        self.events = [(time + shift, number) for time, number in self.events]


def _periods(old: Trips, new: Trips) -> int:
    """How often the step from `old` to `new` trips left can be repeated with every loop going on; 0 if never.

    Within one core a single level may differ: then loops inside it ran whole and those around it did not turn.
    """
    most: int | None = None
    for was, now in zip(old, new, strict=True):
        changes = [(a - b, b) for a, b in zip(was, now, strict=True) if a != b]
        if len(changes) > 1 or any(done < 0 for done, _ in changes):
            return 0
        for done, left in changes:
            fits = (left - 1) // done
            most = fits if most is None else min(most, fits)
    return most or 0
