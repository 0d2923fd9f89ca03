"""Setup: commands at the start of a section that set its core up once; runs follow one another behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from insitu.isa.program import Command, Program, Section

SETUP = ("WMODE", "CAL", "LUTLD")
OFFSETS, DRIFT = 1, 2  # procedures of a CAL: measured column offsets are subtracted; outputs make up for drift
COLUMNS, COLUMNS_AGAIN = 3, 4  # gain and offset of each column are trimmed, as programmed; as they are when used
PROCEDURES = {  # as the chip's calibration names them
    OFFSETS: "column_offset", DRIFT: "drift_compensation", COLUMNS: "column_gain", COLUMNS_AGAIN: "column_drift",
}  # fmt: skip
MEASURED = (COLUMNS, COLUMNS_AGAIN)  # those that play many inputs, and each several times
LOOKED_UP = ("LUT", "SOFTMAX")  # commands that need a table in the vector unit


def setup_length(code: Sequence[Command]) -> int:
    """How many commands at the start of a section's code set its core up."""
    return next((i for i, command in enumerate(code) if command.op not in SETUP), len(code))


def setup_only(program: Program) -> Program:
    """The program that sets the cores up and does nothing else."""
    halt = (Command("HALT"),)
    sections = (replace(s, code=s.code[: setup_length(s.code)] + halt) for s in program.sections)
    return replace(program, sections=tuple(sections))


def calibrated(section: Section, binding: int) -> frozenset[int]:
    """The procedures by which the columns of a binding are calibrated."""
    return frozenset(int(c.args[1]) for c in section.code if c.op == "CAL" and c.args[0] == binding)


def memory_macros(section: Section) -> frozenset[int]:
    """Macros of the section's core whose cells serve as memory."""
    modes = {int(c.args[0]): int(c.args[1]) for c in section.code if c.op == "WMODE"}
    return frozenset(macro for macro, memory in modes.items() if memory)


def macro_bytes(chip: Mapping[str, Any]) -> int:
    """Bytes that the cells of one macro hold; 0 where the chip's description does not say."""
    array, macro = chip.get("array", {}), chip.get("macro", {})
    try:
        cells = int(array["rows"]) * int(macro.get("arrays", 1)) * int(array["cols"])
        return cells * int(macro["weights"]["slices"]) * int(array["bits_per_cell"]) // 8
    except (KeyError, TypeError, ValueError):
        return 0


def table_places(chip: Mapping[str, Any]) -> int:
    """Tables that a vector unit holds; 0 where the chip does not say: then they are not loaded, and always there."""
    vector = chip.get("core", {}).get("vector", {})
    return int(vector.get("luts", 0) or 0)


def verified(chip: Mapping[str, Any]) -> bool:
    """Whether the chip's cells take pulses and reads in turn until they hold their level, while the program runs."""
    cell = chip.get("cell")
    write = cell.get("write") if isinstance(cell, Mapping) else None
    return isinstance(write, Mapping) and write.get("pulses") is not None and write.get("time") is not None
