"""Drivers and converters that are not straight, noise by level, retention: the functions and what runs make of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.base import random
from insitu.circuit.converter import bend, drive_levels, inl_table
from insitu.circuit.effects import EFFECTS, Physics
from insitu.circuit.tile import adc_bend, column_error, effective_weights, read_noise_sd, tile_cells
from insitu.device.cell import Retention
from insitu.device.laws import LAWS
from insitu.device.noise import BOLTZMANN, CHARGE, flicker_sd, rtn_sd, shot_sd, thermal_sd
from insitu.device.retention import retain
from insitu.isa.program import Readout
from insitu.sim.bound import Analog
from insitu.sim.reads import bent_codes

torch: Any = pytest.importorskip("torch")
PLACE: dict[str, Any] = {"seed": 3, "instance": 1, "macro": 0, "y0": 0, "x0": 0}
ALL = (
    "cell.conductance=[1e-6, 4e-5]", "cell.stuck.off=0.001", "cell.drift.nu=0.02", "cell.retention.per_decade=0.01",
    "cell.activation=0.9", "cell.noise.thermal=true", "cell.noise.shot=true", "cell.noise.flicker=0.01",
    "cell.noise.telegraph.amplitude=0.05", "physics.wires.row=0.5 Ohm", "physics.wires.column=0.5 Ohm",
    "physics.dac.row_sd=0.01", "physics.dac.bow=0.02", "physics.adc.offset=0.3", "physics.adc.gain=0.01",
    "physics.adc.inl=0.5", "physics.adc.dnl=0.1",
)  # fmt: skip
INLINE = (
    "cell={name: mine, kind: reram, bits: 2, nonvolatile: true, area_f2: 50}",
    "cell.programming.sd=[0.01]", "cell.read_sd=0.01", "cell.read_voltage=0.2 V",
)  # fmt: skip
EVERYTHING = load_chip("parametric-reram-adc8", overrides=[*INLINE, *ALL])
WEIGHTS = np.random.default_rng(0).integers(-3, 4, (64, 32))


def test_a_chip_with_all_constants_has_every_effect_by_name() -> None:
    full = Physics.parse("full", EVERYTHING)
    assert full.effects == tuple(EFFECTS)
    for name in EFFECTS:
        assert Physics.parse(name, EVERYTHING).effects == (name,)


def test_no_draw_of_cells_depends_on_the_other_effects() -> None:
    """Rows' gains beside programming errors are those alone, and the other way round; so is what retention loses."""
    cells, rows, loss, all_three = (
        effective_weights(WEIGHTS, chip=EVERYTHING, physics=Physics(effects, time=1e6), **PLACE)
        for effects in (
            ("programming_noise",), ("dac_nonlinearity",), ("retention",),
            ("programming_noise", "retention", "dac_nonlinearity"),
        )
    )  # fmt: skip
    held = WEIGHTS != 0
    gains = np.divide(rows, WEIGHTS, where=held, out=np.zeros(WEIGHTS.shape)).max(axis=1, keepdims=True)
    kept = loss[held][0] / WEIGHTS[held][0]
    assert not np.array_equal(cells, WEIGHTS)
    assert all_three == pytest.approx(cells * kept * gains, abs=1e-9)


def test_cells_are_the_same_at_every_time_but_for_what_moves() -> None:
    """Stuck cells and programming errors of an instance stay where they are."""
    physics = Physics.parse("programming_noise,stuck_cells,dac_nonlinearity", EVERYTHING)
    fresh, later = (effective_weights(WEIGHTS, chip=EVERYTHING, physics=physics.after(t), **PLACE) for t in (0.0, 1e7))
    assert np.array_equal(fresh, later)


def test_retention_is_its_formula_and_takes_tensors() -> None:
    spec = Retention(per_decade=0.02, sd=0.01, t0=3600.0)
    normal = random.normal(1, "x", 100_000)
    kept = retain(np.full(100_000, 200.0), normal, 3600.0 * 999, spec)
    assert kept.mean() == pytest.approx(200 * (1 - 0.06), rel=1e-3)
    assert kept.std() == pytest.approx(200 * 0.03, rel=0.02)
    assert np.array_equal(retain(torch.full((100_000,), 200.0).double(), torch.from_numpy(normal), 3.6e6, spec),
                          retain(np.full(100_000, 200.0), normal, 3.6e6, spec))  # fmt: skip
    leaking = Retention(tau=1e-4, refresh=4e-5)
    assert retain(np.array([1.0]), np.zeros(1), 1.0, leaking)[0] == pytest.approx(np.exp(-0.4))
    assert retain(np.array([1.0]), np.zeros(1), 0.0, spec)[0] == 1.0


