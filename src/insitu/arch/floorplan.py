"""A chip's floorplan in proportion to its areas, and where its area, its power and its errors come from.

Blocks stand beside each other as strips, as wide as their share of the die; where they lie on a real die is not known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape
from textwrap import wrap
from typing import Any

from insitu.arch.cost import area, area_breakdown, source_of
from insitu.arch.spec import Chip
from insitu.arch.thermal import junction, peak_parts, peak_watts, power_density
from insitu.base.metrics import Metric
from insitu.base.units import format_quantity
from insitu.circuit.effects import chip_effects, missing_effects

WIDTH, HEIGHT, MOST_MACROS = 64, 6, 1024
LETTERS = "#=+~:o%*x-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COLORS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#eeca3b", "#9d755d")
FROM: Mapping[str, tuple[str, ...]] = {
    "programming_noise": ("cell.law", "cell.programming"), "stuck_cells": ("cell.stuck",),
    "drift": ("cell.law", "cell.drift"), "retention": ("cell.retention",), "temperature": ("cell.activation",),
    "column_gain": ("physics.column_gain",), "column_offset": ("physics.column_offset",), "ir_drop": ("physics.wires",),
    "dac_nonlinearity": ("physics.dac",), "read_noise": ("cell.law", "cell.read_sd"), "thermal_noise": ("cell.noise",),
    "shot_noise": ("cell.noise",), "flicker_noise": ("cell.noise",), "telegraph_noise": ("cell.noise",),
    "adc_noise": ("physics.adc_noise",), "adc_offset": ("physics.adc",), "adc_gain": ("physics.adc",),
    "adc_inl": ("physics.adc",),
}  # fmt: skip


def plan_json(chip: Chip) -> dict[str, Any]:
    """Blocks with mm2 and share, power at the peak rate by component, effects, each with its source."""
    watts = peak_watts(chip)
    density = power_density(chip, watts)
    return {
        "blocks": [{**_row(m, "mm2", 1e6), "share": share} for m, share in _shares(area_breakdown(chip))],
        "die_mm2": None if (whole := area(chip).value) is None else whole * 1e6,
        "power": [{**_row(m, "w", 1.0), "share": share} for m, share in _shares(peak_parts(chip))],
        "peak_w": watts,
        "w_per_cm2": None if density is None else density * 1e-4,
        "junction_k": junction(chip, watts).to_json(),
        "effects": [{"name": name, "source": effect_source(chip, name)} for name in chip_effects(chip)],
        "no_constants_for": list(missing_effects(chip)),
    }


def plan_text(chip: Chip) -> str:
    """The floorplan and the three breakdowns as plain text, ending in a newline."""
    return "\n".join(_lines(chip)) + "\n"


def plan_svg(chip: Chip) -> str:
    """The floorplan as an SVG drawing: blocks with areas, a grid of macros, cores or tiles; power and errors below."""
    shares = _shares(area_breakdown(chip))
    side, top = 640.0, 40.0
    parts = [f'<text x="10" y="24">{escape(chip.name)}: {escape(_die(chip))}</text>']
    x = 10.0
    for i, (metric, share) in enumerate(shares):
        width, words = side * share, f"{metric.name}: {_mm2(metric)}, {100 * share:.1f} % of the blocks"
        color = COLORS[i % len(COLORS)]
        parts.append(_rect(x, top, width, side * 0.6, color, words))
        if metric.name == "macros":
            parts += _grid(chip, x, top, width, side * 0.6)
        parts.append(_text(i, words, top + side * 0.6, color))
        x += width
    said = _said(chip)
    parts += [_text(len(shares) + 1 + i, words, top + side * 0.6) for i, words in enumerate(said)]
    height = top + side * 0.6 + 36 + 18 * (len(shares) + len(said))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side + 20:.0f} {height:.0f}" font-family="sans-serif"'
    )
    return f'{head} font-size="13">\n' + "\n".join(parts) + "\n</svg>\n"


def _text(line: int, words: str, top: float, color: str = "#555") -> str:
    return f'<text x="10" y="{top + 24 + 18 * line:.0f}" fill="{color}">{escape(words)}</text>'


def _said(chip: Chip) -> list[str]:
    """Beneath the drawing: where power and errors come from."""
    watts = peak_watts(chip)
    parts = [f"{m.name} {100 * share:.0f} %" for m, share in _shares(peak_parts(chip))[:6]]
    errors = ", ".join(name.replace("_", " ") for name in chip_effects(chip)) or "none, digital"
    lines = [f"power at the peak rate: {format_quantity(watts, 'W')}, of it {', '.join(parts)}", f"errors: {errors}"]
    return [line for text in lines for line in wrap(text, 92)]


def effect_source(chip: Chip, effect: str) -> str:
    """Where the constants of an effect come from."""
    for path in FROM[effect]:
        level, _, key = path.partition(".")
        text = chip.cell.sources.get(key) if level == "cell" else source_of(chip, path)
        if text and not (level == "cell" and getattr(chip.cell, key, None) is None):
            return text
    return "no source given"


def _lines(chip: Chip) -> Iterator[str]:
    shares, watts = _shares(area_breakdown(chip)), peak_watts(chip)
    yield f"floorplan, in proportion ({_die(chip)})"
    strip = "".join(LETTERS[i % len(LETTERS)] * n for i, n in enumerate(_widths([s for _, s in shares])))
    yield f"  +{'-' * len(strip)}+"
    yield from [f"  |{strip}|"] * HEIGHT
    yield f"  +{'-' * len(strip)}+"
    for i, (metric, share) in enumerate(shares):
        yield f"  {LETTERS[i % len(LETTERS)]} {_share(metric, _mm2(metric), share)}"
    yield f"power at the peak rate: {format_quantity(watts, 'W')}"
    for metric, share in _shares(peak_parts(chip)):
        yield f"    {_share(metric, format_quantity(metric.value, 'W'), share)}"
    heat, density = junction(chip, watts), power_density(chip, watts)
    dense = "" if density is None else f", {density * 1e-4:.3g} W/cm2"
    yield f"cells at that power: {format_quantity(heat.value, 'K')}{dense} ({heat.note})"
    yield "errors come from" if chip_effects(chip) else "errors: none, digital"
    for name in chip_effects(chip):
        yield f"    {name:<20}{effect_source(chip, name)}"
    if chip_effects(chip):
        yield f"    no constants for: {', '.join(missing_effects(chip))}"


def _share(metric: Metric, value: str, share: float) -> str:
    return f"{metric.name:<18}{value:>12}{100 * share:6.1f} %  {metric.source}: {metric.note}"


def _shares(parts: Mapping[str, Metric]) -> list[tuple[Metric, float]]:
    """Parts above zero, the largest first, with their share of the sum."""
    known = sorted((m for m in parts.values() if m.value), key=lambda m: -(m.value or 0.0))
    total = math.fsum(m.value or 0.0 for m in known)
    named = {id(m): name for name, m in parts.items()}
    return [(Metric(named[id(m)], m.value, m.unit, m.source, m.note), (m.value or 0.0) / total) for m in known]


def _widths(shares: list[float]) -> list[int]:
    """Characters of each strip, at least one."""
    return [max(1, round(WIDTH * share)) for share in shares]


def _row(metric: Metric, unit: str, scale: float) -> dict[str, Any]:
    value = None if metric.value is None else metric.value * scale
    return {"name": metric.name, unit: value, "source": metric.source, "note": metric.note}


def _mm2(metric: Metric) -> str:
    return format_quantity(metric.value, "m2")


def _die(chip: Chip) -> str:
    whole = area(chip)
    count = f"{chip.macros} macros" if chip.macros > 1 else "one macro"
    return f"die {_mm2(whole)}, {whole.source}; {count}"


def _rect(x: float, y: float, width: float, height: float, color: str, title: str) -> str:
    place = f'x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"'
    return f'<rect {place} fill="{color}" stroke="#fff"><title>{escape(title)}</title></rect>'


def _grid(chip: Chip, x: float, y: float, width: float, height: float) -> list[str]:
    """Lines between macros, or between cores or tiles where macros are too many to see; arrays of a single one."""
    counts = (chip.macros, chip.cores, chip.chip.tiles)
    count = next((n for n in counts if n <= MOST_MACROS), 1)
    if width < 8:
        return []
    across = max(1, round(math.sqrt(count * width / height)))
    down = -(-count // across) * (chip.macro.arrays if chip.macros == 1 else 1)
    lines = [(x + width * i / across, y, x + width * i / across, y + height) for i in range(1, across)]
    lines += [(x, y + height * i / down, x + width, y + height * i / down) for i in range(1, down)]
    return [
        f'<line x1="{a:.2f}" y1="{b:.2f}" x2="{c:.2f}" y2="{d:.2f}" stroke="#fff" stroke-width="0.5"/>'
        for a, b, c, d in lines
    ]
