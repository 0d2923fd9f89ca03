"""Quantities are parsed and printed here ("10 ns" <-> 1e-8); everywhere else they are plain SI floats."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache

from insitu.base.errors import ConfigError, did_you_mean

SI_PREFIXES: Mapping[str, int] = {
    "a": -18, "f": -15, "p": -12, "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
BINARY_PREFIXES: Mapping[str, int] = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50}
DAY = 86_400.0
YEAR = 365.25 * DAY  # the Julian year
LONG_TIMES: Mapping[str, float] = {"min": 60.0, "h": 3600.0, "d": DAY, "y": YEAR}

_PREFIXED = ("s", "Hz", "J", "W", "V", "A", "m", "K", "S", "F", "Ohm")
_COUNTED = ("B", "bit", "B/s", "bit/s")
_NUMBER = re.compile(r"[-+]?(?:\d+(?:_\d+)*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
KINDS = (*_PREFIXED, "m2", *_COUNTED, "1")


def parse_quantity(value: str | float, unit: str, *, where: str = "") -> float:
    """The SI value of "10 ns", or of a plain number, which is SI already.

    `unit` is one of KINDS and says what is expected ("s", "B", "m2", "1"...).  Seconds also take min, h, d and y,
    bytes and bits take decimal (kB) and binary (KiB) prefixes, kelvin takes degC, "1" takes %.
    Anything else raises ConfigError.
    """
    need = f"a quantity in {unit}, such as {_EXAMPLES[unit]}"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigError(where or repr(value), repr(value) if where else "", need)
    if isinstance(value, str):
        number = _parse_text(value, unit, where, need)
    else:
        number = float(value)
    if not math.isfinite(number):
        raise ConfigError(where or repr(value), repr(value) if where else "not a finite number", need)
    return number


def parse_time(value: str | float, *, where: str = "") -> float:
    """Seconds of "0s", "250 ns", "1h", "1d" or "1y" (365.25 days); a plain number is seconds; never negative."""
    seconds = parse_quantity(value, "s", where=where)
    if seconds < 0:
        raise ConfigError(where or repr(value), repr(value) if where else "a negative time", "a time of 0 s or later")
    return seconds


def format_quantity(value: float | None, unit: str, *, digits: int = 3) -> str:
    """The value for people: "10 ns", "8 KiB", "1.5 mm2", "3 h"; `digits` significant digits; None is "not known"."""
    if value is None or not math.isfinite(value):
        return "not known"
    number, shown = _scale(float(value), unit, digits)
    return _digits(number, digits) if shown in ("", "1") else f"{_digits(number, digits)} {shown}"


def _parse_text(text: str, unit: str, where: str, need: str) -> float:
    stripped = text.strip()
    match = _NUMBER.match(stripped)
    if match is None:
        raise ConfigError(where or repr(text), repr(text) if where else "no number at the start", need)
    number, suffix = match.group().replace("_", ""), stripped[match.end() :].strip()
    if not suffix:
        return float(number)
    scale = _suffixes(unit).get(suffix)
    if scale is None:
        raise ConfigError(
            where or repr(text),
            f"{text!r}, unit {suffix!r}" if where else f"unit {suffix!r}",
            need,
            try_=did_you_mean(suffix, _suffixes(unit)),
        )
    if suffix in ("degC", "°C"):
        return float(number) + 273.15
    factor, exponent = scale
    # The decimal exponent is added to the text, so that "37 us" is exactly 3.7e-05 as a person would write it.
    return float(_shift(number, exponent)) * factor


def _shift(number: str, exponent: int) -> str:
    mantissa, _, power = number.lower().partition("e")
    return f"{mantissa}e{int(power or 0) + exponent}"


@cache
def _suffixes(unit: str) -> Mapping[str, tuple[float, int]]:
    """Suffix -> (factor, decimal exponent) of one kind."""
    if unit == "1":
        return {"%": (1.0, -2)}
    if unit == "m2":
        lengths = {**SI_PREFIXES, "c": -2, "d": -1}
        squares = {f"{prefix}m": (1.0, 2 * power) for prefix, power in lengths.items()}
        return {f"{name}{two}": scale for name, scale in squares.items() for two in ("2", "²", "^2")}
    names = {"Ohm": ("Ohm", "ohm", "Ω", "Ω")}.get(unit, (unit,))
    table = {f"{prefix}{name}": (1.0, power) for name in names for prefix, power in SI_PREFIXES.items()}
    for sign in ("µ", "μ"):  # the micro sign and the Greek letter
        table.update({f"{sign}{name}": (1.0, -6) for name in names})
    if unit in _COUNTED:
        table = {name: scale for name, scale in table.items() if scale[1] >= 0}
        table.update({f"{prefix}{unit}": (2.0**power, 0) for prefix, power in BINARY_PREFIXES.items()})
    if unit == "s":
        table.update({name: (seconds, 0) for name, seconds in LONG_TIMES.items()})
    if unit == "K":
        table.update({"degC": (1.0, 0), "°C": (1.0, 0)})
    return table


_EXAMPLES: Mapping[str, str] = {
    "s": "10 ns", "Hz": "24 MHz", "J": "5 pJ", "W": "3 mW", "V": "1.2 V", "A": "10 uA", "m": "40 nm", "K": "300 K",
    "S": "25 uS", "F": "1 fF", "Ohm": "5 kOhm", "m2": "0.5 mm2", "B": "8 KiB", "bit": "8 bit", "B/s": "2 GB/s",
    "bit/s": "10 Gbit/s", "1": "0.5",
}  # fmt: skip


def _scale(value: float, unit: str, digits: int) -> tuple[float, str]:
    """The number and the unit to print it in."""
    size = abs(value)
    if unit == "s" and size >= 60.0:
        name, seconds = max((entry for entry in LONG_TIMES.items() if entry[1] <= size), key=lambda entry: entry[1])
        return value / seconds, name
    if unit in ("B", "bit"):
        fitting = [(prefix, 2.0**power) for prefix, power in BINARY_PREFIXES.items() if 2.0**power <= size]
        prefix, factor = fitting[-1] if fitting else ("", 1.0)
        return value / factor, f"{prefix}{unit}"
    if unit == "m2":
        area, power = ("m2", 0) if size >= 1e-2 else ("mm2", -6) if size >= 1e-8 else ("um2", -12)
        return value / 10.0**power, area
    if unit in ("K", "1") or unit not in KINDS or size == 0.0:
        return value, unit
    rounded = float(f"{size:.{digits - 1}e}")  # 999.9 is printed as 1 k, not as 1000
    power = 3 * (math.floor(math.log10(rounded) + 1e-12) // 3)
    power = min(max(power, 0 if unit in _COUNTED else -18), 18)
    prefix = next(name for name, exponent in SI_PREFIXES.items() if exponent == power)
    return float(f"{value!r}e{-power}") if "e" not in repr(value) else value / 10.0**power, f"{prefix}{unit}"


def _digits(number: float, digits: int) -> str:
    """Significant digits without an exponent where a person would not write one."""
    rounded = float(f"{number:.{digits - 1}e}")
    if rounded == 0.0 or 1e-4 <= abs(rounded) < 1e6:
        places = max(0, digits - 1 - math.floor(math.log10(abs(rounded)))) if rounded else 0
        text = f"{rounded:,.{places}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{rounded:.{digits}g}"
