"""Sweeps inside one chip: a quarter of its points sets the level, all of them judge the shape."""

from __future__ import annotations

import pytest

from insitu.validate.sweeps import by_chip, sweeps

FOUND = sweeps()


CHIPS = ["jia_jssc_2020_cima", "sinangil_dong_7nm_2020_2021", "neurram_nature_2022", "colonnade_jssc_2021"]


@pytest.mark.parametrize("chip", CHIPS)
def test_median_error_is_at_most_a_tenth(chip: str) -> None:
    assert by_chip(FOUND)[chip] <= 0.10
    assert all(s.median_error <= 0.10 for s in FOUND if s.chip == chip)


def test_a_quarter_of_the_points_and_two_factors_at_most() -> None:
    for sweep in FOUND:
        assert len(sweep.factors) <= 2
        assert sweep.fitted_on <= max(1, len(sweep.errors) // 4)
