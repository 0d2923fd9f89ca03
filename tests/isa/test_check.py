"""A sound program passes; breaking any one constraint of the table is caught, under that constraint's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isa_programs import CHIP, FIRST, SECOND, X, banked, chip, following, pipeline, program

from insitu.base.errors import ProgramError
from insitu.isa.assembler import parse_section
from insitu.isa.check import check_program, find_faults
from insitu.isa.check_order import _footprint
from insitu.isa.program import (
    Binding,
    Command,
    Descriptor,
    Location,
    Post,
    Program,
    Readout,
    Symbol,
    Tile,
    Vector,
    weight_ref,
)
from insitu.isa.semantics import run
from insitu.isa.table import table
from insitu.isa.walk import expand, reach


def rules(built: Program) -> set[str]:
    return {fault.rule for fault in find_faults(built)}


def section(built: Program, number: int = 0, **change: Any) -> Program:
    """The program with fields of one section replaced."""
    sections = list(built.sections)
    sections[number] = replace(sections[number], **change)
    return replace(built, sections=tuple(sections))


def code(built: Program, text: str, number: int = 0) -> Program:
    return section(built, number, code=parse_section(f"code\n{text}").code)


def descriptor(built: Program, index: int, number: int = 0, **change: Any) -> Program:
    rows = list(built.sections[number].descriptors)
    rows[index] = replace(rows[index], **change)
    return section(built, number, descriptors=tuple(rows))


def binding(built: Program, number: int = 0, **change: Any) -> Program:
    return section(built, number, bindings=(replace(built.sections[number].bindings[0], **change),))


def tile(built: Program, index: int, number: int = 0, **change: Any) -> Program:
    tiles = list(built.sections[number].bindings[0].tiles)
    tiles[index] = replace(tiles[index], **change)
    return binding(built, number, tiles=tuple(tiles))


def symbol(built: Program, name: str, **change: Any) -> Program:
    return replace(built, symbols=tuple(replace(s, **change) if s.name == name else s for s in built.symbols))


def weight(built: Program, name: str, data: Any) -> Program:
    return replace(built, weights={**built.weights, name: weight_ref(np.asarray(data))})


def vectors() -> Program:
    """One core, one command of each kind that takes vector settings or only moves data."""
    symbols = [
        Symbol("x", "input", "ram", "i8", 8, 0),
        Symbol("m", "weight", "ram", "i32", 2, 8, weight="m"),
        Symbol("t", "scratch", "ram", "i32", 8, 16),
        Symbol("y", "output", "ram", "i8", 8, 48),
    ]
    text = """
        d0 = x +0 [2:4, 4:1]
        d1 = y +0 [2:4, 4:1]
        d2 = m +0 [1:0]
        d3 = t +0 [2:4, 4:1]
        d4 = x +0 [2:4, 2:1]
        d5 = y +0 [2:4, 2:1]
        d6 = x +4 [2:2, 2:1]
        d7 = y +0 [2:4]
        code
        REQ d1, d0, v0
        ADD d1, d0, d0, v0
        MUL d1, d0, d0, v0
        MAX d7, d0, v0
        SOFTMAX d1, d0, v1
        FILL d1, -128
        DMA d3, d0
        ACC d3, d0
        MMA d5, d4, d6, v0
        HALT
    """
    settings = (Vector(post=Post(lo=-128, hi=127), multiplier=2), Vector(post=Post(lo=-128, hi=127), lut="lut"))
    return program(
        symbols, text, vectors=settings, weights={"m": np.array([1, 2], np.int32), "lut": np.ones(4, np.int64)}
    )


TOPK = """
        d0 = f +0 [2:4, 4:1]
        d1 = g +0 [2:4, 4:1]
        d2 = c +0 [2:4, 4:1]
        d3 = f +0 [2:4, 2:2, 2:1]
        d4 = n +0 [2:1]
        d5 = g +0 [2:1]
        h0 = host label=cut operator=Abs model=""
          input name=f dtype=f32 shape=(8) descriptor=0
          input name=words dtype=host shape=() descriptor=-1
          output name=g dtype=f32 shape=(8) descriptor=1
        code
        V1 d1, d0, v0
        V2 d2, d0, d1, v1
        SEL d1, d2, d0, d1
        RED d5, d0, v2
        CVT d2, d0
        GATHER d3, d3, d4
        HOST h0
        HALT
