"""Costs: published silicon where it is published, closed forms elsewhere, an origin for every number."""

from __future__ import annotations

import pytest

from insitu.arch.cost import (
    EVENTS,
    area,
    area_breakdown,
    event_energy,
    host_idle,
    leakage,
    peak_efficiency,
    peak_tops,
    static_power,
)  # fmt: skip
from insitu.arch.load import load_chip, presets

WTM, DCIM, RERAM = load_chip("wtm2101"), load_chip("dcim-28nm"), load_chip("parametric-reram-adc8")


@pytest.mark.parametrize("name", presets())
def test_every_event_has_an_energy_and_an_origin(name: str) -> None:
    energy = event_energy(load_chip(name))
    assert tuple(energy) == EVENTS
    for metric in energy.values():
        assert metric.value is not None
        assert metric.value >= 0
        assert metric.unit == "J"
        assert metric.note
    assert energy["mac"].value
    for metric in (leakage(load_chip(name)), host_idle(load_chip(name)), area(load_chip(name))):
        assert metric.value
        assert metric.value > 0
        assert metric.note


def test_digital_macros_reach_the_published_22_tops_per_watt() -> None:
    """Yan et al., ISSCC 2022 11.7 at 8b x 8b, 28 nm, 0.9 V; a second chip (ISSCC 2023 7.2) has 19.5."""
    assert peak_efficiency(DCIM).value == pytest.approx(22, rel=0.01)


def test_digital_area_has_the_published_density() -> None:
    """65536 bits in 0.1462 mm2 (ISSCC 2023 7.2): 16 Mib of macros."""
    macros = area_breakdown(DCIM)["macros"].value
    assert macros == pytest.approx((16 << 20) / 65536 * 0.1462e-6, rel=1e-3)


def test_analog_efficiencies_lie_among_published_ones() -> None:
    """NOR flash: 5.2 (Fick, ISSCC 2022) and 7.48 TOPS/W (Jin) whole chips; ReRAM: NeuRRAM 6.4, PUMA 0.84 at 16 bit."""
    wtm, reram = peak_efficiency(WTM).value, peak_efficiency(RERAM).value
    assert wtm is not None
    assert 4 < wtm < 20
    assert reram is not None
    assert 0.8 < reram < 7


def test_static_power_of_wtm2101_is_its_lowest_published_current() -> None:
    """0.07 mA in voice activity detection, at an assumed 3.3 V."""
    assert static_power(WTM).value == pytest.approx(0.07e-3 * 3.3, rel=0.01)


def test_a_number_in_the_chip_file_wins_and_keeps_its_origin() -> None:
    assert leakage(WTM).value == 80e-6
    assert leakage(WTM).source == "assumed"
    chip = load_chip("dcim-28nm", overrides=["energy.mac=50 fJ", "sources.energy=a datasheet"])
    mac = event_energy(chip)["mac"]
    assert (mac.value, mac.source, mac.note) == (50e-15, "measured", "a datasheet")
    unsourced = load_chip("dcim-28nm", overrides=["energy.mac=50 fJ"])
    assert event_energy(unsourced)["mac"].source == "assumed"
    die = load_chip("dcim-28nm", overrides=["area.die=30 mm2"])
    assert area(die).value == pytest.approx(30e-6)


def test_more_resolution_costs_more() -> None:
    def adc(bits: int) -> float:
        chip = load_chip("parametric-reram-adc8", overrides=[f"macro.readout.bits={bits}"])
        return event_energy(chip)["adc"].value or 0.0

    assert adc(6) < adc(8) < adc(10)


def test_peak_is_a_metric() -> None:
    assert peak_tops(DCIM).value == DCIM.peak_tops
    assert peak_tops(DCIM).unit == "TOPS"
