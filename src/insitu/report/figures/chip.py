"""The chip in space and time: where weights lie on the macros, which unit works when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from insitu.report.figures.svg import GUTTER, Axis, Figure, axis_lines, box, line, rect, row_name, svg, text, ticks
from insitu.report.result import Result
from insitu.report.text import quantity, short_name

MAX_MACROS = 16
MAX_RECTS = 300
MAX_SPANS = 240
MAX_UNITS = 24
MAX_NAMED = 16
LABEL = 1.1  # percent of a phone-wide macro that a character takes, halved
ROW = 24

SAMPLED = "Drawn in equal slices of time, each with the layer that takes most of it."


@dataclass(frozen=True)
class Span:
    """Work of one unit on one layer, in seconds from the start of the inference."""

    unit: str
    label: str
    start: float
    end: float


def span_of(given: Mapping[str, Any]) -> Span:
    """A span of `Result.extra["timeline"]`."""
    return Span(str(given["unit"]), str(given["label"]), float(given["start_s"]), float(given["end_s"]))


def floorplan(result: Result) -> Figure | None:
    """Every macro as a rectangle of columns and rows, with the weights that lie on it."""
    shape, rects = result.extra.get("macros"), result.extra.get("floorplan", ())
    if not shape or not rects:
        return None
    macros = sorted({int(r["macro"]) for r in rects})
    shown = macros[:MAX_MACROS]
    colors = {name: i % 7 for i, name in enumerate(dict.fromkeys(str(r["label"]) for r in rects))}
    across = 1 if len(shown) == 1 else 2 if len(shown) <= 4 else 4
    height = {1: 320, 2: 200, 4: 104}[across]
    parts: list[str] = []
    for i, macro in enumerate(shown):
        mine = sorted((r for r in rects if int(r["macro"]) == macro), key=lambda r: -int(r["w"]) * int(r["h"]))
        mine = mine[: MAX_RECTS // len(shown) + 1]
        place = ((i % across) * 100.0 / across, (i // across) * (height + 34.0))
        parts += _macro(macro, mine, shape, colors, place, (100.0 / across - (0 if across == 1 else 1.6), height))
    rows = -(-len(shown) // across)
    size = f"{int(shape['columns']):,} columns x {int(shape['rows']):,} rows"
    more = f"The first {len(shown)} of them are shown. " if len(macros) > len(shown) else ""
    total = shape.get("count")
    of = f"{len(macros)} of {int(total)} macros hold weights. " if total and int(total) > 1 else ""
    return Figure(
        "floorplan", "Where the weights lie", f"array cells; a macro has {size}", _source(result),
        svg(parts, rows * (height + 34.0), label="Floorplan of the macros"),
        legend=(*_kept_free(shape), *((f"block b{c}", short_name(n, 28)) for n, c in list(colors.items())[:MAX_NAMED])),
        note=f"{of}{more}Row 0 is at the top, column 0 at the left.", origin_key="array_utilization",
    )  # fmt: skip


def _kept_free(shape: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return (("reserved", "reserved columns"),) if shape.get("reserved_columns") else ()


def _source(result: Result) -> str:
    metric = result.metrics.get("array_utilization")
    return metric.source if metric else "measured"


def _macro(
    macro: int, rects: Sequence[Mapping[str, Any]], shape: Mapping[str, Any], colors: Mapping[str, int],
    place: tuple[float, float], size: tuple[float, float],
) -> list[str]:  # fmt: skip
    columns, rows = float(shape["columns"]), float(shape["rows"])
    (x, y), (width, height) = place, size
    inner = [rect(0, 0, 100, height, style="track")]
    reserved = float(shape.get("reserved_columns", 0) or 0)
    if reserved:
        inner.append(
            rect(0, 0, 100 * reserved / columns, height, style="reserved", title=f"{reserved:.0f} reserved columns")
        )
    inner += [_block(r, columns, rows, height, colors) for r in rects]
    inner += [line(0, height * b / rows, 100, height * b / rows, style="border") for b in shape.get("borders", ())]
    return [text(x, y + 13, f"macro {macro}", style="tick"), box(x, y + 20, width, height, inner)]


def _block(r: Mapping[str, Any], columns: float, rows: float, height: float, colors: Mapping[str, int]) -> str:
    x, width = 100 * float(r["x"]) / columns, 100 * float(r["w"]) / columns
    y, tall = height * float(r["y"]) / rows, height * float(r["h"]) / rows
    name = str(r["label"])
    words = (
        f"{name}: columns {r['x']} to {int(r['x']) + int(r['w']) - 1}, rows {r['y']} to {int(r['y']) + int(r['h']) - 1}"
    )
    style = f"block b{colors[name]}"
    if tall < 14 or width < 2 * len(name) * LABEL:
        return rect(x, y, max(width, 0.4), max(tall, 1.5), style=style, title=words)
    label = text(0, min(tall / 2 + 4, 15), name, style="label", dx=5)
    return box(x, y, width, tall, [rect(0, 0, 100, tall, style=style, title=words), label])


def timeline(result: Result) -> Figure | None:
    """Which unit works on what, when, during one inference."""
    given = [span_of(s) for s in result.extra.get("timeline", ())]
    if not given:
        return None
    units = list(dict.fromkeys(span.unit for span in given))[:MAX_UNITS]
    spans = coarse(given, units)
    colors = {name: i % 7 for i, name in enumerate(dict.fromkeys(span.label for span in given))}
    end = max(span.end for span in given) or 1.0
    axis = Axis(0.0, end, left=GUTTER * 0.7, right=98.0)
    bottom = ROW * len(units) + 4.0
    marks = [(value, quantity(value, "s")) for value in ticks(0.0, end, about=3)]
    parts = axis_lines(axis, 0, bottom, marks)
    parts += [row_name(ROW * i + 16, unit) for i, unit in enumerate(units)]
    parts += [_span(span, axis, ROW * units.index(span.unit), colors) for span in spans]
    return Figure(
        "timeline", "One inference in time", "seconds from the start; one row per unit", "modelled",
        svg(parts, bottom + 22, label="Timeline of one inference"), origin_key="latency_s", wide=True,
        note=SAMPLED if len(spans) < len(given) else "",
    )  # fmt: skip


def _span(span: Span, axis: Axis, y: float, colors: Mapping[str, int]) -> str:
    words = f"{short_name(span.label, 40)}: {quantity(span.start, 's')} to {quantity(span.end, 's')}"
    x = axis.at(span.start)
    width = max(axis.at(span.end) - x, 0.15)
    style = f"block b{colors[span.label]}"
    if width <= 7:
        return rect(x, y + 3, width, ROW - 6, style=style, title=words)
    label = text(0, 13, span.label.rpartition("/")[2], style="label", dx=4)
    return box(x, y + 3, width, ROW - 6, [rect(0, 0, 100, ROW - 6, style=style, title=words), label])


def coarse(spans: Sequence[Span], units: Sequence[str], *, limit: int = MAX_SPANS) -> list[Span]:
    """At most `limit` spans of these units; too many become equal slices of time, each with its longest work."""
    mine = [span for span in spans if span.unit in set(units)]
    if len(mine) <= limit:
        return mine
    slices = max(1, limit // len(units))
    step = max(span.end for span in mine) / slices
    busy: dict[tuple[str, int], dict[str, float]] = {}
    for span in mine:
        for i in range(int(span.start / step), min(slices - 1, int(span.end / step)) + 1):
            part = min(span.end, (i + 1) * step) - max(span.start, i * step)
            work = busy.setdefault((span.unit, i), {})
            work[span.label] = work.get(span.label, 0.0) + part
    found = [(unit, i, max(sorted(work), key=work.__getitem__)) for (unit, i), work in sorted(busy.items())]
    return _joined([Span(unit, label, i * step, (i + 1) * step) for unit, i, label in found], step)


def _joined(spans: Sequence[Span], step: float) -> list[Span]:
    """Neighbouring slices of one unit and label as one span."""
    joined: list[Span] = []
    for span in spans:
        last = joined[-1] if joined else None
        if last and (last.unit, last.label) == (span.unit, span.label) and span.start - last.end < step / 2:
            joined[-1] = Span(last.unit, last.label, last.start, span.end)
        else:
            joined.append(span)
    return joined
