"""Defects measured in other simulators' physics, each a test: what crashed, diverged, was dropped or was biased."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.base.errors import InsituError
from insitu.circuit.effects import Physics
from insitu.circuit.macro import read_codes
from insitu.circuit.tile import effective_weights
from insitu.circuit.wires import Wires, solve
from insitu.device.cell import CellSpec, Programming, load_cell
from insitu.device.laws import LAWS, relative
from insitu.device.programming import program, programming_sd
from insitu.isa.program import Binding, Post, Program, Readout, Section, Tile, weight_ref
from insitu.sim.macro import MacroModel

PLACE: dict[str, Any] = {"seed": 2, "instance": 0, "macro": 0, "y0": 0, "x0": 0}
WIRES = ("physics.wires.row=1 Ohm", "physics.wires.column=1 Ohm")
INLINE = ("cell={name: c, kind: reram, bits: 8, nonvolatile: true, area_f2: 50}",)


def one_slice(encoding: str, *more: str):
    """One 8-bit cell a weight."""
    given = ("array.bits_per_cell=8", "macro.weights.slices=1", f"macro.weights.encoding={encoding}", *more)
    return load_chip("parametric-reram-adc8", overrides=[*INLINE, "cell.conductance=[1e-6, 4e-5]", *given])


def test_bit_slices_run_with_parasitic_wires() -> None:
    """CrossSim crashes: 4 slices of 2 bits, bit-serial inputs, an ADC each, and wires; small wires change little."""
    rng = np.random.default_rng(0)
    w, x = rng.integers(-127, 128, (64, 16)).astype(np.int8), rng.integers(-128, 128, (20, 64)).astype(np.int8)
    readout = Readout("adc", bits=12, slice_bits=(7, 2), plane_bits=(8, 1))
    found: list[np.ndarray] = []
    for ohms in ("1e-6 Ohm", "20 Ohm"):
        wires = (f"physics.wires.row={ohms}", f"physics.wires.column={ohms}")
        chip = load_chip("parametric-reram-adc8", overrides=wires)
        binding = Binding(
            "fc", "w", "", 64, 16, 0, (Tile(0, 0, 64, 0, 16, 0, 0),), readout, Post(lo=-(1 << 30), hi=1 << 30)
        )
        section = Section(0, 0, (), (binding,), (), ())
        program_ = Program("p", {}, "", (), (section,), {"w": weight_ref(w)}, {})
        model = MacroModel(chip, Physics.parse("ir_drop", chip))
        found.append(model.read(model.bind(program_, section, binding, dtype=np.int8), x))
    ideal = x.astype(int) @ w.astype(int)
    assert np.array_equal(found[0], ideal)
    assert not np.array_equal(found[1], ideal)
    assert np.corrcoef(found[1].ravel(), ideal.ravel())[0, 1] > 0.99


def test_setting_the_converter_keeps_every_other_setting() -> None:
    """CrossSim drops earlier settings and leaves the ADC ideal."""
    before = load_chip("parametric-reram-adc8", overrides=["calibration.reads=4", "cell=reram-wan"])
    after = load_chip(
        "parametric-reram-adc8", overrides=["calibration.reads=4", "cell=reram-wan", "macro.readout.bits=6"]
    )
    assert after.macro.readout.bits == 6
    undone = after.macro.model_copy(update={"readout": before.macro.readout})
    assert after.model_copy(update={"macro": undone}) == before
    codes = read_codes(np.arange(-4096, 4096.0), after.macro.readout, shift=4)
    assert (codes.min(), codes.max()) == (-32, 31)


def test_offset_encoding_with_wires_is_the_solved_network() -> None:
    """CrossSim's iteration diverges; here cells and their reference column are one linear network, solved."""
    chip = one_slice("offset_column", *WIRES, "physics.wires.exact=true")
    w, v = np.random.default_rng(1).integers(-127, 128, (96, 48)), np.random.default_rng(2).uniform(0, 1, (5, 96))
    seen = v @ effective_weights(w, chip=chip, physics=Physics(("ir_drop",)), **PLACE)
    step = 39e-6 / 255
    levels = np.hstack([w + 128.0, np.full((96, 1), 128.0)])
    current = solve(1e-6 + levels * step, v, Wires(1.0, 1.0)) / step
    assert seen == pytest.approx(current[:, :-1] - current[:, -1:], rel=1e-9, abs=1e-9)
    assert abs(seen - v @ w).max() > 1.0


