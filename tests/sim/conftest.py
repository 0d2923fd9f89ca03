"""Small programs and a chip with round numbers, for counts, time and energy worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.isa.program import (
    Binding,
    Command,
    Descriptor,
    Post,
    Program,
    Readout,
    Section,
    Symbol,
    Tile,
    Vector,
    weight_ref,
)

# 1 ns a cycle, 1 byte a ns, 10 ns a read, 4 lanes, 2 cores of 2 macros
ROUND = (
    "chip.clock=1 GHz", "chip.tiles=1", "tile.cores=2", "core.macros=2", "core.vector.lanes=4",
    "memories.ram.bandwidth=1 GB/s", "macro.t_read=10 ns",
)  # fmt: skip


def toy_chip(kind="exact", **changes):
    base, passes = ("dcim-28nm", ()) if kind == "exact" else ("parametric-reram-adc8", ())
    changes = {"macro.input.bits_per_pass": 8, **({} if kind == "exact" else {"macro.t_adc": "2 ns"}), **changes}
    return load_chip(base, overrides=(*ROUND, *passes, *(f"{path}={value}" for path, value in changes.items())))


def binding(label, macros=(0,), *, rows=8, cols=4, kind="exact"):
    """A matrix [rows, cols] cut into one row tile per entry of `macros`; equal macros stack their tiles in y."""
    at = [i * rows // len(macros) for i in range(len(macros) + 1)]
    tiles = tuple(
        Tile(macro=m, row0=low, rows=high - low, col0=0, cols=cols, x=0, y=low)
        for m, low, high in zip(macros, at, at[1:], strict=False)
    )
    return Binding(label, f"w{rows}x{cols}", "", rows, cols, 0, tiles, Readout(kind=kind, bits=8), Post())


def section(*code, core=0, descriptors=(), bindings=(), vectors=(), chip=0):
    commands = tuple(Command(line.split()[0], tuple(_operand(a) for a in line.split()[1:])) for line in code)
    return Section(chip, core, tuple(descriptors), tuple(bindings), tuple(vectors), commands)


def _operand(text):
    return int(text) if text.lstrip("-").isdigit() else text


def program(*sections, sizes=None, meta=None):
    weights = {b.weight: weight_ref(np.zeros((b.rows, b.cols), np.int8)) for s in sections for b in s.bindings}
    symbols = (
        Symbol("x", "scratch", "ram", "int8", 1 << 16, 0),
        Symbol("wide", "scratch", "ram", "int32", 1 << 14, 1 << 16),
    )
    return Program("toy", {}, "", symbols, tuple(sections), weights, {}, sizes=sizes or {}, meta=meta or {})


def mvm_operands(vectors, *, rows=8, cols=4):
    """Descriptors (out, in) of `vectors` positions without overlap."""
    return (
        Descriptor("x", 4096, (vectors, cols), (cols, 1)),
        Descriptor("x", 0, (vectors, rows), (rows, 1)),
    )


@pytest.fixture(scope="session")
def toy():
    """What the tests of counts, time and energy build programs with."""
    return SimpleNamespace(
        chip=toy_chip, binding=binding, section=section, program=program, mvm_operands=mvm_operands,
        Descriptor=Descriptor, Vector=Vector, Tile=Tile, replace=replace,
    )  # fmt: skip
