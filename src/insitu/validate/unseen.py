"""A user's published figures: one entry, a list of them, or `chips:` with a list, in the form of silicon.yaml.

Every fault of the file comes in one error, with its line.  An entry that says what its chip is without `chip:` and
`points:` is described from the fields of silicon.yaml (described.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from insitu.base.errors import ChipError, ConfigError, did_you_mean
from insitu.base.schema import Config, Document, Metres, Seconds, Volts, load_yaml, validate
from insitu.base.units import parse_quantity
from insitu.device.cell import load_cell
from insitu.validate.entries import ALIASES, QUANTITIES, Entry, entry_of
from insitu.validate.fields import FORMS, faults_of, shown

KNOWN = (*QUANTITIES, *ALIASES)
UNITS = {"latency_s": ("s", 1.0), "power_w": ("W", 1.0), "area_mm2": ("m2", 1e6)}  # of text, and to the figure's unit
NEED = "a number above zero"
LIST = "a list is no figure: a number, or a number for each point"
Bits = Annotated[int, Field(ge=1, le=16)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1 << 20)]


def _known_cell(name: str) -> str:
    try:
        return load_cell(name).name
    except ChipError as fault:
        raise ValueError(fault.need + "".join(f"\t{way}" for way in fault.try_)) from None


def _number(key: str, value: Any) -> float | None:
    """A figure in its quantity's unit; text is one where it has a unit that the quantity takes ("65 mW"); else None."""
    name, scale = ALIASES.get(key, (key, 1.0))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) * scale
    if name not in UNITS or not isinstance(value, str) or not re.search(r"[A-Za-z]2?\s*$", value):
        return None
    unit, size = UNITS[name]
    try:
        return parse_quantity(value, unit) * size
    except ConfigError:
        return None


class Described(Config):
    """What a description says of a chip, or of one of its operating points; published.yaml explains the words."""

    node: Metres | None = Field(None, gt=0)
    supply: Volts | None = Field(None, gt=0)
    cell: Annotated[str, AfterValidator(_known_cell)] | None = None
    rows: Count | None = None
    cols: Count | None = None
    groups: Count | None = None
    slices: Bits | None = None
    bits_per_cell: Annotated[int, Field(ge=1, le=12)] | None = None
    pair: bool | None = None
    digital: bool | None = None
    input_bits: Bits | None = None
    weight_bits: Bits | None = None
    bits_per_pass: Bits | None = None
    adc_bits: Annotated[int, Field(ge=1, le=16)] | None = None
    columns_per_adc: Count | None = None
    macros: Count | None = None
    reads: Count | None = None
    integrate: bool | None = None
    adder: Literal["tree", "per_cell"] | None = None
    converter: Literal["sar", "flash", "ramp", "cco"] | None = None
    pulses: bool | None = None
    cycle: Seconds | None = Field(None, gt=0)
    input_density: Share | None = None
    weight_density: Share | None = None
    missing: tuple[str, ...] = ()


class _Given(Config):
    """One entry; what else it holds is for people."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1)
    kind: str | None = None
    measured: bool | None = None
    source: str | None = None
    preset: str | None = None
    chip: Described | None = None
    points: dict[str, Described] | None = None
    missing: tuple[str, ...] | None = None
    published: dict[str, Any] | None = None


class _File(Config):
    chips: tuple[_Given, ...]


def read_published(path: str) -> tuple[Entry, ...]:
    """Entries of a user's file; all are unseen."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(path, "cannot be read", "a YAML text file with published figures") from None
    document = _listed(path, load_yaml(path, text=text))
    validate(document, _File)
    rows: list[dict[str, Any]] = document.data["chips"]
    faults = [fault for i, row in enumerate(rows) for fault in _faults(document, i, row)]
    names = [row["name"] for row in rows]
    for i, name in enumerate(names):
        if name in names[:i]:
            faults.append(ConfigError(document.place(("chips", i)), f"name: {name} again", "a name of its own"))
    if faults:
        raise ConfigError.collect(faults)
    found: list[Entry] = []
    for i, row in enumerate(rows):
        figures, missing = _scaled(document.place(("chips", i)), row, alone=len(rows) == 1)
        entry = entry_of({**row, "published": figures, "missing": missing}, "unseen")
        found.append(entry if _own(row) else replace(entry, fields=row))
    return tuple(found)


