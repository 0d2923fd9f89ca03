"""A language model as one description and named float weights, whatever family it comes from.

`Architecture` says what is computed; `LanguageModel.weights` holds it under our names, matrices as [inputs, outputs]:

    embed [vocab, width]   positions [context, width]   types [width]   embed_norm.w/b   norm.w/b   head.w/b
    L.attn_norm.w/b   L.q.w/b L.k.w/b L.v.w/b L.o.w/b   L.q_norm.w L.k_norm.w   L.post_attn_norm.w/b
    L.mlp_norm.w/b    L.gate.w/b L.up.w/b L.down.w/b    L.post_mlp_norm.w/b
    L.router.w        L.E.gate.w L.E.up.w L.E.down.w    (experts)

Queries carry the factor of the scores (1/sqrt(head size)); rotary rows are in halves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
SILU = "mul x sigmoid x"
GELU = "mul mul 0.5 x add 1.0 erf mul 0.7071067811865476 x"
GELU_TANH = "mul mul 0.5 x add 1.0 tanh mul 0.7978845608028654 add x mul 0.044715 mul x mul x x"
ACTIVATIONS = {
    "silu": SILU, "swish": SILU, "gelu": GELU, "gelu_new": GELU_TANH, "gelu_pytorch_tanh": GELU_TANH,
    "gelu_fast": GELU_TANH, "relu": "max 0.0 x",
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """What a language model computes.

    `rotary` is the number of rotated elements of a head (0: none).  `post_norm`: norms behind the sums (BERT);
    `parallel`: attention and feed-forward read one norm (Phi); `sandwich`: norms before and behind each part (Gemma).
    `windows` holds each layer's reach in tokens (0: all).  `caps` bounds scores and logits by cap * tanh(x / cap).
    """

    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    ffn: int
    vocab: int
    context: int
    norm: str = "rms"  # rms or layer
    epsilon: float = 1e-5
    activation: str = SILU
    gated: bool = True
    rotary: int = 0
    theta: float = 10000.0
    local_theta: float = 0.0  # of layers with a window, where it differs
    rates: tuple[float, ...] = ()  # of the rotated pairs, where they are not theta's own (stretched contexts)
    turn_gain: float = 1.0  # of rotated elements
    learned_positions: bool = False
    causal: bool = True
    post_norm: bool = False
    parallel: bool = False
    sandwich: bool = False
    final_norm: bool = True
    qk_norm: bool = False
    embed_scale: float = 1.0
    windows: tuple[int, ...] = ()
    caps: tuple[float, float] = (0.0, 0.0)
    experts: int = 0
    active: int = 0
    tied: bool = False

    @property
    def groups(self) -> int:
        """Query heads that share one head of keys and values."""
        return self.heads // self.kv_heads

    def window(self, layer: int) -> int:
        """A layer's reach; 0 for all tokens."""
        return self.windows[layer] if self.windows else 0


@dataclass(frozen=True)
class LanguageModel:
    """A description and its float32 weights; the token that begins a text, and those that end one."""

    name: str
    arch: Architecture
    weights: Mapping[str, Array]
    begin: int = 0
    ends: tuple[int, ...] = ()

    @property
    def parameters(self) -> int:
        """Elements of all weights; a tied head counts once."""
        return sum(int(a.size) for n, a in self.weights.items() if not (self.arch.tied and n == "head.w"))


def halves(matrix: Array, heads: int) -> Array:
    """Rows [heads * size, ..] whose rotary pairs are neighbours, with the pairs as halves of each head."""
    size = matrix.shape[0] // heads
    order = np.concatenate([np.arange(0, size, 2), np.arange(1, size, 2)])
    return matrix.reshape(heads, size, *matrix.shape[1:])[:, order].reshape(matrix.shape)


def scaled_queries(model: LanguageModel, factor: float) -> LanguageModel:
    """The scores' factor in the query weights, or in the queries' norm where there is one."""
    names = [n for n in model.weights if n.split(".")[1:2] == (["q_norm"] if model.arch.qk_norm else ["q"])]
    changed = {n: (model.weights[n] * np.float32(factor)).astype(np.float32) for n in names}
    return replace(model, weights={**model.weights, **changed})


def rotations(arch: Architecture, positions: Array, *, local: bool = False) -> tuple[Array, Array]:
    """(cos, signed sin) [positions, rotary]: x * cos + swapped halves of x * sin is the rotated x."""
    half, theta = arch.rotary // 2, (arch.local_theta or arch.theta) if local else arch.theta
    rates = theta ** (-np.arange(half, dtype=np.float64) * 2 / arch.rotary)
    if arch.rates and not (local and arch.local_theta):
        rates = np.asarray(arch.rates)
    angle = np.asarray(positions, np.float64)[:, None] * rates
    cos, sin = np.cos(angle) * arch.turn_gain, np.sin(angle) * arch.turn_gain
    return (
        np.concatenate([cos, cos], -1).astype(np.float32),
        np.concatenate([-sin, sin], -1).astype(np.float32),
    )
