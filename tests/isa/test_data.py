"""Commands that follow run-time values, and products in memory banks: by hand, and simulator against reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isa_programs import banked, following, program

from insitu.base.errors import ProgramError
from insitu.isa import semantics
from insitu.isa.assembler import parse_section, print_section
from insitu.isa.check import check_program
from insitu.isa.container import program_bytes, program_from_bytes
from insitu.isa.program import Program, Symbol
from insitu.sim.functional import load, run

GIVEN = {
    "x": np.arange(12, dtype=np.float32),
    "new": np.array([50, 51, 52, 53], np.float32),
    "index": np.array([3, -6], np.int32),
    "at": np.array([4], np.int32),
    "go": np.array([1], np.uint8),
}


def both(built: Program, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """The reference's result for each sample, after the simulator has given the same for all at once."""
    check_program(built)
    got = run(load(built), inputs)
    count = len(next(iter(inputs.values())))
    rows = [semantics.run(built, {n: a[i] for n, a in inputs.items()}) for i in range(count)]
    for name in rows[0]:
        assert np.array_equal(got[name], np.stack([row[name] for row in rows])), name
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def one(**changes: Any) -> dict[str, np.ndarray]:
    return {n: np.asarray(a)[None] for n, a in {**GIVEN, **changes}.items()}


def test_a_scatter_and_an_entry_at_a_place() -> None:
    y = both(following(), one())["y"][0].reshape(6, 2)
    assert y.tolist() == [[52, 53], [2, 3], [4, 5], [50, 51], [50, 51], [52, 53]]


def test_of_equal_indices_the_last_stays() -> None:
    y = both(following(), one(index=np.array([1, 1], np.int32), go=np.array([0], np.uint8)))["y"][0].reshape(6, 2)
    assert y[1].tolist() == [52, 53]


def test_a_block_runs_only_where_its_condition_holds() -> None:
    taken, left = (both(following(), one(go=np.array([g], np.uint8))) for g in (9, 0))
    assert taken["y"][0, 8:].tolist() == [50, 51, 52, 53]
    assert left["y"][0, 8:].tolist() == [8, 9, 10, 11]
    assert left["back"][0].tolist() == [50, 51] * 3 + left["back"][0, 6:].tolist()
    assert not np.array_equal(taken["back"][0, :6], left["back"][0, :6])


def test_a_range_of_the_data_and_codes_by_it() -> None:
    found = both(following(), one(go=np.array([1], np.uint8), index=np.array([5, 4], np.int32)))
    low, high = np.minimum(found["y"][0].reshape(6, 2).min(1), 0), found["y"][0].reshape(6, 2).max(1)
    assert np.allclose(found["scale"][0], (high - low) / 255)
    assert found["zero"][0].tolist() == [0] * 6
    assert np.array_equal(found["codes"], found["again"])
    assert np.allclose(found["back"], found["y"], atol=float(found["scale"].max()) / 2)


@pytest.mark.parametrize("change", [{"at": [5]}, {"at": [-1]}, {"index": [6, 0]}, {"index": [0, -7]}])
def test_a_place_outside_is_an_error_in_both(change: dict[str, list[int]]) -> None:
    given_ = one(**{n: np.array(v, np.int32) for n, v in change.items()})
    with pytest.raises(ProgramError, match=r"\(|0 to 4|-6 to 5"):
        run(load(following()), given_)
    with pytest.raises(ProgramError, match=r"0 to 4|-6 to 5"):
        semantics.run(following(), {n: a[0] for n, a in given_.items()})


def test_signed_codes_are_symmetric() -> None:
    symbols = [
        Symbol("x", "input", "ram", "f32", 4, 0), Symbol("q", "output", "ram", "i8", 4, 16),
        Symbol("s", "output", "ram", "f32", 2, 20), Symbol("z", "output", "ram", "i8", 2, 28),
    ]  # fmt: skip
    text = (
        "d0 = x +0 [2:2, 2:1]\nd1 = q +0 [2:2, 2:1]\nd2 = s +0 [2:1]\nd3 = z +0 [2:1]\ncode\nQDYN d1, d2, d3, d0\nHALT"
    )
    found = both(program(symbols, text), {"x": np.array([[254, -127, 0, 0]], np.float32)})
    assert found["q"].tolist() == [[127, -64, 0, 0]]  # -63.5 to even
    assert found["s"].tolist() == [[2, 1]]
    assert found["z"].tolist() == [[0, 0]]


