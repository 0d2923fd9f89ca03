"""The readouts as array functions: without physics bit for bit the integers, with it what the docstring says."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insitu.circuit.macro import read_codes, step_of
from insitu.numeric.readout import adc_code, wtm2101_code

GAINS = [1 << n for n in range(8, 14)]
LARGEST = 896 * 255 * 275 + 16 * 275 * 128


@dataclass(frozen=True)
class Readout:
    kind: str
    bits: int = 8
    signed: bool = True


WTM, EXACT = Readout("wtm2101"), Readout("exact", 32)


def literal(x: list[int], w: list[int], bias_rows: list[int], gain: int, low: int = -128) -> int:
    """y = clip((trunc(4 * (x . W + 128 * sum(bias_rows)) / G) + 2) >> 2, low, 127), in Python's own integers."""
    total = sum(a * b for a, b in zip(x, w, strict=True)) + 128 * sum(bias_rows)
    t = int(Fraction(4 * total, gain))  # int() of a fraction truncates toward zero
    return max(low, min(127, (t + 2) >> 2))


rows = st.integers(1, 24)
codes = st.integers(0, 255)
cells = st.integers(-275, 275)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_wtm2101_is_the_reference_formula_over_the_whole_range(data: st.DataObject) -> None:
    count = data.draw(rows)
    x = data.draw(st.lists(codes, min_size=count, max_size=count))
    w = data.draw(st.lists(cells, min_size=count, max_size=count))
    bias = data.draw(st.lists(cells, max_size=16))
    gain = data.draw(st.sampled_from(GAINS))
    low = data.draw(st.sampled_from([-128, 0]))
    acc = np.array([np.dot(x, w) + 128 * sum(bias)], np.int64)
    expected = literal(x, w, bias, gain, low)
    assert int(wtm2101_code(acc, gain, lo=low)[0]) == expected
    for given_acc in (acc, acc.astype(np.float64), acc.astype(np.float32) if abs(acc[0]) < 1 << 24 else acc):
        assert int(read_codes(given_acc, WTM, gain=gain, lo=low)[0]) == expected


@pytest.mark.parametrize("gain", GAINS)
def test_wtm2101_at_every_step_of_the_code_and_at_the_ends(gain: int) -> None:
    near = np.arange(-130 * gain, 130 * gain + 1, gain // 4)
    acc = np.concatenate([near + d for d in (-1, 0, 1)] + [np.array([-LARGEST, LARGEST])])
    expected = [literal([1], [int(a)], [], gain) for a in acc]
    assert wtm2101_code(acc, gain).tolist() == expected
    assert read_codes(acc, WTM, gain=gain).tolist() == expected
    assert read_codes(acc, WTM, gain=np.full(acc.shape, gain)).tolist() == expected


def test_wtm2101_rounds_as_the_table_of_modes_says() -> None:
    gain = 256
    values = {-2.5: -2, -1.5: -1, -0.75: -1, -0.6: 0, -0.5: 0, 0.5: 1, 1.5: 2, 2.5: 3}
    acc = np.array([round(v * gain) for v in values])
    assert read_codes(acc, WTM, gain=gain).tolist() == list(values.values())


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(-(1 << 24), 1 << 24), min_size=1, max_size=40),
    st.integers(1, (1 << 20) - 1),
    st.integers(0, 40),
    st.integers(1, 14),
    st.booleans(),
)
def test_adc_is_the_integer_readout_bit_for_bit(
    acc: list[int], multiplier: int, shift: int, bits: int, signed: bool
) -> None:
    sums = np.array(acc, np.int64)
    readout = Readout("adc", bits, signed)
    expected = adc_code(sums, multiplier, shift, bits=bits, signed=signed)
    for given_acc in (sums, sums.astype(np.float64)):
        found = read_codes(given_acc, readout, multiplier=multiplier, shift=shift)
        assert np.array_equal(found, expected)


def test_adc_ties_go_to_the_even_code() -> None:
    acc = np.array([-5, -3, -1, 1, 3, 5])
    assert read_codes(acc, Readout("adc", 8), multiplier=1, shift=1).tolist() == [-2, -2, 0, 0, 2, 2]


def test_an_adc_with_unit_step_and_a_covering_range_is_exact() -> None:
    acc = np.arange(-8192, 8192)
    assert np.array_equal(read_codes(acc, Readout("adc", 14)), read_codes(acc, EXACT))
    assert np.array_equal(read_codes(acc, EXACT), acc)


def test_gain_noise_and_offset_act_where_they_are_said_to() -> None:
    acc = np.array([[1024.0, 2048.0]])
    assert read_codes(acc, WTM, gain=1024, column_gain=np.array([2.0, 0.5])).tolist() == [[2, 1]]
    assert read_codes(acc, WTM, gain=1024, column_offset=np.array([3.0, -3.0])).tolist() == [[4, -1]]
    assert read_codes(acc, WTM, gain=1024, read_noise=1024.0).tolist() == [[2, 3]]
    adc = Readout("adc", 8)
    assert read_codes(acc, adc, shift=8, column_offset=1.0, read_noise=256.0).tolist() == [[6, 10]]
    assert read_codes(acc, adc, shift=2).tolist() == [[127, 127]]


def test_step_of_each_readout() -> None:
    assert step_of(WTM, gain=1024) == 1024
    assert step_of(Readout("adc"), multiplier=2, shift=4) == 8
    assert step_of(EXACT) == 1.0
