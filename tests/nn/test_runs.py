"""Layers that the program holds more than once: each run of positions has the cells of its copy, in training too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="extra torch")
pytest.importorskip("onnxscript", reason="extra torch")

import insitu  # noqa: E402  behind the check for torch
from insitu import load_chip  # noqa: E402
from insitu.base.errors import UsageError  # noqa: E402
from insitu.circuit.effects import Physics  # noqa: E402
from insitu.circuit.tile import drawn_cells  # noqa: E402
from insitu.flow.physics import instance_session  # noqa: E402
from insitu.nn import Config, convert  # noqa: E402
from insitu.nn.runs import Runs, conv_runs  # noqa: E402

WHOLE = ["cell=reram-wan", "array.bits_per_cell=4", "macro.weights.slices=2", "macro.input.bits_per_pass=8"]


@pytest.mark.parametrize(
    "conv",
    [torch.nn.Conv1d(4, 6, 5, stride=2, padding=2), torch.nn.Conv2d(4, 6, 3, padding=1, groups=2),
     torch.nn.Conv2d(4, 6, (3, 2), stride=(3, 1), dilation=(2, 1)), torch.nn.Conv2d(4, 6, 4, padding="same"),
     torch.nn.Conv2d(4, 6, 3, padding=2, padding_mode="circular"), torch.nn.Conv3d(4, 6, 3, padding=(2, 1, 0))],
)  # fmt: skip
@pytest.mark.parametrize("copies", [1, 2, 5])
def test_runs_together_are_the_whole(conv: Any, copies: int) -> None:
    x = torch.randn(2, 4, *(17, 12, 9)[: len(conv.kernel_size)])
    runs, whole = conv_runs(conv), conv._conv_forward(x, conv.weight, None)
    parts = [runs.apply(part, conv.weight) for part in runs.cut(x, copies)]
    assert len(parts) == copies
    assert runs.positions(x) == whole.shape[2]
    torch.testing.assert_close(torch.cat(parts, 2), whole)


def test_tokens_are_cut_as_they_come() -> None:
    x = torch.arange(10.0).reshape(1, 5, 2)
    parts = list(Runs(torch.nn.functional.linear, axis=1).cut(x, 3))
    assert [p.shape[1] for p in parts] == [2, 1, 2]
    assert torch.equal(torch.cat(parts, 1), x)


@pytest.mark.slow
def test_training_has_the_copies_of_the_program() -> None:
    """What outputs err by at one place is the simulator's, and so is what they err by on average over all places."""
    given = load_chip("parametric-reram-adc8", overrides=[*WHOLE, "chip.tiles=16"])
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Conv2d(8, 32, 3, padding=1)), torch.randn(8, 8, 16, 16)
    made: Any = convert(model, given, config=Config(data=x, physics="full", time="1d"))
    found = insitu.deploy(made, given, data={"x": x.numpy()}, instances=1)
    assert found.session is not None
    copies = made.insitu.shared.settings["0.weight"].copies
    assert copies == next(iter(found.session.program.meta["replicas"].values())) > 4
    exact, effects = made.eval()(x), Physics.parse("full", given).after(86400.0)
    made.train()
    with torch.no_grad():
        trained = torch.stack([made(x) - exact for _ in range(6)])
    rows: list[Any] = []
    for instance in range(6):
        session = instance_session(found.session, effects, instance=instance, seed=0)
        (y,) = session.run(x[:, None].numpy()).values()
        rows.append(torch.from_numpy(y[:, 0].astype(np.float32)) - exact)
    simulated = torch.stack(rows)
    assert float(trained.std() / simulated.std()) == pytest.approx(1.0, abs=0.08)
    common = [float(e.mean((-1, -2)).std()) for e in (trained, simulated)]
    assert common[0] / common[1] == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("encoding", ["differential_pair", "offset_column"])
@pytest.mark.parametrize("ahead", ["0d", "30d"])
def test_copies_at_once_are_those_one_by_one(encoding: str, ahead: str) -> None:
    own = ["cell=pcm-hermes", "array.bits_per_cell=8", "macro.weights.slices=1", "calibration.drift_compensation=true"]
    more = [f"macro.weights.encoding={encoding}", f"calibration.drift_ahead={ahead}"]
    given = load_chip("parametric-reram-adc8", overrides=[*own, *more])
    physics, rng = Physics.parse("full", given).after(86400.0), np.random.default_rng(5)
    target, normals = rng.integers(-127, 128, (20, 6)).astype(float), rng.standard_normal((3, 20, 7))

    def held(normal: Any) -> Any:
        def draws(reference: bool) -> Any:
            return lambda effect, plane: np.roll(normal, plane + len(effect), -2)[..., : 6 + reference]

        return drawn_cells(target, draws, chip=given, physics=physics)

    together, apart = held(normals), [held(one) for one in normals]
    np.testing.assert_array_equal(together.weights, np.stack([a.weights for a in apart]))
    np.testing.assert_array_equal(together.variance, np.stack([a.variance for a in apart]))


@pytest.mark.parametrize(("physics", "objective"), [("ideal", "latency"), ("programming_noise", "cells")])
def test_no_copies_where_none_are_held_or_none_err(physics: str, objective: str) -> None:
    given = load_chip("parametric-reram-adc8", overrides=[*WHOLE, "chip.tiles=16"])
    config = Config(data=torch.randn(4, 2, 16, 16), physics=physics, objective=objective)
    made: Any = convert(torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3)), given, config=config)
    assert made.insitu.shared.settings["0.weight"].copies == 1


def test_an_objective_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Config\.objective"):
        convert(torch.nn.Linear(3, 2), "dcim-28nm", config=Config(data=torch.randn(4, 3), objective="speed"))
