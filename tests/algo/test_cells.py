"""Ranges of weights that weigh what cells err by: the errors are those of the simulator's cells, and outputs gain."""

from __future__ import annotations

import numpy as np
import pytest

import insitu
from insitu.algo import cells as cells_module
from insitu.algo.cells import better_slices, cell_errors
from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import UsageError
from insitu.circuit.effects import Physics
from insitu.circuit.tile import tile_cells
from insitu.flow.chain import Options
from tests.flow.test_optimize import network

APART = "macro.weights.slice_shift=0"
RERAM = ("cell=reram-wan", "array.bits_per_cell=4", "macro.weights.slices=2", "macro.input.bits_per_pass=8", APART)
PCM = ("cell=pcm-hermes", "array.bits_per_cell=8", "macro.weights.slices=1", "macro.input.bits_per_pass=8")


def chip_of(overrides: tuple[str, ...]) -> Chip:
    return load_chip("parametric-reram-adc8", overrides=[*overrides, "calibration.drift_compensation=true"])


@pytest.mark.parametrize("code", [0, 5, 15])
@pytest.mark.parametrize("encoding", ["differential_pair", "offset_column"])
def test_errors_are_those_of_the_cells_that_are_simulated(encoding: str, code: int) -> None:
    """Magnitudes of 7 bits fill the high cell and leave the low one 3; codes with a sign in them fill both."""
    chip = chip_of((*RERAM, f"macro.weights.encoding={encoding}"))
    physics = Physics.parse("programming_noise,read_noise", chip)
    found = cell_errors(chip, physics)
    assert found is not None
    ones = np.ones((64, 64), int)
    pairs = [(0, code % 8 * ones, None), (3, code // 8 * ones, None)]
    if encoding == "offset_column":
        pairs = [(0, code * ones, (code * ones.astype(float), 0)), (4, 0 * ones, (8.0 * ones, 8))]
    wanted = 0.0
    for number, (shift, digits, levels) in enumerate(pairs):
        cells = tile_cells(
            digits, chip=chip, physics=physics, seed=3, instance=1, macro=0, y0=0, x0=0, slice_index=number,
            levels=levels,
        )  # fmt: skip
        noise = 0.0 if cells.variance is None else float(cells.variance.mean())
        wanted += 4.0**shift * (float(((cells.weights - digits) ** 2).mean()) + noise)
    assert found[code] == pytest.approx(wanted, rel=0.25)


def test_wide_weights_are_looked_at_in_pieces_that_err_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where drift is made up for by what all codes have lost: a piece is from all over the range."""
    chip = chip_of(PCM)
    physics = Physics.parse("full", chip, time=86400.0)
    whole = cell_errors(chip, physics)
    monkeypatch.setattr(cells_module, "TOGETHER", 16)
    parts = cell_errors(chip, physics)
    assert whole is not None
    assert parts is not None
    assert parts.shape == whole.shape
    assert parts[8:] == pytest.approx(whole[8:], rel=0.5)
    assert parts.mean() == pytest.approx(whole.mean(), rel=0.1)


def test_cells_without_errors_weigh_nothing() -> None:
    for name in ("dcim-28nm", "parametric-reram-adc8"):
        chip = load_chip(name)
        assert cell_errors(chip, Physics.parse("ideal", chip)) is None
    digital = load_chip("dcim-28nm")
    assert cell_errors(digital, Physics.parse("full", digital)) is None


@pytest.mark.parametrize("cells", [pytest.param(RERAM, marks=pytest.mark.long), PCM])  # long: two cells a weight
def test_outputs_gain_where_cells_err(cells: tuple[str, ...]) -> None:
    graph, x = network(), {"x": np.random.default_rng(1).normal(size=(96, 40))}
    y = np.maximum(x["x"] @ graph.constants["w1"], 0) @ graph.constants["w2"]
    error = {}
    for ranges in ("codes", "cells"):
        asked = Options(instances=6, time="1y", ranges=ranges)
        found = insitu.deploy(graph, chip_of(cells), data={**x, "y": y.astype(np.float32)}, options=asked)
        error[ranges] = found.metrics["sqnr_chip_mean_db"].value
        assert found.result.bit_exact is not None
        assert found.result.bit_exact.mismatches == 0
    print(error)
    assert error["cells"] > error["codes"] + 0.5


@pytest.mark.parametrize("cells", [RERAM, (APART,)])
def test_better_slices_are_worth_what_is_said(cells: tuple[str, ...]) -> None:
    """Of weights alone the decibels said, of outputs under all physics most of them; the integers are the program's."""
    chip, graph, x = chip_of(cells), network(), {"x": np.random.default_rng(1).normal(size=(96, 40))}
    y = np.maximum(x["x"] @ graph.constants["w1"], 0) @ graph.constants["w2"]
    layers = [np.abs(w) / np.abs(w).max(axis=0) for w in (graph.constants["w1"], graph.constants["w2"])]
    found = better_slices(chip, Physics.parse("full", chip).after(86400.0), layers)
    assert found is not None
    closer, gain = found
    assert (closer.macro.weights.slice_shift, closer.array.cell_range) == (1, (-45, 45))
    assert closer.array == chip_of((*cells, "macro.weights.slice_shift=1")).array
    said = load_chip(
        "parametric-reram-adc8",
        overrides=[
            *cells, "calibration.drift_compensation=true", "macro.weights.slice_shift=1", "array.cell_range=[-45, 45]",
        ],
    )  # fmt: skip
    sqnr = []
    for each in (chip, said):
        asked = Options(instances=6, time="1d", physics="programming_noise")
        deployed = insitu.deploy(graph, each, data={**x, "y": y.astype(np.float32)}, options=asked)
        assert deployed.result.bit_exact is not None
        assert deployed.result.bit_exact.mismatches == 0
        sqnr.append(deployed.metrics["sqnr_chip_mean_db"].value)
    assert sqnr[1] - sqnr[0] == pytest.approx(gain, abs=1.5)
    assert better_slices(closer, Physics.parse("full", closer).after(86400.0), layers) is None


def test_slices_stay_where_fewer_codes_would_cost_more() -> None:
    layers = [np.abs(np.random.default_rng(0).standard_normal((8, 200))).clip(0, 4) / 4]
    exact = chip_of(("cell=reram-cmo", APART))  # verified to .2 % of full scale
    assert better_slices(exact, Physics.parse("full", exact), layers) is None
    closer = chip_of(("cell=reram-cmo", "macro.weights.slice_shift=1"))
    found = better_slices(closer, Physics.parse("full", closer), layers)
    assert found is not None
    assert (found[0].macro.weights.slice_shift, found[0].array) == (0, exact.array)
    assert found[1] > 3
    single = chip_of(PCM)
    assert better_slices(single, Physics.parse("full", single), layers) is None
    chip = chip_of(RERAM)
    assert better_slices(chip, Physics.parse("ideal", chip), layers) is None


def test_ideal_chips_keep_their_plans_and_odd_names_are_refused() -> None:
    graph, x = network(), {"x": np.random.default_rng(1).normal(size=(64, 40))}
    plans = [
        insitu.deploy(graph, chip_of(RERAM), data=x, options=Options(physics="ideal", ranges=r)).plan
        for r in ("codes", "cells")
    ]
    assert plans[0] == plans[1]
    with pytest.raises(UsageError, match="codes, cells"):
        insitu.deploy(graph, chip_of(RERAM), data=x, options=Options(ranges="wide"))


@pytest.mark.parametrize(("kind", "zero"), [("skewed", 0), ("sparse", 0), ("even", -128)])
def test_rows_are_driven_around_what_inputs_mostly_are(kind: str, zero: int) -> None:
    """Reads are noisy by the squares of codes: few far values must not make a code far from 0 of the common ones."""
    rng = np.random.default_rng(1)
    x = {
        "skewed": np.where(rng.random((128, 40)) < 0.05, -30.0, 1.0) * rng.normal(1.0, 0.3, (128, 40)),
        "sparse": np.maximum(rng.normal(-1.0, 1.0, (128, 40)), 0.0),
        "even": rng.uniform(0.0, 1.0, (128, 40)),
    }[kind]
    chip, graph = chip_of(PCM), network()
    found = insitu.deploy(graph, chip, data={"x": x}, options=Options(instances=4, time="1d", physics="read_noise"))
    assert found.plan is not None
    spec = found.plan.values["x"]
    assert abs(spec.zero_point - zero) < 4
    assert found.result.bit_exact is not None
    assert found.result.bit_exact.mismatches == 0
    exact = insitu.deploy(graph, load_chip("dcim-28nm"), data={"x": x}, options=Options(instances=1))
    assert exact.plan is not None
    if kind != "even":
        assert abs(exact.plan.values["x"].zero_point) > 30