def test_offset_cells_have_the_errors_of_what_they_hold() -> None:
    """A weight of 0 is a cell at mid level beside a reference at mid level: two errors, neither of an empty cell."""
    chip = one_slice("offset_column", "cell.programming.sd=[0.0, 0.02]")
    found = effective_weights(np.zeros((256, 64)), chip=chip, physics=Physics(("programming_noise",)), **PLACE)
    off = 1 / 40
    one = 0.02 * (off + 128 / 255 * (1 - off)) * 255 / (1 - off)
    assert (found - found.mean(axis=1, keepdims=True)).std() == pytest.approx(one, rel=0.03)
    assert found.mean(axis=1).std() == pytest.approx(one, rel=0.15)  # the reference, shared by a row


def test_offset_slices_stand_for_their_weight() -> None:
    """Perfect cells in 8 slices of 2 bits put out the integers, whichever digits they hold."""
    rng = np.random.default_rng(3)
    w = rng.integers(-32768, 32768, (40, 8)).astype(np.int16)
    x = rng.integers(-128, 128, (6, 40)).astype(np.int8)
    readout = Readout("adc", bits=20, slice_bits=(15, 2), plane_bits=(8, 1))
    post = Post(lo=-(1 << 30), hi=1 << 30)
    binding = Binding("fc", "w", "", 40, 8, 0, (Tile(0, 0, 40, 0, 8, 0, 0),), readout, post)
    section = Section(0, 0, (), (binding,), (), ())
    program_ = Program("p", {}, "", (), (section,), {"w": weight_ref(w)}, {})
    chip = load_chip("isaac")
    perfect = chip.cell.model_copy(update={"programming": Programming(sd=(0.0,)), "read_sd": 0.0})
    chip = chip.model_copy(update={"cell": perfect})
    model = MacroModel(chip, Physics(("programming_noise",)))
    assert np.array_equal(model.read(model.bind(program_, section, binding, dtype=np.int8), x), x.astype(int) @ w)


def test_a_noise_preset_takes_coefficients_of_ones_own() -> None:
    """aihwkit raises."""
    own = load_chip("parametric-reram-adc8", overrides=[*INLINE, "cell.programming.sd=[0.01, 0.02, -0.005]"])
    sd = programming_sd(np.array([0.0, 255.0]), own.cell)
    assert sd == pytest.approx([0.01 * 255, 0.025 * 255])
    mine = replace(LAWS["pcm-nandakumar"], sd=relative((0.1, 0.2), 25.0))
    assert mine.program(np.array([25.0]), np.array([1.0]))[0] == pytest.approx(25.3)


def test_a_reram_preset_rescales_to_another_range() -> None:
    """aihwkit's preset keeps its errors in siemens whatever g_max is; ours are shares of full scale."""
    cell = load_cell("reram-1t1r-2b")
    other = cell.model_copy(update={"conductance": (2e-6, 8e-5)})
    value = np.array([0.0, 1.0, 3.0])
    assert programming_sd(value, other) == pytest.approx(programming_sd(value, cell))
    wide, narrow = (programming_sd(np.array([s]), cell, full_scale=s)[0] / s for s in (3.0, 255.0))
    assert wide == pytest.approx(narrow)


def test_an_acceptance_range_is_kept_and_a_bad_one_is_an_error() -> None:
    """aihwkit falls back silently."""
    given = load_chip("parametric-reram-adc8", overrides=[*INLINE, "cell.read_sd=0.01", "cell.write.accept=0.013"])
    assert given.cell.write is not None
    assert given.cell.write.accept == 0.013
    for bad in ("0", "1.5", "half"):
        with pytest.raises(InsituError, match="accept"):
            load_chip("parametric-reram-adc8", overrides=[*INLINE, f"cell.write.accept={bad}"])


def test_a_law_of_another_acceptance_range_is_refused() -> None:
    """Statistics of CMO/HfOx differ tenfold between acceptance at 0.2 and 2 %; neither stands in for the other."""
    fine = load_cell("reram-cmo").model_dump(mode="json", exclude_none=True)
    with pytest.raises(ValueError, match="reram-cmo-2pct"):
        CellSpec.model_validate_json(json.dumps({**fine, "write": {"accept": 0.02}}))
    coarse = CellSpec.model_validate_json(json.dumps({**fine, "write": {"accept": 0.02}, "law": "reram-cmo-2pct"}))
    assert LAWS[coarse.law or ""].sd(np.array([50.0]))[0] == pytest.approx(0.01129 * 50 + 0.01122)


