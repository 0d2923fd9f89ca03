"""Converted modules: eval is the compiled program's integers, training follows it, the rest of PyTorch is as it was."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import insitu
from insitu.arch.load import load_chip
from insitu.base.errors import ConfigError, UsageError

torch: Any = pytest.importorskip("torch", reason="extra torch")
pytest.importorskip("onnxscript", reason="extra torch")
pytestmark = pytest.mark.slow  # torch takes seconds to load its exporter

from insitu.nn import Config, convert, quantized  # noqa: E402  behind the check for torch

CHIPS = ("dcim-28nm", "wtm2101", "parametric-reram-adc8")


def network() -> Any:
    torch.manual_seed(3)
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10),
    )  # fmt: skip


def samples(*shape: int) -> Any:
    return torch.from_numpy(np.random.default_rng(7).standard_normal(shape).astype(np.float32))


def trained(chip: Any, *, steps: int = 3, config: Any = None) -> tuple[Any, Any]:
    """A converted network after a few steps, in eval, and inputs for it."""
    x = samples(32, 2, 8, 8)
    model = network()
    model(x)  # statistics for the batch norm
    made = convert(model, chip, config=config or Config(data=x))
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        made(x).square().mean().backward()
        optimizer.step()
    return made.eval(), x


def apart() -> Any:
    """The ReRAM chip with slices as wide as its cells."""
    return load_chip("parametric-reram-adc8", overrides=["macro.weights.slice_shift=0"])


@pytest.mark.parametrize("chip", [*CHIPS, pytest.param(apart(), id="apart")])
def test_eval_returns_the_numbers_of_the_compiled_program(chip: Any) -> None:
    made, _ = trained(chip)
    x = samples(300, 2, 8, 8)
    found = insitu.deploy(made, chip, data={"x": x[:8].numpy()}, physics="ideal")
    (program,) = found.run(x[:, None].numpy()).values()
    np.testing.assert_array_equal(made(x).numpy(), program[:, 0].astype(np.float32))
    assert found.result.bit_exact.mismatches == 0


@pytest.mark.parametrize("chip", ["dcim-28nm", "wtm2101"])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_norms_that_begin_as_ones_and_zeros_are_trained(norm: str, chip: str) -> None:
    torch.manual_seed(4)
    nn = torch.nn
    last = nn.GroupNorm(3, 6) if norm == "group" else nn.LayerNorm(8)
    x = samples(32, 2, 10)
    made = convert(nn.Sequential(nn.Conv1d(2, 6, 3), last, nn.ReLU(), nn.Conv1d(6, 4, 3)), chip, config=Config(data=x))
    before = made.eval()(x)
    with torch.no_grad():
        for value in made.parameters():
            if value.ndim == 1 or norm == "layer":
                value.add_(0.1 * torch.randn(value.shape))
    after = made(x)
    found = insitu.deploy(made, chip, data={"x": x[:8].numpy()}, physics="ideal")
    (program,) = found.run(x[:, None].numpy()).values()
    np.testing.assert_array_equal(after.numpy(), program[:, 0].astype(np.float32))
    assert found.result.bit_exact.mismatches == 0
    assert not torch.equal(before, after)


@pytest.mark.parametrize("chip", CHIPS)
def test_training_follows_eval(chip: str) -> None:
    made, x = trained(chip)
    exact = made(x)
    made.train()
    made[1].eval()  # else the batch's own mean and spread count, as in any batch norm
    near = made(x).detach()
    assert float((near - exact).square().mean() / exact.var()) < 1e-3


@pytest.mark.parametrize("chip", ["dcim-28nm", "parametric-reram-adc8"])
@pytest.mark.parametrize("factors", ["neutral", "learned"])
def test_training_follows_eval_behind_norms(factors: str, chip: str) -> None:
    """Weights take a norm's factors in, which training must see: channels 60 times apart, some of them negative."""
    torch.manual_seed(6)
    nn = torch.nn
    norm = nn.LayerNorm(24)
    model = nn.Sequential(nn.Linear(12, 24), norm, nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 6))
    if factors == "learned":
        with torch.no_grad():
            norm.weight.copy_(torch.exp(torch.linspace(-2, 2, 24)) * torch.sign(torch.randn(24)))
            norm.bias.copy_(torch.randn(24))
    x = samples(64, 12)
    made = convert(model, chip, config=Config(data=x))
    near = made(x)
    near.square().mean().backward()
    assert float(made[1].bias.grad.abs().max()) > 0
    exact = made.eval()(x)
    wanted = model(x).detach()
    assert float((near.detach() - exact).square().mean() / exact.var()) < 1e-3
    assert float((exact - wanted).square().mean() / wanted.var()) < 2e-3


