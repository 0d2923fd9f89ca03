"""What a macro makes of codes, ideal: every readout, split, slice and plane against the instruction set's reference."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.arch.load import load_chip
from insitu.circuit.effects import Physics
from insitu.isa import semantics
from insitu.isa.program import (
    Binding,
    Command,
    Descriptor,
    Location,
    Post,
    Program,
    Readout,
    Section,
    Symbol,
    Tile,
    weight_ref,
)
from insitu.numeric.slicing import input_planes, slice_weights
from insitu.sim.drive import drive_floats
from insitu.sim.macro import MacroModel
from insitu.sim.narrow import finish
from insitu.sim.noisy import settings
from insitu.sim.reads import Reads, noisy_codes

ROWS, COLS, VECTORS = 11, 4, 5


def program(
    binding: Binding, weights: dict[str, np.ndarray], codes: np.ndarray | None = None, *, signed: bool = True
) -> tuple[Program, Section]:
    """One MVM of all vectors, and its section."""
    count, kind = (1, "i8") if codes is None else (len(codes), f"{'iu'[codes.dtype == np.uint8]}8")
    operands = (Descriptor("y", 0, (count, COLS), (COLS, 1)), Descriptor("x", 0, (count, ROWS), (ROWS, 1)))
    section = Section(0, 0, operands, (binding,), (), (Command("MVM", (0, 1, 0)), Command("HALT")))
    symbols = (
        Symbol("x", "input", "ram", kind, count * ROWS, 0), Symbol("y", "output", "ram", "i32", count * COLS, 1024),
    )  # fmt: skip
    values = {"x": Location("x", 0, (count, ROWS), (ROWS, 1)), "y": Location("y", 0, (count, COLS), (COLS, 1))}
    refs = {n: weight_ref(w) for n, w in weights.items()}
    chip = {"macro": {"input": {"bits": 8, "signed": signed}}}
    return Program("p", chip, "", symbols, (section,), refs, values, spaces={"ram": 2048}), section


def expected(binding: Binding, weights: dict[str, np.ndarray], codes: np.ndarray, *, signed: bool = True) -> np.ndarray:
    """Element by element in Python's integers."""
    return semantics.run(program(binding, weights, codes, signed=signed)[0], {"x": codes})["y"]


def read(binding: Binding, weights: dict[str, np.ndarray], codes: np.ndarray) -> np.ndarray:
    made, section = program(binding, weights)
    model = MacroModel()
    return model.read(model.bind(made, section, binding, dtype=codes.dtype), codes)


def bound(readout: Readout, post: Post, **more) -> Binding:
    tile = Tile(0, 0, ROWS, 0, COLS, 0, 0)
    zero_in = more.pop("zero_in", 0)
    return Binding("fc", "w", "b", ROWS, COLS, zero_in, (tile,), readout, post, **more)


def cuts(draw) -> tuple[int, ...]:
    inner = draw(st.sets(st.integers(1, ROWS - 1), max_size=3))
    return (0, *sorted(inner), ROWS) if inner else ()


@st.composite
def settings_of_columns(draw):
    """(post, tables): a multiplier and shift as numbers, one entry for all, or one per column."""
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    tables, fields = {}, {}
    for name, most in (("multiplier", 1 << 12), ("shift", 20)):
        kind = draw(st.sampled_from(["number", "one", "columns"]))
        table = rng.integers(1, most, 1 if kind == "one" else COLS).astype(np.int32)
        fields[name] = int(table[0]) if kind == "number" else name
        tables |= {} if kind == "number" else {name: table}
    rounding = draw(st.sampled_from(["half_even", "half_away", "half_up", "floor", "trunc", "trunc_q2"]))
    zero, lo = draw(st.integers(-128, 127)), draw(st.integers(-128, 0))
    return Post(**fields, rounding=rounding, zero_point=zero, lo=lo, hi=draw(st.integers(1, 127))), tables


def numbers(draw, lo: int, hi: int, dtype):
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    return rng.integers(lo, hi, (ROWS, COLS), endpoint=True).astype(dtype), rng


