"""Published compute-in-memory and near-memory systems for language models, recomputed from their own parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from insitu.base.yaml import parse_yaml
from insitu.cost.machines import load_machine
from insitu.llm.roofline import Serving, decode, prefill
from insitu.llm.shapes import Shape, load_shape
from insitu.llm.software import habits


@dataclass(frozen=True)
class Anchor:
    """One published figure with what its parameters give; `fitted` says what one number was chosen for all."""

    system: str
    name: str
    unit: str
    published: float
    modelled: float
    fitted: str

    @property
    def error(self) -> float:
        """Modelled over published, less 1."""
        return self.modelled / self.published - 1


@cache
def _given() -> dict[str, Any]:
    text = (files("insitu.llm") / "anchors.yaml").read_text("utf-8")
    return parse_yaml(text, label="anchors.yaml").data


def anchors(gpu_factor: float) -> tuple[Anchor, ...]:
    """All of them; `gpu_factor` is that of the GPU rows that are not of the measured layer."""
    return (*pim(), *flash(), *hybrid(), *layer(gpu_factor))


def operations(shape: Shape, keys: float, *, head: bool = True) -> float:
    """Operations of one token with `keys` keys, a multiply-add as two."""
    weights = shape.product_weights - (0 if head else shape.head_weights)
    return 2.0 * (weights + shape.attention_macs(1) * keys)


def pim() -> tuple[Anchor, ...]:
    """CENT: all weights and caches in banks; peak operations times one utilisation."""
    given = _given()["pim"]
    peak = 2 * given["channels_per_device"] * given["banks_per_channel"] * given["macs_per_bank"] * given["bank_clock"]
    into, out = given["prompt"], given["answer"]
    rows: list[tuple[str, float, float]] = []
    for point in given["points"]:
        shape, rate = load_shape(point["model"])[1], peak * point["devices"]
        answer = operations(shape, into + out / 2)
        whole = (into * operations(shape, into / 2, head=False) + out * answer) / (into + out)
        rows += [(f"{point['model']} decode", point["decode"], rate / answer)]
        rows += [(f"{point['model']} end to end", point["end_to_end"], rate / whole)]
    share = _common([(p, m) for _, p, m in rows])
    fitted = f"utilisation {share:.3f}: {given['free']}"
    return tuple(Anchor("CENT", n, "tokens/s", p, m * share, fitted) for n, p, m in rows)


def flash() -> tuple[Anchor, ...]:
    """Cambricon-LLM: every weight read from flash once a token."""
    given = _given()["flash"]
    loads = [load_shape(p["model"])[1].product_weights * given["weight_bits"] / 8 for p in given["points"]]
    rates = [p["rate"] for p in given["points"]]
    bandwidth = _common([(r, 1 / n) for r, n in zip(rates, loads, strict=True)])
    fitted = f"bandwidth {bandwidth / 1e9:.1f} GB/s: {given['free']}"
    return tuple(
        Anchor("Cambricon-LLM", p["model"], "tokens/s", p["rate"], bandwidth / n, fitted)
        for p, n in zip(given["points"], loads, strict=True)
    )


def hybrid() -> tuple[Anchor, ...]:
    """AttAcc: GPUs alone, and with attention and the feed-forward's share in banks, batch 1."""
    g = _given()["hybrid"]
    shape, n = load_shape(g["model"])[1], g["devices"]
    speed = n * g["bandwidth"] * g["utilization"] * g["blocks"]
    feed = shape.layers * shape.feed_weights(0) * 2 / speed
    projections = shape.layers * shape.attention_weights * 2 / speed
    cache = shape.cached_elements * 2 * (g["prompt"] + g["answer"] / 2) / (n * g["bandwidth"] * g["utilization"])
    hop = g["all_reduce"] + g["all_reduce_byte"] * shape.width * 2 / n
    rest = shape.layers * (2 * hop * (n - 1) + 2 * g["norm"] + g["activation"])
    alone = feed + projections + cache + rest
    together = feed / (1 + g["inner_bandwidth"]) + projections + rest  # attention hides behind the projections
    return tuple(
        Anchor("AttAcc", name, "tokens/s", published, 1 / spent, g["free"])
        for name, published, spent in (("GPUs alone", g["gpu_rate"], alone), ("with banks", g["bank_rate"], together))
    )


def layer(factor: float) -> tuple[Anchor, ...]:
    """LLMCompass's measured layer: prefill and decode."""
    g = _given()["layer"]
    shape = load_shape(g["model"])[1].model_copy(update={"layers": 1, "vocab": 1})
    software = habits().classes["operators"]
    serving = replace(Serving(shape, load_machine(g["machine"]), software), count=g["devices"])
    first = prefill(serving, tokens=g["prefill_tokens"], batch=g["batch"]) / factor
    later = decode(serving, keys=g["decode_keys"], batch=g["batch"]) / factor
    return (
        Anchor("LLMCompass", "A100 layer, prefill", "s", g["prefill"], first, g["free"]),
        Anchor("LLMCompass", "A100 layer, decode", "s", g["decode"], later, g["free"]),
    )


def _common(pairs: Sequence[tuple[float, float]]) -> float:
    """The factor with the least largest ratio between published and modelled."""
    logs = np.log([published / modelled for published, modelled in pairs])
    return float(np.exp((logs.max() + logs.min()) / 2))
