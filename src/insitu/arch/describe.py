"""A chip as one page of plain text: what it is, what it can hold and do, and where its numbers come from."""

from __future__ import annotations

import json
from collections.abc import Iterator

from insitu.arch.cost import area, awake, event_energy, host_idle, leakage, memory_latency, peak_efficiency
from insitu.arch.load import chip_schema
from insitu.arch.spec import Chip
from insitu.arch.thermal import junction, peak_watts
from insitu.base.metrics import Metric
from insitu.base.units import format_quantity
from insitu.circuit.cost import converter_bits
from insitu.circuit.effects import chip_effects
from insitu.circuit.model import adc_survey
from insitu.circuit.spec import Calibration, Weights

ORIGINS = {"vendor": "a vendor's chip", "paper": "a published chip", "parametric": "parametric, not a product"}
WIDTH = 14


def describe(chip: Chip) -> str:
    """The page that `insitu show CHIP` prints, ending in a newline."""
    lines = [f"{chip.name} ({ORIGINS[chip.origin]})", ""]
    for block in (_geometry(chip), _abilities(chip), _speed(chip), _energy(chip), _sources(chip)):
        lines += [*block, ""]
    return "\n".join(lines).rstrip() + "\n"


def schema_text() -> str:
    """The JSON schema of a chip file as `insitu show schema chip` prints it."""
    return json.dumps(chip_schema(), indent=2, ensure_ascii=False) + "\n"


def capacity_text(chip: Chip) -> str:
    """Weights the chip holds, and in how many macros."""
    if chip.capabilities.gemv:
        return f"{chip.capacity:,} weights in memory banks, {chip.macros} of them"
    each = f"{chip.weight_rows} x {chip.weight_cols}"
    count = f"{chip.macros} macros of {each}" if chip.macros > 1 else f"one macro of {each}"
    return f"{chip.capacity:,} weights: {count}"


def _geometry(chip: Chip) -> Iterator[str]:
    macro, array, cell = chip.macro, chip.array, chip.cell
    levels = [
        (chip.chip.tiles, "tile"),
        (chip.tile.cores, "core"),
        (chip.core.macros, "macro"),
        (macro.arrays, "array"),
    ]
    tree = " of ".join(f"{count} {name}{'s' if count > 1 else ''}" for count, name in levels)
    process = chip.technology
    yield _row("process", f"{_si(process.node, 'm')}, {_si(process.supply, 'V')}, {_si(process.temperature, 'K')}")
    yield _row("levels", f"{tree}, each {array.rows} rows x {array.cols} columns")
    yield _row("capacity", capacity_text(chip))
    kept = "keeps its weights without power" if cell.nonvolatile else "loses its weights without power"
    yield _row("cell", f"{cell.name} ({cell.kind}), {array.bits_per_cell} bits used of {cell.bits}, {kept}")
    lo, hi = array.cell_range
    yield _row("weights", f"{lo} to {hi}, {macro.weights.encoding}, {_slices(macro.weights)}")
    low, high = chip.input_range
    yield _row("inputs", f"{low} to {high}, {_count(macro.passes, 'pass')}")
    yield _row("readout", _readout(chip))
    if macro.bias_rows:
        yield _row("bias rows", f"{macro.bias_rows}, shared by the arrays of a macro")


def _readout(chip: Chip) -> str:
    readout = chip.macro.readout
    if readout.kind == "exact":
        return f"exact, {readout.bits}-bit digital sums"
    gain = f", gain {readout.gain[0]} to {readout.gain[1]}" if readout.gain else ""
    return f"{readout.kind}, {readout.bits}-bit codes{gain}, {chip.macro.columns_per_adc} columns a converter"


def _abilities(chip: Chip) -> Iterator[str]:
    able = chip.capabilities
    yield _row("can", ", ".join(word for word, can in _words(chip) if can) or "constant weights only")
    yield _row("cannot", ", ".join(word for word, can in _words(chip) if not can) or "nothing of the table")
    yield _row("scales", "powers of two" if able.scales == "power_of_two" else "any")
    yield _row("calibration", ", ".join(_procedures(chip.calibration)))
    yield _row("physics", ", ".join(chip_effects(chip)) or "none: digital")


