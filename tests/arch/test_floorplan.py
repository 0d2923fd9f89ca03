"""Floorplans, cell pages and temperature: what `insitu show` says of chips and cells."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from insitu.arch.cells import REASONS, cell_rows, describe_cell
from insitu.arch.cost import area_breakdown
from insitu.arch.describe import describe
from insitu.arch.floorplan import plan_json, plan_svg, plan_text
from insitu.arch.load import load_chip, presets
from insitu.arch.thermal import HOTTEST, junction, peak_watts
from insitu.base.units import format_quantity
from insitu.circuit.effects import chip_effects
from insitu.device.cell import cells, load_cell

ANALOG = [name for name in presets() if chip_effects(load_chip(name))]


@pytest.mark.parametrize("name", presets())
def test_the_plan_is_in_proportion_and_every_part_has_its_source(name: str) -> None:
    chip = load_chip(name)
    plan = plan_json(chip)
    parts = {key: m.value or 0.0 for key, m in area_breakdown(chip).items()}
    for block in plan["blocks"]:
        assert block["share"] == pytest.approx(parts[block["name"]] / sum(parts.values()))
        assert block["source"] in ("measured", "modelled", "assumed")
    assert sum(b["share"] for b in plan["blocks"]) == pytest.approx(1.0)
    text, drawing = plan_text(chip), ElementTree.fromstring(plan_svg(chip))
    assert all(b["name"] in text for b in (*plan["blocks"], *plan["power"]))
    rects = [r for r in drawing if r.tag.endswith("rect")]
    widths = [float(r.attrib["width"]) / 640 for r in rects]
    assert widths == pytest.approx([b["share"] for b in plan["blocks"]], abs=1e-4)


@pytest.mark.parametrize("name", ANALOG)
def test_every_effect_says_where_it_comes_from(name: str) -> None:
    assert all(e["source"] != "no source given" for e in plan_json(load_chip(name))["effects"])


@pytest.mark.parametrize("name", cells())
def test_a_cell_page_has_every_property_or_says_not_known(name: str) -> None:
    cell = load_cell(name)
    rows = dict(cell_rows(cell))
    assert all(rows.values())
    assert rows["write"].startswith(REASONS) == (cell.write is None)
    assert rows["retention"].startswith(REASONS) == (cell.retention is None)
    for key in ("write", "noise", "programming", "law", "conductance", "read_voltage", "endurance", "area_f2"):
        assert getattr(cell, key) is None or key in cell.sources, f"{name}: {key} has no source"
    assert cell.name in describe_cell(cell)


def test_power_warms_the_cells() -> None:
    chip = load_chip("dcim-28nm")
    heat = junction(chip, 2.0)
    assert heat.value == pytest.approx(300 + 5 * 2)
    assert "5 K/W" in heat.note
    assert junction(chip, None).value is None
    hot = junction(chip, 100.0)
    assert hot.value == HOTTEST
    assert "needs a package" in hot.note


@pytest.mark.parametrize("name", [n for n in presets() if n != "conformance-fp32"])  # no real chip: 13 kW
def test_no_chip_that_ships_is_too_hot_at_its_peak_rate(name: str) -> None:
    chip = load_chip(name)
    assert (junction(chip, peak_watts(chip)).value or 0.0) < HOTTEST


@pytest.mark.parametrize("name", presets())
def test_power_at_the_peak_is_all_that_flows(name: str) -> None:
    """What a page lists adds up to the figure above it; of the wtm2101 three quarters are what keeps it awake."""
    plan = plan_json(load_chip(name))
    assert sum(part["w"] for part in plan["power"]) == pytest.approx(plan["peak_w"])
    assert sum(part["share"] for part in plan["power"]) == pytest.approx(1.0)
    assert f"heat          {format_quantity(plan['peak_w'], 'W')} at the peak rate" in describe(load_chip(name))
