"""The table for people and the page with the scatter plot of modelled against published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from insitu.report.figures.svg import Axis, dot, line, svg, text
from insitu.validate.compare import Row, report
from insitu.validate.sweeps import sweeps

HEIGHT, SPAN = 420.0, (-0.5, 4.5)  # decades of TOPS/W
COLOURS = {"calibration": "#3b6ea5", "holdout": "#c0504d", "unseen": "#2e8b57"}
STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222;background:#fff}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.25rem .5rem;border-bottom:1px solid #ccc;text-align:left}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}.grid{stroke:#ccc}.one{stroke:#888}"
    ".band{stroke:#bbb;stroke-dasharray:4 4}.tick,.t{font-size:12px;fill:currentColor}"
    + "".join(f".{name}{{fill:{colour};color:{colour}}}" for name, colour in COLOURS.items())
    + "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}"
)


def table(rows: Sequence[Row]) -> str:
    """Plain text: a line a chip and quantity, then what is missing, then the statistics."""
    lines = [f"{'chip':<32} {'split':<12} {'quantity':<11} {'published':>11} {'modelled':>11} {'factor':>7}"]
    lines += [line_ for row in rows for line_ in _lines(row)]
    lines += ["", *_missing(rows), "", *_closing(rows)]
    return "\n".join(lines)


def html(rows: Sequence[Row]) -> str:
    """The page: verdict, scatter plot, table, missing data; no script, no request."""
    closing = "".join(f"<p>{escape(words)}</p>" for words in _closing(rows))
    missing = "".join(f"<li>{escape(words)}</li>" for words in _missing(rows))
    body = "".join(_html_row(row, name) for row in rows for name in row.figures)
    head = "<tr><th>chip<th>split<th>quantity<th>published<th>modelled<th>factor</tr>"
    legend = " ".join(f'<span class="{name}">&#9679; {name}</span>' for name in COLOURS)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Modelled against published silicon</title>'
        f"<style>{STYLE}</style><h1>Modelled against published silicon</h1>{closing}"
        f"<p>TOPS/W, modelled against published, both logarithmic; dashed: a factor of 3. {legend}</p>{scatter(rows)}"
        f"<table>{head}{body}</table><h2>Not enough data</h2><ul>{missing}</ul></html>\n"
    )


def scatter(rows: Sequence[Row], name: str = "tops_per_w") -> str:
    """Modelled against published on logarithmic axes; a point a chip."""
    axis, parts = Axis(*SPAN, left=8.0), list[str]()
    for decade in range(math.ceil(SPAN[0]), math.floor(SPAN[1]) + 1):
        x, y = axis.at(decade), _y(decade)
        parts += [line(x, 0, x, HEIGHT, style="grid"), line(axis.left, y, axis.right, y, style="grid")]
        parts += [text(x, HEIGHT + 16, f"{10**decade:g}", style="tick", anchor="middle")]
        parts += [text(axis.left - 1, y + 4, f"{10**decade:g}", style="tick", anchor="end")]
    for shift, style in ((0.0, "one"), (math.log10(3), "band"), (-math.log10(3), "band")):
        lo, hi = SPAN[0] + max(0.0, -shift), SPAN[1] - max(0.0, shift)
        parts.append(line(axis.at(lo), _y(lo + shift), axis.at(hi), _y(hi + shift), style=style))
    for row in (r for r in rows if name in r.figures):
        figure = row.figures[name]
        x = math.fsum(math.log10(figure.published[p]) for p in figure.modelled) / len(figure.modelled)
        y = x + math.log10(figure.ratio)
        title = f"{row.entry.name}: published {10**x:.3g}, modelled {10**y:.3g}"
        parts.append(dot(axis.at(x), _y(y), 5, style=row.entry.split, title=title))
    return svg(parts, HEIGHT + 24, label="Modelled against published TOPS/W")


def _y(decade: float) -> float:
    return HEIGHT * (SPAN[1] - min(max(decade, SPAN[0]), SPAN[1])) / (SPAN[1] - SPAN[0])


def _lines(row: Row) -> list[str]:
    lines: list[str] = []
    for name, figure in row.figures.items():
        given, found = _mean(figure.published), _mean(figure.modelled)
        more = "" if figure.prediction else "  (the published clock: a consistency check)"
        lines.append(
            f"{row.entry.name:<32} {row.entry.split:<12} {name:<11} {given:>11.4g} {found:>11.4g} {figure.factor:>7.2f}"
            f"{more}"
        )
    return lines


def _mean(values: object) -> float:
    numbers = list(values.values()) if isinstance(values, dict) else [0.0]
    return math.exp(math.fsum(math.log(v) for v in numbers) / len(numbers))


def _missing(rows: Sequence[Row]) -> list[str]:
    lines = [f"{row.entry.name}: not enough data: {', '.join(row.missing)}" for row in rows if row.missing]
    return lines + [f"{row.entry.name}: filled in: {', '.join(row.defaults)}" for row in rows if row.defaults]


def _closing(rows: Sequence[Row]) -> list[str]:
    found = report(rows)["summary"]
    lines: list[str] = []
    for name, splits in found["by_quantity"].items():
        for split, row in splits.items():
            if row["chips"]:
                beyond = f"; beyond 3: {', '.join(row['beyond_3'])}" if row["beyond_3"] else ""
                lines.append(
                    f"{name}, {split}: {row['chips']} chips, median factor {row['median_factor']:.2f}, "
                    f"90 % within {row['p90_factor']:.2f}{beyond}"
                )
    for sweep in sweeps():
        lines.append(
            f"sweep of {sweep.chip}, {sweep.quantity}: {len(sweep.errors)} points, "
            f"{len(sweep.factors)} scale factors on {sweep.fitted_on}, median error {100 * sweep.median_error:.1f} %"
        )
    constants = found["constants"]
    lines.append(
        f"{constants['energy']['fitted']} shared constants of energy fitted on "
        f"{constants['energy']['calibration_rows']} calibration chips, {constants['time']['fitted']} of time on "
        f"{constants['time']['calibration_rows']}: {', '.join(constants['names'])}"
    )
    return lines


def _html_row(row: Row, name: str) -> str:
    figure = row.figures[name]
    numbers = "".join(
        f'<td class="n">{value:.4g}' for value in (_mean(figure.published), _mean(figure.modelled), figure.factor)
    )
    mark = "" if figure.prediction else " *"
    return f"<tr><td>{escape(row.entry.name)}<td>{row.entry.split}<td>{name}{mark}{numbers}</tr>"
