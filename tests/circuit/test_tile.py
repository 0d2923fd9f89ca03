"""A tile's draws belong to places on the chip: any split finds the same cells and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.circuit.effects import Physics
from insitu.circuit.tile import cell_normals, column_error, effective_weights, read_noise_sd

WTM = load_chip("wtm2101")
RERAM = load_chip("parametric-reram-adc8")
FULL = Physics.parse("full", WTM)
PLACE: dict[str, Any] = {"seed": 3, "instance": 1, "macro": 0}


def cells(weights: np.ndarray, *, y0: int, x0: int, **more: Any) -> np.ndarray:
    given = {"chip": WTM, "physics": FULL, **PLACE, **more}
    return effective_weights(weights, y0=y0, x0=x0, **given)


@pytest.mark.parametrize(("row", "col"), [(1, 1), (37, 64), (64, 100), (99, 149)])
def test_any_split_of_a_matrix_draws_the_same_cells(row: int, col: int) -> None:
    weights = np.random.default_rng(0).integers(-128, 128, (100, 150))
    whole = cells(weights, y0=890, x0=61)
    parts = np.empty_like(whole)
    for rows in (slice(0, row), slice(row, None)):
        for cols in (slice(0, col), slice(col, None)):
            y0, x0 = 890 + (rows.start or 0), 61 + (cols.start or 0)
            parts[rows, cols] = cells(weights[rows, cols], y0=y0, x0=x0)
    assert np.array_equal(whole, parts)


def test_cells_differ_between_places_instances_macros_slices_and_seeds() -> None:
    weights = np.ones((8, 8))
    drawn = [
        cells(weights, y0=0, x0=0), cells(weights, y0=8, x0=0), cells(weights, y0=0, x0=8), cells(weights, y0=0, x0=64),
        cells(weights, y0=0, x0=0, instance=2), cells(weights, y0=0, x0=0, macro=1), cells(weights, y0=0, x0=0, seed=4),
        cells(weights, y0=0, x0=0, slice_index=1),
    ]  # fmt: skip
    values = np.concatenate([part.ravel() for part in drawn])
    assert len(np.unique(values)) == values.size


def test_erased_cells_have_no_error_where_the_cell_says_so() -> None:
    assert np.array_equal(cells(np.zeros((8, 8)), y0=0, x0=0), np.zeros((8, 8)))


def test_draws_do_not_depend_on_what_else_is_on() -> None:
    weights = np.arange(64.0).reshape(8, 8)
    alone = Physics.parse("programming_noise", WTM)
    assert np.array_equal(cells(weights, y0=0, x0=0), cells(weights, y0=0, x0=0, physics=alone))
    assert np.array_equal(cells(weights, y0=0, x0=0, physics=Physics()), weights)


def test_normals_are_standard() -> None:
    normals = cell_normals((512, 200), chip=WTM, seed=0, instance=0, macro=0, y0=3, x0=5)
    assert normals.mean() == pytest.approx(0.0, abs=0.01)
    assert normals.std() == pytest.approx(1.0, abs=0.01)


def test_a_differential_pair_has_two_cells_with_errors_of_their_own() -> None:
    physics = Physics.parse("programming_noise", RERAM)
    zero = effective_weights(np.zeros((256, 64)), chip=RERAM, physics=physics, y0=0, x0=0, **PLACE)
    one_leg = (0.0087 + 0.40075 / 40 - 1.096325 / 1600 + 1.134825 / 64000) / (1 - 1 / 40) * 3
    assert zero.std() == pytest.approx(np.sqrt(2) * one_leg, rel=0.02)


def test_columns_are_drawn_by_place_and_corrected_by_the_procedures() -> None:
    gain, offset = column_error(100, chip=WTM, physics=FULL, x0=60, **PLACE)
    part_gain, part_offset = column_error(40, chip=WTM, physics=FULL, x0=120, **PLACE)
    assert np.array_equal(gain[60:], part_gain)
    assert np.array_equal(offset[60:], part_offset)
    raw = Physics(FULL.effects, calibrated=False)
    raw_gain, raw_offset = column_error(100, chip=WTM, physics=raw, x0=60, **PLACE)
    assert np.allclose(raw_offset * 0.8 * 0.1, offset)
    assert np.allclose((raw_gain - 1) * 0.05, gain - 1)


def test_without_column_effects_columns_are_perfect() -> None:
    gain, offset = column_error(7, chip=WTM, physics=Physics(), x0=0, **PLACE)
    assert np.array_equal(gain, np.ones(7))
    assert np.array_equal(offset, np.zeros(7))


def test_an_offset_referred_to_the_bitline_shrinks_as_the_step_grows() -> None:
    bitline = load_chip("wtm2101", overrides=["physics.column_offset.referred=bitline"])
    args: dict[str, Any] = {"physics": FULL, "x0": 0, **PLACE}
    at_1024 = column_error(5, chip=bitline, step=1024, **args)[1]
    assert np.allclose(column_error(5, chip=bitline, step=4096, **args)[1], at_1024 / 4)
    adc = column_error(5, chip=WTM, step=4096, **args)[1]
    assert np.array_equal(adc, at_1024)


def test_read_noise_adds_variances_and_is_averaged_over_reads() -> None:
    squares = np.array([[0.0], [1e6]])
    one = load_chip("wtm2101", overrides=["calibration.reads=1"])
    sd = read_noise_sd(squares, chip=one, physics=FULL, step=1024)
    cell = 0.001 * 255
    assert sd[:, 0] == pytest.approx([0.79 * 1024, np.hypot(0.79 * 1024, cell * 1e3)])
    assert read_noise_sd(squares, chip=WTM, physics=FULL, step=1024) == pytest.approx(sd / np.sqrt(2))
    only = Physics.parse("read_noise", WTM)
    assert read_noise_sd(squares, chip=one, physics=only, step=1024)[:, 0] == pytest.approx([0.0, cell * 1e3])
    assert not read_noise_sd(squares, chip=WTM, physics=Physics()).any()


def test_read_noise_has_one_sd_per_column_where_steps_differ() -> None:
    sd = read_noise_sd(np.ones((4, 1)), chip=WTM, physics=FULL, step=np.array([256.0, 1024.0, 8192.0]))
    assert sd.shape == (4, 3)
    assert (np.diff(sd, axis=1) > 0).all()


@pytest.mark.parametrize(("bits", "low", "high"), [(8, -127, 127), (6, -31, 31), (8, -128, 127)])
def test_a_cell_that_holds_a_weight_alone_spreads_the_weights_over_its_window(bits: int, low: int, high: int) -> None:
    """A pair's cells hold magnitudes: with a bit to spare half the window would stay empty, and errors count double."""
    given = ("cell=pcm-hermes", "macro.weights.slices=1", "macro.input.bits_per_pass=8")
    chips = [
        load_chip("parametric-reram-adc8", overrides=(*given, f"array.bits_per_cell={n}", f"array.cell_range={r}"))
        for n, r in ((bits, [low, high]), (bits - 1, [-high, high]))
    ]
    weights = np.random.default_rng(1).integers(-high, high, (64, 16), endpoint=True)
    held = [cells(weights, y0=0, x0=0, chip=c, physics=Physics.parse("programming_noise", c)) for c in chips]
    error = [float(np.sqrt(np.mean((h - weights) ** 2))) for h in held]
    assert error[0] == pytest.approx(error[1], rel=0.02)
    assert error[0] > 0
