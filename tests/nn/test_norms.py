"""Batch norms in layers: cells hold their factors, training is that of the float module, names and states stay."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import insitu
from insitu.base.errors import ConfigError

torch: Any = pytest.importorskip("torch", reason="extra torch")
pytest.importorskip("onnxscript", reason="extra torch")
pytestmark = pytest.mark.slow  # torch takes seconds to load its exporter

from insitu.nn import Config, convert, quantized  # noqa: E402  behind the check for torch
from insitu.nn.norms import factors, followed, held, normed  # noqa: E402

nn = torch.nn


def settled(model: Any, x: Any) -> Any:
    """A model whose norms have learned: statistics of x, factors of both signs."""
    torch.manual_seed(2)
    for norm in (m for m in model.modules() if hasattr(m, "running_mean")):
        if norm.weight is not None:
            norm.weight.data.copy_(torch.rand(len(norm.weight)) + 0.3).mul_(torch.sign(torch.randn(len(norm.weight))))
            norm.bias.data.normal_(std=0.3)
    model.train()
    for _ in range(120):
        model(x)
    return model.eval()


def network() -> Any:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 12, 3, stride=2, groups=12), nn.BatchNorm2d(12, affine=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(108, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip


def samples(*shape: int, seed: int = 7) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


LAYERS = {
    "linear": (lambda: nn.Linear(6, 8, bias=False), lambda: nn.BatchNorm1d(8), (64, 6), -1),
    "conv": (lambda: nn.Conv1d(6, 8, 3, groups=2), lambda: nn.BatchNorm1d(8), (16, 6, 9), 1),
    "conv-3d": (lambda: nn.Conv3d(2, 4, 2), lambda: nn.BatchNorm3d(4, affine=False), (8, 2, 4, 4, 4), 1),
    "transposed": (lambda: nn.ConvTranspose2d(6, 8, 3, groups=2), lambda: nn.BatchNorm2d(8), (8, 6, 5, 5), 1),
    "cumulative": (lambda: nn.Conv2d(3, 8, 3), lambda: nn.BatchNorm2d(8, momentum=None), (8, 3, 6, 6), 1),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_norm_in_a_layer_is_the_norm_behind_it(kind: str) -> None:
    """In training and in eval; gradients of all parameters and running statistics too."""
    make, make_norm, shape, channel = LAYERS[kind]
    torch.manual_seed(0)
    layer, norm = make(), make_norm()
    settled(nn.Sequential(layer, norm), samples(*shape))
    own_layer, own_norm = copy.deepcopy(layer), copy.deepcopy(norm)

    def product(x: Any) -> Any:
        w, b = held(own_layer, own_norm)
        state = {"weight": w, "bias": b}
        bare = copy.deepcopy(own_layer)
        if bare.bias is None:
            bare.bias = nn.Parameter(torch.zeros(len(b)))
        return torch.func.functional_call(bare, state, (x,))

    x = samples(*shape, seed=1) * 1.3 + 0.2
    torch.testing.assert_close(product(x), norm(layer(x)), rtol=1e-4, atol=1e-5)
    norm.train(), own_norm.train()
    for _ in range(3):
        ours, theirs = normed(own_norm, product(x), channel), norm(layer(x))
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    weights = samples(*theirs.shape, seed=3)
    (ours * weights).sum().backward(), (theirs * weights).sum().backward()
    for mine, its in zip((own_layer, own_norm), (layer, norm), strict=True):
        for name, value in its.named_parameters():
            if name != "bias" or its is norm:  # the norm takes a layer's own bias away
                torch.testing.assert_close(mine.get_parameter(name).grad, value.grad, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(own_norm.running_mean, norm.running_mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own_norm.running_var, norm.running_var, rtol=1e-3, atol=1e-5)
    assert own_norm.num_batches_tracked == norm.num_batches_tracked


@pytest.mark.parametrize("chip", ["dcim-28nm", "wtm2101", "parametric-reram-adc8"])
def test_training_on_a_chip_is_training_with_the_norms(chip: str) -> None:
    """Up to rounding: the gradients of the float network in training, and the integers of its program in eval."""
    x = samples(64, 2, 8, 8)
    model = settled(network(), x)
    chip = insitu.load_chip(chip, overrides=["macro.weights.slice_shift=0"])  # codes of 8 bits
    made = convert(model, chip, config=Config(data=x))
    assert set(model.state_dict()) <= set(made.state_dict())
    goals = torch.randint(0, 5, (64,), generator=torch.Generator().manual_seed(5))
    for module in (model.train(), made.train()):
        nn.functional.cross_entropy(4 * module(x), goals).backward()
    for name in ("0.weight", "1.weight", "1.bias", "7.weight", "8.weight", "10.weight"):
        mine, its = made.get_parameter(name).grad.flatten(), model.get_parameter(name).grad.flatten()
        assert float(torch.cosine_similarity(mine, its, 0)) > 0.95, name
    torch.testing.assert_close(made[1].running_var, model[1].running_var, rtol=0.02, atol=1e-3)
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    for _ in range(4):
        optimizer.zero_grad()
        made(x).square().mean().backward()
        optimizer.step()
    fresh = samples(200, 2, 8, 8, seed=4)
    exact = made.eval()(fresh)
    found = insitu.deploy(made, chip, data={"x": fresh[:8].numpy()}, physics="ideal")
    (program,) = found.run(fresh[:, None].numpy()).values()
    np.testing.assert_array_equal(exact.numpy(), program[:, 0].astype(np.float32))
    assert found.result.bit_exact.mismatches == 0


FIRST = "node_conv2d.weight"
CHANGED = (("dcim-28nm", ()), ("dcim-28nm", ("capabilities.scales=power_of_two",)), ("parametric-pcm-adc8", ()))


@pytest.mark.parametrize(("chip", "changes"), CHANGED)
def test_codes_are_the_layers_own_whatever_its_norm_does(chip: str, changes: tuple[str, ...]) -> None:
    """A norm of other factors changes what codes mean, in training, in eval, in the program and behind a checkpoint."""
    x = samples(64, 2, 8, 8)
    made = convert(settled(network(), x), insitu.load_chip(chip, overrides=list(changes)), config=Config(data=x))
    before = quantized(made).constants[FIRST]
    with torch.no_grad():
        made[1].weight.mul_(4.0)  # an octave is what all chips can follow
        made[1].running_mean.mul_(2.0)
        made[0].bias.mul_(2.0)
        made[1].running_var.mul_(4.0)
    np.testing.assert_array_equal(before, quantized(made).constants[FIRST])
    setting = made[0].chip_setting()
    np.testing.assert_allclose(followed(setting, factors(made[1])[0]).step / setting.step, 2.0, rtol=1e-4)
    again = convert(settled(network(), 3 * x), made.__dict__["insitu"].chip, config=Config(data=x))
    again.load_state_dict(made.state_dict())
    np.testing.assert_array_equal(made(x), again(x))
    again.train(), made.train()
    torch.manual_seed(0)
    ours = made(x)
    torch.manual_seed(0)
    torch.testing.assert_close(again(x), ours, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stride", "groups"), [(1, 2), (2, 1), (2, 2)])
def test_transposed_layers_hold_norms_that_move(stride: int, groups: int) -> None:
    """Where the chip takes the layer and, strided, where it trains in floats: the float network with the same state."""
    x = samples(64, 6, 6, 6)
    torch.manual_seed(3)
    model = nn.Sequential(nn.ConvTranspose2d(6, 8, 3, stride=stride, groups=groups), nn.BatchNorm2d(8))
    made = convert(settled(model, x), "dcim-28nm", config=Config(data=x))
    with torch.no_grad():
        for parameter in (made[1].weight, made[1].bias):
            parameter.mul_(torch.linspace(0.2, 1.0, 8))  # less, so that nothing leaves the outputs' range
    model.load_state_dict({name: value for name, value in made.state_dict().items() if name in model.state_dict()})
    wanted = model.eval()(x).detach()
    made.train()[1].eval()
    assert float((made(x) - wanted).detach().square().mean() / wanted.var()) < 2e-3
    assert float((made.eval()(x) - wanted).square().mean() / wanted.var()) < 2e-3


def test_checkpoints_of_another_form_are_refused_in_one_message() -> None:
    made = convert(nn.Linear(4, 3), "dcim-28nm", config=Config(data=samples(8, 4)))
    for text in (b"{", b"[]", b'{"plan": "", "factors": 3}', b'{"values": {}, "layers": {}}'):
        with pytest.raises(ConfigError, match=r"checkpoint|quantization plan"):
            made.set_extra_state(torch.frombuffer(bytearray(text), dtype=torch.uint8))


def test_a_norm_of_other_data_settles_where_the_float_one_does() -> None:
    """With much less spread than at conversion; steps that stay would clip weights, and the norm would run away."""
    x = samples(64, 2, 8, 8)
    model = settled(network(), x)
    made = convert(model, "parametric-reram-adc8", config=Config(data=x))
    smooth = nn.functional.avg_pool2d(samples(64, 2, 10, 10, seed=5), 3, stride=1)
    model.train(), made.train()
    with torch.no_grad():
        for _ in range(100):
            model(smooth), made(smooth)
    torch.testing.assert_close(made[1].running_var, model[1].running_var, rtol=0.2, atol=1e-3)


def test_states_copies_and_pickles_keep_their_norms() -> None:
    x = samples(64, 2, 8, 8)
    model = settled(network(), x)
    made = convert(model, "dcim-28nm", config=Config(data=x))
    twin = pickle.loads(pickle.dumps(copy.deepcopy(made)))
    assert isinstance(twin[1], nn.BatchNorm2d)
    made.train()
    for _ in range(5):
        made(x * 2 + 1)
    assert not torch.equal(made.eval()(x), twin.eval()(x))
    twin.load_state_dict(made.state_dict())
    torch.testing.assert_close(made(x), twin(x), rtol=0, atol=0)
    assert twin[0].__dict__["chip_norm"] is twin[1]


def test_layers_left_on_the_host_keep_what_they_compute() -> None:
    x = samples(64, 2, 8, 8)
    model = settled(network(), x)
    made = convert(model, "dcim-28nm", filter=lambda name, layer: name not in ("0", "1"), config=Config(data=x))
    wanted = model(x).detach()
    assert float((made.eval()(x) - wanted).square().mean() / wanted.var()) < 2e-3
    made.train()
    near = made(x)
    assert float((near - model.train()(x)).square().mean() / wanted.var()) < 0.1
