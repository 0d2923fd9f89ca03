"""How warm the cells are while a program runs: its mean power over the package, before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from insitu.arch.spec import Chip
from insitu.arch.thermal import junction
from insitu.base.metrics import Metric
from insitu.circuit.effects import Physics
from insitu.isa.program import Program
from insitu.sim.energy import energy
from insitu.sim.timing import simulate_time

WARM_EFFECTS = ("temperature", "thermal_noise")  # those that depend on how warm a cell is


def junction_of(program: Program, chip: Chip, *, sizes: Mapping[str, int] | None = None) -> Metric:
    """Kelvin of the cells while the program runs over and over; sizes that are not given count at their largest."""
    bound = program.bind({**program.sizes, **(sizes or {})}) if program.sizes else program
    timing = simulate_time(bound, chip)
    watts = energy(timing.counts, timing, chip, chips=program.chips).power.value
    return junction(chip, None if watts is None else watts / program.chips)


def warmed(effects: Physics, program: Program, chip: Chip, *, sizes: Mapping[str, int] | None = None) -> Physics:
    """The effects at the temperature the program gives the cells, unless one is stated or no effect depends on it."""
    if effects.temperature is not None or not any(effects.has(name) for name in WARM_EFFECTS):
        return effects
    return replace(effects, temperature=junction_of(program, chip, sizes=sizes).value)
