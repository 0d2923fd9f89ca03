"""Batch norms that are part of a layer on the chip, and still norms while they train.

Cells hold the layer's weights times the norm's factors, as its running statistics give them; a batch in training is
brought to its own mean and spread behind the array, as the norm alone would, and the running statistics follow.
Parameters keep their names and meaning: what is trained is what a float model of the same class would train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from insitu.compiler.plan import QuantPlan
from insitu.nn.functional import Setting, along

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
TINY = 1e-12  # of a factor, where a channel is switched off
GROWTH_MOST = 256.0  # biases stay whole numbers of sane size


def factors(norm: Any) -> tuple[Tensor, Tensor]:
    """(factor, shift) [channels] of a batch norm with its running statistics."""
    factor = torch.rsqrt(norm.running_var + norm.eps)
    factor = factor if norm.weight is None else factor * norm.weight
    shift = -norm.running_mean * factor
    return factor, shift if norm.bias is None else shift + norm.bias


def followed(setting: Setting, factor: Tensor) -> Setting:
    """The setting where the norm's factors have become these [outputs]."""
    if setting.norm is None:
        return setting
    return setting.stretched(growth(factor.detach(), setting.norm, octaves=setting.octaves))


def growth(factor: Tensor, before: Tensor, *, octaves: bool) -> Tensor:
    """How many times as large steps are [outputs], where a norm's factors were those before; in `octaves` where scales
    are powers of two.

    Codes are then the layer's own weights' whatever its norm does.  Were steps to stay, a norm that finds less spread
    would push weights beyond the largest code, find less spread still, and go on so.  A channel that was switched off
    stays as it is.
    """
    ratio = (factor.abs() / before.abs().clamp(min=TINY)).clamp(1.0 / GROWTH_MOST, GROWTH_MOST)
    ratio = torch.exp2(torch.round(torch.log2(ratio))) if octaves else ratio
    return torch.where(before.abs() > TINY, ratio, torch.ones_like(ratio))


def norm_factors(module: nn.Module) -> dict[str, Tensor]:
    """Factors [outputs] of the norms that layers hold, by the layer's weight."""
    layers = ((name, layer.__dict__.get("chip_norm")) for name, layer in module.named_modules())
    with torch.no_grad():
        return {f"{name}.weight".lstrip("."): factors(norm)[0].cpu() for name, norm in layers if norm is not None}


def followed_plan(
    plan: QuantPlan, columns: Mapping[str, Sequence[tuple[str, npt.NDArray[Any]]]], before: Mapping[str, Tensor],
    now: Mapping[str, Tensor], *, octaves: bool,
) -> QuantPlan:  # fmt: skip
    """The plan made for norms' factors before, for those they have now; `columns` as `settings.Layout` has them."""
    layers = dict(plan.layers)
    for node, parts in columns.items():
        scales = np.array(layers[node].weight_scale)
        for name, outputs in parts:
            if len(scales) and name in before and name in now:
                ratio, own = growth(now[name], before[name], octaves=octaves).double().numpy(), outputs >= 0
                scales[own] *= ratio[outputs[own]]
        layers[node] = replace(layers[node], weight_scale=tuple(scales.tolist()))
    return replace(plan, layers=layers)


def held(layer: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """(weight, bias) of a layer with a norm's factors in them."""
    factor, shift = factors(norm)
    bias = shift if layer.bias is None else shift + layer.bias * factor
    weight = layer.weight
    if not isinstance(layer, TRANSPOSED):
        return weight * factor.reshape(-1, *[1] * (weight.dim() - 1)), bias
    ins, out, *kernel = weight.shape
    apart = weight.reshape(layer.groups, ins // layer.groups, out, -1)
    return (apart * factor.reshape(layer.groups, 1, out, 1)).reshape(ins, out, *kernel), bias


def held_state(module: nn.Module) -> dict[str, Tensor]:
    """A module's state with the weights and biases that the chip holds."""
    state = dict(module.state_dict())
    with torch.no_grad():
        for name, layer in module.named_modules():
            norm = layer.__dict__.get("chip_norm")
            if norm is not None:
                state[f"{name}.weight"], state[f"{name}.bias"] = held(layer, norm)
    return state


def normed(norm: Any, y: Tensor, channel: int) -> Tensor:
    """Outputs y of a layer that holds a norm's factors, brought to this batch's own mean and spread.

    Where the norm is in eval, or an output has one value only, they stay as the running statistics made them.
    """
    count = y.numel() // y.shape[channel]
    if not norm.training or count < 2:
        return y
    axes = [i for i in range(y.dim()) if i != channel % y.dim()]
    var, mean = torch.var_mean(y, axes, unbiased=False)
    factor, shift = (t.detach() for t in factors(norm))
    spread = (var + norm.eps * factor * factor + TINY).rsqrt()
    scale = spread if norm.weight is None else spread * norm.weight.abs()
    offset = -mean * scale if norm.bias is None else norm.bias - mean * scale
    _follow(norm, mean.detach(), var.detach(), factor, shift, count)
    return y * along(scale, y, channel) + along(offset, y, channel)


@torch.no_grad()
def _follow(norm: Any, mean: Tensor, var: Tensor, factor: Tensor, shift: Tensor, count: int) -> None:
    """Running statistics of what the layer would give without the norm, as torch keeps them."""
    if not norm.track_running_stats:
        return
    norm.num_batches_tracked += 1
    share = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    on = factor.abs() > TINY
    safe = torch.where(on, factor, torch.ones_like(factor))
    seen = torch.where(on, (mean - shift) / safe, norm.running_mean)
    spread = torch.where(on, var / (safe * safe) * (count / (count - 1)), norm.running_var)
    norm.running_mean.lerp_(seen, share)
    norm.running_var.lerp_(spread, share)
