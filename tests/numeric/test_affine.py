"""Rounding, requantize and scales against exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.base.errors import RangeError
from insitu.numeric.affine import (
    ROUNDINGS,
    QuantSpec,
    dequantize,
    multiplier_of,
    quantize,
    requantize,
    round_shift,
)

VALUES = (-2.5, -1.5, -0.75, -0.6, -0.5, 0.5, 1.5, 2.5)
TABLE = {  # DESIGN 2, "Rounding modes, by value"
    "half_even": (-2, -2, -1, -1, 0, 0, 2, 2),
    "half_away": (-3, -2, -1, -1, -1, 1, 2, 3),
    "half_up": (-2, -1, -1, -1, 0, 1, 2, 3),
    "floor": (-3, -2, -1, -1, -1, 0, 1, 2),
    "trunc": (-2, -1, 0, 0, 0, 0, 1, 2),
    "trunc_q2": (-2, -1, -1, 0, 0, 1, 2, 3),
}
INT64 = st.integers(-(1 << 62), (1 << 62) - 1)


def test_float32_numbers_are_divided_in_float32_as_onnx_does() -> None:
    """0.45 / 0.3 is 1.5 in float32, a tie, and a little less in float64."""
    spec = QuantSpec(8, signed=True, scale=(float(np.float32(0.3)),))
    x = np.array([0.45, 0.75, -0.45], np.float32)
    assert quantize(x, spec).tolist() == np.rint(x / np.float32(0.3)).tolist()
    own = QuantSpec(8, signed=True, scale=(0.3,))  # no float32 holds this scale
    assert quantize(x, own).tolist() == np.rint(x.astype(np.float64) / 0.3).tolist()


def exact(value: Fraction, mode: str) -> int:
    """The rounding modes in words, on rationals."""
    if mode == "floor":
        return math.floor(value)
    if mode == "trunc":
        return math.trunc(value)
    if mode == "half_up":
        return math.floor(value + Fraction(1, 2))
    if mode == "half_away":
        return int(math.copysign(1, value)) * math.floor(abs(value) + Fraction(1, 2))
    if mode == "trunc_q2":
        return (math.trunc(4 * value) + 2) >> 2
    return round(value)  # half to even


@pytest.mark.parametrize("mode", ROUNDINGS)
def test_every_value_of_the_rounding_table(mode):
    # -0.6 has no finite binary form; the nearest multiple of 2**-40 rounds the same way
    shift = 40
    codes = round_shift(np.array([round(v * 2**shift) for v in VALUES]), shift, mode)
    assert codes.tolist() == list(TABLE[mode])


def test_the_table_names_every_mode():
    assert set(TABLE) == set(ROUNDINGS)


@pytest.mark.parametrize("mode", ROUNDINGS)
@given(value=INT64, shift=st.integers(0, 62))
def test_round_shift_is_exact(mode, value, shift):
    assert int(round_shift(np.array(value), shift, mode)) == exact(Fraction(value, 1 << shift), mode)


@pytest.mark.parametrize("mode", ROUNDINGS)
def test_round_shift_at_the_ends_of_int64(mode):
    for value in (-(1 << 63), (1 << 63) - 1):
        for shift in (0, 1, 2, 3, 31, 62):
            assert int(round_shift(np.array(value), shift, mode)) == exact(Fraction(value, 1 << shift), mode)


@pytest.mark.parametrize("mode", ROUNDINGS)
def test_shifts_per_element(mode):
    values, shifts = np.array([-7, 5, 5, -5]), np.array([0, 1, 2, 1])
    wanted = [exact(Fraction(int(v), 1 << int(s)), mode) for v, s in zip(values, shifts, strict=True)]
    assert round_shift(values, shifts, mode).tolist() == wanted


@given(
    acc=st.integers(-(1 << 31), (1 << 31) - 1),
    multiplier=st.integers(0, (1 << 31) - 1),
    shift=st.integers(0, 62),
    zero=st.integers(-128, 127),
    bounds=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    mode=st.sampled_from([m for m in ROUNDINGS if m != "trunc_q2"]),
)
def test_requantize_is_the_formula_with_an_int64_product(acc, multiplier, shift, zero, bounds, mode):
    lo, hi = sorted(bounds)
    wanted = min(max(exact(Fraction(acc * multiplier, 1 << shift), mode) + zero, lo), hi)
    got = requantize(np.array(acc), multiplier, shift, zero_point=zero, lo=lo, hi=hi, rounding=mode)
    assert int(got) == wanted


@given(st.floats(2.0**-30, 2.0**30))
def test_a_multiplier_keeps_31_bits(ratio):
    multiplier, shift = multiplier_of(ratio)
    assert 0 < multiplier[0] < 1 << 31
    assert 0 <= shift[0] <= 62
    assert abs(Fraction(int(multiplier[0]), 1 << int(shift[0])) / Fraction(ratio) - 1) <= Fraction(1, 1 << 31)


@given(st.integers(-30, 30))
def test_a_power_of_two_is_kept_exactly(exponent):
    for pure in (False, True):
        multiplier, shift = multiplier_of(2.0**exponent, power_of_two=pure)
        assert Fraction(int(multiplier[0]), 1 << int(shift[0])) == Fraction(2) ** exponent
        assert multiplier[0] == 1 or shift[0] == 0


@given(st.floats(2.0**-30, 2.0**30))
def test_a_shift_only_chip_gets_the_nearest_power_of_two(ratio):
    multiplier, shift = multiplier_of(ratio, power_of_two=True)
    value = Fraction(int(multiplier[0]), 1 << int(shift[0]))
    assert multiplier[0] & (multiplier[0] - 1) == 0
    assert abs(math.log2(value / Fraction(ratio))) <= 0.5 + 1e-9


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan, math.inf, 2.0**40, 2.0**62, 2.0**200])
@pytest.mark.parametrize("pure", [False, True])
def test_ratios_that_no_multiplier_expresses_are_refused(ratio, pure):
    with pytest.raises(RangeError):
        multiplier_of(ratio, power_of_two=pure)


@pytest.mark.parametrize("exponent", [-64, -80, -93, -94, -107, -125, -126, -300])
@pytest.mark.parametrize("pure", [False, True])
def test_ratios_that_bring_every_sum_to_zero_are_zero(exponent, pure):
    multiplier, shift = multiplier_of(1.3 * 2.0**exponent, power_of_two=pure)
    assert multiplier[0] == 0
    assert 0 <= shift[0] <= 62
    for acc in (-(1 << 31), (1 << 31) - 1):
        assert requantize(np.array(acc), multiplier, shift, zero_point=3, lo=-128, hi=127).item() == 3


def test_small_ratios_keep_fewer_bits_but_stay_close():
    for exponent in range(-50, -30):
        multiplier, shift = multiplier_of(1.7 * 2.0**exponent)
        value = int(multiplier[0]) / 2.0 ** int(shift[0])
        assert value == pytest.approx(1.7 * 2.0**exponent, rel=2.0**-10)


@given(
    bits=st.integers(2, 16),
    signed=st.booleans(),
    scale=st.floats(1e-3, 1e3),
    data=st.data(),
)
def test_codes_survive_the_way_out_and_back(bits, signed, scale, data):
    lo = -(1 << (bits - 1)) if signed else 0
    zero = data.draw(st.integers(lo, lo + (1 << bits) - 1))
    spec = QuantSpec(bits, signed=signed, scale=(scale,), zero_point=zero)
    codes = np.array([spec.lo, spec.hi, zero, data.draw(st.integers(spec.lo, spec.hi))])
    assert np.array_equal(quantize(dequantize(codes, spec), spec), codes)
    assert dequantize(np.array([zero]), spec)[0] == 0.0
    assert quantize(np.array([1e9, -1e9]) * scale, spec).tolist() == [spec.hi, spec.lo]


def test_a_scale_per_channel_stands_along_its_axis():
    spec = QuantSpec(8, signed=True, scale=(1.0, 2.0), axis=1)
    real = dequantize(np.ones((3, 2, 4), np.int64), spec)
    assert real[0, :, 0].tolist() == [1.0, 2.0]
    assert np.array_equal(quantize(real, spec), np.ones((3, 2, 4)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 0}, {"bits": 33}, {"scale": ()}, {"scale": (0.0,)}, {"scale": (math.nan,)}, {"scale": (1.0, 2.0)},
        {"zero_point": 128}, {"signed": False, "zero_point": -1},
    ],
)  # fmt: skip
def test_specs_that_mean_nothing_are_refused(wrong):
    with pytest.raises(RangeError):
        QuantSpec(**{"bits": 8, "signed": True, "scale": (1.0,), **wrong})
