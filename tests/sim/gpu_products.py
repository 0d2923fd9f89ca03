"""Bindings on chips of every readout, and two models' codes of the same inputs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from insitu.arch.load import load_chip
from insitu.circuit.effects import Physics
from insitu.isa.program import Binding, Post, Program, Readout, Section, Tile, weight_ref
from insitu.sim.macro import MacroModel

ROWS, COLUMNS = 40, 10
PLACE: dict[str, Any] = {"instance": 3, "macro": 0xFFFFFFF1, "time": 0x80000005}  # of draws: high bits matter
ADC = {"bits": 7, "multiplier": 1, "shift": 3, "slice_bits": (7, 4), "plane_bits": (8, 4)}
SPLIT = (0, 13, ROWS)
READOUTS: dict[str, Readout] = {
    "exact": Readout(),
    "whole codes": Readout("adc", **{**ADC, "multiplier": 2, "shift": 0, "bits": 14}),
    "rounded codes": Readout("adc", **ADC),
    "unsigned codes, one plane": Readout("adc", **{**ADC, "signed": False, "plane_bits": (8, 8)}),
    "parts": Readout("adc", **ADC, parts=SPLIT, finer=(0, 2), finest=2),
    "wtm2101": Readout("wtm2101", bits=8, gain="g"),
    "wtm2101 parts": Readout("wtm2101", bits=8, gain="g", parts=SPLIT, k=1, finer=(1, 0), finest=1),
}
ANALOG = [name for name in READOUTS if name != "exact"]
CELL = (
    "cell={name: mine, kind: reram, bits: 2, nonvolatile: true, area_f2: 50}",
    "cell.programming.sd=[0.01]", "cell.read_sd=0.01", "cell.read_voltage=0.2 V", "cell.conductance=[1e-6, 4e-5]",
)  # fmt: skip
UNEVEN = (*CELL, "cell.noise.thermal=true", "cell.noise.shot=true", "cell.noise.flicker=0.02")
BENT = ("physics.adc.inl=1.0", "physics.adc.dnl=0.1", "physics.adc.offset=0.5", "macro.input.bits_per_pass=4")
BOWED = (*BENT, "physics.dac.bow=0.05", "physics.dac.row_sd=0.01")


def binding_of(name: str, **more: Any) -> Binding:
    """A matrix behind a readout, its parts beside each other."""
    readout = READOUTS[name]
    cuts = readout.parts or (0, ROWS)
    tiles = tuple(Tile(0, a, b - a, 0, COLUMNS, i * COLUMNS, 0) for i, (a, b) in enumerate(pairwise(cuts)))
    if readout.kind == "wtm2101":
        given = {"post": Post(lo=-128, hi=127), "input_shift": 1, "input_offset": 128}
    else:
        step = 8 + readout.finest  # one code's most
        given = {"post": Post(multiplier=1, shift=step, zero_point=5, lo=-128, hi=127)}
    given |= more
    return Binding("fc", "w", "b", ROWS, COLUMNS, given.pop("zero_in", 0), tiles, readout, given.pop("post"), **given)


def matrix_of(model: MacroModel, binding: Binding, dtype: Any) -> Any:
    """The binding ready to multiply, with weights of its own."""
    rng, wide = np.random.default_rng(1), 275 if binding.readout.kind == "wtm2101" else 127
    weights = {
        "w": rng.integers(-wide, wide, (ROWS, COLUMNS), endpoint=True).astype(np.int16),
        "b": (128 * rng.integers(-20, 20, COLUMNS)).astype(np.int32),
        "g": (1 << rng.integers(9, 13, COLUMNS)).astype(np.int32),
    }
    section = Section(0, 0, (), (binding,), (), ())
    program = Program("p", {}, "", (), (section,), {n: weight_ref(w) for n, w in weights.items()}, {})
    return model.bind(program, section, binding, dtype=dtype)


def codes_of(model: MacroModel, binding: Binding, x: np.ndarray, *, first: int = 37, sequence: int = 3) -> np.ndarray:
    """What a model makes of stored codes."""
    return model.read(matrix_of(model, binding, x.dtype), x, first_vector=first, sequence=sequence)


def inputs(vectors: int, dtype: Any = np.int8) -> np.ndarray:
    """Random codes of eight bits, in any type."""
    signed = np.iinfo(dtype).min < 0
    lo, hi = (-128, 127) if signed else (0, 255)
    return np.random.default_rng(2).integers(lo, hi, (vectors, ROWS), endpoint=True).astype(dtype)


def chip_of(name: str, *overrides: str) -> Any:
    """A chip with the readout of that name."""
    return load_chip("wtm2101" if name.startswith("wtm2101") else "parametric-reram-adc8", overrides=overrides)


def like(model: MacroModel, chip: Any = None, physics: str = "ideal") -> MacroModel:
    """The same backend on a chip instance."""
    effects = Physics() if chip is None else Physics.parse(physics, chip)
    return replace(model, chip=chip, physics=effects, seed=5, instance=2)


def assert_near(found: np.ndarray, wanted: np.ndarray) -> None:
    """DESIGN 3 across backends: codes differ by at most 1 in at most 1e-4 of outputs."""
    apart = np.abs(found.astype(np.int64) - wanted)
    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= 1e-4 * apart.size, f"{np.count_nonzero(apart)} of {apart.size}"
