"""Measurements of cells from a CSV, as laboratories write them: units in headers, other separators, gaps, repeats.

Columns by name: target and measured (same kind of quantity), time (after programming), cell (any text), temperature.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ConfigError, did_you_mean
from insitu.base.units import parse_quantity

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
LEAST = 30
APART = 30.0  # medians of targets and levels that are further apart are of two units
NAMES: Mapping[str, str] = {
    "target": "target", "set": "target", "setpoint": "target", "asked": "target", "g_target": "target",
    "measured": "measured", "read": "measured", "g_measured": "measured", "g_read": "measured", "g_meas": "measured",
    "time": "time", "t": "time", "elapsed": "time", "cell": "cell", "device": "cell", "id": "cell", "cell_id": "cell",
    "device_id": "cell", "temperature": "temperature", "temp": "temperature",
}  # fmt: skip
BLANK = ("", "nan", "na", "n/a", "-", "--", "null", "none", "inf", "+inf", "-inf")
FORM = "a CSV with columns target, measured[, time, cell]"
_HEADER = re.compile(r"\s*(?P<name>.*?)[\s_]*(?:[(\[]\s*(?P<unit>[^)\]]*?)\s*[)\]])?\s*")


@dataclass(frozen=True)
class Column:
    """A column that is used: where it stands, and its unit as the header has it ("" where it has none)."""

    at: int
    unit: str


@dataclass(frozen=True)
class Measurements:
    """Rows with numbers, one unit a kind of quantity (SI where headers have units); cells numbered from 0."""

    target: Floats
    measured: Floats
    time: Floats
    cell: Ints
    timed: bool  # the table has times
    followed: bool  # the table says which cell a row is of
    notes: tuple[str, ...] = ()


def read_csv(path: str | Path) -> str:
    """A measurement file as text."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(str(path), "cannot be read", FORM) from None


