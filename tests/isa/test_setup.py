"""What sets a core up, and calls: reference and simulator on programs by hand."""

from __future__ import annotations

import numpy as np
import pytest
from isa_programs import CHIP, chip, program

from insitu.base.errors import ProgramError
from insitu.isa import semantics
from insitu.isa.assembler import parse_section, print_section
from insitu.isa.calls import written_out
from insitu.isa.check import check_program, find_faults
from insitu.isa.container import program_bytes, program_from_bytes
from insitu.isa.program import Post, Program, Symbol, Vector
from insitu.sim.functional import load, run

TABLES = tuple(Vector(lut=name, label=name, post=Post(lo=-128, hi=127)) for name in ("a", "b", "c"))
DOUBLE, NEGATIVE, SAME = ([f(i if i < 8 else i - 16) for i in range(16)] for f in (lambda i: 2 * i, lambda i: -i, int))
CODES = np.array([[3, -4, 2, 0]], np.int8)


def looked_up(code: str, *, luts: int = 2) -> Program:
    """Codes looked up in tables: a doubles, b negates, c leaves."""
    symbols = [Symbol("x", "input", "ram", "i8", 4, 0), Symbol("y", "output", "ram", "i8", 4, 16)]
    text = "d0 = x +0 [4:1]\nd1 = y +0 [4:1]\ncode\n" + code
    weights = {name: np.array(t, np.int32) for name, t in zip("abc", (DOUBLE, NEGATIVE, SAME), strict=True)}
    on = chip(core={"macros": 2, "vector": {"lanes": 4, "luts": luts}})
    return program(symbols, text, vectors=TABLES, weights=weights, on=on)


def both(built: Program) -> list[int]:
    """The reference's result, after the simulator has given the same."""
    check_program(built)
    [want] = [semantics.run(built, {"x": CODES[0]})["y"]]
    got = run(load(built), {"x": CODES})["y"][0]
    assert np.array_equal(got, want)
    return want.tolist()


def test_tables_are_looked_up_where_they_were_loaded() -> None:
    assert both(looked_up("LUTLD v0, 0\nLUTLD v1, 1\nLUT d1, d0, v0\nLUT d1, d1, v1\nHALT")) == [-6, 8, -4, 0]
    turns = "LUTLD v0, 0\nLUT d1, d0, v0\nLUTLD v1, 1\nLUT d1, d1, v1\nLUTLD v2, 1\nLUT d1, d1, v2\nHALT"
    assert both(looked_up(turns)) == [-6, -8, -4, 0]  # the last table ends at 7


def test_a_table_that_is_gone_is_noticed_by_all_three() -> None:
    gone = looked_up("LUTLD v0, 0\nLUTLD v1, 0\nLUT d1, d0, v0\nHALT")
    assert {f.rule for f in find_faults(gone)} == {"U3"}
    with pytest.raises(ProgramError, match="table 'a' is not there"):
        semantics.run(gone, {"x": CODES[0]})
    with pytest.raises(ProgramError, match="table 'a' is not there"):
        run(load(gone), {"x": CODES})


def test_the_next_run_needs_its_tables_too() -> None:
    """The first run finds a where it was set up; the second finds what the first one left there."""
    once = looked_up("LUTLD v0, 0\nLUT d1, d0, v0\nLUTLD v1, 0\nLUT d1, d1, v1\nHALT")
    assert [f.rule for f in find_faults(once)] == ["U3"]


def test_a_chip_that_says_no_number_has_its_tables() -> None:
    plain = looked_up("LUT d1, d0, v0\nHALT", luts=0)
    assert both(plain) == [6, -8, 4, 0]


def test_arrays_lengthen_the_memory() -> None:
    """A symbol behind the ram's end: only where a macro serves as memory, and only as far as its cells go."""
    array = {"rows": 16, "cols": 16, "bits_per_cell": 1, "cell_range": [-128, 127]}
    macro = {**CHIP["macro"], "weights": {"slices": 8}}
    on = chip(capabilities={"dual_mode": True}, array=array, macro=macro)

    def built(code: str, at: int) -> Program:
        symbols = [Symbol("x", "input", "ram", "i8", 4, 0), Symbol("y", "output", "ram", "i8", 4, at)]
        return program(symbols, f"d0 = x +0 [4:1]\nd1 = y +0 [4:1]\ncode\n{code}DMA d1, d0\nHALT", on=on)

    assert both(built("WMODE 1, 1\n", 1024)) == [3, -4, 2, 0]
    size = 32 * 16  # one macro of two arrays, a byte a weight
    assert find_faults(built("WMODE 1, 1\n", 1024 + size - 4)) == []
    assert [f.rule for f in find_faults(built("WMODE 1, 1\n", 1024 + size))] == ["M3"]
    assert [f.rule for f in find_faults(built("WMODE 1, 0\n", 1024))] == ["M3"]
    assert [f.rule for f in find_faults(built("", 1024))] == ["M3"]


def test_text_and_file_keep_them() -> None:
    built = looked_up("LUTLD v0, 0\nLUTLD v1, 1\nLUT d1, d0, v0\nHALT")
    [section] = built.sections
    assert parse_section(print_section(section)) == section
    assert program_from_bytes(program_bytes(built)) == built
    text = "code\nWMODE 1, 1\nCAL b0, 1\nWLOAD b0\nWVERIFY b0\nCAL b0, 2\nLUTLD v3, 1\nHALT"
    assert parse_section(print_section(parse_section(text))) == parse_section(text)
    assert [c.op for c in parse_section(text).code][:4] == ["WMODE", "CAL", "WLOAD", "WVERIFY"]


def test_a_subroutine_runs_in_the_loops_around_its_calls() -> None:
    """Each call doubles an element, or two by a call of its own, in the order they are made."""
    text = (
        "LUTLD v0, 0\nLUTLD v1, 1\nLOOP 2\nCALL 7\nENDL\nCALL 2\nHALT\n"
        "SUB 2\nCALL 3\nCALL 3\nRET\nSUB 7\nLUT d3, d2, v0\nRET\nSUB 3\nLUT d1, d1, v1\nRET"
    )
    on = looked_up("HALT").chip
    symbols = [Symbol("x", "input", "ram", "i8", 4, 0), Symbol("y", "output", "ram", "i8", 4, 16)]
    head = "d0 = x +0 [4:1]\nd1 = y +0 [4:1]\nd2 = x +0 [2:1] step (2)\nd3 = y +0 [2:1] step (2)\ncode\n"
    weights = {name: np.array(t, np.int32) for name, t in zip("ab", (DOUBLE, NEGATIVE), strict=True)}
    built = program(symbols, head + text, vectors=TABLES[:2], weights=weights, on=on)
    assert both(built) == [6, 8, 4, 0]  # negated twice, of which -8 becomes 8 (7 is the last entry: index 8 is -8)
    [out] = written_out(built).sections
    assert [c.op for c in out.code if c.op in ("CALL", "RET")] == ["CALL", "RET"] * 1 + ["CALL"] * 2 + [
        "RET",
        "CALL",
    ] + ["RET"] * 2
    assert program_from_bytes(program_bytes(built)) == built
    assert parse_section(print_section(built.sections[0])) == built.sections[0]
