"""Without labels: how near chips with physics come to the ideal one, instance by instance and over time."""

from __future__ import annotations

import math

from insitu.report.figures.accuracy import HEAD, ROW, instances, legend, still, uncalibrated
from insitu.report.figures.svg import Axis, Figure, axis_lines, svg, ticks
from insitu.report.result import AccuracyPoint, Result
from insitu.report.text import time_label

TOP = HEAD - 32  # no reference lines above the rows


def fidelity_instances(result: Result) -> Figure | None:
    """Signal over the noise of physics, every chip instance at every time; None with labels or nothing finite."""
    rows = [(time_label(p.time_s), p, "dot") for p in result.sqnr_over if _finite(p)]
    raw = uncalibrated(result, "sqnr_uncalibrated")
    rows += [(f"{time_label(p.time_s)}, raw", p, "dot hollow") for p in raw if _finite(p)]
    if result.accuracy_over or not rows:
        return None
    values = [v for _, point, _ in rows for v in _finite(point)]
    pad = max(0.12 * (max(values) - min(values)), 0.5)
    axis, bottom = Axis(min(values) - pad, max(values) + pad, left=24.0, right=93.0), TOP + len(rows) * ROW
    parts = axis_lines(axis, TOP - 4, bottom, [(v, f"{v:.4g} dB") for v in ticks(axis.lo, axis.hi, about=4)])
    for i, (name, point, style) in enumerate(rows):
        parts += instances(axis, name, point, style, TOP + i * ROW, shown=lambda v: f"{v:.4g} dB")
    metric = result.metrics.get("sqnr_chip_mean_db")
    return Figure(
        "fidelity", "How near chips come to the ideal one", "outputs over their difference from the ideal chip's, dB",
        metric.source if metric else "modelled", svg(parts, bottom + 22, label="Fidelity of every chip instance"),
        legend=legend(rows), note="; ".join(filter(None, (result.data_note, still(result.sqnr_over)))),
        origin_key="sqnr_chip_mean_db",
    )  # fmt: skip


def _finite(point: AccuracyPoint) -> list[float]:
    return [value for value in point.values if math.isfinite(value)]
