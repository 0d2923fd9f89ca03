"""The searched precision plan: it fights noise, leaves nothing behind that does not help, and says what it costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import insitu
from insitu.arch.load import load_chip
from insitu.base.errors import ConfigError, UsageError
from insitu.circuit.effects import Physics
from insitu.flow import optimize
from insitu.flow.chain import Options
from insitu.graph.graph import Graph, Node, const_type
from insitu.graph.types import TensorType
from insitu.report.summary import summary_lines
from tests.flow.line import BARE

NOISY = ["cell=pcm-hermes", "array.bits_per_cell=8", "macro.weights.slices=1", "macro.input.bits_per_pass=8",
         "calibration.drift_compensation=true", *BARE]  # fmt: skip


def network() -> Graph:
    rng = np.random.default_rng(2)
    constants = {
        "w1": rng.standard_normal((40, 24)).astype(np.float32) / 6, "b1": np.zeros(24, np.float32),
        "w2": rng.standard_normal((24, 8)).astype(np.float32) / 5, "b2": np.zeros(8, np.float32),
    }  # fmt: skip
    types = {"x": TensorType((1, 40), "f32"), "h": TensorType((1, 24), "f32"), "y": TensorType((1, 8), "f32")}
    nodes = (
        Node("fc1", "MatMul", ("x", "w1", "b1"), ("h",), {"act_lo": 0.0}),
        Node("fc2", "MatMul", ("h", "w2", "b2"), ("y",)),
    )
    types |= {n: const_type(c) for n, c in constants.items()}
    return Graph("two", "captured", ("x",), ("y",), nodes, types, constants)


@pytest.mark.slow
def test_a_searched_plan_is_closer_and_says_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize, "LADDER", ({"reads": 4}, {"copies": 4, "apart": True}))
    chip, x = load_chip("parametric-reram-adc8", overrides=NOISY), {"x": np.random.default_rng(1).normal(size=(64, 40))}
    graph = network()
    plain = insitu.deploy(graph, chip, data=x, options=Options(instances=4, time="1d"))
    asked = Options(instances=4, time="1d", optimize="accuracy")
    better = insitu.deploy(graph, chip, data=x, options=replace(asked, target=1.0))
    found = better.result.extra["optimize"]
    assert found["chosen"]["sqnr_db"] > found["default"]["sqnr_db"] + 1
    assert found["energy_ratio"] > 1
    assert found["cells_ratio"] >= 1
    assert set(found["layers"]) <= {"fc1", "fc2"}

    modest = insitu.deploy(graph, chip, data=x, options=replace(asked, target=0.4))
    cheap = modest.result.extra["optimize"]
    assert cheap["reached"]
    assert 0.4 <= cheap["chosen"]["gap_share"] < found["chosen"]["gap_share"]
    assert cheap["chosen"]["cells"] <= found["chosen"]["cells"]
    assert len(cheap["tried"]) < len(found["tried"])
    assert all(step["once_j"] is None or step["once_j"] > 0 for step in cheap["tried"])
    assert "of the error's gap" in "\n".join(summary_lines(modest.result))

    def closeness(d: insitu.Deployment) -> float:
        return float(np.mean([v for p in d.result.sqnr_over for v in p.values]))

    assert closeness(better) > closeness(plain)
    assert better.result.bit_exact is not None
    assert better.result.bit_exact.mismatches == 0


def test_what_cannot_be_searched_is_refused() -> None:
    x = {"x": np.zeros((4, 40), np.float32)}
    with pytest.raises(ConfigError, match="speed"):
        insitu.deploy(network(), "parametric-reram-adc8", data=x, options=Options(optimize="speed"))
    with pytest.raises(UsageError, match="target"):
        insitu.deploy(network(), "parametric-reram-adc8", data=x, options=Options(target=0.5))
    with pytest.raises(UsageError, match="a share of the gap"):
        insitu.deploy(network(), "parametric-reram-adc8", data=x, options=Options(optimize="accuracy", target=1.5))
    with pytest.raises(UsageError, match="no physics"):
        insitu.deploy(network(), "dcim-28nm", data=x, options=Options(optimize="accuracy"))


def test_procedures_that_cannot_act_are_not_tried() -> None:
    chip = load_chip("parametric-reram-adc8", overrides=NOISY)
    later = Physics.parse("full", chip, time=86400.0)
    assert optimize.procedures_off(chip, later) == ["spare_rows", "drift_ahead", "column_drift", "last_layer"]
    assert optimize.procedures_off(chip, later.after(0.0)) == ["spare_rows", "column_gain", "last_layer"]
    on = optimize.with_procedures(chip, ("spare_rows", "drift_ahead", "column_drift"))
    assert on.calibration.drift_ahead == optimize.AHEAD
    assert optimize.procedures_off(on, later) == ["last_layer"]
    other = load_chip("parametric-reram-adc8", overrides=["cell=reram-wan"])
    assert "drift_ahead" not in optimize.procedures_off(other, Physics.parse("full", other, time=86400.0))


def test_a_target_out_of_reach_becomes_a_share_of_the_best() -> None:
    """Of candidates that close enough the least cells and energy; the last tenths are left to who asks for all."""
    shares = ((0.0, 1), (0.5, 2), (0.72, 4), (0.75, 3), (0.8, 16))
    steps = [optimize.Step(str(s), 1.0 - s, 1e-6, c, share=s) for s, c in shares]
    best = steps[-1]
    chosen, goal = optimize.picked(steps, 0.9)
    assert goal == pytest.approx(0.72)
    assert (chosen.share, chosen.cells) == (0.75, 3)
    assert optimize.picked(steps, 0.8) == (best, 0.8)
    assert optimize.picked(steps, 1.0) == (best, None)
