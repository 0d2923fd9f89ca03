"""The ledger as one self-contained page: a plot a claim, and two sliders that move its points over a computed grid."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from insitu.base.errors import InsituError
from insitu.base.metrics import Metric
from insitu.cost.book import Book, Fact
from insitu.plan.claims import COMPUTED
from insitu.plan.ledger import SHARE, Finding

FACTORS = tuple(10.0 ** (k / 5.0) for k in range(-5, 6))  # a tenth to ten times a lever, what a slider goes through
WIDTH, ROW, LEFT = 640.0, 22.0, 10.0
TONES = {"holds": "yes", "holds only if": "some", "does not hold": "no", "not known": "none"}


def page(findings: Sequence[Finding], figures: Sequence[Metric], book: Book) -> str:
    """HTML with inline drawings, one short script and no request."""
    cards = "\n".join(_card(found, book) for found in findings)
    rows = "".join(_anchor(m) for m in figures)
    counts = ", ".join(
        f"{sum(f.verdict == v for f in findings)} {v}" for v in TONES if any(f.verdict == v for f in findings)
    )
    return _template().substitute(cards=cards, anchors=rows, counts=escape(counts))


@cache
def _template() -> Any:
    from string import Template

    return Template((files("insitu.plan") / "claims.html").read_text(encoding="utf-8"))


def _anchor(metric: Metric) -> str:
    value = "not known" if metric.value is None else f"{metric.value:.4g} {metric.unit}"
    return f"<tr><th>{escape(metric.name)}</th><td>{escape(value)}</td><td>{escape(metric.note)}</td></tr>"


def _card(found: Finding, book: Book) -> str:
    claim = found.claim
    grid = _grid(found, book)
    ways = "".join(f"<li>{escape(way)}</li>" for way in found.would_hold_if)
    facts = "".join(
        f"<tr><th>{escape(f.name)}</th><td>{_number(f.value)} {escape(f.unit)}</td><td>{escape(f.date)}</td>"
        f"<td>{_kind(f)}</td><td>{escape(f.source)}</td></tr>"
        for f in found.rests_on
    )
    return (
        f'<section class="{TONES[found.verdict]}" id="{escape(claim.id)}"><h2>{escape(claim.statement)}</h2>'
        f'<p class="verdict">{escape(found.verdict)}</p><p>{escape(claim.meaning)}</p>'
        f"{_plot(found)}{_sliders(grid)}"
        f"{f'<p>It would hold:</p><ul>{ways}</ul>' if ways else ''}"
        f"<details><summary>{len(found.rests_on)} facts it rests on</summary><table>{facts}</table></details>"
        f'<script type="application/json">{json.dumps(grid)}</script></section>'
    )


def _kind(fact: Fact) -> str:
    return "assumed" if fact.assumed else "opened" if fact.verified else "as remembered"


def _grid(found: Finding, book: Book) -> dict[str, Any]:
    """What the sliders need: the points over the grid of two levers that weigh, and the axis of the plot."""
    low, high = _span(found)
    base = {"low": low, "high": high, "at_least": found.claim.at_least, "at_most": found.claim.at_most}
    names = _weighing(found, book)
    values = [[list(_at(found, book, names, (a, b))) for b in _steps(names, 1)] for a in _steps(names, 0)]
    levers = [{"name": n, "unit": book.fact(n).unit, "now": book.fact(n).at("typical")} for n in names]
    return {**base, "levers": levers, "factors": [float(f"{f:.6g}") for f in FACTORS], "values": values}


def _steps(names: Sequence[str], place: int) -> tuple[float, ...]:
    return FACTORS if place < len(names) else (1.0,)


def _weighing(found: Finding, book: Book) -> list[str]:
    """The first two levers that move a point."""
    moved: list[str] = []
    for name in found.claim.levers:
        if not found.points or not book.fact(name).at("typical"):
            continue
        after = _at(found, book, [name], (FACTORS[3],))
        if any(
            v is None or not math.isclose(v, p.value, rel_tol=1e-6) for v, p in zip(after, found.points, strict=True)
        ):
            moved.append(name)
    return moved[:2]


def _at(found: Finding, book: Book, names: Sequence[str], factors: Sequence[float]) -> list[float | None]:
    """The points with levers turned; None where that makes no sense."""
    turned = book.for_case("typical")
    for name, factor in zip(names, factors, strict=False):
        value = (book.fact(name).at("typical") or 0.0) * factor
        if book.fact(name).unit == SHARE and value > 1.0:
            return [None] * len(found.points)
        turned = turned.with_value(name, value)
    try:
        points = COMPUTED[found.claim.id](turned)
    except (InsituError, ZeroDivisionError):
        return [None] * len(found.points)
    return [float(f"{p.value:.4g}") if p.value > 0 and math.isfinite(p.value) else None for p in points]


def _span(found: Finding) -> tuple[float, float]:
    """Powers of ten around all points, the range and the bounds."""
    given = [p.value for p in found.points] + list(found.range or ())
    given += [b for b in (found.claim.at_least, found.claim.at_most) if b is not None]
    logs = [math.log10(v) for v in given if v > 0]
    if not logs:
        return -1.0, 1.0
    return math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1)


def _plot(found: Finding) -> str:
    """Points on a logarithmic line, the range behind them, the bounds as a band."""
    if not found.points or found.range is None:
        return "<p>not known</p>"
    low, high = _span(found)
    height = ROW * 2 * len(found.points) + 30

    def x(value: float) -> float:
        share = (math.log10(value) - low) / (high - low) if value > 0 else 0.0
        return LEFT + (WIDTH - 2 * LEFT) * min(max(share, 0.0), 1.0)

    claim = found.claim
    left = LEFT if claim.at_least is None else x(claim.at_least)
    right = WIDTH - LEFT if claim.at_most is None else x(claim.at_most)
    parts = [f'<rect class="band" x="{left:.1f}" y="0" width="{max(right - left, 1):.1f}" height="{height - 20:.0f}"/>']
    for power in range(int(low), int(high) + 1, max(1, int((high - low) // 8))):
        at = x(10.0**power)
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="0" x2="{at:.1f}" y2="{height - 20:.0f}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{height - 6:.0f}">{_number(10.0**power)}</text>')
    for i, point in enumerate(found.points):
        y = ROW * (2 * i + 1)
        words = f"{point.label}: {_number(point.value)} {claim.unit}"
        parts.append(f'<text class="label" x="{LEFT}" y="{y - 6:.0f}">{escape(words)}</text>')
        parts.append(f'<circle class="point" cx="{x(point.value):.1f}" cy="{y + 7:.0f}" r="6"/>')
    reach = " to ".join(_number(v) for v in found.range)
    note = f"Holds: {claim.bounds()} {claim.unit}. Floor to pessimistic, all conditions: {reach}."
    head = f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(claim.statement)}">'
    return f'{head}{"".join(parts)}</svg><p class="note">{escape(note)}</p>'


def _sliders(grid: dict[str, Any]) -> str:
    middle = len(FACTORS) // 2
    return "".join(
        f"<label>{escape(lever['name'])} <output>{_number(lever['now'])} {escape(lever['unit'])}</output>"
        f'<input type="range" min="0" max="{len(FACTORS) - 1}" value="{middle}" step="0.1"></label>'
        for lever in grid["levers"]
    )


def _number(value: float | None) -> str:
    return (
        "not known" if value is None else f"{value:,.3g}" if 1e-3 <= abs(value) < 1e6 or not value else f"{value:.3g}"
    )