"""


def numbers() -> Program:
    """One core with operands that are no codes, and a host operator."""
    symbols = [
        Symbol("f", "scratch", "ram", "f32", 8, 0),
        Symbol("g", "output", "ram", "f32", 8, 32),
        Symbol("c", "scratch", "ram", "bool", 8, 64),
        Symbol("n", "scratch", "ram", "i32", 2, 72),
    ]
    settings = (Vector(fn="exp"), Vector(fn="less"), Vector(fn="sum"))
    built = program([*symbols[:2], symbols[3]], "code\nHALT", vectors=settings)
    text = TOPK.replace("shape=(8)", "shape=(2, 4)")
    only = replace(parse_section(text), vectors=settings)
    return replace(built, symbols=tuple(symbols), sections=(only,), spaces={"ram": 80})


def looped() -> Program:
    """A loop of run-time length around a copy."""
    symbols = [Symbol("x", "input", "ram", "i8", 8, 0), Symbol("y", "output", "ram", "i8", 8, 8)]
    text = "d0 = x +0 [2:1] step (2)\nd1 = y +0 [2:1] step (2)\ncode\nLOOP T\nDMA d1, d0\nENDL\nHALT"
    return program(symbols, text, sizes={"T": 4})


def reloading(text: str = "WLOAD b0\nMVM d1, d0, b0\nWLOAD b1\nMVM d1, d0, b1\nHALT", **on: Any) -> Program:
    """Two matrices that take turns on the same cells."""
    symbols = [Symbol("x", "input", "ram", "i8", 4, 0), Symbol("y", "output", "ram", "i32", 3, 8)]
    bindings = tuple(
        Binding(name, name, "", 4, 3, 0, (Tile(0, 0, 4, 0, 3, 1, 0),), post=Post()) for name in ("one", "two")
    )
    weights = {"one": np.full((4, 3), 2, np.int8), "two": np.full((4, 3), -3, np.int8)}
    head = "d0 = x +0 [4:1]\nd1 = y +0 [3:1]\ncode\n"
    return program(symbols, head + text, bindings=bindings, weights=weights, on=chip(**on) if on else None)


def verifying(text: str) -> Program:
    """The same on cells that are written and verified."""
    return reloading(text, cell={"write": {"pulses": 3, "time": "10 ns"}})


def setting_up(text: str, **on: Any) -> Program:
    """A matrix in macro 0, and tables of a unit with two places."""
    made = reloading("MVM d1, d0, b0\nHALT", core={"vector": {"luts": 2}}, capabilities={"dual_mode": True}, **on)
    text = "d0 = x +0 [4:1]\nd1 = y +0 [3:1]\nd2 = x +0 [3:1]\nd3 = x +0 [1:1]\ncode\n" + text
    settings = tuple(Vector(post=Post(lo=0, hi=1), lut=name) for name in ("t", "u", ""))
    section = replace(parse_section(text), bindings=made.sections[0].bindings[:1], vectors=settings)
    tables = {name: weight_ref(np.arange(4, dtype=np.int32)) for name in ("t", "u")}
    return replace(made, sections=(section,), weights={**made.weights, **tables})


def nested(depth: int, times: int) -> str:
    """Subroutines that call the next one, so many times each."""
    calls = [f"CALL {n + 1}\n" * times if n + 1 < depth else "" for n in range(depth)]
    return "CALL 0\nHALT\n" + "".join(f"SUB {n}\n{call}RET\n" for n, call in enumerate(calls))


UNDER = "PRED d3, 1\nCALL 0\nENDP\nAWAIT t0, 1\nHALT\nSUB 0\nSIG t0\nRET"


def two_chips(text: str = "DMA d1, d0\nHALT") -> Program:
    """The second chip reads the first one's memory."""
    symbols = [Symbol("x", "input", "ram", "i8", 4, 0), Symbol("y", "output", "ram@1", "i8", 4, 0)]
    made = program(symbols, ("code\nHALT", "d0 = x +0 [4:1]\nd1 = y +0 [4:1]\ncode\n" + text))
    second = replace(made.sections[1], chip=1, core=0)
    return replace(made, sections=(made.sections[0], second), spaces={"ram": 4, "ram@1": 4})


def test_weights_that_take_turns_and_copies_between_chips_are_sound() -> None:
    check_program(reloading())
    check_program(two_chips())
    assert run(reloading(), {"x": np.arange(4)})["y"].tolist() == [-18] * 3
    assert run(two_chips(), {"x": np.arange(4)})["y"].tolist() == [0, 1, 2, 3]


READ_ADC = Readout(kind="adc", bits=8, parts=(0, 3, 6))
ADC = chip(macro={"readout": {"kind": "adc"}})
WTM = chip(macro={"readout": {"kind": "wtm2101", "gain": [256, 8192]}})


def read_by(readout: Readout, on: dict[str, Any]) -> Program:
    """The pipeline's first layer alone, read by a converter."""
    only = replace(pipeline(), sections=pipeline().sections[:1], chip=on)
    alone = code(only, "LOOP 4\nMVM d1, d0, b0\nENDL\nHALT")
    return binding(alone, readout=readout)


