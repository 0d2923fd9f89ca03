"""A program that is stepped many times: what its data does not change is worked out once.

A step of a decoder is some two hundred small commands; finding their operands in memory takes longer than doing them.
So memory is laid out once, and every command becomes a function without arguments over views of it.  The integers are
those of `insitu.sim.functional` (a test steps both).  Programs whose commands follow their data (PRED, SETD) or that
call the host are stepped there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.isa.elements import PACKED
from insitu.isa.program import Command, Section, Vector
from insitu.isa.walk import accesses
from insitu.sim import functional as base
from insitu.sim.fused import combined
from insitu.sim.products import FLOAT64_EXACT

Array = npt.NDArray[Any]
Step = Callable[[], None]
FOLLOWING = ("PRED", "SETD", "HOST", "WLOAD", "QDYN")


@dataclass
class Recording:
    """A machine with its own memory, its commands in order, and where inputs go and results are."""

    machine: base.Machine
    steps: list[Step]
    inputs: dict[str, Array | None]  # none: elements that share bytes
    outputs: dict[str, Array | None]
    start: dict[str, Array]  # spaces: memory before a first step

    def step(self, inputs: Mapping[str, Array], states: Mapping[str, Array], first_sample: int) -> dict[str, Any]:
        """Codes of every output and state after one step."""
        self.machine.first_sample = first_sample
        for space, image in self.start.items():
            self.machine.memory[space][...] = image
        for values in (inputs, states):
            for name, codes in values.items():
                view = self.inputs[name]
                if view is None:
                    base.put_value(self.machine, name, codes)
                else:
                    view[...] = codes
        for step in self.steps:
            step()
        return {name: self._copy(name, view) for name, view in self.outputs.items()}

    def _copy(self, name: str, view: Array | None) -> Array:
        if view is not None:
            return view.copy()
        self.machine.opened.clear()
        return base.value_view(self.machine, self.machine.program.values[name]).copy()


def recordable(machine: base.Machine) -> bool:
    """Whether what is executed depends on the program alone."""
    return not any(c.op in FOLLOWING for s in machine.program.sections for c in s.code)


def record(machine: base.Machine, samples: int, names: Mapping[str, Array]) -> Recording:
    """The program of a machine over so many samples; `names` holds arrays for every input."""
    own = replace(machine, memory={}, pending={}, moved={}, loaded={}, held={}, opened={})
    own.matrices = machine.matrices
    base.lay_memory(own, names, samples)
    steps: list[Step] = []
    for section, turn in base.interleaved(own.program):
        for item, trips, counters in base.batches(own, section, turn.item, turn.counters):
            if item.command.op in base.OPERATIONS:
                steps.append(_prepared(own, section, item.command, base.Frame(trips, counters)))
    values = own.program.values
    kinds = {v: own.symbols[at.symbol].kind for v, at in values.items()}
    wanted = {*(v for v, k in kinds.items() if k in ("output", "state")), *base.output_values(own.program)}
    feeds = {v: _view(own, v) for v, k in kinds.items() if k in ("input", "state")}
    ends = {v: _view(own, v) for v in wanted}
    return Recording(own, steps, feeds, ends, {s: m.copy() for s, m in own.memory.items()})


def _view(machine: base.Machine, value: str) -> Array | None:
    """A value in memory; none where its elements share bytes."""
    at = machine.program.values[value]
    return None if machine.symbols[at.symbol].dtype in PACKED else base.value_view(machine, at)


def _prepared(machine: base.Machine, section: Section, command: Command, frame: base.Frame) -> Step:
    """One command as a function without arguments."""
    if _shares_bytes(machine, section, command):
        return lambda: base.perform(machine, section, command, frame)
    rule = RULES.get(command.op)
    found = rule(machine, section, command, frame) if rule else None
    if found is not None:
        return found
    operation = base.OPERATIONS[command.op]
    return lambda: operation(machine, section, command, frame)


def _shares_bytes(machine: base.Machine, section: Section, command: Command) -> bool:
    named = (section.descriptors[a.descriptor].symbol for a in accesses(section, command))
    return any(machine.symbols[name].dtype in PACKED for name in named)


def _views(machine: base.Machine, section: Section, command: Command, frame: base.Frame, count: int) -> list[Array]:
    return [base.operand_view(machine, section, command, i, frame) for i in range(count)]


def _simple(settings: Vector) -> bool:
    """One multiplier and one shift for all elements, to the nearest even."""
    post = settings.post
    whole = settings.multiplier is None and settings.shift is None
    return whole and isinstance(post.multiplier, int) and isinstance(post.shift, int) and post.rounding == "half_even"


def _reach(x: Array, zero: int) -> int:
    info = np.iinfo(x.dtype)
    return max(-int(info.min), int(info.max)) + abs(zero)


def _stored(settings: Vector, out: Array, bound: int) -> Callable[[Array], None]:
    """Sums to codes: in float64 where that holds the products, else in whole numbers."""
    post = settings.post
    scale, zero = float(post.multiplier) * 2.0 ** -int(post.shift), float(post.zero_point)
    if bound * int(post.multiplier) < FLOAT64_EXACT:

        def quick(acc: Array) -> None:
            scaled = np.rint(acc * scale)
            scaled += zero
            np.clip(scaled, post.lo, post.hi, out=scaled)
            np.copyto(out, scaled, casting="unsafe")

        return quick

    from insitu.sim.kernels import MODES, narrow

    one, none = np.array([post.multiplier], np.int64), np.zeros(1, np.int64)
    shift, flat = np.array([post.shift], np.int64), np.empty((out.size, 1), np.int32)
    shaped = flat.reshape(out.shape)

    def whole(acc: Array) -> None:
        narrow(
            np.ascontiguousarray(acc).reshape(-1, 1), none, one, shift, MODES[post.rounding], post.zero_point, post.lo,
            post.hi, flat,
        )  # fmt: skip
        out[...] = shaped

    return whole


# rules: a function of no arguments, or none where the general way has to do


def _elementwise(machine: base.Machine, section: Section, command: Command, frame: base.Frame) -> Step | None:
    """ADD, MUL, REQ: one kernel from memory to memory, else views and whole numbers."""
    read = base.READS[command.op]
    settings = section.vectors[int(command.args[1 + read])]
    lines = [base.operand_lines(machine, section, int(a), frame) for a in command.args[: 1 + read]]
    if all(lines) and len({(line.vectors, line.length) for line in lines if line}) == 1:
        out, a, b = (*lines, lines[1])[:3]
        if command.op == "REQ":
            settings = replace(settings, zero_b=0, scale_b=0)
        assert a
        assert b
        assert out
        table = base.multipliers(machine, section, command, frame)
        ready = combined(command.op, settings, a, b, out, machine.samples, table=table)
        if ready is not None:
            return ready
    if not _simple(settings) or command.op == "REQ":
        return None
    y, p, q = _views(machine, section, command, frame, 3)
    if y.dtype.kind not in "iu":
        return None
    if command.op == "MUL":
        store = _stored(settings, y, _reach(p, settings.zero_a) * _reach(q, settings.zero_b))
        return lambda: store((p.astype(np.int64) - settings.zero_a) * (q.astype(np.int64) - settings.zero_b))
    most = _reach(p, settings.zero_a) * abs(settings.scale_a) + _reach(q, settings.zero_b) * abs(settings.scale_b)
    store = _stored(settings, y, most)
    return lambda: store(
        (p.astype(np.int64) - settings.zero_a) * settings.scale_a
        + (q.astype(np.int64) - settings.zero_b) * settings.scale_b
    )


def _copy(machine: base.Machine, section: Section, command: Command, frame: base.Frame) -> Step:
    out, x = _views(machine, section, command, frame, 2)
    if np.shares_memory(out, x):
        return lambda: np.copyto(out, x.copy())
    return lambda: np.copyto(out, x)


def _table(machine: base.Machine, section: Section, command: Command, frame: base.Frame) -> Step:
    """LUT: one entry for each code, in two's complement."""
    out, x = _views(machine, section, command, frame, 2)
    settings = section.vectors[int(command.args[2])]
    table = np.asarray(machine.program.weight(settings.lut), np.int64).ravel()
    low, high = int(np.iinfo(x.dtype).min), int(np.iinfo(x.dtype).max)
    index = (np.arange(low, high + 1, dtype=np.int64) - settings.zero_a) * settings.scale_a
    whole = np.clip(table[index % len(table)], settings.post.lo, settings.post.hi).astype(out.dtype)

    def look() -> None:
        out[...] = whole[x.astype(np.int64) - low]

    return look


