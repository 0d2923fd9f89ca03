"""The memory wall to scale: bytes moved and joules of moving beside joules of computing, chip and machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from insitu.report.figures.svg import Figure, rect, svg, text
from insitu.report.result import Result, finite
from insitu.report.text import UNKNOWN, quantity

ROW = 52
BAR = 16
KEYS = (("moving_j", "moving data", "s0"), ("arithmetic_j", "arithmetic", "s2"), ("rest_j", "everything else", "s7"))


def bytes_moved(result: Result) -> Figure | None:
    """One bar a machine, its length the bytes that moved, by memory."""
    rows = list(result.extra.get("baselines", ()))
    if not rows:
        return None
    largest = max(sum(row["bytes_moved"].values()) for row in rows) or 1.0
    body: list[str] = []
    for i, row in enumerate(rows):
        parts = [(name, float(amount), f"s{k % 7}") for k, (name, amount) in enumerate(row["bytes_moved"].items())]
        words = ", ".join(f"{name} {quantity(amount, 'B')}" for name, amount, _ in parts)
        body += _row(i * ROW, str(row["title"]), words, parts, largest, "B")
    note = "Drawn to scale. Reads and writes of every memory; machines keep in the nearest memory what fits there."
    return Figure(
        "bytes-moved", "How many bytes move", "bytes per inference", "modelled",
        svg(body, ROW * len(rows), label="Bytes moved"), note=note, origin_key="energy_j",
    )  # fmt: skip


def memory_wall(result: Result) -> Figure | None:
    """One bar a machine, its length the joules of an inference: moving, arithmetic, the rest."""
    rows = list(result.extra.get("baselines", ()))
    known = [row["energy_j"] for row in rows if finite(row["energy_j"]) is not None]
    if not known:
        return None
    body: list[str] = []
    for i, row in enumerate(rows):
        parts = [(words, float(row[key]), style) for key, words, style in KEYS if finite(row[key]) is not None]
        body += _row(i * ROW, str(row["title"]), _ratio(row), parts, max(known) or 1.0, "J")
    legend = tuple((style, words) for _, words, style in KEYS)
    note = "Drawn to scale. Arithmetic is the bare multiply and add; the rest is control, clocks, leakage and waiting."
    return Figure(
        "memory-wall", "The memory wall", "joules per inference", "modelled",
        svg(body, ROW * len(rows), label="Energy of moving and of arithmetic"), legend, note, "energy_j",
    )  # fmt: skip


def _ratio(row: Mapping[str, Any]) -> str:
    total, moving, arithmetic = (finite(row[key]) for key in ("energy_j", "moving_j", "arithmetic_j"))
    words = UNKNOWN if total is None else quantity(total, "J")
    if moving is None or not arithmetic:
        return words
    return f"{words}; moving {quantity(moving, 'J')}, {moving / arithmetic:.3g} x the arithmetic"


def _row(
    y: float, title: str, words: str, parts: Sequence[tuple[str, float, str]], largest: float, unit: str
) -> list[str]:
    """A name, what it comes to, and a bar whose length is in proportion; a hair's width where it would vanish."""
    body = [text(0, y + 13, title, style="t strong"), text(100, y + 13, words, style="value", anchor="end")]
    body.append(rect(0, y + 20, 100, BAR, style="track", round_=3))
    x = 0.0
    for name, value, style in parts:
        width = 100.0 * max(value, 0.0) / largest
        if value > 0:
            body.append(rect(x, y + 20, width, BAR, style=style, title=f"{name}: {quantity(value, unit)}"))
        x += width
    return [*body, rect(0, y + 20, 0.15, BAR, style="s7")] if x < 0.15 else body
