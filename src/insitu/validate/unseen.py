"""A user's published figures: one entry, a list of them, or `chips:` with a list, in the form of silicon.yaml.

Every fault of the file comes in one error, with its line.  An entry that says what its chip is without `chip:` and
`points:` is described from the fields of silicon.yaml (described.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from insitu.base.errors import ChipError, ConfigError, did_you_mean
from insitu.base.schema import Config, Document, Metres, Seconds, Volts, load_yaml, validate
from insitu.device.cell import load_cell
from insitu.validate.entries import ALIASES, QUANTITIES, Entry, entry_of

KNOWN = (*QUANTITIES, *ALIASES)
Bits = Annotated[int, Field(ge=1, le=16)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1 << 20)]


def _figures(value: object) -> object:
    """A number above zero, or one a point; a list, which is a range or a table, is kept and listed as no figure."""
    points = value if isinstance(value, dict) else {"it": value}
    for label, number in points.items():
        if number is None or (isinstance(number, list) and not isinstance(value, dict)):
            continue
        if not isinstance(number, int | float) or isinstance(number, bool) or not number > 0:
            got = "" if label == "it" else f", which {label}: {number} is not"
            raise ValueError(f"a number above zero, or {{point: number}}{got}")
    return value


def _known_cell(name: str) -> str:
    try:
        return load_cell(name).name
    except ChipError as fault:
        raise ValueError(fault.need + "".join(f"\t{way}" for way in fault.try_)) from None


Figures = Annotated[Any, BeforeValidator(_figures)]


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
    published: dict[str, Figures] | None = None
    tops_per_w: Figures = None
    tops: Figures = None
    latency_s: Figures = None
    tops_per_mm2: Figures = None
    area_mm2: Figures = None
    power_w: Figures = None
    energy_efficiency_tops_per_w: Figures = None
    throughput_tops: Figures = None
    latency_ns_per_mvm: Figures = None
    compute_density_tops_per_mm2: Figures = None


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
        own = any(row.get(key) for key in ("chip", "points", "preset"))
        found.append(entry if own else replace(entry, fields=row))
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
    labels = {str(p) for figures in _quantities(row).values() if isinstance(figures, dict) for p in figures}
    for label in row.get("points") or {}:
        if label not in labels and labels:
            need = f"one of the points of its figures: {', '.join(sorted(labels))}"
            where = document.place((*at, "points", label))
            faults.append(ConfigError(where, f"points.{label}: no such point", need, try_=did_you_mean(label, labels)))
    return faults


def _quantities(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in row if key in KNOWN} | dict(row.get("published") or {})


def _scaled(where: str, row: Mapping[str, Any], *, alone: bool) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Figures by quantity and point in the units of published.yaml, and what is missing of them."""
    figures = dict[str, dict[str, float]]()
    missing, lists = list[str](row.get("missing") or ()), list[str]()
    for key, value in _quantities(row).items():
        name, scale = ALIASES.get(key, (key, 1.0))
        lists += (
            [f"{key} (a list is no figure: a number, or a number for each point)"] if isinstance(value, list) else []
        )
        points = value if isinstance(value, dict) else {"": value} if isinstance(value, int | float) else {}
        known = {str(label): number * scale for label, number in points.items() if number is not None}
        if known:
            figures[name] = figures.get(name, {}) | known
    if not figures and not alone:  # one of many: listed, not refused
        missing.append("an energy, throughput or latency")
    elif not figures:
        got = f"no figure to compare; {lists[0]}" if lists else "no figure to compare"
        raise ConfigError(f"{where}: {row['name']}", got, f"one of {', '.join(KNOWN)}")
    return figures, [*missing, *lists]
