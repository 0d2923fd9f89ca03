"""Every instruction against cases small enough to work out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isa_programs import X, chip, exact, pipeline, pipeline_result, program

from insitu.base.errors import DataError, ProgramError
from insitu.isa.check import check_program
from insitu.isa.program import Binding, Location, Post, Program, Readout, Symbol, Tile, Vector
from insitu.isa.semantics import run
from insitu.isa.semantics_ops import _planes, _slices
from insitu.isa.table import table
from insitu.numeric.functions import softmax_codes, softmax_table
from insitu.numeric.slicing import input_planes, most_weight, slice_weights


def unary(op: str, vector: Vector, x: list[int], *, source: str, out: str, count: int, dtype: str = "i32") -> list[int]:
    """out = op(in) with the given descriptors of symbols x and y."""
    symbols = [Symbol("x", "input", "ram", "i8", len(x), 0), Symbol("y", "output", "ram", dtype, count, 64)]
    text = f"d0 = x {source}\nd1 = y {out}\ncode\n{op} d1, d0, v0\nHALT"
    built = program(symbols, text, vectors=(vector,))
    check_program(built)
    return run(built, {"x": np.array(x)})["y"].tolist()


def binary(op: str, vector: Vector, a: list[int], b: list[int]) -> list[int]:
    n = len(a)
    symbols = [
        Symbol("a", "input", "ram", "i8", n, 0),
        Symbol("b", "input", "ram", "i8", n, 16),
        Symbol("y", "output", "ram", "i32", n, 32),
    ]
    text = f"d0 = a +0 [{n}:1]\nd1 = b +0 [{n}:1]\nd2 = y +0 [{n}:1]\ncode\n{op} d2, d0, d1, v0\nHALT"
    built = program(symbols, text, vectors=(vector,))
    check_program(built)
    return run(built, {"a": np.array(a), "b": np.array(b)})["y"].tolist()


def mvm(
    binding: Binding, x: list[int], w: list[list[int]], *, on=None, out: str = "i32", **weights: list[int]
) -> list[int]:
    rows, cols = np.array(w).shape
    symbols = [Symbol("x", "input", "ram", "i16", rows, 0), Symbol("y", "output", "ram", out, cols, 64)]
    text = f"d0 = x +0 [{rows}:1]\nd1 = y +0 [{cols}:1]\ncode\nMVM d1, d0, b0\nHALT"
    built = program(symbols, text, bindings=(binding,), weights={"w": np.array(w, np.int16), **weights}, on=on)
    check_program(built)
    return run(built, {"x": np.array(x)})["y"].tolist()


def test_look_up_finds_entries_in_twos_complement_and_clips() -> None:
    symbols = [Symbol("x", "input", "ram", "i8", 4, 0), Symbol("y", "output", "ram", "i8", 4, 64)]
    text = "d0 = x +0 [4:1]\nd1 = y +0 [4:1]\ncode\nLUT d1, d0, v0\nHALT"
    vector = Vector(scale_a=2, lut="t", post=Post(lo=-8, hi=7))
    built = program(symbols, text, vectors=(vector,), weights={"t": np.array([9, 1, 2, 3, 4, 5, -60, 7], np.int32)})
    check_program(built)
    codes = np.array([0, 1, -1, 127])  # entries 0, 2, -2 = 6 and 254 = 6 of 8
    assert run(built, {"x": codes})["y"].tolist() == [7, 2, -8, -8]


def test_requantize() -> None:
    post = Post(multiplier=3, shift=1, zero_point=10, lo=-5, hi=30)
    vector = Vector(zero_a=1, scale_a=2, post=post)  # (x - 1) * 2 * 3 / 2 + 10
    assert unary("REQ", vector, [1, 2, -9, 100], source="+0 [4:1]", out="+0 [4:1]", count=4) == [10, 13, -5, 30]


def test_rounding_is_the_vectors() -> None:
    x = [-5, -3, 3, 5]  # halves of them
    for mode, expected in (("half_even", [-2, -2, 2, 2]), ("half_away", [-3, -2, 2, 3]), ("floor", [-3, -2, 1, 2])):
        vector = Vector(post=Post(shift=1, rounding=mode))
        assert unary("REQ", vector, x, source="+0 [4:1]", out="+0 [4:1]", count=4) == expected


def test_multiplier_per_element_repeats_along_ones() -> None:
    symbols = [
        Symbol("x", "input", "ram", "i8", 6, 0),
        Symbol("m", "weight", "ram", "i32", 3, 8, weight="m"),
        Symbol("y", "output", "ram", "i32", 6, 20),
    ]
    text = "d0 = x +0 [2:3, 3:1]\nd1 = y +0 [2:3, 3:1]\nd2 = m +0 [1:0, 3:1]\ncode\nREQ d1, d0, v0\nHALT"
    built = program(symbols, text, vectors=(Vector(multiplier=2),), weights={"m": np.array([1, 10, 100], np.int32)})
    check_program(built)
    assert run(built, {"x": np.arange(6)})["y"].tolist() == [0, 10, 200, 3, 40, 500]


def test_shift_per_element() -> None:
    symbols = [
        Symbol("x", "input", "ram", "i8", 2, 0),
        Symbol("s", "weight", "ram", "i32", 2, 8, weight="s"),
        Symbol("y", "output", "ram", "i32", 2, 20),
    ]
    text = "d0 = x +0 [2:1]\nd1 = y +0 [2:1]\nd2 = s +0 [2:1]\ncode\nREQ d1, d0, v0\nHALT"
    built = program(symbols, text, vectors=(Vector(shift=2),), weights={"s": np.array([0, 3], np.int32)})
    check_program(built)
    assert run(built, {"x": np.array([40, 40])})["y"].tolist() == [40, 5]


def test_add_and_mul() -> None:
    vector = Vector(zero_a=1, zero_b=2, scale_a=3, scale_b=-1, post=Post(lo=-100, hi=100))
    assert binary("ADD", vector, [1, 5, 100], [2, 0, 50]) == [0, 14, 100]
    assert binary("MUL", vector, [1, 5, -50], [7, 0, 50]) == [0, -8, -100]


def test_max_and_sum_over_windows() -> None:
    x = [1, 5, -2, 7, 0, 3]  # windows of 3 with stride 1 over 4 positions
    out, source = "+0 [4:1]", "+0 [4:1, 3:1]"
    assert unary("MAX", Vector(post=Post(lo=-128, hi=5)), x, source=source, out=out, count=4, dtype="i8") == [
        5,
        5,
        5,
        5,
    ]
    assert unary("MAX", Vector(), x, source=source, out=out, count=4, dtype="i8") == [5, 7, 7, 7]
    vector = Vector(zero_a=1, scale_a=2, post=Post(shift=1))
    assert unary("SUM", vector, x, source=source, out=out, count=4) == [1, 7, 2, 7]


def test_a_reduction_over_everything_has_no_dimensions_left() -> None:
    assert unary("SUM", Vector(), [1, 2, 3, 4], source="+0 [2:2, 2:1]", out="+0 []", count=1) == [10]


def test_softmax_is_the_fixed_point_function() -> None:
    lut = softmax_table(0.25)
    symbols = [Symbol("x", "input", "ram", "i8", 6, 0), Symbol("y", "output", "ram", "i8", 6, 8)]
    text = "d0 = x +0 [2:3, 3:1]\nd1 = y +0 [2:3, 3:1]\ncode\nSOFTMAX d1, d0, v0\nHALT"
    vector = Vector(post=Post(zero_point=-128, lo=-128, hi=127), lut="lut")
    built = program(symbols, text, vectors=(vector,), weights={"lut": lut})
    check_program(built)
    x = np.array([[1, 2, 3], [-100, 100, 100]])
    expected = softmax_codes(x, lut, zero_point=-128, lo=-128, hi=127)
    y = run(built, {"x": x.ravel()})["y"]
    assert y.tolist() == expected.ravel().tolist()
    assert y.tolist()[3:] == [-128, 0, 0]


def test_mma() -> None:
    symbols = [
        Symbol("a", "input", "ram", "i8", 8, 0),
        Symbol("b", "input", "ram", "i8", 4, 8),
        Symbol("y", "output", "ram", "i32", 8, 16),
    ]
    text = "d0 = a +0 [2:4, 2:2, 2:1]\nd1 = b +0 [2:0, 2:1, 2:2]\nd2 = y +0 [2:4, 2:2, 2:1]\n"
    text += "code\nMMA d2, d0, d1, v0\nHALT"
    built = program(symbols, text, vectors=(Vector(zero_a=1, zero_b=-1, post=Post(multiplier=2)),))
    check_program(built)
    a, b = np.arange(8).reshape(2, 2, 2), np.array([[3, 1], [0, -4]])  # b is read transposed, the same for both
    assert run(built, {"a": a.ravel(), "b": b.ravel()})["y"].tolist() == (2 * (a - 1) @ (b.T + 1)).ravel().tolist()


def test_fill_copy_and_accumulate() -> None:
    symbols = [Symbol("x", "input", "ram", "i8", 6, 0), Symbol("y", "output", "ram", "i32", 6, 8)]
    text = """
        d0 = x +0 [2:3, 3:1]
        d1 = y +0 [2:1, 3:2]
        d2 = y +5 [3:-2]
        code
        FILL d1, -300
        DMA d1, d0
        ACC d1, d0
        FILL d2, 9
        HALT
    """
    built = program(symbols, text)
    check_program(built)
    assert run(built, {"x": np.array([1, 2, 3, 4, 5, 6])})["y"].tolist() == [2, 9, 4, 9, 6, 9]


def test_a_command_reads_before_it_writes() -> None:
    symbols = [Symbol("s", "state", "ram", "i8", 4, 0), Symbol("y", "output", "ram", "i8", 4, 4)]
    text = "d0 = s +0 [3:1]\nd1 = s +1 [3:1]\nd2 = s +0 [4:1]\nd3 = y +0 [4:1]\ncode\nDMA d1, d0\nDMA d3, d2\nHALT"
    built = program(symbols, text)
    check_program(built)
    assert run(built, {}, states={"s": np.array([1, 2, 3, 4])})["y"].tolist() == [1, 1, 2, 3]


def test_loops_step_descriptors_outermost_first() -> None:
    symbols = [Symbol("x", "input", "ram", "i8", 6, 0), Symbol("y", "output", "ram", "i8", 6, 8)]
    text = """
        d0 = x +0 [] step (3, 1)
        d1 = y +0 [] step (1, 2)
        d2 = y +5 []
        code
        LOOP 2
        LOOP R
        DMA d1, d0
        ENDL
        ENDL
        FILL d2, 7
        HALT
    """
    built = program(symbols, text, sizes={"R": 3})
    check_program(built)
    x = np.array([1, 2, 3, 4, 5, 6])
    assert run(built, {"x": x}, sizes={"R": 3})["y"].tolist() == [1, 4, 2, 5, 3, 7]
    assert run(built, {"x": x}, sizes={"R": 2})["y"].tolist() == [1, 4, 2, 5, 0, 7]


def test_unsigned_and_wide_elements_are_little_endian_bytes() -> None:
    symbols = [
        Symbol("x", "input", "ram", "i16", 2, 0),
        Symbol("b", "output", "ram", "u8", 4, 0),
    ]  # one memory, two views
    built = program(symbols, "code\nHALT")
    assert run(built, {"x": np.array([-2, 258])})["b"].tolist() == [254, 255, 2, 1]


# MVM


def test_mvm_exact_with_zero_point_bias_and_columns() -> None:
    binding = exact(2, 2, bias="b", zero_in=3, post=Post(multiplier="m", shift=1, zero_point=1, lo=-50, hi=50))
    # acc = (5-3)*[1,2] + (1-3)*[3,-4] + [10,-1] = [6, 11]; m = [1, 20]; y = half_even([3, 110]) + 1, clipped
    y = mvm(binding, [5, 1], [[1, 2], [3, -4]], b=[10, -1], m=[1, 20])
    assert y == [4, 50]


def test_mvm_at_every_position_of_a_window() -> None:
    """A 2 x 2 convolution over a 3 x 3 image with 2 channels, by addressing only."""
    x, w = np.arange(18) % 5 - 2, np.arange(24).reshape(8, 3) % 7 - 3
    symbols = [Symbol("x", "input", "ram", "i8", 18, 0), Symbol("y", "output", "ram", "i32", 12, 20)]
    text = "d0 = x +0 [2:2, 2:6, 4:1] step (6)\nd1 = y +0 [2:3, 3:1] step (6)\ncode\nLOOP 2\nMVM d1, d0, b0\nENDL\nHALT"
    built = program(symbols, text, bindings=(exact(8, 3),), weights={"w": w})
    check_program(built)
    image, expected = x.reshape(3, 3, 2), []
    for i in range(2):
        for j in range(2):
            expected += (image[i : i + 2, j : j + 2].ravel() @ w).tolist()
    assert run(built, {"x": x})["y"].tolist() == expected


UNSIGNED = chip(macro={"input": {"bits": 8, "signed": False}})


def test_inputs_of_unsigned_drivers_are_shifted_and_clipped() -> None:
    binding = exact(3, 1, input_shift=1, input_offset=20, zero_in=20)
    assert mvm(binding, [-30, 5, 127], [[1], [10], [100]], on=UNSIGNED) == [-20 + 100 + 100 * 235]
    assert mvm(binding, [-30, 5, 127], [[1], [10], [100]]) == [-50 - 150 + 100 * 107]


def adc_chip(bits: int = 4):
    return chip(macro={"readout": {"kind": "adc", "bits": bits}})


def test_mvm_adc_reads_each_part() -> None:
    readout = Readout(kind="adc", bits=4, multiplier=1, shift=2, parts=(0, 2, 3))
    tiles = (Tile(0, 0, 2, 0, 1, 1, 0), Tile(0, 2, 1, 0, 1, 1, 2))
    binding = replace(exact(3, 1, readout=readout, bias="b"), tiles=tiles)
    # parts: 10 / 4 = 2.5 -> 2; 50 / 4 -> 7 clipped; + bias 100
    assert mvm(binding, [1, 9, 50], [[1], [1], [1]], on=adc_chip(), b=[100]) == [109]


def test_mvm_adc_slices_and_planes() -> None:
    readout = Readout(kind="adc", bits=4, signed=True, multiplier=1, shift=0, slice_bits=(4, 2), plane_bits=(8, 4))
    # w = -7: digits -3, -1; x = 33: planes 1, 2.  sums -3, -6, -1, -2 are within -8..7, so the product is exact
    assert mvm(exact(1, 1, readout=readout), [33], [[-7]], on=adc_chip()) == [-231]
    # x = -3: planes 13, -1: 13 * -3 and 13 * -1 clip to -8: -8 + 16*3 + 4*-8 + 64*1
    assert mvm(exact(1, 1, readout=readout), [-3], [[-7]], on=adc_chip()) == [-8 + 48 - 32 + 64]


@given(st.lists(st.tuples(st.integers(-128, 127), st.integers(-15, 15)), min_size=1, max_size=6))
def test_a_wide_converter_is_exact(pairs: list[tuple[int, int]]) -> None:
    x, w = [p[0] for p in pairs], [[p[1]] for p in pairs]
    readout = Readout(kind="adc", bits=20, multiplier=1, shift=0, slice_bits=(4, 2), plane_bits=(8, 3))
    assert mvm(exact(len(x), 1, readout=readout), x, w, on=adc_chip(20)) == [int(np.dot(x, np.ravel(w)))]


@given(st.lists(st.integers(-255, 255), min_size=1, max_size=9), st.sampled_from([1, 2, 3, 4]))
def test_digits_are_those_of_numeric(values: list[int], step: int) -> None:
    ours = _slices(values, Readout(slice_bits=(8, step)))
    assert ours == [(s, d.tolist()) for s, d in slice_weights(np.array(values), bits=8, step=step)]
    codes = [max(-128, min(127, v)) for v in values]
    offset = slice_weights(np.array(codes), bits=8, step=step, offset=True)
    readout = Readout(slice_bits=(8, step), encoding="offset_column")
    assert _slices(codes, readout) == [(s, d.tolist()) for s, d in offset]
    bytes_ = [v & 0xFF for v in values]
    planes = input_planes(np.array(bytes_), bits=8, step=step, signed=False)
    assert _planes(bytes_, (8, step)) == [(s, d.tolist()) for s, d in planes]
    signed = [v - 256 if v > 127 else v for v in bytes_]
    planes = input_planes(np.array(signed), bits=8, step=step, signed=True)
    assert _planes(signed, (8, step)) == [(s, d.tolist()) for s, d in planes]


@given(
    step=st.integers(1, 6), count=st.integers(2, 5), apart=st.integers(1, 6), values=st.lists(st.integers(-4000, 4000))
)
def test_overlapping_digits_are_those_of_numeric(step: int, count: int, apart: int, values: list[int]) -> None:
    apart = min(apart, step)
    most = most_weight(step, count, apart)
    values = [max(-most, min(most, v)) for v in values] + [most, -most, 0]
    theirs = slice_weights(np.array(values), bits=count * step, step=step, shift=apart)
    assert _slices(values, Readout(slice_bits=(count * step, step), slice_shift=apart)) == [
        (s, d.tolist()) for s, d in theirs
    ]


def test_mvm_adc_slices_that_overlap() -> None:
    readout = Readout(kind="adc", bits=5, signed=True, slice_bits=(4, 2), slice_shift=1)
    # 2 bits each, one apart, hold up to 3 + 2 * 3: w = -7 lies as -3 and -2, w = 3 in the low one alone
    assert mvm(exact(1, 2, readout=readout), [4], [[-7, 3]], on=adc_chip(5)) == [-12 + 2 * -8, 12]
    # x = 6: -18 clips to -16, -12 does not
    assert mvm(exact(1, 2, readout=readout), [6], [[-7, 3]], on=adc_chip(5)) == [-16 + 2 * -12, 15]


WTM = chip(
    array={"cell_range": [-275, 275]},
    macro={"input": {"bits": 8, "signed": False}, "readout": {"kind": "wtm2101", "gain": [256, 8192]}},
)


def vendor(acc: int, gain: int, lo: int) -> int:
    """reference/wtm2101.md section 0, literally: trunc is toward zero, >> is floor."""
    t = abs(4 * acc) // gain
    return min(max(((t if acc >= 0 else -t) + 2) >> 2, lo), 127)


@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(-275, 275)), min_size=1, max_size=8),
    st.integers(-35200, 35200),
    st.sampled_from([256, 1024, 8192]),
    st.sampled_from([-128, 0]),
)
def test_mvm_wtm2101(pairs: list[tuple[int, int]], bias_rows: int, gain: int, lo: int) -> None:
    x, w = [p[0] for p in pairs], [[p[1]] for p in pairs]
    binding = exact(len(x), 1, readout=Readout(kind="wtm2101", gain="g"), bias="b", post=Post(lo=lo, hi=127))
    acc = int(np.dot(x, np.ravel(w))) + 128 * bias_rows
    assert mvm(binding, x, w, on=WTM, out="i8", b=[128 * bias_rows], g=[gain]) == [vendor(acc, gain, lo)]


def test_mvm_wtm2101_joins_parts() -> None:
    readout = Readout(kind="wtm2101", gain=1024, k=2, parts=(0, 2, 3))
    tiles = (Tile(0, 0, 2, 0, 1, 1, 0), Tile(0, 2, 1, 0, 1, 1, 2))
    binding = replace(exact(3, 1, readout=readout, bias="b", post=Post(lo=0, hi=127)), tiles=tiles)
    # read at 1024 / 4 = 256: (256*10 + 1280)/256 = 15, -250*200/256 -> -128 clipped; (15 - 128) / 4, ReLU
    assert mvm(binding, [10, 0, 250], [[256], [0], [-200]], on=WTM, out="i8", b=[1280]) == [0]
    # 15 + 5 = 20; / 4 = 5
    assert mvm(binding, [10, 0, 5], [[256], [0], [256]], on=WTM, out="i8", b=[1280]) == [5]
    # 15 + 3 = 18; 4.5 -> 4, half to even
    assert mvm(binding, [10, 0, 3], [[256], [0], [256]], on=WTM, out="i8", b=[1280]) == [4]


# programs


def test_two_cores_hand_rows_over_in_any_order() -> None:
    act, y = pipeline_result()
    for order in ((), (0, 1), (1, 0)):
        found = run(pipeline(), {"x": X}, observe=("act",), order=order)
        assert found["y"].tolist() == y.tolist()
        assert found["act"].tolist() == act.tolist()


def test_observed_values_outlive_their_memory() -> None:
    symbols = [Symbol("a", "scratch", "ram", "i8", 2, 0), Symbol("b", "output", "ram", "i8", 2, 0)]
    text = "d0 = a +0 [2:1]\nd1 = b +0 [2:1]\ncode\nFILL d0, 3\nFILL d1, 4\nHALT"
    found = run(program(symbols, text), {}, observe=("a",))
    assert (found["a"].tolist(), found["b"].tolist()) == ([3, 3], [4, 4])
    symbols = [Symbol("a", "input", "ram", "i8", 2, 0), Symbol("b", "output", "ram", "i8", 2, 0)]
    found = run(program(symbols, text.replace("FILL d0, 3\n", "")), {"a": np.array([1, 2])}, observe=("a",))
    assert (found["a"].tolist(), found["b"].tolist()) == ([1, 2], [4, 4])


def accumulator() -> Program:
    """y = state += x."""
    symbols = [
        Symbol("x", "input", "ram", "i8", 2, 0),
        Symbol("s", "state", "ram", "i32", 2, 4, initial=100),
        Symbol("y", "output", "ram", "i32", 2, 12),
    ]
    text = "d0 = x +0 [2:1]\nd1 = s +0 [2:1]\nd2 = y +0 [2:1]\ncode\nACC d1, d0\nDMA d2, d1\nHALT"
    return program(symbols, text)


def test_states_start_at_their_initial_value_and_carry_on() -> None:
    check_program(accumulator())
    first = run(accumulator(), {"x": np.array([1, 2])}, observe=("s",))
    assert first["y"].tolist() == [101, 102]
    second = run(accumulator(), {"x": np.array([1, 2])}, states={"s": first["s"]})
    assert second["y"].tolist() == [102, 104]


def test_barrier_lets_all_sections_through_together() -> None:
    symbols = [Symbol("a", "scratch", "ram", "i8", 1, 0), Symbol("y", "output", "ram", "i8", 1, 1)]
    writer = "d0 = a +0 []\ncode\nLOOP 2\nFILL d0, 5\nBAR\nBAR\nENDL\nHALT"
    reader = "d0 = a +0 []\nd1 = y +0 []\ncode\nLOOP 2\nBAR\nDMA d1, d0\nBAR\nENDL\nHALT"
    built = program(symbols, (writer, reader))
    check_program(built)
    assert run(built, {}, order=(1, 0))["y"].tolist() == [5]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (("code\nAWAIT t1, 1\nHALT", "code\nHALT"), "deadlock: chip 0 core 0 at command 0, AWAIT t1"),
        (("code\nBAR\nHALT", "code\nHALT"), "deadlock: chip 0 core 0 at command 0, BAR"),
        (("code\nAWAIT t1, 1\nSIG t2\nHALT", "code\nAWAIT t2, 1\nSIG t1\nHALT"), "core 0 at .*core 1 at"),
        ("d0 = y +3 []\ncode\nFILL d0, 1\nHALT", r"command 0 \(FILL\).*element 3; needs 0 to 1"),
        ("d0 = y +0 []\ncode\nFILL d0, 300\nHALT", "value 300; needs -128 to 127"),
        ("d0 = y +0 []\ncode\nFILL d0, 3", "needs HALT"),
    ],
)
def test_what_cannot_go_on_says_why(code: str | tuple[str, ...], message: str) -> None:
    symbols = [Symbol("x", "input", "ram", "i8", 2, 0), Symbol("y", "output", "ram", "i8", 2, 2)]
    with pytest.raises(ProgramError, match=message):
        run(program(symbols, code), {"x": np.array([0, 0])})


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(DataError, match="needs integers"):
        run(pipeline(), {"x": X[:3]})
    with pytest.raises(DataError, match="needs integers"):
        run(pipeline(), {"x": X.astype(float)})
    with pytest.raises(DataError, match="no such value"):
        run(pipeline(), {"z": X})
    with pytest.raises(ProgramError, match="value 200"):
        run(pipeline(), {"x": X.astype(int) * 0 + 200})


def test_a_column_sum_past_32_bits_is_refused() -> None:
    with pytest.raises(ProgramError, match="needs 32 bits"):
        mvm(exact(2, 1, bias="b"), [100, 0], [[1], [1]], b=[(1 << 31) - 50])


def test_outputs_may_be_named_by_the_program() -> None:
    named = replace(
        pipeline(), meta={"outputs": ["act"]}, values={**pipeline().values, "z": Location("y", 0, (1,), (1,))}
    )
    assert list(run(named, {"x": X})) == ["act"]


def test_every_computing_instruction_has_semantics() -> None:
    from insitu.isa.semantics_ops import EXECUTE

    handled = {*EXECUTE, "SIG", "AWAIT", "BAR", "LOOP", "ENDL", "PRED", "ENDP", "SETD", "HALT", "CALL", "SUB", "RET"}
    assert handled == set(table().instructions)
