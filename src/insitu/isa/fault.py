"""A broken rule of the instruction set, as the static check reports it."""

from __future__ import annotations

from dataclasses import dataclass

from insitu.isa.program import Command, Section
from insitu.isa.table import table


@dataclass(frozen=True)
class Fault:
    """Which constraint of the table is broken, where, and by what."""

    rule: str
    where: str
    got: str

    def __str__(self) -> str:
        return f"{self.where}: {self.got}; needs {table().constraints[self.rule]} ({self.rule})"


def core_name(section: Section) -> str:
    """How messages name a section."""
    return f"chip {section.chip} core {section.core}"


def command_name(section: Section, index: int, command: Command) -> str:
    """How messages name a command."""
    return f"{core_name(section)} command {index} ({command.op})"
