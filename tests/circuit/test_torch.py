"""The same lines serve torch: equal codes, and gradients through what is differentiable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.circuit.effects import Physics
from insitu.circuit.macro import read_codes
from insitu.circuit.tile import read_noise_sd
from insitu.device.cell import load_cell
from insitu.device.laws import DAY, asked
from insitu.device.programming import program

torch: Any = pytest.importorskip("torch")
WTM, RERAM = load_chip("wtm2101"), load_chip("parametric-reram-adc8")


def test_codes_are_those_of_numpy() -> None:
    acc = np.random.default_rng(0).integers(-200_000, 200_000, (16, 8)).astype(np.float64)
    settings: dict[str, Any] = {"gain": 1024, "shift": 8}
    for chip in (WTM, RERAM):
        expected = read_codes(acc, chip.macro.readout, **settings)
        found = read_codes(torch.from_numpy(acc), chip.macro.readout, **settings)
        assert np.array_equal(found.numpy(), expected)


def test_programming_and_noise_take_tensors_and_keep_gradients() -> None:
    value = torch.linspace(-255.0, 255.0, 11, dtype=torch.float64, requires_grad=True)
    normal = torch.ones(11, dtype=torch.float64)
    cell = load_cell("nor-flash-8b")
    held = program(value, normal, cell, refine_passes=1)
    assert np.allclose(held.detach().numpy(), program(value.detach().numpy(), normal.numpy(), cell, refine_passes=1))
    held.sum().backward()
    assert torch.isfinite(value.grad).all()
    squares = torch.tensor([[1e6]], dtype=torch.float64)
    physics = Physics.parse("full", WTM)
    expected = read_noise_sd(squares.numpy(), chip=WTM, physics=physics, step=1024)
    assert np.allclose(read_noise_sd(squares, chip=WTM, physics=physics, step=1024).numpy(), expected)


def test_targets_ahead_of_drift_are_those_of_numpy_and_keep_gradients() -> None:
    wanted = torch.linspace(0.0, 20.7, 40, dtype=torch.float64, requires_grad=True)
    found = asked("pcm-hermes-2", wanted, 30 * DAY)
    assert np.allclose(found.detach().numpy(), asked("pcm-hermes-2", wanted.detach().numpy(), 30 * DAY))
    assert (np.diff(found.detach().numpy()) > 0).all()
    found.sum().backward()
    assert (wanted.grad > 0).all()
