"""What a chip's events cost, how large it is, what it leaks and could do at best; each number with its origin."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from insitu.arch.spec import Chip, Memory
from insitu.base.errors import RangeError
from insitu.base.metrics import Metric, Source
from insitu.circuit.cost import (
    MM2,
    NM,
    PJ,
    UM2,
    area_scale,
    energy_scale,
    facts,
    macro_area,
    macro_energy,
    sram_access,
    sram_area,
    tile_events,
)
from insitu.circuit.heat import leakage_factor
from insitu.circuit.memories import access_time, dram_byte, dram_time, edram_byte
from insitu.circuit.model import Operands
from insitu.circuit.network import bus_byte

EVENTS = (
    "mac", "dac", "adc", "shift_add", "vector_op", "ram_read_byte", "ram_write_byte", "weight_bits", "store_read_byte",
    "bank_read_byte", "link_byte", "control",
)  # fmt: skip
COMMAND_BYTES = 8


def event_energy(chip: Chip, operands: Operands | None = None) -> dict[str, Metric]:
    """Joules of one event of each component: what the chip file gives, else what the models say; `note` is the source.

    mac, dac, adc, shift_add: see circuit.cost.tile_events.  vector_op: one element through one vector operation, the
    operands' registers included; a product of run-time operands (MMA) is one vector_op a MAC.  ram_*_byte: the memory
    called ram.  weight_bits: one bit written; store_read_byte: one byte out of the weight store; bank_read_byte: one
    byte of a weight from its memory bank to the multiplier beside it; link_byte: one byte
    from one chip to another.  control: one command, fetched, decoded and issued.  `operands` moves `mac`
    where it is modelled (insitu.circuit.model).
    """
    models = {
        **macro_energy(chip, operands),
        "vector_op": _vector_op(chip),
        "ram_read_byte": _ram(chip, "ram_read_byte", 1.0),
        "ram_write_byte": _ram(chip, "ram_write_byte", facts()["memory_write"]["ratio"]),
        "weight_bits": _weight_bits(chip),
        "store_read_byte": _store(chip),
        "bank_read_byte": _bank(chip),
        "link_byte": Metric("link_byte", facts()["link"]["j_per_bit"] * 8, "J", "assumed", facts()["link"]["source"]),
        "control": _control(chip),
    }
    return {name: _given(chip, name, "J") or models[name] for name in EVENTS}


def leakage(chip: Chip) -> Metric:
    """Watts that flow whether or not anything runs, the host not counted."""
    given = _given(chip, "leakage", "W")
    if given is not None:
        return given
    fact = facts()["leakage"]
    watts = fact["w_per_mm2"] * (area(chip).value or 0.0) / MM2 * leakage_factor(chip.technology.temperature)
    return Metric("leakage", watts, "W", "assumed", fact["source"])


def host_idle(chip: Chip) -> Metric:
    """Watts of the host processor while programs run without it."""
    given = _given(chip, "host_idle", "W")
    if given is not None:
        return given
    fact = facts()["host"]
    return Metric("host_idle", fact["idle_w"] if chip.chip.host else 0.0, "W", "assumed", fact["source"])


def awake(chip: Chip) -> Metric:
    """Watts that a chip draws while a program runs, beside its events and what always flows; 0 if not given."""
    given = _given(chip, "awake", "W")
    return given if given is not None else Metric("awake", 0.0, "W", "assumed", "assumption: nothing beside its events")


def duty(chip: Chip, operations_per_s: float, *, tile: tuple[int, int]) -> float:
    """Share of the time that arrays work for this many operations a second (a MAC is two) in tiles of rows x columns.

    RangeError where the chip cannot keep up.
    """
    share = operations_per_s / 2.0 / (tile[0] * tile[1] * chip.macros) * chip.t_vector
    if share > 1.0:
        got = f"{operations_per_s:.3g} operations a second"
        raise RangeError(f"{chip.name}: load", got, f"at most {operations_per_s / share:.3g}")
    return share


def load_power(chip: Chip, operations_per_s: float, *, tile: tuple[int, int]) -> Metric:
    """Mean watts of a chip that works this much of the time and sleeps the rest, its own memory and clocks on."""
    macros = 2.0 * chip.array.rows * chip.array.cols
    per_operation = sum(n * (event_energy(chip)[e].value or 0.0) for e, n in _array_events(chip).items()) / macros
    working = duty(chip, operations_per_s, tile=tile) * (awake(chip).value or 0.0)
    watts = (static_power(chip).value or 0.0) + working + operations_per_s * per_operation
    return Metric("load_power", watts, "W", "assumed", f"{awake(chip).note}; {static_power(chip).note}")


def static_power(chip: Chip) -> Metric:
    """Watts of leakage and the idle host together."""
    parts = (leakage(chip), host_idle(chip))
    note = "; ".join(f"{part.name}: {part.note}" for part in parts)
    return Metric("static_power", sum(part.value or 0.0 for part in parts), "W", "assumed", note)


def area(chip: Chip) -> Metric:
    """Square metres of the die: what the chip file says, else the sum of `area_breakdown`."""
    if chip.area.die is not None:
        kind, note = _origin(chip, "area.die")
        return Metric("area", chip.area.die, "m2", kind, note)
    parts = area_breakdown(chip)
    note = (
        "sum of macros, vector units, memories and host; pads, analog supplies and wiring between blocks not modelled"
    )
    note += "; nor the cells of its memory banks" if chip.capabilities.gemv else ""
    return Metric("area", sum(part.value or 0.0 for part in parts.values()), "m2", "modelled", note)


def area_breakdown(chip: Chip) -> dict[str, Metric]:
    """Square metres of all macros, vector units, memories and the host."""
    macro, technology, components = macro_area(chip), chip.technology, facts()
    if chip.area.macro is not None:
        kind, note = _origin(chip, "area.macro")
        macro = Metric("macro_area", chip.area.macro, "m2", kind, note)
    digital, register = components["digital"], components["register"]
    lane = digital["multiply_area_um2"][chip.core.vector.format] * area_scale(
        technology.node, from_node=digital["node_nm"] * NM
    )
    lane += 128 * register["area_um2"] * area_scale(technology.node, from_node=register["node_nm"] * NM)
    held = sum(memory.size for memory in chip.memories.values() if memory.kind == "sram") + chip.cores * chip.core.sram
    host = components["host"]["area_mm2"] * MM2 if chip.chip.host else 0.0
    macros = Metric("macros", chip.macros * (macro.value or 0.0), "m2", macro.source, macro.note)
    if chip.components:  # a published table holds everything but the macros
        kind, note = _origin(chip, "components")
        parts = {name: c.area * c.count * chip.count_of(c.level) for name, c in chip.components.items()}
        return {"macros": macros, **{n: Metric(n, value, "m2", kind, note) for n, value in parts.items()}}
    return {
        "macros": macros,
        "vector": Metric(
            "vector", chip.cores * chip.core.vector.lanes * lane * UM2, "m2", "modelled", digital["source"]
        ),
        "memories": Metric(
            "memories", sram_area(held, technology), "m2", "modelled", components["sram"]["cell_source"]
        ),
        "host": Metric("host", host, "m2", "assumed", components["host"]["source"]),
    }


def peak_tops(chip: Chip) -> Metric:
    """10^12 operations a second with every macro busy with full arrays, 2 operations a MAC, one read an output."""
    return Metric("peak_tops", chip.peak_tops, "TOPS", "modelled", "from the arrays' size and the time of a read")


def peak_efficiency(chip: Chip, operands: Operands | None = None) -> Metric:
    """TOPS/W of macros busy with full arrays, reads averaged as the chip does; nothing but the macros counted."""
    energy = event_energy(chip, operands)
    events = _array_events(chip)
    joules = sum(count * (energy[name].value or 0.0) for name, count in events.items())
    operations = 2.0 * chip.array.rows * chip.array.cols
    return Metric("peak_tops_per_w", operations / joules * 1e-12, "TOPS/W", "modelled", "macros only, full arrays")


def peak_power(chip: Chip) -> dict[str, Metric]:
    """Watts at the peak rate: the macros' events, and the blocks beside them where a table of them is published."""
    vectors = chip.peak_tops * 1e12 / (2.0 * chip.array.rows * chip.array.cols)
    energy = event_energy(chip)
    events = _array_events(chip)
    once = vectors / chip.calibration.reads
    parts = {name: (energy[name], once * n * (energy[name].value or 0.0)) for name, n in events.items()}
    watts = {name: Metric(name, value, "W", unit.source, unit.note) for name, (unit, value) in parts.items()}
    kind, note = _origin(chip, "components")
    blocks = {name: c.power * c.count * chip.count_of(c.level) for name, c in chip.components.items()}
    return {**watts, **{name: Metric(name, value, "W", kind, note) for name, value in blocks.items() if value}}


