"""Static check of commands that follow run-time values (P), and of weights that lie in memory banks (G)."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from insitu.isa.elements import element
from insitu.isa.fault import Fault, command_name
from insitu.isa.program import Command, Program, Section, chip_of_space
from insitu.isa.walk import accesses, nest

BANKS = "banks"  # the memory whose banks multiply what they hold


def data_faults(program: Program, section: Section) -> Iterator[Fault]:
    """Faults of PRED and SETD: what they read, and what they move."""
    symbols = {s.name: s for s in program.symbols}
    for index, command, _ in nest(section.code):
        if command.op not in ("PRED", "SETD"):
            continue
        where = command_name(section, index, command)
        read = section.descriptors[int(command.args[command.op == "SETD"])]
        kind = element(symbols[read.symbol].dtype)
        if kind is None or not kind.integer or any(n != 1 for n in read.sizes):
            yield Fault("P3", where, f"{list(read.sizes)} of {symbols[read.symbol].dtype}")
        if command.op == "SETD" and int(command.args[2]) >= len(section.descriptors[int(command.args[0])].strides):
            yield Fault("P4", where, f"dimension {command.args[2]} of d{command.args[0]}")


def bank_bindings(section: Section) -> frozenset[int]:
    """Bindings of matrices in memory banks: GEMV uses them and no array does."""
    used = {int(c.args[3]) for c in section.code if c.op == "GEMV"}
    used -= {int(c.args[2]) for c in section.code if c.op == "MVM"}
    return frozenset(used - {int(c.args[0]) for c in section.code if c.op == "WLOAD"})


def bank_faults(program: Program) -> Iterator[Fault]:
    """Faults of GEMV and of whatever else touches the banks."""
    symbols = {s.name: s for s in program.symbols}
    for section in program.sections:
        seen: set[Command] = set()
        for index, command, _ in nest(section.code):
            if command in seen:
                continue
            seen.add(command)
            where = command_name(section, index, command)
            if command.op == "GEMV":
                yield from _matrix_faults(program, section, command, where)
            for access in accesses(section, command):
                symbol = symbols[section.descriptors[access.descriptor].symbol]
                banks = chip_of_space(symbol.space)[0] == BANKS
                if banks and (command.op, access.operand) != ("GEMV", "weights"):
                    yield Fault("G2", where, f"{access.operand} is {symbol.name} in {symbol.space}")


def _matrix_faults(program: Program, section: Section, command: Command, where: str) -> Iterator[Fault]:
    held, binding = section.descriptors[int(command.args[2])], section.bindings[int(command.args[3])]
    symbol = program.symbol(held.symbol)
    rows, cols = binding.rows, binding.cols
    whole = (held.offset, held.sizes, held.strides, any(held.steps)) == (0, (rows, cols), (cols, 1), False)
    if not whole or symbol.count != prod((rows, cols)):
        got = f"+{held.offset} {list(held.sizes)} : {list(held.strides)} of {symbol.count} elements"
        yield Fault("G1", where, f"{got} for [{rows}, {cols}]")
    elif chip_of_space(symbol.space)[0] != BANKS or symbol.weight != binding.weight:
        yield Fault("G1", where, f"{symbol.name} in {symbol.space}, filled with {symbol.weight!r}")
    elif binding.tiles or binding.readout.kind != "exact":
        yield Fault("G1", where, f"{len(binding.tiles)} tiles, readout {binding.readout.kind}")
