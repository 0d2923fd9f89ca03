"""The recipe's tasks: real data with a real split, a float network, and how samples are varied in training.

Folders of data are given by the caller; the keyword task ships with insitu.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from insitu.streams.audio import FeatureConfig, features, fit_length


@dataclass(frozen=True)
class Task:
    """Inputs and labels of both splits, a float network, and the augmentation of its training.

    `trained`: the network comes with its weights; `rate` is that of tuning it.
    """

    name: str
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    network: Callable[[], nn.Module]
    augment: Callable[[Tensor, torch.Generator], Tensor]
    trained: bool = False
    rate: float = 2e-3


def spoken_digits(folder: Path, kind: str = "conv") -> Task:
    """FSDD: the first 15 of the 45 recordings of each speaker and digit are the test set, 750 of 2,250.

    `kind`: conv, or dense, four narrow layers without shared kernels.
    """
    import soundfile

    config = FeatureConfig(rate=8000, samples=8000)
    audio, _ = soundfile.read(folder / "audio.flac", dtype="int16")
    index = np.load(folder / "index.npz")
    clips = [audio[a:b] for a, b in zip(index["offset"], index["offset"][1:], strict=False)]
    x = np.stack([features(fit_length(c, config.samples)[None], config)[0] for c in clips])
    inputs = torch.from_numpy(np.ascontiguousarray(x.swapaxes(1, 2), np.float32))  # [N, coefficients, frames]
    labels, test = (
        torch.from_numpy(index["digit"].astype(np.int64)),
        torch.from_numpy(index["index"] < np.unique(index["index"])[15]),
    )
    inputs = inputs / inputs[~test].std()
    network = _speech(10, 10) if kind == "conv" else _dense(inputs[0].numel(), 10)
    return Task("fsdd", inputs[~test], labels[~test], inputs[test], labels[test], network, shifted)


def cifar(folder: Path, *, width: int = 16) -> Task:
    """CIFAR-10: train.npz and test.npz as they come."""
    parts = [np.load(folder / f"{name}.npz") for name in ("train", "test")]
    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, test_x = (((torch.from_numpy(p["x"]) / 255 - mean) / sd).permute(0, 3, 1, 2).contiguous() for p in parts)
    y, test_y = (torch.from_numpy(p["y"].astype(np.int64)) for p in parts)
    return Task("cifar", x, y, test_x, test_y, lambda: images(width), flipped)


def resnet(folder: Path, weights: Path) -> Task:
    """CIFAR-10 and a ResNet of He et al. (arXiv:1512.03385) with published weights, a safetensors file."""
    state = load_file(weights)
    blocks = len({name.split(".")[1] for name in state if name.startswith("blocks.")})

    def network() -> nn.Module:
        made = ResNet(blocks // 3)
        made.load_state_dict(state)
        return made

    return replace(cifar(folder), name=f"resnet{2 * blocks + 2}", network=network, trained=True, rate=5e-4)


def _speech(coefficients: int, classes: int) -> Callable[[], nn.Module]:
    def network() -> nn.Module:
        """Convolutions over time with the cepstra as channels."""
        return nn.Sequential(
            nn.Conv1d(coefficients, 32, 5, stride=2, padding=2), nn.BatchNorm1d(32), nn.ReLU(),
            nn.Conv1d(32, 48, 5, stride=2, padding=2), nn.BatchNorm1d(48), nn.ReLU(),
            nn.Conv1d(48, 64, 3, stride=2, padding=1), nn.BatchNorm1d(64), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, classes),
        )  # fmt: skip

    return network


def _dense(features: int, classes: int) -> Callable[[], nn.Module]:
    def network() -> nn.Module:
        """Four narrow layers over all cepstra at once."""
        widths = (features, 48, 48, 48)
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], classes))

    return network


def images(width: int) -> nn.Module:
    """A plain convolutional network."""

    def block(ins: int, out: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(ins, out, 3, stride=stride, padding=1), nn.BatchNorm2d(out), nn.ReLU()]

    layers = [*block(3, width, 1), *block(width, 2 * width, 2), *block(2 * width, 2 * width, 1)]
    layers += [*block(2 * width, 4 * width, 2), *block(4 * width, 4 * width, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


class ResNet(nn.Module):
    """6 n + 2 layers; shortcuts drop every other place and add channels of zeros."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        widths = [16] * (n + 1) + [32] * n + [64] * n
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in pairwise(widths)))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(nn.functional.relu(self.bn1(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, ins: int, out: int) -> None:
        super().__init__()
        self.stride, self.more = out // ins, (out - ins) // 2
        self.conv1 = nn.Conv2d(ins, out, 3, stride=self.stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(nn.functional.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return nn.functional.relu(y + x)


def shifted(x: Tensor, rng: torch.Generator) -> Tensor:
    """Cepstra moved in time by up to 3 frames, at levels that differ."""
    moves = torch.randint(-3, 4, (len(x),), generator=rng)
    moved = torch.stack([row.roll(int(m), -1) for row, m in zip(x, moves, strict=False)])
    moved[:, :1] += 0.3 * torch.randn(len(x), 1, 1, generator=rng)
    return moved


def flipped(x: Tensor, rng: torch.Generator) -> Tensor:
    """Images mirrored, and moved by up to 4 pixels."""
    turn = torch.rand(len(x), generator=rng) < 0.5
    x = torch.where(turn[:, None, None, None], x.flip(3), x)
    padded = nn.functional.pad(x, (4, 4, 4, 4))
    at = torch.randint(0, 9, (len(x), 2), generator=rng)
    return torch.stack([p[:, a : a + 32, b : b + 32] for p, (a, b) in zip(padded, at.tolist(), strict=False)])