def _array_events(chip: Chip) -> dict[str, float]:
    """Events of one full array and vector; memory banks read a byte a product."""
    rows, cols = chip.array.rows, chip.array.cols
    banks = {"bank_read_byte": float(rows * cols)} if chip.capabilities.gemv else {}
    return {**tile_events(chip, rows=rows, cols=cols), **banks}


def _given(chip: Chip, name: str, unit: str) -> Metric | None:
    value: float | None = getattr(chip.energy, name)
    if value is None:
        return None
    kind, note = _origin(chip, f"energy.{name}")
    return Metric(name, value, unit, kind, note)


def _origin(chip: Chip, path: str) -> tuple[Source, str]:
    """How a number of the chip file is known, from its source text."""
    note = source_of(chip, path)
    if not note or "assum" in note:
        return "assumed", note or f"chip {chip.name}, no source given"
    return ("modelled", note) if "derived" in note else ("measured", note)


def origin_of(chip: Chip, path: str) -> tuple[Source, str]:
    """How a number of the chip file is known, and from where."""
    return _origin(chip, path)


def source_of(chip: Chip, path: str) -> str:
    """The source text of a value, or of the nearest mapping around it that has one; empty if there is none."""
    keys = path.split(".")
    for count in range(len(keys), 0, -1):
        if (text := chip.sources.get(".".join(keys[:count]))) is not None:
            return text
    return ""