def test_a_core_may_decide_while_another_waits_for_it() -> None:
    """One core writes under a condition and signals outside it; the other reads what it left, trip by trip."""
    symbols = [
        Symbol("x", "input", "ram", "i8", 8, 0), Symbol("go", "input", "ram", "u8", 4, 8),
        Symbol("m", "scratch", "ram", "i8", 8, 12), Symbol("y", "output", "ram", "i8", 8, 20),
    ]  # fmt: skip
    first = "d0 = x +0 [2:1] step (2)\nd1 = m +0 [2:1] step (2)\nd2 = go +0 [1:1] step (1)\ncode\nLOOP 4\nFILL d1, 7\n"
    first += "PRED d2, 1\nDMA d1, d0\nENDP\nSIG t0\nENDL\nHALT"
    second = "d0 = m +0 [2:1] step (2)\nd1 = y +0 [2:1] step (2)\ncode\nLOOP 4\nAWAIT t0, 1\nDMA d1, d0\nENDL\nHALT"
    go = np.array([[0, 1, 1, 0], [1, 0, 0, 5], [0, 0, 0, 0]], np.uint8)
    x = np.arange(24).reshape(3, 8).astype(np.int8)
    y = both(program(symbols, (first, second)), {"x": x, "go": go})["y"]
    assert np.array_equal(y, np.where(np.repeat(go > 0, 2, axis=1), x, 7))


@pytest.mark.parametrize("make", [following, banked])
def test_round_trips(make: Any) -> None:
    built = make()
    for section in built.sections:
        assert parse_section(print_section(section)) == section
    data = program_bytes(built)
    assert program_from_bytes(data) == built
    for cut in range(0, len(data), 97):
        with pytest.raises(ProgramError):
            program_from_bytes(data[:cut])


def test_a_product_in_memory_banks() -> None:
    x = np.array([[1, 2, 3, -4, 5, -128]], np.int8)
    w = np.arange(-6, 6).reshape(3, 4)
    acc = (x.reshape(2, 3).astype(int) - 1) @ w + [1, -2, 30, 4]
    wanted = np.clip(np.rint(acc * 3 / 4) - 1, -128, 127)
    assert np.array_equal(both(banked(), {"x": x})["y"].reshape(2, 4), wanted)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_random_values_mean_the_same(seed: int) -> None:
    draw = np.random.default_rng(seed)
    inputs = {
        "x": draw.normal(0, 10.0 ** draw.integers(-3, 4), (3, 12)).astype(np.float32),
        "new": draw.normal(0, 5, (3, 4)).astype(np.float32),
        "index": draw.integers(-6, 6, (3, 2)).astype(np.int32),
        "at": draw.integers(0, 5, (3, 1)).astype(np.int32),
        "go": draw.integers(0, 2, (3, 1)).astype(np.uint8),
    }
    both(following(), inputs)
    both(banked(), {"x": draw.integers(-128, 128, (3, 6)).astype(np.int8)})


@st.composite
def blocks(draw: st.DrawFn, depth: int = 0) -> list[str]:
    """Commands in random loops and blocks; every one leaves a trace in memory."""
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["add", "move", "LOOP", "PRED"] if depth < 3 else ["add", "move"]))
        if kind == "add":
            lines.append(f"ACC d{draw(st.integers(0, 1))}, d{draw(st.integers(2, 3))}")
        elif kind == "move":
            lines.append(f"SETD d{draw(st.sampled_from([1, 3]))}, d4, 0, 2")
        elif kind == "LOOP":
            lines += [f"LOOP {draw(st.integers(1, 3))}", *draw(blocks(depth + 1)), "ENDL"]
        else:
            lines += [f"PRED d{draw(st.integers(5, 6))}, {draw(st.integers(0, 1))}", *draw(blocks(depth + 1)), "ENDP"]
    return lines


@settings(max_examples=120)
@given(lines=blocks(), seed=st.integers(0, 999))
def test_random_blocks_and_moves_mean_the_same(lines: list[str], seed: int) -> None:
    symbols = [
        Symbol("x", "input", "ram", "i8", 8, 0), Symbol("at", "input", "ram", "i32", 1, 8),
        Symbol("go", "input", "ram", "u8", 2, 12), Symbol("y", "output", "ram", "i32", 8, 16),
    ]  # fmt: skip
    tables = [
        "d0 = y +0 [4:1]", "d1 = y +1 [4:1]", "d2 = x +0 [4:1]", "d3 = x +2 [4:1]", "d4 = at +0 [1:1]",
        "d5 = go +0 [1:1]", "d6 = go +1 [1:1]",
    ]  # fmt: skip
    built = program(symbols, "\n".join([*tables, "code", *lines, "HALT"]))
    draw = np.random.default_rng(seed)
    inputs = {
        "x": draw.integers(-9, 9, (4, 8)).astype(np.int8),
        "at": draw.integers(0, 3, (4, 1)).astype(np.int32),
        "go": draw.integers(0, 2, (4, 2)).astype(np.uint8),
    }
    both(built, inputs)
