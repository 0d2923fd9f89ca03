"""What energy, time and error owe to a chip's constants: shares that add up, and the ten that matter most."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.circuit.effects import EFFECTS, Physics
from insitu.flow.chain import Deployment, deploy
from insitu.flow.owed import CONSTANTS, Trial, closeness_course, owed, paths, scaled, value_at
from insitu.runtime.session import Session
from tests.flow.line import build, captured, inputs_of
from tests.flow.test_operators import NETS
from tests.graph.networks import model, node

CHIP = load_chip("parametric-reram-adc8", overrides=["physics.adc_noise.sd=2"])
PCM = load_chip("parametric-reram-adc8", overrides=["cell=pcm-nandakumar"])


def trial(chip: Any = CHIP) -> Trial:
    rng = np.random.default_rng(0)
    net = model(
        [node("MatMul", ["x", "w"], ["y"])],
        inputs={"x": ("N", 64)},
        outputs=["y"],
        tensors={"w": rng.standard_normal((64, 32)).astype(np.float32) / 8},
    )
    graph = captured(net)
    quantized, program = build(graph, chip)
    session = Session(program, graph=quantized)
    return Trial(session, session.codes(inputs_of(graph, 32)), chip, 0)


def error_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {row["name"]: row["elasticity"]["error"] for row in rows}


def test_every_effect_names_its_constants() -> None:
    assert set(CONSTANTS) == set(EFFECTS)


def test_the_only_noise_is_all_of_the_error() -> None:
    loud = load_chip("parametric-reram-adc8", overrides=["physics.adc_noise.sd=1"])  # beyond what rounding hides
    found = error_of(owed(trial(loud), Physics(("adc_noise",))))
    assert found == {"physics.adc_noise.sd": pytest.approx(1.0, abs=0.1)}


def test_shares_of_independent_errors_add_up() -> None:
    effects = Physics.parse("programming_noise,read_noise,adc_noise", CHIP)
    found = error_of(owed(trial(), effects))
    assert set(found) == {"cell.programming.sd", "cell.read_sd", "physics.adc_noise.sd"}
    assert all(share > 0 for share in found.values())
    assert sum(found.values()) == pytest.approx(1.0, abs=0.2)
    assert max(found, key=lambda name: found[name]) == "physics.adc_noise.sd"


def test_a_law_is_one_row_an_effect_with_its_paper() -> None:
    effects = Physics.parse("programming_noise,drift,read_noise", PCM, time=86400.0)
    rows = owed(trial(PCM), effects)
    assert [row["name"] for row in rows] == [f"cell.law ({w})" for w in ("programming noise", "drift", "read noise")]
    assert all("Nandakumar" in row["source"] for row in rows)
    assert max(rows, key=lambda row: row["elasticity"]["error"])["name"] == "cell.law (drift)"


def test_ideal_chips_and_huge_networks_are_not_run() -> None:
    assert owed(trial(), Physics(())) == []
    large = trial()
    facts = {**large.session.program.meta, "weights": 10**9}
    large.session.program = replace(large.session.program, meta=facts)
    assert owed(large, Physics(("adc_noise",))) == []
    slow = replace(trial(), work=1e12)
    assert owed(slow, Physics(("adc_noise",))) == []
    assert closeness_course(slow, Physics(("adc_noise",)), times=[0.0], instances=2).points == ()
    fewer = replace(trial(), work=4e9)
    assert len(closeness_course(fewer, Physics(("adc_noise",)), times=[0.0], instances=8).points[0].values) == 1


def test_scaling_leaves_the_chip_as_it_is() -> None:
    larger = scaled(CHIP, ["cell", "programming", "sd"], 2.0)
    before = value_at(CHIP, "cell.programming.sd")
    assert value_at(larger, "cell.programming.sd") == tuple(2 * v for v in before)
    assert value_at(CHIP, "cell.programming.sd") == before
    assert paths("column_gain", load_chip("wtm2101"))[0] == "physics.column_gain.bank_sd"
    assert "cell.stuck.off" not in paths("stuck_cells", CHIP)


@pytest.fixture(scope="module")
def unlabeled() -> Deployment:
    graph = captured(NETS["residual"](np.random.default_rng(0)))
    return deploy(graph, PCM, instances=2, time="0s,1d")


def test_a_result_lists_ten_of_energy_time_and_error(unlabeled: Deployment) -> None:
    rows = unlabeled.result.to_json()["constants"]
    assert len(rows) == 10
    assert all(row["source"] and row["kind"] in ("measured", "modelled", "assumed") for row in rows)
    heaviest = {max(row["elasticity"], key=lambda k: abs(row["elasticity"][k])) for row in rows}
    assert heaviest == {"energy_j", "latency_s", "error"}


def test_without_labels_the_outputs_move_with_time(unlabeled: Deployment) -> None:
    fresh, old = unlabeled.result.to_json()["sqnr_over"]
    assert (fresh["time_s"], old["time_s"]) == (0.0, 86400.0)
    assert fresh["instances"] == old["instances"] == 2
    assert fresh["mean"] > old["mean"] + 0.5
    assert unlabeled.metrics["sqnr_chip_mean_db"].value == pytest.approx(fresh["mean"])


def test_without_labels_an_exact_chip_says_that_nothing_moves() -> None:
    graph = captured(NETS["residual"](np.random.default_rng(0)))
    over = deploy(graph, "dcim-28nm", time="0s,1d").result.to_json()["sqnr_over"]
    assert [(p["time_s"], p["instances"], "exact bits" in p["note"]) for p in over] == [(86400.0, 0, True)]


def test_energy_has_bounds_where_converters_are_modelled(unlabeled: Deployment) -> None:
    low, middle, high = (unlabeled.metrics[f"energy_{name}j"].value or 0 for name in ("floor_", "", "pessimistic_"))
    assert low < middle < high
    adc = unlabeled.metrics["energy_breakdown.adc_j"].value or 0
    assert (high - middle) / adc == pytest.approx(3.3501, rel=1e-3)
    assert (middle - low) / adc == pytest.approx(1 - 0.22988, rel=1e-3)