def _vector_op(chip: Chip) -> Metric:
    digital, register, form = facts()["digital"], facts()["register"], chip.core.vector.format
    logic = (digital["multiply_pj"][form] + digital["add32_pj"]) * PJ * scaled(digital, chip)
    moved = 3 * digital["operand_bits"][form] * register["energy_pj"] * PJ * scaled(register, chip)
    note = f"one {form} multiply, one 32-bit add, three registers; {digital['source']}; {register['source']}"
    return Metric("vector_op", logic + moved, "J", "modelled", note)


def _ram(chip: Chip, name: str, ratio: float) -> Metric:
    joules = _memory_byte(chip, chip.memories["ram"]) * ratio + bus_energy(chip)
    note = _memory_note(chip.memories["ram"]) + (
        "; " + facts()["memory_write"]["source"] if name == "ram_write_byte" else ""
    )
    return Metric(name, joules, "J", "modelled", note + (f"; {facts()['bus']['source']}" if chip.cores > 1 else ""))


def bus_energy(chip: Chip) -> float:
    """Joules of a byte between a core and the memory that cores share; one core has its memory beside it."""
    if chip.cores == 1:
        return 0.0
    router = scaled(facts()["bus"], chip)
    return float(bus_byte(area(chip).value, chip.technology.supply, stops=chip.chip.tiles, router_scale=router))


def memory_latency(chip: Chip, name: str) -> Metric:
    """Seconds from a request to the first byte of a memory of the chip."""
    memory = chip.memories[name]
    if memory.kind == "dram":
        fact = facts()["dram"]
        return Metric(f"latency_{name}", dram_time(memory.row_hits), "s", "modelled", fact["time_source"])
    seconds = access_time(memory.size, sram_area(memory.size, chip.technology), chip.technology)
    return Metric(f"latency_{name}", seconds, "s", "modelled", facts()["memory_time"]["source"])


def _memory_byte(chip: Chip, memory: Memory) -> float:
    if memory.kind == "dram":
        return dram_byte(memory.row_hits)
    if memory.kind == "edram":  # a bank a tile
        return edram_byte(memory.size / chip.chip.tiles, chip.technology, scaled(facts()["edram"], chip))
    return sram_access(memory.size, chip.technology)


def _memory_note(memory: Memory) -> str:
    return str(facts()[memory.kind if memory.kind in ("dram", "edram") else "sram"]["source"])


def _weight_bits(chip: Chip) -> Metric:
    if not chip.capabilities.wload:
        return Metric(
            "weight_bits", 0.0, "J", "modelled", "never counted: weights are programmed before the program runs"
        )
    write = chip.cell.write
    if write is not None and write.energy is not None:
        joules = write.energy / ceil(write.pulses or 1) / chip.array.bits_per_cell
        note = (
            f"one of the pulses that the cell takes; cell {chip.cell.name}: {chip.cell.sources.get('write', 'write')}"
        )
        return Metric("weight_bits", joules, "J", "modelled", note)
    size = chip.array.rows * chip.array.cols * chip.macro.weights.slices * chip.array.bits_per_cell / 8
    joules = sram_access(size, chip.technology) / 8 * facts()["memory_write"]["ratio"]
    return Metric(
        "weight_bits", joules, "J", "modelled", f"an SRAM write of the macro's size; {facts()['sram']['source']}"
    )


def _store(chip: Chip) -> Metric:
    """A byte of the weight store: an external memory, or the ram where the chip has no store."""
    store = chip.memories.get("weights", chip.memories["ram"])
    if store.kind != "flash":
        return Metric("store_read_byte", _memory_byte(chip, store), "J", "modelled", _memory_note(store))
    fact = facts()["external_memory"]
    return Metric("store_read_byte", fact["j_per_bit"] * 8, "J", "assumed", fact["source"])


def _bank(chip: Chip) -> Metric:
    if not chip.capabilities.gemv:
        return Metric("bank_read_byte", 0.0, "J", "modelled", "never counted: no memory of this chip multiplies")
    fact = facts()["memory_bank"]
    return Metric("bank_read_byte", fact["j_per_bit"] * 8, "J", "assumed", fact["source"])


def _control(chip: Chip) -> Metric:
    fact, register = facts()["control"], facts()["register"]
    fetch = COMMAND_BYTES * sram_access(chip.core.sram or chip.memories["ram"].size, chip.technology)
    decode = fact["register_bits"] * register["energy_pj"] * PJ * scaled(register, chip)
    return Metric("control", fetch + decode, "J", "assumed", fact["source"])


def scaled(fact: Mapping[str, Any], chip: Chip) -> float:
    """Energy of logic in the chip's process over that where a fact of the component table holds."""
    process = chip.technology
    return energy_scale(process.node, process.supply, from_node=fact["node_nm"] * NM, from_supply=fact["supply"])
