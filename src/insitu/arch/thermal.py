"""How warm the cells get: power over the die and its package; it feeds drift, retention and thermal noise."""

from __future__ import annotations

from insitu.arch.cost import area, awake, host_idle, leakage, peak_power, source_of
from insitu.arch.spec import Chip
from insitu.base.metrics import Metric

HOTTEST = 398.0  # kelvin, 125 C: the usual end of a process's qualified range


def junction(chip: Chip, watts: float | None) -> Metric:
    """Kelvin of the cells when the chip takes `watts`: technology.temperature + package.resistance x watts.

    Held at HOTTEST, with a note: a chip that would be hotter needs a better package.
    """
    around, resistance = chip.technology.temperature, chip.package.resistance
    if watts is None:
        return Metric("junction_k", None, "K", "modelled", "the power is not known")
    source = source_of(chip, "package.resistance") or "assumption: a small package on a board, no heat sink"
    note = f"{around:g} K around it + {resistance:g} K/W ({source}) x {watts:.3g} W"
    hot = around + resistance * watts
    if hot > HOTTEST >= around:
        note += f"; held at {HOTTEST:g} K: it needs a package of {(HOTTEST - around) / watts:.2g} K/W or better"
        hot = HOTTEST
    return Metric("junction_k", hot, "K", "modelled", note)


def power_density(chip: Chip, watts: float) -> float | None:
    """Watts per square metre of the die; None where its area is not known."""
    size = area(chip).value
    return watts / size if size else None


def peak_parts(chip: Chip) -> dict[str, Metric]:
    """Watts at the peak rate by what takes them: macros, blocks beside them, what is awake, and what flows at rest."""
    return {**peak_power(chip), **{part.name: part for part in (leakage(chip), host_idle(chip), awake(chip))}}


def peak_watts(chip: Chip) -> float:
    """The sum of `peak_parts`."""
    return sum(part.value or 0.0 for part in peak_parts(chip).values())


def heated(chip: Chip, watts: float) -> Chip:
    """The chip at the temperature that a power gives its cells: it leaks more, and cells that drift do so faster."""
    hot = {"temperature": junction(chip, watts).value or chip.technology.temperature}
    return chip.model_copy(update={"technology": chip.technology.model_copy(update=hot)})
