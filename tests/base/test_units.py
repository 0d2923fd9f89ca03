from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.base.errors import ConfigError
from insitu.base.units import KINDS, YEAR, format_quantity, parse_quantity, parse_time


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("10 ns", "s", 1e-8),
        ("37us", "s", 37e-6),
        ("37 µs", "s", 37e-6),
        ("24 MHz", "Hz", 24e6),
        ("40 nm", "m", 40e-9),
        ("1.2 V", "V", 1.2),
        ("5e3 fJ", "J", 5e-12),
        ("8 KiB", "B", 8192),
        ("320 KiB", "B", 320 * 1024),
        ("2 MB", "B", 2e6),
        ("8 bit", "bit", 8),
        ("0.5 mm2", "m2", 0.5e-6),
        ("120 um²", "m2", 120e-12),
        ("300 K", "K", 300),
        ("85 degC", "K", 358.15),
        ("25 uS", "S", 25e-6),
        ("5 kΩ", "Ohm", 5e3),
        ("2 GB/s", "B/s", 2e9),
        ("5 %", "1", 0.05),
        ("1h", "s", 3600),
        ("1d", "s", 86400),
        ("1y", "s", YEAR),
        ("3", "J", 3),
        (3, "J", 3),
        (1e-9, "s", 1e-9),
    ],
)
def test_parse(text: str | float, unit: str, value: float) -> None:
    assert parse_quantity(text, unit) == value


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        ("10 nz", "s"),
        ("10 ns", "J"),
        ("ns", "s"),
        ("", "s"),
        ("1 2 ns", "s"),
        ("10 n s", "s"),
        ("8 KB", "B"),
        ("1 mB", "B"),
        ("1e999 s", "s"),
        (True, "s"),
        (math.nan, "s"),
        (math.inf, "s"),
        ("5 MS", "s"),
        ("0x10 s", "s"),
    ],
)
def test_refuses(value: str | float, unit: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_quantity(value, unit, where="a.yaml:3")
    assert caught.value.where == "a.yaml:3"
    assert f"a quantity in {unit}, such as" in caught.value.need
    parse_quantity(caught.value.need.rpartition("such as ")[2], unit)  # the example is one


def test_wrong_prefix_is_answered() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_quantity("8 KB", "B")
    assert set(caught.value.try_) >= {"kB", "KiB"}


def test_time_is_never_negative() -> None:
    assert parse_time("0s") == 0
    with pytest.raises(ConfigError, match="0 s or later"):
        parse_time("-1h")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1e-8, "s", "10 ns"),
        (37e-6, "s", "37 us"),
        (999.96e-9, "s", "1 us"),
        (3600, "s", "1 h"),
        (90, "s", "1.5 min"),
        (8192, "B", "8 KiB"),
        (1000, "B", "1,000 B"),
        (1.5e-6, "m2", "1.5 mm2"),
        (0, "J", "0 J"),
        (-2.5e-3, "V", "-2.5 mV"),
        (300, "K", "300 K"),
        (0.12345, "1", "0.123"),
        (12345, "1/s", "12,300 1/s"),
        (12.5, "TOPS/W", "12.5 TOPS/W"),
        (None, "s", "not known"),
        (math.nan, "s", "not known"),
    ],
)
def test_format(value: float | None, unit: str, text: str) -> None:
    assert format_quantity(value, unit) == text


@given(
    st.sampled_from(KINDS),
    st.floats(1e-20, 1e20, allow_nan=False) | st.floats(-1e20, -1e-20) | st.just(0.0),
)
def test_what_is_printed_reads_back_to_three_digits(unit: str, value: float) -> None:
    text = format_quantity(value, unit).replace(",", "")
    assert parse_quantity(text, unit) == pytest.approx(value, rel=5.1e-3)


@given(st.integers(0, 10**6), st.sampled_from(["p", "n", "u", "m", "", "k", "M"]))
def test_a_prefix_is_the_power_of_ten_a_person_would_write(number: int, prefix: str) -> None:
    power = {"p": -12, "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6}[prefix]
    assert parse_quantity(f"{number} {prefix}J", "J") == float(f"{number}e{power}")
