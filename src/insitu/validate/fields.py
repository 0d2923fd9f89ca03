"""The fields of a table of published silicon (silicon.yaml): what each may hold, as people write it.

A number is in the unit of the field's name; text may carry a unit of its own ("28 nm", "900 mV", "50%").  A list is a
range and stands for no single value.  What is neither is a fault: nothing that a user wrote is passed over in silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from insitu.base.errors import ConfigError
from insitu.base.units import parse_quantity

MOST_BITS = 16


@dataclass(frozen=True)
class Form:
    """What a field holds: unit of text, its size over the field's own unit, bounds, and what a person should type."""

    need: str
    unit: str = "1"
    scale: float = 1.0  # SI value x scale = value in the field's unit
    low: float = 0.0
    high: float = float("inf")
    whole: bool = False
    bits: bool = False


_PLAIN = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_BITS_TEXT = re.compile(r"(\d+(?:\.\d+)?)[ -]?(?:b|bits?)?(?: *\(.*\))?")
_SPARSE = re.compile(r"spars|toggle|(input|weight|activation|operand).*density")
_COUNT = Form("a whole number above 0", low=1, high=1 << 20, whole=True)
_BITS = Form("a number of bits from 1 to 16", low=1, high=64, bits=True)  # of table rows; models end at MOST_BITS
_SHARE = Form("a share from 0 to 1, such as 0.5 or 50%", low=0.0, high=1.0)
FORMS: Mapping[str, Form] = {
    "node_nm": Form("a number of nanometres, such as 28", "m", 1e9, 1.0, 1000.0),
    "supply_v": Form("a number of volts, such as 0.9", "V", 1.0, 0.1, 20.0),
    "array_rows": _COUNT,
    "array_cols": _COUNT,
    "active_rows": _COUNT,
    "macro_count": _COUNT,
    "columns_per_adc": _COUNT,
    "input_bits": _BITS,
    "weight_bits": _BITS,
    "bits_per_pass": _BITS,
    "output_bits": Form("a number of bits from 1 to 64", low=1, high=64, bits=True),
    "adc_bits": Form("a number of bits from 0 to 16", low=0, high=16, bits=True),
    "input_density": _SHARE,
    "weight_density": _SHARE,
    "input_bit_sparsity": _SHARE,
    "weight_bit_sparsity": _SHARE,
}
WORDS = ("kind", "cell", "adc_type")
# of silicon.yaml, for people
OTHERS = (
    "name", "measured", "venue", "year", "doi_or_url", "capacity_bits", "frequency_mhz", "energy_breakdown",
    "area_breakdown", "operating_points", "applications", "notes", "note", "provenance", "source", "chip", "points",
    "preset", "missing", "published", "derived", "title", "authors", "accuracy", "network",
)  # fmt: skip
ELSEWHERE = {
    "supply": "supply_v", "vdd": "supply_v", "vdd_v": "supply_v", "voltage": "supply_v", "node": "node_nm",
    "technology": "node_nm", "technology_nm": "node_nm", "tech_nm": "node_nm", "rows": "array_rows",
    "cols": "array_cols", "columns": "array_cols", "array_columns": "array_cols", "macros": "macro_count",
    "rows_active": "active_rows", "parallel_rows": "active_rows", "adc": "adc_bits and adc_type",
    "bits": "input_bits and weight_bits", "precision": "input_bits and weight_bits",
}  # fmt: skip
SPARSITY = "input_bit_sparsity and weight_bit_sparsity (shares of bits that are zero), or input_density, weight_density"


def value_of(row: Mapping[str, Any], key: str) -> float | None:
    """A field as one number in its own unit; None where it is absent, a range, or words where bits are asked for.

    ValueError says what the field needs.
    """
    given, form = row.get(key), FORMS[key]
    if given is None or (isinstance(given, list) and _numbers(given)):
        return None
    number = _number(given, form)
    if number is None and form.bits and isinstance(given, str):
        return None
    if number is None or not form.low <= number <= form.high or (form.whole and number != int(number)):
        raise ValueError(form.need)
    return number


def _numbers(items: list[Any]) -> bool:
    return all(item is None or (isinstance(item, int | float) and not isinstance(item, bool)) for item in items)


def _number(given: Any, form: Form) -> float | None:
    """The number that a value is, text with its own unit included: "28 nm", "50%", "8b", "8 (pulse duration)"."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    if isinstance(given, int | float):
        return float(given)
    if form.bits:
        match = _BITS_TEXT.fullmatch(given.strip().lower())
        return float(match[1]) if match else None
    try:
        return float(given) if _PLAIN.fullmatch(given.strip()) else parse_quantity(given, form.unit) * form.scale
    except ConfigError:
        return None


def faults_of(row: Mapping[str, Any], known: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """(field, what it has, what it needs) of everything in a row that is no value of its field, or no field."""
    found: list[tuple[str, str, str]] = []
    for key, given in row.items():
        name = str(key)
        if name in FORMS:
            try:
                value_of(row, name)
            except ValueError as fault:
                found.append((name, f"{name} = {shown(given)}", str(fault)))
        elif need := _slip(name, row, known):
            got = f"{name} = {shown(given)}" if need == SPARSITY else f"{name}: unknown field"
            found.append((name, got, need))
    return found or _contradictions(row)


def _contradictions(row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    active, rows = value_of(row, "active_rows"), value_of(row, "array_rows")
    if active and rows and active > rows:
        return [("active_rows", f"active_rows = {active:g}", f"at most array_rows ({rows:g})")]
    return []


def _slip(name: str, row: Mapping[str, Any], known: tuple[str, ...]) -> str | None:
    """What a key that is no field was probably meant to be; None where that field is there as well."""
    if name in known or name in OTHERS or name in WORDS:
        return None
    if _SPARSE.search(name):
        return SPARSITY
    near = get_close_matches(name, [*FORMS, *WORDS], n=1, cutoff=0.85)
    meant = ELSEWHERE.get(name) or (near[0] if near else None)
    return None if meant is None or meant.split(" and ")[0] in row else meant


def shown(value: Any) -> str:
    """A value as the file has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
