"""What heat does to a circuit at rest."""

from __future__ import annotations

from insitu.circuit.facts import facts

REFERENCE = 300.0  # kelvin at which constants of leakage and drift hold


def leakage_factor(temperature: float) -> float:
    """Leakage at a temperature (kelvin) over leakage at 300 K."""
    return float(2.0 ** ((temperature - REFERENCE) / facts()["thermal"]["leakage_doubling_k"]))
