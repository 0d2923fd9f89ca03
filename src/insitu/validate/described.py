"""A chip described by the fields of silicon.yaml: node_nm, array_rows, array_cols, bits, supply_v, kind, cell ...

What a point's name says ("4b_in_8b_w", "8b_0.85v", "int8") goes before what the entry says, and what `points:` says
before both; a field that is a range is known only where the point names it.  The cell is the library's for the kind,
and every field that was filled in or derived is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from insitu.validate.entries import Entry
from insitu.validate.fields import FORMS, MOST_BITS, shown, value_of
from insitu.validate.kinds import CELLS, PAIRED, bits_per_cell, cell_of, converter_of, kind_of
from insitu.validate.labels import bits_of, refusal, speaks_of_sparsity, supply_of

TERNARY = 2.0  # weights of fewer bits than this, and more than one, are -1, 0 and 1
ANY_CELL = "a cell in words: 6T, 8T, 10T1C, charge-domain ..."


def described(entry: Entry) -> Entry:
    """The entry with `chip` and `points` in the form of published.yaml; points list the fields they miss."""
    row, labels = entry.fields, dict.fromkeys(label for points in entry.published.values() for label in points)
    kind = kind_of(_text(row, "kind"), _text(row, "cell"), value_of(row, "adc_bits"))
    chip, missing = _chip(row, kind)
    points = {label: _point(row, entry.points.get(label, {}), label, kind, missing) for label in labels}
    points = {label: _timed(entry, label, point, kind) for label, point in points.items()}
    return replace(entry, kind=kind or entry.kind, chip=chip, points=points)


def _chip(row: Mapping[str, Any], kind: str | None) -> tuple[dict[str, Any], list[str]]:
    """What all points share, and the fields that no default may fill."""
    known: dict[str, Any] = {}
    missing = [_gap(row, key) for key in ("node_nm", "array_rows", "array_cols") if value_of(row, key) is None]
    if (node := value_of(row, "node_nm")) is not None:
        known["node"] = f"{node:g} nm"
    cell = cell_of(kind, _text(row, "cell"))
    if cell is None:
        missing.append(_kind_gap(row) if kind is None else f"cell ({ANY_CELL})")
    else:
        known |= {"cell": cell, "digital": cell == "sram-6t-digital"}
    adc = value_of(row, "adc_bits")
    if adc and not known.get("digital"):
        known["adc_bits"] = max(1, round(adc))
    if converter := converter_of(_text(row, "adc_type")):
        known["converter"] = converter
    for key, name in (
        ("macro_count", "macros"),
        ("columns_per_adc", "columns_per_adc"),
        ("bits_per_pass", "bits_per_pass"),
    ):
        if (value := value_of(row, key)) is not None:
            known[name] = int(value)
    return known | _densities(row), missing


def _point(
    row: Mapping[str, Any], said: Mapping[str, Any], label: str, kind: str | None, missing: Sequence[str]
) -> dict[str, Any]:
    """What a point adds, or what it misses; `said` is what `points:` has of it."""
    if reason := refusal(label):
        return {"missing": [reason]}
    known: dict[str, Any] = dict(_densities(row))
    absent, notes = list(missing), list[str]()
    supply = supply_of(label) or value_of(row, "supply_v")
    if supply:
        known["supply"] = f"{supply:g} V"
    elif "supply" not in said and (row.get("supply_v") is not None or supply_of(label) == 0.0):
        absent.append(_gap(row, "supply_v"))  # a supply nobody states is the technology's
    inputs, weights = _bits(row, said, label)
    known |= {} if inputs is None else {"input_bits": max(1, round(inputs))}
    known |= {} if weights is None else _columns(row, weights, kind)
    absent += [_gap(row, key) for key, bits in (("input_bits", inputs), ("weight_bits", weights)) if bits is None]
    known |= _rows(row, inputs, weights, notes)
    known |= {key: value for key, value in said.items() if key not in ("weight_bits", "missing")}
    if speaks_of_sparsity(label) and "input_density" not in known:
        absent.append("input_density (share of input bits that are one; the point's name speaks of sparsity)")
    absent += said.get("missing", ())
    return known | ({"missing": absent} if absent else {}) | ({"notes": notes} if notes else {})


def _timed(entry: Entry, label: str, point: dict[str, Any], kind: str | None) -> dict[str, Any]:
    """Cells that conduct draw current for as long as the published product takes, where a point publishes that."""
    seconds = entry.published.get("latency_s", {}).get(label)
    if seconds is None or kind not in PAIRED or "missing" in point or "cycle" in point:
        return point
    width = point.get("bits_per_pass", entry.fields.get("bits_per_pass", 1))
    passes = -(-point["input_bits"] // int(width))
    notes = [*point.get("notes", ()), "time of a read (the published latency over its passes)"]
    return point | {"cycle": f"{seconds / passes!r} s", "notes": notes}


def _rows(row: Mapping[str, Any], inputs: float | None, weights: float | None, notes: list[str]) -> dict[str, Any]:
    """Rows driven at once, and how many such groups share the columns; `notes` says where they come from."""
    rows = value_of(row, "array_rows")
    if rows is None:
        return {}
    active, output = value_of(row, "active_rows"), value_of(row, "output_bits")
    if active is None and output is not None and inputs and weights and inputs + weights <= output:
        active = min(rows, 2.0 ** (output - round(inputs) - round(weights)))
        if active < rows:
            notes.append(f"active_rows ({active:g}: an output of {output:g} bits holds so many products without loss)")
    elif active is None:
        notes.append(f"active_rows (technology default: all {rows:g})")
    active = active or rows
    return {"rows": int(active), "groups": max(1, round(rows / active))}


def _columns(row: Mapping[str, Any], weight_bits: float, kind: str | None) -> dict[str, Any]:
    """Slices of a weight and weights across: `array_cols` are columns of cells.  Ternary weights are pairs of cells."""
    ternary = 1.0 < weight_bits < TERNARY
    bits = 1 if ternary else max(1, round(weight_bits))
    each = min(bits_per_cell(kind, _text(row, "cell")), bits)
    slices = -(-bits // each)
    pair = ternary or kind in PAIRED
    cols = value_of(row, "array_cols")
    across = {"cols": max(1, int(cols) // (slices * (2 if pair else 1)))} if cols else {}
    return {"slices": slices, "bits_per_cell": each, "pair": pair, **across}


def _densities(row: Mapping[str, Any]) -> dict[str, float]:
    """Shares of bits that are one."""
    found: dict[str, float] = {}
    for operand in ("input", "weight"):
        density, sparsity = value_of(row, f"{operand}_density"), value_of(row, f"{operand}_bit_sparsity")
        if density is None and sparsity is not None:
            density = 1.0 - sparsity
        if density is not None:
            found[f"{operand}_density"] = density
    return found


def _bits(row: Mapping[str, Any], said: Mapping[str, Any], label: str) -> tuple[float | None, float | None]:
    """Bits of inputs and weights by `points:`, else by the point's name, else the entry's.

    One number in a name speaks of inputs, and of weights too where the entry does not give those as one number.
    """
    inputs, weights = value_of(row, "input_bits"), value_of(row, "weight_bits")
    if named := bits_of(label):
        inputs, weights = named[0], named[1] or weights or named[0]
    return _modelled(said.get("input_bits", inputs)), _modelled(said.get("weight_bits", weights))


def _modelled(bits: float | None) -> float | None:
    return None if bits is None or bits > MOST_BITS else bits


def _gap(row: Mapping[str, Any], key: str) -> str:
    """A missing field with what to type, and what stands there instead."""
    given = row.get(key)
    more = "; or one in the point's name" if key in ("supply_v", "input_bits", "weight_bits") else ""
    instead = "" if given is None else f"; {shown(given)} is not one"
    return f"{key} ({FORMS[key].need}{more}{instead})"


def _kind_gap(row: Mapping[str, Any]) -> str:
    given = _text(row, "kind")
    if "sram" in given.lower():
        return "kind (sram_analog or sram_digital)"
    known = ", ".join(CELLS)
    return f"kind ({given} is not one of {known})" if given else f"kind (one of {known})"


def _text(row: Mapping[str, Any], key: str) -> str:
    return str(row.get(key) or "")