@given(st.data())
def test_exact(data):
    post, tables = data.draw(settings_of_columns())
    w, rng = numbers(data.draw, -128, 127, np.int8)
    x = rng.integers(-128, 128, (VECTORS, ROWS)).astype(np.int8)
    bias = rng.integers(-(1 << 20), 1 << 20, COLS).astype(np.int32)
    binding = bound(Readout(), post, zero_in=data.draw(st.sampled_from([0, 7, -128])))
    weights = {"w": w, "b": bias, **tables}
    assert np.array_equal(read(binding, weights, x), expected(binding, weights, x))


@given(st.data())
def test_adc(data):
    draw = data.draw
    post, tables = draw(settings_of_columns())
    w, rng = numbers(draw, -127, 127, np.int8)
    x = rng.integers(-128, 128, (VECTORS, ROWS)).astype(np.int8)
    readout = Readout(
        "adc", bits=draw(st.integers(3, 12)), signed=draw(st.booleans()), multiplier=draw(st.integers(1, 300)),
        shift=draw(st.integers(0, 16)), parts=cuts(draw), slice_bits=(7, draw(st.integers(1, 8))),
        plane_bits=(8, draw(st.integers(1, 8))),
    )  # fmt: skip
    if draw(st.booleans()):  # slices that overlap
        step, count = draw(st.sampled_from([(6, 2), (5, 3), (4, 4)]))
        readout = replace(readout, slice_bits=(count * step, step), slice_shift=draw(st.integers(2, step)))
    weights = {"w": w, "b": rng.integers(-500, 500, COLS).astype(np.int32), **tables}
    binding = bound(readout, post)
    assert np.array_equal(read(binding, weights, x), expected(binding, weights, x))


@given(st.data())
def test_wtm2101(data):
    draw = data.draw
    w, rng = numbers(draw, -275, 275, np.int16)
    unsigned = draw(st.booleans())
    x = (rng.integers(0, 256, (VECTORS, ROWS)) if unsigned else rng.integers(-128, 128, (VECTORS, ROWS))).astype(
        np.uint8 if unsigned else np.int8
    )
    parts = cuts(draw)
    k = draw(st.integers(0, 3)) if parts else 0
    gains = (1 << rng.integers(8 + k, 14, COLS)).astype(np.int32)
    name = draw(st.sampled_from(["g", "any name", "number"]))
    readout = Readout("wtm2101", bits=8, gain=int(gains[0]) if name == "number" else name, parts=parts, k=k)
    binding = bound(
        readout, Post(lo=draw(st.sampled_from([-128, 0])), hi=127),
        input_shift=draw(st.sampled_from([0, 1])), input_offset=draw(st.sampled_from([0, 128])),
    )  # fmt: skip
    weights = {"w": w, "b": (128 * rng.integers(-275, 275, COLS)).astype(np.int32), name: gains}
    assert np.array_equal(read(binding, weights, x), expected(binding, weights, x, signed=False))


def test_physics_off_is_the_ideal_macro():
    """A chip with every effect switched off reads what the model without a chip reads."""
    chip = load_chip("parametric-reram-adc8")
    rng = np.random.default_rng(0)
    w, x = (
        rng.integers(-127, 128, (ROWS, COLS)).astype(np.int8),
        rng.integers(-128, 128, (VECTORS, ROWS)).astype(np.int8),
    )
    binding = bound(Readout("adc", bits=8, slice_bits=(7, 2), plane_bits=(8, 1)), Post(lo=-128, hi=127))
    made, section = program(binding, {"w": w, "b": np.zeros(COLS, np.int32)})
    for model in (MacroModel(chip), MacroModel(chip, Physics.parse("ideal", chip), seed=3, instance=5)):
        got = model.read(model.bind(made, section, binding, dtype=x.dtype), x)
        assert np.array_equal(got, read(binding, {"w": w, "b": np.zeros(COLS, np.int32)}, x))


