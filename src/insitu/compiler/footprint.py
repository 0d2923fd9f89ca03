"""Footprint: which elements of a symbol a task touches, so that only what really meets is ordered.

A footprint may be larger than the truth (small gaps are closed, many starts become one run), never smaller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from insitu.compiler.commands import HostCall, Op, TableVector, Task
from insitu.isa.program import Descriptor, Size

MOST_STARTS = 4096


@dataclass(frozen=True, eq=False)
class Footprint:
    """Runs of `run` elements from each of `starts` (ascending); none of them: the whole symbol."""

    starts: npt.NDArray[np.int64] | None
    run: int = 0

    def meets(self, other: Footprint) -> bool:
        """Whether the two may have an element in common."""
        if self.starts is None or other.starts is None:
            return True
        few, many = (self, other) if len(self.starts) <= len(other.starts) else (other, self)
        assert few.starts is not None
        assert many.starts is not None
        first = np.searchsorted(many.starts, few.starts - many.run, side="right")  # the first run that ends behind
        inside = first < len(many.starts)
        return bool((many.starts[first[inside]] < few.starts[inside] + few.run).any())


WHOLE = Footprint(None)


def footprint(descriptor: Descriptor, loops: Sequence[Size]) -> Footprint:
    """The elements a descriptor addresses over all trips of the loops around it."""
    dims = [*zip(descriptor.sizes, descriptor.strides, strict=True), *zip(loops, descriptor.steps, strict=False)]
    if any(isinstance(size, str) for size, _ in dims):
        return WHOLE
    starts, run = np.array([descriptor.offset], np.int64), 1
    for size, stride in sorted(((int(n), s) for n, s in dims), key=lambda dim: abs(dim[1])):
        distance = abs(stride)
        starts = starts + min(stride, 0) * (size - 1)
        if len(starts) == 1 and distance <= 2 * run:
            run += distance * (size - 1)
        elif len(starts) * size > MOST_STARTS:
            starts, run = starts[:1], int(starts[-1] - starts[0]) + run + distance * (size - 1)
        elif distance:
            starts = np.unique(starts[:, None] + np.arange(size) * distance)
    return Footprint(starts, run)


class Touched:
    """What a task reads and writes: footprints by symbol."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @cached_property
    def writes(self) -> dict[str, list[Footprint]]:
        """Of each symbol it writes."""
        return _by_symbol(self.task, writes=True)

    @cached_property
    def reads(self) -> dict[str, list[Footprint]]:
        """Of each symbol it reads."""
        return _by_symbol(self.task, writes=False)

    @cached_property
    def symbols(self) -> frozenset[str]:
        """All symbols it touches."""
        return frozenset((*self.writes, *self.reads))


def any_meet(first: dict[str, list[Footprint]], second: dict[str, list[Footprint]]) -> bool:
    """Whether two sets of footprints meet within one symbol."""
    return any(a.meets(b) for name in first.keys() & second.keys() for a in first[name] for b in second[name])


def _by_symbol(task: Task, *, writes: bool) -> dict[str, list[Footprint]]:
    found = dict.fromkeys((d, op.loops) for op in task.ops for d in (written(op) if writes else read(op)))
    out: dict[str, list[Footprint]] = {}
    for descriptor, loops in found:
        out.setdefault(descriptor.symbol, []).append(footprint(descriptor, loops))
    return out


def written(op: Op) -> Iterator[Descriptor]:
    """Descriptors a command writes."""
    out = op.operands[0]
    if isinstance(out, HostCall):
        yield from (d for d in out.writes if d)
    elif isinstance(out, Descriptor):
        yield out


def read(op: Op) -> Iterator[Descriptor]:
    """Descriptors a command reads, those of its tables included."""
    if isinstance(call := op.operands[0], HostCall):
        yield from (d for d in call.reads if d)
        return
    for operand in op.operands[0 if op.op == "ACC" else 1 :]:
        if isinstance(operand, Descriptor):
            yield operand
        elif isinstance(operand, TableVector):
            yield from (t for t in (operand.multiplier, operand.shift) if t)
