"""How long a Program takes on a chip: its cores, arrays, ADCs, vector units and memory port as events in time.

The model is stated in docs/design/timing.md.  Time is int64 picoseconds from the start of the program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.errors import ProgramError
from insitu.isa.calls import written_out
from insitu.isa.program import Program
from insitu.isa.setup import setup_length, setup_only
from insitu.sim.arms import Condition, chosen, left_over
from insitu.sim.counts import Counts, executions, labels, tally
from insitu.sim.events import Machine
from insitu.sim.poly import whole
from insitu.sim.stages import SECOND, Plan, Units, plan_section

Spans = npt.NDArray[np.void]


@dataclass(frozen=True)
class LayerTime:
    """When a layer's first command starts and its last one ends, and how long its commands run in all cores."""

    start_ps: int
    end_ps: int
    busy_ps: int


@dataclass(frozen=True)
class Timing:
    """Latency, and where it goes.  `busy_ps` is work per unit; `lower_bound_ps` that of the busiest one.

    `counts` are the events of the commands that ran; `spans` (dtype clock.layout.SPAN, `resource` indexes `units`) is
    there when a trace was asked for.  `last_ps`: when each command of each section ended for the last time.
    """

    latency_ps: int
    layers: Mapping[str, LayerTime]
    busy_ps: Mapping[str, int]
    counts: Counts
    units: tuple[str, ...]
    commands: int
    stepped: int
    last_ps: Sequence[Sequence[int]] = ()
    spans: Spans | None = None

    @property
    def latency(self) -> float:
        """Seconds."""
        return self.latency_ps / SECOND

    @property
    def lower_bound_ps(self) -> int:
        """No schedule of these commands is faster than the busiest unit."""
        return max(self.busy_ps.values(), default=0)

    @property
    def busiest(self) -> str:
        """The unit that works longest; the first by name of several."""
        return max(sorted(self.busy_ps), key=lambda unit: self.busy_ps[unit], default="")

    @property
    def utilization(self) -> dict[str, float]:
        """Share of the latency each unit works."""
        return {unit: busy / self.latency_ps if self.latency_ps else 0.0 for unit, busy in self.busy_ps.items()}


def simulate_time(
    program: Program, chip: Chip, *, trace: bool = False, skip: bool = True, reads: int | None = None,
    taken: Mapping[Condition, int] | None = None,
) -> Timing:  # fmt: skip
    """Run the program in time; its named sizes must be bound.

    `skip` jumps over loop trips once the state of the whole machine repeats: the same result, sooner (a trace
    shows every trip, so it turns skipping off).  `reads` array reads are averaged per input vector, else as many as the
    chip's own calibration says.  A program in which a core waits forever raises ProgramError.
    `taken` says what conditions are; of the others the arm with more work runs, of an arm alone that arm (sim/arms.py).
    What sets the cores up stands before the run and takes none of its time (`simulate_setup`).
    """
    program = written_out(program)
    follows = any(c.op == "PRED" for section in program.sections for c in section.code)
    run, kept = _arms_run(program, chip, reads, taken) if follows or taken else (program, None)
    starts = [setup_length(section.code) for section in run.sections]
    timing = _simulate(run, chip, starts=starts, trace=trace, skip=skip, reads=reads)
    return timing if kept is None else _numbered(timing, program, kept)


def simulate_setup(program: Program, chip: Chip) -> Timing:
    """How long the chip is set up before the first run, and the events of that."""
    only = setup_only(program)
    return _simulate(only, chip, starts=[0] * len(only.sections), trace=False, skip=True, reads=None)


def _simulate(
    program: Program, chip: Chip, *, starts: Sequence[int], trace: bool, skip: bool, reads: int | None
) -> Timing:
    units = Units()
    ports = [units.of_port(section) for section in program.sections]
    plans = [plan_section(program, section, chip, units=units, reads=reads) for section in program.sections]
    issue = [units.of_core(section, "issue") for section in program.sections]
    machine = Machine(plans, ports=ports, issue=issue, units=len(units.names), trace=trace, skip=skip and not trace)
    machine.run(starts)
    if machine.waiting:
        raise _deadlock(program, machine)
    busy = _busy(plans, machine.executed, ports, issue)
    return Timing(
        latency_ps=machine.end,
        layers=_layers(program, machine),
        busy_ps={name: busy.get(i, 0) for i, name in enumerate(units.names)},
        counts=tally(program, chip, machine.executed, reads=reads),
        units=tuple(units.names),
        commands=sum(sum(runs) for runs in machine.executed),
        stepped=machine.stepped,
        last_ps=machine.last,
        spans=machine.spans if trace else None,
    )


