"""A published chip from its own description: that becomes a chip, and the chip's closed-form costs the figures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from insitu.arch.cost import area, peak_efficiency, peak_power
from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError
from insitu.base.schema import load_yaml, validate
from insitu.base.yaml import Document
from insitu.circuit.model import Operands
from insitu.circuit.times import pass_seconds
from insitu.device.cell import load_cell
from insitu.validate.entries import Entry, quantity

REQUIRED = ("node", "cell", "rows", "cols", "input_bits", "slices")
SUPPLY_BY_NODE = {180: 1.8, 130: 1.5, 90: 1.2, 65: 1.2, 40: 1.1, 28: 0.9, 22: 0.8, 16: 0.8, 14: 0.8, 7: 0.75, 5: 0.75}


@dataclass(frozen=True)
class Point:
    """One operating point as a chip, what its operands look like, and which defaults filled its description."""

    chip: Chip
    operands: Operands
    defaults: tuple[str, ...] = ()
    clocked: bool = False  # the time of a pass is published, so rates that follow from it predict nothing
    whole: bool = False  # a complete chip file, with its own time of a pass


def point_of(entry: Entry, name: str) -> Point | tuple[str, ...]:
    """The chip of one operating point, or the fields that are missing."""
    if entry.preset is not None:
        return Point(load_chip(entry.preset), Operands(), clocked=True, whole=True)
    if name not in entry.points:
        return ("description of the point",)
    given = {**entry.chip, **entry.points[name]}
    absent = tuple(map(str, given.pop("missing", ()))) or tuple(key for key in REQUIRED if key not in given)
    notes = tuple(map(str, given.pop("notes", ())))
    if absent:
        return absent
    try:
        point = _point(given, entry.name)
    except ConfigError as fault:  # one chip beyond the models does not hide the others of a table
        return tuple(f"{one.got} (needs {one.need})" for one in fault.faults)
    return replace(point, defaults=(*notes, *point.defaults))


def modelled(point: Point, name: str) -> float | None:
    """The figure a quantity of that name has at a point."""
    return FIGURES[name](point) if name in FIGURES else None


def _efficiency(point: Point) -> float | None:
    if point.chip.components:
        return _tops(point) / sum(watts.value or 0.0 for watts in peak_power(point.chip).values())
    return peak_efficiency(point.chip, point.operands).value


def _tops(point: Point) -> float:
    chip = point.chip
    return 2e-12 * chip.array.rows * chip.array.cols * chip.macros / chip.t_vector


def _latency(point: Point) -> float:
    """Seconds of one product, from the process and the readout, whatever the published time of a pass is."""
    chip = point.chip
    return chip.t_vector if point.whole else chip.macro.passes * chip.calibration.reads * pass_seconds(chip)


def _area(point: Point) -> float:
    return (area(point.chip).value or 0.0) * 1e6


def _power(point: Point) -> float:
    return _tops(point) / (_efficiency(point) or math.inf)


FIGURES: Mapping[str, Callable[[Point], float | None]] = {
    "tops_per_w": _efficiency,
    "tops": _tops,
    "latency_s": _latency,
    "area_mm2": _area,
    "tops_per_mm2": lambda point: _tops(point) / _area(point),
    "power_w": _power,
}


def _point(given: Mapping[str, Any], name: str) -> Point:
    """The description as a chip; what it leaves out comes from the technology, and is named."""
    defaults: list[str] = []

    def default(key: str, value: Any) -> Any:
        if key in given:
            return given[key]
        defaults.append(f"{key} (technology default {value})")
        return value

    node = quantity(given["node"], "m")
    supply = quantity(default("supply", f"{_default_supply(node)} V"), "V")
    digital = bool(given.get("digital", False))
    bits = 32 if digital else int(default("adc_bits", math.ceil(math.log2(int(given["rows"]) + 1))))
    width = int(default("bits_per_pass", 1)) if int(given["input_bits"]) > 1 else 1
    known = {"node": node, "supply": supply, "digital": digital, "adc_bits": bits, "bits_per_pass": width}
    cycle = given.get("cycle")
    if "input_density" not in given:
        defaults.append("sparsity (technology default: half of all bits are one)")
    operands = Operands(given.get("input_density"), given.get("weight_density"))
    chip = _chip({**given, **known, "cycle": quantity(cycle, "s") if cycle else 0.0}, name)
    return Point(chip, operands, tuple(defaults), clocked=cycle is not None)


def _chip(given: Mapping[str, Any], name: str) -> Chip:
    """The fields of a description in the places of the chip schema, around a neutral chip."""
    cell, slices, per_cell = load_cell(str(given["cell"])), int(given["slices"]), int(given.get("bits_per_cell", 1))
    top = 1 << (slices * per_cell)
    encoding = "differential_pair" if given.get("pair") else "twos_complement"
    low, high = (1 - top, top - 1) if given.get("pair") else (-(top // 2), top // 2 - 1)
    exact = bool(given["digital"])
    data = {
        **_neutral(),
        "name": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "published",
        "technology": {"node": given["node"], "supply": given["supply"]},
        "cell": cell.name,
        "array": {"rows": given["rows"], "cols": given["cols"], "bits_per_cell": per_cell, "cell_range": [low, high]},
        "macro": {
            "arrays": given.get("groups", 1),
            "integrate": given.get("integrate", False),
            "input": {"bits": given["input_bits"], "signed": True, "bits_per_pass": given["bits_per_pass"]},
            "weights": {"encoding": encoding, "slices": slices},
            "readout": {"kind": "exact" if exact else "adc", "bits": given["adc_bits"]},
            "adder": given.get("adder", "tree"),
            "converter": given.get("converter"),
            "pulses": given.get("pulses", False),
            "columns_per_adc": 1 if exact else given.get("columns_per_adc", 1),
            **({"t_read": given["cycle"]} if given["cycle"] else {}),
        },
        "core": {"macros": given.get("macros", 1), "vector": {"lanes": 1}},
        "calibration": {"reads": given.get("reads", 1)},
    }
    return validate(Document(data, {}, f"published {name}"), Chip)


@cache
def _neutral_data() -> Mapping[str, Any]:
    text = (files("insitu.validate") / "neutral.yaml").read_text(encoding="utf-8")
    return load_yaml("validate/neutral.yaml", text=text).data


def _neutral() -> dict[str, Any]:
    return dict(_neutral_data())


def _default_supply(node: float) -> float:
    return SUPPLY_BY_NODE[min(SUPPLY_BY_NODE, key=lambda nm: abs(math.log(nm * 1e-9 / node)))]
