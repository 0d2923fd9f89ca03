"""Closed-form event counts of a Program: what every command asks of the hardware, times how often it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from insitu.arch import stored
from insitu.arch.spec import Chip
from insitu.isa.calls import written_out
from insitu.isa.program import Binding, Command, Program, Section
from insitu.isa.setup import setup_length
from insitu.sim.poly import Number, evaluate, number
from insitu.sim.work import (
    active_rows,
    array_product,
    bytes_of,
    command_link,
    element_bits,
    element_bytes,
    host_values,
    passes_of,
    places,
    played_vectors,
    table_bytes,
    traffic,
    vector_work,
    vectors_of,
    verify_pulses,
)

EVENTS = (
    "vectors",  # input vectors of MVM commands
    "array_operations",  # one tile, one input pass, one read
    "array_macs",  # one weight (a cell or several) times one input code (all its passes), one read
    "cell_operations",  # cells active in the array operations
    "macs",  # multiply-accumulates of weight layers, as the network counts them
    "mma_macs",  # multiply-accumulates of two run-time operands, on the vector unit
    "stored_macs",  # of two run-time operands with one of them written into arrays
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
CONTROL = ("LOOP", "ENDL", "ENDP", "CALL", "RET", "SIG", "AWAIT", "BAR", "HALT")
ENDS = ("ENDL", "ENDP")  # done by the sequencer in passing
TileKey = tuple[int, int, int, int, int]  # chip, core, macro of that core, x, y


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

    Commands under a PRED count as run, those of both arms of an If: no data can ask for more of any event.  What one
    run executes is `Timing.counts`.
    """
    program = written_out(program)
    return tally(program, chip, [_of_a_run(section) for section in program.sections], reads=reads)


def _of_a_run(section: Section) -> list[Number]:
    """How often each command of a section runs in one run; what sets the core up is done before."""
    first = setup_length(section.code)
    return [0] * first + executions(section.code)[first:]


def tally(program: Program, chip: Chip, runs: Sequence[Sequence[Number]], *, reads: int | None = None) -> Counts:
    """Counts where command i of section s runs `runs[s][i]` times."""
    widths = {symbol.name: element_bits(symbol.dtype) for symbol in program.symbols}
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
    bindings, vectors = places(command.op, "binding"), places(command.op, "vector")
    owners = [section.bindings[int(command.args[i])].label for i in bindings]
    return "".join([*owners, *(section.vectors[int(command.args[i])].label for i in vectors)])


# one execution of one command


def command_events(
    program: Program, section: Section, command: Command, chip: Chip, *, widths: Mapping[str, int], reads: int | None
) -> dict[str, Number]:
    """The events of one execution; `widths` is bits per element by symbol."""
    events: dict[str, Number] = {"commands": 0 if command.op in ENDS else 1}
    if command.op in CONTROL:
        return events
    if command.op in WITHOUT_OPERANDS:
        return events | WITHOUT_OPERANDS[command.op](program, section, command, chip)
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
    if command.op == "AMM":
        return events | stored.events(array_product(section, command, chip), chip)
    work = vector_work(section, command, chip)
    return events | {"vector_operations": work, "mma_macs": work if command.op == "MMA" else 0}


def _load_events(_: Program, section: Section, command: Command, chip: Chip) -> dict[str, Number]:
    binding = section.bindings[int(command.args[0])]
    bits = binding.rows * binding.cols * chip.macro.weights.slices * chip.array.bits_per_cell
    return {"weight_bits": bits * chip.macro.cells_per_slice, "store_read_bytes": -(-bits // 8)}


def _verify_events(_: Program, section: Section, command: Command, chip: Chip) -> dict[str, Number]:
    """Every cell is read after each pulse; the pulses after the first, which WLOAD gave, are its writes again."""
    binding, pulses = section.bindings[int(command.args[0])], verify_pulses(chip)
    weights = binding.rows * binding.cols
    bits = weights * chip.macro.weights.slices * chip.array.bits_per_cell * chip.macro.cells_per_slice
    return {
        "weight_bits": bits * (pulses - 1),
        "cell_operations": pulses * chip.macro.weights.slices * chip.macro.cells_per_slice * weights,
        "array_macs": _whole_codes(pulses * weights, chip),
        "adc_conversions": 0 if _digital(binding) else pulses * chip.macro.weights.slices * weights,
    }


def _digital(binding: Binding) -> bool:
    """Whether adder trees give whole sums: nothing is converted, and nothing to calibrate."""
    return binding.readout.kind == "exact"


def _calibration_events(program: Program, section: Section, command: Command, chip: Chip) -> dict[str, Number]:
    """As the input vectors that are played, but that the network sees nothing of them."""
    binding = section.bindings[int(command.args[0])]
    if _digital(binding):
        return {}
    unseen, played = ("vectors", "macs"), played_vectors(program, section, command, chip)
    events = _vector_events(program, binding, chip, None).items()
    return {event: n * played for event, n in events if event not in unseen}


def _table_events(program: Program, section: Section, command: Command, _: Chip) -> dict[str, Number]:
    return {"ram_read_bytes": table_bytes(program, section, command)}


def _no_events(_program: Program, _section: Section, _command: Command, _chip: Chip) -> dict[str, Number]:
    return {}


WITHOUT_OPERANDS: Mapping[str, Callable[[Program, Section, Command, Chip], dict[str, Number]]] = {
    "WLOAD": _load_events, "WVERIFY": _verify_events, "WMODE": _no_events, "CAL": _calibration_events,
    "LUTLD": _table_events,
}  # fmt: skip


def _mvm_events(
    program: Program, section: Section, command: Command, chip: Chip, reads: int | None
) -> dict[str, Number]:
    binding, n = section.bindings[int(command.args[2])], vectors_of(section, command)
    return {event: n * value for event, value in _vector_events(program, binding, chip, reads).items()}


def _vector_events(program: Program, binding: Binding, chip: Chip, reads: int | None) -> dict[str, int]:
    """The events of one input vector."""
    passes, slices = passes_of(binding, chip, reads), chip.macro.weights.slices
    digital = _digital(binding)
    cols = sum(tile.cols for tile in binding.tiles)
    rows = sum(active_rows(tile) for tile in binding.tiles)
    weights = sum(active_rows(tile) * tile.cols for tile in binding.tiles)
    return {
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


def _gemv_events(program: Program, section: Section, command: Command, widths: Mapping[str, int]) -> dict[str, Number]:
    """Each position reads the whole matrix from the banks once more: they keep no weights beside their cells."""
    binding, n = section.bindings[int(command.args[3])], vectors_of(section, command)
    weights = binding.rows * binding.cols
    held = section.descriptors[int(command.args[2])].symbol
    per_vector = {
        "vectors": 1,
        "array_macs": weights,
        "macs": _useful_macs(program, binding),
        "bank_read_bytes": bytes_of(weights, widths[held]),
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


def _tile_operations(
    section: Section, command: Command, chip: Chip, reads: int | None
) -> Iterator[tuple[TileKey, Number]]:
    if command.op == "MVM":
        binding = section.bindings[int(command.args[2])]
        n = vectors_of(section, command) * passes_of(binding, chip, reads)
        for tile in binding.tiles:
            yield (section.chip, section.core, tile.macro, tile.x, tile.y), n


def _weight_bytes(program: Program) -> int:
    """Bytes of the weight matrices the sections bind, each once per chip."""
    bound = {(section.chip, binding.weight) for section in program.sections for binding in section.bindings}
    refs = [program.weights[name] for _, name in sorted(bound)]
    return sum(prod(ref.shape) * element_bytes(ref.dtype) for ref in refs)
