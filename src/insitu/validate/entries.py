"""The table of published chips, its split, and a user's file of the same form."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from insitu.base.errors import ConfigError
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


def split_of(name: str) -> Split:
    """The side an entry's name puts it on (split.yaml)."""
    divisor = int(_data("split.yaml")["divisor"])
    return "holdout" if hashlib.sha256(name.encode()).digest()[0] % divisor == 0 else "calibration"


def entries() -> tuple[Entry, ...]:
    """The published chips that ship, then the banks of which only times are used."""
    described = [*_data("published.yaml")["chips"], *(_bank(row) for row in _data("banks.yaml")["chips"])]
    return tuple(_entry(row, split_of(str(row["name"]))) for row in described)


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


def read_published(path: str) -> tuple[Entry, ...]:
    """Entries of a user's file: one entry, a list of them, or `chips:` with a list; all are unseen."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(path, "cannot be read", "a YAML text file with published figures") from None
    data = load_yaml(path, text=text).data
    rows = data.get("chips", [data]) if isinstance(data, dict) else data
    if not isinstance(rows, list) or not rows:
        raise ConfigError(path, "no entries", "an entry with `name` and at least one quantity")
    return tuple(_entry(_plain(path, row, alone=len(rows) == 1), "unseen") for row in rows)


def _plain(path: str, row: Any, *, alone: bool) -> dict[str, Any]:
    """An entry as silicon.yaml writes it (quantities at the top) in the form of published.yaml."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        raise ConfigError(path, "an entry without a name", "`name: ...` and quantities such as tops_per_w")
    known = {key: ALIASES.get(key, (key, 1.0)) for key in row if key in QUANTITIES or key in ALIASES}
    figures = {
        q: _figures(path, key, row[key], scale)
        for key, (q, scale) in known.items()
        if isinstance(row[key], int | float | str | dict)
    }
    figures.update({q: _figures(path, q, v, 1.0) for q, v in dict(row.get("published") or {}).items()})
    if not figures and not alone:  # one of many: listed, not refused
        return {**row, "published": {}, "missing": ["an energy, throughput or latency"]}
    if not figures:
        raise ConfigError(
            f"{path}: {row['name']}", "no figure to compare", f"one of {', '.join((*QUANTITIES, *ALIASES))}"
        )
    return {**row, "published": figures}


def _figures(path: str, key: str, value: Any, scale: float) -> dict[str, float]:
    if key not in QUANTITIES and key not in ALIASES:
        raise ConfigError(f"{path}: {key}", "unknown quantity", f"one of {', '.join((*QUANTITIES, *ALIASES))}")
    points = {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else {"": value}
    for point, number in points.items():
        if not isinstance(number, int | float) or isinstance(number, bool) or not number > 0:
            raise ConfigError(f"{path}: {key}.{point}".rstrip("."), repr(number), "a number above zero")
    return {str(point): float(number) * scale for point, number in points.items()}


def _entry(row: Mapping[str, Any], split: Split) -> Entry:
    return Entry(
        name=str(row["name"]),
        kind=str(row.get("kind") or "unknown"),
        measured=row.get("measured", split == "unseen" or None),
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
