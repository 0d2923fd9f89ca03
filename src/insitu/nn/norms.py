"""Batch norms that are part of a layer on the chip, and still norms while they train.

Cells hold the layer's weights times the norm's factors, as its running statistics give them; a batch in training is
brought to its own mean and spread behind the array, as the norm alone would, and the running statistics follow.
Parameters keep their names and meaning: what is trained is what a float model of the same class would train.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from insitu.nn.functional import along

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
TINY = 1e-12  # of a factor, where a channel is switched off


def factors(norm: Any) -> tuple[Tensor, Tensor]:
    """(factor, shift) [channels] of a batch norm with its running statistics."""
    factor = torch.rsqrt(norm.running_var + norm.eps)
    factor = factor if norm.weight is None else factor * norm.weight
    shift = -norm.running_mean * factor
    return factor, shift if norm.bias is None else shift + norm.bias


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
