"""Static check of what sets a core up (U): modes of arrays, calibration, and tables of the vector unit."""

from __future__ import annotations

from collections.abc import Iterator

from insitu.isa.fault import Fault, command_name
from insitu.isa.program import Command, Program, Section
from insitu.isa.setup import LOOKED_UP, MEASURED, PROCEDURES, SETUP, memory_macros, setup_length, table_places
from insitu.isa.walk import nest


def setup_faults(program: Program) -> Iterator[Fault]:
    """Faults of WMODE, CAL and LUTLD, and of tables that are not there when they are used."""
    places = table_places(program.chip)
    macros = int(program.chip.get("core", {}).get("macros", 0))
    for section in program.sections:
        if not any(c.op in (*SETUP, *LOOKED_UP) for c in section.code):
            continue
        yield from _place_faults(program, section)
        yield from _mode_faults(section, macros)
        yield from _load_faults(section, places)
        if places:
            yield from _table_faults(section)


def _place_faults(program: Program, section: Section) -> Iterator[Fault]:
    first = setup_length(section.code)
    for index, command in enumerate(section.code):
        where = command_name(section, index, command)
        if command.op == "WMODE" and index >= first:
            yield Fault("U1", where, f"behind {section.code[first].op}")
        if command.op == "CAL" and command.args[1] not in PROCEDURES:
            yield Fault("U1", where, f"procedure {command.args[1]}")
        if command.op == "CAL" and command.args[1] in MEASURED and not _plays(program, section, int(command.args[0])):
            yield Fault("U1", where, f"procedure {command.args[1]} of a binding that has no inputs to play")


def _plays(program: Program, section: Section, binding: int) -> bool:
    """Whether a binding has inputs to play behind its mean."""
    known = section.bindings[binding].expected if binding < len(section.bindings) else ""
    shape = program.weights[known].shape if known in program.weights else ()
    return len(shape) == 2 and shape[0] > 1


def _mode_faults(section: Section, macros: int) -> Iterator[Fault]:
    used = memory_macros(section)
    for index, command in enumerate(section.code):
        if command.op == "WMODE" and macros and int(command.args[0]) >= macros:
            yield Fault("U4", command_name(section, index, command), f"macro {command.args[0]} of {macros}")
    for number, binding in enumerate(section.bindings):
        held = sorted({t.macro for t in binding.tiles} & used)
        if held:
            where = f"chip {section.chip} core {section.core} b{number} ({binding.label})"
            yield Fault("U4", where, f"in macro {held[0]}, which serves as memory")


def _load_faults(section: Section, places: int) -> Iterator[Fault]:
    for index, command, trips in nest(section.code):
        where = command_name(section, index, command)
        if command.op == "CAL" and trips:
            yield Fault("U1", where, f"inside {len(trips)} loops")
        if command.op != "LUTLD":
            continue
        if trips:
            yield Fault("U2", where, f"inside {len(trips)} loops")
        if not section.vectors[int(command.args[0])].lut:
            yield Fault("U2", where, "settings without a table")
        if int(command.args[1]) >= places:
            yield Fault("U2", where, f"place {command.args[1]} of {places}")


def _table_faults(section: Section) -> Iterator[Fault]:
    """Tables are followed through two runs: the second starts with what the first one left."""
    held: dict[int, str] = {}
    found: dict[int, Fault] = {}
    first = setup_length(section.code)
    for start in (0, first):
        for index, command, _ in nest(section.code):
            if command.op == "LUTLD" and index >= start:
                held[int(command.args[1])] = section.vectors[int(command.args[0])].lut
            elif command.op in LOOKED_UP and _table(section, command) not in held.values():
                where = command_name(section, index, command)
                found.setdefault(index, Fault("U3", where, f"table {_table(section, command)!r} is not there"))
    yield from found.values()


def _table(section: Section, command: Command) -> str:
    """The table a LUT or SOFTMAX looks up."""
    return section.vectors[int(command.args[2])].lut