def _listed(path: str, document: Document) -> Document:
    """The document as `chips:` with a list, whichever of the three forms it has."""
    data, start = document.data, ("chips",)
    if isinstance(data, dict) and "chips" in data:
        rows, start = data["chips"], ()
    elif isinstance(data, dict):
        rows, start = [data], ("chips", 0)
    else:
        rows = data
    if not isinstance(rows, list) or not rows:
        raise ConfigError(path, "no entries", "an entry with `name` and at least one quantity")
    places = {(*start, *keys): place for keys, place in document.places.items()}
    return Document({"chips": rows}, places, document.label)


def _faults(document: Document, index: int, row: Mapping[str, Any]) -> list[ConfigError]:
    """Keys that can only be slips of the pen: quantities nobody knows, points that have no figure."""
    at, faults = ("chips", index), list[ConfigError]()
    for name in row.get("published") or {}:
        if name not in KNOWN:
            need = f"one of {', '.join(KNOWN)}"
            faults.append(
                ConfigError(
                    document.place((*at, "published", name)), f"{name}: unknown quantity", need,
                    try_=did_you_mean(name, KNOWN),
                )
            )  # fmt: skip
    for name in row:
        near = get_close_matches(str(name), KNOWN, n=1, cutoff=0.88)
        if near and name not in KNOWN:
            faults.append(ConfigError(document.place((*at, name)), f"{name}: unknown quantity", near[0]))
    faults += _figure_faults(document, at, row)
    if not _own(row):
        slips = faults_of(row, KNOWN)
        faults += [ConfigError(document.place((*at, key)), got, need) for key, got, need in slips]
    labels = {str(p) for figures in _quantities(row).values() if isinstance(figures, dict) for p in figures}
    for label in row.get("points") or {}:
        if label not in labels and labels:
            need = f"one of the points of its figures: {', '.join(sorted(labels))}"
            where = document.place((*at, "points", label))
            faults.append(ConfigError(where, f"points.{label}: no such point", need, try_=did_you_mean(label, labels)))
    return faults


def _figure_faults(document: Document, at: tuple[str, int], row: Mapping[str, Any]) -> list[ConfigError]:
    """Figures that are no numbers above zero; a list, which is a range or a table, is kept and listed as no figure."""
    faults: list[ConfigError] = []
    for inside, figures in (((), row), (("published",), row.get("published") or {})):
        for key in (key for key in figures if key in KNOWN):
            points = figures[key] if isinstance(figures[key], dict) else {None: figures[key]}
            for label, value in points.items():
                number = _number(key, value)
                if value is None or isinstance(value, list) or (number is not None and number > 0):
                    continue
                path = (*inside, key) if label is None else (*inside, key, label)
                given = f"{json.dumps(value)} (text)" if number is None and isinstance(value, str) else shown(value)
                faults.append(ConfigError(document.place((*at, *path)), f"{'.'.join(map(str, path))} = {given}", NEED))
    return faults


def _own(row: Mapping[str, Any]) -> bool:
    """Whether an entry describes its chip in the words of published.yaml, not in the fields of a table."""
    return bool(row.get("chip") or row.get("preset") or (row.get("points") and not any(key in FORMS for key in row)))


def _quantities(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in row if key in KNOWN} | dict(row.get("published") or {})


def _scaled(where: str, row: Mapping[str, Any], *, alone: bool) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Figures by quantity and point in the units of published.yaml, and what is missing of them."""
    figures = dict[str, dict[str, float]]()
    missing, lists = list[str](row.get("missing") or ()), list[str]()
    for key, value in _quantities(row).items():
        name = ALIASES.get(key, (key, 1.0))[0]
        points = value if isinstance(value, dict) else {"": value}
        for label, given in points.items():
            if isinstance(given, list):
                lists.append(f"{key}{f'.{label}' if label else ''} ({LIST})")
            elif (number := _number(key, given)) is not None:
                figures.setdefault(name, {})[str(label)] = number
    if not figures and not alone:  # one of many: listed, not refused
        missing.append("an energy, throughput or latency")
    elif not figures:
        got = f"no figure to compare; {lists[0]}" if lists else "no figure to compare"
        raise ConfigError(f"{where}: {row['name']}", got, f"one of {', '.join(KNOWN)}")
    return figures, [*missing, *lists]
