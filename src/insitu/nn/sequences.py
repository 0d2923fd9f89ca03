"""Chip layers with several products inside: attention, LSTM and GRU; what lies between the products stays torch's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from insitu.nn.functional import Setting
from insitu.nn.layers import ChipLayer


def rows_of(setting: Setting, start: int, stop: int) -> Setting:
    """The setting of some outputs of a parameter whose outputs come first."""
    step = setting.step if setting.step.shape[0] == 1 else setting.step[start:stop]
    shift = None if setting.shift is None else setting.shift[start:stop]
    y = setting.y if setting.y is None or setting.y.scales is None else None
    return replace(
        setting, shape=(stop - start, *setting.shape[1:]), step=step, unit=setting.unit[start:stop],
        read=setting.read[start:stop], shift=shift, y=y,
        absent=((0, stop - start),) if any(a <= start and stop <= b for a, b in setting.absent) else (),
    )  # fmt: skip


class MultiheadAttention(ChipLayer):
    """torch.nn.MultiheadAttention: its projections are chip layers; scores and weights are products of activations."""

    def forward(
        self: Any, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """As torch's own, batches of sequences only."""
        projections = self._projections()
        odd = self.bias_k is not None or self.add_zero_attn or query.dim() != 3
        if projections is None or odd:
            return super().forward(
                query, key, value, key_padding_mask=key_padding_mask, need_weights=need_weights, attn_mask=attn_mask,
                average_attn_weights=average_attn_weights, is_causal=is_causal,
            )  # fmt: skip
        given = [t if self.batch_first else t.transpose(0, 1) for t in (query, key, value)]
        q, k, v = (
            self._projected(s, x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, (s, w, b) in zip(given, projections, strict=True)
        )
        mask = _mask(attn_mask, key_padding_mask, q, self.num_heads)
        weights = torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5 + mask, -1)
        if self.dropout and self.training:
            weights = F.dropout(weights, self.dropout)
        out = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        seen = None if not need_weights else weights.mean(1) if average_attn_weights else weights
        return (out if self.batch_first else out.transpose(0, 1)), seen

    def _projected(self: Any, setting: Setting, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        """One projection; in floats where the network has its results as constants, of a memory that is a parameter."""
        if setting.nowhere:
            return F.linear(x, w, b)
        return self.chip_product(setting, x, w, b, F.linear)

    def _projections(self: Any) -> list[tuple[Setting, Tensor, Tensor | None]] | None:
        """(setting, weight, bias) of query, key and value; none where the chip has not got them."""
        size = self.embed_dim
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.split(size)
        if self._qkv_same_embed_dim:
            whole = self.chip_setting("in_proj_weight")
            if whole is None:
                return None
            parts = [rows_of(whole, i * size, (i + 1) * size) for i in range(3)]
            return list(zip(parts, self.in_proj_weight.split(size), biases, strict=True))
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        settings = [self.chip_setting(n) for n in names]
        if any(s is None for s in settings):
            return None
        return [(s, getattr(self, n), b) for s, n, b in zip(settings, names, biases, strict=True)]


def _mask(mask: Tensor | None, padding: Tensor | None, q: Tensor, heads: int) -> Tensor:
    """What is added to scores [N, heads, L, S]; true in a mask of truth values is what is not looked at."""
    total = q.new_zeros(())
    for given, shaped in ((mask, _per_head), (padding, _per_key)):
        if given is None:
            continue
        added = (
            torch.zeros_like(given, dtype=q.dtype).masked_fill(given, -torch.inf)
            if given.dtype == torch.bool
            else given
        )
        total = total + shaped(added, heads)
    return total


def _per_head(mask: Tensor, heads: int) -> Tensor:
    return mask if mask.dim() == 2 else mask.unflatten(0, (-1, heads))


def _per_key(padding: Tensor, heads: int) -> Tensor:
    return padding[:, None, None, :]


class Recurrent(ChipLayer):
    """torch.nn.LSTM and GRU on batches of sequences: two products a step, gates in between."""

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        """As torch's own."""
        settings = [self.chip_setting(n) for n, p in self.named_parameters() if p.dim() == 2]
        odd = not isinstance(input, Tensor) or input.dim() != 3 or getattr(self, "proj_size", 0) > 0
        if odd or not settings or any(s is None for s in settings):
            return super().forward(input, hx)
        x = input if not self.batch_first else input.transpose(0, 1)
        ways, lstm = 2 if self.bidirectional else 1, self.mode == "LSTM"
        zeros = x.new_zeros(self.num_layers * ways, x.shape[1], self.hidden_size)
        h0, c0 = (hx if lstm else (hx, zeros)) if hx is not None else (zeros, zeros)
        ends: list[tuple[Tensor, Tensor]] = []
        for layer in range(self.num_layers):
            made: list[Tensor] = []
            for way in range(ways):
                at = layer * ways + way
                suffix = f"_l{layer}" + ("_reverse" if way else "")
                steps, end = self._way(x if not way else x.flip(0), suffix, h0[at], c0[at], _lstm if lstm else _gru)
                made.append(steps if not way else steps.flip(0))
                ends.append(end)
            x = torch.cat(made, -1)
            if self.dropout and self.training and layer + 1 < self.num_layers:
                x = F.dropout(x, self.dropout)
        last = tuple(torch.stack(parts) for parts in zip(*ends, strict=True))
        return (x if not self.batch_first else x.transpose(0, 1)), (last if lstm else last[0])

    def _way(
        self: Any, x: Tensor, suffix: str, h: Tensor, c: Tensor, cell: Callable[..., tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # fmt: skip
        """One layer in one direction over x [T, N, in]: (outputs, last states)."""
        biased = self.bias

        def product(kind: str, given: Tensor) -> Tensor:
            name, bias = f"weight_{kind}{suffix}", getattr(self, f"bias_{kind}{suffix}") if biased else None
            return self.chip_product(self.chip_setting(name), given, getattr(self, name), bias, F.linear)

        inputs, made = product("ih", x), list[Tensor]()
        for step in inputs:
            h, c = cell(step, product("hh", h), h, c)
            made.append(h)
        return torch.stack(made), (h, c)


def _lstm(inner: Tensor, hidden: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (inner + hidden).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(inner: Tensor, hidden: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    (ir, iz, inn), (hr, hz, hn) = inner.chunk(3, -1), hidden.chunk(3, -1)
    r, z = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
    new = torch.tanh(inn + r * hn)
    return (1 - z) * new + z * h, c
