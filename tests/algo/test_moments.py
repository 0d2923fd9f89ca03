"""Extremes, mean and variance by channel: NumPy's, whatever the shape, and however samples come."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.algo.moments import joined, moments

SHAPES = [
    ((5, 1, 3, 40, 41), -3),
    ((6, 1, 7, 3, 3), -3),
    ((4, 1, 9, 16), -1),
    ((3, 1, 12), None),
    ((2, 1, 2, 70000), -2),
]


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_moments_are_those_of_all_numbers(shape: tuple[int, ...], axis: int | None) -> None:
    x = (np.random.default_rng(0).standard_normal(shape) * 3 + 100).astype(np.float32)
    rows = x.reshape(-1, 1) if axis is None else np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    exact = rows.astype(np.float64)
    for found in (moments(x, axis), joined([moments(x[:1], axis), moments(x[1:], axis)])):
        assert np.array_equal(found.low, exact.min(axis=0))
        assert np.array_equal(found.high, exact.max(axis=0))
        assert np.allclose(found.mean, exact.mean(axis=0), rtol=1e-13)
        assert np.allclose(found.var, exact.var(axis=0), rtol=1e-11)
        assert found.count == len(rows)


def test_numbers_of_one_value_have_no_variance() -> None:
    found = moments(np.full((4, 1, 3, 5), 1e6 + 0.125, np.float32), -2)
    assert np.array_equal(found.var, np.zeros(3))
    assert np.array_equal(found.mean, np.full(3, 1e6 + 0.125))
