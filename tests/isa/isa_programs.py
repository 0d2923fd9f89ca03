"""Tiny programs for the tests: a chip, a builder, and a pipeline over two cores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from insitu.isa.assembler import parse_section
from insitu.isa.program import (
    Binding,
    Location,
    Post,
    Program,
    Readout,
    Section,
    Symbol,
    Tile,
    Vector,
    WeightRef,
    weight_ref,
)

CHIP: dict[str, Any] = {
    "name": "tiny",
    "array": {"rows": 16, "cols": 16, "cell_range": [-128, 127]},
    "macro": {
        "arrays": 2,
        "bias_rows": 4,
        "reserved_columns": 1,
        "input": {"bits": 8, "signed": True},
        "readout": {"kind": "exact"},
    },
    "core": {"macros": 2},
    "tile": {"cores": 2},
    "chip": {"tiles": 1},
    "memories": {"ram": {"kind": "sram", "size": "1 KiB"}},
    "capabilities": {"mma": True},
}


def chip(**changes: Any) -> dict[str, Any]:
    """The tiny chip with some of its parts changed: macro={"readout": ...}."""
    return {**CHIP, **{key: {**CHIP.get(key, {}), **value} for key, value in changes.items()}}


def program(
    symbols: list[Symbol],
    code: str | tuple[str, ...],
    *,
    bindings: tuple[Binding, ...] = (),
    vectors: tuple[Vector, ...] = (),
    weights: dict[str, Any] | None = None,
    values: dict[str, Location] | None = None,
    on: dict[str, Any] | None = None,
    sizes: dict[str, int] | None = None,
) -> Program:
    """A program from the assembly of its sections; values default to whole symbols."""
    refs = {n: w if isinstance(w, WeightRef) else weight_ref(np.array(w)) for n, w in (weights or {}).items()}
    texts = (code,) if isinstance(code, str) else code
    sections = tuple(_section(text, i, bindings, vectors) for i, text in enumerate(texts))
    whole = {s.name: Location(s.name, 0, (s.count,), (1,)) for s in symbols if s.kind != "weight"}
    width = {"8": 1, "6": 2, "2": 4}
    return Program(
        name="test",
        chip=on or CHIP,
        graph="",
        symbols=tuple(symbols),
        sections=sections,
        weights=refs,
        values=values or whole,
        sizes=sizes or {},
        spaces={"ram": max(s.address + s.count * width[s.dtype[-1]] for s in symbols)},
    )


def _section(text: str, core: int, bindings: tuple[Binding, ...], vectors: tuple[Vector, ...]) -> Section:
    section = parse_section(text)
    return replace(section, core=core, bindings=section.bindings + bindings, vectors=section.vectors + vectors)


W1 = (np.arange(24).reshape(6, 4) % 7 - 3).astype(np.int8)
W2 = (np.arange(12).reshape(4, 3) % 5 - 2).astype(np.int8)
B1 = np.array([5, -5, 0, 9], np.int32)
X = (np.arange(24).reshape(4, 6) * 5 % 23 - 11).astype(np.int8)

FIRST = """
d0 = x +0 [6:1] step (6)
d1 = act +0 [4:1] step (4)
code
  LOOP 4
    MVM d1, d0, b0
    SIG t0
  ENDL
  HALT
"""
SECOND = """
d0 = act +0 [4:1] step (4)
d1 = y +0 [3:1] step (3)
code
  LOOP 4
    AWAIT t0, 1
    MVM d1, d0, b0
  ENDL
  HALT
