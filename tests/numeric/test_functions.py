"""Fixed-point functions: their integers, and how far they are from the real ones."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from insitu.numeric.functions import SOFTMAX_ONE, softmax_codes, softmax_table


def test_the_table_holds_exponentials():
    table = softmax_table(0.05)
    assert table[0] == SOFTMAX_ONE
    assert (np.diff(table) <= 0).all()
    assert np.abs(table / SOFTMAX_ONE - np.exp(-0.05 * np.arange(256))).max() <= 2.0**-16


@given(codes=st.lists(st.integers(-128, 127), min_size=1, max_size=40), scale=st.floats(0.001, 1.0))
def test_softmax_is_the_rounded_quotient_of_table_entries(codes, scale):
    table = softmax_table(scale)
    e = [int(table[max(codes) - c]) for c in codes]
    wanted = [min((512 * v + sum(e)) // (2 * sum(e)), 255) for v in e]  # half up
    assert softmax_codes(np.array([codes]), table, zero_point=0, lo=0, hi=255)[0].tolist() == wanted


@given(codes=st.lists(st.integers(0, 255), min_size=2, max_size=12), scale=st.floats(0.002, 0.5))
def test_softmax_stays_within_one_code_of_the_real_function(codes, scale):
    real = np.exp(scale * (np.array(codes) - max(codes)))
    got = softmax_codes(np.array(codes), softmax_table(scale), zero_point=0, lo=0, hi=255) / 256
    assert np.abs(got - real / real.sum()).max() <= 1.0 / 256


@given(
    codes=st.lists(st.integers(0, 255), min_size=1, max_size=40),
    scale=st.floats(0.001, 1.0),
    step=st.floats(1e-4, 0.1),
)
def test_softmax_takes_any_output_scale(codes, scale, step):
    shift = 22 - math.floor(math.log2(1 / (256 * step)))
    multiplier = round(2.0**shift / (256 * step))
    table = softmax_table(scale, one=1 << 22)
    kind = {"zero_point": -3, "lo": -20000, "hi": 20000, "multiplier": multiplier, "shift": shift}
    real = np.exp(scale * (np.array(codes) - max(codes)))
    got = (softmax_codes(np.array(codes), table, **kind) + 3) * step
    assert np.abs(got - real / real.sum()).max() <= 0.5 * step + 2e-6
    part = Fraction(512 * int(table[0]) * multiplier, 2 * sum(int(table[max(codes) - c]) for c in codes) << shift)
    assert max(got) == (math.floor(part + Fraction(1, 2))) * step


def test_differences_past_the_table_count_as_its_end():
    table = softmax_table(1.0, 4)
    near = softmax_codes(np.array([0, 3]), table, zero_point=0, lo=0, hi=255)
    assert softmax_codes(np.array([0, 1000]), table, zero_point=0, lo=0, hi=255).tolist() == near.tolist()


def test_zero_point_and_bounds():
    table = softmax_table(0.1)
    assert softmax_codes(np.array([5]), table, zero_point=-128, lo=-128, hi=127).tolist() == [127]  # 256 - 128, clipped
