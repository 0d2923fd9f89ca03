"""Energies, times and areas of a macro's components, from published facts scaled to its process (components.yaml)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from insitu.base.metrics import Metric, Source
from insitu.circuit.bottom_up import component_energy, driver_energy
from insitu.circuit.converters import converter_area
from insitu.circuit.facts import FJ, MM2, NM, PJ, UM2, facts
from insitu.circuit.model import Operands, cell_energy, constants, convert_energy, product_energy
from insitu.circuit.periphery import periphery_area
from insitu.circuit.spec import MacroChip, Technology

__all__ = ["MM2", "NM", "PJ", "UM2", "facts"]
WTM_FRACTION_BITS = 2  # bits below the code that the wtm2101 conversion keeps


def energy_scale(node: float, supply: float, *, from_node: float, from_supply: float) -> float:
    """Energy of a logic operation at (node, supply) over its energy at another process; nodes in metres.

    Source: Stillmaker and Baas 2017; below 7 nm and above 130 nm the end of the table holds.
    """
    return _logic_energy(node, supply) / _logic_energy(from_node, from_supply)


def area_scale(node: float, *, from_node: float) -> float:
    """Areas scale with the square of the node."""
    return (node / from_node) ** 2


def adc_energy(bits: int, technology: Technology) -> float:
    """Joules of one conversion; Sun et al. 2023."""
    adc = facts()["adc"]
    return (adc["linear_fj"] * bits + adc["exponential_fj"] * 4.0**bits) * technology.supply**2 * FJ


def adc_area(bits: int, technology: Technology) -> float:
    """Square metres of one converter; Sun et al. 2023, scaled from 28 nm."""
    adc = facts()["adc"]
    constant, per_bit = adc["area_log10_um2"]
    area = 10.0 ** (constant + per_bit * bits) * 2.0**bits * UM2
    return area * area_scale(technology.node, from_node=adc["area_node_nm"] * NM)


def adc_area_of(bits: Any, node: Any) -> Any:
    """Square metres of converters, arrays of bits and nodes; adc_area's formula."""
    fact = facts()["adc"]
    constant, per_bit = fact["area_log10_um2"]
    return 10.0 ** (constant + per_bit * bits) * 2.0**bits * UM2 * area_scale_of(node, fact["area_node_nm"] * NM)


def area_scale_of(node: Any, from_node: float) -> Any:
    """area_scale for arrays of nodes."""
    return (node / from_node) ** 2


def sram_access(size: float, technology: Technology) -> float:
    """Joules of a byte read from an SRAM of `size` bytes: a power law through the two known sizes nearest to it."""
    sram = facts()["sram"]
    points = sorted((float(kib) * 1024, pj * PJ / 8) for kib, pj in sram["access_pj_by_kib"].items())
    (s0, e0), (s1, e1) = points[:2] if size < points[1][0] else points[-2:]
    energy = e0 * (max(size, 1024.0) / s0) ** (math.log(e1 / e0) / math.log(s1 / s0))
    return energy * _scaled(sram, technology)


def sram_area(size: float, technology: Technology) -> float:
    """Square metres of an SRAM of `size` bytes."""
    sram = facts()["sram"]
    return 8.0 * size * sram["cell_f2"] * technology.node**2 / sram["array_efficiency"]


def macro_energy(chip: MacroChip, operands: Operands | None = None) -> dict[str, Metric]:
    """Joules of one `mac`, `dac`, `adc` and `shift_add` event of a macro; what the operands look like moves `mac`."""
    if chip.macro.costs == "components":
        add = facts()["shift_add"]
        each = add["energy_pj"] * PJ * _scaled(add, chip.technology)
        return component_energy(chip, float(drawn_energy(chip)), each, operands or Operands())
    if chip.macro.readout.kind == "exact":
        return _digital_energy(chip, operands or Operands())
    components, technology = facts(), chip.technology
    add = components["shift_add"]
    kind = constants()["kinds"][chip.cell.kind]
    adc = float(convert_energy(converter_bits(chip), technology.node, technology.supply, kind=chip.cell.kind))
    return {
        "mac": _cell_read(chip, operands or Operands()),
        "dac": _driver(chip),
        "adc": _modelled("adc", adc, f"sense and 2^bits of {constants()['walden']['source']}; {kind['source']}"),
        "shift_add": _modelled("shift_add", add["energy_pj"] * PJ * _scaled(add, technology), add["source"]),
    }


