"""SVG pieces.  Across the page positions are percent of the width and down the page pixels, so text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from insitu.report.text import short_name

Anchor = Literal["start", "middle", "end"]
GUTTER = 34.0  # percent of the width that names of rows take
NARROW, WIDE = 15, 22  # characters of a row's name on a phone and on a desk
SERIES = 8  # colours s0 .. s7 of the style sheet; the last is grey, for the rest


@dataclass(frozen=True)
class Figure:
    """One figure: its words are set by the page, so that they wrap; `origin` is the metric its numbers come from."""

    key: str
    title: str
    unit: str
    origin: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()  # (class of the swatch, words)
    note: str = ""
    origin_key: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Axis:
    """Values lo..hi to percent of the width between `left` and `right`."""

    lo: float
    hi: float
    left: float = GUTTER
    right: float = 98.0

    def at(self, value: float) -> float:
        part = (value - self.lo) / ((self.hi - self.lo) or 1.0)
        return self.left + (self.right - self.left) * min(max(part, 0.0), 1.0)


def number(value: float) -> str:
    """A coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def svg(parts: Iterable[str], height: float, *, label: str) -> str:
    """The drawing as wide as its place, `height` pixels high; `label` is what a screen reader says."""
    body = "".join(parts)
    name = escape(label, quote=True)
    return f'<svg class="fig" role="img" aria-label="{name}" width="100%" height="{number(height)}">{body}</svg>'


def _titled(tag: str, attributes: str, title: str) -> str:
    return f"<{tag} {attributes}><title>{escape(title)}</title></{tag}>" if title else f"<{tag} {attributes}/>"


def rect(x: float, y: float, width: float, height: float, *, style: str, title: str = "", round_: float = 0) -> str:
    """A rectangle; x and width in percent."""
    corner = f' rx="{number(round_)}"' if round_ else ""
    box = f'x="{number(x)}%" y="{number(y)}" width="{number(max(width, 0.0))}%" height="{number(height)}"'
    return _titled("rect", f'class="{style}" {box}{corner}', title)


def line(x1: float, y1: float, x2: float, y2: float, *, style: str) -> str:
    """A line; x1 and x2 in percent."""
    ends = f'x1="{number(x1)}%" y1="{number(y1)}" x2="{number(x2)}%" y2="{number(y2)}"'
    return f'<line class="{style}" {ends}/>'


def dot(x: float, y: float, radius: float, *, style: str, title: str = "") -> str:
    """A circle at x percent."""
    return _titled("circle", f'class="{style}" cx="{number(x)}%" cy="{number(y)}" r="{number(radius)}"', title)


def text(x: float, y: float, words: str, *, style: str = "t", anchor: Anchor = "start", dx: float = 0) -> str:
    """A line of text at x percent plus dx pixels."""
    place = f'x="{number(x)}%" y="{number(y)}"' + (f' dx="{number(dx)}"' if dx else "")
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{style}" {place}{side}>{escape(words)}</text>'


def row_name(y: float, name: str, *, style: str = "name") -> str:
    """The name of a row in the gutter: shorter on a phone, whole in the hover title."""
    title = f"<title>{escape(name)}</title>"
    if len(name.strip("/")) <= NARROW:
        return text(0, y, name.strip("/"), style=style)
    variants = (("narrow", short_name(name, NARROW)), ("wide", short_name(name, WIDE)))
    shown = (f'<text class="{style} {kind}" x="0" y="{number(y)}">{escape(words)}</text>' for kind, words in variants)
    return f"<g>{title}{''.join(shown)}</g>"


def box(x: float, y: float, width: float, height: float, parts: Iterable[str], *, clip: bool = True) -> str:
    """A drawing inside the drawing; x and width in percent of the outer one, percent inside are of its own width."""
    overflow = "hidden" if clip else "visible"
    place = f'x="{number(x)}%" y="{number(y)}" width="{number(width)}%" height="{number(height)}"'
    return f'<svg {place} overflow="{overflow}">{"".join(parts)}</svg>'


def ticks(lo: float, hi: float, *, about: int = 5) -> list[float]:
    """Round numbers from lo to hi."""
    span = hi - lo
    if span <= 0 or not math.isfinite(span):
        return [lo]
    raw = span / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * (1 - 1e-9))
    first = math.ceil(lo / step - 1e-9)
    return [i * step for i in range(first, math.floor(hi / step + 1e-9) + 1)]


def axis_lines(axis: Axis, top: float, bottom: float, labels: Sequence[tuple[float, str]]) -> list[str]:
    """Vertical grid lines with their numbers below."""
    parts: list[str] = []
    for value, words in labels:
        x = axis.at(value)
        parts += [line(x, top, x, bottom, style="grid"), text(x, bottom + 15, words, style="tick", anchor="middle")]
    return parts
