"""Transposed convolutions train as arrays hold them: torch's outputs, the simulator's errors, whatever the stride."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="extra torch")
pytest.importorskip("onnxscript", reason="extra torch")

import insitu  # noqa: E402  behind the check for torch
from insitu import load_chip  # noqa: E402
from insitu.circuit.effects import Physics  # noqa: E402
from insitu.flow.physics import instance_session  # noqa: E402
from insitu.nn import Config, convert  # noqa: E402
from insitu.nn.phases import Phases  # noqa: E402

SHAPES: list[tuple[Any, dict[str, Any]]] = [
    (torch.nn.ConvTranspose1d, {"kernel_size": 5, "stride": 3, "padding": 2, "output_padding": 1}),
    (torch.nn.ConvTranspose2d, {"kernel_size": 2, "stride": 2}),
    (torch.nn.ConvTranspose2d, {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    (torch.nn.ConvTranspose2d, {"kernel_size": (3, 2), "stride": (1, 3), "dilation": (2, 1), "output_padding": (0, 1)}),
    (torch.nn.ConvTranspose2d, {"kernel_size": 1, "stride": 2, "output_padding": 1}),
    (torch.nn.ConvTranspose3d, {"kernel_size": (3, 2, 4), "stride": (2, 2, 1), "padding": (1, 0, 2)}),
]


@pytest.mark.parametrize(("kind", "asked"), SHAPES)
def test_phases_are_the_transposed_convolution(kind: Any, asked: dict[str, Any]) -> None:
    """Whole or in runs of positions; every weight has its place, and gradients come back to the parameter."""
    torch.manual_seed(0)
    layer = kind(4, 6, bias=False, **asked)
    form = Phases.of(layer)
    assert form is not None
    x = torch.randn(3, 4, *(7, 6, 5)[: len(form.strides)])
    wanted = layer(x)
    extra = tuple(layer.output_padding)
    w = form.weights(layer.weight)
    torch.testing.assert_close(form.image(form.conv(x, w), extra), wanted, rtol=1e-4, atol=1e-5)
    parts = [form.runs.apply(part, w) for part in form.runs.cut(x, 2)]
    torch.testing.assert_close(form.image(torch.cat(parts, 2), extra), wanted, rtol=1e-4, atol=1e-5)
    places = form.moved(np.arange(layer.weight.numel()))
    assert torch.equal(w.reshape(-1)[torch.from_numpy(places)], layer.weight.reshape(-1))
    assert form.moved(np.array([-1])) == [-1]
    (mine,) = torch.autograd.grad(form.image(form.conv(x, w), extra).square().sum(), layer.weight)
    (theirs,) = torch.autograd.grad(wanted.square().sum(), layer.weight)
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "asked", "chip"),
    [*((*shape, "parametric-pcm-adc8") for shape in SHAPES), (*SHAPES[2], "dcim-28nm"), (*SHAPES[4], "wtm2101")],
)
def test_training_rounds_as_the_program_does(kind: Any, asked: dict[str, Any], chip: str) -> None:
    torch.manual_seed(1)
    space = (7, 6, 5)[: {"ConvTranspose1d": 1, "ConvTranspose2d": 2, "ConvTranspose3d": 3}[kind.__name__]]
    model, x = torch.nn.Sequential(kind(4, 6, **asked), torch.nn.ReLU()), torch.randn(48, 4, *space)
    made: Any = convert(model, chip, config=Config(data=x))
    trained, exact = made.train()(x).detach(), made.eval()(x)
    assert float((trained - exact).square().mean() / exact.var()) < 2e-3
    assert float((exact - model(x)).detach().square().mean() / exact.var()) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "asked"),
    [pytest.param(*SHAPES[0], marks=pytest.mark.long), pytest.param(*SHAPES[1], marks=pytest.mark.long), SHAPES[2]],
)
def test_training_errs_as_much_as_the_simulator(kind: Any, asked: dict[str, Any]) -> None:
    given = load_chip("parametric-pcm-adc8")
    torch.manual_seed(0)
    space = (40,) if kind is torch.nn.ConvTranspose1d else (8, 8)
    model, x = torch.nn.Sequential(kind(16, 24, **asked)), torch.randn(16, 16, *space)
    made: Any = convert(model, given, config=Config(data=x, physics="full", time="1d"))
    found = insitu.deploy(made, given, data={"x": x.numpy()}, instances=1)
    assert found.session is not None
    exact, effects = made.eval()(x), Physics.parse("full", given).after(86400.0)
    made.train()
    with torch.no_grad():
        trained = torch.stack([made(x) - exact for _ in range(5)])
    rows: list[Any] = []
    for instance in range(5):
        session = instance_session(found.session, effects, instance=instance, seed=0)
        (y,) = session.run(x[:, None].numpy()).values()
        rows.append(torch.from_numpy(y[:, 0].astype(np.float32)) - exact)
    assert float(trained.std() / torch.stack(rows).std()) == pytest.approx(1.0, abs=0.08)
