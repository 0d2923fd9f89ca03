from __future__ import annotations

import numpy as np
import pytest

from insitu.arch.cells import REASONS, cell_rows
from insitu.base.errors import ChipError
from insitu.device.cell import Stuck, cells, load_cell
from insitu.device.faults import stick


def test_the_library_holds_what_the_presets_name() -> None:
    assert {"nor-flash-8b", "sram-6t-digital", "reram-1t1r-2b"} <= set(cells())


@pytest.mark.parametrize("name", cells())
def test_every_cell_loads_and_names_its_sources(name: str) -> None:
    cell = load_cell(name)
    assert cell.name == name
    assert "area_f2" in cell.sources
    for field in ("endurance", "read_current", "conductance", "programming"):
        if getattr(cell, field) is not None:
            assert cell.sources.get(field), f"{name}: {field} has no source"
    if cell.read_sd:
        assert cell.sources.get("read_sd"), f"{name}: read_sd has no source"


def test_an_unknown_cell_is_named_with_what_is_near() -> None:
    with pytest.raises(ChipError) as error:
        load_cell("nor-flash-8")
    assert error.value.try_[:1] == ("nor-flash-8b",)
    assert "sram-6t-digital" in str(error.value)


def test_levels_and_off_ratio() -> None:
    assert load_cell("nor-flash-8b").levels == 255
    assert load_cell("nor-flash-8b").off_ratio == 0.0
    assert load_cell("reram-1t1r-2b").off_ratio == pytest.approx(1 / 40)
    assert load_cell("nor-flash-8b").analog
    assert not load_cell("sram-6t-digital").analog


# property -> the fields that give it, and the key of its source
PROPERTIES = {
    "conductance": ("conductance", "read_current"), "read_voltage": ("read_voltage",), "read_pulse": ("read_pulse",),
    "write": ("write",), "programming": ("programming", "law"), "endurance": ("endurance",), "stuck": ("stuck",),
    "retention": ("retention",), "drift": ("drift", "law"), "read_sd": ("read_sd", "law", "noise"),
    "activation": ("activation",),
}  # fmt: skip


@pytest.mark.parametrize("name", cells())
@pytest.mark.parametrize("wanted", PROPERTIES)
def test_every_property_has_a_value_with_a_source_or_a_reason(name: str, wanted: str) -> None:
    cell = load_cell(name)
    given = [field for field in PROPERTIES[wanted] if getattr(cell, field)]
    for field in given:
        assert cell.sources.get(field), f"{name}: {field} has no source"
    if not given:
        assert cell.sources.get(wanted, "").startswith(REASONS), f"{name}: nothing is said of {wanted}"


def test_what_is_not_known_says_why_on_the_page() -> None:
    rows = dict(cell_rows(load_cell("nor-flash-8b")))
    assert rows["drift"].startswith("not known: the vendor names a circuit")
    assert dict(cell_rows(load_cell("sram-6t-digital")))["retention"] == "none: held while there is power"


def test_kinds_of_the_library() -> None:
    kinds = {load_cell(name).kind for name in cells()}
    assert kinds == {
        "nor_flash", "sonos", "nand", "reram", "pcm", "mram", "fefet", "sram", "dram", "gain_cell",
    }  # fmt: skip
    assert {"sram-6t-current", "sram-8t-current", "sram-8t1c-charge", "sram-6t-digital"} <= set(cells())


def test_faults_hold_their_level_whatever_is_programmed() -> None:
    """Of 1e5 cells the stated shares are off, on and open; an open cell conducts nothing, which is below level 0."""
    stuck = Stuck(off=0.02, on=0.03, open=0.01)
    uniform = np.random.default_rng(0).random(100_000)
    held = stick(np.full(100_000, 2.0), uniform, stuck, full_scale=3.0, off_ratio=0.25)
    shares = {level: float((held == level).mean()) for level in (0.0, 3.0, -1.0)}
    assert shares == {
        0.0: pytest.approx(0.02, abs=2e-3),
        3.0: pytest.approx(0.03, abs=2e-3),
        -1.0: pytest.approx(0.01, abs=2e-3),
    }
    assert float((held == 2.0).mean()) == pytest.approx(0.94, abs=3e-3)
    with pytest.raises(ValueError, match="at most 1"):
        Stuck(off=0.6, on=0.5)