@pytest.mark.parametrize("name", ["reram-wan", "pcm-nandakumar"])
def test_a_published_law_rescales_to_another_range(name: str) -> None:
    """Errors of a law are shares of its range, so a chip whose conductances are twice as large has the same weights."""
    plain = load_chip("parametric-reram-adc8", overrides=[f"cell={name}"])
    wide = [2.0 * g for g in plain.cell.conductance or ()]
    other = plain.model_copy(update={"cell": plain.cell.model_copy(update={"conductance": tuple(wide)})})
    w = np.random.default_rng(8).integers(-3, 4, (64, 32))
    a, b = (effective_weights(w, chip=c, physics=Physics(("programming_noise",)), **PLACE) for c in (plain, other))
    assert np.array_equal(a, b)
    assert abs(a - w).max() > 0


@pytest.mark.parametrize("name", ["pcm-nandakumar", "reram-wan", "reram-1t1r-2b"])
def test_zero_targets_do_not_shrink_outputs(name: str) -> None:
    """aihwkit's zero targets pull every output down by 1.4 %; a pair's two legs err alike."""
    chip = load_chip("parametric-reram-adc8", overrides=[f"cell={name}"])
    w = np.where(np.random.default_rng(4).random((4096, 64)) < 0.5, 0, 2) * np.where(np.arange(64) % 2, 1, -1)
    seen = effective_weights(w, chip=chip, physics=Physics(("programming_noise",)), **PLACE)
    zero = seen[w == 0]
    assert abs(zero.mean()) <= 4 * zero.std() / np.sqrt(zero.size)
    slope = float((seen * w).sum() / (w * w).sum())
    assert slope == pytest.approx(1.0, abs=0.004)


def test_two_tiles_of_one_library_agree() -> None:
    """aihwkit's two tiles differ: weights through the macro model and through the tile function are the same cells."""
    chip = load_chip("parametric-reram-adc8", overrides=["cell=pcm-nandakumar"])
    physics = Physics.parse("programming_noise,drift", chip, time=3600.0)
    w = np.random.default_rng(5).integers(-3, 4, (64, 32))
    readout = Readout("adc", bits=8, slice_bits=(2, 2), plane_bits=(8, 1))
    binding = Binding("fc", "w", "", 64, 32, 0, (Tile(0, 0, 64, 0, 32, 0, 0),), readout, Post(lo=-128, hi=127))
    section = Section(0, 0, (), (binding,), (), ())
    program_ = Program("p", {}, "", (), (section,), {"w": weight_ref(w.astype(np.int8))}, {})
    model = MacroModel(chip, physics, seed=2)
    bound = model.bind(program_, section, binding, dtype=np.int8)
    tile = effective_weights(w, chip=chip, physics=physics, **PLACE)
    assert np.array_equal(bound.analog[0][0][1].cells, tile.astype(np.float32))


def test_an_effect_that_cannot_reach_the_chip_is_an_error() -> None:
    """aihwkit's drift silently does nothing on models it does not know."""
    for chip in ("wtm2101", "dcim-28nm"):
        with pytest.raises(InsituError, match="no such effect"):
            Physics.parse("drift", load_chip(chip))


def test_every_layer_of_a_drifting_chip_drifts() -> None:
    """No binding is left out: each part and slice of a split matrix holds less after a year."""
    chip = load_chip("parametric-reram-adc8", overrides=["cell=pcm-nandakumar"])
    w = np.random.default_rng(6).integers(1, 128, (64, 8)).astype(np.int8)
    readout = Readout("adc", bits=8, slice_bits=(7, 2), plane_bits=(8, 1), parts=(0, 20, 64))
    tiles = (Tile(0, 0, 20, 0, 8, 0, 0), Tile(1, 20, 44, 0, 8, 0, 0))
    binding = Binding("fc", "w", "", 64, 8, 0, tiles, readout, Post(lo=-128, hi=127))
    section = Section(0, 0, (), (binding,), (), ())
    program_ = Program("p", {}, "", (), (section,), {"w": weight_ref(w)}, {})
    arrays = []
    for time in (0.0, 3.15e7):
        model = MacroModel(chip, Physics.parse("programming_noise,drift", chip, time=time))
        bound = model.bind(program_, section, binding, dtype=np.int8)
        arrays.append([array.cells.sum() for part in bound.analog for _, array in part])
    assert len(arrays[0]) == 8
    assert all(old < 0.7 * fresh for fresh, old in zip(*arrays, strict=True))


def test_verified_rounding_is_the_chips() -> None:
    """witin-nn trains with half-to-even where the chip truncates to two fractional bits; -0.6 and -0.75 tell."""
    readout = load_chip("wtm2101").macro.readout
    assert read_codes(np.array([-0.6, 1.5, -0.75]) * 1000, readout, gain=1000).tolist() == [0, 2, -1]
    cell: CellSpec = load_cell("nor-flash-8b")
    assert program(np.zeros(3), np.ones(3), cell).tolist() == [0.0, 0.0, 0.0]
