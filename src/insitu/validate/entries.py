"""The table of published chips and its split."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal

from insitu.base.schema import load_yaml
from insitu.base.units import parse_quantity

Split = Literal["calibration", "holdout", "unseen"]
QUANTITIES = ("tops_per_w", "tops", "latency_s", "tops_per_mm2", "area_mm2", "power_w")
# keys of silicon.yaml -> (quantity, factor)
ALIASES: Mapping[str, tuple[str, float]] = {
    "energy_efficiency_tops_per_w": ("tops_per_w", 1.0),
    "throughput_tops": ("tops", 1.0),
    "latency_ns_per_mvm": ("latency_s", 1e-9),
    "compute_density_tops_per_mm2": ("tops_per_mm2", 1.0),
    "energy_efficiency_gops_per_w": ("tops_per_w", 1e-3),
    "throughput_gops": ("tops", 1e-3),
    "latency_ns": ("latency_s", 1e-9),
    "latency_us": ("latency_s", 1e-6),
    "area_um2": ("area_mm2", 1e-6),
    "power_mw": ("power_w", 1e-3),
    "power_uw": ("power_w", 1e-6),
}

BANK_KINDS = {
    "sram": "sram_analog", "gain": "edram_gain_cell", "dram": "edram_gain_cell", "nor": "nor_flash",
    "reram": "reram", "pcm": "pcm", "mram": "mram",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One published chip: its description, its operating points, and figures by quantity and point."""

    name: str
    kind: str
    measured: bool | None
    split: Split
    source: str
    published: Mapping[str, Mapping[str, float]]
    chip: Mapping[str, Any] = field(default_factory=dict[str, Any])
    points: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    preset: str | None = None
    missing: tuple[str, ...] = ()
    note: str = ""
    fields: Mapping[str, Any] = field(
        default_factory=dict[str, Any]
    )  # of silicon.yaml, where nothing else describes it


def split_of(name: str) -> Split:
    """The side an entry's name puts it on (split.yaml)."""
    divisor = int(_data("split.yaml")["divisor"])
    return "holdout" if hashlib.sha256(name.encode()).digest()[0] % divisor == 0 else "calibration"


def entries() -> tuple[Entry, ...]:
    """The published chips that ship, then the banks of which only times are used."""
    described = [*_data("published.yaml")["chips"], *(_bank(row) for row in _data("banks.yaml")["chips"])]
    return tuple(entry_of(row, split_of(str(row["name"]))) for row in described)


def _bank(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of banks.yaml in the form of published.yaml: points are passes, one bit of a weight a column."""
    points = {f"pass_{i}": _bank_point(point) for i, point in enumerate(row["points"])}
    times = {f"pass_{i}": p["ns"] * 1e-9 for i, p in enumerate(row["points"]) if p["ns"]}
    digital = str(row["cell"]).endswith("digital")
    return {
        "name": f"uiuc_{row['index']}",
        "kind": "sram_digital" if digital else BANK_KINDS[str(row["cell"]).split("-")[0]],
        "measured": True,
        "source": f"{row['source']}; UIUC-IMC-Benchmarking (index {row['index']})",
        "chip": {"cell": row["cell"], "slices": 1, "digital": digital},
        "points": points,
        "published": {"latency_s": times} if times else {},
        "missing": [] if times else ["time of a pass"],
    }


def _bank_point(point: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a pass; a bitline carries the driven rows and the groups that wait."""
    rows, active, bits = point["rows"], point["active"], point["input_bits"]
    known = {"node": f"{point['node_nm']} nm", "input_bits": bits, "bits_per_pass": bits}
    known |= {"supply": f"{point['supply']} V"} if point["supply"] else {"missing": ["supply"]}
    known |= {"adc_bits": math.ceil(point["adc_bits"])} if point["adc_bits"] else {}
    known |= {"rows": active, "groups": max(1, round(rows / active))} if rows and active else {}
    return known | ({"cols": point["cols"]} if point["cols"] else {})


def entry_of(row: Mapping[str, Any], split: Split) -> Entry:
    """A row of published.yaml, or of that form, as an entry."""
    return Entry(
        name=str(row["name"]),
        kind=str(row.get("kind") or "unknown"),
        measured=True if split == "unseen" and row.get("measured") is None else row.get("measured"),
        split=split,
        source=str(row.get("source") or ""),
        published=row.get("published") or {},
        chip=row.get("chip") or {},
        points=row.get("points") or {},
        preset=row.get("preset"),
        missing=tuple(map(str, row.get("missing") or ())),
        note=str(row.get("note") or ""),
    )


def quantity(value: Any, unit: str) -> float:
    """A field with its unit as a number."""
    return parse_quantity(value, unit, where="published")


def _data(name: str) -> Any:
    text = (files("insitu.validate") / name).read_text(encoding="utf-8")
    return load_yaml(f"validate/{name}", text=text).data
