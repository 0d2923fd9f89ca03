"""What one execution of a command works on: its vectors, its bytes over the memory port, its lanes and passes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import ceil, prod

from insitu.arch.spec import Chip
from insitu.arch.stored import Product, dealt, events
from insitu.base.errors import ProgramError
from insitu.isa.program import Binding, Command, Descriptor, Program, Section, Size, Tile
from insitu.isa.setup import MEASURED
from insitu.isa.stored import stored_product
from insitu.isa.table import instruction
from insitu.sim.poly import Number, Poly, number, product

SOFTMAX_PASSES = 3  # maximum, exponentials and their sum, quotient
QDYN_PASSES = 3  # smallest, largest, codes


def host_values(section: Section, command: Command) -> Number:
    """Elements in memory that a host operator reads or writes."""
    host = section.hosts[int(command.args[0])]
    return sum(prod(v.shape) for v in (*host.inputs, *host.outputs) if v.descriptor >= 0)


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
    written = places(command.op, "descriptor", ("write", "update"))
    read = places(command.op, "descriptor", ("read", "update"))
    sources = [section.descriptors[int(command.args[i])] for i in read]
    for i in places(command.op, "vector"):
        multiplier = section.vectors[int(command.args[i])].multiplier
        sources += [] if multiplier is None else [section.descriptors[multiplier]]
    return [section.descriptors[int(command.args[i])] for i in written], sources


def traffic(
    section: Section, command: Command, chip: Chip, *, widths: Mapping[str, int]
) -> tuple[Number, Number, Number]:
    """Bytes over the memory port: (read before the first vector, read in all, written); `widths` is bits an element."""
    if command.op == "HOST":
        return _host_traffic(section, command, widths)
    outs, sources = operands(section, command)
    written: Number = 0
    for out in outs:  # of a SCATTER as many elements as come in, out's others stay
        sizes = sources[1].sizes if command.op == "SCATTER" else out.sizes
        written = written + bytes_of(product(sizes), widths[out.symbol])
    if command.op == "SCATTER":
        sources = sources[1:]
    if command.op in ("MVM", "GEMV"):
        first, read = window_reads(section, command, chip, widths[sources[0].symbol] // 8)
        return first, read, written
    read: Number = 0
    if command.op == "GATHER":  # of the table, as much as goes out
        read, sources = bytes_of(product(outs[0].sizes), widths[sources[0].symbol]), sources[1:]
    for source in sources:
        read = read + bytes_of(product(_distinct(source)), widths[source.symbol])
    return read, read, written


def _host_traffic(section: Section, command: Command, widths: Mapping[str, int]) -> tuple[Number, Number, Number]:
    host = section.hosts[int(command.args[0])]
    read, written = (
        sum(
            bytes_of(prod(v.shape), widths[section.descriptors[v.descriptor].symbol])
            for v in values
            if v.descriptor >= 0
        )
        for values in (host.inputs, host.outputs)
    )
    return read, read, written


def array_product(section: Section, command: Command, chip: Chip) -> Product:
    """What an AMM writes into cells and drives through them, dealt out over its macros."""
    a, b = (section.descriptors[int(i)] for i in command.args[1:3])
    settings = section.vectors[int(command.args[3])]
    return dealt(stored_product(a, b, settings), chip, settings.macros[1])


def vector_work(section: Section, command: Command, chip: Chip) -> Number:
    """Lane operations of a vector command or, per input vector, of what follows an MVM's readout."""
    if command.op in ("HOST", "PRED", "SETD"):
        return 0
    [out, *_], sources = operands(section, command)
    match command.op:
        case "MVM":  # each tile's sums: the first is requantized, the others are added before
            return sum(tile.cols for tile in section.bindings[int(command.args[2])].tiles)
        case "GEMV":
            return section.bindings[int(command.args[3])].cols
        case "AMM":
            return events(array_product(section, command, chip), chip)["vector_operations"]
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


def played_vectors(program: Program, section: Section, command: Command, chip: Chip) -> int:
    """Input vectors that a CAL plays: one, or each known input of the binding several times."""
    if command.args[1] not in MEASURED:
        return 1
    binding = section.bindings[int(command.args[0])]
    inputs = program.weights[binding.expected].shape[0] - 1 if binding.expected else 0
    return max(inputs, 1) * chip.calibration.known_reads


def active_rows(tile: Tile) -> int:
    """Rows driven when a tile is read: its own and those that hold its bias."""
    return tile.rows + tile.bias_rows


def window_reads(section: Section, command: Command, chip: Chip, width: int) -> tuple[Number, Number]:
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


def element_bits(dtype: str) -> int:
    """Bits of an element in memory: 4 for "i4", 8 for "int8" or "bool"."""
    return int("".join(c for c in dtype if c.isdigit()) or "8")


def bytes_of(count: Number, bits: int) -> Number:
    """Bytes of so many elements; those of a size that is bound at run time are rounded up for each of its terms."""
    if isinstance(count, Poly):
        return Poly({names: -(-k * bits // 8) for names, k in count.terms.items()})
    return -(-count * bits // 8)


def element_bytes(dtype: str) -> int:
    """Bytes of an element: "int8", "i8", "uint8" and "bool" take 1."""
    return int("".join(c for c in dtype if c.isdigit()) or "8") // 8


def verify_pulses(chip: Chip) -> int:
    """Pulses, each with a read behind it, that a row of cells takes until all hold their level."""
    write = chip.cell.write
    return ceil(write.pulses) if write and write.pulses else 1


def table_bytes(program: Program, section: Section, command: Command) -> int:
    """Bytes of the table a LUTLD brings: entries as wide as they need to be."""
    ref = program.weights[section.vectors[int(command.args[0])].lut]
    width = element_bytes(ref.dtype)
    if ref.data is not None and ref.data.size:
        low, high = int(ref.data.min()), int(ref.data.max())
        width = next(w for w in (1, 2, 4, 8) if -(1 << (8 * w - 1)) <= low and high < 1 << (8 * w - (low < 0)))
    return prod(ref.shape) * width


@cache
def places(op: str, kind: str, roles: tuple[str, ...] = ("",)) -> tuple[int, ...]:
    """Which operands of an instruction are of this kind and role."""
    row = instruction(op)
    if row is None:
        raise ProgramError("program", f"instruction {op}", "one of the instruction table")
    return tuple(i for i, o in enumerate(row.operands) if o.kind == kind and o.role in roles)
