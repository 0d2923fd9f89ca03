"""Sweeps inside one chip, and the one that the model does not follow."""

from __future__ import annotations

import pytest

from insitu.validate.sweeps import by_chip, sweeps

FOUND = sweeps()


@pytest.mark.parametrize("chip", ["jia_jssc_2020_cima", "sinangil_dong_7nm_2020_2021", "neurram_nature_2022"])
def test_median_error_is_at_most_a_tenth(chip: str) -> None:
    assert by_chip(FOUND)[chip] <= 0.10
    assert all(s.median_error <= 0.10 for s in FOUND if s.chip == chip)


def test_colonnade_moves_with_supply_as_no_capacitance_does() -> None:
    """Published: four times the energy at 0.8 V that it takes at 0.6 V; the gap stands in validation.md."""
    assert 0.3 < by_chip(FOUND)["colonnade_jssc_2021"] < 0.6


def test_a_quarter_of_the_points_and_two_factors_at_most() -> None:
    for sweep in FOUND:
        assert len(sweep.factors) <= 2
        assert sweep.fitted_on <= max(1, len(sweep.errors) // 4)
