"""What one execution of a command holds, and for how long: its pipeline of stages, in picoseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from insitu.arch.spec import Chip
from insitu.arch.stored import macro_seconds
from insitu.base.errors import ChipError, ProgramError
from insitu.isa.program import Binding, Command, Program, Section, Tile
from insitu.sim.counts import CONTROL, ENDS
from insitu.sim.poly import whole
from insitu.sim.work import (
    array_product,
    command_link,
    element_bits,
    host_values,
    passes_of,
    played_vectors,
    table_bytes,
    traffic,
    vector_work,
    vectors_of,
    verify_pulses,
)

SECOND = 10**12  # picoseconds
HOST_CYCLES = 8  # of the chip's clock per element of a host operator; assumed, whatever the operator is
WHOLE_OPERANDS = (
    "MMA",
    "AMM",
    "SOFTMAX",
    "GATHER",
    "SCATTER",
    "QDYN",
    "HOST",
    "PRED",
    "SETD",
)  # start when all operands are in the core


@dataclass(frozen=True)
class Burst:
    """A transfer in one piece: `edge` is its first vector (read) or its last (write), `total` all of it."""

    edge: int
    total: int


@dataclass(frozen=True)
class Stage:
    """Units that take a vector together every `step`; unit i works `work[i]` per vector, over `count` vectors."""

    units: tuple[int, ...]
    work: tuple[int, ...]
    step: int
    count: int


@dataclass(frozen=True)
class Plan:
    """One command: read burst, stages, write burst; control commands have none of them."""

    op: str
    args: tuple[int, ...] = ()
    read: Burst | None = None
    stages: tuple[Stage, ...] = ()
    write: Burst | None = None
    issue: int = 0


@dataclass
class Units:
    """Names of the units of a program's chips, numbered as they are met."""

    names: list[str] = field(default_factory=list[str])
    index: dict[str, int] = field(default_factory=dict[str, int])

    def number(self, name: str) -> int:
        if name not in self.index:
            self.index[name] = len(self.names)
            self.names.append(name)
        return self.index[name]

    def of_core(self, section: Section, unit: str) -> int:
        return self.number(f"chip{section.chip}.core{section.core}.{unit}")

    def of_macro(self, section: Section, macro: int, unit: str) -> int:
        return self.number(f"chip{section.chip}.core{section.core}.macro{macro}.{unit}")

    def of_port(self, section: Section) -> int:
        return self.number(f"chip{section.chip}.ram")


def plan_section(program: Program, section: Section, chip: Chip, *, units: Units, reads: int | None) -> list[Plan]:
    """The plan of each command of a section; equal commands share one."""
    widths = {symbol.name: element_bits(symbol.dtype) for symbol in program.symbols}
    known: dict[Command, Plan] = {}
    for command in section.code:
        if command not in known:
            known[command] = _plan(program, section, command, chip, widths=widths, units=units, reads=reads)
    return [known[command] for command in section.code]


