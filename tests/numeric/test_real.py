"""Functions of real numbers: error in units of the last place against float64, special values, exact sums."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from insitu.numeric import real, vector

RNG = np.random.default_rng(1)
WIDE = RNG.uniform(-8, 8, 100_000)
POSITIVE = np.abs(WIDE) + 1e-6
UNIT = WIDE / 8.0001
CASES = {
    "exp": (np.exp, WIDE * 10), "log": (np.log, POSITIVE * 10), "sin": (np.sin, WIDE), "cos": (np.cos, WIDE),
    "tan": (np.tan, WIDE), "atan": (np.arctan, WIDE), "erf": (special.erf, WIDE / 2), "tanh": (np.tanh, WIDE),
    "sigmoid": (special.expit, WIDE), "sinh": (np.sinh, WIDE), "cosh": (np.cosh, WIDE), "asin": (np.arcsin, UNIT),
    "acos": (np.arccos, UNIT), "asinh": (np.arcsinh, WIDE), "acosh": (np.arccosh, 1 + POSITIVE),
    "atanh": (np.arctanh, UNIT), "softplus": (lambda x: np.logaddexp(0, x), WIDE),
}  # fmt: skip


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest error in units of the last place of float32."""
    return float(np.nanmax(np.abs(found.astype(np.float64) - wanted) / np.spacing(np.abs(wanted).astype(np.float32))))


@pytest.mark.parametrize("name", CASES)
def test_float32_functions_keep_their_stated_bound(name: str) -> None:
    reference, points = CASES[name]
    x = points.astype(np.float32)
    found = getattr(real, name)(x)
    assert found.dtype == np.float32
    assert error(found, reference(x.astype(np.float64))) <= real.ULPS[name]


@pytest.mark.parametrize("name", CASES)
def test_float64_functions_are_good_to_fifty_bits(name: str) -> None:
    reference, points = CASES[name]
    assert np.allclose(getattr(real, name)(points), reference(points), rtol=2.0**-48, atol=2.0**-60)


def test_every_stated_bound_is_tested() -> None:
    assert set(real.ULPS) == {*CASES, "power"}


def test_powers_are_rounded_once() -> None:
    x, y = POSITIVE.astype(np.float32), UNIT.astype(np.float32)
    assert error(real.power(x, y), np.power(x.astype(np.float64), y.astype(np.float64))) <= real.ULPS["power"]
    with np.errstate(all="ignore"):
        bases, exponents = np.meshgrid(
            np.array([-np.inf, -2, -1, -0.5, 0, 0.5, 1, 2, np.inf], np.float32),
            np.array([-np.inf, -3, -2, -0.5, 0, 0.5, 1, 2, 3, np.inf], np.float32),
        )
        found = vector.binary("pow", bases, exponents)
    finite = np.isfinite(exponents) & np.isfinite(bases) & (bases != 0)
    with np.errstate(all="ignore"):
        wanted = np.power(bases, exponents)
    assert np.allclose(found[finite], wanted[finite], equal_nan=True)


def test_special_values() -> None:
    edges = np.array([-np.inf, -1000, 0, 1000, np.inf, np.nan], np.float32)
    with np.errstate(all="ignore"):
        assert np.array_equal(real.exp(edges), np.exp(edges), equal_nan=True)
        assert np.array_equal(real.tanh(edges), np.tanh(edges), equal_nan=True)
        assert np.array_equal(real.erf(edges), special.erf(edges), equal_nan=True)
        assert np.array_equal(real.log(edges)[[0, 2, 4, 5]], np.log(edges)[[0, 2, 4, 5]], equal_nan=True)


@given(st.lists(st.tuples(*(st.floats(-(2.0**60), 2.0**60, width=32),) * 2), min_size=1, max_size=40))
def test_products_are_exact_sums_rounded_once(pairs: list[tuple[float, float]]) -> None:
    a, b = (np.array(side, np.float32) for side in zip(*pairs, strict=True))
    exact = sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)), Fraction(0))
    found = vector.dot(a[None], b[:, None])[0, 0]
    assert found == np.float32(float(exact))  # a sum of so few products of 24 bits rounds alike by way of float64


def test_cancelling_products_are_summed_exactly() -> None:
    a = np.array([[1e8, 1.0, -1e8, 2.0**-20]], np.float32)
    b = np.array([[1e8], [3.0], [1e8], [1.0]], np.float32)
    assert vector.dot(a, b)[0, 0] == np.float32(3.0 + 2.0**-20)


def test_sums_are_a_tree_over_the_next_power_of_two() -> None:
    x = RNG.normal(size=5).astype(np.float32)
    a, b, c = x[0] + x[1], x[2] + x[3], x[4] + np.float32(0)
    assert vector.fold("sum", x, 1) == (a + b) + (c + np.float32(0))


def test_integers_divide_toward_zero_and_shift_past_their_width() -> None:
    a, b = np.array([7, -7, 7, -7, 5], np.int32), np.array([2, 2, -2, -2, 0], np.int32)
    assert vector.binary("div", a, b).tolist() == [3, -3, -3, 3, 0]
    assert vector.binary("shift_right", np.array([-8, 8], np.int8), np.array([9, 9], np.int8)).tolist() == [-1, 0]
    assert vector.binary("shift_left", np.array([1, 3], np.uint8), np.array([8, 1], np.uint8)).tolist() == [0, 6]