def test_retention_and_temperature_act_in_cells() -> None:
    lost = [
        effective_weights(WEIGHTS, chip=EVERYTHING, physics=p, **PLACE)
        for p in (
            Physics(("retention",), time=1e6), Physics(("retention", "temperature"), time=1e6),
            Physics(("retention", "temperature"), time=1e6, temperature=360.0),
        )
    ]  # fmt: skip
    shares = [float((w * WEIGHTS).sum() / (WEIGHTS**2).sum()) for w in lost]
    assert shares[0] == shares[1]  # the chip's file says 300 K
    assert shares[2] < shares[1] < 1.0
    assert shares[0] == pytest.approx(1 - 0.01 * np.log10(1 + 1e6 / 3600))


def test_noise_from_first_principles() -> None:
    """sqrt(4 k T g B), sqrt(2 q I B) with B = 1 / (2 t); 1/f and telegraph noise as written."""
    assert thermal_sd(np.array(1e-5), temperature=300.0, t_read=1e-7) == pytest.approx(
        np.sqrt(4 * BOLTZMANN * 300 * 1e-5 / 2e-7), rel=1e-9, abs=0
    )
    assert shot_sd(np.array(1e-6), t_read=1e-7) == pytest.approx(np.sqrt(2 * CHARGE * 1e-6 / 2e-7), rel=1e-9, abs=0)
    assert flicker_sd(np.array(2.0), 0.01, 80.0, t0=20.0, t_read=1e-6) == pytest.approx(
        0.02 * np.sqrt(np.log((100 + 1e-6) / 2e-6))
    )
    hit = rtn_sd(np.ones(4), np.array([0.1, 0.29, 0.31, 0.9]), amplitude=0.1, share=0.3, duty=0.2)
    assert hit == pytest.approx([0.04, 0.04, 0.0, 0.0])


def test_level_noise_of_a_tile_is_the_law_at_the_level_and_time() -> None:
    chip = load_chip("parametric-reram-adc8", overrides=["cell=pcm-nandakumar", "calibration.reads=1"])
    law, physics = LAWS["pcm-nandakumar"], Physics.parse("read_noise", chip, time=3600.0)
    found = tile_cells(WEIGHTS, chip=chip, physics=physics, **PLACE)
    g = abs(WEIGHTS) * 25.0 / 3
    expected = (law.read_sd(g, g, 3600.0) / (25.0 / 3)) ** 2 + (law.read_sd(0 * g, 0 * g, 3600.0) / (25 / 3)) ** 2
    assert found.variance == pytest.approx(expected)
    assert found.weights == pytest.approx(WEIGHTS, abs=1e-12)
    assert not read_noise_sd(np.ones((2, 1)), chip=chip, physics=physics).any()  # not counted twice


def test_thermal_noise_grows_with_temperature_and_level() -> None:
    cool, hot = (
        tile_cells(WEIGHTS, chip=EVERYTHING, physics=Physics(("thermal_noise",), temperature=t), **PLACE).variance
        for t in (300.0, 400.0)
    )
    assert cool is not None
    assert hot == pytest.approx(cool * 4 / 3, rel=1e-9, abs=0)
    step = 3.9e-5 / 3
    per_leg = 4 * BOLTZMANN * 300 / (2 * EVERYTHING.macro.t_read)
    assert cool == pytest.approx(per_leg * (2e-6 + abs(WEIGHTS) * step) / (step * 0.2) ** 2, rel=1e-9, abs=0)


@pytest.mark.parametrize("xp", [np, torch])
def test_a_driver_is_right_at_both_ends_and_bows_between(xp: Any) -> None:
    x = xp.asarray(np.array([0.0, 255.0, -255.0, 127.5, -127.5]))
    y = drive_levels(x, bow=0.02, bits=8, step=8)
    assert np.allclose(np.asarray(y), [0, 255, -255, 127.5 + 5.1, -127.5 - 5.1])
    codes = xp.asarray(np.arange(256.0))
    assert np.array_equal(np.asarray(drive_levels(codes, bow=0.1, bits=8, step=1)), np.arange(256.0))
    two = np.asarray(drive_levels(codes, bow=0.1, bits=8, step=4))
    low, high = np.arange(256) % 16, np.arange(256) // 16
    bowed = lambda d: d + 15 * 0.4 * d / 15 * (1 - d / 15)  # noqa: E731
    assert np.allclose(two, bowed(low) + 16 * bowed(high))


