"""Which physical effects are on: the hooks by name, in the order in which a signal meets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from insitu.base.errors import UsageError, did_you_mean
from insitu.circuit.spec import Calibration, MacroChip
from insitu.device.laws import acceleration

EFFECTS: Mapping[str, Callable[[MacroChip], bool]] = {
    "programming_noise": lambda chip: chip.cell.programming is not None or chip.cell.law is not None,
    "stuck_cells": lambda chip: chip.cell.stuck is not None,
    "drift": lambda chip: chip.cell.moves,
    "temperature": lambda chip: chip.cell.moves and chip.cell.activation is not None,
    "column_gain": lambda chip: chip.physics.column_gain is not None,
    "column_offset": lambda chip: chip.physics.column_offset is not None,
    "ir_drop": lambda chip: chip.physics.wires is not None and chip.cell.conductance is not None,
    "read_noise": lambda chip: chip.cell.read_sd > 0,
    "adc_noise": lambda chip: chip.physics.adc_noise is not None,
}
NOT_YET = ("retention", "dac_nonlinearity", "adc_inl")


@dataclass(frozen=True)
class Physics:
    """The effects that are on, in hook order, whether the chip's own procedures correct them, and when it is read.

    `time` is in seconds after programming; drift needs it, nothing else does.
    """

    effects: tuple[str, ...] = ()
    calibrated: bool = True
    time: float = 0.0

    @classmethod
    def parse(cls, text: str, chip: MacroChip, *, calibrated: bool = True, time: float = 0.0) -> Physics:
        """Read "ideal", "full" or names of effects with commas; "full" is all that the chip has."""
        words = [word.strip() for word in text.split(",") if word.strip()]
        if words == ["ideal"]:
            return cls((), calibrated, time)
        if words == ["full"]:
            return cls(chip_effects(chip), calibrated, time)
        for word in words or [text]:
            _check(word, chip)
        return cls(tuple(name for name in EFFECTS if name in words), calibrated, time)

    @property
    def ideal(self) -> bool:
        """Whether nothing is on, so that codes are the exact integers."""
        return not self.effects

    def has(self, effect: str) -> bool:
        """Whether an effect is on."""
        return effect in self.effects

    def after(self, seconds: float) -> Physics:
        """The same chip, read that many seconds after programming."""
        return replace(self, time=seconds)

    def age(self, chip: MacroChip) -> float:
        """Seconds of drift at the chip's reference temperature: heat makes them more."""
        if not self.has("drift"):
            return 0.0
        activation = chip.cell.activation if self.has("temperature") else None
        return self.time * (acceleration(chip.technology.temperature, activation=activation) if activation else 1.0)

    def calibration(self, chip: MacroChip) -> Calibration:
        """The chip's procedures, or none of them."""
        return chip.calibration if self.calibrated else Calibration()

    def __str__(self) -> str:
        return ",".join(self.effects) or "ideal"


def chip_effects(chip: MacroChip) -> tuple[str, ...]:
    """The effects a chip has constants for, in hook order; a digital chip has none."""
    return tuple(name for name, known in EFFECTS.items() if known(chip))


def _check(word: str, chip: MacroChip) -> None:
    known = ("ideal", "full", *EFFECTS)
    if word in NOT_YET:
        raise UsageError(f"physics {word!r}", "not modelled yet", f"one of {', '.join(known)}")
    if word not in known:
        raise UsageError(f"physics {word!r}", "unknown", f"one of {', '.join(known)}", try_=did_you_mean(word, known))
    if word in ("ideal", "full"):
        raise UsageError(f"physics {word!r}", "beside other names", f"{word} alone, or a list of effects")
    if word not in chip_effects(chip):
        has = ", ".join(chip_effects(chip)) or "no analog effects"
        raise UsageError(f"physics {word!r}", f"{chip.name} has no such effect", f"ideal, full, or one it has ({has})")
