"""Costs: published silicon where it is published, closed forms elsewhere, an origin for every number."""

from __future__ import annotations

import pytest

from insitu.arch.cost import (
    EVENTS,
    area,
    area_breakdown,
    duty,
    event_energy,
    host_idle,
    leakage,
    load_power,
    peak_efficiency,
    peak_power,
    peak_tops,
    static_power,
)  # fmt: skip
from insitu.arch.load import load_chip, presets
from insitu.base.errors import RangeError
from insitu.circuit.model import Operands

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
    for metric in (leakage(load_chip(name)), area(load_chip(name))):
        assert metric.value
        assert metric.value > 0
        assert metric.note
    for metric in (host_idle(load_chip(name)),):
        assert (metric.value or 0) >= 0
        assert metric.note


def test_digital_macros_reach_the_published_22_tops_per_watt() -> None:
    """Yan et al., ISSCC 2022 11.7 at 8b x 8b, 28 nm, 0.9 V; a second chip (ISSCC 2023 7.2) has 19.5."""
    assert peak_efficiency(DCIM).value == pytest.approx(22, rel=0.01)


def test_digital_area_has_the_published_density() -> None:
    """65536 bits in 0.1462 mm2 (ISSCC 2023 7.2): 16 Mib of macros."""
    macros = area_breakdown(DCIM)["macros"].value
    assert macros == pytest.approx((16 << 20) / 65536 * 0.1462e-6, rel=1e-3)


def test_analog_efficiencies_lie_among_published_ones() -> None:
    """NOR flash: 5.2 (Fick, ISSCC 2022) and 7.48 TOPS/W (Jin) whole chips; ReRAM: NeuRRAM 6.4 at 130 nm,
    PUMA 0.84 at 16 bit."""
    wtm, reram = peak_efficiency(WTM).value, peak_efficiency(RERAM).value
    assert wtm is not None
    assert 4 < wtm < 20
    assert reram is not None
    assert 0.8 < reram < 15


def test_static_power_of_wtm2101_is_its_lowest_published_current() -> None:
    """0.07 mA in voice activity detection, at an assumed 3.3 V."""
    assert static_power(WTM).value == pytest.approx(0.07e-3 * 3.3, rel=0.01)


PUBLISHED = {  # Guo et al. 2023, table 3: operations a second, mA of the whole chip
    "voice activity": (0.1e6, 0.07), "wake-up": (400e6, 0.4), "40 commands": (400e6, 0.6), "100 commands": (400e6, 0.8),
    "noise suppression": (800e6, 1.0), "speaker recognition": (1500e6, 2.0),
}  # fmt: skip


@pytest.mark.parametrize("task", PUBLISHED)
def test_wtm2101_at_work_draws_what_is_published(task: str) -> None:
    """Constants from the first and the last; the four between come out within a factor of 2, at 3.3 V."""
    operations, milliamperes = PUBLISHED[task]
    drawn = load_power(WTM, operations, tile=(256, 256)).value
    assert drawn is not None
    factor = drawn / 3.3 * 1e3 / milliamperes
    fitted = task in ("voice activity", "speaker recognition")
    assert factor == pytest.approx(1.0, abs=0.02) if fitted else 0.5 <= factor <= 2.0


def test_a_chip_that_cannot_keep_up() -> None:
    assert duty(WTM, 1500e6, tile=(256, 256)) == pytest.approx(0.847, abs=0.001)
    with pytest.raises(RangeError):
        duty(WTM, 2000e6, tile=(256, 256))


def test_a_number_in_the_chip_file_wins_and_keeps_its_origin() -> None:
    assert leakage(WTM).value == 80e-6
    assert leakage(WTM).source == "assumed"
    chip = load_chip("parametric-reram-adc8", overrides=["energy.mac=50 fJ", "sources.energy=a datasheet"])
    mac = event_energy(chip)["mac"]
    assert (mac.value, mac.source, mac.note) == (50e-15, "measured", "a datasheet")
    unsourced = load_chip("parametric-reram-adc8", overrides=["energy.mac=50 fJ"])
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


@pytest.mark.parametrize(("name", "tops", "watts", "mm2"), [("isaac", 40.9, 65.8, 85.4), ("puma", 52.31, 62.5, 90.6)])
def test_published_designs_add_up_to_their_published_totals(name: str, tops: float, watts: float, mm2: float) -> None:
    """ISAAC (ISCA 2016, Table 1; 0.47895 TOPS/mm2 x 85.4 mm2) and PUMA (ASPLOS 2019, Tables 3 and 6) within 5 %."""
    chip = load_chip(name)
    assert chip.peak_tops == pytest.approx(tops, rel=0.05)
    assert sum(part.value or 0 for part in peak_power(chip).values()) == pytest.approx(watts, rel=0.05)
    assert (area(chip).value or 0) * 1e6 == pytest.approx(mm2, rel=0.05)


def test_isaac_component_table() -> None:
    """Table 1: converters of a unit 16 mW, drivers 4 mW, arrays 2.4 mW, shift-add with sample-and-hold 0.21 mW."""
    units = load_chip("isaac").cores
    watts = {name: (part.value or 0) / units * 1e3 for name, part in peak_power(load_chip("isaac")).items()}
    assert [watts[n] for n in ("adc", "dac", "mac", "shift_add")] == pytest.approx([16, 4, 2.4, 0.2], rel=0.05)


def test_operands_move_the_energy_of_products() -> None:
    dense, idle = (peak_efficiency(RERAM, Operands(d, d)).value or 0 for d in (1.0, 0.0))
    default = peak_efficiency(RERAM).value or 0
    assert 0 < dense < default < idle
