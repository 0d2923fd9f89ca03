"""Small pieces commands are made of: axes merged to at most four dimensions, hardware loops, tables without repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from insitu.base.errors import InternalError
from insitu.isa.program import (
    MAX_DIMS,
    MAX_LOOPS,
    Binding,
    Command,
    Descriptor,
    Host,
    HostValue,
    Section,
    Size,
    Vector,
)


@dataclass(frozen=True)
class Axis:
    """One axis of an iteration: its size, and the stride of each operand along it (elements)."""

    size: Size
    strides: tuple[int, ...]


def merge(axes: Sequence[Axis]) -> list[Axis]:
    """The same iteration with fewer axes: units dropped, neighbours joined where every operand runs on."""
    out: list[Axis] = []
    for axis in axes:
        if axis.size == 1:
            continue
        last = out[-1] if out else None
        if last and _runs_on(last, axis):
            out[-1] = Axis(int(last.size) * int(axis.size), axis.strides)
        else:
            out.append(axis)
    return out


def _runs_on(outer: Axis, inner: Axis) -> bool:
    """Whether two axes step through memory as one, for every operand."""
    if isinstance(outer.size, str) or isinstance(inner.size, str):
        return False
    size = inner.size
    return all(a == b * size for a, b in zip(outer.strides, inner.strides, strict=True))


def split_loops(axes: Sequence[Axis], *, inner: int) -> tuple[list[Axis], list[Axis]]:
    """(hardware loops, dimensions): as many inner axes as fit beside `inner` more dimensions."""
    room = MAX_DIMS - inner
    cut = max(0, len(axes) - room)
    if cut > MAX_LOOPS:
        raise InternalError("compiler", f"{len(axes)} axes that do not merge", f"at most {room + MAX_LOOPS}")
    return list(axes[:cut]), list(axes[cut:])


@dataclass(frozen=True)
class TableVector:
    """Vector settings whose multiplier and shift are descriptors that have no index yet."""

    vector: Vector
    multiplier: Descriptor
    shift: Descriptor | None = None


@dataclass(frozen=True)
class HostCall:
    """A host operator whose operands in memory are descriptors without an index yet (none: the host alone holds it)."""

    host: Host
    reads: tuple[Descriptor | None, ...]
    writes: tuple[Descriptor | None, ...]


@dataclass(frozen=True)
class Moved:
    """A descriptor that SETD moves: an entry of its own in the table, since others may address the same memory."""

    target: Descriptor


Whole = Descriptor | Moved | Binding | Vector | TableVector | HostCall | int  # an operand before it has an index


@dataclass(frozen=True)
class Op:
    """A command inside hardware loops (outermost first), its operands still whole; the first `results` are written.

    `when` says under which conditions it runs: each value is (not) 0.
    """

    op: str
    operands: tuple[Whole, ...]
    loops: tuple[Size, ...] = ()
    results: int = 1
    when: tuple[tuple[Descriptor, int], ...] = ()

    @property
    def writes(self) -> str:
        """Symbol this command writes; "" where it writes no memory."""
        out = self.operands[0]
        if isinstance(out, HostCall):
            out = next((d for d in out.writes if d), 0)
        if isinstance(out, Moved):
            return "" if self.op == "SETD" else out.target.symbol
        return out.symbol if isinstance(out, Descriptor) else ""

    @property
    def reads(self) -> set[str]:
        """Symbols this command reads, and those of its conditions."""
        asked = {d.symbol for d, _ in self.when}
        if isinstance(call := self.operands[0], HostCall):
            return asked | {d.symbol for d in call.reads if d}
        first = 0 if self.op in ("ACC", "SCATTER") else self.results
        tables = [t for o in self.operands if isinstance(o, TableVector) for t in (o.multiplier, o.shift) if t]
        return asked | {d.symbol for d in (*self.operands[first:], *tables) if isinstance(d, Descriptor)}


@dataclass(frozen=True)
class Task:
    """Commands of one node on one core, in order; tasks of one `node` write disjoint parts of its output."""

    node: str
    core: int
    ops: tuple[Op, ...]

    @property
    def writes(self) -> set[str]:
        """Symbols written."""
        calls = [o for op in self.ops for o in op.operands if isinstance(o, HostCall)]
        more = {d.symbol for op in self.ops for d in op.operands[1 : op.results] if isinstance(d, Descriptor)}
        found = {op.writes for op in self.ops if op.writes} | more
        return found | {d.symbol for call in calls for d in call.writes if d}

    @property
    def reads(self) -> set[str]:
        """Symbols read, those it wrote itself included."""
        return {symbol for op in self.ops for symbol in op.reads}


@dataclass
class Code:
    """Tables and code of one section while they are written."""

    descriptors: dict[Descriptor | Moved, int] = field(default_factory=dict["Descriptor | Moved", int])
    bindings: dict[Binding, int] = field(default_factory=dict[Binding, int])
    vectors: dict[Vector, int] = field(default_factory=dict[Vector, int])
    hosts: dict[Host, int] = field(default_factory=dict[Host, int])
    commands: list[Command] = field(default_factory=list[Command])
    closed: tuple[int, tuple[Command, ...]] = (0, ())  # length and conditions when the last block had ended

    def add(self, op: Op) -> None:
        """Append a command in its loops, its operands entered into the tables; neighbours share their conditions."""
        asked = tuple(Command("PRED", (self._index(d), taken)) for d, taken in op.when)
        if asked and self.closed == (len(self.commands), asked):
            del self.commands[-len(asked) :]
        else:
            self.commands += asked
        self.commands += [Command("LOOP", (trips,)) for trips in op.loops]
        self.commands.append(Command(op.op, tuple(self._index(o) for o in op.operands)))
        self.commands += [Command("ENDL")] * len(op.loops)
        self.commands += [Command("ENDP")] * len(asked)
        self.closed = (len(self.commands), asked)

    def section(self, core: int) -> Section:
        """The section of a core, complete."""
        descriptors = tuple(d.target if isinstance(d, Moved) else d for d in self.descriptors)
        tables = (descriptors, tuple(self.bindings), tuple(self.vectors))
        return Section(0, core, *tables, tuple(self.commands), tuple(self.hosts))

    def _index(self, operand: Whole) -> int:
        if isinstance(operand, Descriptor | Moved):
            return self.descriptors.setdefault(operand, len(self.descriptors))
        if isinstance(operand, Binding):
            return self.bindings.setdefault(operand, len(self.bindings))
        if isinstance(operand, HostCall):
            return self._host(operand)
        if isinstance(operand, TableVector):
            shift = None if operand.shift is None else self._index(operand.shift)
            operand = replace(operand.vector, multiplier=self._index(operand.multiplier), shift=shift)
        if isinstance(operand, Vector):
            return self.vectors.setdefault(operand, len(self.vectors))
        return operand

    def _host(self, call: HostCall) -> int:
        def named(values: tuple[HostValue, ...], found: tuple[Descriptor | None, ...]) -> tuple[HostValue, ...]:
            indices = [-1 if d is None else self._index(d) for d in found]
            return tuple(replace(v, descriptor=i) for v, i in zip(values, indices, strict=True))

        host = replace(
            call.host, inputs=named(call.host.inputs, call.reads), outputs=named(call.host.outputs, call.writes)
        )
        return self.hosts.setdefault(host, len(self.hosts))


@dataclass(frozen=True)
class Operand:
    """Where an operand starts, and which stride of each Axis is its own."""

    symbol: str
    offset: int
    index: int


def descriptor(operand: Operand, loops: Sequence[Axis], dims: Sequence[Axis]) -> Descriptor:
    """The descriptor of an operand that runs over `loops` and `dims` (at least one dimension)."""
    dims = dims or [Axis(1, (1,) * (operand.index + 1))]
    return Descriptor(
        operand.symbol,
        operand.offset,
        tuple(a.size for a in dims),
        tuple(a.strides[operand.index] for a in dims),
        tuple(a.strides[operand.index] for a in loops),
    )


def shifted(operand: Operand, offset: int) -> Operand:
    """The operand moved by `offset` elements."""
    return replace(operand, offset=operand.offset + offset)