def _sum(machine: base.Machine, section: Section, command: Command, frame: base.Frame) -> Step | None:
    out, x = _views(machine, section, command, frame, 2)
    settings = section.vectors[int(command.args[2])]
    if not _simple(settings):
        return None
    axes = tuple(range(out.ndim, x.ndim))
    count = int(np.prod(x.shape[out.ndim :]))
    store = _stored(settings, out, _reach(x, settings.zero_a) * count * abs(settings.scale_a))
    less, scale = settings.zero_a * count, settings.scale_a
    return lambda: store((x.sum(axis=axes, dtype=np.int64) - less) * scale)


def _product(machine: base.Machine, section: Section, command: Command, frame: base.Frame) -> Step | None:
    """MMA: exact in float64, or in float32 where that holds the sums."""
    out, a, b = _views(machine, section, command, frame, 3)
    settings = section.vectors[int(command.args[3])]
    if out.dtype.kind == "f" or not _simple(settings):
        return None
    bound = _reach(a, settings.zero_a) * _reach(b, settings.zero_b) * a.shape[-1]
    kind: Any = np.float32 if bound < 1 << 24 else np.float64
    store = _stored(settings, out, bound)
    zero_a, zero_b = kind(settings.zero_a), kind(settings.zero_b)

    def times() -> None:
        left, right = a.astype(kind), b.astype(kind)
        if zero_a:
            left -= zero_a
        if zero_b:
            right -= zero_b
        store(np.matmul(left, right))

    return times