def macro_area(chip: MacroChip) -> Metric:
    """Square metres of one macro: cells, row drivers and decoders, sample-and-hold, converters and shift-adders."""
    cells = (
        chip.array.rows * chip.array.cols * chip.macro.arrays * chip.macro.weights.slices * chip.macro.cells_per_slice
    )
    if chip.macro.readout.kind == "exact":
        cim = facts()["digital_cim"]
        area = cells * chip.array.bits_per_cell / cim["bits_per_mm2"] * MM2
        return _area(area * area_scale(chip.technology.node, from_node=cim["node_nm"] * NM), cim["density_source"])
    add, macro, node = facts()["shift_add"], chip.macro, chip.technology.node
    adder = add["area_um2"] * UM2 * area_scale(node, from_node=add["node_nm"] * NM)
    area = cells * chip.cell.area_f2 * node**2
    area += converter_count(chip) * (one_converter_area(chip, converter_bits(chip), node) + adder)
    bitlines = chip.array.cols * macro.weights.slices
    area += float(periphery_area(chip.array.rows * macro.arrays, bitlines, macro.input.bits_per_pass, node))
    return _area(area, f"cells {chip.cell.area_f2:g} F2; {facts()['adc']['source']}; {facts()['row_driver']['source']}")


def one_converter_area(chip: MacroChip, bits: Any, node: Any) -> Any:
    """Square metres of a converter: of its kind where the chip names one, else the mean of published macros."""
    if chip.macro.converter is None:
        return adc_area_of(bits, node)
    return converter_area(bits, node, chip.macro.converter)


def converter_bits(chip: MacroChip) -> int:
    """Resolution of a converter: its codes', and the fraction that the wtm2101 readout keeps."""
    return chip.macro.readout.bits + (WTM_FRACTION_BITS if chip.macro.readout.kind == "wtm2101" else 0)