"""


def pipeline() -> Program:
    """Two layers on two cores, a row at a time: act = clip(x W1 + B1), y = act W2."""
    first = Binding(
        "first",
        "w1",
        "b1",
        6,
        4,
        0,
        (Tile(0, 0, 3, 0, 4, 1, 0, 0, 2), Tile(1, 3, 3, 0, 4, 1, 0)),
        post=Post(lo=-128, hi=127),
    )
    second = Binding("second", "w2", "", 4, 3, 0, (Tile(0, 0, 4, 0, 3, 1, 2),))
    symbols = [
        Symbol("x", "input", "ram", "i8", 24, 0),
        Symbol("act", "scratch", "ram", "i8", 16, 24),
        Symbol("y", "output", "ram", "i32", 12, 40),
    ]
    built = program(
        symbols,
        (FIRST, SECOND),
        weights={"w1": W1, "b1": B1, "w2": W2},
        values={
            "x": Location("x", 0, (4, 6), (6, 1)),
            "act": Location("act", 0, (4, 4), (4, 1)),
            "y": Location("y", 0, (4, 3), (3, 1)),
        },
    )
    a, b = built.sections
    return replace(built, sections=(replace(a, bindings=(first,)), replace(b, bindings=(second,))))


def pipeline_result() -> tuple[np.ndarray, np.ndarray]:
    """act and y of the pipeline for X, in one line of NumPy each."""
    act = np.clip(X.astype(np.int64) @ W1 + B1, -128, 127)
    return act, act @ W2


def exact(
    rows: int, cols: int, *, readout: Readout | None = None, post: Post | None = None, bias: str = "", **more: Any
) -> Binding:
    """A binding of weight `w` on one tile."""
    return Binding(
        "fc",
        "w",
        bias,
        rows,
        cols,
        tiles=(Tile(0, 0, rows, 0, cols, 1, 0),),
        readout=readout or Readout(),
        post=post or Post(),
        **{"zero_in": 0, **more},
    )


def following() -> Program:
    """What follows run-time values: a scatter, an entry at a place, a block under a condition, codes and numbers."""
    symbols = [
        Symbol("x", "input", "ram", "f32", 12, 0),
        Symbol("new", "input", "ram", "f32", 4, 48),
        Symbol("index", "input", "ram", "i32", 2, 64),
        Symbol("at", "input", "ram", "i32", 1, 72),
        Symbol("go", "input", "ram", "u8", 1, 76),
        Symbol("y", "output", "ram", "f32", 12, 80),
        Symbol("codes", "output", "ram", "u8", 12, 128),
        Symbol("scale", "output", "ram", "f32", 6, 144),
        Symbol("zero", "output", "ram", "u8", 6, 168),
        Symbol("again", "output", "ram", "u8", 12, 176),
        Symbol("back", "output", "ram", "f32", 12, 188),
    ]
    text = """
d0 = y +0 [12:1]
d1 = x +0 [12:1]
d2 = y +0 [1:12, 6:2, 2:1]
d3 = new +0 [1:4, 2:2, 2:1]
d4 = index +0 [2:1]
d5 = at +0 [1:1]
d6 = y +0 [1:12, 2:2, 2:1]
d7 = go +0 [1:1]
d8 = codes +0 [6:2, 2:1]
d9 = scale +0 [6:1]
d10 = zero +0 [6:1]
d11 = y +0 [6:2, 2:1]
d12 = again +0 [6:2, 2:1]
d13 = back +0 [6:2, 2:1]
d14 = back +0 [2:1] step (2)
d15 = new +0 [2:1]
code
  DMA d0, d1
  SCATTER d2, d3, d4
  SETD d6, d5, 1, 4
  PRED d7, 1
    DMA d6, d3
  ENDP
  QDYN d8, d9, d10, d11
  Q d12, d11, d9, d10
  DQ d13, d12, d9, d10
  LOOP 3
    PRED d7, 0
      DMA d14, d15
    ENDP
  ENDL
  HALT
"""
    return program(symbols, text)


BANKED = """
d0 = x +0 [2:3, 3:1]
d1 = y +0 [2:4, 4:1]
d2 = w +0 [3:4, 4:1]
code
  GEMV d1, d0, d2, b0
  HALT
"""


def banked() -> Program:
    """A product of a matrix in memory banks."""
    symbols = [
        Symbol("x", "input", "ram", "i8", 6, 0),
        Symbol("y", "output", "ram", "i8", 8, 8),
        Symbol("w", "weight", "banks", "i8", 12, 0, weight="w"),
    ]
    binding = Binding("fc", "w", "b", 3, 4, 1, (), post=Post(3, 2, "half_even", -1, -128, 127))
    memories = {"ram": {"kind": "sram", "size": "1 KiB"}, "banks": {"kind": "dram", "size": "1 KiB"}}
    on = chip(memories=memories, capabilities={"gemv": True})
    weights = {"w": np.arange(-6, 6, dtype=np.int8).reshape(3, 4), "b": np.array([1, -2, 30, 4], np.int32)}
    built = program(symbols, BANKED, bindings=(binding,), weights=weights, on=on)
    return replace(built, spaces={"ram": 16, "banks": 12})
