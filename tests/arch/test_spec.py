"""What follows from a description: counts, ranges, times and peak rates."""

from __future__ import annotations

import pytest

from insitu.arch.load import load_chip

WTM, DCIM, RERAM = load_chip("wtm2101"), load_chip("dcim-28nm"), load_chip("parametric-reram-adc8")


def test_wtm2101_holds_1792_by_1024_cells() -> None:
    assert (WTM.weight_rows, WTM.weight_cols, WTM.capacity) == (1792, 1024, 1792 * 1024)
    assert (WTM.rows_per_region, WTM.cores, WTM.macros) == (896, 1, 1)
    assert WTM.input_range == (0, 255)
    assert WTM.weight_range == (-275, 275)


def test_wtm2101_peak_is_the_published_50_gops_and_two_reads_take_twice_as_long() -> None:
    assert WTM.peak_tops == pytest.approx(0.050, rel=0.01)
    assert WTM.t_vector == pytest.approx(2 * 37e-6)


def test_reserved_columns_are_not_for_weights() -> None:
    chip = load_chip("wtm2101", overrides=["macro.reserved_columns=128"])
    assert chip.weight_cols == 896


@pytest.mark.parametrize("chip", [DCIM, RERAM])
def test_the_parametric_chips_keep_common_networks_resident(chip: object) -> None:
    assert DCIM.capacity == RERAM.capacity == 2 << 20
    assert DCIM.cores == RERAM.cores == 4
    assert chip.macros == 128  # type: ignore[attr-defined]


def test_dcim_peak_follows_from_its_arrays() -> None:
    assert DCIM.t_vector == pytest.approx(8 * 5e-9, rel=1e-9, abs=0)
    assert DCIM.peak_tops == pytest.approx(128 * 2 * 256 * 64 / 40e-9 / 1e12)
    assert DCIM.input_range == (-128, 127)


def test_planes_and_slices() -> None:
    assert DCIM.plane_bits == (1,) * 8
    assert DCIM.slice_bits == (1,) * 8
    assert RERAM.slice_bits == (2,) * 4
    assert WTM.plane_bits == (8,)
    odd = load_chip("parametric-reram-adc8", overrides=["macro.input.bits_per_pass=3"])
    assert odd.plane_bits == (3, 3, 2)
    assert odd.macro.passes == 3


def test_an_adc_chip_pays_for_the_columns_that_share_a_converter() -> None:
    assert RERAM.t_pass == pytest.approx(100e-9 + 64 * 0.83e-9)
    assert RERAM.t_vector == pytest.approx(8 * RERAM.t_pass)
    assert RERAM.peak_tops == pytest.approx(128 * 2 * 256 * 64 / 800e-9 / 1e12)  # converting overlaps the next read
    slow = load_chip("parametric-reram-adc8", overrides=["macro.t_adc=5 ns"])
    assert slow.peak_tops == pytest.approx(128 * 2 * 256 * 64 / (8 * 320e-9) / 1e12)


def test_a_chip_scaled_up_scales_its_peak() -> None:
    larger = load_chip("dcim-28nm", overrides=["chip.tiles=16"])
    assert larger.peak_tops == pytest.approx(4 * DCIM.peak_tops)
