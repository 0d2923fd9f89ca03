"""Digits of weights and inputs recombine to the numbers they were cut from."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from insitu.numeric.slicing import digit_shifts, input_planes, most_weight, offset_slices, slice_shifts, slice_weights


def joined(parts):
    return sum(digits << shift for shift, digits in parts)


@given(bits=st.integers(1, 15), step=st.integers(1, 16), seed=st.integers(0, 1 << 16))
def test_weight_slices_recombine(bits, step, seed):
    top = (1 << bits) - 1
    w = np.random.default_rng(seed).integers(-top, top, (5, 4), endpoint=True)
    w.flat[:3] = -top, top, 0
    slices = slice_weights(w, bits=bits, step=step)
    assert np.array_equal(joined(slices), w)
    assert all((np.abs(digits) < 1 << min(step, bits)).all() for _, digits in slices)
    assert len(slices) == -(-bits // step)


@given(step=st.integers(1, 6), count=st.integers(2, 6), shift=st.integers(1, 6), seed=st.integers(0, 1 << 16))
def test_overlapping_slices_recombine_and_fill_the_lowest_first(step, count, shift, seed):
    shift = min(shift, step)
    cap, most = (1 << step) - 1, most_weight(step, count, shift)
    w = np.random.default_rng(seed).integers(-most, most, (5, 4), endpoint=True)
    w.flat[:3] = -most, most, 0
    slices = slice_weights(w, bits=count * step, step=step, shift=shift)
    assert [s for s, _ in slices] == [shift * k for k in range(count)]
    assert np.array_equal(joined(slices), w)
    assert all((np.abs(digits) <= cap).all() and (digits * w >= 0).all() for _, digits in slices)
    for k, (place, digits) in enumerate(slices[1:], 1):  # one less would be more than those below hold
        rest = np.abs(w) - sum(np.abs(d) << s for s, d in slices[k + 1 :])
        fewer = rest - ((np.abs(digits) - 1) << place)
        assert (fewer[digits != 0] > most_weight(step, k, shift)).all()


def test_slices_as_far_apart_as_they_are_wide_are_digits():
    w = np.arange(-255, 256)
    plain, close = slice_weights(w, bits=8, step=4), slice_weights(w, bits=8, step=4, shift=4)
    assert all(a == b and np.array_equal(p, q) for (a, p), (b, q) in zip(plain, close, strict=True))


@given(bits=st.integers(2, 16), step=st.integers(1, 17), seed=st.integers(0, 1 << 16))
def test_offset_slices_less_their_reference_recombine(bits, step, seed):
    middle = 1 << (bits - 1)
    w = np.random.default_rng(seed).integers(-middle, middle, (5, 4))
    held, shifts = offset_slices(w, bits=bits, step=step), [s for s, _ in slice_weights(w, bits=bits, step=step)]
    assert np.array_equal(joined((s, cells - reference) for s, (cells, reference) in zip(shifts, held, strict=True)), w)
    assert all((cells >= 0).all() and (cells < 1 << min(step, bits)).all() for cells, _ in held)
    digits = slice_weights(w, bits=bits, step=step, offset=True)
    assert np.array_equal(joined(digits), w)
    assert all((d >= 0).all() for _, d in digits[:-1])  # only the top one has a sign


@given(bits=st.integers(1, 15), step=st.integers(1, 16), signed=st.booleans(), seed=st.integers(0, 1 << 16))
def test_input_planes_recombine(bits, step, signed, seed):
    lo, hi = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    x = np.random.default_rng(seed).integers(lo, hi, (3, 6), endpoint=True)
    x.flat[:2] = lo, hi
    planes = input_planes(x, bits=bits, step=step, signed=signed)
    assert np.array_equal(joined(planes), x)
    assert all((digits >= 0).all() and (digits < 1 << step).all() for _, digits in planes[:-1])


@given(seed=st.integers(0, 1 << 16), step_x=st.integers(1, 8), step_w=st.integers(1, 8))
def test_a_product_of_planes_and_slices_is_the_product(seed, step_x, step_w):
    rng = np.random.default_rng(seed)
    x, w = rng.integers(-128, 128, (3, 7)), rng.integers(-127, 128, (7, 5))
    planes = input_planes(x, bits=8, step=step_x, signed=True)
    slices = slice_weights(w, bits=7, step=step_w)
    total = sum((plane @ digits) << (a + b) for a, plane in planes for b, digits in slices)
    assert np.array_equal(total, x @ w)


def test_digit_positions():
    assert digit_shifts(8, 3) == (0, 3, 6)


def test_the_least_slice_is_the_one_that_is_not_full():
    assert slice_shifts(7, 2) == (0, 1, 3, 5)
    assert slice_shifts(7, 4) == (0, 3)
    assert slice_shifts(8, 2) == (0, 2, 4, 6)
    assert slice_shifts(3, 4) == (0,)
