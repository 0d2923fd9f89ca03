"""Time of one array pass in closed form: gate delays of the process times how many of them a circuit takes.

    digital   levels of the adder tree
    analog    input (its pulses, or bits of a driver) + rows that a bitline carries + conversion

A conversion takes a cycle a bit (SAR), one decision (flash), a step a code (ramp), or nothing beyond the inputs that it
counts along (oscillator).  Constants: calibrated.yaml; how far off they are: docs/design/validation.md.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from insitu.circuit.model import NM, UM, constants, pitch
from insitu.circuit.spec import MacroChip

Converter = Literal["sar", "flash", "ramp", "cco"]
LOCAL = ("sram", "gain_cell", "dram")  # kinds whose bitlines are cut into pieces of the rows that work together


def threshold(node: Any) -> Any:
    """Volts at which transistors of a process turn on; a line in log(node) between two published ones."""
    table = sorted((float(nm), volts) for nm, volts in constants()["time"]["threshold_by_node_nm"].items())
    nodes, volts = (np.array([row[i] for row in table]) for i in (0, 1))
    return np.interp(np.log(np.asarray(node, float) / NM), np.log(nodes), volts)


def fo4(node: Any, supply: Any) -> Any:
    """Seconds of an inverter that drives four: gate length from the pitch, alpha-power law in the supply."""
    time = constants()["time"]
    length = pitch(node) / pitch(65 * NM) * 65 * NM
    slow = _alpha(supply, node) / _alpha(time["reference_supply"], node)
    return time["ps_per_um"] * 1e-12 / UM * length * slow


def conversion_delays(bits: Any, converter: Converter = "sar") -> Any:
    """Gate delays of one conversion: a cycle is a decision of the comparator and its settling."""
    cycle, bits = constants()["time"]["delays_per_bit"], np.asarray(bits, float)
    match converter:
        case "flash":
            return cycle * np.ones_like(bits)
        case "ramp":
            return cycle * 2.0**bits
        case "cco":  # counts while the inputs are on
            return np.zeros_like(bits)
        case "sar":
            return cycle * bits


def input_delays(bits: Any, *, pulses: bool = False) -> Any:
    """Gate delays until a code of `bits` in one pass is applied, beyond a single bit; `pulses` are as long as codes."""
    time, bits = constants()["time"], np.asarray(bits, float)
    return time["delays_per_pulse"] * 2.0**bits if pulses else time["delays_per_input_bit"] * (bits - 1.0)


def analog_time(
    bits: Any, node: Any, supply: Any, *, rows: Any, input_bits: Any, converter: Converter = "sar", pulses: bool = False
) -> Any:
    """Seconds of a pass with its conversion: inputs of `input_bits`, `rows` on the bitline, a converter of `bits`."""
    line = constants()["time"]["delays_per_row"] * np.asarray(rows, float)
    delays = input_delays(input_bits, pulses=pulses) + line + conversion_delays(bits, converter)
    return delays * fo4(node, supply)


def digital_time(node: Any, supply: Any, *, rows: Any) -> Any:
    """Seconds of a pass through an adder tree over `rows` products."""
    levels = np.ceil(np.log2(np.maximum(np.asarray(rows, float), 2.0)))
    return constants()["time"]["delays_per_level"] * levels * fo4(node, supply)


def bitline_rows(chip: MacroChip) -> int:
    """Rows on the piece of bitline that one read moves: of conducting cells all that share it."""
    return chip.array.rows if chip.cell.kind in LOCAL else chip.array.rows * chip.macro.arrays


def pass_time(chip: MacroChip, **swept: Any) -> Any:
    """Seconds of one pass of a macro, modelled; `swept` may replace bits, node, supply and rows by arrays."""
    node, supply = swept.get("node", chip.technology.node), swept.get("supply", chip.technology.supply)
    if chip.macro.readout.kind == "exact":
        return digital_time(node, supply, rows=swept.get("rows", chip.array.rows))
    shared = bitline_rows(chip) / chip.array.rows
    return slowness(chip.cell.kind) * analog_time(
        swept.get("bits", chip.macro.readout.bits),
        node,
        supply,
        rows=swept.get("rows", chip.array.rows) * shared,
        input_bits=chip.macro.input.bits_per_pass,
        converter=chip.macro.converter or "sar",
        pulses=chip.macro.pulses,
    )


def slowness(kind: str) -> float:
    """Time of an analog pass over that of other kinds of cell."""
    return float(constants()["kinds"][kind].get("slow", 1.0))


def pass_seconds(chip: MacroChip) -> float:
    """Seconds of a pass as modelled; planes that add up in the array are settled one by one."""
    return integration_time(chip) if chip.macro.integrate else float(pass_time(chip))


def integration_time(chip: MacroChip) -> float:
    """Seconds of a pass whose column integrates it: the settling of an amplifier, once an input plane."""
    return float(constants()["time"]["delays_per_plane"] * fo4(chip.technology.node, chip.technology.supply))


def _alpha(supply: Any, node: Any) -> Any:
    """V over drive current; the overdrive goes smoothly to the exponential below threshold (EKV)."""
    time, supply = constants()["time"], np.asarray(supply, float)
    soft = time["soft_threshold"]
    over = soft * np.logaddexp(0.0, (supply - threshold(node)) / soft)
    return supply / over ** time["alpha"]
