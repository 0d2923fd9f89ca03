"""The functional simulator against the instruction set's reference, on random programs and on corners by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insitu.base.errors import DataError, ProgramError
from insitu.isa import semantics
from insitu.isa.program import Command, Descriptor, Location, Post, Symbol, Vector
from insitu.sim.functional import load, run
from tests.isa.isa_programs import X, chip, pipeline, pipeline_result, program

COUNT = 96  # elements of every symbol
OPS = {"REQ": 1, "ADD": 2, "MUL": 2, "MAX": 1, "SUM": 1, "DMA": 1, "FILL": 0, "ACC": 1, "MMA": 2}
ROUND = ("half_even", "half_away", "half_up", "floor", "trunc", "trunc_q2")


@st.composite
def random_program(draw):
    """One core, a few commands in random loops over four symbols; two of them share memory."""
    symbols = [
        Symbol("a", "input", "ram", "i8", COUNT, 0),
        Symbol("b", "scratch", "ram", "i8", COUNT, COUNT),
        Symbol("c", "output", "ram", "i8", COUNT, COUNT + 48 if draw(st.booleans()) else 2 * COUNT),
        Symbol("w", "output", "ram", "i32", COUNT, 4 * COUNT),
        Symbol("t", "weight", "ram", "i32", 24, 8 * COUNT, weight="t"),
    ]
    tables: dict[str, list] = {"descriptors": [], "vectors": []}
    code = []
    for _ in range(draw(st.integers(1, 4))):
        loops = draw(st.lists(st.integers(1, 3), max_size=2))
        code += [Command("LOOP", (n,)) for n in loops]
        for _ in range(draw(st.integers(1, 2))):
            code.append(command(draw, tables, loops))
        code += [Command("ENDL")] * len(loops)
    table = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 9, 24).astype(np.int32)
    built = program(
        symbols, "code\n  HALT\n", weights={"t": table}, on=chip(memories={"ram": {"kind": "sram", "size": "4 KiB"}})
    )
    section = replace(built.sections[0], code=(*code, Command("HALT")), **{k: tuple(v) for k, v in tables.items()})
    return replace(built, sections=(section,))


def command(draw, tables, loops):
    op = draw(st.sampled_from(sorted(OPS)))
    sizes = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
    window = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))) if op in ("MAX", "SUM") else ()
    if op == "MMA":
        m, k, n = (draw(st.integers(1, 3)) for _ in range(3))
        shapes = [(m, n), (m, k), (k, n)]
    else:
        shapes = [sizes, *[(*sizes, *window)] * OPS[op]]
    out = "w" if op == "ACC" else draw(st.sampled_from("bc"))
    numbers = []
    for i, shape in enumerate(shapes):
        symbol = out if i == 0 else draw(st.sampled_from("abc"))
        tables["descriptors"].append(operand(draw, symbol, shape, loops, apart=i == 0))
        numbers.append(len(tables["descriptors"]) - 1)
    if op == "FILL":
        return Command(op, (*numbers, draw(st.integers(-128, 127))))
    if op in ("DMA", "ACC"):
        return Command(op, tuple(numbers))
    zero = draw(st.integers(-5, 5))
    post = Post(
        draw(st.integers(1, 9)),
        draw(st.integers(0, 6)),
        draw(st.sampled_from(ROUND)),
        draw(st.integers(-9, 9)),
        -128,
        127,
    )
    settings_ = Vector(zero, draw(st.integers(-5, 5)), draw(st.integers(-3, 9)), draw(st.integers(1, 9)), post)
    if op in ("MMA", "MUL", "MAX"):
        settings_ = replace(settings_, scale_a=1, scale_b=1)
    for name in ("multiplier", "shift"):
        if op != "MMA" and draw(st.integers(0, 2)) == 0:
            shape = tuple(n if draw(st.booleans()) else 1 for n in shapes[0][draw(st.integers(0, 1)) :])
            strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
            steps = tuple(draw(st.integers(0, 2)) for _ in loops)
            tables["descriptors"].append(Descriptor("t", draw(st.integers(0, 3)), shape, tuple(strides), steps))
            settings_ = replace(settings_, **{name: len(tables["descriptors"]) - 1})
    tables["vectors"].append(settings_)
    return Command(op, (*numbers, len(tables["vectors"]) - 1))


def operand(draw, symbol, sizes, loops, *, apart):
    """Any strides and steps that stay inside; what one command writes lies apart."""
    strides, room = [], COUNT - 1
    for size in reversed(sizes):
        least = sum((n - 1) * s for n, s in zip(reversed(sizes), strides, strict=False)) + 1 if apart else 0
        stride = draw(st.integers(least, max(least, 6)))
        strides.append(stride)
        room -= (size - 1) * stride
    steps = []
    for trips in loops:
        step = draw(st.sampled_from([0, 0, 1, 2, 3, 9, 14]))
        step = step if room - (trips - 1) * step >= 0 else 0
        steps.append(step)
        room -= (trips - 1) * step
    return Descriptor(symbol, draw(st.integers(0, room)), tuple(sizes), tuple(reversed(strides)), tuple(steps))


@settings(max_examples=250)
@given(built=random_program(), seed=st.integers(0, 999))
def test_a_random_program_means_the_same(built, seed):
    a = np.random.default_rng(seed).integers(-128, 128, (3, COUNT))
    got = run(load(built), {"a": a})
    for sample in range(3):
        wanted = semantics.run(built, {"a": a[sample]})
        for name, codes in wanted.items():
            assert np.array_equal(got[name][sample], codes), name


def test_tokens_inside_loops_keep_the_loop_counters():
    seen = {}
    samples = np.stack([X, -X])
    got = run(load(pipeline()), {"x": samples}, observe=lambda n, v: seen.__setitem__(n, v.copy()))
    act, y = pipeline_result()
    assert np.array_equal(got["y"][0], y)
    assert np.array_equal(seen["act"][0], act)  # observed once its last trip has run
    assert np.array_equal(got["y"][1], semantics.run(pipeline(), {"x": -X})["y"])


def test_a_deadlock_is_an_error():
    built = pipeline()
    first = built.sections[0]
    silent = replace(first, code=tuple(c for c in first.code if c.op != "SIG"))
    with pytest.raises(ProgramError, match="deadlock: core 1"):
        run(load(replace(built, sections=(silent, built.sections[1]))), {"x": X[None]})


def test_barriers_let_everybody_pass_together():
    symbols = [
        Symbol("x", "input", "ram", "i8", 4, 0), Symbol("m", "scratch", "ram", "i8", 4, 4),
        Symbol("y", "output", "ram", "i8", 4, 8),
    ]  # fmt: skip
    one = "d0 = x +0 [4:1]\nd1 = m +0 [4:1]\ncode\n  DMA d1, d0\n  BAR\n  HALT\n"
    two = "d0 = m +0 [4:1]\nd1 = y +0 [4:-1]\ncode\n  BAR\n  DMA d1, d0\n  HALT\n"
    two = two.replace("y +0 [4:-1]", "y +3 [4:-1]")
    built = program(symbols, (one, two))
    x = np.array([[1, 2, 3, 4], [9, 8, 7, 6]])
    assert np.array_equal(run(load(built), {"x": x})["y"], x[:, ::-1])


def test_accumulating_over_a_loop_adds_every_trip():
    symbols = [Symbol("x", "input", "ram", "i8", 12, 0), Symbol("y", "output", "ram", "i32", 3, 12)]
    text = "d0 = y +0 [3:1]\nd1 = x +0 [3:1] step (3)\ncode\n  FILL d0, 5\n  LOOP 4\n    ACC d0, d1\n  ENDL\n  HALT\n"
    x = np.arange(12) - 5
    got = run(load(program(symbols, text)), {"x": x[None]})["y"][0]
    assert got.tolist() == (x.reshape(4, 3).sum(axis=0) + 5).tolist()


def test_samples_are_apart():
    """Each sample has memory of its own; any cut into calls gives the same."""
    x = np.random.default_rng(0).integers(-11, 12, (7, 4, 6))
    machine = load(pipeline())
    whole = run(machine, {"x": x})["y"]
    for a, b in ((0, 1), (1, 4), (4, 7)):
        assert np.array_equal(run(machine, {"x": x[a:b]})["y"], whole[a:b])


def test_states_start_as_their_symbol_says_and_as_given():
    symbols = [
        Symbol("x", "input", "ram", "i8", 2, 0), Symbol("s", "state", "ram", "i8", 2, 2, initial=7),
        Symbol("y", "output", "ram", "i8", 2, 4),
    ]  # fmt: skip
    text = "d0 = y +0 [2:1]\nd1 = s +0 [2:1]\nd2 = x +0 [2:1]\ncode\n  DMA d0, d1\n  DMA d1, d2\n  HALT\n"
    machine = load(program(symbols, text))
    first = run(machine, {"x": np.array([[1, 2]])})
    assert first["y"].tolist() == [[7, 7]]
    assert first["s"].tolist() == [[1, 2]]
    again = run(machine, {"x": np.array([[3, 4]])}, states={"s": first["s"]})
    assert again["y"].tolist() == [[1, 2]]


def test_inputs_with_different_sample_counts_are_refused():
    symbols = [Symbol("x", "input", "ram", "i8", 2, 0), Symbol("z", "input", "ram", "i8", 2, 2)]
    built = program(symbols, "code\n  HALT\n", values={n: Location(n, 0, (2,), (1,)) for n in "xz"})
    with pytest.raises(DataError, match="sample counts"):
        run(load(built), {"x": np.zeros((2, 2), int), "z": np.zeros((3, 2), int)})
