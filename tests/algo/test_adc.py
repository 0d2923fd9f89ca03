"""Ranges of converters: of samples in any order, whole outputs' clipping, and the converter's own noise."""

from __future__ import annotations

import numpy as np
import pytest

import insitu
from insitu.algo.adc import _squared_errors
from insitu.algo.ptq import plan
from insitu.arch.load import load_chip
from insitu.graph.graph import Graph
from tests.algo.small import Net

RERAM = "parametric-reram-adc8"


WHOLE = ("cell=pcm-hermes", "array.bits_per_cell=8", "macro.weights.slices=1", "macro.input.bits_per_pass=8")


def step(graph: Graph, x: np.ndarray, *overrides: str) -> float:
    """Sum steps of one code of a network's only converter."""
    chip = load_chip(RERAM, overrides=["calibration.spare_rows=false", *overrides])
    (layer,) = plan(graph, chip, data={"x": x}).layers.values()
    return 2.0 ** layer.adc[1] / layer.adc[0]


def one_layer(weight: np.ndarray | None = None) -> Graph:
    """64 rows and 24 columns."""
    net = Net(1, 64)
    out = net.dense("x", 24)
    if weight is not None:
        net.constants[net.nodes[-1].inputs[1]] = weight.astype(np.float32)
    return net.graph(out)


def samples(count: int = 256) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 1, 64)).astype(np.float32)


@pytest.mark.parametrize("sd", [0.0, 0.1, 0.25, 0.5, 3.0])
def test_expected_errors_are_those_of_draws(sd: float) -> None:
    rng = np.random.default_rng(0)
    sums = np.array([0.0, 0.25, 0.5, -3.1, 7.9])
    codes = np.rint(sums + sd * rng.standard_normal((400_000, 1)))
    assert _squared_errors(sd)(sums) == pytest.approx(((codes - sums) ** 2).mean(axis=0), rel=0.02, abs=1e-4)


def test_sums_that_fit_a_quiet_converter_are_read_one_by_one() -> None:
    assert step(one_layer(), samples(), "physics.adc_noise.sd=0") == 1.0


def test_a_noisy_converter_reads_small_sums_in_finer_steps() -> None:
    """Planes and slices of 64 rows fill a small part of 8 bits; what a code of noise is worth shrinks with the step."""
    graph, x = one_layer(), samples()
    assert step(graph, x) in (1 / 2, 1 / 4, 1 / 8)
    kept: list[float] = []
    for overrides in ([], ["physics.adc_noise.sd=0"]):
        chosen = plan(graph, load_chip(RERAM, overrides=overrides), data={"x": x})
        d = insitu.deploy(graph, RERAM, data={"x": x}, plan=chosen, physics="adc_noise", instances=2)
        kept.append(d.metrics["sqnr_chip_mean_db"].value)
    assert kept[0] > kept[1] + 5


def test_calibration_samples_may_come_class_by_class() -> None:
    """The last of them drive rows eight times as hard as the first."""
    x = samples(128)
    x[64:] *= 8
    mixed = np.random.default_rng(3).permutation(x)
    assert step(one_layer(), x, *WHOLE) == pytest.approx(step(one_layer(), mixed, *WHOLE), rel=0.25)


def test_a_column_that_counts_little_does_not_set_the_range() -> None:
    """Its codes are as large as those of the others, its outputs are not."""
    weight, x = np.random.default_rng(4).standard_normal((64, 24)) / 8, np.abs(samples())
    weight[:, 0] = np.abs(weight[:, 0])  # all of one sign: sums that no other column has
    loud = step(one_layer(weight), x, *WHOLE)
    weight[:, 0] *= 1e-6
    assert step(one_layer(weight), x, *WHOLE) < 0.85 * loud
