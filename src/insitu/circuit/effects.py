"""Which physical effects are on: the hooks by name, in the order in which a signal meets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from insitu.base.errors import UsageError, did_you_mean
from insitu.circuit.spec import Calibration, MacroChip
from insitu.device.laws import acceleration

MOST_BITS = 16  # of a converter whose codes each have an error of their own
EFFECTS: Mapping[str, Callable[[MacroChip], bool]] = {
    "programming_noise": lambda chip: chip.cell.programming is not None or chip.cell.law is not None,
    "stuck_cells": lambda chip: chip.cell.stuck is not None,
    "drift": lambda chip: chip.cell.drifts,
    "retention": lambda chip: chip.cell.retention is not None,
    "temperature": lambda chip: chip.cell.moves and chip.cell.activation is not None,
    "column_gain": lambda chip: chip.physics.column_gain is not None,
    "column_offset": lambda chip: chip.physics.column_offset is not None,
    "ir_drop": lambda chip: chip.physics.wires is not None and chip.cell.conductance is not None,
    "dac_nonlinearity": lambda chip: chip.physics.dac is not None,
    "read_noise": lambda chip: chip.cell.read_sd > 0 or chip.cell.noisy_law,
    "thermal_noise": lambda chip: chip.cell.noise is not None and chip.cell.noise.thermal and chip.cell.conducts,
    "shot_noise": lambda chip: chip.cell.noise is not None and chip.cell.noise.shot and chip.cell.conducts,
    "flicker_noise": lambda chip: chip.cell.noise is not None and chip.cell.noise.flicker > 0 and chip.cell.conducts,
    "telegraph_noise": lambda chip: (
        chip.cell.noise is not None and chip.cell.noise.telegraph is not None and chip.cell.conducts
    ),
    "adc_noise": lambda chip: chip.physics.adc_noise is not None,
    "adc_offset": lambda chip: chip.physics.adc is not None and chip.physics.adc.offset > 0,
    "adc_gain": lambda chip: chip.physics.adc is not None and chip.physics.adc.gain > 0,
    "adc_inl": lambda chip: (
        chip.physics.adc is not None
        and chip.physics.adc.inl + chip.physics.adc.dnl > 0
        and chip.macro.readout.bits <= MOST_BITS
    ),
}
CELL_EFFECTS = ("programming_noise", "stuck_cells", "drift", "retention", "ir_drop", "dac_nonlinearity")
LEVEL_NOISE = ("thermal_noise", "shot_noise", "flicker_noise", "telegraph_noise")


@dataclass(frozen=True)
class Physics:
    """The effects that are on, in hook order, whether the chip's own procedures correct them, and when it is read.

    `time` is in seconds after programming, for drift, retention and 1/f noise.  `temperature` is that of the cells in
    kelvin; None is what the chip's file says.
    """

    effects: tuple[str, ...] = ()
    calibrated: bool = True
    time: float = 0.0
    temperature: float | None = None
    skipped: frozenset[str] = frozenset()  # of the chip's procedures, those that nothing asked for

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

    @property
    def moves(self) -> bool:
        """Whether levels change with time."""
        return self.has("drift") or self.has("retention")

    def kelvin(self, chip: MacroChip) -> float:
        """Temperature of the cells."""
        return chip.technology.temperature if self.temperature is None else self.temperature

    def age(self, chip: MacroChip) -> float:
        """Seconds of drift and retention at 300 K, where their constants were measured: heat makes them more."""
        if not self.moves:
            return 0.0
        activation = chip.cell.activation if self.has("temperature") else None
        return self.time * (acceleration(self.kelvin(chip), activation=activation) if activation else 1.0)

    def calibration(self, chip: MacroChip) -> Calibration:
        """The chip's procedures less those that were skipped, or none of them."""
        own = chip.calibration if self.calibrated else Calibration()
        return own.model_copy(update=dict.fromkeys(self.skipped, False)) if self.skipped else own

    def __str__(self) -> str:
        return ",".join(self.effects) or "ideal"


def chip_effects(chip: MacroChip) -> tuple[str, ...]:
    """The effects a chip has constants for, in hook order; a digital chip has none."""
    return tuple(name for name, known in EFFECTS.items() if known(chip))


def missing_effects(chip: MacroChip) -> tuple[str, ...]:
    """The effects a chip has no constants for: "full" leaves them out."""
    return tuple(name for name in EFFECTS if name not in chip_effects(chip))


def _check(word: str, chip: MacroChip) -> None:
    known = ("ideal", "full", *EFFECTS)
    if word not in known:
        raise UsageError(f"physics {word!r}", "unknown", f"one of {', '.join(known)}", try_=did_you_mean(word, known))
    if word in ("ideal", "full"):
        raise UsageError(f"physics {word!r}", "beside other names", f"{word} alone, or a list of effects")
    if word not in chip_effects(chip):
        has = ", ".join(chip_effects(chip)) or "no analog effects"
        raise UsageError(f"physics {word!r}", f"{chip.name} has no such effect", f"ideal, full, or one it has ({has})")
