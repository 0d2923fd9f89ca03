"""A macro's energies summed over models of its components; nothing in it is fitted to a macro.

`macro.costs: components` uses it: for kinds of cell without a calibration row, and beside the fitted constants to see
what those stand for.
"""

from __future__ import annotations

from insitu.base.metrics import Metric
from insitu.circuit.converters import conversion_energy
from insitu.circuit.facts import FJ, NM, facts, gate_energy, scaled_pitch
from insitu.circuit.model import Operands
from insitu.circuit.periphery import adder_energy, hold_energy, line_energy
from insitu.circuit.spec import MacroChip


def component_energy(chip: MacroChip, drawn: float, shift_add: float, operands: Operands) -> dict[str, Metric]:
    """Joules of one `mac`, `dac`, `adc` and `shift_add`; `drawn` is the charge of one slice's read, `shift_add` one."""
    if chip.macro.readout.kind == "exact":
        return _digital(chip, operands)
    technology, macro = chip.technology, chip.macro
    kind = macro.converter or "sar"
    converter = float(conversion_energy(macro.readout.bits, technology.node, technology.supply, kind))
    lines = 2.0 * float(line_energy(1, technology.node, technology.supply))  # its share of a wordline and a bitline
    planes = macro.passes * macro.weights.slices
    cell = planes * operands.activity * (lines * macro.cells_per_slice + drawn)
    held = float(hold_energy(technology.node, technology.supply))
    return {
        "mac": _metric("mac", cell, f"lines: {facts()['wire']['source']}; charge of a read"),
        "dac": _metric("dac", driver_energy(chip), facts()["dac"]["source"]),
        "adc": _metric("adc", held + converter, f"{kind}: {facts()['converter']['source']}"),
        "shift_add": _metric("shift_add", shift_add, facts()["shift_add"]["source"]),
    }


def driver_energy(chip: MacroChip) -> float:
    """Joules of one row's converter for one code: none where bits are applied one at a time."""
    fact, technology, given = facts()["dac"], chip.technology, chip.macro.input
    bits = given.bits if given.bits_per_pass > 1 else 0
    return (
        fact["linear_fj"]
        * bits
        * technology.supply**2
        * FJ
        * float(scaled_pitch(technology.node, fact["node_nm"] * NM))
    )


def _digital(chip: MacroChip, operands: Operands) -> dict[str, Metric]:
    """A gate a bit product, and its share of the tree."""
    technology, width = chip.technology, chip.macro.weights.slices * chip.array.bits_per_cell
    product = width * float(gate_energy(technology.node, technology.supply))
    tree = float(adder_energy(width, technology.node, technology.supply))
    joules = chip.macro.input.bits * (product + tree) * operands.activity
    note = f"{facts()['gate']['source']}; {facts()['gate']['adder_source']}"
    return {"mac": _metric("mac", joules, note), **{n: _metric(n, 0.0, "in mac") for n in ("dac", "adc", "shift_add")}}


def _metric(name: str, joules: float, note: str) -> Metric:
    return Metric(name, joules, "J", "modelled", note)
