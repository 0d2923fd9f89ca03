"""The functional simulator: a Program over many samples at once, every integer as the chip would hold it.

Memory is real: one byte image per sample and memory space, so a wrong address or an early overwrite shows as a wrong
number.  A command inside hardware loops runs as one batched operation over strided views where its trips are
independent, else trip by trip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import DataError, ProgramError
from insitu.isa.calls import written_out
from insitu.isa.check_data import BANKS
from insitu.isa.elements import PACKED
from insitu.isa.program import Command, Descriptor, Location, Program, Section, Symbol, Tile, Vector, chip_of_space
from insitu.isa.setup import PROCEDURES, calibrated, table_places
from insitu.isa.walk import operands
from insitu.numeric.functions import lut_codes, softmax_codes
from insitu.sim.bound import BoundMatrix
from insitu.sim.code import Block, Item, Loop, Step
from insitu.sim.fused import converted_product, elementwise, ideal_product
from insitu.sim.lines import Lines, lines
from insitu.sim.macro import MacroModel
from insitu.sim.order import Turn, interleaved
from insitu.sim.packed import byte_size, store_packed, unpacked
from insitu.sim.reads import Reads
from insitu.sim.vector import NUMBERS, Numbers, bound_product, float_product, run_host_command

Array = npt.NDArray[Any]
Opened = dict[str, Array]  # symbols whose elements share bytes: their codes, one by one
Observer = Callable[[str, Array], None]
DTYPES: dict[str, Any] = {
    "i8": np.int8, "u8": np.uint8, "i16": np.int16, "u16": np.uint16, "i32": np.int32, "i64": np.int64,
    "u32": np.uint32, "u64": np.uint64, "bool": np.bool_, "f16": np.float16, "f32": np.float32, "f64": np.float64,
}  # fmt: skip


@dataclass
class Machine:
    """A loaded program: tables by section, weights ready for products, memory for `samples` runs."""

    program: Program
    model: MacroModel
    samples: int = 0
    first_sample: int = 0
    memory: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict[str, npt.NDArray[np.uint8]])
    symbols: dict[str, Symbol] = field(default_factory=dict[str, Symbol])
    matrices: dict[tuple[int, int, int], BoundMatrix] = field(default_factory=dict[tuple[int, int, int], BoundMatrix])
    loads: dict[int, frozenset[Command]] = field(default_factory=dict[int, frozenset[Command]])
    loaded: dict[int, dict[int, list[tuple[int, Tile]]]] = field(
        default_factory=dict[int, dict[int, list[tuple[int, Tile]]]]
    )  # section -> macro -> binding and tile, for bindings that WLOAD brings
    pending: dict[str, int] = field(default_factory=dict[str, int])
    written: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    moved: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])  # section, descriptor
    held: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])  # values that only the host holds
    tables: dict[tuple[int, int], str] = field(default_factory=dict[tuple[int, int], str])  # section, place: what
    opened: Opened = field(default_factory=dict[str, Array])  # within one command

    def loading(self, section: Section) -> frozenset[Command]:
        """The WLOAD commands of a section."""
        key = id(section)
        if key not in self.loads:
            self.loads[key] = frozenset(c for c in section.code if c.op == "WLOAD")
        return self.loads[key]


def load(program: Program, *, model: MacroModel | None = None) -> Machine:
    """A machine for a program whose sizes are all bound; `model` says what the macros do (ideal without it)."""
    if program.sizes:
        raise ProgramError(program.name, f"sizes {sorted(program.sizes)} not bound", "Program.bind first")
    empty = [name for name, ref in program.weights.items() if ref.data is None]
    if empty:
        got = f"{len(empty)} of {len(program.weights)} weights known by shape only, {empty[0]} first"
        raise ProgramError(program.name, got, "weights with data; a shape-only program can be counted and timed")
    program = written_out(program)
    machine = Machine(program, model or MacroModel())
    machine.symbols = {s.name: s for s in program.symbols}
    for value, at in program.values.items():
        machine.written.setdefault(at.symbol, []).append(value)
    return machine


def run(
    machine: Machine,
    inputs: Mapping[str, Array],
    *,
    states: Mapping[str, Array] | None = None,
    observe: Observer | None = None,
    first_sample: int = 0,
) -> dict[str, Any]:
    """Codes of every output and state after one step, for input codes (samples, *shape).

    `observe` gets the name and codes of every value the program wrote, as soon as its last command has run.
    `first_sample` numbers the samples, so that noise does not depend on how they are cut into blocks.
    """
    program = machine.program
    if _follows_data(program) and max((len(a) for a in inputs.values()), default=1) > 1:
        return _one_by_one(machine, inputs, states or {}, observe, first_sample)
    _reset(machine, inputs, states or {}, first_sample)
    for section, turn in interleaved(program):
        _execute(machine, section, turn, observe)
    machine.opened.clear()
    names = [v for v, at in program.values.items() if machine.symbols[at.symbol].kind in ("output", "state")]
    wanted = {*names, *output_values(program)}
    return {v: machine.held[v] if v in machine.held else value_view(machine, program.values[v]).copy() for v in wanted}


def _follows_data(program: Program) -> bool:
    """Whether what is executed depends on values, so that samples part ways."""
    return any(command.op in ("PRED", "SETD") for section in program.sections for command in section.code)


def _one_by_one(
    machine: Machine,
    inputs: Mapping[str, Array],
    states: Mapping[str, Array],
    observe: Observer | None,
    first_sample: int,
) -> dict[str, Any]:
    """`run`, a sample at a time; numbered as together."""
    seen: dict[str, list[Array]] = {}

    def keep(name: str, value: Array) -> None:
        seen.setdefault(name, []).append(value.copy())

    rows: list[dict[str, Any]] = []
    for at in range(len(next(iter(inputs.values())))):
        own, old = ({n: a[at : at + 1] for n, a in arrays.items()} for arrays in (inputs, states))
        rows.append(run(machine, own, states=old, observe=keep if observe else None, first_sample=first_sample + at))
    if observe is not None:
        for name, values in seen.items():
            observe(name, np.concatenate(values))
    return {n: _joined([row[n] for row in rows]) for n in rows[0]}


def _joined(parts: list[Any]) -> Any:
    """Samples behind one another; what only the host holds is a list."""
    return [v for part in parts for v in part] if isinstance(parts[0], list) else np.concatenate(parts)


def output_values(program: Program) -> tuple[str, ...]:
    """Names of the graph's outputs, in order."""
    return tuple(program.meta.get("outputs", ()))


