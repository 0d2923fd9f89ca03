"""What emission rules share: the program while it is written, and commands over merged axes."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.compiler.commands import Axis, Op, Operand, Task, descriptor, merge, split_loops
from insitu.compiler.mapping import Mapping
from insitu.compiler.storage import Storage
from insitu.graph.graph import Graph, Node
from insitu.graph.types import Dim
from insitu.isa.program import Binding, Location, Post, Tile, Vector, WeightRef, weight_ref


@dataclass
class Emitter:
    """The tasks of a program while they are written, with the weights and extra memory they need."""

    graph: Graph
    chip: Chip
    mapping: Mapping
    storage: Storage
    expected: Dict[str, npt.NDArray[Any]] = field(default_factory=dict[str, npt.NDArray[Any]])
    tasks: list[Task] = field(default_factory=list[Task])
    weights: dict[str, WeightRef] = field(default_factory=dict[str, WeightRef])
    scratch: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])  # symbols: type, count
    tables: dict[str, str] = field(default_factory=dict[str, str])  # weight symbols: WeightRef name
    cores: dict[str, int] = field(default_factory=dict[str, int])  # value -> core that wrote it last
    filled: set[str] = field(default_factory=set[str])
    numbers: Dict[str, tuple[Tile, ...]] = field(default_factory=dict[str, tuple[Tile, ...]])  # matrices without codes
    looked_up: dict[WeightRef, str] = field(default_factory=dict[WeightRef, str])  # tables of the vector unit
    banked: list[str] = field(default_factory=list[str])  # weights that lie in memory banks
    owners: dict[str, str] = field(default_factory=dict[str, str])  # weight layer: the one whose weights it reads
    products: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])  # run-time products: where, and why
    reloaded: dict[Binding, int] = field(default_factory=dict[Binding, int])  # what WLOAD brings: segment

    def at(self, value: str) -> Location:
        """Where a value lives."""
        return self.storage.locations[value]

    def core_of(self, node: Node) -> int:
        """The core of a node without weights: the one that wrote its first operand, of those of the node's chip."""
        cores = [self.cores[v] for v in node.inputs if v in self.cores]
        home = self.mapping.homes.get(node.name)
        if self.mapping.staged:
            return max(cores, default=0)
        if home is None:
            return cores[0] if cores else 0
        return next((c for c in cores if c // self.chip.cores == home), home * self.chip.cores)

    def task(self, node: Node, core: int, ops: Sequence[Op]) -> None:
        """Append a task; its output is now written by `core`."""
        self.tasks.append(Task(node.name, core, tuple(ops)))
        self.cores[node.output] = core

    def weight(self, name: str, array: npt.NDArray[Any]) -> str:
        """Keep an array as a weight; returns its name."""
        self.weights[name] = weight_ref(array)
        return name

    def look_up(self, name: str, array: npt.NDArray[Any]) -> str:
        """Keep a table of the vector unit; returns the name of the first one with these entries."""
        ref = weight_ref(np.asarray(array).astype(np.int32))
        known = self.looked_up.setdefault(ref, name)
        self.weights[known] = ref
        return known

    def table(self, name: str, array: npt.NDArray[Any]) -> str:
        """Keep an array as a weight symbol in memory; returns the symbol's name."""
        self.tables[name] = self.weight(name, array)
        return name

    def post(self, node: Node) -> Post:
        """Requantize settings of a node with one multiplier."""
        quant = self.graph.type(node.output).quant
        assert quant is not None
        a = node.attr
        return Post(
            a("multiplier", 1),
            a("shift", 0),
            a("rounding", "half_even"),
            quant.zero_point,
            a("lo", quant.lo),
            a("hi", quant.hi),
        )

    def zero(self, value: str) -> int:
        """Zero point of a value."""
        quant = self.graph.type(value).quant
        return quant.zero_point if quant else 0


def fill_halo(emitter: Emitter, value: str) -> list[Op]:
    """Commands that write the halo of a stored value, once."""
    halo = emitter.storage.halos.get(value, ())
    if not any(sum(h) for h in halo):
        return []
    at, code = emitter.at(value), emitter.storage.fills.get(value, 0)
    if value in emitter.filled or not any(sum(h) for h in halo):
        return []
    emitter.filled.add(value)
    padded: list[Dim] = [d if isinstance(d, str) else d + sum(h) for d, h in zip(at.shape, halo, strict=True)]
    ops: list[Op] = []
    for axis, (before, after) in enumerate(halo):
        size = at.shape[axis]
        assert isinstance(size, int) or not (before or after), "a halo needs a known size"
        for width, first in ((before, 0), (after, before + (size if isinstance(size, int) else 0))):
            if width:
                axes = [
                    Axis(width if i == axis else d, (s,))
                    for i, (d, s) in enumerate(zip(padded, at.strides, strict=True))
                ]
                ops.append(vector_op("FILL", axes, [Operand(at.symbol, first * at.strides[axis], 0)], code))
    return ops


def vector_op(
    op: str, axes: Sequence[Axis], operands: Sequence[Operand], *extra: Vector | int, inner: Sequence[Axis] = ()
) -> Op:
    """A command over `axes`, merged; `inner` axes belong to the last operand alone (a window or reduced axes)."""
    window = merge(inner)
    loops, dims = split_loops(merge(axes), inner=len(window))
    out = [descriptor(o, loops, dims) for o in operands]
    if window:
        last = operands[-1]
        out[-1] = descriptor(last, loops, [*(dims or [Axis(1, (1,) * (last.index + 1))]), *window])
    return Op(op, (*out, *extra), tuple(a.size for a in loops))


def axes_of(shape: Sequence[Dim], *strides: Sequence[int]) -> list[Axis]:
    return [Axis(d, tuple(s[i] for s in strides)) for i, d in enumerate(shape)]


def operand_at(at: Location, index: int) -> Operand:
    return Operand(at.symbol, at.offset, index)


def with_halo(emitter: Emitter, node: Node, ops: list[Op]) -> None:
    """Append commands of a node behind those that fill its output's halo."""
    emitter.task(node, emitter.core_of(node), [*fill_halo(emitter, node.output), *ops])


def in_memory(emitter: Emitter, value: str) -> str:
    """A value's name; a constant is first entered as a table in memory."""
    if value in emitter.graph.constants and value not in emitter.tables:
        array = emitter.graph.constants[value]
        dtype = {"i8": np.int8, "u8": np.uint8, "i16": np.int16, "u16": np.uint16}.get(
            emitter.graph.type(value).dtype, np.int32
        )
        emitter.table(value, array.astype(dtype))
    return value
