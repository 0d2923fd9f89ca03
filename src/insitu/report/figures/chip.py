"""The chip in space and time: where weights lie on the macros, which unit works when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from insitu.report.figures.svg import Axis, Figure, axis_lines, box, line, rect, row_name, svg, text, ticks
from insitu.report.result import Result
from insitu.report.text import quantity

MAX_MACROS = 32
MAX_RECTS = 500
MAX_SPANS = 600
MAX_UNITS = 24
ROW = 24


def floorplan(result: Result) -> Figure | None:
    """Every macro as a rectangle of columns and rows, with the weights that lie on it."""
    shape, rects = result.extra.get("macros"), result.extra.get("floorplan", ())
    if not shape or not rects:
        return None
    macros = sorted({int(r["macro"]) for r in rects})
    shown = macros[:MAX_MACROS]
    colors = {name: i % 7 for i, name in enumerate(dict.fromkeys(str(r["label"]) for r in rects))}
    across = 1 if len(shown) == 1 else 2 if len(shown) <= 4 else 4
    height = {1: 380, 2: 200, 4: 104}[across]
    parts: list[str] = []
    for i, macro in enumerate(shown):
        mine = [r for r in rects if int(r["macro"]) == macro][: MAX_RECTS // len(shown) + 1]
        place = ((i % across) * 100.0 / across, (i // across) * (height + 34.0))
        parts += _macro(macro, mine, shape, colors, place, (100.0 / across - (0 if across == 1 else 1.6), height))
    rows = -(-len(shown) // across)
    size = f"{int(shape['columns']):,} columns x {int(shape['rows']):,} rows"
    more = f"{len(shown)} of the {len(macros)} macros in use. " if len(macros) > len(shown) else ""
    total = shape.get("count")
    of = f"{len(macros)} of {int(total)} macros hold weights. " if total and int(total) > 1 else ""
    return Figure(
        "floorplan", "Where the weights lie", f"array cells; a macro has {size}", "modelled",
        svg(parts, rows * (height + 34.0), label="Floorplan of the macros"),
        note=f"{of}{more}Row 0 is at the top, column 0 at the left.", origin_key="array_utilization",
    )  # fmt: skip


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
    parts = [rect(0, 0, 100, tall, style=f"block b{colors[name]}", title=words)]
    if tall >= 12 and width >= 12:
        parts.append(text(0, min(tall / 2 + 4, 15), name, style="label", dx=5))
    return box(x, y, max(width, 0.4), max(tall, 1.5), parts)


def timeline(result: Result) -> Figure | None:
    """Which unit works on what, when, during one inference."""
    spans = list(result.extra.get("timeline", ()))[:MAX_SPANS]
    if not spans:
        return None
    units = list(dict.fromkeys(str(s["unit"]) for s in spans))[:MAX_UNITS]
    colors = {name: i % 7 for i, name in enumerate(dict.fromkeys(str(s["label"]) for s in spans))}
    end = max(float(s["end_s"]) for s in spans) or 1.0
    axis = Axis(0.0, end, left=22.0, right=99.0)
    bottom = ROW * len(units) + 4.0
    marks = [(value, quantity(value, "s")) for value in ticks(0.0, end, about=3)]
    parts = axis_lines(axis, 0, bottom, marks)
    parts += [row_name(ROW * i + 16, unit) for i, unit in enumerate(units)]
    for span in spans:
        if str(span["unit"]) in units:
            parts.append(_span(span, axis, ROW * units.index(str(span["unit"])), colors))
    return Figure(
        "timeline", "One inference in time", "seconds from the start; one row per unit", "modelled",
        svg(parts, bottom + 22, label="Timeline of one inference"), origin_key="latency_s", wide=True,
        note="Neighbouring work on one layer is drawn as one span; the full trace is in the run folder.",
    )  # fmt: skip


def _span(span: Mapping[str, Any], axis: Axis, y: float, colors: Mapping[str, int]) -> str:
    start, end = float(span["start_s"]), float(span["end_s"])
    words = f"{span['label']}: {quantity(start, 's')} to {quantity(end, 's')}"
    x = axis.at(start)
    width = max(axis.at(end) - x, 0.15)
    parts = [rect(0, 0, 100, ROW - 6, style=f"block b{colors[str(span['label'])]}", title=words)]
    if width > 7:
        parts.append(text(0, 13, str(span["label"]), style="label", dx=4))
    return box(x, y + 3, width, ROW - 6, parts)