def _procedures(given: Calibration) -> Iterator[str]:
    yield _count(given.refine_passes, "refine pass")
    yield f"{_count(given.reads, 'read')} averaged"
    yield f"column offsets {'subtracted' if given.column_offset else 'left'}"
    if given.drift_compensation:
        yield "drift made up for array by array"
    if given.drift_ahead:
        yield "levels ahead of their drift"
    if given.trims:
        yield f"columns trimmed when {'used' if given.column_drift else 'programmed'}"
    if given.spare_columns:
        yield "worst columns replaced"
    if given.spare_rows:
        yield "empty rows hold copies"
    if given.last_layer:
        yield "last layer solved again"


def _words(chip: Chip) -> tuple[tuple[str, bool], ...]:
    return (
        ("load weights while running (WLOAD)", chip.capabilities.wload),
        ("multiply run-time operands (MMA)", chip.capabilities.mma),
        ("multiply in memory banks (GEMV)", chip.capabilities.gemv),
    )


def _speed(chip: Chip) -> Iterator[str]:
    vector, clock = chip.core.vector, _si(chip.chip.clock, "Hz")
    yield _row("peak", f"{chip.peak_tops:.3g} TOPS; macros alone {_plain(peak_efficiency(chip))} TOPS/W")
    yield _row("vector read", f"{_si(chip.t_vector, 's')} for one input vector on one macro, reads averaged")
    yield _row("vector unit", f"{vector.lanes} lanes {vector.format} at {clock}, {vector.luts} tables, in each core")
    if chip.macro.readout.kind != "exact":
        yield _row("converter", _converter(chip))
    for name, memory in chip.memories.items():
        first = (
            "" if memory.kind == "flash" else f", first byte in {_si(memory_latency(chip, name).value, 's')} (modelled)"
        )
        yield _row(f"memory {name}", f"{_si(memory.size, 'B')} {memory.kind}, {_si(memory.bandwidth, 'B/s')}{first}")
    yield _row("host", chip.chip.host or "none")


def _converter(chip: Chip) -> str:
    """What the best fifth of published converters of that resolution and rate take."""
    bits, seconds = converter_bits(chip), chip.macro.t_adc or chip.macro.t_read / chip.macro.columns_per_adc
    joules, square_metres = adc_survey(bits, chip.technology.node, 1.0 / seconds)
    best = f"best fifth of published ones {_si(float(joules), 'J')} and {_si(float(square_metres), 'm2')}"
    return f"{bits} bits, a conversion each {_si(seconds, 's')}; {best}"


def _energy(chip: Chip) -> Iterator[str]:
    total = area(chip)
    yield _row("area", f"{_si(total.value, 'm2')} ({total.source})")
    drawn = (leakage(chip), host_idle(chip), awake(chip))
    yield _row("leakage", " + ".join(f"{_si(m.value, 'W')} {m.name} ({m.source})" for m in drawn))
    watts = peak_watts(chip)
    yield _row(
        "heat", f"{_si(watts, 'W')} at the peak rate; junction {junction(chip, watts).value or 0.0:.0f} K (assumed)"
    )
    yield "energy of one event"
    for name, metric in event_energy(chip).items():
        yield f"  {name:<16}{_si(metric.value, 'J'):>10}  {metric.source}: {metric.note}"


def _sources(chip: Chip) -> Iterator[str]:
    """Where the file's numbers come from; what starts with ! is an assumption."""
    yield "sources (! = assumption)"
    for path, text in {**chip.sources, **{f"cell.{key}": text for key, text in chip.cell.sources.items()}}.items():
        mark = "!" if "assum" in text else " "
        yield f"{mark} {path} {text}" if path.startswith("[") else f"{mark} {path}: {text}"


def _row(name: str, text: str) -> str:
    return f"{name:<{WIDTH}}{text}"


def _slices(weights: Weights) -> str:
    apart = f", {_count(weights.apart, 'bit')} apart" if weights.apart else ""
    return _count(weights.slices, "slice") + apart


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def _si(value: float | None, unit: str) -> str:
    return format_quantity(value, unit)


def _plain(metric: Metric) -> str:
    return "not known" if metric.value is None else f"{metric.value:.3g}"