@pytest.mark.parametrize("preset", ["parametric-reram-adc8", "wtm2101"])
def test_noise_does_not_depend_on_how_vectors_are_cut(preset):
    chip = load_chip(preset)
    rng = np.random.default_rng(0)
    adc = Readout("adc", bits=8, slice_bits=(7, 2), plane_bits=(8, 1))
    readout = adc if "adc" in preset else Readout("wtm2101", bits=8, gain=1024)
    w = rng.integers(-127, 128, (ROWS, COLS)).astype(np.int8)
    x = rng.integers(0, 128, (40, ROWS)).astype(np.int8)
    binding = replace(bound(readout, Post(lo=-128, hi=127)), bias="")
    made, section = program(binding, {"w": w})
    model = MacroModel(chip, Physics.parse("full", chip), seed=1)
    ready = model.bind(made, section, binding, dtype=x.dtype)
    whole = model.read(ready, x)
    parts = [model.read(ready, x[a : a + 8], first_vector=a) for a in range(0, 40, 8)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert not np.array_equal(whole, read(binding, {"w": w}, x))
    other = MacroModel(chip, Physics.parse("full", chip), seed=1, instance=1)
    assert not np.array_equal(whole, other.read(other.bind(made, section, binding, dtype=x.dtype), x))


@pytest.mark.parametrize("rounding", ["half_even", "half_up", "trunc"])
@pytest.mark.parametrize("shift", [40, 42])
def test_one_kernel_call_requantizes_sums_that_float64_would_round(rounding, shift):
    """Wide multipliers over several parts: the same codes as the general way, which sums first and narrows then."""
    chip = load_chip("parametric-reram-adc8")
    rng = np.random.default_rng(2)
    parts, finer = (0, 4, 9, ROWS), (0, 3, 1)
    readout = Readout("adc", bits=8, slice_bits=(7, 2), plane_bits=(8, 1), parts=parts, finer=finer, finest=3)
    tiles = tuple(Tile(0, a, b - a, 0, COLS, 0, a) for a, b in pairwise(parts))
    post = Post(multiplier=(1 << 31) - 3, shift=shift, rounding=rounding, zero_point=-7, lo=-128, hi=127)
    binding = replace(bound(readout, post), tiles=tiles)
    weights = {
        "w": rng.integers(-127, 128, (ROWS, COLS)).astype(np.int8), "b": rng.integers(-999, 999, COLS).astype(np.int32),
    }  # fmt: skip
    x = rng.integers(0, 128, (40, ROWS)).astype(np.int8)
    made, section = program(binding, weights)
    model = MacroModel(chip, Physics.parse("full", chip), seed=1)
    ready = model.bind(made, section, binding, dtype=x.dtype)
    assert ready.exact_scale is None
    assert settings(model, ready, signed=True) is not None
    driven, signed = drive_floats(binding, x)
    sums = noisy_codes(model, ready, driven, Reads(0, 0), signed=signed)
    wanted = finish(ready, sums, np.empty(sums.shape, np.int32))
    assert np.array_equal(model.read(ready, x), wanted)
    assert len(np.unique(wanted)) > 10


@given(data=st.data())
def test_no_sum_of_codes_reaches_beyond_its_bound(data):
    """`reach` is what all reads at the end of the range add up to, and an int32 is taken only where it holds that."""
    draw = data.draw
    bits, planes, slices = draw(st.integers(2, 14)), draw(st.integers(1, 8)), draw(st.integers(1, 7))
    parts = cuts(draw)
    count = max(1, len(parts) - 1)
    finer = tuple(draw(st.integers(0, 6)) for _ in range(count))
    apart = draw(st.integers(0, slices))
    bits_held = 2 * slices if apart else 7
    readout = Readout(
        "adc", bits=bits, slice_bits=(bits_held, slices), plane_bits=(8, planes), parts=parts, finer=finer,
        finest=max(finer), slice_shift=apart,
    )  # fmt: skip
    w, x = np.full((1, 1), 0), np.full((1, 1), 255)
    ups = [
        (a + b + max(finer) - up)
        for up in finer
        for a, _ in slice_weights(w, bits=bits_held, step=slices, shift=apart)
        for b, _ in input_planes(x, bits=8, step=planes, signed=False)
    ]
    binding = bound(readout, Post(lo=-128, hi=127))
    made, section = program(binding, {"w": np.zeros((ROWS, COLS), np.int8), "b": np.zeros(COLS, np.int32)})
    ready = MacroModel().bind(made, section, binding, dtype=np.int8)
    assert ready.reach == sum(1 << (bits - 1 + up) for up in ups)
    assert (ready.total_type is np.int32) == (ready.reach < 1 << 31)