def value_view(machine: Machine, at: Location) -> Array:
    """A value in memory, (samples, *shape)."""
    return _strided(machine, at.symbol, at.offset, tuple(int(d) for d in at.shape), at.strides)


def _reset(machine: Machine, inputs: Mapping[str, Array], states: Mapping[str, Array], first_sample: int) -> None:
    counts = {len(a) for a in inputs.values()} or {1}  # a program without inputs runs once
    if len(counts) != 1:
        raise DataError("inputs", f"sample counts {sorted(counts)}", "the same number of samples for every input")
    lay_memory(machine, {**inputs, **states}, counts.pop(), first_sample)


def lay_memory(machine: Machine, values: Mapping[str, Array], samples: int, first_sample: int = 0) -> None:
    """Memory of so many samples as it is before a step, inputs and states in their places."""
    program = machine.program
    machine.samples, machine.first_sample = samples, first_sample
    spaces = {s: size for s, size in program.spaces.items() if chip_of_space(s)[0] != BANKS}  # rule G2
    machine.memory = {s: np.zeros((machine.samples, size), np.uint8) for s, size in spaces.items()}
    for symbol in (symbol for symbol in program.symbols if symbol.space in spaces):
        if symbol.kind == "weight":
            _flat(machine, symbol)[:] = program.weight(symbol.weight).reshape(-1)
        elif symbol.kind == "state":
            _flat(machine, symbol)[:] = symbol.initial
            close(machine, symbol.name)
    machine.held = {n: list(a) for n, a in values.items() if n in program.meta.get("host_values", ())}
    for name, codes in values.items():
        if name not in machine.held:
            put_value(machine, name, codes)
    machine.pending = _write_counts(program)
    machine.loaded, machine.moved, machine.tables = {}, {}, {}


