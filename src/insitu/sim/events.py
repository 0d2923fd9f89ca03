"""The timing simulator's machine: cores in order, units held one command at a time, one memory port a chip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.sim.clock import layout
from insitu.sim.stages import Plan

Array = npt.NDArray[Any]
WAITING = {6: "a token", 7: "a barrier"}  # phases of clock.kernels that have no event of their own
FIRST_SPANS = 1 << 14


class Machine:
    """Runs plans in time order; afterwards says, per section and command, how often, when and how long."""

    def __init__(
        self, plans: Sequence[Sequence[Plan]], *, ports: Sequence[int], issue: Sequence[int], units: int,
        trace: bool, skip: bool,
    ) -> None:  # fmt: skip
        self._tables = layout.tables(plans, apart=None if trace else frozenset((*ports, *issue)))
        self._lengths = [len(commands) for commands in plans]
        self._cores = np.zeros(len(plans), layout.CORE)
        for name, column in (
            ("port", ports),
            ("issue", issue),
            ("base", self._tables.starts),
            ("count", self._lengths),
        ):
            self._cores[name] = column
        self._info = np.zeros(1, layout.INFO)
        self._tally = np.zeros(len(self._tables.code), layout.TALLY)
        self._tally["first"] = -1
        self._spans = np.zeros(FIRST_SPANS if trace else 0, layout.SPAN)
        self._free = np.zeros(units, np.int64)
        self._trace, self._skip = trace, skip and self._tables.depth > 0

    def run(self, starts: Sequence[int]) -> None:
        """To the end, each core from its first command on: every core is done or waits forever."""
        from insitu.sim.clock import kernels

        info, count = self._info[0], len(self._cores)
        queue = np.zeros(count, layout.EVENT)
        queue["core"] = np.arange(count)
        self._cores["position"] = starts
        info["events"], info["depth"], info["most_holds"] = count, max(self._tables.depth, 1), self._most_holds()
        loops, tokens = np.zeros((count, int(info["depth"])), layout.LOOP), np.zeros(self._tables.tokens, np.int64)
        fixed = (self._tables.plans, self._tables.stages, self._tables.holds, self._tables.code)
        memory = self._memory_of_states()
        while not kernels.run(
            self._cores, *fixed, loops, self._free, tokens, queue, self._info, self._spans, self._tally, *memory,
            self._trace, self._skip,
        ):  # fmt: skip
            self._spans = np.concatenate([self._spans, np.zeros_like(self._spans)])

    def _most_holds(self) -> int:
        """Spans that one step of a core adds at most."""
        stages = self._tables.stages
        held = np.concatenate([[0], np.cumsum(stages["hold_end"] - stages["hold"])])
        plans = self._tables.plans
        return 2 + int((held[plans["stage_end"]] - held[plans["stage"]]).max(initial=0))

    def _memory_of_states(self) -> tuple[Array, ...]:
        """State and trips of now, the table of states that were met, and snapshots of some of them."""
        count, depth = len(self._cores), int(self._info[0]["depth"])
        size, commands = 1 + count * (3 + depth) + len(self._free) + self._tables.tokens, len(self._tally)
        slots = int(np.clip(layout.SLOT_BYTES // (16 * commands + 8 * size), 1, layout.MAX_SLOTS)) if self._skip else 0
        places = layout.MAX_SEEN if self._skip else 0
        return (
            np.zeros(size, np.int64), np.zeros(count * depth, np.int64),
            np.zeros(places, layout.SEEN), np.zeros((places, count * depth), np.int64),
            np.zeros(slots, layout.SLOT), np.zeros((slots, size), np.int64), np.zeros((slots, count * depth), np.int64),
            np.zeros((slots, count), np.int64), np.zeros((slots, commands, 2), np.int64),
        )  # fmt: skip

    @property
    def stepped(self) -> int:
        """Commands that ran one by one."""
        return int(self._info[0]["stepped"])

    @property
    def spans(self) -> Array:
        """What was held when (layout.SPAN), where a trace was asked for."""
        return self._spans[: int(self._info[0]["spans"])]

    @property
    def end(self) -> int:
        """When the last core is done."""
        return int(self._cores["at"].max(initial=0))

    @property
    def waiting(self) -> list[tuple[int, int, str]]:
        """(section, command, what for) of the cores that are not done."""
        return [
            (i, int(c["position"]), WAITING[c["phase"]]) for i, c in enumerate(self._cores) if c["phase"] in WAITING
        ]

    @cached_property
    def executed(self) -> list[list[int]]:
        """How often each command ran."""
        return self._by_section("executed")

    @cached_property
    def elapsed(self) -> list[list[int]]:
        """How long all its runs took."""
        return self._by_section("elapsed")

    @cached_property
    def first(self) -> list[list[int]]:
        """When it began first; -1 where it never ran."""
        return self._by_section("first")

    @cached_property
    def last(self) -> list[list[int]]:
        """When it ended last."""
        return self._by_section("last")

    def _by_section(self, name: str) -> list[list[int]]:
        flat = self._tally[name]
        return [flat[a : a + n].tolist() for a, n in zip(self._tables.starts, self._lengths, strict=True)]
