"""How much of the signal survives, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

from insitu.report.diagnose import broken_layer
from insitu.report.figures.svg import Axis, Figure, axis_lines, dot, line, rect, row_name, svg, text, ticks
from insitu.report.result import LayerResult, Result, finite

ROW = 20
HEAD = 6
MAX_ROWS = 32


def layer_sqnr(result: Result) -> Figure | None:
    """Cumulative and local signal to noise of every layer; the one that broke the network stands out."""
    known = [layer for layer in result.layers if _values(layer)]
    if not known:
        return None
    metric = result.metrics.get("sqnr_db")
    source = metric.source if metric else "modelled"
    broken = result.extra.get("broken_layer") or broken_layer(result.layers)
    shown = _worst(known, broken)
    top = max(v for layer in shown for v in _values(layer))
    axis = Axis(min(0.0, *(v for layer in shown for v in _values(layer))), max(10.0, top * 1.04))
    bottom = HEAD + ROW * len(shown)
    parts = axis_lines(axis, HEAD, bottom, [(v, f"{v:.0f}") for v in ticks(axis.lo, axis.hi, about=5)])
    for i, layer in enumerate(shown):
        parts += _row(axis, layer, HEAD + i * ROW, layer.name == broken)
    note = f"The {len(shown)} of the {len(known)} layers that keep least." if len(shown) < len(known) else ""
    return Figure(
        "sqnr", "Signal kept, layer by layer", "dB, signal to quantization noise; more is better", source,
        svg(parts, bottom + 22, label="Signal to quantization noise of every layer"), note=note,
        legend=(("dot", "the layer alone (local)"), ("dot hollow", "everything up to it (cumulative)")),
        origin_key="sqnr_db",
    )  # fmt: skip


def _values(layer: LayerResult) -> list[float]:
    return [v for v in (finite(layer.sqnr_db), finite(layer.sqnr_local_db)) if v is not None]


def _worst(layers: Sequence[LayerResult], broken: str | None) -> list[LayerResult]:
    if len(layers) <= MAX_ROWS:
        return list(layers)
    order = sorted(range(len(layers)), key=lambda i: (layers[i].name != broken, min(_values(layers[i]))))
    return [layers[i] for i in sorted(order[:MAX_ROWS])]


def _row(axis: Axis, layer: LayerResult, y: float, broken: bool) -> list[str]:
    middle = y + ROW / 2
    local, total = finite(layer.sqnr_local_db), finite(layer.sqnr_db)
    parts = [rect(0, y, 100, ROW, style="alarm", round_=3)] if broken else []
    parts.append(row_name(middle + 4, layer.name, style="name bad" if broken else "name"))
    if local is not None and total is not None:
        parts.append(line(axis.at(local), middle, axis.at(total), middle, style="link"))
    if total is not None:
        parts.append(
            dot(axis.at(total), middle, 4, style="dot hollow", title=f"{layer.name}: {total:.1f} dB up to here")
        )
    if local is not None:
        style = "dot bad" if broken else "dot"
        parts.append(dot(axis.at(local), middle, 4, style=style, title=f"{layer.name}: {local:.1f} dB alone"))
    if broken:
        parts.append(text(98, middle + 4, "breaks here", style="t bad strong", anchor="end", dx=-4))
    return parts
