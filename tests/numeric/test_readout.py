"""Readouts against their formulas."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from insitu.numeric.readout import adc_code, adc_range, wtm2101_code, wtm2101_join

ACC = st.integers(-(1 << 31), (1 << 31) - 1)


@given(
    acc=ACC,
    multiplier=st.integers(1, (1 << 31) - 1),
    shift=st.integers(0, 62),
    bits=st.integers(1, 24),
    signed=st.booleans(),
)
def test_an_adc_code_is_the_formula(acc, multiplier, shift, bits, signed):
    lo, hi = adc_range(bits, signed=signed)
    wanted = min(max(round(Fraction(acc * multiplier, 1 << shift)), lo), hi)
    assert int(adc_code(np.array(acc), multiplier, shift, bits=bits, signed=signed)) == wanted


@given(st.lists(ACC, min_size=1, max_size=20), st.integers(0, 20))
def test_a_step_of_one_and_a_covering_range_read_exactly(accs, shift):
    # M / 2**S = 1 in several spellings
    acc = np.array(accs)
    bits = max(int(np.abs(acc).max()), 1).bit_length() + 1
    assert np.array_equal(adc_code(acc, 1 << shift, shift, bits=bits, signed=True), acc)
    assert np.array_equal(adc_code(np.abs(acc), 1 << shift, shift, bits=bits, signed=False), np.abs(acc))


def test_a_range_that_does_not_cover_clips():
    assert adc_code(np.array([-1000, 1000]), 1, 0, bits=8, signed=True).tolist() == [-128, 127]
    assert adc_code(np.array([-1000, 1000]), 1, 0, bits=8, signed=False).tolist() == [0, 255]


@given(acc=ACC, power=st.integers(8, 13), relu=st.booleans())
def test_a_wtm2101_code_is_the_formula(acc, power, relu):
    lo = 0 if relu else -128
    wanted = min(max((math.trunc(Fraction(4 * acc, 1 << power)) + 2) >> 2, lo), 127)
    assert int(wtm2101_code(np.array(acc), 1 << power, lo=lo)) == wanted


@given(st.lists(st.integers(-128, 127), min_size=2, max_size=8), st.integers(0, 3), st.booleans())
def test_partial_codes_join_by_their_rounded_sum(partials, k, relu):
    lo = 0 if relu else -128
    wanted = min(max(round(Fraction(sum(partials), 1 << k)), lo), 127)
    assert int(wtm2101_join(np.array(partials)[:, None], k, lo=lo)[0]) == wanted
