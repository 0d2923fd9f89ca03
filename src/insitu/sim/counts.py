"""Closed-form event counts of a Program: what every command asks of the hardware, times how often it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod

from insitu.arch.spec import Chip
from insitu.base.errors import ProgramError
from insitu.isa.program import Binding, Command, Descriptor, Program, Section, Size, Tile
from insitu.isa.table import instruction

EVENTS = (
    "vectors",  # input vectors of MVM commands
    "array_operations",  # one tile, one input pass, one read
    "array_macs",  # one weight (a cell or several) times one input code (all its passes), one read
    "cell_operations",  # cells active in the array operations
    "macs",  # multiply-accumulates of weight layers, as the network counts them
    "mma_macs",  # multiply-accumulates of two run-time operands, on the vector unit
    "dac_drives",  # one row driven with one input code (all its passes), one read
    "adc_conversions",  # one slice of one column of a tile, one input pass, one read
    "shift_adds",  # additions that join the conversions of one column of a tile to one number
    "vector_operations",  # one lane, one result
    "host_values",  # elements that host operators read and write in memory
    "ram_read_bytes",
    "ram_write_bytes",
    "weight_bits",  # bits of cells written by WLOAD
    "bank_read_bytes",  # weights that memory banks read for GEMV
    "store_read_bytes",  # weights that leave the store for it
    "link_bytes",  # moved from one chip to another
    "commands",  # issued: every command but ENDL and ENDP, which the sequencer does in passing
)
CONTROL = ("LOOP", "ENDL", "ENDP", "SIG", "AWAIT", "BAR", "HALT")
ENDS = ("ENDL", "ENDP")  # done by the sequencer in passing
SOFTMAX_PASSES = 3  # maximum, exponentials and their sum, quotient
QDYN_PASSES = 3  # smallest, largest, codes
TileKey = tuple[int, int, int, int, int]  # chip, core, macro of that core, x, y


# numbers that may hold named sizes


@dataclass(frozen=True)
class Poly:
    """An integer polynomial in named sizes: {names of a monomial, sorted: coefficient}."""

    terms: Mapping[tuple[str, ...], int]

    def at(self, sizes: Mapping[str, int]) -> int:
        """The value where every name is bound."""
        return sum(k * prod(sizes[name] for name in names) for names, k in self.terms.items())

    def __add__(self, other: Number) -> Number:
        return _sum_terms(self, other)

    def __mul__(self, other: Number) -> Number:
        return _multiply_terms(self, other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        return " + ".join("*".join((str(k), *names)) for names, k in sorted(self.terms.items()))


Number = int | Poly


def number(size: Size) -> Number:
    """A size as a number to calculate with."""
    return Poly({(size,): 1}) if isinstance(size, str) else size


def evaluate(value: Number, sizes: Mapping[str, int]) -> int:
    """The value of a number where the names in it are bound."""
    return value.at(sizes) if isinstance(value, Poly) else value


def whole(value: Number) -> int:
    """A number without names in it; ProgramError otherwise."""
    if isinstance(value, Poly):
        names = ", ".join(sorted({name for term in value.terms for name in term}))
        raise ProgramError("program", f"size {names} is not bound", "numbers", try_=("Program.bind(sizes)",))
    return value


def _terms(value: Number) -> Mapping[tuple[str, ...], int]:
    return value.terms if isinstance(value, Poly) else {(): value}


def _reduced(terms: Mapping[tuple[str, ...], int]) -> Number:
    kept = {names: k for names, k in terms.items() if k}
    return Poly(kept) if any(kept) else kept.get((), 0)


def _sum_terms(a: Number, b: Number) -> Number:
    terms = dict(_terms(a))
    for names, k in _terms(b).items():
        terms[names] = terms.get(names, 0) + k
    return _reduced(terms)


def _multiply_terms(a: Number, b: Number) -> Number:
    terms: dict[tuple[str, ...], int] = {}
    for left, k in _terms(a).items():
        for right, j in _terms(b).items():
            names = tuple(sorted(left + right))
            terms[names] = terms.get(names, 0) + k * j
    return _reduced(terms)


def product(sizes: Sequence[Size]) -> Number:
    """The product of sizes, some of which may be names."""
    result: Number = 1
    for size in sizes:
        result = result * number(size)
    return result


# the result


@dataclass(frozen=True)
class Counts:
    """Events by layer label, array operations by tile, and the bytes of weights the arrays hold.

    Numbers are integers, or polynomials in the program's named sizes.  Equal counts compare equal.
    """

    layers: Mapping[str, Mapping[str, Number]]
    tiles: Mapping[TileKey, Number]
    weight_bytes: int
    total: Mapping[str, Number] = field(init=False)

    def __post_init__(self) -> None:
        total: dict[str, Number] = dict.fromkeys(EVENTS, 0)
        for events in self.layers.values():
            for name, value in events.items():
                total[name] = total[name] + value
        object.__setattr__(self, "total", total)

    def at(self, sizes: Mapping[str, int]) -> Counts:
        """The counts where every named size is bound."""
        layers = {label: {e: evaluate(n, sizes) for e, n in events.items()} for label, events in self.layers.items()}
        return Counts(layers, {key: evaluate(n, sizes) for key, n in self.tiles.items()}, self.weight_bytes)


def count(program: Program, chip: Chip, *, reads: int | None = None) -> Counts:
    """What executing the program once asks of the chip; `reads` array reads are averaged (else the chip's own).

    Commands under a PRED count as run: what is said is the most that any data can ask for.
    """
    return tally(program, chip, [executions(section.code) for section in program.sections], reads=reads)


def tally(program: Program, chip: Chip, runs: Sequence[Sequence[Number]], *, reads: int | None = None) -> Counts:
    """Counts where command i of section s runs `runs[s][i]` times."""
    widths = {symbol.name: element_bytes(symbol.dtype) for symbol in program.symbols}
    layers: dict[str, dict[str, Number]] = {}
    tiles: dict[TileKey, Number] = {}
    for section, times in zip(program.sections, runs, strict=True):
        for label, command, n in zip(labels(section), section.code, times, strict=True):
            into = layers.setdefault(label, dict.fromkeys(EVENTS, 0))
            for event, value in command_events(program, section, command, chip, widths=widths, reads=reads).items():
                into[event] = into[event] + value * n
            for key, value in _tile_operations(section, command, chip, reads):
                tiles[key] = tiles.get(key, 0) + value * n
    return Counts(layers, tiles, _weight_bytes(program))


def executions(code: Sequence[Command]) -> list[Number]:
    """How often each command runs: the product of the trip counts around it."""
    around: list[Number] = [1]
    times: list[Number] = []
    for command in code:
        times.append(around[-1])
        if command.op == "LOOP":
            around.append(around[-1] * number(command.args[0]))
        elif command.op == "ENDL":
            around.pop()
    return times


def labels(section: Section) -> list[str]:
    """The layer each command serves: its own label, else that of the next labelled command, else "move".

    Loops, ends, tokens, barriers and HALT are "control".
    """
    names: list[str] = []
    following = "move"
    for command in reversed(section.code):
        following = _own_label(section, command) or following
        names.append("control" if command.op in CONTROL else following)
    return names[::-1]


def _own_label(section: Section, command: Command) -> str:
    if command.op == "HOST":
        return section.hosts[int(command.args[0])].label
    bindings, vectors = _places(command.op, "binding"), _places(command.op, "vector")
    owners = [section.bindings[int(command.args[i])].label for i in bindings]
    return "".join([*owners, *(section.vectors[int(command.args[i])].label for i in vectors)])


@cache
def _places(op: str, kind: str, roles: tuple[str, ...] = ("",)) -> tuple[int, ...]:
    """Which operands of an instruction are of this kind and role."""
    row = instruction(op)
    if row is None:
        raise ProgramError("program", f"instruction {op}", "one of the instruction table")
    return tuple(i for i, o in enumerate(row.operands) if o.kind == kind and o.role in roles)


# one execution of one command


def command_events(
    program: Program, section: Section, command: Command, chip: Chip, *, widths: Mapping[str, int], reads: int | None
) -> dict[str, Number]:
    """The events of one execution; `widths` is bytes per element by symbol."""
    events: dict[str, Number] = {"commands": 0 if command.op in ENDS else 1}
    if command.op in CONTROL:
        return events
    if command.op == "WLOAD":
        return events | _load_events(section, command, chip)
    _, read, write = traffic(section, command, chip, widths=widths)
    events |= {"ram_read_bytes": read, "ram_write_bytes": write}
    if command.op == "HOST":
        return events | {"host_values": host_values(section, command)}
    if command.op == "MVM":
        return events | _mvm_events(program, section, command, chip, reads)
    if command.op == "GEMV":
        return events | _gemv_events(program, section, command, widths)
    if command.op == "DMA" and command_link(program, section, command) is not None:
        events["link_bytes"] = read
    work = vector_work(section, command)
    return events | {"vector_operations": work, "mma_macs": work if command.op == "MMA" else 0}


def host_values(section: Section, command: Command) -> Number:
    """Elements in memory that a host operator reads or writes."""
    host = section.hosts[int(command.args[0])]
    return sum(prod(v.shape) for v in (*host.inputs, *host.outputs) if v.descriptor >= 0)


def _load_events(section: Section, command: Command, chip: Chip) -> dict[str, Number]:
    binding = section.bindings[int(command.args[0])]
    bits = binding.rows * binding.cols * chip.macro.weights.slices * chip.array.bits_per_cell
    return {"weight_bits": bits * chip.macro.cells_per_slice, "store_read_bytes": -(-bits // 8)}


def command_link(program: Program, section: Section, command: Command) -> int | None:
    """The chip that a DMA reads from, where that is another one."""
    source = section.descriptors[int(command.args[1])].symbol
    chip = program.chip_of(source)
    return None if chip == section.chip else chip


def vectors_of(section: Section, command: Command) -> Number:
    """Input vectors of an MVM: the positions of its output."""
    return product(section.descriptors[int(command.args[0])].sizes[:-1])


def operands(section: Section, command: Command) -> tuple[list[Descriptor], list[Descriptor]]:
    """(written, read) descriptors of a command that is not control; multipliers are among those read."""
    written = _places(command.op, "descriptor", ("write", "update"))
    read = _places(command.op, "descriptor", ("read", "update"))
    sources = [section.descriptors[int(command.args[i])] for i in read]
    for i in _places(command.op, "vector"):
        multiplier = section.vectors[int(command.args[i])].multiplier
        sources += [] if multiplier is None else [section.descriptors[multiplier]]
    return [section.descriptors[int(command.args[i])] for i in written], sources


def traffic(
    section: Section, command: Command, chip: Chip, *, widths: Mapping[str, int]
) -> tuple[Number, Number, Number]:
    """Bytes over the memory port: (read before the first vector, read in all, written)."""
    if command.op == "HOST":
        return _host_traffic(section, command, widths)
    outs, sources = operands(section, command)
    written: Number = 0
    for out in outs if command.op != "SCATTER" else sources[1:2]:  # as many elements as come in, out's others stay
        written = written + product(out.sizes) * widths[out.symbol]
    if command.op == "SCATTER":
        sources = sources[1:]
    if command.op in ("MVM", "GEMV"):
        first, read = _window_reads(section, command, chip, widths[sources[0].symbol])
        return first, read, written
    read: Number = 0
    if command.op == "GATHER":  # of the table, as much as goes out
        read, sources = product(outs[0].sizes) * widths[sources[0].symbol], sources[1:]
    for source in sources:
        read = read + product(_distinct(source)) * widths[source.symbol]
    return read, read, written


def _host_traffic(section: Section, command: Command, widths: Mapping[str, int]) -> tuple[Number, Number, Number]:
    host = section.hosts[int(command.args[0])]
    read, written = (
        sum(prod(v.shape) * widths[section.descriptors[v.descriptor].symbol] for v in values if v.descriptor >= 0)
        for values in (host.inputs, host.outputs)
    )
    return read, read, written


def vector_work(section: Section, command: Command) -> Number:
    """Lane operations of a vector command or, per input vector, of what follows an MVM's readout."""
    if command.op in ("HOST", "PRED", "SETD"):
        return 0
    [out, *_], sources = operands(section, command)
    match command.op:
        case "MVM":  # each tile's sums: the first is requantized, the others are added before
            return sum(tile.cols for tile in section.bindings[int(command.args[2])].tiles)
        case "GEMV":
            return section.bindings[int(command.args[3])].cols
        case "MMA":
            return product(out.sizes) * number(sources[0].sizes[-1])
        case "MAX" | "SUM" | "RED":
            return product(sources[0].sizes)
        case "SOFTMAX":
            return product(out.sizes) * SOFTMAX_PASSES
        case "QDYN":
            return product(out.sizes) * QDYN_PASSES
        case "FILL" | "DMA" | "GATHER" | "SCATTER":
            return 0
        case _:
            return product(out.sizes)


def passes_of(binding: Binding, chip: Chip, reads: int | None) -> int:
    """Array operations per tile and input vector: input passes times averaged reads."""
    return reads_of(binding, chip, reads) * planes_of(binding, chip)


def planes_of(binding: Binding, chip: Chip) -> int:
    """Input passes of one vector: as the binding cuts its codes, else as the chip's drivers do."""
    cut = binding.readout.plane_bits
    return -(-cut[0] // cut[1]) if cut else chip.macro.passes


def reads_of(binding: Binding, chip: Chip, reads: int | None) -> int:
    """Averaged reads per input vector: as the binding says, else as asked, else as the chip's calibration has it."""
    return binding.readout.reads or (chip.calibration.reads if reads is None else reads)


def _mvm_events(
    program: Program, section: Section, command: Command, chip: Chip, reads: int | None
) -> dict[str, Number]:
    binding, n = section.bindings[int(command.args[2])], vectors_of(section, command)
    passes, slices = passes_of(binding, chip, reads), chip.macro.weights.slices
    digital = binding.readout.kind == "exact"  # its adder trees give whole sums
    cols = sum(tile.cols for tile in binding.tiles)
    rows = sum(active_rows(tile) for tile in binding.tiles)
    weights = sum(active_rows(tile) * tile.cols for tile in binding.tiles)
    per_vector = {
        "vectors": 1,
        "array_operations": passes * len(binding.tiles),
        "array_macs": _whole_codes(passes * weights, chip),
        "cell_operations": passes * slices * chip.macro.cells_per_slice * weights,
        "macs": _useful_macs(program, binding),
        "dac_drives": _whole_codes(passes * rows, chip),
        "adc_conversions": 0 if digital else passes * slices * cols,
        "shift_adds": 0 if digital else (passes * slices - 1) * cols,
        "vector_operations": cols,
    }
    return {event: n * value for event, value in per_vector.items()}


def _gemv_events(program: Program, section: Section, command: Command, widths: Mapping[str, int]) -> dict[str, Number]:
    """Each position reads the whole matrix from the banks once more: they keep no weights beside their cells."""
    binding, n = section.bindings[int(command.args[3])], vectors_of(section, command)
    weights = binding.rows * binding.cols
    held = section.descriptors[int(command.args[2])].symbol
    per_vector = {
        "vectors": 1,
        "array_macs": weights,
        "macs": _useful_macs(program, binding),
        "bank_read_bytes": weights * widths[held],
        "vector_operations": binding.cols,
    }
    return {event: n * value for event, value in per_vector.items()}


def _whole_codes(passes: int, chip: Chip) -> int:
    """Input passes as codes of the drivers' width; a code wider than that counts as more than one."""
    return -(-passes // chip.macro.passes)


def _useful_macs(program: Program, binding: Binding) -> int:
    """MACs of one vector: columns times the layer's fan-in where the program says it, else all bound weights.

    Grouped convolutions store zeros beside their blocks; `meta["fan_in"][label]` is the rows a column really has.
    """
    fan_in = program.meta.get("fan_in", {}).get(binding.label)
    if fan_in is not None:
        return min(int(fan_in), binding.rows) * binding.cols
    return sum(tile.rows * tile.cols for tile in binding.tiles) if binding.tiles else binding.rows * binding.cols


def active_rows(tile: Tile) -> int:
    """Rows driven when a tile is read: its own and those that hold its bias."""
    return tile.rows + tile.bias_rows


def _tile_operations(
    section: Section, command: Command, chip: Chip, reads: int | None
) -> Iterator[tuple[TileKey, Number]]:
    if command.op == "MVM":
        binding = section.bindings[int(command.args[2])]
        n = vectors_of(section, command) * passes_of(binding, chip, reads)
        for tile in binding.tiles:
            yield (section.chip, section.core, tile.macro, tile.x, tile.y), n


def _window_reads(section: Section, command: Command, chip: Chip, width: int) -> tuple[Number, Number]:
    """Bytes an MVM reads: (of its first vector, in all).

    The core keeps the last input vector where it fits its SRAM; along the innermost position dimension only
    elements that the vector before did not hold are read again.
    """
    out, source = (section.descriptors[int(a)] for a in command.args[:2])
    inner = len(out.sizes) - 2  # the innermost position dimension; -1 where there is one position
    row_sizes = tuple(int(size) for size in source.sizes[inner + 1 :])
    row_strides = source.strides[inner + 1 :]
    held, fresh = _window(row_sizes, row_strides, source.strides[inner] if inner >= 0 else 0)
    if inner < 0:
        return held * width, held * width
    if prod(row_sizes) * width > chip.core.sram:
        fresh = held
    per_row = held + (number(source.sizes[inner]) + -1) * fresh
    return held * width, product(source.sizes[:inner]) * per_row * width


@cache
def _window(sizes: tuple[int, ...], strides: tuple[int, ...], step: int) -> tuple[int, int]:
    """(elements of a window, those of the window `step` further that the first one lacks)."""
    held = {0}
    for size, stride in zip(sizes, strides, strict=True):
        held = {at + i * stride for at in held for i in range(size)}
    return len(held), len({at + step for at in held} - held)


def _distinct(operand: Descriptor) -> list[Size]:
    """The dimensions that reach different elements: a stride of 0 repeats what was read."""
    return [size for size, stride in zip(operand.sizes, operand.strides, strict=True) if stride]


def element_bytes(dtype: str) -> int:
    """Bytes of an element: "int8", "i8", "uint8" and "bool" take 1."""
    return int("".join(c for c in dtype if c.isdigit()) or "8") // 8


def _weight_bytes(program: Program) -> int:
    """Bytes of the weight matrices the sections bind, each once per chip."""
    bound = {(section.chip, binding.weight) for section in program.sections for binding in section.bindings}
    refs = [program.weights[name] for _, name in sorted(bound)]
    return sum(prod(ref.shape) * element_bytes(ref.dtype) for ref in refs)