def _softmax(machine: base.Machine, section: Section, command: Command, frame: base.Frame) -> Step:
    out, x = _views(machine, section, command, frame, 2)
    settings = section.vectors[int(command.args[2])]
    from insitu.sim.kernels import softmax_rows

    table, post = np.asarray(machine.program.weight(settings.lut), np.int64), settings.post
    rows = np.empty((x.size // x.shape[-1], x.shape[-1]), np.int64)
    shaped = rows.reshape(x.shape)
    given = (table, post.zero_point, post.lo, post.hi, int(post.multiplier), int(post.shift))

    def run() -> None:
        softmax_rows(np.ascontiguousarray(x).reshape(rows.shape), *given, rows)
        out[...] = shaped

    return run


def _matrix(machine: base.Machine, section: Section, command: Command, frame: base.Frame) -> Step | None:
    """MVM: the binding's reader on its input vectors."""
    out, x = _views(machine, section, command, frame, 2)
    number = int(command.args[-1])
    binding = section.bindings[number]
    if x.dtype.kind == "f":
        return None
    key = (section.chip, section.core, number)
    if key not in machine.matrices:
        machine.matrices[key] = base.bound(machine, section, number, x.dtype)
    reader = machine.model.reader(machine.matrices[key], x.dtype)
    sequence = 0
    for counter in frame.counters:
        sequence = (sequence << 12) + counter
    vectors = x.size // binding.rows // machine.samples

    def read() -> None:
        result = reader(x.reshape(-1, binding.rows), machine.first_sample * vectors, sequence)
        out[...] = result.reshape(out.shape)

    return read


def _gather(machine: base.Machine, section: Section, command: Command, frame: base.Frame) -> Step | None:
    """Rows picked by an index of one entry in each sample."""
    out, source, index = _views(machine, section, command, frame, 3)
    if frame.trips or source.ndim != 4 or source.shape[1] != 1 or index.shape[1:] != (1,) or source.strides[0] == 0:
        return None
    rows = np.arange(machine.samples)

    def pick() -> None:
        places = index[:, 0]
        if places.min() < 0 or places.max() >= source.shape[2]:
            base.run_numbers(machine, section, command, frame)  # the general way says what is wrong
        out[:, 0, 0] = source[rows, 0, places]

    return pick


def _scatter(machine: base.Machine, section: Section, command: Command, frame: base.Frame) -> Step | None:
    """One entry replaced in each sample."""
    out, source, index = _views(machine, section, command, frame, 3)
    if frame.trips or out.ndim != 4 or index.shape[1:] != (1,):
        return None
    rows = np.arange(machine.samples)

    def put() -> None:
        places = index[:, 0]
        if places.min() < 0 or places.max() >= out.shape[2]:
            base.run_numbers(machine, section, command, frame)
        out[rows, :, places] = source[:, :, 0]

    return put


RULES: Mapping[str, Callable[[base.Machine, Section, Command, base.Frame], Step | None]] = {
    "ADD": _elementwise, "MUL": _elementwise, "REQ": _elementwise, "DMA": _copy, "LUT": _table, "SUM": _sum,
    "MMA": _product, "AMM": _product, "SOFTMAX": _softmax, "MVM": _matrix, "GEMV": _matrix, "GATHER": _gather,
    "SCATTER": _scatter,
}  # fmt: skip
