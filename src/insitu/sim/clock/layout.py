"""A machine of plans as structured arrays: what the kernels of this folder walk, all times int64 picoseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.sim.stages import Plan

Array = npt.NDArray[Any]
SPAN = np.dtype([("resource", "i4"), ("section", "i4"), ("command", "i4"), ("start", "i8"), ("end", "i8")])
CORE = np.dtype([(n, "i8") for n in ("at", "phase", "position", "started", "depth", "port", "issue", "base", "count")])
PLAN = np.dtype([
    (n, "i8") for n in (
        "kind", "arg", "wanted", "issue", "read_edge", "read_total", "write_edge", "write_total", "stage", "stage_end",
    )
])  # fmt: skip
STAGE = np.dtype([(n, "i8") for n in ("step", "count", "hold", "hold_end")])
HOLD = np.dtype([(n, "i8") for n in ("unit", "work")])
LOOP = np.dtype([(n, "i8") for n in ("start", "left")])
EVENT = np.dtype([(n, "i8") for n in ("time", "core")])
TALLY = np.dtype([(n, "i8") for n in ("executed", "elapsed", "first", "last")])
SEEN = np.dtype([("used", "i8"), ("key", "u8"), ("time", "i8")])
SLOT = np.dtype([(n, "i8") for n in ("used", "core", "position", "time")])
INFO = np.dtype(
    [(n, "i8") for n in ("events", "stepped", "spans", "most_holds", "depth", "seen", "next_slot", "again")]
)
MAX_SEEN = 2048  # places of the table of states; it is emptied when half full
MAX_SLOTS, SLOT_BYTES = 64, 32 << 20  # snapshots of tallies, and memory they may take

KINDS: Mapping[str, int] = {
    "ENDL": 1, "ENDP": 2, "CALL": 2, "RET": 2, "LOOP": 3, "SIG": 4, "AWAIT": 5, "BAR": 6, "HALT": 7, "WLOAD": 8,
    "WVERIFY": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Tables:
    """What does not change: distinct plans, their stages, the units these hold, and each command's plan."""

    plans: Array
    stages: Array
    holds: Array
    code: Array
    starts: tuple[int, ...]  # of each core's commands
    tokens: int
    depth: int


def tables(plans: Sequence[Sequence[Plan]], *, apart: frozenset[int] | None) -> Tables:
    """The plans of all cores, equal ones once.

    Units that are held by the same stages, all of them, are one unit that works as long as the longest of them: a stage
    starts when the last of its units is free, so no time changes.  Those in `apart` stay alone; None: all do.
    """
    number: dict[int, int] = {}
    distinct: list[Plan] = []
    code: list[int] = []
    starts: list[int] = []
    for commands in plans:
        starts.append(len(code))
        for plan in commands:
            if id(plan) not in number:  # equal commands of a section share theirs
                number[id(plan)] = len(distinct)
                distinct.append(plan)
            code.append(number[id(plan)])
    names = sorted({plan.args[0] for plan in distinct if plan.op in ("SIG", "AWAIT")})
    token = {name: i for i, name in enumerate(names)}
    stages = [stage for plan in distinct for stage in plan.stages]
    holds = [dict(zip(s.units, s.work, strict=True)) for s in stages]
    if apart is not None:
        holds = _joined(holds, apart)
    ends = np.cumsum([0, *(len(plan.stages) for plan in distinct)])
    held = np.cumsum([0, *(len(units) for units in holds)])
    rows = [_row(plan, token, int(a), int(b)) for plan, a, b in zip(distinct, ends[:-1], ends[1:], strict=True)]
    return Tables(
        np.array(rows, PLAN),
        np.array([(s.step, s.count, a, b) for s, a, b in zip(stages, held[:-1], held[1:], strict=True)], STAGE),
        np.array([hold for units in holds for hold in units.items()], HOLD),
        np.array(code, np.int64),
        tuple(starts),
        len(names),
        max((_depth(commands) for commands in plans), default=0),
    )


def _joined(holds: Sequence[Mapping[int, int]], apart: frozenset[int]) -> list[dict[int, int]]:
    """(unit -> work) of each stage, with one unit for those that always work together."""
    where: dict[int, list[int]] = {}
    for stage, units in enumerate(holds):
        for unit in units:
            where.setdefault(unit, []).append(stage)
    first: dict[tuple[int, ...], int] = {}
    name = {u: u if u in apart else first.setdefault(tuple(stages), u) for u, stages in where.items()}
    found: list[dict[int, int]] = [{} for _ in holds]
    for stage, units in enumerate(holds):
        for unit, work in units.items():
            found[stage][name[unit]] = max(work, found[stage].get(name[unit], 0))
    return found


def _row(plan: Plan, token: Mapping[int, int], stage: int, stage_end: int) -> tuple[int, ...]:
    arg, wanted = (*plan.args, 0, 0)[:2] if plan.op in ("LOOP", "SIG", "AWAIT") else (0, 0)
    if plan.op in ("SIG", "AWAIT"):
        arg = token[arg]
    read, write = ((burst and (burst.edge, burst.total)) or (0, 0) for burst in (plan.read, plan.write))
    return (KINDS.get(plan.op, 0), arg, wanted, plan.issue, *read, *write, stage, stage_end)


def _depth(commands: Sequence[Plan]) -> int:
    """Loops within one another at most."""
    depth = most = 0
    for plan in commands:
        depth += (plan.op == "LOOP") - (plan.op == "ENDL")
        most = max(most, depth)
    return most
