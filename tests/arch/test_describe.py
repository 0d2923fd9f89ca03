from __future__ import annotations

import json

import pytest

from insitu.arch.describe import describe, schema_text
from insitu.arch.load import load_chip, presets


@pytest.mark.parametrize("name", presets())
def test_a_page_says_what_it_is_and_where_its_numbers_come_from(name: str) -> None:
    chip = load_chip(name)
    page = describe(chip)
    assert page.startswith(name)
    assert page.endswith("\n")
    assert f"{chip.capacity:,} weights" in page
    assert "energy of one event" in page
    for path, text in chip.sources.items():
        assert text in page, path
    assert page.isascii() or "µ" not in page


def test_assumptions_are_marked() -> None:
    lines = describe(load_chip("wtm2101")).splitlines()
    assert any(line.startswith("! macro.columns_per_adc: assumption") for line in lines)
    assert any(line.startswith("  chip.host: [3]") for line in lines)


def test_the_wtm2101_page_has_its_rules() -> None:
    page = describe(load_chip("wtm2101"))
    for words in ("one macro of 1792 x 1024", "bias rows     16", "powers of two", "2 reads averaged", "320 KiB"):
        assert words in page
    assert "constant weights only" in page


def test_the_schema_is_json() -> None:
    assert json.loads(schema_text())["title"] == "Chip"