def test_a_convolution_that_comes_transposed_and_one_in_a_table() -> None:
    torch.manual_seed(5)
    nn = torch.nn
    model = nn.Sequential(nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1), nn.ReLU(), nn.Conv1d(6, 3, 3))
    x = samples(40, 4, 9)
    made = convert(model, "dcim-28nm", config=Config(data=x))
    near = made(x).detach()
    exact = made.eval()(x)
    assert float((near - exact).square().mean() / exact.var()) < 1e-3
    assert float((exact - model(x)).detach().square().mean() / exact.var()) < 1e-2


def test_the_model_given_stays_as_it_is_and_names_stay_too() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    before = copy.deepcopy(model.state_dict())
    made = convert(model, "dcim-28nm", config=Config(data=samples(16, 6)))
    assert type(model[0]) is torch.nn.Linear
    assert isinstance(made[0], torch.nn.Linear)
    assert [n for n, _ in made.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    made.load_state_dict(before)  # a float checkpoint fits


def test_a_checkpoint_gives_the_same_integers() -> None:
    made, x = trained("dcim-28nm")
    state = copy.deepcopy(made.state_dict())
    other = convert(network(), "dcim-28nm", config=Config(data=x * 2))
    other.load_state_dict(state)
    assert torch.equal(other.eval()(x), made(x))
    assert torch.equal(copy.deepcopy(made)(x), made(x))


def test_without_data_the_first_batch_calibrates() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    x = samples(64, 6)
    made = convert(model, "dcim-28nm")
    made(x)
    assert float((made.eval()(x) - model(x)).abs().max()) < 0.05
    with pytest.raises(UsageError, match="batch norms"):
        convert(network(), "dcim-28nm")


def test_layers_left_out_compute_in_floats_on_the_host() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    made = convert(model, "dcim-28nm", filter=lambda name, _: name != "2", config=Config(data=samples(16, 6)))
    ops = [n.op for n in quantized(made).nodes]
    assert ops.count("MatMul") == 1
    assert "Host" in ops
    x = samples(20, 6)
    found = insitu.deploy(made, "dcim-28nm", data={"x": x.numpy()}, physics="ideal")
    (program,) = found.run(x[:, None].numpy()).values()
    np.testing.assert_array_equal(made.eval()(x).numpy(), program[:, 0].astype(np.float32))


def test_autocast_and_compile_train_it_too() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    x = samples(64, 6)
    made = convert(model, "dcim-28nm", config=Config(data=x))
    plain = made(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = made(x).float().square().mean()
    loss.backward()
    assert made[0].weight.grad is not None
    compiled = torch.compile(made, backend="eager")
    torch.testing.assert_close(compiled(x), plain)


def test_another_chip_is_refused() -> None:
    made, x = trained("dcim-28nm", steps=0)
    with pytest.raises(UsageError, match="converted for dcim-28nm"):
        insitu.deploy(made, "wtm2101", data={"x": x.numpy()})


def test_an_effect_that_cannot_reach_a_layer_is_an_error() -> None:
    chip = load_chip("parametric-reram-adc8", overrides=["physics.adc.inl=0.5"])
    with pytest.raises(ConfigError, match="adc_inl"):
        convert(torch.nn.Linear(4, 2), chip, config=Config(physics="full"))


class Scaled(torch.nn.Module):
    """A factor per channel that is trained, behind layers of both kinds, as ConvNeXt and CaiT have it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 5)
        self.first, self.second = (torch.nn.Parameter(torch.rand(n) + 0.5) for n in (8, 5))

    def forward(self, x: Any) -> Any:
        hidden = torch.relu(self.conv(x) * self.first[:, None, None]).mean((2, 3))
        return self.linear(hidden) * self.second


@pytest.mark.parametrize("chip", ["wtm2101", "parametric-reram-adc8"])
def test_factors_behind_layers_stay_factors_where_errors_are_trained(chip: str) -> None:
    torch.manual_seed(0)
    model, x = Scaled().eval(), torch.randn(64, 3, 6, 6)
    reference = model(x).detach()
    made = convert(model, chip, config=Config(data=x, physics="full"))
    noisy = made.train()(x)
    noisy.square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in made.parameters())
    exact = made.eval()(x)
    assert float((exact - reference).square().mean() / reference.square().mean()) < 1e-2
    found = insitu.deploy(made, chip, data={"x": x.numpy()}, physics="ideal")
    (real,) = found.run(x[:, None].numpy()).values()
    np.testing.assert_array_equal(real.reshape(exact.shape).astype(np.float32), exact.numpy())


@pytest.mark.parametrize("what", ["twice", "as given"])
def test_modules_that_return_a_value_twice_or_as_it_came(what: str) -> None:
    class Given(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 4)

        def forward(self, x: Any) -> Any:
            y = self.layer(x)
            return (y, y) if what == "twice" else (x, y)

    torch.manual_seed(0)
    model, x = Given(), samples(16, 8)
    made = convert(model, "parametric-reram-adc8", config=Config(data=x)).eval()
    for mine, wanted in zip(made(x), model(x), strict=True):
        assert float((mine - wanted).detach().abs().max()) < 0.05
    found = insitu.deploy(made, "parametric-reram-adc8", data={"x": x.numpy()}, physics="ideal")
    for mine, program in zip(made(x), found.run(x[:, None].numpy()).values(), strict=True):
        np.testing.assert_array_equal(mine.numpy(), program[:, 0].astype(np.float32))


def test_volumes_train_with_scales_per_channel() -> None:
    """A 3-D convolution is another operator's work on the chip, whose channels lie along another axis."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv3d(2, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 5))
    with torch.no_grad():  # outputs as different as ask for scales of their own
        model[0].weight *= torch.logspace(-1, 1, 8)[:, None, None, None, None]
        model[3].weight /= torch.logspace(-1, 1, 8).repeat_interleave(8)
    x = torch.randn(64, 2, 4, 4, 4)
    made = convert(model, "parametric-reram-adc8", config=Config(data=x))
    setting = made.insitu.shared.settings["0.weight"]
    assert setting.y is not None
    assert (setting.y.axis, len(setting.y.scales)) == (-4, 8)
    trained, wanted = made.train()(x), model(x)
    assert float((trained - wanted).square().mean() / wanted.var()) < 0.01


@pytest.mark.parametrize("chip", ["dcim-28nm", "parametric-pcm-adc8", "wtm2101"])
def test_sums_in_training_are_those_of_the_chip_on_average(chip: str) -> None:
    """A bias is a whole number of codes, and one readout's negative codes lie high: no other sample makes up for it."""
    torch.manual_seed(0)
    x = samples(64, 8, 12, 12)
    made: Any = convert(torch.nn.Sequential(torch.nn.Conv2d(8, 24, 3)), chip, config=Config(data=x))
    exact, trained = made.eval()(x), made.train()(x).detach()
    setting = made[0].chip_setting()
    off = (trained - exact).mean((0, 2, 3)) / (setting.unit * setting.read)
    assert float(off.abs().max()) < 0.1


@pytest.mark.parametrize("physics", ["ideal", "full"])
def test_an_output_without_weights_is_its_bias(physics: str) -> None:
    """Nothing of it lies in an array, so nothing rounds it or errs."""
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Conv2d(8, 6, 3)), samples(16, 8, 10, 10)
    with torch.no_grad():
        model[0].weight[2] = 0.0
    made: Any = convert(model, "parametric-pcm-adc8", config=Config(data=x, physics=physics, time="1d"))
    trained, exact = made.train()(x).detach()[:, 2], made.eval()(x)[:, 2]
    step = float((made(x)[:, 1].unique().diff()).min())
    assert float((trained - exact).abs().max()) < 1.01 * step
    assert float((trained - model[0].bias[2]).abs().max()) < 0.51 * step


def test_a_convolution_of_one_sample_without_its_axis() -> None:
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Conv1d(5, 5, 1), torch.nn.ConvTranspose1d(5, 5, 1)), samples(8, 5, 5)
    made: Any = convert(model, "dcim-28nm", config=Config(data=x))
    together = made.train()(x)
    alone = [made[1](made[0](one)) for one in x]  # channels and places are as many: an axis mistaken would not show
    torch.testing.assert_close(torch.stack(alone), together)
