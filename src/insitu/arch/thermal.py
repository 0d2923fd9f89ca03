"""Heat: power density to junction temperature, and what that does to leakage and to drift."""

from __future__ import annotations

from insitu.arch.spec import Chip
from insitu.circuit.facts import MM2, facts

REFERENCE = 300.0  # kelvin at which constants of leakage and drift hold


def junction(square_metres: float, watts: float) -> float:
    """Kelvin of the junction at a power: ambient and what the package, or a heat sink as large as the die, adds."""
    fact = facts()["thermal"]
    sink = fact["sink_k_mm2_per_w"] / (square_metres / MM2)
    return float(fact["ambient_k"] + min(fact["package_k_per_w"], sink) * watts)


def leakage_factor(temperature: float) -> float:
    """Leakage at a temperature (kelvin) over leakage at 300 K."""
    return float(2.0 ** ((temperature - REFERENCE) / facts()["thermal"]["leakage_doubling_k"]))


def heated(chip: Chip, square_metres: float, watts: float) -> Chip:
    """The chip at the junction temperature that a power gives: it leaks more, and cells that drift do so faster."""
    hot = {"temperature": max(chip.technology.temperature, junction(square_metres, watts))}
    return chip.model_copy(update={"technology": chip.technology.model_copy(update=hot)})
