"""Share: the commands of a layer that has copies, each copy with its part of the output positions.

A part is a slice of a command's outermost loop, or of its first dimension: the same vectors, the same integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from insitu.compiler.commands import Op, Task
from insitu.compiler.mapping import Mapping, Placed
from insitu.isa.program import Binding, Descriptor, Tile

Spot = tuple[int, int, int, int]  # core, macro, x, y


def share_tasks(tasks: Sequence[Task], mapping: Mapping) -> list[Task]:
    """The tasks, those of replicated layers cut into one for each copy."""
    out: list[Task] = []
    for task in tasks:
        copies = mapping.copies.get(task.node, ())
        if not copies or not any(op.op == "MVM" for op in task.ops):
            out.append(task)
            continue
        first = mapping.layers[task.node]
        shares = [1 - sum(c.share for c in copies), *(c.share for c in copies)]
        for number, places in enumerate((first, *(c.places for c in copies))):
            moved = {_spot(a): b for a, b in zip(first, places, strict=True)}
            ops = [o for op in task.ops if (o := _part(op, shares, number)) is not None]
            core = next(b.core for a, b in zip(first, places, strict=True) if a.core == task.core)
            if ops:
                out.append(Task(task.node, core, tuple(_on(op, task.core, moved) for op in ops)))
    return out


def _spot(p: Placed) -> Spot:
    return p.core, p.macro, p.x, p.y


def _part(op: Op, shares: Sequence[float], number: int) -> Op | None:
    """The part of a command that a copy runs; none where it has nothing to do."""
    size = positions(op)
    if op.op != "MVM" or size < len(shares):
        return op if number == 0 else None
    ends = [round(size * s) for s in accumulate(shares)]
    a, b = list(pairwise((0, *ends[:-1], size)))[number]
    return cut(op, a, b) if a < b else None


def positions(op: Op) -> int:
    """How many parts an MVM can be cut into along its outermost axis."""
    if op.loops:
        return op.loops[0] if isinstance(op.loops[0], int) else 1
    out, source = op.operands[:2]
    assert isinstance(out, Descriptor)
    assert isinstance(source, Descriptor)
    if len(out.sizes) < 2 or len(source.sizes) < 2:
        return 1
    first, other = (next(iter(d.sizes)) for d in (out, source))
    return first if isinstance(first, int) and first == other else 1


def cut(op: Op, start: int, end: int) -> Op:
    """Positions start..end of an MVM's outermost axis."""
    descriptors = [o for o in op.operands if isinstance(o, Descriptor)]
    rest = op.operands[len(descriptors) :]
    if op.loops:
        one = end - start == 1
        loops = op.loops[1:] if one else (end - start, *op.loops[1:])
        made = [
            replace(d, offset=d.offset + start * d.steps[0], steps=d.steps[1:] if one else d.steps) for d in descriptors
        ]
        return replace(op, operands=(*made, *rest), loops=loops)
    made = [replace(d, offset=d.offset + start * d.strides[0], sizes=(end - start, *d.sizes[1:])) for d in descriptors]
    return replace(op, operands=(*made, *rest))


def _on(op: Op, core: int, moved: dict[Spot, Placed]) -> Op:
    """The command with its weights in another copy."""
    operands = tuple(
        replace(o, tiles=tuple(_moved(t, core, moved) for t in o.tiles)) if isinstance(o, Binding) else o
        for o in op.operands
    )
    return replace(op, operands=operands)


def _moved(tile: Tile, core: int, moved: dict[Spot, Placed]) -> Tile:
    p = moved[core, tile.macro, tile.x, tile.y]
    return replace(tile, macro=p.macro, x=p.x, y=p.y, bias0=p.bias0)
