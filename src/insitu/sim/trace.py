"""A run as a picture in time: a trace file for Perfetto or Chrome, and how busy each unit was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insitu.base.store import write_text
from insitu.base.units import format_quantity
from insitu.isa.program import Program
from insitu.sim.counts import labels
from insitu.sim.timing import Timing

PS_PER_US = 10**6  # the file format counts in microseconds


@dataclass(frozen=True)
class UnitUse:
    """How long a unit worked, in seconds, and which share of the run that is."""

    unit: str
    busy: float
    utilization: float


def write_trace(path: str | Path, program: Program, timing: Timing) -> Path:
    """Write the spans of `simulate_time(..., trace=True)` as trace-event JSON: a process a chip, a row a unit."""
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in trace_events(program, timing))
    return write_text(path, f'{{"displayTimeUnit":"ns","traceEvents":[\n{lines}\n]}}\n')


def trace_events(program: Program, timing: Timing) -> Iterator[dict[str, Any]]:
    """Names of chips and units, then one complete event a span, in microseconds."""
    assert timing.spans is not None, "simulate_time(..., trace=True) keeps the spans"
    chips = [int(unit.partition(".")[0].removeprefix("chip")) for unit in timing.units]
    for chip in sorted(set(chips)):
        yield {"ph": "M", "name": "process_name", "pid": chip, "args": {"name": f"chip {chip}"}}
    for unit, name in enumerate(timing.units):
        shown = name.partition(".")[2]
        yield {"ph": "M", "name": "thread_name", "pid": chips[unit], "tid": unit, "args": {"name": shown}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": chips[unit], "tid": unit, "args": {"sort_index": unit}}
    layers = [labels(section) for section in program.sections]
    for unit, section, command, start, end in timing.spans.tolist():
        op = program.sections[section].code[command].op
        yield {
            "ph": "X", "name": f"{op} {layers[section][command]}", "pid": chips[unit], "tid": unit,
            "ts": start / PS_PER_US, "dur": (end - start) / PS_PER_US,
            "args": {"core": program.sections[section].core, "command": command},
        }  # fmt: skip


def utilization(timing: Timing) -> tuple[UnitUse, ...]:
    """Every unit, the busiest first."""
    share = timing.utilization
    rows = [UnitUse(unit, busy * 1e-12, share[unit]) for unit, busy in timing.busy_ps.items()]
    return tuple(sorted(rows, key=lambda row: (-row.busy, row.unit)))


def utilization_text(timing: Timing) -> str:
    """`utilization` as a table for people."""
    rows = utilization(timing)
    width = max((len(row.unit) for row in rows), default=4)
    head = f"{'unit':{width}}  {'busy':>9}  share of {format_quantity(timing.latency, 's')}"
    lines = [f"{r.unit:{width}}  {format_quantity(r.busy, 's'):>9}  {100 * r.utilization:5.1f} %" for r in rows]
    return "\n".join([head, *lines]) + "\n"