def test_converters_are_right_at_their_ends_and_as_uneven_as_said() -> None:
    bow, widths = random.normal(1, "a", (4000, 1)), random.normal(1, "b", (4000, 64))
    table = inl_table(bow, widths, inl=0.5, dnl=0.1)
    assert np.allclose(table[:, -1], 0.0)
    steps = np.diff(inl_table(0 * bow, widths, inl=0.0, dnl=0.1), axis=1)
    assert steps.std() == pytest.approx(0.1, rel=0.02)
    assert inl_table(bow, 0 * widths, inl=0.5, dnl=0.0)[:, 31].std() == pytest.approx(0.5, rel=0.05)
    assert np.allclose(inl_table(torch.from_numpy(bow), torch.from_numpy(widths), inl=0.5, dnl=0.1).numpy(), table)


def test_bending_adds_the_error_of_the_nearest_code() -> None:
    table = np.array([[0.0, 0.25, -0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
    value = np.array([[-1.2, -1.2], [0.4, 0.4], [9.0, 9.0]])
    assert bend(value, table, -2) == pytest.approx(np.array([[-0.95, -1.2], [-0.1, 0.4], [9.0, 9.0]]))
    assert np.allclose(bend(torch.from_numpy(value), torch.from_numpy(table), -2).numpy(), bend(value, table, -2))


def test_columns_that_share_a_converter_share_its_errors() -> None:
    given = {k: v for k, v in PLACE.items() if k != "y0"}
    gain, offset = column_error(
        64, chip=EVERYTHING, physics=Physics(("adc_gain", "adc_offset"), calibrated=False), **given
    )
    assert len(np.unique(gain)) == 1  # 64 columns a converter
    assert len(np.unique(offset)) == 1
    table = adc_bend(64, 256, chip=EVERYTHING, physics=Physics(("adc_inl",)), **given)
    assert table is not None
    assert np.array_equal(table[0], table[63])
    other = adc_bend(64, 256, chip=EVERYTHING, physics=Physics(("adc_inl",)), slice_index=1, **given)
    assert not np.array_equal(table, other)
    assert adc_bend(64, 256, chip=EVERYTHING, physics=Physics(("adc_gain",)), **given) is None


@pytest.mark.parametrize("kind", ["adc", "wtm2101"])
def test_the_fused_kernel_is_the_pure_function(kind: str) -> None:
    """kernels.convert against circuit.macro.read_codes on the same draws, one code apart in 1e-4 of them at most."""
    from insitu.base.random import effect_key, read_normals
    from insitu.circuit.kernels import convert

    rng = np.random.default_rng(1)
    acc = rng.normal(0, 4e4, (64, 24)).astype(np.float32)
    squares = (rng.random((64, 24)) * 1e4).astype(np.float32)
    readout = Readout("adc", bits=8, multiplier=3, shift=11) if kind == "adc" else Readout("wtm2101", bits=8, gain=1024)
    step = np.full(24, 2048 / 3 if kind == "adc" else 1024.0)
    analog = Analog(
        np.zeros((1, 24), np.float32), 1 + 0.01 * rng.standard_normal(24), rng.standard_normal(24), step, 2.0,
        np.full(24, 9e4), 0,
    )  # fmt: skip
    stream = np.array([0, 7, 3, 1, 5, effect_key("read_noise")], np.int64)
    fused, number = np.zeros(acc.shape, np.int32), 0 if kind == "adc" else 1
    scale, offset, inverse, floor = analog.tables
    convert(acc, squares, scale, offset, inverse, np.float32(2.0), floor, stream, number, -128, 127, 0, fused)
    normals = read_normals(5, "read_noise", *acc.shape, instance=1, macro=3, time=7)
    for same in (analog, replace(analog, bend=np.zeros((24, 256)))):
        wanted = bent_codes(acc, squares, same, normals, readout, -128, 127)
        assert np.abs(wanted - fused).max() <= 1
        assert np.count_nonzero(wanted != fused) <= 1
