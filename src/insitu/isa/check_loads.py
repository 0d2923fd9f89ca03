"""Static check of weights that are loaded while a program runs: there before they are read, not written over since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from insitu.base.errors import ConfigError
from insitu.base.units import parse_quantity
from insitu.isa.fault import Fault, command_name
from insitu.isa.loads import Loads
from insitu.isa.program import Binding, Program, Section
from insitu.isa.setup import verified
from insitu.isa.walk import nest

STORE = "weights"  # the memory that weights come from
READ = {"MVM": 2, "CAL": 0}  # commands that read a binding's cells, and which operand names it


def load_faults(program: Program) -> Iterator[Fault]:
    """Faults of WLOAD and of what is read of it (W)."""
    size = 0
    for section in program.sections:
        loads = Loads.of(section, verifies=verified(program.chip))
        if loads.chosen or any(c.op == "WVERIFY" for c in section.code):
            size += sum(weight_bytes(program.chip, section.bindings[i]) for i in loads.chosen)
            yield from _section_faults(section, loads)
    room = _room(program.chip)
    if room is not None and size > room:
        yield Fault("W1", f"memory {STORE}", f"{size} bytes of {room:.0f}")


def _section_faults(section: Section, loads: Loads) -> Iterator[Fault]:
    for index, command, trips in nest(section.code):
        if command.op == "WLOAD":
            if trips:
                yield Fault("W1", command_name(section, index, command), f"inside {len(trips)} loops")
            loads.load(int(command.args[0]))
        elif command.op == "WVERIFY":
            where = command_name(section, index, command)
            if trips:
                yield Fault("W3", where, f"inside {len(trips)} loops")
            if not loads.verify(int(command.args[0])):
                yield Fault("W3", where, "no WLOAD before, or written over")
        elif command.op in READ and not loads.readable(number := int(command.args[READ[command.op]])):
            where = command_name(section, index, command)
            name = f"binding {number} ({section.bindings[number].label})"
            if number in loads.written:
                yield Fault("W3", where, f"{name} not verified")
            else:
                yield Fault("W2", where, f"{name} not loaded, or written over")


def weight_bytes(chip: Mapping[str, Any], binding: Binding) -> int:
    """Bytes of a binding's weights in the store."""
    slices, bits = _at(chip, "macro", "weights", "slices"), _at(chip, "array", "bits_per_cell")
    return -(-binding.rows * binding.cols * (slices * bits if slices and bits else 8) // 8)


def _room(chip: Mapping[str, Any]) -> float | None:
    """The size of the weight store; none where the chip's description has none."""
    try:
        return parse_quantity(chip["memories"][STORE]["size"], "B")
    except (KeyError, TypeError, ConfigError):
        return None


def _at(chip: Mapping[str, Any], *path: str) -> int:
    value: Any = chip
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return int(value) if value else 0
