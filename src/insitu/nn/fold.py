"""Batch norms behind layers become part of them, as they do on the chip: which norms, and how a module is told."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from insitu.nn.layers import ChipLayer, InLayer, adopt
from insitu.nn.norms import held

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def fold_batch_norms(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """Make every batch norm that alone reads a layer's output part of the layer; returns their names.

    Chip layers hold the norm's factors among their weights and apply it while they train (`nn.norms`); a layer of the
    host takes its factors once and for all.  The module is run on the example to see which norm reads what; where
    folding would change the outputs, nothing is folded.
    """
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return _folded(module, args, kwargs)
    finally:
        module.train(training)


def _folded(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    pairs = _pairs(module, args, kwargs)
    if not pairs:
        return ()
    before = _tensors(module(*args, **kwargs))
    kept = {name: copy.deepcopy(module.get_submodule(name).state_dict()) for pair in pairs for name in pair}
    norms = {name: module.get_submodule(name) for _, name in pairs}
    layers: dict[str, Any] = {name: module.get_submodule(name) for name, _ in pairs}
    bare = {name for name, layer in layers.items() if layer.bias is None}
    for layer, norm in pairs:
        _fold(layers[layer], norms[norm])
        _put(module, norm, nn.Identity())
    after = _tensors(module(*args, **kwargs))
    same = all(_close(a, b) for a, b in zip(before, after, strict=True))
    for layer, norm in pairs:
        if not same or isinstance(layers[layer], ChipLayer):
            _put(module, norm, norms[norm])
            bias = layers[layer].bias
            if layer in bare:
                layers[layer].bias = None
            layers[layer].load_state_dict(kept[layer])
            if same:
                _join(layers[layer], norms[norm], bias if layer in bare else None)
    return tuple(norms) if same else ()


def _join(layer: Any, norm: Any, bias: Any) -> None:
    """The norm is applied by the layer; a layer without a bias gets one of zeros, since a column has one."""
    if bias is not None:
        layer.bias = nn.Parameter(torch.zeros_like(bias))
    if isinstance(norm, ChipLayer):
        norm.__class__ = type(norm).__bases__[1]
    adopt(norm, InLayer)
    layer.__dict__["chip_norm"], norm.__dict__["chip_layer"] = norm, layer


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max() + 1))


def _pairs(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(layer, norm) where a norm is given just what a layer returned, both called once."""
    made: dict[int, str] = {}
    alive: list[Tensor] = []
    calls: dict[str, int] = {}
    found: list[tuple[str, str]] = []

    def after(name: str) -> Any:
        def hook(_: nn.Module, __: Any, out: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(out, Tensor):
                alive.append(out)  # as long as it lives its id is its own
                made[id(out)] = name

        return hook

    def before(name: str) -> Any:
        def hook(_: nn.Module, given: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if given and id(given[0]) in made:
                found.append((made[id(given[0])], name))

        return hook

    hooks = [m.register_forward_hook(after(n)) for n, m in module.named_modules() if isinstance(m, LAYERS)]
    hooks += [m.register_forward_pre_hook(before(n)) for n, m in module.named_modules() if isinstance(m, NORMS)]
    try:
        module(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return [(a, b) for a, b in found if calls[a] == 1 == calls[b] and _whole(module.get_submodule(b))]


def _whole(norm: Any) -> bool:
    return isinstance(norm, NORMS) and norm.running_mean is not None


def _fold(layer: Any, norm: Any) -> None:
    """In place: the layer's weight and bias with the norm's factors in them."""
    weight, bias = (t.detach() for t in held(layer, norm))
    layer.weight.data.copy_(weight)
    if layer.bias is None:
        layer.bias = nn.Parameter(bias.clone())
    else:
        layer.bias.data.copy_(bias)


def _put(module: nn.Module, name: str, child: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, child)


def _tensors(out: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor)]
