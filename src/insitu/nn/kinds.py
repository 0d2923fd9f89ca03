"""Which chip layer a module becomes."""

from __future__ import annotations

from torch import nn

from insitu.nn.layers import ChipLayer, Conv, ConvTranspose, Embedding, Linear, Weights
from insitu.nn.sequences import MultiheadAttention, Recurrent

KINDS: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], type[ChipLayer]], ...] = (
    (nn.Linear, Linear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), Conv),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), ConvTranspose),
    (nn.Embedding, Embedding),
    (nn.MultiheadAttention, MultiheadAttention),
    ((nn.LSTM, nn.GRU), Recurrent),
)


def mixin_of(module: nn.Module) -> type[ChipLayer]:
    """The class that makes a chip layer of a module; any other with weights in arrays keeps its own forward."""
    return next((mixin for kinds, mixin in KINDS if isinstance(module, kinds)), Weights)
