"""Print what 8 bits leave of small transformers with outlier channels, as one JSON object.

    python tools/acceptance_smooth.py [SEEDS] [CHIP]

Random encoders of the kinds that are in use: norms in front (ViT), norms behind the sums (BERT), gated feed-forward
(Llama), convolution blocks (Conformer).  Three channels of each are some 30 times as large as the others: in the
stream that norms read, whose scales make up for it, as trained encoders have it; where norms are behind the sums, other
three behind each of them.  SQNR of the outputs on data that were not calibrated on, every choice the default.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from insitu import deploy

WIDTH, HEADS, TOKENS, FEATURES, BLOCKS, LOUD, TIMES = 64, 4, 16, 24, 2, 3, 30.0
KINDS = ("front", "behind", "gated", "conformer")


class Attention(nn.Module):
    """Self-attention written out."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Values weighed by how keys fit queries."""
        q, k, v = (f(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        shares = torch.softmax(q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5, -1)
        return self.o((shares @ v).transpose(1, 2).flatten(2))


class Feed(nn.Module):
    """A feed-forward part, gated or not."""

    def __init__(self, *, gated: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.gate = nn.Linear(WIDTH, 4 * WIDTH) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        """Wider, bent, and back."""
        return self.down(F.gelu(self.up(x)) if self.gate is None else F.silu(self.gate(x)) * self.up(x))


class Convolution(nn.Module):
    """A Conformer's convolution: gated, over neighbors, bent."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.out = nn.Conv1d(WIDTH, 2 * WIDTH, 1), nn.Conv1d(WIDTH, WIDTH, 1)
        self.near, self.norm = nn.Conv1d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH), nn.BatchNorm1d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] to the same."""
        near = self.near(F.glu(self.wide(x.transpose(1, 2)), dim=1))
        return self.out(F.silu(self.norm(near))).transpose(1, 2)


class Encoder(nn.Module):
    """Blocks of two parts each, every part with its norm and its sum."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.behind, self.first, self.head = kind == "behind", nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, 10)
        second = Convolution if kind == "conformer" else lambda: Feed(gated=kind == "gated")
        self.parts = nn.ModuleList(part() for _ in range(BLOCKS) for part in (Attention, second))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in self.parts)
        self.last = nn.Identity() if self.behind else nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[1, tokens, features] to ten scores a token."""
        x = self.first(x)
        for part, norm in zip(self.parts, self.norms, strict=True):
            x = norm(x + part(x)) if self.behind else x + part(norm(x))
        return self.head(self.last(x))


def planted(kind: str, seed: int) -> nn.Module:
    """A random encoder with loud channels."""
    torch.manual_seed(seed)
    model = Encoder(kind).eval()
    loud = [torch.randperm(WIDTH)[:LOUD] for _ in model.norms]
    with torch.no_grad():
        if kind == "behind":
            for norm, channels in zip(model.norms, loud, strict=True):
                norm.weight[channels] *= TIMES
            return model
        model.first.weight[loud[0]] *= TIMES
        model.first.bias[loud[0]] *= TIMES
        for norm in (m for m in model.modules() if isinstance(m, nn.LayerNorm)):
            norm.weight[loud[0]] /= TIMES
    return model


def measured(seeds: int, chip: str) -> dict[str, Any]:
    """SQNR of every kind over seeds, its least and mean, and the integers that differ between graph and program."""
    found, wrong = dict[str, list[float]](), 0
    for kind in KINDS:
        for seed in range(seeds):
            draw = np.random.default_rng(seed)
            data, calib = (draw.standard_normal((n, TOKENS, FEATURES)).astype(np.float32) for n in (16, 32))
            given = {"data": {"x": data}, "calib": {"x": calib}}
            made = deploy(planted(kind, seed), chip, physics="ideal", instances=1, **given)
            value, exact = made.metrics["sqnr_db"].value, made.result.bit_exact
            assert value is not None
            assert exact is not None
            found.setdefault(kind, []).append(float(value))
            wrong += exact.mismatches
    means = {k: float(np.mean(v)) for k, v in found.items()}
    least = {k: min(v) for k, v in found.items()}
    worst = {"least_mean_db": min(means.values()), "least_db": min(least.values()), "mismatches": wrong}
    return {"chip": chip, "seeds": seeds, **worst, "mean_db": means, "min_db": least}


def main() -> None:
    """The figures as JSON."""
    seeds, chip = (int(sys.argv[1]) if len(sys.argv) > 1 else 10), (sys.argv[2] if len(sys.argv) > 2 else "dcim-28nm")
    print(json.dumps(measured(seeds, chip)))


if __name__ == "__main__":
    main()