def _plan(
    program: Program,
    section: Section,
    command: Command,
    chip: Chip,
    *,
    widths: Mapping[str, int],
    units: Units,
    reads: int | None,
) -> Plan:
    issue = clock_period(chip)
    if command.op in CONTROL:
        args = tuple(_bound(section, a) for a in command.args)
        return Plan(command.op, args, issue=0 if command.op in ENDS else issue)
    if command.op == "CAL":
        return Plan(command.op, stages=_calibration_stages(program, section, command, chip, units), issue=issue)
    if command.op in ARRAYS:
        return Plan(command.op, stages=ARRAYS[command.op](section, command, chip, units), issue=issue)
    if command.op == "LUTLD":
        size = table_bytes(program, section, command)
        return Plan(command.op, read=_burst(chip, size, size), issue=issue)
    first, read, written = (whole(n) for n in traffic(section, command, chip, widths=widths))
    if command.op == "DMA" and (away := command_link(program, section, command)) is not None:
        link = _link_stage(chip, units, away, read)
        return Plan(command.op, stages=(link,), write=_burst(chip, written, written), issue=issue)
    stages = _mvm_stages(section, command, chip, units, reads) if command.op == "MVM" else ()
    stages += _bank_stages(section, command, chip, units) if command.op == "GEMV" else ()
    stages += _stored_stages(section, command, chip, units) if command.op == "AMM" else ()
    stages += _vector_stage(section, command, chip, units) + _host_stage(section, command, chip, units)
    vectors = stages[-1].count if stages else 1
    if command.op not in ("MVM", "GEMV"):
        first = read if command.op in WHOLE_OPERANDS else -(-read // vectors)
    last = written if command.op in ("SOFTMAX", "QDYN") else -(-written // vectors)
    return Plan(
        command.op,
        read=_burst(chip, first, read),
        stages=stages,
        write=_burst(chip, last, written),
        issue=issue,
    )


def _mvm_stages(section: Section, command: Command, chip: Chip, units: Units, reads: int | None) -> tuple[Stage, ...]:
    """The arrays, and the ADCs where they have a time of their own; else they are held with their array."""
    binding, count = section.bindings[int(command.args[2])], whole(vectors_of(section, command))
    return _read_stages(section, binding, chip, units, count, reads=reads)


def _read_stages(
    section: Section, binding: Binding, chip: Chip, units: Units, count: int, *, reads: int | None
) -> tuple[Stage, ...]:
    passes, macro = passes_of(binding, chip, reads), chip.macro
    per_macro: dict[int, list[Tile]] = {}
    for tile in binding.tiles:
        per_macro.setdefault(tile.macro, []).append(tile)
    arrays = [units.of_macro(section, m, "array") for m in per_macro]
    array_work = [len(tiles) * passes * picoseconds(macro.t_read) for tiles in per_macro.values()]
    if binding.readout.kind == "exact":
        return (_stage(arrays, array_work, count),)
    adcs = [units.of_macro(section, m, "adc") for m in per_macro]
    if macro.t_adc is None:
        return (_stage(arrays + adcs, array_work * 2, count),)
    slots = [sum(conversions_in_turn(tile, chip) for tile in tiles) for tiles in per_macro.values()]
    return (
        _stage(arrays, array_work, count),
        _stage(adcs, [n * passes * picoseconds(macro.t_adc) for n in slots], count),
    )


def _verify_stages(section: Section, command: Command, chip: Chip, units: Units) -> tuple[Stage, ...]:
    """The arrays, a row of a tile after the other: all its pulses, and a read behind each.

    What the cell library calls the time of a cell is of all its pulses; those of a row are given together.
    """
    binding, write = section.bindings[int(command.args[0])], chip.cell.write
    pulses = verify_pulses(chip)
    row = pulses * picoseconds(chip.macro.t_read) + picoseconds(write.time if write and write.time else 0.0)
    rows: dict[int, int] = {}
    for tile in binding.tiles:
        rows[tile.macro] = rows.get(tile.macro, 0) + tile.rows
    return (_stage([units.of_macro(section, m, "array") for m in rows], [n * row for n in rows.values()], 1),)


def _calibration_stages(
    program: Program, section: Section, command: Command, chip: Chip, units: Units
) -> tuple[Stage, ...]:
    """As the arrays and converters of an MVM of what is played; digital macros have nothing to calibrate."""
    binding = section.bindings[int(command.args[0])]
    if binding.readout.kind == "exact":
        return ()
    return _read_stages(section, binding, chip, units, played_vectors(program, section, command, chip), reads=None)


def _mode_stages(section: Section, command: Command, chip: Chip, units: Units) -> tuple[Stage, ...]:
    """The macro is held for a read: no figure for switching is published, so this one is assumed."""
    macro = units.of_macro(section, int(command.args[0]), "array")
    return (_stage([macro], [picoseconds(chip.macro.t_read)], 1),)


def _bank_stages(section: Section, command: Command, chip: Chip, units: Units) -> tuple[Stage, ...]:
    """All banks of a core together: columns are dealt out among them, and a bank takes `array.rows` rows a read."""
    binding, count = section.bindings[int(command.args[3])], whole(vectors_of(section, command))
    turns = -(-binding.cols // chip.core.macros) * -(-binding.rows // chip.array.rows)
    return (_stage([units.of_core(section, "banks")], [turns * picoseconds(chip.macro.t_read)], count),)


def _stored_stages(section: Section, command: Command, chip: Chip, units: Units) -> tuple[Stage, ...]:
    """The macros that take the second operand, held until all of the first one went through; then lanes take sums."""
    first, count = section.vectors[int(command.args[3])].macros
    held = [units.of_macro(section, m, "array") for m in range(first, first + count)]
    seconds = macro_seconds(array_product(section, command, chip), chip, count)
    return (_stage(held, [picoseconds(seconds)] * count, 1),)


def _load_stages(section: Section, command: Command, chip: Chip, units: Units) -> tuple[Stage, ...]:
    """The weight store and the arrays it fills, until the last bit is written."""
    binding = section.bindings[int(command.args[0])]
    held = [units.number(f"chip{section.chip}.store")]
    held += [units.of_macro(section, m, "array") for m in dict.fromkeys(t.macro for t in binding.tiles)]
    bits = binding.rows * binding.cols * chip.macro.weights.slices * chip.array.bits_per_cell
    return (_stage(held, [-(-bits * SECOND // (8 * round(chip.store_bandwidth)))] * len(held), 1),)


ARRAYS: Mapping[str, Callable[[Section, Command, Chip, Units], tuple[Stage, ...]]] = {
    "WLOAD": _load_stages, "WVERIFY": _verify_stages, "WMODE": _mode_stages,
}  # fmt: skip


def _link_stage(chip: Chip, units: Units, away: int, count: int) -> Stage:
    """The link out of chip `away`, and its memory port meanwhile."""
    links = chip.system.links
    time = picoseconds(links.latency) + -(-count * SECOND // round(links.bandwidth))
    return _stage(
        [units.number(f"chip{away}.link"), units.number(f"chip{away}.ram")], [time, port_time(chip, count)], 1
    )


def _vector_stage(section: Section, command: Command, chip: Chip, units: Units) -> tuple[Stage, ...]:
    """The vector unit: a step is one MVM vector, or one group of lanes."""
    work, lanes, period = whole(vector_work(section, command, chip)), chip.core.vector.lanes, clock_period(chip)
    if not work:
        return ()
    unit = units.of_core(section, "vector")
    if command.op in ("MVM", "GEMV"):
        return (_stage([unit], [-(-work // lanes) * period], whole(vectors_of(section, command))),)
    return (_stage([unit], [period], -(-work // lanes)),)


def _host_stage(section: Section, command: Command, chip: Chip, units: Units) -> tuple[Stage, ...]:
    """The host: an assumed number of its cycles for each element it reads or writes."""
    if command.op != "HOST":
        return ()
    work = whole(host_values(section, command)) * HOST_CYCLES * clock_period(chip)
    return (_stage([units.number(f"chip{section.chip}.host")], [max(work, clock_period(chip))], 1),)


def _stage(units: Sequence[int], work: Sequence[int], count: int) -> Stage:
    return Stage(tuple(units), tuple(work), max(work), count)


def _burst(chip: Chip, edge: int, total: int) -> Burst | None:
    return Burst(port_time(chip, edge), port_time(chip, total)) if total else None


def _bound(section: Section, size: int | str) -> int:
    if isinstance(size, str):
        where = f"chip {section.chip} core {section.core}"
        raise ProgramError(where, f"size {size} is not bound", "a number", try_=("Program.bind(sizes)",))
    return size


# times


def picoseconds(seconds: float) -> int:
    """Seconds as a whole number of picoseconds."""
    return round(seconds * SECOND)


def clock_period(chip: Chip) -> int:
    """One cycle of the chip's clock."""
    return picoseconds(1.0 / chip.chip.clock)


def port_time(chip: Chip, count: int) -> int:
    """How long `count` bytes hold the memory port."""
    if "ram" not in chip.memories:
        raise ChipError(f"{chip.name}: memories", "no ram", "a memory named ram that the cores share")
    return -(-count * SECOND // round(chip.memories["ram"].bandwidth))


def conversions_in_turn(tile: Tile, chip: Chip) -> int:
    """The most conversions one ADC makes for one pass of a tile: neighbouring bitlines share an ADC."""
    shared = chip.macro.columns_per_adc
    low, high = (chip.macro.weights.slices * at for at in (tile.x, tile.x + tile.cols))
    groups = range(low // shared, min(low // shared + 2, (high - 1) // shared) + 1)
    return max(min(high, (g + 1) * shared) - max(low, g * shared) for g in groups)
