"""The page: verdict, scatter plots of modelled against published, table, and what could not be compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from insitu.report.figures.svg import Axis, dot, line, svg, text
from insitu.validate.compare import Row, report
from insitu.validate.sweeps import sweeps
from insitu.validate.table import NAMES, constants_line, filled_in, mean, missing

HEIGHT = 420.0
SPANS = {"tops_per_w": (-0.5, 4.5), "latency_s": (-9.5, -4.7)}  # decades shown
UNITS = {
    "tops_per_w": ("TOPS/W", 1.0), "latency_s": ("ns", 1e9), "tops": ("TOPS", 1.0), "area_mm2": ("mm2", 1.0),
    "tops_per_mm2": ("TOPS/mm2", 1.0), "power_w": ("W", 1.0),
}  # fmt: skip
COLOURS = {"calibration": "#3b6ea5", "holdout": "#c0504d", "unseen": "#2e8b57"}
BAND = 3.0
STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222;background:#fff}"
    "h2{margin-top:2.5rem}.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}"
    "td,th{padding:.25rem .5rem;border-bottom:1px solid #ccc;text-align:left}th.n{text-align:right}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}tr.far td.f{font-weight:600}"
    ".grid{stroke:#ccc}.one{stroke:#888}.band{stroke:#bbb;stroke-dasharray:4 4}li{margin:.2rem 0}"
    ".tick,.t{font-size:12px;fill:currentColor}.hint{color:#666}"
    + "".join(f".{name}{{fill:{colour};color:{colour}}}" for name, colour in COLOURS.items())
    + "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}.hint{color:#aaa}.grid{stroke:#444}"
    "td,th{border-color:#444}}"
)


def html(rows: Sequence[Row]) -> str:
    """The page: statistics, scatter plots, sweeps, every figure, missing data; no script, no request."""
    summary = report(rows)["summary"]
    shown = {row.entry.split for row in rows}
    legend = " ".join(f'<span class="{name}">&#9679; {name}</span>' for name in COLOURS if name in shown)
    plots = "".join(
        f"<h2>{escape(NAMES[name].capitalize())}, {UNITS[name][0]}</h2>{scatter(rows, name)}" for name in SPANS
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Modelled against published silicon</title><style>{STYLE}</style>"
        f"<h1>Modelled against published silicon</h1><p>{escape(_answer(summary))}</p>{_statistics(summary)}"
        f'<p class="hint">{escape(constants_line(summary["constants"]))}.</p>'
        f"<p>A point is a chip: published across, modelled up, both logarithmic; dashed is a factor of 3. {legend}</p>"
        f"{plots}{_sweeps()}{_figures(rows)}"
        f"<h2>Not enough data</h2>{_list(missing(rows))}"
        f"<h2>Filled in from technology defaults</h2>{_list(filled_in(rows))}</html>\n"
    )


def scatter(rows: Sequence[Row], name: str = "tops_per_w") -> str:
    """Modelled against published on logarithmic axes; a point a chip."""
    span, (unit, scale) = SPANS[name], UNITS[name]
    axis, parts = Axis(*span, left=8.0), list[str]()
    for decade in range(math.ceil(span[0]), math.floor(span[1]) + 1):
        x, y = axis.at(decade), _y(decade, span)
        parts += [line(x, 0, x, HEIGHT, style="grid"), line(axis.left, y, axis.right, y, style="grid")]
        parts += [text(x, HEIGHT + 16, f"{10**decade * scale:g}", style="tick", anchor="middle")]
        parts += [text(axis.left - 1, y + 4, f"{10**decade * scale:g}", style="tick", anchor="end")]
    for shift, style in ((0.0, "one"), (math.log10(BAND), "band"), (-math.log10(BAND), "band")):
        lo, hi = span[0] + max(0.0, -shift), span[1] - max(0.0, shift)
        parts.append(line(axis.at(lo), _y(lo + shift, span), axis.at(hi), _y(hi + shift, span), style=style))
    for row in (r for r in rows if r.entry.measured and name in r.figures and r.figures[name].prediction):
        figure = row.figures[name]
        x = math.log10(mean({p: figure.published[p] for p in figure.modelled}))
        y = x + math.log10(figure.ratio)
        title = f"{row.entry.name}: published {10**x * scale:.3g}, modelled {10**y * scale:.3g} {unit}"
        parts.append(dot(axis.at(x), _y(y, span), 5, style=row.entry.split, title=title))
    return svg(parts, HEIGHT + 24, label=f"Modelled against published {NAMES[name]}")


def _y(decade: float, span: tuple[float, float]) -> float:
    return HEIGHT * (span[1] - min(max(decade, span[0]), span[1])) / (span[1] - span[0])


def _statistics(summary: dict[str, dict[str, dict[str, dict[str, object]]]]) -> str:
    """One row a quantity and split."""
    keys = ("chips", "median_factor", "p90_factor")
    rows = [
        f"<tr><td>{escape(NAMES[name])}<td>{split}{_cells(found[key] for key in keys)}"
        f"<td>{escape(_names(found['beyond_3']))}</tr>"
        for name, splits in summary["by_quantity"].items()
        for split, found in splits.items()
        if found["chips"]
    ]
    return _table(("", "split", "#chips", "#median factor", "#90 % within", "beyond a factor of 3"), rows)


def _answer(summary: dict[str, dict[str, dict[str, dict[str, object]]]]) -> str:
    """How far off the model is on chips that no constant was fitted on."""
    held = {name: summary["by_quantity"][name]["holdout"] for name in ("tops_per_w", "latency_s")}
    parts = [
        f"{NAMES[name]} by a factor of {found['median_factor']:.2f} (median of {found['chips']} chips)"
        for name, found in held.items()
        if found["chips"]
    ]
    return f"On chips that no constant was fitted on, the model misses {' and '.join(parts)}."


def _sweeps() -> str:
    rows = [
        f"<tr><td>{escape(s.chip)}<td>{s.quantity}"
        f"{_cells((len(s.errors), len(s.factors), s.fitted_on))}<td class=n>{100 * s.median_error:.1f} %</tr>"
        for s in sweeps()
    ]
    head = ("chip", "of", "#points", "#scale factors", "#fitted on", "#median error")
    return f"<h2>Inside one chip</h2>{_table(head, rows)}"


def _figures(rows: Sequence[Row]) -> str:
    body = [_figure(row, name) for name in UNITS for row in rows if name in row.figures]
    head = ("chip", "split", "#published", "#modelled", "unit", "#factor")
    hint = '<p class="hint">* follows from the published clock, or a simulated design: in no statistic.</p>'
    return f"<h2>Every figure</h2>{hint}{_table(head, body)}"


def _figure(row: Row, name: str) -> str:
    figure, (unit, scale) = row.figures[name], UNITS[name]
    mark = "" if figure.prediction and row.entry.measured else " *"
    far = ' class="far"' if figure.factor > BAND else ""
    given, found = (
        mean({p: values[p] * scale for p in figure.modelled}) for values in (figure.published, figure.modelled)
    )
    title = escape(row.entry.source, quote=True)
    return (
        f'<tr{far} title="{title}"><td>{escape(row.entry.name)}{mark}<td>{row.entry.split}'
        f'{_cells((given, found))}<td>{unit}<td class="n f">{figure.factor:.2f}</tr>'
    )


def _table(head: Iterable[str], rows: Iterable[str]) -> str:
    """A table; columns whose name starts with # hold numbers."""
    names = "".join(f"<th class=n>{n[1:]}" if n.startswith("#") else f"<th>{n}" for n in head)
    return f'<div class="scroll"><table><tr>{names}</tr>{"".join(rows)}</table></div>'


def _cells(values: Iterable[object]) -> str:
    return "".join(f"<td class=n>{v:.3g}" if isinstance(v, float) else f"<td class=n>{v}" for v in values)


def _names(given: object) -> str:
    return ", ".join(str(name) for name in given) if isinstance(given, list) and given else "none"


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(words)}</li>" for words in lines) + "</ul>"
