"""The training loop: resumes as if it had not stopped; the recipe's splits share no sample; a first model is short."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="extra torch")
pytest.importorskip("onnxscript", reason="extra torch")

from insitu.nn import Schedule, fit  # noqa: E402  behind the check for torch

RECIPE = Path(__file__).parents[2] / "examples" / "11_noise_aware"


def tasks() -> Any:
    spec = importlib.util.spec_from_file_location("recipe_tasks", RECIPE / "tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["recipe_tasks"] = module
    spec.loader.exec_module(module)
    return module


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    torch.manual_seed(2)
    x, y = torch.randn(64, 6), torch.randint(0, 3, (64,))

    def model() -> Any:
        torch.manual_seed(4)
        parts = (torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 3))
        return torch.nn.Sequential(*parts)

    class CutError(Exception):
        pass

    def stop(step: int, loss: float) -> None:
        if step == 20:
            raise CutError

    schedule = Schedule(30, batch=8, every=10)
    whole = fit(model(), x, y, schedule)
    with pytest.raises(CutError):
        fit(model(), x, y, schedule, folder=tmp_path, report=stop)
    for again in (fit(model(), x, y, schedule, folder=tmp_path) for _ in range(2)):  # the second is done already
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_norms_settle_on_many_batches_alike() -> None:
    """Statistics behind training are those of `settle` batches; a norm that is held keeps its own."""
    torch.manual_seed(0)
    x, y = torch.randn(4096, 5) * 3 + 1, torch.randint(0, 2, (4096,))
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 5), torch.nn.BatchNorm1d(5))
    short = Schedule(4, batch=64, settle=0)
    before = fit(model, x, y, short)[0].running_mean.clone()
    assert float((before - x.mean(0)).abs().max()) > 0.3  # of four batches
    settled = fit(model, x, y, Schedule(4, batch=64))
    assert float((settled[0].running_mean - x.mean(0)).abs().max()) < 0.2
    assert float((settled[0].running_var / x.var(0) - 1).abs().max()) < 0.1
    assert settled[0].momentum == 0.1

    class Held(torch.nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Any:
            return super().train(False)

    held = fit(torch.nn.Sequential(Held(5)), x, y, Schedule(4, batch=64))
    assert torch.equal(held[0].running_mean, torch.zeros(5))


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_short_runs_end(steps: int) -> None:
    x, y = torch.randn(8, 4), torch.randint(0, 2, (8,))
    assert not fit(torch.nn.Linear(4, 2), x, y, Schedule(steps, batch=4)).training


def hashes(x: Any) -> set[str]:
    return {hashlib.sha256(np.ascontiguousarray(row).tobytes()).hexdigest() for row in np.asarray(x)}


@pytest.mark.slow
def test_training_and_evaluation_share_no_sample(shared_data: Path) -> None:
    pytest.importorskip("soundfile", reason="extra media")
    digits = tasks().spoken_digits(shared_data / "fsdd")
    assert (len(digits.x), len(digits.test_x)) == (1500, 750)
    assert not hashes(digits.x) & hashes(digits.test_x)
    parts = [np.load(shared_data / "cifar10" / f"{name}.npz")["x"] for name in ("train", "test")]
    assert not hashes(parts[0]) & hashes(parts[1])


@pytest.mark.slow
def test_the_recipes_resnet_is_the_published_one(shared_data: Path) -> None:
    import onnxruntime

    folder = shared_data / "cifar_resnet"
    task = tasks().resnet(shared_data / "cifar10", folder / "resnet20.safetensors")
    assert task.name == "resnet20"
    published = onnxruntime.InferenceSession(folder / "resnet20.onnx")
    x, model = task.test_x[:64], task.network().eval()
    (wanted,) = published.run(None, {published.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(model(x).detach().numpy(), wanted, rtol=1e-3, atol=1e-3)
    assert float((model(x).argmax(1) == task.test_y[:64]).float().mean()) > 0.7


@pytest.mark.slow
def test_the_readme_shows_the_first_model(repository: Path) -> None:
    text = Path(__file__).read_text("utf-8")
    begin, end = (text.index(f"    # README: {word}") for word in ("begin", "end"))
    shown = textwrap.dedent(text[text.index("\n", begin) + 1 : end])
    assert shown in (repository / "README.md").read_text("utf-8")
    assert len(shown.splitlines()) < 15


def test_a_first_noise_aware_model() -> None:
    from torch import nn, randint, randn

    # README: begin
    import insitu
    from insitu.nn import Config, Schedule, convert, fit

    x, y = randn(512, 1, 12, 12), randint(0, 4, (512,))  # your samples and labels
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 4))

    chip_model = convert(model, "wtm2101", config=Config(data=x[:128], physics="full", time=("1h", "1y")))
    fit(chip_model, x, y, Schedule(steps=20))
    result = insitu.deploy(chip_model, "wtm2101", data={"x": x.numpy(), "y": y.numpy()}, time="1d")
    print(result.metrics["accuracy_chip_mean"])
    # README: end
    assert result.result.bit_exact is not None
    assert result.result.bit_exact.mismatches == 0
    assert result.metrics["accuracy_chip_mean"].value is not None
