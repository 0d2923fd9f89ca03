"""Chip layers: PyTorch's own modules whose forward is a chip layer's; parameters, names and hooks stay theirs.

A module becomes one by a class between it and its old class (`adopt`), so state dicts, optimizers and isinstance see
what they saw before.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from insitu.nn.functional import Apply, Setting, before_norm, codes_of_weights, finished, layer, rounded_weights
from insitu.nn.norms import factors, followed, held, normed
from insitu.nn.phases import Phases
from insitu.nn.physics import Field, drawn, noisy_layer, programmed, straight
from insitu.nn.runs import Runs, conv_runs


@dataclass
class Shared:
    """What the layers of one converted module share: whether they compute in floats, and the physics of this step."""

    plain: bool = False
    now: Field | None = None
    settings: dict[str, Setting] = field(default_factory=dict[str, Setting])  # by parameter


if TYPE_CHECKING:
    Base = nn.Module
else:
    Base = object  # a class between a module and its own class has no parent of its own


class ChipLayer(Base):
    """What all chip layers have: their name in the whole module, and what they share with the others."""

    chip_name: str
    chip_shared: Shared

    def chip_setting(self, parameter: str = "weight") -> Setting | None:
        """How a parameter lies on the chip; none while the module computes in floats."""
        shared = self.chip_shared
        return None if shared.plain else shared.settings.get(f"{self.chip_name}.{parameter}".lstrip("."))

    def chip_forward(
        self: Any, setting: Setting, x: Tensor, apply: Apply, *, channel: int = -1, runs: Runs | None = None
    ) -> Tensor:
        """The layer's product with the weights that cells hold, and the batch norm among them where there is one."""
        norm = self.__dict__.get("chip_norm")
        if norm is None:
            return finished(
                setting, self.chip_sums(setting, x, self.weight, self.bias, apply, channel=channel, runs=runs)
            )
        setting, (w, bias) = followed(setting.to(x.device), factors(norm)[0]), held(self, norm)
        y = self.chip_sums(setting, x, w, bias, apply, channel=channel, runs=runs)
        return finished(setting, normed(norm, y, channel))

    def chip_product(self, setting: Setting, x: Tensor, w: Tensor, bias: Tensor | None, apply: Apply) -> Tensor:
        """One product, in the readout's codes."""
        return finished(setting, self.chip_sums(setting, x, w, bias, apply))

    def chip_sums(
        self, setting: Setting, x: Tensor, w: Tensor, bias: Tensor | None, apply: Apply, *, channel: int = -1,
        runs: Runs | None = None,
    ) -> Tensor:  # fmt: skip
        """The sums of one product, on the chip instance of this step where there is one.

        `runs` cuts it where the program has copies of the layer; without it the first one serves all positions.
        """
        setting, x, bias = before_norm(setting.to(x.device), x, w, bias)
        now = self.chip_shared.now
        if now is None:
            return layer(setting, x, w, bias, apply, channel=channel)
        if runs is None or runs.positions(x) < setting.copies or setting.copies == 1:
            [cells] = drawn(setting, w, now)
            return noisy_layer(setting, x, w, bias, apply, field=now, cells=cells, channel=channel)
        copies = drawn(setting, w, now, setting.copies)
        parts = [
            noisy_layer(replace(setting, copy=i), part, w, bias, runs.apply, field=now, cells=cells, channel=channel)
            for i, (part, cells) in enumerate(zip(runs.cut(x, setting.copies), copies, strict=True))
        ]
        return torch.cat(parts, runs.axis)