def _arms_run(
    program: Program, chip: Chip, reads: int | None, taken: Mapping[Condition, int] | None
) -> tuple[Program, list[list[int]]]:
    """The program without the blocks that are not run, and by section the places of the commands that are left."""
    units = Units()
    work: list[list[int]] = []
    for section in program.sections:
        port, issue = units.of_port(section), units.of_core(section, "issue")
        plans, runs = plan_section(program, section, chip, units=units, reads=reads), executions(section.code)
        work.append([sum(plan_work(p, port, issue).values()) * whole(n) for p, n in zip(plans, runs, strict=True)])
    values = chosen(program, work, taken)
    kept = [left_over(section, values) for section in program.sections]
    sections = [
        replace(section, code=tuple(section.code[i] for i in left))
        for section, left in zip(program.sections, kept, strict=True)
    ]
    return replace(program, sections=tuple(sections)), kept


def _numbered(timing: Timing, program: Program, kept: Sequence[Sequence[int]]) -> Timing:
    """A timing of part of a program, commands numbered as in all of it."""
    last = [[0] * len(section.code) for section in program.sections]
    for whole_section, own, left in zip(last, timing.last_ps, kept, strict=True):
        for place, value in zip(left, own, strict=True):
            whole_section[place] = value
    spans = timing.spans
    if spans is not None:
        spans = spans.copy()
        for number, left in enumerate(kept):
            own = spans["section"] == number
            spans["command"][own] = np.asarray(left, np.int64)[spans["command"][own]]
    return replace(timing, last_ps=last, spans=spans)


def check_trace(spans: Spans) -> list[tuple[int, int]]:
    """Pairs of spans (row numbers) that hold one unit at the same time; none in a right trace."""
    order = np.lexsort((spans["end"], spans["start"], spans["resource"]))
    order = order[spans["end"][order] > spans["start"][order]]
    first, second = spans[order[:-1]], spans[order[1:]]
    clash = (first["resource"] == second["resource"]) & (second["start"] < first["end"])
    return [(int(order[i]), int(order[i + 1])) for i in np.flatnonzero(clash)]


def plan_work(plan: Plan, port: int, issue: int) -> dict[int, int]:
    """Work per unit (number -> picoseconds) of one execution of a command."""
    work = {
        unit: each * stage.count for stage in plan.stages for unit, each in zip(stage.units, stage.work, strict=True)
    }
    transfers = sum(burst.total for burst in (plan.read, plan.write) if burst)
    return {**work, port: transfers, issue: plan.issue}


def _busy(
    plans: Sequence[Sequence[Plan]], executed: Sequence[Sequence[int]], ports: Sequence[int], issue: Sequence[int]
) -> dict[int, int]:
    busy: dict[int, int] = {}
    for section, runs in enumerate(executed):
        times: dict[int, int] = {}  # equal commands share a plan
        for plan, n in zip(plans[section], runs, strict=True):
            times[id(plan)] = times.get(id(plan), 0) + n
        for plan in {id(plan): plan for plan in plans[section]}.values():
            for unit, work in plan_work(plan, ports[section], issue[section]).items():
                busy[unit] = busy.get(unit, 0) + work * times[id(plan)]
    return busy


def _layers(program: Program, machine: Machine) -> dict[str, LayerTime]:
    layers: dict[str, LayerTime] = {}
    for s, section in enumerate(program.sections):
        for i, label in enumerate(labels(section)):
            if not machine.executed[s][i] or section.code[i].op in ("WLOAD", "WVERIFY"):
                continue  # what loads in advance is no part of a layer's time
            new = LayerTime(machine.first[s][i], machine.last[s][i], machine.elapsed[s][i])
            old = layers.get(label, LayerTime(new.start_ps, new.end_ps, 0))
            layers[label] = LayerTime(
                min(old.start_ps, new.start_ps), max(old.end_ps, new.end_ps), old.busy_ps + new.busy_ps
            )
    return layers


def _deadlock(program: Program, machine: Machine) -> ProgramError:
    waits = [
        f"chip {program.sections[s].chip} core {program.sections[s].core} at command {at}: {what}"
        for s, at, what in machine.waiting
    ]
    return ProgramError(program.name, f"waits forever ({'; '.join(waits)})", "signals and barriers that meet")
