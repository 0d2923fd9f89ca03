"""Accuracy: one dot per chip instance, and which classes are taken for which."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from insitu.report.figures.svg import Anchor, Axis, Figure, axis_lines, box, dot, line, rect, row_name, svg, text, ticks
from insitu.report.result import AccuracyPoint, Result
from insitu.report.text import percent, time_label

ROW = 40
HEAD = 46
MAX_CLASSES = 32
MAX_WRITTEN = 14  # classes up to which the cells carry their numbers


def accuracy_instances(result: Result) -> Figure | None:
    """Every chip instance at every time, beside the float and the quantized network."""
    rows = [(time_label(point.time_s), point, "dot") for point in result.accuracy_over if point.values]
    rows += [(f"{time_label(p.time_s)}, raw", p, "dot hollow") for p in uncalibrated(result, "uncalibrated")]
    if not rows:
        return None
    lines = [("float", result.value("accuracy_float")), ("quantized", result.value("accuracy_quantized"))]
    known = [(name, value) for name, value in lines if value is not None]
    axis = _range([v for _, p, _ in rows for v in p.values] + [value for _, value in known])
    bottom = HEAD + len(rows) * ROW
    marks = ticks(axis.lo, axis.hi, about=4)
    parts = axis_lines(axis, HEAD - 4, bottom, [(value, f"{100 * value:.3g} %") for value in marks])
    for i, (name, value) in enumerate(known):
        parts += _reference(axis, name, value, 12 + 16 * i, bottom)
    for i, (name, point, style) in enumerate(rows):
        parts += instances(axis, name, point, style, HEAD + i * ROW, shown=lambda v: percent(v, 2))
    return Figure(
        "accuracy", "Accuracy over chip instances", "share of samples answered correctly",
        _origin(result), svg(parts, bottom + 22, label="Accuracy of every chip instance"),
        legend=legend(rows), note=_join(result.data_note, still(result.accuracy_over)), origin_key="accuracy_chip_mean",
    )  # fmt: skip


def uncalibrated(result: Result, key: str) -> list[AccuracyPoint]:
    """The points of a run without the chip's own procedures."""
    given = result.extra.get(key, ())
    return [AccuracyPoint(float(p["time_s"]), tuple(p["values"])) for p in given if p["values"]]


def legend(rows: Sequence[tuple[str, AccuracyPoint, str]]) -> tuple[tuple[str, str], ...]:
    """What the marks of instances are."""
    raw = [("dot hollow", "without the chip's calibration")] if any("hollow" in style for _, _, style in rows) else []
    return (("dot", "one chip instance"), ("mean", "mean of the instances"), *raw)


def still(points: Sequence[AccuracyPoint]) -> str:
    """Why a time shows what an earlier one does."""
    return next((point.note for point in points if point.note), "")


def _origin(result: Result) -> str:
    metric = result.metrics.get("accuracy_chip_mean")
    return metric.source if metric else "modelled"


def _range(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    pad = max(0.12 * (high - low), 0.005)
    return Axis(max(0.0, low - pad), min(1.0, high + pad), left=24.0, right=93.0)


def _reference(axis: Axis, name: str, value: float, y: float, bottom: float) -> list[str]:
    x = axis.at(value)
    side: Anchor = "end" if x > 60 else "start"
    words = f"{name} {percent(value)}"
    return [
        line(x, y + 4, x, bottom, style=f"ref {name}"),
        text(x, y, words, style=f"tick strong {name}", anchor=side, dx=4 if side == "start" else 3),
    ]


def instances(
    axis: Axis, name: str, point: AccuracyPoint, style: str, y: float, *, shown: Callable[[float], str]
) -> list[str]:
    """A row of instances with their mean; `shown` writes a value where the pointer rests."""
    middle = y + ROW / 2
    parts = [row_name(middle + 4, name, style="t")]
    for i, value in enumerate(point.values):
        if not math.isfinite(value):  # no difference at all, in dB
            continue
        shift = (i % 3 - 1) * 6.5
        parts.append(dot(axis.at(value), middle + shift, 4.5, style=style, title=f"chip {i}: {shown(value)}"))
    if point.mean is not None and math.isfinite(point.mean):
        x = axis.at(point.mean)
        parts.append(line(x, middle - 14, x, middle + 14, style="mean"))
    return parts


def confusion(result: Result) -> Figure | None:
    """Rows are the truth, columns the answers; a cell is the share of its row."""
    given = result.extra.get("confusion")
    if not given or not 2 <= len(given["labels"]) <= MAX_CLASSES:
        return None
    labels, counts = [str(name) for name in given["labels"]], given["counts"]
    size = 25.0 if len(labels) <= MAX_WRITTEN else 14.0
    left, head = 22.0, 62.0
    step = (100.0 - left) / len(labels)
    parts = [_column_name(left + (i + 0.5) * step, head - 6, name) for i, name in enumerate(labels)]
    for i, name in enumerate(labels):
        y = head + i * size
        parts.append(text(left, y + size / 2 + 4, name, style="name", anchor="end", dx=-8))
        parts += _cells(labels, i, counts[i], left=left, step=step, y=y, size=size)
    return Figure(
        "confusion", "What is taken for what", "percent of the samples of a row; rows truth, columns answers",
        _origin(result), svg(parts, head + len(labels) * size + 2, label="Confusion matrix"),
        note=_join(str(given.get("over", "")), result.data_note), origin_key="accuracy_chip_mean",
    )  # fmt: skip


def _join(*words: str) -> str:
    return "; ".join(word for word in words if word)


def _column_name(x: float, y: float, name: str) -> str:
    turned = f'<text class="name" transform="rotate(-52)">{_escaped(name)}</text>'
    return box(x, y, 1, 1, [turned], clip=False)


def _escaped(name: str) -> str:
    from html import escape

    return escape(name[:12])


def _cells(
    labels: Sequence[str], row: int, counts: Sequence[Any], *, left: float, step: float, y: float, size: float
) -> list[str]:
    total = math.fsum(float(c) for c in counts)
    parts: list[str] = []
    for j, got in enumerate(counts):
        share = float(got) / total if total else 0.0
        level = min(9, math.ceil(9 * math.sqrt(share))) if share else 0
        kind = ("heat ok" if row == j else "heat off") + f" h{level}"
        title = f"{labels[row]} taken for {labels[j]}: {float(got):,.0f} of {total:,.0f}"
        parts.append(rect(left + j * step + 0.15, y, step - 0.3, size - 2, style=kind, title=title))
        if share >= 0.005 and len(labels) <= MAX_WRITTEN:
            ink = "cell over" if level > 6 else "cell"
            parts.append(
                text(left + (j + 0.5) * step, y + size / 2 + 3, f"{100 * share:.0f}", style=ink, anchor="middle")
            )
    return parts
