"""The last layer solved again for a chip: the closed form is right, the chip errs less, the integers stay one thing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from insitu.algo import ptq
from insitu.algo.head import ridge
from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.circuit.effects import Physics
from insitu.flow.chain import build, deploy
from insitu.flow.check import compare
from insitu.flow.physics import instance_session
from insitu.flow.trial import Tuner, recompiled
from insitu.graph.export import float_session
from insitu.graph.graph import Graph
from insitu.runtime.session import Session
from tests.flow.line import BARE, captured
from tests.graph.networks import model, node

CHIPS = {
    "reram": (
        "parametric-reram-adc8",
        ("cell=reram-wan", "array.bits_per_cell=4", "macro.weights.slices=2", "macro.weights.slice_shift=0",
         "macro.input.bits_per_pass=8", *BARE),
    ),
    "wtm2101": ("wtm2101", ("calibration.refine_passes=0",)),
}  # fmt: skip


def network() -> Graph:
    """Two dense layers on features that lie in a space of eight dimensions."""
    rng = np.random.default_rng(0)
    tensors = {
        "w1": rng.standard_normal((48, 40)) / 7, "b1": rng.standard_normal(40) / 3,
        "w2": rng.standard_normal((40, 8)) / 6, "b2": rng.standard_normal(8) / 3,
    }  # fmt: skip
    nodes = [node("Gemm", ["x", "w1", "b1"], ["h"]), node("Relu", ["h"], ["r"]), node("Gemm", ["r", "w2", "b2"], ["y"])]
    floats = {n: a.astype(np.float32) for n, a in tensors.items()}
    return captured(model(nodes, inputs={"x": ["N", 48]}, outputs=["y"], tensors=floats))


def samples(count: int, *, seed: int) -> dict[str, Any]:
    basis = np.random.default_rng(5).standard_normal((8, 48))
    return {"x": (np.random.default_rng(seed).standard_normal((count, 8)) @ basis)[:, None].astype(np.float32) / 3}


def test_the_error_left_out_is_that_of_fits_without_the_sample() -> None:
    rng = np.random.default_rng(1)
    x, noise = rng.standard_normal((60, 12)), rng.standard_normal((60, 3))
    true = rng.standard_normal((12, 3))
    weights, level = ridge(x, x @ true + 2.0 + 0.1 * noise)
    assert np.abs(weights - true).max() < 0.1
    assert np.abs(level - 2.0).max() < 0.1
    nothing, level = ridge(x, noise)  # features tell nothing of it: hardly a weight moves
    assert np.abs(nothing).max() < 0.2
    assert np.allclose(level, (noise - x @ nothing).mean(axis=0))


@pytest.mark.parametrize(
    ("rounding", "most"), [("nearest", 0.7), ("second-order", 0.85)]
)  # the latter errs less before
@pytest.mark.parametrize("name", CHIPS)
def test_a_chip_errs_less_after_its_trial(name: str, rounding: str, most: float) -> None:
    graph, chip = network(), load_chip(CHIPS[name][0], overrides=CHIPS[name][1])
    calibration, fresh = samples(128, seed=1), samples(64, seed=2)
    _, quantized, program = build(graph, chip, calibration=calibration, choices=ptq.Choices(rounding=rounding))
    session = Session(program, graph=quantized)
    tuner = Tuner(graph, calibration, lambda changed: recompiled(graph, changed, chip, calibration))
    real, effects = float_session(graph)(fresh)["y"], Physics.parse("programming_noise", chip)
    errors, ideal = np.zeros(2), float(((session.run(fresh)["y"] - real) ** 2).mean())
    for instance in range(5):
        plain = instance_session(session, effects, instance=instance, seed=0)
        tuned = tuner.session(session, effects, instance=instance, seed=0)
        errors += [float(((s.run(fresh)["y"] - real) ** 2).mean()) - ideal for s in (plain, tuned)]
        assert compare(Session(tuned.program, graph=tuned.graph), tuned.codes(fresh)).mismatches == 0
    assert errors[1] < most * errors[0]


def test_a_deployment_has_its_trials() -> None:
    """The switch of the chip's file is enough, and without procedures there is no trial."""
    data = {**samples(1200, seed=3)}
    data["y"] = float_session(network())({"x": data["x"]})["y"].reshape(1200, 8).argmax(1)

    def accuracy(*more: str) -> tuple[float, float]:
        chip: Chip = load_chip(CHIPS["reram"][0], overrides=(*CHIPS["reram"][1], *more))
        result = deploy(network(), chip, data=data, physics="programming_noise", instances=6).result
        return result.metrics["accuracy_chip_mean"].value, float(np.mean(result.extra["uncalibrated"][0]["values"]))

    plain, tuned = accuracy(), accuracy("calibration.last_layer=true")
    assert tuned[0] > plain[0] + 0.01
    assert tuned[1] == plain[1]
