"""Which layer broke a network, and which single change would help most: rules over a Result, no simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from insitu.report.result import LayerResult, Result, finite
from insitu.report.text import component_name, percent

COLLAPSED_DB = 10.0  # a healthy 8-bit layer has 15 dB or more; one with a scale 64 times off keeps at most about 9 dB
GAP_DB = 10.0  # how far below the network's good layers a collapsed one must lie
NEAR_WORST_DB = 6.0
TOO_WIDE, TOO_NARROW = 16.0, 1 / 4  # range ratios; right ones were 0.6 to 7, those of scales 64 times off beyond these
HEALTHY_DB = 20.0  # stands for "the others" in a network of so few layers that the collapse reaches most of them


def broken_layer(layers: Sequence[LayerResult]) -> str | None:
    """The layer whose own output scale broke the network; None for a network that is healthy, or evenly poor.

    A wrong output scale shows in the layer's range: its codes express far more, or far less, than the layer puts out.
    The culprit is the first layer nearly as far off as the farthest, where its range is 16 times too wide or 4 times
    too narrow and its local SQNR is poor.

    Where ranges are not known, a layer is collapsed whose local SQNR is below 10 dB and 10 dB below the upper quartile
    of all layers; the culprit is the first that is within 6 dB of the worst one, or the start of the run of collapsed
    layers that leads there, since a wrong scale spoils every layer that reads it.  Without local values the cumulative
    ones must do.
    """
    by_range = _out_of_range(layers)
    if by_range is not None:
        return by_range
    if layers and all(layer.range_ratio is not None for layer in layers):
        return None
    local = [_decibels(layer.sqnr_local_db) for layer in layers]
    if not any(value is not None for value in local):
        return _fall(layers)
    collapsed = _collapsed(local)
    if not any(collapsed):
        return None
    worst = min(value for value, bad in zip(local, collapsed, strict=True) if bad and value is not None)
    start = next(i for i, value in enumerate(local) if collapsed[i] and (value or 0.0) <= worst + NEAR_WORST_DB)
    while start > 0 and collapsed[start - 1]:
        start -= 1
    return layers[start].name


def _out_of_range(layers: Sequence[LayerResult]) -> str | None:
    """The first of the layers whose codes express far more or far less than they need."""
    off = {
        layer.name: abs(math.log2(ratio))
        for layer in layers
        if (ratio := layer.range_ratio) and not TOO_NARROW < ratio < TOO_WIDE
        if (_decibels(layer.sqnr_local_db) or 0.0) < HEALTHY_DB
    }
    worst = max(off.values(), default=0.0)
    return next((name for name, octaves in off.items() if octaves >= worst - 2.0), None)


def _collapsed(local: Sequence[float | None]) -> list[bool]:
    known = sorted(value for value in local if value is not None)
    good = known[(3 * (len(known) - 1) + 3) // 4]  # upper quartile, rounded up
    if len(known) <= 3:
        good = max(good, HEALTHY_DB)
    return [value is not None and value < COLLAPSED_DB and good - value > GAP_DB for value in local]


def _fall(layers: Sequence[LayerResult]) -> str | None:
    """The first layer whose cumulative SQNR falls from a healthy level to a collapsed one."""
    before: list[float] = []
    for layer in layers:
        value = _decibels(layer.sqnr_db)
        if value is None:
            continue
        level = median(before) if before else HEALTHY_DB
        if value < COLLAPSED_DB and level - value > GAP_DB:
            return layer.name
        before.append(value)
    return None


def _decibels(value: float | None) -> float | None:
    """A ratio; an exact layer (infinity) counts as 99 dB, NaN (an output that is always zero) as not known."""
    return 99.0 if value == math.inf else finite(value)


def broken_text(result: Result) -> str | None:
    """One sentence that names the broken layer and shows by how much it stands apart."""
    name = result.extra.get("broken_layer") or broken_layer(result.layers)
    layer = next((layer for layer in result.layers if layer.name == name), None)
    if layer is None:
        return None
    others = [v for o in result.layers if o is not layer and (v := finite(o.sqnr_local_db)) is not None]
    local = finite(layer.sqnr_local_db)
    text = f"Layer {layer.name} ({layer.op}) breaks the network"
    if local is not None and others:
        text += f": its own output keeps {local:.1f} dB, the other layers {median(others):.0f} dB (median)"
    return f"{text}. Check the scale of its output."


def best_change(result: Result) -> str | None:
    """The single change that would help most, with what it is worth; None where nothing is known."""
    given = result.extra.get("best_change")
    if given:
        return str(given)
    if result.bit_exact and result.bit_exact.mismatches:
        return "none before the mismatch is understood: the numbers below are not trustworthy"
    name = result.extra.get("broken_layer") or broken_layer(result.layers)
    if name:
        return f"repair the output scale of layer {name}"
    given = result.extra.get("accuracy_change")
    return str(given) if given else _energy_change(result) or _latency_change(result)


def energy_shares(result: Result) -> list[tuple[str, float, float]]:
    """(component, joules, share of their sum), largest first."""
    parts = {
        name.removeprefix("energy_breakdown.").removesuffix("_j"): value
        for name in result.metrics
        if name.startswith("energy_breakdown.") and (value := result.value(name)) is not None
    }
    total = math.fsum(parts.values())
    if total <= 0.0:
        return []
    return [(name, joules, joules / total) for name, joules in sorted(parts.items(), key=lambda e: (-e[1], e[0]))]


def _energy_change(result: Result) -> str | None:
    shares = energy_shares(result)
    if not shares or shares[0][2] < 0.3:
        return None
    name, _, share = shares[0]
    return f"half the energy of {component_name(name)} ({percent(share)} of all) saves {percent(share / 2)}"


def _latency_change(result: Result) -> str | None:
    timed = [(value, layer.name) for layer in result.layers if (value := finite(layer.latency_s)) is not None]
    total = math.fsum(value for value, _ in timed)
    if total <= 0.0:
        return None
    longest, name = max(timed)
    share = longest / total
    return f"layer {name} takes {percent(share)} of the layers' time: twice as fast there saves {percent(share / 2)}"
