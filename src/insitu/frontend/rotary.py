"""Rotary positions of models stretched to longer contexts: the rates of rotated pairs, as Hugging Face names them.

Sources: linear (position interpolation, arXiv 2306.15595), llama3 (Llama 3.1's config), yarn (arXiv 2309.00071),
longrope (arXiv 2402.13753).  "dynamic" changes nothing within the trained context, beyond which nothing runs here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Rates = npt.NDArray[np.float64]
KINDS = ("default", "dynamic", "linear", "llama3", "yarn", "longrope")


def stretched(kind: str, rope: Mapping[str, Any], theta: float, rotary: int, context: int) -> tuple[Rates, float]:
    """(radians a token of each pair, gain of rotated elements); KeyError, TypeError, ValueError for broken settings."""
    rates = theta ** (-np.arange(rotary // 2, dtype=np.float64) * 2 / rotary)
    if kind == "linear":
        return rates / float(rope["factor"]), 1.0
    if kind == "llama3":
        return _llama3(rates, rope), 1.0
    if kind == "yarn":
        return _yarn(rates, rope, theta, rotary, context)
    if kind == "longrope":
        return _long(rates, rope, context)
    return rates, 1.0


def _llama3(rates: Rates, rope: Mapping[str, Any]) -> Rates:
    """Only slow pairs are stretched, with a ramp between."""
    names = ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    factor, old, low, high = (float(rope[n]) for n in names)
    turns = old * rates / (2 * np.pi)  # in the old context
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return rates * (blend + (1 - blend) / factor)


def _yarn(rates: Rates, rope: Mapping[str, Any], theta: float, rotary: int, context: int) -> tuple[Rates, float]:
    """Pairs that turn fewer than beta_slow times in the old context are stretched; scores get a gain."""
    old = float(rope.get("original_max_position_embeddings") or context)
    factor = float(rope["factor"])
    ends = [rotary * math.log(old / (float(rope.get(n) or turns) * 2 * math.pi)) / (2 * math.log(theta))
            for n, turns in (("beta_fast", 32.0), ("beta_slow", 1.0))]  # fmt: skip
    if rope.get("truncate", True):
        ends = [math.floor(ends[0]), math.ceil(ends[1])]
    low, high = max(ends[0], 0.0), min(ends[1], rotary - 1.0)
    ramp = np.clip((np.arange(rotary // 2) - low) / max(high - low, 1e-3), 0.0, 1.0)
    return rates * (1 - ramp) + rates / factor * ramp, _yarn_gain(rope, factor)


def _yarn_gain(rope: Mapping[str, Any], factor: float) -> float:
    """The root of the scores' temperature; with `mscale` the ratio of two."""
    given = rope.get("attention_factor")
    if given is not None:
        return float(given)
    gain = lambda m: 0.1 * m * math.log(factor) + 1.0 if factor > 1 else 1.0  # noqa: E731
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return float(gain(float(rope["mscale"])) / gain(float(rope["mscale_all_dim"])))
    return float(gain(1.0))


def _long(rates: Rates, rope: Mapping[str, Any], context: int) -> tuple[Rates, float]:
    """A factor for each pair: the short ones, since nothing runs here beyond the old context."""
    old = float(rope.get("original_max_position_embeddings") or context)
    factor = float(rope.get("factor") or context / old)
    given = rope.get("attention_factor")
    gain = float(given) if given is not None else math.sqrt(1 + math.log(factor) / math.log(old)) if factor > 1 else 1.0
    short = np.asarray([float(v) for v in rope["short_factor"]])
    if short.shape != rates.shape:
        raise ValueError(f"{len(short)} short factors for {len(rates)} pairs")
    return rates / short, gain
