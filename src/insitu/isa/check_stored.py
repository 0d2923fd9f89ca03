"""Static check of products whose second operand is written into arrays (X7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from insitu.isa.elements import element
from insitu.isa.fault import Fault, command_name
from insitu.isa.program import Program, Section, Symbol
from insitu.isa.walk import nest


def stored_faults(program: Program) -> Iterator[Fault]:
    """Faults of AMM: where its second operand goes, and whether cells and drivers take the codes."""
    symbols = {s.name: s for s in program.symbols}
    for section in program.sections:
        if any(c.op == "AMM" for c in section.code):
            yield from _section_faults(program.chip, section, symbols)


def _section_faults(chip: Mapping[str, Any], section: Section, symbols: Mapping[str, Symbol]) -> Iterator[Fault]:
    most = int(chip.get("core", {}).get("macros", 0))
    kind = chip.get("macro", {}).get("readout", {}).get("kind", "exact")
    low, high = chip.get("array", {}).get("cell_range", (-(1 << 31), 1 << 31))
    bound = {tile.macro for binding in section.bindings for tile in binding.tiles}
    for index, command, _ in nest(section.code):
        if command.op != "AMM":
            continue
        where, settings = command_name(section, index, command), section.vectors[int(command.args[3])]
        first, count = settings.macros if len(settings.macros) == 2 else (0, 0)
        taken = sorted(bound & set(range(first, first + count)))
        if count < 1 or first < 0 or (most and first + count > most):
            yield Fault("X7", where, f"macros {settings.macros} of {most}")
        elif taken:
            yield Fault("X7", where, f"macro {taken[0]}, which holds weights")
        if kind != "exact":
            yield Fault("X7", where, f"readout {kind}")
        a, b = (element(symbols[section.descriptors[int(i)].symbol].dtype) for i in command.args[1:3])
        if a is None or b is None or not (a.integer and b.integer and low <= b.lo and b.hi <= high):
            yield Fault("X7", where, f"second operand {b.name if b else 'unknown'} in cells {low}..{high}")
        elif not 1 <= settings.bits <= a.bits:
            yield Fault("X7", where, f"{settings.bits} bits of elements of {a.bits}")