SOUND: dict[str, Callable[[], Program]] = {
    "pipeline": pipeline,
    "vectors": vectors,
    "looped": looped,
    "numbers": numbers,
    "adc": lambda: read_by(READ_ADC, ADC),
    "wtm2101": lambda: read_by(Readout(kind="wtm2101", gain=1024, k=2, parts=(0, 3, 6)), WTM),
    "a chip that says nothing": lambda: replace(pipeline(), chip={}),
    "shape only": lambda: replace(
        pipeline(), weights={n: replace(w, data=None) for n, w in pipeline().weights.items()}
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_programs_pass(name: str) -> None:
    check_program(SOUND[name]())


def stored(**change: Any) -> Program:
    """A product whose second operand goes into cells."""
    settings = Vector(post=Post(lo=-128, hi=127), label="a", macros=(0, 2), bits=8)
    return section(code(vectors(), "AMM d5, d4, d6, v0\nHALT"), vectors=(replace(settings, **change),))


HELD = Binding("held", "m", "", 2, 1, 0, (Tile(1, 0, 2, 0, 1, 1, 0),))
VECTOR = vectors().sections[0].vectors[0]
CONSUME = SECOND.split("code")[1]
LOOP4 = "LOOP 4\nMVM d1, d0, b0\nSIG t0\nENDL\n"
BROKEN: list[tuple[str, str, Callable[[], Program]]] = [
    ("S1", "two sections of one core", lambda: section(pipeline(), 1, core=0)),
    ("S1", "a core too many", lambda: section(pipeline(), 1, core=2)),
    ("S2", "no such descriptor", lambda: code(pipeline(), LOOP4.replace("d0", "d7") + "HALT")),
    ("S2", "no such binding", lambda: code(pipeline(), LOOP4.replace("b0", "b1") + "HALT")),
    ("S2", "no such instruction", lambda: section(pipeline(), code=(Command("JUMP", (3,)), Command("HALT")))),
    ("S2", "an operand short", lambda: section(pipeline(), code=(Command("MVM", (0, 0)), Command("HALT")))),
    ("S2", "an operand too wide", lambda: section(pipeline(), code=(Command("FILL", (1, 1 << 15)), Command("HALT")))),
    ("S2", "awaiting nothing", lambda: code(pipeline(), "AWAIT t0, 0\n" + LOOP4 + "HALT")),
    ("S2", "no such multipliers", lambda: section(vectors(), vectors=(Vector(multiplier=99), Vector()))),
    ("S3", "no ENDL", lambda: code(pipeline(), "LOOP 2\n" + LOOP4 + "HALT")),
    ("S3", "no LOOP", lambda: code(pipeline(), LOOP4 + "ENDL\nHALT")),
    ("S3", "five loops", lambda: code(pipeline(), "LOOP 1\n" * 4 + LOOP4 + "ENDL\n" * 4 + "HALT")),
    ("S3", "no trips", lambda: code(pipeline(), LOOP4 + "LOOP 0\nENDL\nHALT")),
    ("S4", "no HALT", lambda: code(pipeline(), LOOP4)),
    ("S4", "HALT in the middle", lambda: code(pipeline(), "HALT\n" + LOOP4 + "HALT")),
    ("S4", "HALT in a loop", lambda: code(pipeline(), LOOP4 + "LOOP 2\nHALT\nENDL\nHALT")),
    ("S5", "a symbol twice", lambda: replace(pipeline(), symbols=(*pipeline().symbols, pipeline().symbols[0]))),
    ("S5", "no such symbol", lambda: descriptor(pipeline(), 0, symbol="z")),
    ("S5", "no such size", lambda: descriptor(pipeline(), 0, sizes=("T",))),
    (
        "S5",
        "no such trip count",
        lambda: section(pipeline(), code=(Command("LOOP", ("T",)), Command("ENDL"), Command("HALT"))),
    ),
    ("S5", "no such weight", lambda: binding(pipeline(), weight="z")),
    ("S5", "no weight at all", lambda: binding(pipeline(), weight="")),
    ("S5", "no such gain", lambda: binding(pipeline(), readout=Readout(gain="z"))),
    ("S5", "no such table", lambda: section(vectors(), vectors=(vectors().sections[0].vectors[0], Vector(lut="z")))),
    ("S5", "no such content", lambda: symbol(vectors(), "m", weight="z")),
    ("S5", "a value nowhere", lambda: replace(pipeline(), values={"x": Location("z", 0, (), ())})),
    ("S5", "a size of none", lambda: replace(looped(), sizes={"T": 0})),
    ("S6", "a chip that loads no weights", lambda: reloading(capabilities={"wload": False})),
    ("W1", "a load in a loop", lambda: reloading("LOOP 2\nWLOAD b0\nENDL\nMVM d1, d0, b0\nHALT")),
    ("W1", "a store that is too small", lambda: reloading(memories={"weights": {"kind": "dram", "size": 8}})),
    ("W2", "a read before the load", lambda: reloading("MVM d1, d0, b0\nWLOAD b0\nHALT")),
    ("W2", "a read of what was written over", lambda: reloading("WLOAD b0\nWLOAD b1\nMVM d1, d0, b0\nHALT")),
    ("C1", "a subroutine without an end", lambda: setting_up("HALT\nSUB 0\nMVM d1, d0, b0")),
    ("C1", "a command between subroutines", lambda: setting_up("HALT\nMVM d1, d0, b0\nSUB 0\nRET")),
    ("C1", "a subroutine before HALT", lambda: setting_up("SUB 0\nRET\nHALT")),
    ("C1", "two of one number", lambda: setting_up("HALT\nSUB 0\nRET\nSUB 0\nRET")),
    ("C1", "a loop across its end", lambda: setting_up("LOOP 2\nCALL 0\nHALT\nSUB 0\nENDL\nRET")),
    ("C2", "no such subroutine", lambda: setting_up("CALL 1\nHALT\nSUB 0\nRET")),
    (
        "C3",
        "a subroutine that calls itself",
        lambda: setting_up("CALL 0\nHALT\nSUB 0\nCALL 1\nRET\nSUB 1\nCALL 0\nRET"),
    ),
    ("C3", "calls five deep", lambda: setting_up(nested(5, 1))),
    ("C3", "code that explodes", lambda: setting_up(nested(4, 100))),
    ("T1", "a signal in a subroutine", lambda: setting_up("CALL 0\nHALT\nSUB 0\nSIG t0\nRET")),
    ("T3", "a wait in a subroutine", lambda: setting_up("CALL 0\nSIG t0\nHALT\nSUB 0\nAWAIT t0, 1\nRET")),
    ("P2", "a signal in a subroutine under a condition", lambda: setting_up(UNDER)),
    ("W3", "a read before it is verified", lambda: verifying("WLOAD b0\nMVM d1, d0, b0\nHALT")),
    ("W3", "verified, then loaded again", lambda: verifying("WLOAD b0\nWVERIFY b0\nWLOAD b0\nMVM d1, d0, b0\nHALT")),
    ("W3", "nothing to verify", lambda: reloading("WVERIFY b0\nMVM d1, d0, b0\nHALT")),
    ("W3", "written over before it is verified", lambda: verifying("WLOAD b0\nWLOAD b1\nWVERIFY b0\nHALT")),
    ("W3", "verified in a loop", lambda: verifying("WLOAD b0\nLOOP 2\nWVERIFY b0\nENDL\nMVM d1, d0, b0\nHALT")),
    ("W2", "calibrated before it is loaded", lambda: reloading("CAL b0, 1\nWLOAD b0\nMVM d1, d0, b0\nHALT")),
    ("S6", "a chip whose arrays only compute", lambda: replace(setting_up("WMODE 1, 1\nHALT"), chip=CHIP)),
    ("U1", "a mode in the middle", lambda: setting_up("MVM d1, d0, b0\nWMODE 1, 1\nHALT")),
    ("U1", "a calibration in a loop", lambda: setting_up("LOOP 2\nCAL b0, 1\nENDL\nHALT")),
    ("U1", "a procedure nobody knows", lambda: setting_up("CAL b0, 3\nHALT")),
    ("U2", "no such place", lambda: setting_up("LUTLD v0, 2\nHALT")),
    ("U2", "settings without a table", lambda: setting_up("LUTLD v2, 0\nHALT")),
    ("U2", "a table in a loop", lambda: setting_up("MVM d1, d0, b0\nLOOP 2\nLUTLD v0, 0\nENDL\nHALT")),
    ("U3", "a table that is not there", lambda: setting_up("LUTLD v0, 0\nLUT d1, d2, v1\nHALT")),
    ("U4", "no such macro", lambda: setting_up("WMODE 2, 1\nHALT")),
    ("U4", "a macro that holds weights", lambda: setting_up("WMODE 0, 1\nMVM d1, d0, b0\nHALT")),
    ("B3", "a load over fixed weights", lambda: reloading("WLOAD b0\nMVM d1, d0, b0\nHALT")),
    ("L1", "a write into another chip", lambda: two_chips("DMA d0, d1\nHALT")),
    ("S6", "a chip without MMA", lambda: replace(vectors(), chip=chip(capabilities={"mma": False}))),
    ("D1", "five dimensions", lambda: descriptor(pipeline(), 0, sizes=(1,) * 5, strides=(1,) * 5)),
    ("D1", "a stride short", lambda: descriptor(pipeline(), 0, strides=())),
    ("D1", "a size of 0", lambda: descriptor(pipeline(), 0, sizes=(0,))),
    ("D2", "a step too many", lambda: descriptor(pipeline(), 0, steps=(6, 1))),
    ("D3", "past the end", lambda: descriptor(pipeline(), 0, offset=1)),
    ("D3", "before the start", lambda: descriptor(pipeline(), 0, offset=17, strides=(-1,), steps=(-5,))),
    ("D3", "too large a step", lambda: descriptor(pipeline(), 1, steps=(5,))),
    ("D3", "too many trips", lambda: replace(looped(), sizes={"T": 5})),
    ("D3", "multipliers outside", lambda: descriptor(vectors(), 2, offset=2)),
    ("D4", "a write to an input", lambda: code(vectors(), "FILL d0, 1\nHALT")),
    ("D4", "a write to a weight", lambda: code(vectors(), "FILL d2, 1\nHALT")),
    ("D4", "an update of an input", lambda: code(symbol(vectors(), "t", kind="input"), "ACC d3, d0\nHALT")),
    ("M1", "outside its space", lambda: symbol(pipeline(), "y", address=44)),
    ("M1", "not aligned", lambda: symbol(pipeline(), "y", address=38)),
    ("M1", "before memory", lambda: symbol(pipeline(), "x", address=-1)),
    ("M1", "an unknown element", lambda: symbol(pipeline(), "x", dtype="i7")),
    ("M1", "no such space", lambda: symbol(pipeline(), "x", space="rom")),
    ("M2", "another type", lambda: symbol(vectors(), "m", dtype="u32")),
    ("M2", "another count", lambda: weight(vectors(), "m", np.ones(3, np.int32))),
    ("M2", "a scratch with a weight", lambda: symbol(vectors(), "t", weight="m")),
    ("M2", "a weight without", lambda: symbol(vectors(), "t", kind="weight")),
    ("M2", "an initial value too large", lambda: symbol(pipeline(), "act", initial=128)),
    ("M3", "a full memory", lambda: replace(pipeline(), spaces={"ram": 1025})),
    ("M3", "no such memory", lambda: replace(pipeline(), spaces={"ram": 88, "rom": 1})),
    ("M4", "a value past its symbol", lambda: replace(pipeline(), values={"x": Location("x", 1, (4, 6), (6, 1))})),
    ("M4", "a value without strides", lambda: replace(pipeline(), values={"x": Location("x", 0, (4, 6), (6,))})),
    ("B1", "a gap in rows", lambda: tile(pipeline(), 1, row0=4, rows=2)),
    ("B1", "an overlap", lambda: tile(pipeline(), 1, row0=2)),
    ("B1", "a tile outside", lambda: tile(pipeline(), 1, row0=4)),
    ("B1", "a tile short", lambda: binding(pipeline(), tiles=pipeline().sections[0].bindings[0].tiles[:1])),
    ("B1", "gap and overlap of equal size", lambda: tile(pipeline(), 1, row0=0)),
    ("B2", "across arrays", lambda: tile(pipeline(), 1, y=14)),
    ("B2", "below the arrays", lambda: tile(pipeline(), 1, y=32)),
    ("B2", "right of the array", lambda: tile(pipeline(), 1, x=13)),
    ("B2", "in reserved columns", lambda: tile(pipeline(), 1, x=0)),
    ("B2", "no such macro", lambda: tile(pipeline(), 1, macro=2)),
    ("B3", "common cells", lambda: tile(pipeline(), 1, macro=0, y=2)),
    ("B4", "parts that fall", lambda: read_by(replace(READ_ADC, parts=(0, 4, 3, 6)), ADC)),
    ("B4", "parts that end early", lambda: read_by(replace(READ_ADC, parts=(0, 3)), ADC)),
    ("B4", "a tile across parts", lambda: read_by(replace(READ_ADC, parts=(0, 2, 6)), ADC)),
    ("B4", "two tiles in one part", lambda: read_by(replace(READ_ADC, parts=()), ADC)),
    ("B5", "bias rows outside", lambda: tile(pipeline(), 0, bias0=3)),
    ("B5", "common bias rows", lambda: tile(pipeline(), 1, macro=0, y=16, bias0=1, bias_rows=1)),
    ("B6", "a weight of another shape", lambda: weight(pipeline(), "w1", np.zeros((4, 6), np.int8))),
    ("B6", "a float weight", lambda: weight(pipeline(), "w1", np.zeros((6, 4), np.float32))),
    ("B6", "a bias too long", lambda: weight(pipeline(), "b1", np.zeros(6, np.int32))),
    ("B6", "multipliers too few", lambda: weight(binding(pipeline(), post=Post("m", lo=0, hi=9)), "m", [1, 2, 3])),
    ("B7", "another readout than the chip's", lambda: read_by(READ_ADC, CHIP)),
    ("B7", "lo above hi", lambda: binding(pipeline(), post=Post(lo=3, hi=2))),
    ("B7", "a shift of 63", lambda: binding(pipeline(), post=Post(shift=63, lo=0, hi=9))),
    (
        "B7",
        "a shift per column below 0",
        lambda: weight(binding(pipeline(), post=Post(shift="s", lo=0, hi=9)), "s", [0, -1, 0, 0]),
    ),
    ("B7", "no bits", lambda: read_by(replace(READ_ADC, bits=0), ADC)),
    ("B7", "an odd gain", lambda: read_by(Readout(kind="wtm2101", gain=1000, parts=(0, 3, 6)), WTM)),
    (
        "B7",
        "a gain too small for its parts",
        lambda: read_by(Readout(kind="wtm2101", gain=512, k=2, parts=(0, 3, 6)), WTM),
    ),
    (
        "B7",
        "a shift per column in a vector",
        lambda: section(vectors(), vectors=(Vector(post=Post(shift="m", lo=0, hi=1)),) * 2),
    ),
    (
        "B7",
        "a vector shift of 70",
        lambda: section(vectors(), vectors=(Vector(post=Post(shift=70, lo=0, hi=1), lut="lut"),) * 2),
    ),
    ("B7", "softmax without a table", lambda: section(vectors(), vectors=(Vector(post=Post(lo=0, hi=1)),) * 2)),
    ("B8", "a weight the cells cannot hold", lambda: weight(pipeline(), "w1", np.full((6, 4), 200, np.int16))),
    ("T1", "a signal too many", lambda: code(pipeline(), LOOP4 + "SIG t0\nHALT")),
    ("T1", "a token nobody awaits", lambda: code(pipeline(), LOOP4 + "SIG t1\nHALT")),
    (
        "T1",
        "a count too many",
        lambda: section(pipeline(), 1, code=parse_section(SECOND.replace("t0, 1", "t0, 2")).code),
    ),
    (
        "T2",
        "two that await",
        lambda: code(
            code(pipeline(), LOOP4 + "SIG t0\nAWAIT t0, 1\nHALT"), "LOOP 4\nAWAIT t0, 1\nMVM d1, d0, b0\nENDL\nHALT", 1
        ),
    ),
    (
        "T3",
        "each waits for the other",
        lambda: code(code(pipeline(), "AWAIT t1, 1\n" + LOOP4 + "HALT"), CONSUME.replace("HALT", "SIG t1\nHALT"), 1),
    ),
    ("T3", "a barrier for one", lambda: code(pipeline(), LOOP4 + "BAR\nHALT")),
    ("T3", "a core that waits for itself", lambda: code(pipeline(), "AWAIT t1, 1\n" + LOOP4 + "SIG t1\nHALT")),
    (
        "T4",
        "no edge at all",
        lambda: code(code(pipeline(), LOOP4.replace("SIG t0\n", "") + "HALT"), CONSUME.replace("AWAIT t0, 1", ""), 1),
    ),
    ("T4", "a signal before the write", lambda: code(pipeline(), "LOOP 4\nSIG t0\nMVM d1, d0, b0\nENDL\nHALT")),
    ("T4", "a wait after the read", lambda: code(pipeline(), "LOOP 4\nMVM d1, d0, b0\nAWAIT t0, 1\nENDL\nHALT", 1)),
    ("T4", "a row too early", lambda: descriptor(descriptor(pipeline(), 0, 1, offset=12, steps=(-4,)), 1, 1, offset=0)),
    ("V1", "other sizes", lambda: descriptor(vectors(), 0, sizes=(4, 2), strides=(2, 1))),
    ("V2", "an MVM result too wide", lambda: binding(pipeline(), post=Post())),
    (
        "V2",
        "a vector result too wide",
        lambda: section(vectors(), vectors=(Vector(), vectors().sections[0].vectors[1])),
    ),
    ("V2", "a constant too large", lambda: code(vectors(), "FILL d1, 128\nHALT")),
    ("V2", "a copy into less", lambda: code(vectors(), "DMA d1, d3\nHALT")),
    ("V2", "a copy into another sign", lambda: code(symbol(vectors(), "y", dtype="u8"), "DMA d1, d0\nHALT")),
    ("V2", "a float operand", lambda: code(symbol(vectors(), "t", dtype="f32"), "REQ d1, d3, v0\nHALT")),
    ("V3", "multipliers of other sizes", lambda: descriptor(vectors(), 2, sizes=(2,), strides=(1,))),
    (
        "V3",
        "shifts of other sizes",
        lambda: section(
            vectors(), vectors=(replace(VECTOR, shift=0, multiplier=None), *vectors().sections[0].vectors[1:])
        ),
    ),
    ("V4", "a window in front", lambda: descriptor(vectors(), 7, sizes=(4,), strides=(1,))),
    ("V5", "a narrow sum", lambda: code(vectors(), "ACC d1, d0\nHALT")),
    ("S6", "numbers on a chip of codes", lambda: replace(numbers(), chip=chip(capabilities={"floats": False}))),
    (
        "S2",
        "a host operand that is not there",
        lambda: section(numbers(), descriptors=numbers().sections[0].descriptors[:1]),
    ),
    ("V6", "a function nobody knows", lambda: section(numbers(), vectors=(Vector(fn="sing"),) * 3)),
    (
        "V6",
        "truth in a number",
        lambda: section(numbers(), vectors=(Vector(fn="isnan"), *numbers().sections[0].vectors[1:])),
    ),
    ("V7", "a choice that is a number", lambda: symbol(numbers(), "c", dtype="u8")),
    ("X4", "too few indices", lambda: descriptor(numbers(), 4, sizes=(1,))),
    ("H1", "a host operand of another type", lambda: symbol(numbers(), "g", dtype="i32")),
    ("H1", "a host operator in a loop", lambda: code(numbers(), "LOOP 2\nHOST h0\nENDL\nHALT")),
    ("X1", "other positions", lambda: descriptor(pipeline(), 1, sizes=(2, 4), strides=(0, 1))),
    ("X2", "other rows", lambda: descriptor(pipeline(), 0, sizes=(5,))),
    ("X2", "other columns", lambda: descriptor(pipeline(), 1, sizes=(3,))),
    ("X3", "matrices that do not meet", lambda: code(vectors(), "MMA d5, d4, d0, v0\nHALT")),
    ("X5", "entries of another size", lambda: code(following(), "SCATTER d6, d2, d4\nHALT")),
    ("X5", "an index of numbers", lambda: symbol(following(), "index", dtype="f32")),
    ("X6", "scales that lead nothing", lambda: descriptor(following(), 9, sizes=(2,))),
    ("X6", "zeros of another type", lambda: symbol(following(), "zero", dtype="i8")),
    ("X6", "numbers of bytes", lambda: symbol(following(), "back", dtype="u8")),
    ("P1", "a PRED without end", lambda: code(following(), "PRED d7, 1\nHALT")),
    ("P1", "an end without PRED", lambda: code(following(), "ENDP\nHALT")),
    ("P1", "a block across a loop", lambda: code(following(), "LOOP 2\nPRED d7, 1\nENDL\nENDP\nHALT")),
    ("P1", "five blocks", lambda: code(following(), "PRED d7, 1\n" * 5 + "ENDP\n" * 5 + "HALT")),
    (
        "P2",
        "a signal under a condition",
        lambda: code(pipeline(), "LOOP 4\nMVM d1, d0, b0\nPRED d0, 1\nSIG t0\nENDP\nENDL\nHALT"),
    ),
    ("P2", "a barrier under a condition", lambda: code(following(), "PRED d7, 1\nBAR\nENDP\nHALT")),
    ("P3", "a condition of two", lambda: descriptor(following(), 7, sizes=(2,), strides=(0,))),
    ("P3", "a place that is a number", lambda: symbol(following(), "at", dtype="f32")),
    ("P4", "no such dimension", lambda: code(following(), "SETD d6, d5, 3, 4\nHALT")),
    ("D3", "a place beyond the symbol", lambda: code(following(), "SETD d6, d5, 1, 5\nDMA d6, d3\nHALT")),
    ("D3", "a place that another command reaches", lambda: code(following(), "DMA d6, d3\nSETD d6, d5, 1, 5\nHALT")),
    ("S6", "codes on a chip without numbers", lambda: replace(following(), chip=chip(capabilities={"floats": False}))),
    ("S6", "no memory that multiplies", lambda: replace(banked(), chip=chip(capabilities={"gemv": False}))),
    ("S6", "a chip that writes no cells", lambda: replace(stored(), chip=chip(capabilities={"wload": False}))),
    ("X7", "a macro that is not there", lambda: stored(macros=(1, 2))),
    ("X7", "no macros", lambda: stored(macros=())),
    ("X7", "a macro with weights", lambda: section(stored(), bindings=(HELD,))),
    ("X7", "codes that cells do not hold", lambda: symbol(stored(), "x", dtype="u8")),
    ("X7", "more bits than codes have", lambda: stored(bits=9)),
    ("X7", "sums that are converted", lambda: replace(stored(), chip=chip(macro={"readout": {"kind": "adc"}}))),
    ("G1", "a part of the matrix", lambda: descriptor(banked(), 2, offset=4, sizes=(2, 4))),
    ("G1", "a matrix in other memory", lambda: symbol(banked(), "w", space="ram")),
    ("G1", "a matrix of another weight", lambda: binding(banked(), weight="b")),
    ("G1", "a matrix in arrays too", lambda: binding(banked(), tiles=(Tile(0, 0, 3, 0, 4, 1, 0),))),
    ("G2", "a copy out of the banks", lambda: code(banked(), "DMA d2, d2\nHALT")),
    ("X2", "a matrix of other rows", lambda: binding(banked(), rows=2)),
]


@pytest.mark.parametrize(("rule", "name", "make"), BROKEN, ids=[f"{r} {n}" for r, n, _ in BROKEN])
def test_each_fault_is_caught(rule: str, name: str, make: Callable[[], Program]) -> None:
    assert rule in rules(make())


@pytest.mark.parametrize("make", [following, banked, stored])
def test_programs_that_follow_data_pass(make: Callable[[], Program]) -> None:
    check_program(make())


def test_a_place_that_data_decide_counts_as_all_it_may_be() -> None:
    """Another core reads what a moved descriptor might write: without an order that is a fault, wherever it writes."""
    symbols = [
        Symbol("at", "input", "ram", "i32", 1, 0),
        Symbol("m", "scratch", "ram", "i8", 8, 4),
        Symbol("y", "output", "ram", "i8", 1, 12),
    ]
    writer = "d0 = at +0 [1:1]\nd1 = m +0 [1:1]\ncode\nSETD d1, d0, 0, 7\nFILL d1, 1\n{}HALT"
    reader = "d0 = m +7 [1:1]\nd1 = y +0 [1:1]\ncode\n{}DMA d1, d0\nHALT"
    loose = program(symbols, (writer.format(""), reader.format("")))
    ordered = program(symbols, (writer.format("SIG t0\n"), reader.format("AWAIT t0, 1\n")))
    assert "T4" in rules(loose)
    assert rules(ordered) == set()


def test_every_constraint_has_a_case() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(table().constraints)


def test_one_error_lists_all_faults_with_their_place() -> None:
    broken = tile(descriptor(pipeline(), 0, offset=1), 1, macro=9)
    broken = descriptor(broken, 1, 1, steps=(4,))
    with pytest.raises(ProgramError) as caught:
        check_program(broken)
    text = str(caught.value)
    assert text.startswith("program test: 3 faults\n")
    assert "chip 0 core 0 command 1 (MVM) in d0: elements 1..24 of x, which has 24; needs every address" in text
    assert "chip 0 core 1 command 2 (MVM) out d1: elements 0..14 of y" in text
    assert "chip 0 core 0 b0 (first): macro 9 of 2 in a core" in text


def test_a_long_list_is_cut() -> None:
    values = {f"v{i}": Location("x", 99, (), ()) for i in range(80)}
    with pytest.raises(ProgramError, match="80 faults") as caught:
        check_program(replace(pipeline(), values=values))
    assert str(caught.value).endswith("and 30 more")


def test_padding_around_an_input_may_be_filled() -> None:
    padded = replace(vectors(), values={"x": Location("x", 0, (2, 3), (4, 1))})
    edge = descriptor(padded, 6, offset=3, sizes=(2,), strides=(4,))
    check_program(code(edge, "FILL d6, 1\nHALT"))
    assert rules(code(descriptor(edge, 6, strides=(3,)), "FILL d6, 1\nHALT")) == {"D4"}


# orderings


def test_memory_of_two_symbols_is_one_memory() -> None:
    """The second core writes where the first still reads: only the addresses tell."""
    moved = symbol(replace(pipeline(), spaces={"ram": 88}), "y", address=0)
    assert rules(moved) == {"T4"}


def test_a_missing_edge_names_both_sides() -> None:
    broken = code(pipeline(), "LOOP 4\nSIG t0\nMVM d1, d0, b0\nENDL\nHALT")
    text = "\n".join(map(str, find_faults(broken)))
    assert (
        "chip 0 core 1 command 2 (MVM): reads act in memory written by" in text
        or "core 0 command 2 (MVM): writes act" in text
    )


def test_interleaved_columns_do_not_meet() -> None:
    """Two cores write alternate columns of one symbol; ranges overlap, bytes do not."""
    symbols = [Symbol("y", "output", "ram", "i8", 8, 0)]
    texts = tuple(f"d0 = y +{i} [4:2]\ncode\nFILL d0, {i}\nHALT" for i in range(2))
    check_program(program(symbols, texts))
    touching = tuple(f"d0 = y +{i} [4:2]\nd1 = y +3 []\ncode\nFILL d{i}, {i}\nHALT" for i in range(2))
    assert rules(program(symbols, (touching[0].replace("+0", "+1"), touching[1]))) == {"T4"}


def test_two_producers_of_one_token_must_both_be_done() -> None:
    symbols = [Symbol("a", "scratch", "ram", "i8", 3, 0), Symbol("y", "output", "ram", "i8", 2, 4)]
    producer = "d0 = a +{0} []\ncode\nFILL d0, 1\nSIG t0\nHALT"
    consumer = "d0 = a +0 [2:1]\nd1 = y +0 [2:1]\ncode\nAWAIT t0, {0}\nDMA d1, d0\n{1}HALT"
    three = chip(tile={"cores": 3})
    texts = (producer.format(0), producer.format(1), consumer.format(2, ""))
    check_program(program(symbols, texts, on=three))
    early = (*texts[:2], consumer.format(1, "AWAIT t0, 1\n"))
    assert rules(program(symbols, early, on=three)) == {"T4"}


def test_a_buffer_is_not_overwritten_before_it_is_read() -> None:
    """A double buffer with the token that gives a half back; without it the writer runs ahead."""
    symbols = [Symbol("a", "scratch", "ram", "i8", 2, 0), Symbol("y", "output", "ram", "i8", 8, 4)]
    one = "d0 = a +0 [] step (0, 1)\nd1 = y +0 [] step (2, 1)\ncode\nLOOP {0}\nLOOP 2\n{1}ENDL\nENDL\n"
    reader = one.format(4, "AWAIT t0, 1\nDMA d1, d0\nSIG t1\n") + "HALT"
    fill = one.format(1, "FILL d0, 1\nSIG t0\n")
    again = "LOOP 3\nLOOP 2\nAWAIT t1, 1\nFILL d0, 1\nSIG t0\nENDL\nENDL\nAWAIT t1, 2\nHALT"
    check_program(program(symbols, (fill + again, reader)))
    ahead = (fill + again).replace("AWAIT t1, 1\n", "").replace("AWAIT t1, 2\n", "")
    assert rules(program(symbols, (ahead, reader.replace("SIG t1\n", "")))) == {"T4"}


def test_long_programs_are_checked_by_their_totals() -> None:
    symbols = [Symbol("y", "output", "ram", "i8", 2, 0)]
    texts = tuple(f"code\nLOOP 60000\nLOOP 10000\n{op}\nENDL\nENDL\nHALT" for op in ("SIG t0", "AWAIT t0, 1"))
    check_program(program(symbols, texts))
    assert rules(program(symbols, (texts[0].replace("60000", "60001"), texts[1]))) == {"T1"}


def test_run_time_sizes_are_checked_at_both_ends() -> None:
    """Four signals sent whatever T is: right at its largest, wrong below."""
    symbols = [Symbol("y", "output", "ram", "i8", 2, 0)]
    texts = ("code\nLOOP 4\nSIG t0\nENDL\nHALT", "code\nLOOP T\nAWAIT t0, 1\nENDL\nHALT")
    assert rules(program(symbols, texts, sizes={"T": 4})) == {"T1"}
    check_program(program(symbols, (texts[0].replace("4", "T"), texts[1]), sizes={"T": 4}))


@given(st.permutations([0, 1]), st.booleans(), st.booleans())
def test_what_passes_does_not_depend_on_the_order_of_sections(order: list[int], early: bool, late: bool) -> None:
    first = FIRST.replace("MVM d1, d0, b0\n    SIG t0", "SIG t0\n    MVM d1, d0, b0") if early else FIRST
    second = SECOND.replace("AWAIT t0, 1\n    MVM d1, d0, b0", "MVM d1, d0, b0\n    AWAIT t0, 1") if late else SECOND
    built = code(code(pipeline(), first.split("code")[1]), second.split("code")[1], 1)
    sound = not (early or late)
    assert (rules(built) == set()) == sound
    if sound:
        assert run(built, {"x": X}, order=order)["y"].tolist() == run(pipeline(), {"x": X})["y"].tolist()


def test_huge_claims_cost_nothing() -> None:
    """A file may claim any sizes; the check answers without allocating them."""
    huge = 1 << 60
    symbols = [Symbol("x", "input", "ram", "i8", huge, 0), Symbol("y", "output", "ram", "i8", huge, huge)]
    moved = (
        "d0 = {0} +0 [1048576:1048576, 1048576:1]\nd1 = y +0 [1048576:0, 1048576:0]\ncode\nFILL d0, 1\nFILL d1, 1\nHALT"
    )
    built = replace(program(symbols, (moved.format("x"), moved.format("y"))), chip={}, spaces={"ram": 2 * huge})
    assert rules(built) == {"D4"}
    assert rules(replace(built, values={"x": Location("x", -huge, (2,), (1,))})) >= {"D4", "M4"}
    assert rules(replace(built, sections=built.sections[1:])) == set()
    both = (moved.format("y"), moved.format("y"))
    check_program(replace(program(symbols, both), chip={}, spaces={"ram": 2 * huge}))


# closed forms against enumeration


@st.composite
def placed(draw: st.DrawFn) -> tuple[Descriptor, tuple[int, ...]]:
    rank, loops = draw(st.integers(0, 3)), draw(st.integers(0, 2))
    strides = st.integers(-5, 5)
    sizes = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    shape = Descriptor(
        "s", 40, sizes, tuple(draw(strides) for _ in range(rank)), tuple(draw(strides) for _ in range(loops))
    )
    return shape, tuple(draw(st.integers(1, 3)) for _ in range(loops))


def elements(d: Descriptor, counters: tuple[int, ...]) -> set[int]:
    base = d.offset + sum(c * s for c, s in zip(counters, d.steps, strict=False))
    return {
        base + sum(i * s for i, s in zip(index, d.strides, strict=True)) for index in np.ndindex(*map(int, d.sizes))
    }


@given(placed())
def test_reach_is_the_least_and_the_most(case: tuple[Descriptor, tuple[int, ...]]) -> None:
    d, trips = case
    every = {e for counters in np.ndindex(*trips) for e in elements(d, counters)}
    assert reach(d, trips) == (min(every), max(every))


@given(placed(), st.sampled_from(["i8", "i32"]))
def test_footprints_are_the_bytes_addressed(case: tuple[Descriptor, tuple[int, ...]], dtype: str) -> None:
    d, _ = case
    width = 4 if dtype == "i32" else 1
    footprint = _footprint(d, Symbol("s", "scratch", "ram", dtype, 100, 8))
    found = {int(b) for start in footprint.starts for b in range(int(start), int(start) + footprint.run)}
    assert found == {8 + e * width + b for e in elements(d, ()) for b in range(width)}


@given(st.lists(st.sampled_from(["LOOP 2", "LOOP 3", "ENDL", "SIG t1", "HALT"]), max_size=9))
def test_expanding_runs_loops(lines: list[str]) -> None:
    depth, kept = 0, []
    for line in lines:
        if line != "ENDL" or depth:
            depth += ("LOOP" in line) - (line == "ENDL")
            kept.append(line)
    kept += ["ENDL"] * depth
    commands = parse_section("code\n" + "\n".join(kept)).code
    assert [c.op for _, c, _ in expand(commands)] == unrolled([(c.op, c.args) for c in commands])


def unrolled(code: list[tuple[str, Any]]) -> list[str]:
    """The same by recursion."""
    done: list[str] = []
    at = 0
    while at < len(code):
        op, args = code[at]
        if op == "LOOP":
            depth, end = 1, at
            while depth:
                end += 1
                depth += (code[end][0] == "LOOP") - (code[end][0] == "ENDL")
            done += unrolled(code[at + 1 : end]) * args[0]
            at = end
        else:
            done.append(op)
        at += 1
    return done
