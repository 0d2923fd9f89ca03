"""Energy and area of converters by kind: what one conversion does, summed over comparators, capacitors and counters.

Functions of arrays.  None is fitted to a macro: `macro.costs: components` prices converters with them, and their areas
are those of chips that name a kind.  Times: circuit/times.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from insitu.circuit.facts import FF, NM, UM2, facts, gate_energy, scaled_pitch, square
from insitu.circuit.times import Converter


def decision_energy(node: Any, supply: Any) -> Any:
    """Joules of one comparison of a clocked comparator, which is also one read of a sense amplifier."""
    return _comparator("decision_pj", node, supply)


def conversion_energy(bits: Any, node: Any, supply: Any, converter: Converter) -> Any:
    """Joules of one conversion to `bits`."""
    codes, bits = 2.0 ** np.asarray(bits, float), np.asarray(bits, float)
    fact, decision = facts()["converter"], decision_energy(node, supply)
    control = _comparator("control_pj", node, supply)
    match converter:
        case "sar":
            array = fact["sar_switching"] * codes * fact["unit_ff"] * FF * np.square(supply)
            return bits * (decision + control) + array
        case "flash":
            return (codes - 1.0) * decision + bits * control
        case "ramp":
            return fact["mean_code"] * codes * decision + bits * control
        case "cco":
            cycle = fact["oscillator_gates"] * gate_energy(node, supply) + fact["counter_bits"] * control
            return fact["mean_code"] * codes * cycle + bits * control


def converter_area(bits: Any, node: Any, converter: Converter) -> Any:
    """Square metres of one converter; a ramp itself is shared by so many columns that it is not counted."""
    fact, compare = facts()["converter"], facts()["comparator"]
    codes, bits = 2.0 ** np.asarray(bits, float), np.asarray(bits, float)
    comparator = compare["area_um2"] * UM2 * square(node, compare["area_node_nm"])
    register = facts()["register"]
    latches = bits * register["area_um2"] * UM2 * square(node, register["node_nm"])
    match converter:
        case "sar":
            return comparator + latches + codes * fact["unit_um2"] * UM2
        case "flash":
            return (codes - 1.0) * comparator + latches
        case "ramp":
            return comparator + latches
        case "cco":
            gate = facts()["gate"]
            return fact["oscillator_gates"] * gate["area_um2"] * UM2 * square(node, gate["node_nm"]) + latches


def _comparator(key: str, node: Any, supply: Any) -> Any:
    fact = facts()["comparator"]
    return fact[key] * 1e-12 * scaled_pitch(node, fact["node_nm"] * NM) * np.square(supply / fact["supply"])
