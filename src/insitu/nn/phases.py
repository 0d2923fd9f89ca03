"""Transposed convolutions as arrays hold them: one convolution whose channels are the phases of every output pixel.

The compiler writes them so (`frontend.lower_layers`), a column for each phase of each output; training does the same to
the module's parameter, so that codes, cells and columns are those of the chip.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from insitu.nn.norms import TRANSPOSED
from insitu.nn.runs import CONVOLUTIONS, Runs


@dataclass(frozen=True)
class Phases:
    """How a transposed convolution becomes a convolution; tuples are by axis of space."""

    shape: tuple[int, ...]  # of the parameter: inputs, outputs of a group, taps
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, layer: nn.Module) -> Phases | None:
        """Those of a layer; None for other modules."""
        if not isinstance(layer, TRANSPOSED):
            return None
        made: Any = layer
        return cls(tuple(made.weight.shape), made.stride, made.dilation, made.padding, made.groups)

    @property
    def count(self) -> int:
        """Phases of one output."""
        return prod(self.strides)

    @property
    def reach(self) -> tuple[int, ...]:
        """Taps of a phase along each axis."""
        wide = ((k - 1) * d + 1 for k, d in zip(self.shape[2:], self.dilations, strict=True))
        return tuple(-(-k // s) for k, s in zip(wide, self.strides, strict=True))

    @property
    def held(self) -> tuple[int, ...]:
        """The shape of the weights as arrays hold them: outputs with their phases, inputs of a group, taps."""
        ins, out = self.shape[:2]
        return (self.groups * out * self.count, ins // self.groups, *self.reach)

    def weights(self, w: Tensor) -> Tensor:
        """The parameter as arrays hold it; taps that a phase lacks are 0."""
        ins, out, *taps = self.shape
        full = [r * s for r, s in zip(self.reach, self.strides, strict=True)]
        wide = w.new_zeros((ins, out, *full))
        at = (slice(0, (k - 1) * d + 1, d) for k, d in zip(taps, self.dilations, strict=True))
        wide[(slice(None), slice(None), *at)] = w
        split = [v for pair in zip(self.reach, self.strides, strict=True) for v in pair]
        n = len(taps)
        parts = wide.reshape(self.groups, ins // self.groups, out, *split)
        parts = parts.permute(0, 2, *(4 + 2 * a for a in range(n)), 1, *(3 + 2 * a for a in range(n)))
        return parts.flip(tuple(range(-n, 0))).reshape(self.held)

    def moved(self, index: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Flat indices into the parameter (-1: none) as flat indices into the weights that arrays hold."""
        numbers = torch.arange(1, prod(self.shape) + 1, dtype=torch.int64).reshape(self.shape)
        order = self.weights(numbers).numpy().reshape(-1) - 1
        places = np.empty(prod(self.shape) + 1, np.int64)
        places[order] = np.arange(len(order))  # an absent tap's number, -1, writes the last one
        places[-1] = -1
        return places[index]

    def repeated(self, values: Tensor) -> Tensor:
        """Numbers of outputs, for each of their phases."""
        return values.repeat_interleave(self.count)

    def conv(self, x: Tensor, w: Tensor) -> Tensor:
        """The convolution of inputs with such weights: [N, outputs * phases, *space]."""
        around = tuple(r - 1 for r in self.reach)
        return CONVOLUTIONS[len(around)](x, w, None, 1, around, 1, self.groups)

    @property
    def runs(self) -> Runs:
        """Runs of its first axis of space."""

        def apply(x: Tensor, w: Tensor) -> Tensor:
            return CONVOLUTIONS[len(self.reach)](x, w, None, 1, 0, 1, self.groups)

        pad = tuple(r - 1 for r in reversed(self.reach) for _ in range(2))
        return Runs(apply, 2, 1, self.reach[0], pad)

    def image(self, y: Tensor, extra: tuple[int, ...]) -> Tensor:
        """[N, outputs * phases, *space] as [N, outputs, *space] without padding, `extra` pixels more at the end."""
        n, space = len(self.strides), y.shape[2:]
        apart = y.reshape(len(y), -1, *self.strides, *space)
        apart = apart.permute(0, 1, *(i for a in range(n) for i in (2 + n + a, 2 + a)))
        full = [q * s for q, s in zip(space, self.strides, strict=True)]
        y = apart.reshape(len(y), -1, *full)
        ends: list[int] = []
        for axis, (q, s, k, d, p, e) in enumerate(
            zip(space, self.strides, self.shape[2:], self.dilations, self.padding, extra, strict=True)
        ):
            size = (q - self.reach[axis]) * s - 2 * p + d * (k - 1) + e + 1
            y = y.narrow(2 + axis, p, min(size, full[axis] - p))
            ends = [0, max(size + p - full[axis], 0), *ends]
        return F.pad(y, ends) if any(ends) else y