def put_value(machine: Machine, name: str, codes: Array) -> None:
    """Codes (samples, *shape) into a value's place in memory."""
    at = machine.program.values[name]
    value_view(machine, at)[...] = codes
    close(machine, at.symbol)


def _flat(machine: Machine, symbol: Symbol) -> Array:
    return _strided(machine, symbol.name, 0, (symbol.count,), (1,))


def _write_counts(program: Program) -> dict[str, int]:
    """How many commands write each symbol."""
    counts: dict[str, int] = {}
    for section in program.sections:
        for command in section.code:
            for out in _targets(section, command):
                counts[out.symbol] = counts.get(out.symbol, 0) + 1
    return counts


def _target(section: Section, command: Command) -> Descriptor | None:
    if command.op in OPERATIONS and command.op not in ("WLOAD", "LUTLD", "HOST", "SETD", "QDYN"):
        return section.descriptors[int(command.args[0])]
    return None


def _targets(section: Section, command: Command) -> list[Descriptor]:
    """What a command writes in memory; a host operator and QDYN write several values."""
    if command.op == "QDYN":
        return [section.descriptors[int(a)] for a in command.args[:3]]
    if command.op == "HOST":
        values = section.hosts[int(command.args[0])].outputs
        return [section.descriptors[v.descriptor] for v in values if v.descriptor >= 0]
    target = _target(section, command)
    return [] if target is None else [target]


