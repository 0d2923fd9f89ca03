"""Chip instances of a loaded program: same code and weights, other cells."""

from __future__ import annotations

from insitu.arch.spec import Chip
from insitu.circuit.effects import Physics
from insitu.runtime.session import Session


def instance_session(session: Session, effects: Physics, *, instance: int, seed: int) -> Session:
    """A session on one chip instance."""
    return Session(session.program, physics=effects, instance=instance, seed=seed, graph=session.graph)


def describe(effects: Physics, chip: Chip) -> str:
    """Which effects and procedures were on, in one line."""
    if effects.ideal:
        return "ideal: the chip has no analog effects" if chip.macro.readout.kind == "exact" else "ideal"
    own = effects.calibration(chip)
    offsets = "removed" if own.column_offset else "kept"
    procedures = f"refine passes {own.refine_passes}, reads averaged {own.reads}, column offsets {offsets}"
    return f"{', '.join(effects.effects).replace('_', ' ')}; {procedures}"
