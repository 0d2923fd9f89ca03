"""Runs of positions: where a program holds a layer more than once, each copy serves some of its outputs' positions.

Copies have cells of their own, so what they err by is not the same all over an image or a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from insitu.arch.spec import Chip
from insitu.base.errors import InfeasibleError
from insitu.graph.graph import Graph
from insitu.nn.functional import Apply
from insitu.runtime.objective import best_program

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Runs:
    """Outputs along `axis`, each from `reach` inputs that begin `stride` apart; `pad` are those around the input."""

    apply: Apply
    axis: int
    stride: int = 1
    reach: int = 1
    pad: tuple[int, ...] = ()
    mode: str = "constant"

    def positions(self, x: Tensor) -> int:
        """Outputs of an input, along the axis."""
        around = sum(self.pad[-2:])  # pads come last axis first
        return (x.shape[self.axis] + around - self.reach) // self.stride + 1

    def cut(self, x: Tensor, copies: int) -> Iterator[Tensor]:
        """What each copy is given, as the compiler cuts a layer (compiler/share.py)."""
        count = self.positions(x)
        x = F.pad(x, self.pad, self.mode) if any(self.pad) else x
        for a, b in pairwise(round(count * i / copies) for i in range(copies + 1)):
            yield x.narrow(self.axis, a * self.stride, (b - a - 1) * self.stride + self.reach)


def conv_runs(conv: Any) -> Runs:
    """Runs of a convolution's first axis of space."""

    def apply(x: Tensor, w: Tensor) -> Tensor:
        return CONVOLUTIONS[len(conv.kernel_size)](x, w, None, conv.stride, 0, conv.dilation, conv.groups)

    pad = tuple(conv._reversed_padding_repeated_twice)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    reach = conv.dilation[0] * (conv.kernel_size[0] - 1) + 1
    return Runs(apply, 2, conv.stride[0], reach, pad, mode)


def copies_of(graph: Graph, chip: Chip, objective: str) -> dict[str, int]:
    """How often the program that `insitu.deploy` makes of a quantized graph holds each layer, where more than once.

    A network that takes several chips, or no chip holds, has no copies.
    """
    try:
        return dict(best_program(graph, chip, objective=objective).meta.get("replicas", {}))
    except InfeasibleError:
        return {}
