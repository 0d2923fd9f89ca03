"""Attention and recurrent layers: torch's own numbers in floats, the compiled program's in eval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import insitu

torch: Any = pytest.importorskip("torch", reason="extra torch")
pytest.importorskip("onnxscript", reason="extra torch")
pytestmark = pytest.mark.slow  # torch takes seconds to load its exporter

from insitu.nn import Config, convert  # noqa: E402  behind the check for torch


class Sequence(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.table = nn.Embedding(20, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.lstm, self.gru = nn.LSTM(16, 8, batch_first=True), nn.GRU(8, 8, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: Any) -> Any:
        hidden, _ = self.lstm(self.block(self.table(ids)))
        hidden, _ = self.gru(hidden)
        return self.head(hidden[:, -1])


@pytest.mark.long  # twenty seconds of compilation; acceptance/05 runs it
def test_a_network_of_sequences() -> None:
    torch.manual_seed(0)
    model = Sequence().eval()
    ids = torch.randint(0, 20, (64, 6))
    reference = model(ids).detach()
    made = convert(model, "dcim-28nm", config=Config(data=ids))
    near = made.train()(ids)
    near.sum().backward()
    assert all(p.grad is not None for p in made.parameters())
    near, exact = near.detach(), made.eval()(ids)
    for a, b in ((near, reference), (exact, reference), (near, exact)):
        assert float((a - b).square().mean() / reference.var()) < 1e-3
    found = insitu.deploy(made, "dcim-28nm", data={"ids": ids.numpy()}, physics="ideal")
    (real,) = found.run({"ids": ids[:, None].numpy()}).values()
    np.testing.assert_array_equal(real.reshape(exact.shape).astype(np.float32), exact.numpy())


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_steps_of_a_recurrent_layer_are_torchs(kind: str) -> None:
    """With codes so fine that rounding is nothing, the loop over steps gives what torch's kernel gives."""
    from dataclasses import replace

    torch.manual_seed(1)
    layer = getattr(torch.nn, kind)(5, 7, num_layers=2, bidirectional=True)
    x = torch.randn(6, 3, 5)
    expected = layer(x)
    made = convert(torch.nn.Sequential(layer), "dcim-28nm")
    inner, shared = made[0], made.insitu.shared
    one = torch.ones(1)
    from insitu.nn.functional import Setting

    for name, p in inner.named_parameters():
        if p.dim() == 2:
            fine = Setting(name, 0, tuple(p.shape), None, None, torch.full((1, 1), 1e-6), -(1 << 30), 1 << 30, one, one)
            wide = replace(fine, unit=torch.full((len(p),), 1e-6), read=torch.ones(len(p)))
            shared.settings[f"0.{name}"] = wide
    found = inner(x)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.long  # 40 products to compile; acceptance/05 runs it
def test_two_directions_and_layers_of_which_the_last_step_counts() -> None:
    """Steps lie in the array once, so their biases need room once; the widest step's numbers are those of training."""
    torch.manual_seed(0)

    class Last(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.GRU(16, 24, 2, bidirectional=True, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.layers(x)[0][:, -1]

    model, x = Last().eval(), torch.randn(16, 10, 16)
    made = convert(model, "wtm2101", config=Config(data=x))
    near = made(x).detach()
    exact, wanted = made.eval()(x), model(x).detach()
    assert float((exact - wanted).square().mean() / wanted.square().mean()) < 3e-3
    assert float((near - exact).square().mean() / wanted.square().mean()) < 3e-3


class Memory(torch.nn.Module):
    """Attention on a memory that is a parameter: its keys and values are constants of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
        self.memory = torch.nn.Parameter(torch.randn(1, 5, 16))

    def forward(self, x: Any) -> Any:
        memory = self.memory.expand(x.shape[0], -1, -1)
        return self.attention(x, memory, memory, need_weights=False)[0]


def test_projections_that_the_network_holds_as_constants_are_computed_in_floats() -> None:
    """They were rounded to nothing in training, because no layer of the program says how they lie in cells."""
    torch.manual_seed(0)
    model, x = Memory().eval(), torch.randn(64, 6, 16)
    reference = model(x).detach()
    made = convert(model, "dcim-28nm", config=Config(data=x))
    near, exact = made.train()(x).detach(), made.eval()(x)
    for a, b in ((near, reference), (exact, reference), (near, exact)):
        assert float((a - b).square().mean() / reference.var()) < 1e-3
    found = insitu.deploy(made, "dcim-28nm", data={"x": x.numpy()}, physics="ideal")
    (real,) = found.run(x[:, None].numpy()).values()
    np.testing.assert_array_equal(real.reshape(exact.shape).astype(np.float32), exact.numpy())


def test_weights_computed_from_parameters_are_refused_with_a_way_out() -> None:
    from insitu.base.errors import ConfigError

    model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    torch.nn.utils.parametrizations.weight_norm(model[0])
    x = torch.randn(32, 16)
    with pytest.raises(ConfigError, match=r"remove_parametrizations\(model\.0, 'weight'\)"):
        convert(model, "wtm2101", config=Config(data=x, physics="full"))
    torch.nn.utils.parametrize.remove_parametrizations(model[0], "weight")
    convert(model, "wtm2101", config=Config(data=x, physics="full"))
