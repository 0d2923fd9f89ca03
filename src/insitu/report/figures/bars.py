"""Bars by row: time and energy of the layers, how busy the units are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from insitu.report.figures.svg import GUTTER, Axis, Figure, rect, row_name, svg, text
from insitu.report.result import LayerResult, Result, finite
from insitu.report.text import percent, quantity

ROW = 22
MAX_ROWS = 24


@dataclass(frozen=True)
class Bar:
    """One row; `words` stands at the end of the bar."""

    name: str
    value: float
    words: str
    style: str = "s0"


def bars(rows: Sequence[Bar], *, label: str, top: float | None = None) -> str:
    """Rows of bars that begin at the gutter; `top` is the value of a full one."""
    axis = Axis(0.0, top or max((row.value for row in rows), default=1.0) or 1.0, right=79.0)
    parts: list[str] = []
    for i, row in enumerate(rows):
        y, end = i * ROW, axis.at(row.value)
        parts += [
            row_name(y + 14, row.name),
            rect(GUTTER, y + 4, axis.right - GUTTER, ROW - 9, style="track", round_=2),
            rect(GUTTER, y + 4, max(end - GUTTER, 0.3), ROW - 9, style=row.style, title=f"{row.name}: {row.words}"),
            text(100, y + 14, row.words, style="value", anchor="end"),
        ]
    return svg(parts, len(rows) * ROW + 2, label=label)


def layer_latency(result: Result) -> Figure | None:
    """Where the time of one inference goes."""
    return _by_layer(
        result, lambda layer: layer.latency_s, key="latency", title="Time by layer", unit="s", style="s0",
        origin_key="latency_s",
    )  # fmt: skip


def layer_energy(result: Result) -> Figure | None:
    """Where the energy of one inference goes, by layer."""
    return _by_layer(
        result, lambda layer: layer.energy_j, key="layer-energy", title="Energy by layer", unit="J", style="s2",
        origin_key="energy_j",
    )  # fmt: skip


def _by_layer(
    result: Result, pick: Callable[[LayerResult], float | None], *, key: str, title: str, unit: str, style: str,
    origin_key: str,
) -> Figure | None:  # fmt: skip
    known = [(layer.name, value) for layer in result.layers if (value := finite(pick(layer))) is not None]
    total = math.fsum(value for _, value in known)
    if not known or total <= 0.0:
        return None
    kept = {name for name, _ in sorted(known, key=lambda e: -e[1])[:MAX_ROWS]} if len(known) > MAX_ROWS else None
    rows = [Bar(n, v, quantity(v, unit), style) for n, v in known if kept is None or n in kept]
    if kept is not None:
        rest = math.fsum(value for name, value in known if name not in kept)
        rows.append(Bar(f"{len(known) - len(kept)} others", 0.0, quantity(rest, unit), "s7"))
    words = "joules" if unit == "J" else "seconds"
    return Figure(
        key, title, f"{words} per inference; layers in execution order", _source(result, origin_key),
        bars(rows, label=f"{title}, {len(known)} layers", top=max(v for _, v in known)), origin_key=origin_key,
        note=f"The {len(known)} layers add up to {quantity(total, unit)}.",
    )  # fmt: skip


def _source(result: Result, name: str) -> str:
    metric = result.metrics.get(name)
    return metric.source if metric else "modelled"


def unit_utilization(result: Result) -> Figure | None:
    """How busy each unit of the chip is during one inference."""
    units = [(str(u["unit"]), value) for u in result.extra.get("utilization", ()) if _known(value := u["busy"])]
    if not units:
        return None
    shown = sorted(units, key=lambda e: -e[1])[:MAX_ROWS]
    rows = [Bar(name, value, percent(value), "s4") for name, value in shown]
    more = f"The {MAX_ROWS} busiest of {len(units)} units." if len(units) > MAX_ROWS else ""
    return Figure(
        "utilization", "How busy the units are", "share of the time of one inference",
        _source(result, "latency_s"), bars(rows, label="Utilization by unit", top=1.0), note=more,
        origin_key="latency_s",
    )  # fmt: skip


def _known(value: float | None) -> bool:
    return finite(value) is not None
