"""A chip described by the fields of silicon.yaml: node_nm, array_rows, array_cols, bits, supply_v, kind, cell ...

What a point's name says ("4b_in_8b_w", "8b_0.85v", "int8") goes before what the entry says; a field that is a range is
known only where the point names it.  The cell is the library's for the kind, and every filled field is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from insitu.validate.entries import Entry

# kind -> cells, the first whose words the entry's `cell` text has
CELLS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "sram_analog": (
        (r"charge|capacitor|C-?2C|\bMOM\b|8T1C|10T1C", "sram-8t1c-charge"), (r"\b[8-9]T|\b1\dT", "sram-8t-current"),
        (r"6T", "sram-6t-current"),
    ),
    "sram_digital": ((r"", "sram-6t-digital"),),
    "edram_gain_cell": ((r"", "gain-cell-3t"),),
    "reram": ((r"", "reram-1t1r-2b"),),
    "pcm": ((r"", "pcm-hermes"),),
    "nor_flash": ((r"", "nor-flash-8b"),),
    "sonos": ((r"", "sonos-40nm"),),
    "mram": ((r"resistance.sum", "mram-series"), (r"", "mram-stt")),
    "fefet": ((r"", "fefet-28nm"),),
    "nand": ((r"", "nand-3d"),),
}  # fmt: skip
MULTILEVEL = {"reram": 2, "pcm": 8, "nor_flash": 8, "sonos": 8, "nand": 4}  # bits a cell, where the text says nothing
SUPPLY = re.compile(r"(?:^|_)(\d+(?:\.\d+)?)v(?:_|$)", re.IGNORECASE)
BOTH = re.compile(r"(?:^|_)(?:(\d+)b?_?(?:in|x)_?(\d+)b?(?:_?w)?|i(\d+)_w(\d+))(?:_|$)", re.IGNORECASE)
ONE = re.compile(r"(?:^|_)(?:int(\d+)|(\d+)b)(?:_|$)", re.IGNORECASE)


def described(entry: Entry) -> Entry:
    """The entry with `chip` and `points` in the form of published.yaml; points list the fields they miss."""
    row, labels = entry.fields, dict.fromkeys(label for points in entry.published.values() for label in points)
    chip, missing = _chip(row)
    return replace(entry, chip=chip, points={label: _point(row, label, missing) for label in labels})


def _chip(row: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What all points share, and the fields that no default may fill."""
    known: dict[str, Any] = {}
    missing = [key for key in ("node_nm", "array_rows", "array_cols") if not _whole(row.get(key))]
    if "node_nm" not in missing:
        known["node"] = f"{row['node_nm']} nm"
    if "array_rows" not in missing:
        known["rows"] = int(row["array_rows"])
    cell = cell_of(str(row.get("kind") or ""), str(row.get("cell") or ""))
    if cell is None:
        missing.append("kind" if not row.get("kind") else "cell")
    else:
        known |= {"cell": cell, "digital": cell == "sram-6t-digital"}
    if _whole(row.get("adc_bits")) and not known.get("digital"):
        known["adc_bits"] = int(row["adc_bits"])
    if _whole(row.get("macro_count")):
        known["macros"] = int(row["macro_count"])
    return known, missing


def cell_of(kind: str, text: str) -> str | None:
    """The library's cell for a kind of chip and what is said of its cell; None where neither says enough."""
    return next((cell for words, cell in CELLS.get(kind, ()) if re.search(words, text, re.IGNORECASE)), None)


def _point(row: Mapping[str, Any], label: str, missing: Sequence[str]) -> dict[str, Any]:
    known, absent = dict[str, Any](), list(missing)
    for key, value, fields in (
        ("supply_v", _supply(row, label), lambda v: {"supply": f"{v} V"}),
        ("input_bits", _bits(row, label, "input_bits"), lambda v: {"input_bits": v}),
        ("weight_bits", _bits(row, label, "weight_bits"), lambda v: _columns(row, v)),
    ):
        if value is not None:
            known |= fields(value)
        elif key != "supply_v" or row.get(key) is not None or SUPPLY.search(label):
            # a supply nobody states is the technology's
            absent.append(f"{key} (a number, or a number in the point's name)")
    return known | ({"missing": absent} if absent else {})


def _columns(row: Mapping[str, Any], weight_bits: int) -> dict[str, Any]:
    """Slices of a weight and weights across: `array_cols` are columns of cells."""
    kind = str(row.get("kind") or "")
    said = re.search(r"(\d+)[ -]?b(?:it)?\b", str(row.get("cell") or ""))
    each = int(said[1]) if said and kind in MULTILEVEL else MULTILEVEL.get(kind, 1)
    each = min(each, weight_bits)
    slices = -(-weight_bits // each)
    pair = kind in MULTILEVEL or kind in ("mram", "fefet")
    wide = slices * (2 if pair else 1)
    cols = {"cols": max(1, int(row["array_cols"]) // wide)} if _whole(row.get("array_cols")) else {}
    return {"slices": slices, "bits_per_cell": each, "pair": pair, **cols}


def _supply(row: Mapping[str, Any], label: str) -> float | None:
    named, given = SUPPLY.search(label), row.get("supply_v")
    if named:
        return float(named[1]) or None
    return float(given) if isinstance(given, int | float) and given > 0 else None


def _bits(row: Mapping[str, Any], label: str, key: str) -> int | None:
    """Bits by the point's name, else the entry's number.

    One number in a name speaks of inputs, and of weights too where the entry does not give those as one number.
    """
    label, given = SUPPLY.sub("_", label), row.get(key)
    whole = given if isinstance(given, int) and _whole(given) else None
    if both := BOTH.search(label):
        return int(both[1] or both[3]) if key == "input_bits" else int(both[2] or both[4])
    if one := ONE.search(label):
        named = int(one[1] or one[2])
        return named if key == "input_bits" or whole is None else whole
    return whole


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
