"""The table of other simulators' defects names a test for each, and every test it names exists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "design" / "defects.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if re.match(r"\| \d ", line)
]
# what was measured of each (section of the list, simulator): how many defects
MEASURED = {"1 CrossSim": 3, "2 aihwkit": 6, "3 NeuroSim": 3, "4 MNSIM": 1, "4 Accelergy": 1, "4 hwcomponents": 1}


def test_every_measured_defect_has_a_row() -> None:
    found = Counter(row[0] for row in ROWS)
    assert {name: found[name] for name in MEASURED} == MEASURED


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1][:40])
def test_its_tests_exist(row: list[str]) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[2])
    assert named
    for file, name in named:
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file} has no {name}"
