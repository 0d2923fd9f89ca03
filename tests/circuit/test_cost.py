from __future__ import annotations

import pytest

from insitu.arch.load import load_chip
from insitu.circuit.cost import (
    adc_area,
    adc_energy,
    area_scale,
    converter_bits,
    converter_count,
    energy_scale,
    facts,
    macro_area,
    sram_access,
    tile_events,
)  # fmt: skip
from insitu.circuit.spec import Technology

WTM, DCIM, RERAM = load_chip("wtm2101"), load_chip("dcim-28nm"), load_chip("parametric-reram-adc8")


def process(node: float, supply: float) -> Technology:
    return Technology(node=node * 1e-9, supply=supply)


def test_every_component_names_its_source() -> None:
    for name, fact in facts().items():
        assert any("source" in key for key in fact), name


def test_energy_scaling_follows_the_published_polynomials() -> None:
    """Stillmaker and Baas 2017: 45 nm at 0.9 V to 32 nm at 0.9 V."""
    at45 = 1.103 * 0.81 - 0.362 * 0.9 + 0.2767
    at32 = 0.9559 * 0.81 - 0.7823 * 0.9 + 0.471
    assert energy_scale(32e-9, 0.9, from_node=45e-9, from_supply=0.9) == pytest.approx(at32 / at45)
    assert energy_scale(45e-9, 0.9, from_node=45e-9, from_supply=0.9) == 1.0
    between = energy_scale(28e-9, 0.9, from_node=45e-9, from_supply=0.9)
    at20 = 0.373 * 0.81 - 0.1582 * 0.9 + 0.04104
    assert at20 / at45 < between < at32 / at45
    assert energy_scale(3e-9, 0.8, from_node=7e-9, from_supply=0.8) == 1.0


def test_area_scales_with_the_square_of_the_node() -> None:
    assert area_scale(14e-9, from_node=28e-9) == pytest.approx(0.25)


def test_adc_of_the_published_formula() -> None:
    """(100 b + 0.001 * 4^b) V^2 fJ and 10^(1.206 - 0.0369 b) * 2^b um2 at 28 nm (Sun et al., ICCAD 2023)."""
    assert adc_energy(8, process(28, 1.0)) == pytest.approx((800 + 65.536) * 1e-15, rel=1e-9, abs=0)
    assert adc_energy(8, process(28, 0.5)) == pytest.approx(0.25 * (800 + 65.536) * 1e-15, rel=1e-9, abs=0)
    assert adc_area(8, process(28, 1.0)) == pytest.approx(10 ** (1.206 - 0.2952) * 256 * 1e-12, rel=1e-9, abs=0)


def test_sram_access_meets_its_points() -> None:
    """Horowitz 2014, 45 nm, 0.9 V: 64-bit access of 8 KB 10 pJ, 32 KB 20 pJ, 1 MB 100 pJ."""
    for kib, pj in ((8, 10), (32, 20), (1024, 100)):
        assert sram_access(kib * 1024, process(45, 0.9)) == pytest.approx(pj * 1e-12 / 8, rel=1e-9, abs=0)
    assert sram_access(2 << 20, process(45, 0.9)) > 100e-12 / 8


def test_events_of_one_vector_on_one_tile() -> None:
    assert tile_events(WTM, rows=256, cols=100) == {"mac": 51200, "dac": 512, "adc": 200, "shift_add": 100}
    assert tile_events(DCIM, rows=9, cols=16) == {"mac": 144, "dac": 9, "adc": 0, "shift_add": 0}
    conversions = 64 * 4 * 8
    events = {"mac": 16384, "dac": 256, "adc": conversions, "shift_add": conversions - 64}
    assert tile_events(RERAM, rows=256, cols=64) == events


def test_converters() -> None:
    assert (converter_bits(WTM), converter_count(WTM)) == (10, 128)
    assert (converter_bits(RERAM), converter_count(RERAM)) == (8, 4)
    assert converter_count(DCIM) == 0


def test_macro_areas_are_modelled() -> None:
    for chip in (WTM, DCIM, RERAM):
        assert 1e-9 < (macro_area(chip).value or 0.0) < 1e-5
