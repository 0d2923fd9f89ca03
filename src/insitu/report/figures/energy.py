"""Stacked bars: what the energy is spent on, what the memories hold."""

from __future__ import annotations

from collections.abc import Sequence

from insitu.report.diagnose import energy_shares
from insitu.report.figures.svg import SERIES, Figure, rect, svg, text
from insitu.report.result import Result, finite
from insitu.report.text import component_name, percent, quantity

BAR = 30
ROW = 22
MAX_PARTS = 8


def energy_breakdown(result: Result) -> Figure | None:
    """One bar: the energy of an inference by component."""
    shares = energy_shares(result)
    if not shares:
        return None
    parts = [(component_name(name), joules) for name, joules, _ in shares]
    total = sum(joules for _, joules in parts)
    shown = _fold(parts)
    body = [*_bar(shown, total, "J", 0.0), *_list(shown, total, "J", BAR + 14)]
    metric = result.metrics.get("energy_j")
    return Figure(
        "energy", "What the energy is spent on", "joules per inference", metric.source if metric else "modelled",
        svg(body, BAR + 16 + ROW * len(shown), label="Energy by component"), origin_key="energy_j",
    )  # fmt: skip


def memory_use(result: Result) -> Figure | None:
    """One bar per memory: what fills it, and what is left."""
    spaces = [space for space in result.extra.get("memory", ()) if finite(space.get("size"))]
    if not spaces:
        return None
    body: list[str] = []
    y = 0.0
    for space in spaces[:6]:
        used = _fold([(str(part["label"]), float(part["bytes"])) for part in space["used"]])
        taken, size = sum(value for _, value in used), float(space["size"])
        words = f"{quantity(taken, 'B')} of {quantity(size, 'B')} ({percent(taken / size)})"
        body += [
            text(0, y + 13, str(space["space"]), style="t strong"),
            text(100, y + 13, words, style="value", anchor="end"),
        ]
        body += [*_bar(used, max(size, taken), "B", y + 20), *_list(used, size, "B", y + BAR + 34)]
        y += BAR + 48 + ROW * len(used)
    return Figure("memory", "What the memory holds", "bytes", "measured", svg(body, y - 14, label="Memory use"),
                  note="Counted from the compiled program's memory map.", origin_key="program_bytes")  # fmt: skip


def _fold(parts: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The largest parts, the rest as one."""
    ordered = sorted((p for p in parts if p[1] > 0), key=lambda p: (-p[1], p[0]))
    if len(ordered) <= MAX_PARTS:
        return ordered
    rest = ordered[MAX_PARTS - 1 :]
    return [*ordered[: MAX_PARTS - 1], (f"{len(rest)} others", sum(value for _, value in rest))]


def _bar(parts: Sequence[tuple[str, float]], total: float, unit: str, y: float) -> list[str]:
    body = [rect(0, y, 100, BAR, style="track", round_=3)]
    x = 0.0
    for i, (name, value) in enumerate(parts):
        width = 100.0 * value / total if total else 0.0
        title = f"{name}: {quantity(value, unit)}, {percent(value / total if total else 0.0)}"
        body.append(rect(x, y, max(width - 0.25, 0.2), BAR, style=f"s{min(i, SERIES - 1)}", title=title))
        x += width
    return body


def _list(parts: Sequence[tuple[str, float]], total: float, unit: str, y: float) -> list[str]:
    body: list[str] = []
    for i, (name, value) in enumerate(parts):
        line = y + i * ROW
        body += [
            f'<rect class="s{min(i, SERIES - 1)}" x="0" y="{line + 2:g}" width="11" height="11" rx="2"/>',
            text(0, line + 12, name, dx=20),
            text(82, line + 12, quantity(value, unit), style="value", anchor="end"),
            text(100, line + 12, percent(value / total if total else None), style="value soft", anchor="end"),
        ]
    return body