def _strided(machine: Machine, symbol: str, offset: int, sizes: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """(samples, *sizes) elements of a symbol: a view of memory, or of its opened codes where they share bytes."""
    at = machine.symbols[symbol]
    memory = machine.memory[at.space]
    if at.dtype in PACKED:
        if symbol not in machine.opened:
            machine.opened[symbol] = unpacked(memory, at)
        codes = machine.opened[symbol]
        return np.ndarray((machine.samples, *sizes), codes.dtype, codes.data, offset, (codes.shape[1], *strides))
    dtype = np.dtype(DTYPES[at.dtype])
    steps = tuple(s * dtype.itemsize for s in strides)
    start = at.address + offset * dtype.itemsize
    return np.ndarray((machine.samples, *sizes), dtype, memory.data, start, (memory.shape[1], *steps))


def close(machine: Machine, *written: str) -> None:
    """End a command: codes of written symbols that share bytes go back into memory."""
    for name in written:
        if name in machine.opened:
            store_packed(machine.memory[machine.symbols[name].space], machine.symbols[name], machine.opened[name])
    machine.opened.clear()


def perform(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    """One command, or all trips of its loops at once."""
    machine.opened.clear()
    OPERATIONS[command.op](machine, section, command, frame)
    if machine.opened:
        close(machine, *(out.symbol for out in _targets(section, command)))


# control


def _execute(machine: Machine, section: Section, turn: Turn, observe: Observer | None) -> None:
    for step, trips, counters in batches(machine, section, turn.item, turn.counters, ()):
        if step.command.op in OPERATIONS:
            perform(machine, section, step.command, Frame(trips, counters))
    for step in _leaves(turn.item) if turn.last else ():
        _finish(machine, section, step.command, observe)


def _leaves(item: Item) -> Iterator[Step]:
    if isinstance(item, Step):
        yield item
    else:
        for inner in item.body:
            yield from _leaves(inner)


def _finish(machine: Machine, section: Section, command: Command, observe: Observer | None) -> None:
    for out in _targets(section, command):
        machine.pending[out.symbol] -= 1
        if machine.pending[out.symbol] == 0 and observe is not None:
            machine.opened.clear()
            for value in machine.written.get(out.symbol, ()):
                observe(value, value_view(machine, machine.program.values[value]))


@dataclass(frozen=True)
class Frame:
    """Where in the loops a command runs: counters of loops walked trip by trip, then trips of loops taken whole."""

    trips: tuple[int, ...]
    counters: tuple[int, ...]


def batches(
    machine: Machine, section: Section, item: Item, counters: tuple[int, ...], trips: tuple[int, ...] = ()
) -> Iterator[tuple[Step, tuple[int, ...], tuple[int, ...]]]:
    """(command, trips of the loops taken whole, counters of the loops walked) in an order that means the same."""
    if isinstance(item, Step):
        yield item, trips, counters
    elif isinstance(item, Block):
        frame = Frame((), counters)
        cond = operand_view(machine, section, item.condition.command, 0, frame)
        if bool(cond.any()) == bool(item.condition.command.args[1]):
            for inner in item.body:
                yield from batches(machine, section, inner, counters, ())
    elif len(item.body) == 1 and _independent(machine, section, item, len(counters) + len(trips)):
        yield from batches(machine, section, item.body[0], counters, (*trips, item.trips))
    else:
        for outer in product(*(range(t) for t in trips)):
            for trip in range(item.trips):
                for inner in item.body:
                    yield from batches(machine, section, inner, (*counters, *outer, trip), ())


def _independent(machine: Machine, section: Section, loop: Loop, level: int) -> bool:
    """Whether the trips of a loop around one command may run at once."""
    if machine.moved:
        return False
    inner: Item = loop
    depth = level
    levels: list[tuple[int, int]] = []
    while isinstance(inner, Loop):
        if len(inner.body) != 1:
            return False
        levels.append((depth, inner.trips))
        inner, depth = inner.body[0], depth + 1
    if isinstance(inner, Block):
        return False
    out = _target(section, inner.command)
    if out is None:
        return False
    reads = [section.descriptors[int(a)] for a in _read_operands(section, inner.command)]
    if any(_share_bytes(machine, r.symbol, out.symbol) and r != out for r in reads):
        return False
    steps = out.steps + (0,) * (depth - len(out.steps))
    moves = [(trips, steps[at]) for at, trips in levels]
    return _apart([*moves, *zip((int(n) for n in out.sizes), out.strides, strict=True)])


def _share_bytes(machine: Machine, first: str, second: str) -> bool:
    """Whether two symbols have memory in common."""
    a, b = machine.symbols[first], machine.symbols[second]
    ends = [s.address + byte_size(s) for s in (a, b)]
    return a.space == b.space and a.address < ends[1] and b.address < ends[0]


def _apart(dims: Sequence[tuple[int, int]]) -> bool:
    """Whether an array of (size, stride) dims surely has no element twice."""
    reach = 0
    for size, stride in sorted(((n, abs(s)) for n, s in dims if n > 1), key=lambda d: d[1]):
        if stride <= reach:
            return False
        reach += (size - 1) * stride
    return True


def _read_operands(section: Section, command: Command) -> tuple[int, ...]:
    """Indices of the descriptors a command reads, tables of multipliers and shifts included."""
    if command.op == "ACC":
        return tuple(int(a) for a in command.args[:2])
    count = READS.get(command.op, 0)
    read = tuple(int(a) for a in command.args[1 : 1 + count])
    if not any(o.kind == "vector" for o in operands(command.op)):
        return read
    settings = section.vectors[int(command.args[1 + count])]
    return (*read, *(d for d in (settings.multiplier, settings.shift) if d is not None))


def _view(machine: Machine, d: Descriptor, frame: Frame) -> Array:
    """(samples, *trips, *sizes) elements of an operand."""
    walked = len(frame.counters)
    steps = d.steps + (0,) * (walked + len(frame.trips) - len(d.steps))
    offset = d.offset + sum(c * s for c, s in zip(frame.counters, steps, strict=False))
    whole = steps[walked : walked + len(frame.trips)]
    sizes = tuple(int(n) for n in d.sizes)
    return _strided(machine, d.symbol, offset, (*frame.trips, *sizes), (*whole, *d.strides))


def _lines(machine: Machine, d: Descriptor, frame: Frame, rows: int) -> Lines | None:
    """The operand's lines, its last axes being `rows` elements of a vector."""
    walked = len(frame.counters)
    steps = d.steps + (0,) * (walked + len(frame.trips) - len(d.steps))
    offset = d.offset + sum(c * s for c, s in zip(frame.counters, steps, strict=False))
    whole = steps[walked : walked + len(frame.trips)]
    at = machine.symbols[d.symbol]
    if at.dtype in PACKED:
        return None
    dtype: np.dtype[Any] = np.dtype(DTYPES[at.dtype])
    sizes = (*frame.trips, *(int(n) for n in d.sizes))
    address = at.address + offset * dtype.itemsize
    return lines(machine.memory[at.space], dtype, address, sizes, (*whole, *d.strides), rows)


# operations


def operand_view(machine: Machine, section: Section, command: Command, index: int, frame: Frame) -> Array:
    return _view(machine, _placed(machine, section, int(command.args[index])), frame)


def _placed(machine: Machine, section: Section, index: int) -> Descriptor:
    """A descriptor, where SETD has moved it to."""
    d = section.descriptors[index]
    move = machine.moved.get((id(section), index))
    return replace(d, offset=d.offset + move) if move else d


def _set_descriptor(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    target, _, dim, most = (int(a) for a in command.args)
    value = int(operand_view(machine, section, command, 1, frame).reshape(-1)[0])
    if not 0 <= value <= most:
        raise ProgramError(f"core {section.core} SETD d{target}", f"value {value}", f"0 to {most}")
    machine.moved[id(section), target] = value * section.descriptors[target].strides[dim]


def _mvm(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    out, x = (operand_view(machine, section, command, i, frame) for i in (0, 1))
    number = int(command.args[-1])
    binding = section.bindings[number]
    if x.dtype.kind == "f":
        out[...] = bound_product(machine.program, binding, x.reshape(-1, binding.rows)).reshape(out.shape)
        return
    _check_loaded(machine, section, number)
    key = (section.chip, section.core, number)
    matrix = machine.matrices.get(key)
    if matrix is None:
        matrix = machine.matrices[key] = bound(machine, section, number, x.dtype)
    source = _lines(machine, _placed(machine, section, int(command.args[1])), frame, binding.rows)
    target = _lines(machine, _placed(machine, section, int(command.args[0])), frame, binding.cols)
    if not machine.model.in_lines:
        source = target = None
    if source and target and ideal_product(matrix, source, target, machine.samples):
        return
    walked = 0
    for counter, trips in zip(frame.counters, _loop_trips(section, command, frame), strict=False):
        walked = walked * trips + counter
    vectors = x.size // binding.rows // machine.samples
    reads = Reads(machine.first_sample * vectors, walked)
    if source and target and converted_product(machine.model, matrix, source, target, machine.samples, reads):
        return
    codes = x.reshape(-1, binding.rows)
    result = machine.model.read(matrix, codes, first_vector=reads.first, sequence=walked)
    out[...] = result.reshape(out.shape)


def bound(machine: Machine, section: Section, number: int, dtype: np.dtype[Any]) -> BoundMatrix:
    """A binding ready to multiply, its columns corrected by the procedures that a CAL asks for."""
    done = calibrated(section, number)
    skipped = frozenset(name for procedure, name in PROCEDURES.items() if procedure not in done)
    model = replace(machine.model, physics=replace(machine.model.physics, skipped=skipped))
    return model.bind(machine.program, section, section.bindings[number], dtype=dtype)


def _loop_trips(section: Section, command: Command, frame: Frame) -> tuple[int, ...]:
    """A fixed radix per walked loop: only uniqueness of the sequence number matters."""
    return (1 << 12,) * len(frame.counters)


def _mma(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    out, a, b = (operand_view(machine, section, command, i, frame) for i in (0, 1, 2))
    settings = section.vectors[int(command.args[3])]
    if out.dtype.kind == "f":
        out[...] = float_product(a, b, out.dtype)
        return
    acc = (a.astype(np.float64) - settings.zero_a) @ (b.astype(np.float64) - settings.zero_b)
    _store(machine, section, settings, acc, out, frame)


def _store(machine: Machine, section: Section, settings: Vector, acc: Array, out: Array, frame: Frame) -> None:
    """Requantize and write; multipliers and shifts may be descriptors that broadcast like the output."""
    from insitu.numeric.affine import requantize
    from insitu.sim.narrow import narrow_scalar

    post = settings.post
    if settings.multiplier is None and settings.shift is None:
        out[...] = narrow_scalar(acc, post)
        return
    tables = [
        default if d is None else _table(machine, _placed(machine, section, d), frame, rank=out.ndim)
        for d, default in ((settings.multiplier, post.multiplier), (settings.shift, post.shift))
    ]
    wide = np.asarray(acc).astype(np.int64)
    assert not isinstance(tables[0], str)
    assert not isinstance(tables[1], str)
    out[...] = requantize(
        wide, tables[0], tables[1], zero_point=post.zero_point, lo=post.lo, hi=post.hi, rounding=post.rounding
    )


def _table(machine: Machine, d: Descriptor, frame: Frame, *, rank: int) -> Array:
    """A table's elements, its dimensions aligned with the last ones of a result of `rank` dimensions."""
    view = _view(machine, d, frame)
    lead = 1 + len(frame.trips)
    return view.reshape(*view.shape[:lead], *(1,) * (rank - view.ndim), *view.shape[lead:])


def _done_in_lines(machine: Machine, section: Section, command: Command, frame: Frame) -> bool:
    """Whether an ADD, MUL or REQ of codes was done straight from memory to memory."""
    read = READS[command.op]
    settings = section.vectors[int(command.args[1 + read])]
    found = [_lines(machine, _placed(machine, section, int(a)), frame, 1) for a in command.args[: 1 + read]]
    if any(line is None for line in found) or len({line.vectors for line in found if line}) != 1:
        return False
    out, a, b = (*found, found[1])[:3]
    assert out
    assert a
    assert b
    if len({line.length for line in (out, a, b)}) != 1:
        return False
    if command.op == "REQ":
        settings = replace(settings, zero_b=0, scale_b=0)
    table = multipliers(machine, section, command, frame)
    return elementwise(command.op, settings, a, b, out, machine.samples, table=table)


def multipliers(machine: Machine, section: Section, command: Command, frame: Frame) -> Array | None:
    """Multipliers of one sample's elements, (*trips, *sizes), where a vector command reads a table of them alone."""
    settings = section.vectors[int(command.args[-1])]
    index = settings.multiplier
    if index is None or settings.shift is not None:
        return None
    sizes = tuple(int(n) for n in section.descriptors[int(command.args[0])].sizes)
    table = _table(machine, _placed(machine, section, index), frame, rank=1 + len(frame.trips) + len(sizes))[0]
    return np.broadcast_to(table, (*frame.trips, *sizes))


def _rescale(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    if _done_in_lines(machine, section, command, frame):
        return
    out, x = (operand_view(machine, section, command, i, frame) for i in (0, 1))
    settings = section.vectors[int(command.args[2])]
    acc = (x.astype(np.int64) - settings.zero_a) * settings.scale_a
    _store(machine, section, settings, acc, out, frame)


def _binary(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    if _done_in_lines(machine, section, command, frame):
        return
    out, a, b = (operand_view(machine, section, command, i, frame) for i in (0, 1, 2))
    s = section.vectors[int(command.args[3])]
    left, right = a.astype(np.int64) - s.zero_a, b.astype(np.int64) - s.zero_b
    acc = left * s.scale_a + right * s.scale_b if command.op == "ADD" else left * right
    _store(machine, section, s, acc, out, frame)


def _reduce(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    out, x = (operand_view(machine, section, command, i, frame) for i in (0, 1))
    settings = section.vectors[int(command.args[2])]
    window = tuple(range(out.ndim, x.ndim))
    if command.op == "MAX":
        _store(machine, section, settings, x.max(axis=window), out, frame)
        return
    acc = x.sum(axis=window, dtype=np.int64) - settings.zero_a * int(np.prod(x.shape[out.ndim :]))
    _store(machine, section, settings, acc * settings.scale_a, out, frame)


def _softmax(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    out, x = (operand_view(machine, section, command, i, frame) for i in (0, 1))
    settings = section.vectors[int(command.args[2])]
    table, post = _looked_up(machine, section, settings), settings.post
    out[...] = softmax_codes(
        x,
        table,
        zero_point=post.zero_point,
        lo=post.lo,
        hi=post.hi,
        multiplier=int(post.multiplier),
        shift=int(post.shift),
    )


def _lut(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    out, x = (operand_view(machine, section, command, i, frame) for i in (0, 1))
    settings = section.vectors[int(command.args[2])]
    index = (x.astype(np.int64) - settings.zero_a) * settings.scale_a
    out[...] = np.clip(lut_codes(index, _looked_up(machine, section, settings)), settings.post.lo, settings.post.hi)


def _fill(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    operand_view(machine, section, command, 0, frame)[...] = int(command.args[1])


def _copy(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    out, x = (operand_view(machine, section, command, i, frame) for i in (0, 1))
    out[...] = x


def _accumulate(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    out, x = (operand_view(machine, section, command, i, frame) for i in (0, 1))
    out += x.astype(out.dtype)


# weights that are loaded while the program runs


def _load_weights(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    """The tiles of a binding are filled; tiles that lose a cell to them are no more."""
    number = int(command.args[0])
    macros = machine.loaded.setdefault(id(section), {})
    for tile in section.bindings[number].tiles:
        held = macros.get(tile.macro, [])
        macros[tile.macro] = [(n, t) for n, t in held if n != number and not _share_cells(t, tile)]
    for tile in section.bindings[number].tiles:
        macros[tile.macro].append((number, tile))


def _load_table(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    machine.tables[id(section), int(command.args[1])] = section.vectors[int(command.args[0])].lut


def _looked_up(machine: Machine, section: Section, settings: Vector) -> Array:
    """The table of settings, which is in a place of the vector unit where the chip says how many that has."""
    places = range(table_places(machine.program.chip))
    if places and all(machine.tables.get((id(section), place)) != settings.lut for place in places):
        raise ProgramError(f"core {section.core}, {settings.label}", f"table {settings.lut!r} is not there", "a LUTLD")
    return machine.program.weight(settings.lut)


def _share_cells(a: Tile, b: Tile) -> bool:
    apart = a.x + a.cols <= b.x or b.x + b.cols <= a.x or a.y + a.rows <= b.y or b.y + b.rows <= a.y
    return not apart


def _check_loaded(machine: Machine, section: Section, number: int) -> None:
    """An MVM finds its own weights in every tile."""
    if Command("WLOAD", (number,)) not in machine.loading(section):
        return
    macros = machine.loaded.get(id(section), {})
    for tile in section.bindings[number].tiles:
        if (number, tile) not in macros.get(tile.macro, ()):
            where = f"core {section.core}, {section.bindings[number].label}"
            raise ProgramError(where, f"macro {tile.macro} holds other weights", "a WLOAD before the MVM")


def operand_lines(machine: Machine, section: Section, index: int, frame: Frame) -> Lines | None:
    """The elements of an operand one by one, where kernels can walk them."""
    return _lines(machine, _placed(machine, section, index), frame, 1)


def _numbers(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    def view(index: int) -> Array:
        return operand_view(machine, section, command, index, frame)

    NUMBERS[command.op](Numbers(section, command, view, 1 + len(frame.trips)))


def _host(machine: Machine, section: Section, command: Command, frame: Frame) -> None:
    def view(index: int) -> Array:
        return _view(machine, _placed(machine, section, index), frame)

    run_host_command(section.hosts[int(command.args[0])], machine.held, view, machine.samples)


Operation = Callable[[Machine, Section, Command, Frame], None]
OPERATIONS: dict[str, Operation] = {
    "WLOAD": _load_weights, "LUTLD": _load_table,
    "SETD": _set_descriptor, "MVM": _mvm, "GEMV": _mvm,
    "MMA": _mma, "AMM": _mma, "REQ": _rescale, "ADD": _binary, "MUL": _binary, "MAX": _reduce, "SUM": _reduce,
    "SOFTMAX": _softmax, "LUT": _lut, "FILL": _fill, "DMA": _copy, "ACC": _accumulate,
    "HOST": _host, **dict.fromkeys(NUMBERS, _numbers),
}  # fmt: skip
READS = {
    "MVM": 1, "MMA": 2, "AMM": 2, "REQ": 1, "ADD": 2, "MUL": 2, "MAX": 1, "SUM": 1, "SOFTMAX": 1, "LUT": 1, "DMA": 1,
    "V1": 1, "V2": 2, "SEL": 3, "RED": 1, "CVT": 1, "GATHER": 2, "SCATTER": 2,
    "GEMV": 2, "Q": 3, "DQ": 3,
}  # fmt: skip
run_numbers = _numbers
