"""Steady: the time between results when inferences follow one another without a pause, by running them in time."""

from __future__ import annotations

from dataclasses import dataclass

from insitu.arch.spec import Chip
from insitu.isa.program import Program, chip_of_space
from insitu.isa.setup import memory_macros
from insitu.isa.stream import can_stream, can_take_turns, contexts_that_fit, run_places, streamed
from insitu.sim.timing import Timing, simulate_time

MOST_CONTEXTS = 4  # runs in flight (our choice: memory and time to simulate)
PERIODS = 3  # runs of which the mean is taken, times contexts


@dataclass(frozen=True)
class Steady:
    """Picoseconds between results, runs in memory at a time, runs that take turns, work of the busiest unit for a run.

    No order of these commands is faster than `bound_ps` a run.
    """

    interval_ps: float
    contexts: int
    together: int
    bound_ps: int

    @property
    def gap(self) -> float:
        """How far the interval is above the bound."""
        return self.interval_ps / self.bound_ps - 1 if self.bound_ps else 0.0


def steady_state(program: Program, chip: Chip, timing: Timing) -> Steady | None:
    """The steady state of a program whose single run takes `timing`; none where runs may not overlap.

    The first runs, which fill the pipeline, and the last, which nothing follows, are left out of the mean.
    """
    if not can_stream(program):
        return None
    room = [int(chip.memories[chip_of_space(space)[0]].size) for space in program.spaces]
    if any(memory_macros(section) for section in program.sections):
        return None  # memory is so short already that arrays make up for it
    contexts = min(contexts_that_fit(program, min(room, default=0)), 2 * len(program.sections), MOST_CONTEXTS)
    most = min(contexts, 2 if can_take_turns(program) else 1)
    ways = [_interval(program, chip, contexts, together) for together in range(1, most + 1)]
    return Steady(min(ways), contexts, 1 + ways.index(min(ways)), timing.lower_bound_ps)


def _interval(program: Program, chip: Chip, contexts: int, together: int) -> float:
    """Picoseconds between results in the middle of a long enough series of runs."""
    contexts -= contexts % together
    runs = (PERIODS + 2) * contexts
    told = simulate_time(streamed(program, runs, contexts=contexts, together=together), chip)
    ends = [0] * runs
    for section, places in enumerate(run_places(program, runs, contexts=contexts, together=together)):
        last = told.last_ps[section]
        ends = [max([end, *(last[i] for i in where)]) for end, where in zip(ends, places, strict=True)]
    first, last_ = ends[contexts - 1], ends[runs - contexts - 1]
    return (last_ - first) / (PERIODS * contexts)
