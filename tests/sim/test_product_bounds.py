"""Every product path at its exactness bound and one beside it, and the kernels against the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.circuit.kernels import convert
from insitu.isa.program import Binding, Post, Readout
from insitu.numeric.affine import ROUNDINGS, requantize
from insitu.numeric.readout import adc_code, wtm2101_code
from insitu.sim.narrow import narrow, narrow_scalar, trunc_q2
from insitu.sim.products import FLOAT32_EXACT, FLOAT64_EXACT, exact_matrix, product_bound, product_type

PATHS = {np.float32: FLOAT32_EXACT, np.float64: FLOAT64_EXACT}


def reference(x, w):
    """The product in Python's integers."""
    rows = [[int(v) for v in row] for row in x]
    columns = [[int(v) for v in column] for column in w.T]
    return [[sum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in rows]


# which path is taken


@pytest.mark.parametrize("dtype", PATHS)
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_a_path_ends_where_its_numbers_do(dtype, beside):
    wider = {np.float32: np.float64, np.float64: np.int64}[dtype]
    assert product_type(PATHS[dtype] + beside) is (dtype if beside < 0 else wider)


def columns_of(bound, peak):
    """Weights, bias and a row of inputs whose column sum in magnitude is exactly `bound`."""
    most = 127
    rows = bound // (peak * most)
    rest = bound - rows * peak * most
    return np.full((rows, 1), most, np.int64), rest


@pytest.mark.parametrize("beside", [-1, 0, 1])
@pytest.mark.parametrize("peak", [255, 128])
def test_a_sum_at_the_float32_bound_is_exact(beside, peak):
    w, rest = columns_of(FLOAT32_EXACT + beside, peak)
    bias = np.array([rest])
    assert product_bound(w, peak=peak, bias=bias) == FLOAT32_EXACT + beside
    x = np.full((2, len(w)), peak)
    x[1] = peak - 1
    matrix = exact_matrix(w, peak=peak, bias=bias)
    assert matrix.data.dtype == (np.float32 if beside < 0 else np.float64)
    sums = matrix.times(x)
    assert sums.astype(np.int64).tolist() == reference(x, w)
    # the bias is added to what the product gave; in the product's own type it must fit as well
    assert int(sums[0, 0]) + rest == FLOAT32_EXACT + beside
    assert int((sums + bias.astype(sums.dtype))[0, 0]) == FLOAT32_EXACT + beside


@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_a_sum_at_the_float64_bound_is_exact(beside):
    bound, peak = FLOAT64_EXACT + beside, (1 << 31) - 1
    most = (1 << 20) + 1
    full = bound // (peak * most)
    rest = (
        bound - full * peak * most
    )  # one more row carries as much of the rest as peak divides, the bias the remainder
    w = np.array([[most]] * full + [[rest // peak]], np.int64)
    bias = np.array([rest % peak])
    assert product_bound(w, peak=peak, bias=bias) == bound
    matrix = exact_matrix(w, peak=peak, bias=bias)
    assert matrix.data.dtype == (np.float64 if beside < 0 else np.int64)
    x = np.array([[peak] * len(w), [peak - 1] * len(w), [-peak] * len(w)])
    assert matrix.times(x).astype(np.int64).tolist() == reference(x, w)


def test_float32_would_be_wrong_past_its_bound():
    """The bound is no caution: an odd sum above 2**24 is lost in float32."""
    w, x = np.full((519, 1), 127), np.full((1, 519), 255)
    wanted = reference(x, w)[0][0]
    assert wanted > FLOAT32_EXACT
    assert int((x.astype(np.float32) @ w.astype(np.float32))[0, 0]) != wanted


@pytest.mark.parametrize("rows", [513, 514, 515, 518, 519, 1024])
def test_full_columns_of_uint8_times_int8(rows):
    """2**24 / (255 * 128) = 514: the most rows of -128 that float32 sums exactly."""
    w, x = np.full((rows, 3), -128, np.int8), np.full((4, rows), 255, np.uint8)
    w[:, 1] = 127
    x[1] = 254
    x[2, ::2] = 1
    w[::3, 2] = -127
    matrix = exact_matrix(w, peak=255)
    assert matrix.data.dtype == (np.float32 if rows <= 513 or 255 * 128 * rows < FLOAT32_EXACT else np.float64)
    assert matrix.times(x).astype(np.int64).tolist() == reference(x, w)


@pytest.mark.parametrize("rows", [238, 239, 240, 896])
def test_full_columns_of_wtm2101_cells(rows):
    """2**24 / (255 * 275) = 239 rows."""
    w, x = np.full((rows, 2), -275, np.int16), np.full((3, rows), 255, np.uint8)
    w[::2, 1] = 275
    x[1, ::5] = 3
    matrix = exact_matrix(w, peak=255)
    assert matrix.data.dtype == (np.float32 if rows <= 239 else np.float64)
    assert matrix.times(x).astype(np.int64).tolist() == reference(x, w)


@given(
    rows=st.integers(1, 40), cols=st.integers(1, 5), peak=st.sampled_from([1, 127, 255, 1 << 16, 1 << 24]),
    size=st.sampled_from([1, 127, 275, 1 << 20]), seed=st.integers(0, 999),
)  # fmt: skip
def test_every_path_is_the_integer_product(rows, cols, peak, size, seed):
    rng = np.random.default_rng(seed)
    w = rng.integers(-size, size, (rows, cols), endpoint=True)
    x = rng.integers(-peak, peak, (3, rows), endpoint=True)
    assert exact_matrix(w, peak=peak).times(x).astype(np.int64).tolist() == reference(x, w)


# a macro's path, from codes to codes


def bound_matrix(model, w, bias, kind="exact", zero_in=0, **post):
    from insitu.isa.program import Program, Section, Tile, weight_ref

    tile = Tile(0, 0, w.shape[0], 0, w.shape[1], 0, 0)
    readout = Readout() if kind == "exact" else Readout("wtm2101", bits=8, gain=8192)
    binding = Binding("m", "w", "b", *w.shape, zero_in, (tile,), readout, Post(**post))
    section = Section(0, 0, (), (binding,), (), ())
    weights = {"w": weight_ref(w), "b": weight_ref(bias.astype(np.int32))}
    return model.bind(Program("p", {}, "", (), (section,), weights, {}), section, binding, dtype=np.uint8)


@pytest.mark.parametrize("rows", [512, 513, 514, 515, 516])
@pytest.mark.parametrize("bias", [0, 1, -1, 32639, 32640, 32641])
def test_macro_codes_at_the_bound(rows, bias):
    from insitu.sim.macro import MacroModel

    w, x = np.full((rows, 2), 127, np.int8), np.full((2, rows), 255, np.uint8)
    w[:, 1] = -128
    x[1, 0] = 254
    bound = bound_matrix(MacroModel(), w, np.array([bias, -bias]), lo=-(1 << 31), hi=(1 << 31) - 1)
    wanted = np.array(reference(x, w)) + np.array([bias, -bias])
    assert np.array_equal(MacroModel().read(bound, x), wanted)


@pytest.mark.parametrize("rows", [238, 239, 240])
@pytest.mark.parametrize("bias", [0, 128 * 275, -128 * 275])
def test_wtm2101_codes_at_the_bound(rows, bias):
    from insitu.sim.macro import MacroModel

    w, x = np.full((rows, 2), 275, np.int16), np.full((2, rows), 255, np.uint8)
    w[: rows // 2, 1] = -275
    x[1, ::2] = 254
    bound = bound_matrix(MacroModel(), w, np.array([bias, bias]), "wtm2101", lo=-128, hi=127)
    wanted = wtm2101_code(np.array(reference(x, w)) + bias, 8192)
    assert np.array_equal(MacroModel().read(bound, x), wanted)


@pytest.mark.parametrize("kind", ["exact", "wtm2101"])
def test_a_zero_point_is_taken_off_unsigned_codes(kind):
    from insitu.sim.macro import MacroModel

    w, x = np.full((514, 2), 127, np.int8), np.full((2, 514), 255, np.uint8)
    x[1, :400] = 3
    bound = bound_matrix(MacroModel(), w, np.array([5, 0]), kind, zero_in=128, lo=-(1 << 31), hi=(1 << 31) - 1)
    acc = np.array(reference(x.astype(int) - 128, w)) + np.array([5, 0])
    wanted = acc if kind == "exact" else wtm2101_code(acc, 8192, lo=-(1 << 31), hi=(1 << 31) - 1)
    assert np.array_equal(MacroModel().read(bound, x), wanted)


# kernels


@pytest.mark.parametrize("mode", [m for m in ROUNDINGS if m != "trunc_q2"])
@given(data=st.data())
def test_the_narrowing_kernel_is_requantize(mode, data):
    draw = data.draw
    cols = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    acc = rng.integers(-(1 << 30), 1 << 30, (5, cols))
    bias = rng.integers(-(1 << 29), 1 << 29, cols)
    multiplier, shift = rng.integers(0, 1 << 31, cols), rng.integers(0, 63, cols)
    acc[0], bias[0] = -bias, bias[0]
    post = Post(1, 0, mode, draw(st.integers(-128, 127)), -128, 127)
    wanted = requantize(acc + bias, multiplier, shift, zero_point=post.zero_point, lo=-128, hi=127, rounding=mode)
    assert np.array_equal(narrow(acc, bias, multiplier, shift, post), wanted)


@pytest.mark.parametrize("mode", [m for m in ROUNDINGS if m != "trunc_q2"])
def test_the_narrowing_kernel_at_ties(mode):
    acc = np.arange(-12, 13)[:, None]
    for shift in range(4):
        post = Post(1, shift, mode, 0, -100, 100)
        wanted = requantize(acc, 1, shift, zero_point=0, lo=-100, hi=100, rounding=mode)
        assert np.array_equal(narrow_scalar(acc, post), wanted)
        assert np.array_equal(narrow_scalar(acc.astype(np.float32), post), wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_the_wtm2101_kernel_is_its_readout(dtype):
    acc = np.arange(-3 * 512, 3 * 512, dtype=np.int64)[:, None] * np.array([[1, 7]])
    bias, shift = np.array([128, -256]), np.array([8, 13])
    wanted = wtm2101_code(acc + bias, np.array([256, 8192]))
    assert np.array_equal(trunc_q2(acc.astype(dtype), bias, shift, -128, 127), wanted)


def read_ideally(acc, *, kind, step):
    cols = acc.shape[1]
    one, out = np.ones(cols, np.float32), np.zeros(acc.shape, np.int32)
    squares, stream = np.zeros((len(acc), 1), np.float32), np.zeros(6, np.int64)
    inverse = (one / step).astype(np.float32)
    convert(
        acc.astype(np.float32),
        squares,
        inverse,
        0 * one,
        inverse,
        np.float32(0),
        0 * one,
        stream,
        kind,
        -128,
        127,
        0,
        out,
    )
    return out


def test_without_noise_the_analog_kernel_is_the_ideal_readout():
    acc = np.arange(-4000, 4000)[:, None] * np.array([[1, 3]])
    assert np.array_equal(read_ideally(acc, kind=1, step=256.0), wtm2101_code(acc, 256))
    assert np.array_equal(read_ideally(acc, kind=0, step=64.0), adc_code(acc, 1, 6, bits=8, signed=True))
