"""What the commands do that write arrays and set a core up: no memory changes, but what may be read then does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from insitu.base.errors import ProgramError
from insitu.isa.program import Command
from insitu.isa.semantics_machine import Machine, Named, operand_of


def _load(machine: Machine, command: Command, _: Named) -> None:
    machine.loads.load(operand_of(command, "binding"))


def _verify(machine: Machine, command: Command, _: Named) -> None:
    binding = machine.binding(command)
    if not machine.loads.verify(operand_of(command, "binding")):
        raise ProgramError(binding.label, "no weights to verify, or written over", "a WLOAD before the WVERIFY")


def _calibrate(machine: Machine, command: Command, _: Named) -> None:
    """Correct what an ideal array has not; its weights must be there."""
    machine.need_weights(operand_of(command, "binding"))


def _load_table(machine: Machine, command: Command, _: Named) -> None:
    """The place holds this table now, and no other."""
    place = operand_of(command, "place")
    if place >= machine.places:
        raise ProgramError("vector unit", f"place {place}", f"below {machine.places}")
    machine.tables[place] = machine.vector(command).lut


def _as_ideal(_machine: Machine, _command: Command, _named: Named) -> None:
    """Memory in arrays holds what memory holds."""


SET_UP: Mapping[str, Callable[[Machine, Command, Named], None]] = {
    "WLOAD": _load, "WVERIFY": _verify, "WMODE": _as_ideal, "CAL": _calibrate, "LUTLD": _load_table,
}  # fmt: skip