def read(text: str, where: str) -> Measurements:
    """The measurements of a table; ConfigError says which line is none and what it needs."""
    lines = ((n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#"))
    number, header = next(lines, (1, ""))
    separator = max("\t;,|", key=header.count)
    names = [name.strip().strip('"') for name in next(csv.reader([header], delimiter=separator), [])]
    columns = _columns(names, f"{where}:{number}")
    kept, cells, blank = _rows(lines, columns, separator, len(names), where)
    if np.any(kept[:, 0] < 0):
        raise ConfigError(where, "targets below zero", "levels of single cells; a pair's two cells are two rows")
    if len(kept) < LEAST or not np.any(kept[:, 0] > 0):
        raise ConfigError(where, f"{len(kept)} measurements", f"at least {LEAST}, of levels above zero")
    notes = [f"{blank} rows without a number left out"] if blank else []
    notes += _unused(names, columns)
    scaled = kept * np.array([_scale(columns, key, where) for key in ("target", "measured", "time", "temperature")])
    _check(scaled, where)
    notes += [f"all at temperature {kept[0, 3]:g} {columns['temperature'].unit}"] if "temperature" in columns else []
    ids = np.unique(cells, return_inverse=True)[1] if "cell" in columns else np.arange(len(kept))
    if "cell" in columns:  # a device asked for another level is another cell
        ids = np.unique(np.column_stack([ids, scaled[:, 0]]), axis=0, return_inverse=True)[1].ravel()
    found: Floats = np.column_stack([scaled[:, :3], ids.astype(np.float64)])
    if "cell" in columns:
        single = np.unique(found, axis=0)
        notes += [f"{len(found) - len(single)} rows twice, counted once"] if len(single) < len(found) else []
        found = single
    own = found[:, 3].astype(np.int64)
    timed, followed = "time" in columns, "cell" in columns
    return Measurements(found[:, 0], found[:, 1], found[:, 2], own, timed, followed, tuple(notes))


def _columns(names: Sequence[str], where: str) -> dict[str, Column]:
    """The columns that are known by their names."""
    found: dict[str, Column] = {}
    for at, header in enumerate(names):
        name, unit = _name_and_unit(header)
        if (key := NAMES.get(name)) is None:
            continue
        if key in found:
            raise ConfigError(where, f"{key} twice", "one column of each name")
        found[key] = Column(at, unit)
    for needed in ("target", "measured"):
        if needed not in found:
            if names and all(_number(name) is not None for name in names):
                raise ConfigError(where, f"no header: {', '.join(names)}", "a first line such as target,measured")
            got = f"columns {', '.join(names) or 'none'}"
            raise ConfigError(where, got, f"a column called {needed}", try_=did_you_mean(needed, names))
    return found


def _name_and_unit(header: str) -> tuple[str, str]:
    """("target", "uS") of "Target (uS)", "target [uS]" and "target_uS"."""
    match = _HEADER.fullmatch(header)
    assert match is not None
    name, unit = match["name"].lower(), match["unit"] or ""
    if name in NAMES or unit:
        return re.sub(r"\s+", "_", name), unit
    front, _, back = re.sub(r"\s+", "_", match["name"]).rpartition("_")
    return (front.lower(), back) if front.lower() in NAMES else (name, "")


def _rows(
    lines: Iterator[tuple[int, str]], columns: Mapping[str, Column], separator: str, width: int, where: str
) -> tuple[Floats, list[str], int]:
    """(numbers [row, (target, measured, time, temperature)], cells, rows without a number)."""
    order = [(key, columns[key].at) for key in ("target", "measured", "time", "temperature") if key in columns]
    places = [("target", "measured", "time", "temperature").index(key) for key, _ in order]
    cell = columns["cell"].at if "cell" in columns else None
    kept, cells, blank = list[list[float]](), list[str](), 0
    numbers, texts = list[int](), list[str]()
    for n, line in lines:
        numbers.append(n)
        texts.append(line)
    for n, values in zip(numbers, csv.reader(texts, delimiter=separator), strict=False):
        if len(values) > width:
            raise ConfigError(f"{where}:{n}", f"{len(values)} values", f"{width}, as the header has")
        row = [0.0, 0.0, 0.0, 0.0]
        for (key, at), place in zip(order, places, strict=True):
            text = values[at].strip() if at < len(values) else ""
            number = _number(text)
            if number is None and text.lower() not in BLANK:
                raise ConfigError(f"{where}:{n}: {key}", repr(text), "a number, or nothing where there is none")
            if number is None:
                blank += 1
                break
            row[place] = number
        else:
            kept.append(row)
            cells.append(values[cell].strip() if cell is not None and cell < len(values) else "")
    return np.array(kept, np.float64).reshape(-1, 4), cells, blank


def _number(text: str) -> float | None:
    """A finite number, with a comma or a point before its decimals."""
    try:
        value = float(text)
    except ValueError:
        try:
            value = float(text.replace(",", ".")) if text.count(",") == 1 and "." not in text else float("nan")
        except ValueError:
            return None
    return value if np.isfinite(value) else None


def _scale(columns: Mapping[str, Column], key: str, where: str) -> float:
    """What a column's numbers are multiplied by; levels in units that are not known keep them if both are the same."""
    if key not in columns or key == "temperature":
        return 1.0
    unit = columns[key].unit
    if key == "time":
        long = {"sec": "s", "secs": "s", "seconds": "s", "hours": "h", "hour": "h", "hr": "h", "minutes": "min"}
        long |= {"days": "d", "day": "d", "years": "y", "year": "y"}
        return parse_quantity(f"1 {long.get(unit.lower(), unit)}", "s", where=f"{where}: time") if unit else 1.0
    other = columns["measured" if key == "target" else "target"].unit
    if unit == other or not unit or not other:
        return _level_scale(unit or other, where)[1]
    (mine, scale), (theirs, _) = _level_scale(unit, where), _level_scale(other, where)
    if mine != theirs or not mine:
        raise ConfigError(where, f"target in {columns['target'].unit}, measured in {columns['measured'].unit}",
                          "the same kind of quantity in both, such as uS and nS")  # fmt: skip
    return scale


def _level_scale(unit: str, where: str) -> tuple[str, float]:
    """(kind, SI value) of a level's unit; ("", 1) where it is no unit of a conductance or current."""
    for kind in ("S", "A"):
        try:
            return kind, parse_quantity(f"1 {unit}", kind)
        except ConfigError:
            pass
    if re.fullmatch(r"[a-zA-Z]?(ohm|Ohm|Ω|Ω)s?", unit):
        raise ConfigError(where, f"levels in {unit}", "a conductance or current: a product adds 1/R, not R")
    return "", 1.0


def _check(rows: Floats, where: str) -> None:
    asked, got = float(np.median(rows[:, 0])), float(np.median(np.abs(rows[:, 1])))
    if not asked / APART < got < asked * APART and asked > 0:
        raise ConfigError(where, f"targets about {asked:g}, measured about {got:g}", "both in one unit",
                          try_=["units in the header: target (uS), measured (nS)"])  # fmt: skip
    if np.any(rows[:, 2] < 0):
        raise ConfigError(where, f"time {rows[:, 2].min():g}", "seconds after programming, from 0 on")
    if (values := len(np.unique(rows[:, 3]))) > 1:
        got = f"temperature has {values} values"
        raise ConfigError(where, got, "one: a cell is fitted at one temperature", try_=["a file for each temperature"])


def _unused(names: Sequence[str], columns: Mapping[str, Column]) -> list[str]:
    used = {column.at for column in columns.values()}
    left = [name for at, name in enumerate(names) if at not in used and name]
    return [f"columns not used: {', '.join(left)}"] if left else []