def converter_count(chip: MacroChip) -> int:
    """Converters of one macro."""
    if chip.macro.readout.kind == "exact":
        return 0
    return -(-chip.array.cols * chip.macro.weights.slices // chip.macro.columns_per_adc)


def tile_events(chip: MacroChip, *, rows: int, cols: int) -> dict[str, int]:
    """How often each macro event happens when a tile of rows x cols weights takes one input vector.

    `mac` counts weights, `dac` rows; each includes all input passes and is repeated for every averaged read.  `adc`
    counts conversions (columns x slices x passes x reads, one for a differential pair), `shift_add` the additions that
    make one result a column of them.
    """
    reads = chip.calibration.reads
    events = {"mac": rows * cols * reads, "dac": rows * reads, "adc": 0, "shift_add": 0}
    if chip.macro.readout.kind != "exact":
        conversions = cols * chip.macro.weights.slices * chip.macro.conversions * reads
        events |= {"adc": conversions, "shift_add": conversions - cols}
    return events


def _digital_energy(chip: MacroChip, operands: Operands) -> dict[str, Metric]:
    model, technology, weights = constants()["digital"], chip.technology, chip.macro.weights
    width = weights.slices * chip.array.bits_per_cell
    each = float(product_energy(technology.node, technology.supply)) * operands.factor
    note = str(model["source"])
    if chip.macro.adder == "per_cell":  # sums ripple through the cells, which are as many as a result has bits
        width += math.ceil(math.log2(chip.array.rows))
    included = {
        name: _modelled(name, 0.0, "in mac: digital macros are measured as a whole")
        for name in ("dac", "adc", "shift_add")
    }
    return {"mac": _modelled("mac", chip.macro.input.bits * width * each, note), **included}


def _cell_read(chip: MacroChip, operands: Operands) -> Metric:
    """Joules of one weight's cells: their share of drivers and lines, and the charge that a read draws."""
    technology, kind = chip.technology, constants()["kinds"][chip.cell.kind]
    planes = chip.macro.passes * chip.macro.weights.slices
    wires = float(cell_energy(technology.node, technology.supply, kind=chip.cell.kind)) * switching_cells(chip)
    drawn, note = drawn_energy(chip), _drawn_note(chip)
    energy = planes * (wires * operands.factor + kind["current"] * drawn * operands.activity)
    return _modelled("mac", energy, f"{note}; lines: {kind['source']}")


def _driver(chip: MacroChip) -> Metric:
    """Joules of one row's converter; one bit at a time needs none, its driver is in the cells' share."""
    return _modelled("dac", driver_energy(chip), facts()["dac"]["source"])


def switching_cells(chip: MacroChip) -> int:
    """Cells of one slice of one weight whose lines switch in a pass."""
    return min(chip.macro.cells_per_slice, int(constants()["kinds"][chip.cell.kind]["pair"]))


def drawn_energy(chip: MacroChip, *, supply: Any = None, t_read: Any = None) -> Any:
    """Joules that the current of one slice of one weight takes in one pass, for mean operands.

    `supply` (volts) and `t_read` (seconds), numbers or arrays, replace the chip's where the cell has none of its own.
    """
    cell, array = chip.cell, facts()["analog_array"]
    voltage = cell.read_voltage or (chip.technology.supply if supply is None else supply)
    pulse = cell.read_pulse or (chip.macro.t_read if t_read is None else t_read)
    if cell.conductance is not None:
        off, on = cell.conductance
        conductance = off + array["mean_digit"] * (on - off) + (chip.macro.cells_per_slice - 1) * off
        return conductance * voltage**2 * pulse * array["mean_bit"]
    current = (cell.read_current or 0.0) * array["mean_weight"] * array["mean_input"]
    return current * voltage * pulse


def _drawn_note(chip: MacroChip) -> str:
    cell, array = chip.cell, facts()["analog_array"]
    if cell.conductance is not None:
        return f"G V^2 t of the cell {cell.name}; {array['digit_source']}"
    if cell.read_current is None:
        return f"the cell {cell.name} draws no steady current"
    return f"I V t of the cell {cell.name} over t_read; {array['source']}"


def _scaled(fact: Mapping[str, Any], technology: Technology) -> float:
    """Energy at this process over energy where the fact holds."""
    return energy_scale(
        technology.node, technology.supply, from_node=fact["node_nm"] * NM, from_supply=fact["supply"]
    )  # fmt: skip


def _logic_energy(node: float, supply: float) -> float:
    table = {float(nm) * NM: row for nm, row in facts()["scaling"]["energy_a2_a1_a0_by_node_nm"].items()}
    nodes = sorted(table)
    node = min(max(node, nodes[0]), nodes[-1])
    upper = next(n for n in nodes if n >= node)
    lower = max((n for n in nodes if n <= node), default=upper)
    below, above = _at(table[lower], supply), _at(table[upper], supply)
    share = 0.0 if upper == lower else math.log(node / lower) / math.log(upper / lower)
    return below ** (1.0 - share) * above**share


def _at(coefficients: tuple[float, float, float], supply: float) -> float:
    a2, a1, a0 = coefficients
    return a2 * supply**2 + a1 * supply + a0


def _modelled(name: str, joules: float, note: str) -> Metric:
    kind: Source = "assumed" if note.startswith("assumption") else "modelled"
    return Metric(name, joules, "J", kind, note)


def _area(square_metres: float, note: str) -> Metric:
    return Metric("macro_area", square_metres, "m2", "modelled", note)
