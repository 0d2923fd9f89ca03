"""Channels of a language model brought to one size where that costs nothing: the float network stays what it is.

Keys, values and the product in a gated feed-forward have one scale for all channels on a chip.  Dividing a channel in
the weights in front and multiplying it in those behind evens their ranges out: keys against queries (both elements of
a rotated pair alike, for rotation mixes them), values against the output projection, `up` against `down`.

Caches of few bits hold keys and values less the middle of their channel's range.  That is exact too: a vector taken
off all keys moves all scores of a query alike, which no softmax sees; shares sum to 1, so what values lose comes back
behind the output projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from insitu.frontend.language import Architecture, Array, LanguageModel
from insitu.frontend.language_graph import text_graph
from insitu.graph.export import float_session

Floats = npt.NDArray[np.float64]
FULL = 0.97  # of a power of two that peaks are brought to
LEAST = 1e-3  # of a group's largest channel: fainter ones are not raised further
SHARE = 0.5  # of the ranges' spread that weights behind a product take over


def smoothed(model: LanguageModel, ids: Array, *, centered: bool = False) -> LanguageModel:
    """The model with even channels, as texts `ids` (samples, tokens) show them; `centered` for caches of few bits."""
    arch, ranges = model.arch, _ranges(model, ids)
    peaks = {n: np.maximum(-low, high) for n, (low, high) in ranges.items()}
    weights = dict(model.weights)
    for layer in range(arch.layers):
        at = f"{layer}."
        if centered:
            peaks |= {f"{at}{n}": (ranges[f"{at}{n}"][1] - ranges[f"{at}{n}"][0]) / 2 for n in "kv"}
            _center_values(weights, arch, at, *ranges[f"{at}v"])
        keys = _even_keys(weights, arch, at, peaks[f"{at}k"])
        if centered:
            weights[f"{at}k_center"] = (sum(ranges[f"{at}k"]) / 2 / keys).astype(np.float32)
        _even_values(weights, arch, at, peaks[f"{at}v"])
        for part in _gated(arch, at):
            _even_product(weights, part, peaks[f"{part}gated"])
    return replace(model, weights=weights)


def _center_values(weights: dict[str, Array], arch: Architecture, at: str, low: Floats, high: Floats) -> None:
    middle = (low + high) / 2
    given, out = weights.get(f"{at}v.b", np.zeros(middle.size)), weights[f"{at}o.w"].astype(np.float64)
    back = np.repeat(middle, arch.groups, axis=0).reshape(-1) @ out
    weights[f"{at}v.b"] = (given - middle.reshape(-1)).astype(np.float32)
    weights[f"{at}o.b"] = (weights.get(f"{at}o.b", np.zeros(out.shape[1])) + back).astype(np.float32)


def _gated(arch: Architecture, at: str) -> list[str]:
    if not arch.gated:
        return []
    return [f"{at}{e}." for e in range(arch.experts)] or [at]


def _ranges(model: LanguageModel, ids: Array) -> dict[str, tuple[Floats, Floats]]:
    """Lowest and highest value of each channel of keys, values and products."""
    graph, arch = text_graph(model, ids.shape[1]), model.arch
    values = {n.name: n.output for n in graph.nodes}
    wanted: dict[str, str] = {}
    for layer in range(arch.layers):
        at = f"{layer}."
        rotated = f"{at}k_joined" if f"{at}k_joined" in values else f"{at}k_rotated"
        plain = f"{at}k_norm.scaled" if arch.qk_norm else f"{at}k_heads"
        wanted[f"{at}k"] = values[rotated if arch.rotary else plain]
        wanted[f"{at}v"] = values[f"{at}v_heads"]
        wanted |= {f"{part}gated": values[f"{part}gated"] for part in _gated(arch, at)}
    seen = float_session(graph, expose=sorted(set(wanted.values())))({"ids": ids[:, None, :].astype(np.int64)})
    return {name: _range(seen[value].astype(np.float64)) for name, value in wanted.items()}


def _range(value: Floats) -> tuple[Floats, Floats]:
    """Over samples, batch and tokens."""
    return value.min(axis=(0, 1, 2)), value.max(axis=(0, 1, 2))


def _factors(peak: Floats) -> Floats:
    """Divisors that bring channels to the largest one's size."""
    top = peak.max()
    return np.maximum(peak, LEAST * top) / top if top > 0 else np.ones_like(peak)


def _round(top: float) -> float:
    """A divisor that brings a peak just below a power of two, where steps that are powers of two lose no range."""
    return float(top / (FULL * 2.0 ** np.round(np.log2(top)))) if top > 0 else 1.0


def _even_keys(weights: dict[str, Array], arch: Architecture, at: str, peak: Floats) -> Floats:
    """`peak` [kv heads, size] -> divisors; one for a rotated pair, and for all heads where a norm's scale is shared."""
    half = arch.rotary // 2
    if half:
        pair = np.maximum(peak[:, :half], peak[:, half : 2 * half])
        peak = np.concatenate([pair, pair, peak[:, 2 * half :]], axis=1)
    if arch.qk_norm:
        shared = _factors(peak.max(axis=0)) * _round(peak.max())
        _scale(weights, f"{at}k_norm.w", 1 / shared)
        _scale(weights, f"{at}q_norm.w", shared)
        return shared
    keys = _factors(peak) * _round(peak.max())
    for end in ("w", "b"):
        _scale(weights, f"{at}k.{end}", 1 / keys.reshape(-1))
        _scale(weights, f"{at}q.{end}", np.repeat(keys, arch.groups, axis=0).reshape(-1))
    return keys


def _even_values(weights: dict[str, Array], arch: Architecture, at: str, peak: Floats) -> None:
    values = _factors(peak) * _round(peak.max())
    for end in ("w", "b"):
        _scale(weights, f"{at}v.{end}", 1 / values.reshape(-1))
    _scale(weights, f"{at}o.w", np.repeat(values, arch.groups, axis=0).reshape(-1)[:, None])


def _even_product(weights: dict[str, Array], at: str, peak: Floats) -> None:
    """Products get even to SHARE, so that single rows of the weights behind do not grow too far."""
    rows = np.abs(weights[f"{at}down.w"]).max(axis=1)
    factors = _factors(peak) ** SHARE / np.maximum(_factors(rows.astype(np.float64)), LEAST) ** (1 - SHARE)
    factors = factors * _round(float((peak / factors).max()))
    for end in ("w", "b"):
        _scale(weights, f"{at}up.{end}", 1 / factors)
    _scale(weights, f"{at}down.w", factors[:, None])


def _scale(weights: Mapping[str, Array] | dict[str, Array], name: str, factors: Floats) -> None:
    if name in weights:
        weights[name] = (weights[name] * factors).astype(np.float32)  # pyright: ignore[reportIndexIssue]