class Linear(ChipLayer):
    """torch.nn.Linear."""

    def forward(self: Any, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        setting = self.chip_setting()
        if setting is None:
            return super().forward(input)
        runs = Runs(F.linear, axis=1) if input.dim() > 2 else None
        return self.chip_forward(setting, input, F.linear, runs=runs)


class Conv(ChipLayer):
    """torch.nn.Conv1d, Conv2d and Conv3d."""

    def forward(self: Any, input: Tensor) -> Tensor:
        """[N, in, *space] -> [N, out, *space]."""
        setting = self.chip_setting()
        if setting is None:
            return super().forward(input)
        if input.dim() < self.weight.dim():  # one sample without its axis
            return Conv.forward(self, input[None])[0]

        def apply(x: Tensor, w: Tensor) -> Tensor:
            return self._conv_forward(x, w, None)

        return self.chip_forward(setting, input, apply, channel=1, runs=conv_runs(self))


class ConvTranspose(ChipLayer):
    """torch.nn.ConvTranspose1d, 2d and 3d; its columns are the phases of its outputs."""

    def forward(self: Any, input: Tensor, output_size: Any = None) -> Tensor:
        """[N, in, *space] -> [N, out, *space]."""
        setting = self.chip_setting()
        if setting is None:
            return super().forward(input, output_size)
        if input.dim() < self.weight.dim():
            return ConvTranspose.forward(self, input[None], output_size)[0]
        rank, k = len(self.kernel_size), self.kernel_size
        extra = self._output_padding(input, output_size, self.stride, self.padding, k, rank, self.dilation)
        form, norm, setting = Phases.of(self), self.__dict__.get("chip_norm"), setting.to(input.device)
        assert form is not None
        w, bias = (self.weight, self.bias) if norm is None else held(self, norm)
        if norm is not None:
            setting = followed(setting, form.repeated(factors(norm)[0]))
        each = None if bias is None else form.repeated(bias)
        y = self.chip_sums(setting, input, form.weights(w), each, form.conv, channel=1, runs=form.runs)
        y = form.image(y, tuple(extra))
        return finished(setting, y if norm is None else normed(norm, y, 1))


class InLayer(Base):
    """A batch norm that is part of the layer before it, which applies it (`nn.norms`) where it lies on the chip."""

    def forward(self: Any, input: Tensor) -> Tensor:
        """The input as it is; normed where the layer computes in floats while the rest is trained."""
        layer: ChipLayer = self.__dict__["chip_layer"]
        return input if layer.chip_shared.plain or layer.chip_setting() is not None else super().forward(input)


class Embedding(ChipLayer):
    """torch.nn.Embedding: rows of a table in codes; it lies in memory, not in arrays."""

    def forward(self: Any, input: Tensor) -> Tensor:
        """[...] -> [..., width]."""
        rows, setting = super().forward(input), self.chip_setting()
        return rows if setting is None or setting.y is None else setting.y.rounded(rows)


class Weights(ChipLayer):
    """Any other module with weights in arrays: they are rounded as the chip holds them, what it computes is its own."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        """As the module's own."""
        found = {n: self.chip_setting(n) for n, _ in self.named_parameters(recurse=False)}
        known = {n: s for n, s in found.items() if s is not None}
        if not known or self.chip_busy:
            return super().forward(*args, **kwargs)
        changed = {n: rounded_parameter(s, getattr(self, n), self.chip_shared) for n, s in known.items()}
        self.__dict__["chip_busy"] = True
        try:
            return torch.func.functional_call(self, changed, args, kwargs)
        finally:
            self.__dict__["chip_busy"] = False

    chip_busy = False


def rounded_parameter(setting: Setting, w: Tensor, shared: Shared) -> Tensor:
    """A parameter as cells hold it."""
    setting = setting.to(w.device)
    if setting.behind is not None:
        setting = setting.under(setting.behind.now(w.device)[0])
    if shared.now is None:
        return rounded_weights(setting, w)
    now = shared.now
    with torch.no_grad():
        q = codes_of_weights(setting, w)
        [held] = programmed(setting, setting.cells(q), now)
        holds = setting.back(held.cells) * setting.step
    return straight(setting, w, q, holds, moves=now.physics.moves)


def adopt(module: nn.Module, mixin: type) -> None:
    """Put a class between a module and its own class."""
    own = type(module)
    if issubclass(own, mixin):
        return
    module.__class__ = type(own.__name__, (mixin, own), {"__module__": own.__module__, "__reduce_ex__": _reduced})


def _reduced(self: Any, protocol: int) -> Any:
    """Copies and pickles name the two classes, since the one made of them has no home."""
    mixin, own = type(self).__bases__
    return _rebuilt, (mixin, own), self.__dict__


def _rebuilt(mixin: type, own: type) -> Any:
    module: Any = own.__new__(own)  # pyright: ignore[reportCallIssue]
    nn.Module.__init__(module)
    adopt(module, mixin)
    return module
