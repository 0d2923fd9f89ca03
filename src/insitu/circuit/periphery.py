"""What stands around an array: row drivers, decoders, lines, sample-and-hold, adder trees.  Functions of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from insitu.circuit.facts import FJ, NM, UM2, facts, gate_energy, gate_load, scaled_pitch, square


def line_energy(cells: Any, node: Any, supply: Any) -> Any:
    """Joules of a wordline or bitline over `cells` that goes through the whole supply: its gates and its wire."""
    return np.asarray(cells, float) * gate_load(node) * np.square(supply)


def decoder_energy(rows: Any, node: Any, supply: Any) -> Any:
    """Joules of selecting one of `rows`: a stage of gates a bit of the address."""
    return _address_bits(rows) * gate_energy(node, supply)


def decoder_area(rows: Any, node: Any) -> Any:
    """Square metres: a gate of as many inputs as the address has bits at each row."""
    gate = facts()["gate"]
    return np.asarray(rows, float) * _address_bits(rows) * gate["area_um2"] * UM2 * square(node, gate["node_nm"])


def driver_area(rows: Any, bits: Any, node: Any) -> Any:
    """Square metres of the drivers of `rows`, converters of `bits` each: twice as large for each bit."""
    fact = facts()["row_driver"]
    return (
        np.asarray(rows, float) * fact["area_um2"] * UM2 * 2.0 ** (np.asarray(bits) - 1) * square(node, fact["node_nm"])
    )


def hold_energy(node: Any, supply: Any) -> Any:
    """Joules of holding one column for its converter."""
    fact = facts()["sample_hold"]
    return fact["energy_fj"] * FJ * scaled_pitch(node, fact["node_nm"] * NM) * np.square(supply / fact["supply"])


def hold_area(node: Any) -> Any:
    """Square metres of one sample-and-hold."""
    fact = facts()["sample_hold"]
    return fact["area_um2"] * UM2 * square(node, fact["node_nm"])


def adder_energy(bits: Any, node: Any, supply: Any) -> Any:
    """Joules that one product of `bits` adds in a tree: as many full adders as it is wide, one more for the carry."""
    gates = facts()["gate"]["full_adder_gates"] * (np.asarray(bits, float) + 1.0)
    return facts()["wire"]["transitions"] * gates * gate_energy(node, supply)


def periphery_area(rows: Any, bitlines: Any, input_bits: Any, node: Any) -> Any:
    """Square metres of what drives an array's rows and holds its columns."""
    held = np.asarray(bitlines, float) * hold_area(node)
    return driver_area(rows, input_bits, node) + decoder_area(rows, node) + held


def _address_bits(rows: Any) -> Any:
    return np.ceil(np.log2(np.maximum(np.asarray(rows, float), 2.0)))
