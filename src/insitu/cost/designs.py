"""Design points: chips as arrays of numbers, one entry a point, from chip files or from a grid of changes to one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.cost import area, awake, bus_energy, event_energy, scaled, static_power
from insitu.arch.spec import Chip
from insitu.base.errors import RangeError
from insitu.circuit.cost import (
    area_scale_of,
    converter_bits,
    drawn_energy,
    energy_scale,
    facts,
    macro_area,
    one_converter_area,
    switching_cells,
)
from insitu.circuit.heat import leakage_factor
from insitu.circuit.model import Operands, cell_energy, constants, convert_energy, product_energy
from insitu.circuit.network import bus_byte
from insitu.circuit.periphery import periphery_area
from insitu.circuit.times import pass_time

Floats = npt.NDArray[np.float64]
SWEPT = ("rows", "cols", "node", "supply", "adc_bits", "input_bits", "macros", "columns_per_adc")
UM2, NM = 1e-12, 1e-9


@dataclass(frozen=True)
class Designs:
    """Chips as arrays of shape [points]; energies in joules an event, times in seconds, areas in square metres."""

    rows: Floats
    cols: Floats
    passes: Floats
    conversions: Floats
    reads: Floats
    slices: Floats
    macros: Floats
    arrays: Floats
    analog: Floats
    t_read: Floats
    t_convert: Floats
    e_mac: Floats
    e_dac: Floats
    e_adc: Floats
    e_shift_add: Floats
    e_vector: Floats
    e_read: Floats
    e_write: Floats
    vector_rate: Floats
    bandwidth: Floats
    static: Floats
    area: Floats


def designs(chips: Sequence[Chip], *, operands: Operands | None = None) -> Designs:
    """Chips as they are described, what their files give included."""
    points = [_numbers(chip, operands) for chip in chips]
    if not points:
        raise RangeError("design points", "none", "at least one chip")
    return Designs(**{f.name: np.array([p[f.name] for p in points], np.float64) for f in fields(Designs)})


def sweep(chip: Chip, changes: Mapping[str, Sequence[float]], *, operands: Operands | None = None) -> Designs:
    """Every combination of `changes` to a chip, its modelled energies, times and areas moved with it.

    Energies and areas that the chip's file gives stay as given.  `changes` name: rows, cols, node (metres), supply
    (volts), adc_bits, input_bits, macros, columns_per_adc.
    """
    unknown = [name for name in changes if name not in SWEPT]
    if unknown:
        raise RangeError(f"sweep {unknown[0]!r}", "unknown", f"one of {', '.join(SWEPT)}")
    if chip.macro.costs == "components":
        raise RangeError("sweep", "a chip whose costs are summed over components", "designs([...]) of its variants")
    grid = np.array(list(product(*changes.values())), np.float64)
    values = {name: grid[:, i] for i, name in enumerate(changes)}
    base = designs([chip], operands=operands)
    points = len(grid)
    wide = replace(base, **{f.name: np.repeat(getattr(base, f.name), points) for f in fields(Designs)})
    return _moved(wide, chip, values, operands or Operands())


def _numbers(chip: Chip, operands: Operands | None) -> dict[str, float]:
    energy = {name: metric.value or 0.0 for name, metric in event_energy(chip, operands).items()}
    macro = chip.macro
    return {
        "rows": chip.array.rows, "cols": chip.weight_cols, "passes": macro.passes, "conversions": macro.conversions,
        "reads": chip.calibration.reads, "slices": macro.weights.slices, "macros": chip.macros,
        "arrays": macro.arrays, "analog": float(macro.readout.kind != "exact"), "t_read": macro.t_read,
        "t_convert": macro.columns_per_adc * (macro.t_adc or 0.0),
        "e_mac": energy["mac"], "e_dac": energy["dac"], "e_adc": energy["adc"], "e_shift_add": energy["shift_add"],
        "e_vector": energy["vector_op"], "e_read": energy["ram_read_byte"], "e_write": energy["ram_write_byte"],
        "vector_rate": chip.cores * chip.core.vector.lanes * chip.chip.clock,
        "bandwidth": chip.memories["ram"].bandwidth,
        "static": (static_power(chip).value or 0.0) + (awake(chip).value or 0.0),
        "area": area(chip).value or 0.0,
    }  # fmt: skip


def _moved(base: Designs, chip: Chip, values: Mapping[str, Floats], operands: Operands) -> Designs:
    """The design with its modelled numbers at the swept values; one line a number, arrays throughout."""
    node = values.get("node", np.full_like(base.rows, chip.technology.node))
    supply = values.get("supply", np.full_like(base.rows, chip.technology.supply))
    adc_bits = values.get("adc_bits", np.full_like(base.rows, converter_bits(chip)))
    input_bits = values.get("input_bits", np.full_like(base.rows, chip.macro.input.bits))
    passes = np.ceil(input_bits / chip.macro.input.bits_per_pass)
    cols = values.get("cols", np.full_like(base.rows, chip.array.cols))
    moved = replace(
        base,
        rows=values.get("rows", base.rows),
        cols=cols - chip.macro.reserved_columns,
        macros=values.get("macros", base.macros),
        passes=passes,
        conversions=np.ones_like(passes) if chip.macro.integrate else passes,
        t_convert=values.get("columns_per_adc", np.full_like(passes, chip.macro.columns_per_adc))
        * (chip.macro.t_adc or 0.0),
    )
    faster = pass_time(chip, bits=adc_bits, node=node, supply=supply, rows=moved.rows) / pass_time(
        chip, bits=converter_bits(chip)
    )
    moved = replace(moved, t_read=base.t_read * faster, t_convert=moved.t_convert * faster)
    moved = replace(moved, area=_area(moved, chip, node, adc_bits, values))
    moved = _energies(moved, chip, node, supply, adc_bits, input_bits, operands)
    if chip.energy.leakage is not None:
        return moved
    flowing = facts()["leakage"]["w_per_mm2"] * (moved.area - base.area) / 1e-6
    flowing = flowing * leakage_factor(chip.technology.temperature)
    return replace(moved, static=base.static + flowing)


def _energies(
    point: Designs, chip: Chip, node: Floats, supply: Floats, adc_bits: Floats, input_bits: Floats, operands: Operands
) -> Designs:
    logic = _logic(node, supply, chip)
    carried, bus = bus_energy(chip), _bus(point, chip, supply, logic)
    memory = logic if chip.memories["ram"].kind != "dram" else np.ones_like(logic)  # not of this process
    moved = {
        "e_vector": point.e_vector * logic,
        "e_read": (point.e_read - carried) * memory + bus,
        "e_write": (point.e_write - carried) * memory + bus,
    }
    kind, bits = chip.cell.kind, input_bits / chip.macro.input.bits
    if chip.macro.readout.kind == "exact":
        fraction = product_energy(node, supply) / product_energy(chip.technology.node, chip.technology.supply)
        moved["e_mac"] = point.e_mac * fraction * bits
    else:
        scale = convert_energy(adc_bits, node, supply, kind=kind) / convert_energy(
            converter_bits(chip), chip.technology.node, chip.technology.supply, kind=kind
        )
        planes = point.passes / chip.macro.passes
        wires = cell_energy(node, supply, kind=kind) - cell_energy(
            chip.technology.node, chip.technology.supply, kind=kind
        )
        each = chip.macro.passes * chip.macro.weights.slices
        drawn = drawn_energy(chip, supply=supply, t_read=point.t_read) - drawn_energy(chip)
        current = drawn * constants()["kinds"][kind]["current"] * operands.activity
        lines = wires * switching_cells(chip) * operands.factor
        moved["e_mac"] = (point.e_mac + (lines + current) * each) * planes
        moved["e_adc"] = point.e_adc * scale
        moved["e_dac"] = (
            point.e_dac
            * bits
            * cell_energy(node, supply, kind=kind)
            / cell_energy(chip.technology.node, chip.technology.supply, kind=kind)
        )
        moved["e_shift_add"] = point.e_shift_add * logic
    given = {"e_mac": "mac", "e_dac": "dac", "e_adc": "adc", "e_shift_add": "shift_add", "e_vector": "vector_op"}
    given |= {"e_read": "ram_read_byte", "e_write": "ram_write_byte"}
    kept = {name: value for name, value in moved.items() if getattr(chip.energy, given[name]) is None}
    return replace(point, **kept)


def _bus(point: Designs, chip: Chip, supply: Floats, logic: Floats) -> Floats:
    """Joules of a byte over the die of each point."""
    if chip.cores == 1:
        return np.zeros_like(supply)
    router = scaled(facts()["bus"], chip) * logic
    return bus_byte(point.area, supply, stops=chip.chip.tiles, router_scale=router)


def _logic(node: Floats, supply: Floats, chip: Chip) -> Floats:
    """Energy of logic at each point over that of the chip; the published polynomials, one call a distinct process."""
    process = np.stack([node, supply], axis=1)
    distinct, place = np.unique(process, axis=0, return_inverse=True)
    at = {"from_node": chip.technology.node, "from_supply": chip.technology.supply}
    scales = np.array([energy_scale(float(n), float(v), **at) for n, v in distinct])
    return scales[place.reshape(-1)]


def _area(point: Designs, chip: Chip, node: Floats, adc_bits: Floats, values: Mapping[str, Any]) -> Floats:
    """The chip's area with its macros' area moved; a macro whose area the file gives keeps it."""
    if chip.area.die is not None or chip.area.macro is not None or chip.components:
        return point.area * point.macros / chip.macros if chip.area.die is None else point.area
    before = float(macro_area(chip).value or 0.0) * chip.macros
    cols = point.cols + chip.macro.reserved_columns
    cells = point.rows * cols * point.arrays * point.slices * chip.macro.cells_per_slice
    if chip.macro.readout.kind == "exact":
        cim = facts()["digital_cim"]
        macro = cells * chip.array.bits_per_cell / cim["bits_per_mm2"] * 1e-6 * area_scale_of(node, cim["node_nm"] * NM)
    else:
        share = values.get("columns_per_adc", np.full_like(cols, chip.macro.columns_per_adc))
        add = facts()["shift_add"]
        each = one_converter_area(chip, adc_bits, node) + add["area_um2"] * UM2 * area_scale_of(
            node, add["node_nm"] * NM
        )
        macro = cells * chip.cell.area_f2 * node**2 + np.ceil(cols * point.slices / share) * each
        given = chip.macro.input.bits_per_pass
        macro = macro + periphery_area(point.rows * point.arrays, cols * point.slices, given, node)
    host = facts()["host"]["area_mm2"] * 1e-6 if chip.chip.host else 0.0  # a core of its own, at any node
    rest = (point.area - before - host) * (node / chip.technology.node) ** 2
    return rest + host + macro * point.macros


def spread() -> tuple[float, float]:
    """(floor, pessimistic) of a converter's energy over its typical one: the ADC survey's 20 % quantile, mirrored."""
    residual = constants()["adc_regression"]["energy"][3]  # logarithm of the 20 % quantile over the mean fit
    return math.exp(residual), math.exp(-residual)
