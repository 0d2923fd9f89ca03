from __future__ import annotations

import pytest

from insitu.base.errors import ChipError
from insitu.device.cell import cells, load_cell


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
