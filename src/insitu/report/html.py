"""The report page: one self-contained file, no script, no request, equal bytes for equal results."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from insitu.report.audio import Clip
from insitu.report.diagnose import best_change, broken_layer
from insitu.report.figures.accuracy import accuracy_instances, confusion
from insitu.report.figures.bars import layer_energy, layer_latency, unit_utilization
from insitu.report.figures.chip import floorplan, timeline
from insitu.report.figures.energy import energy_breakdown, memory_use
from insitu.report.figures.fidelity import fidelity_instances
from insitu.report.figures.layers import layer_sqnr
from insitu.report.figures.svg import Figure
from insitu.report.figures.wall import bytes_moved, memory_wall
from insitu.report.origins import Origin, constant_origins, metric_anchor, metric_origins
from insitu.report.result import LayerResult, Result, finite
from insitu.report.text import UNKNOWN, count, quantity
from insitu.report.view import alerts, facts, tiles, verdict

MAX_BYTES = 495_000
_HERE = Path(__file__).parent / "templates"


def render(result: Result, *, audio: Sequence[Clip] = ()) -> str:
    """The report of a run as HTML; `audio` holds playback copies of the recordings in `extra["answers"]`.

    The page stays below MAX_BYTES: a run too large for that loses rows of its tables, then its recordings.
    """
    page = ""
    for rows, clips in ((240, audio), (120, audio), (40, audio), (40, ())):
        page = _page(result, clips, rows)
        if len(page.encode()) < MAX_BYTES:
            break
    return page


def _page(result: Result, audio: Sequence[Clip], rows: int) -> str:
    broken = str(result.extra.get("broken_layer") or broken_layer(result.layers) or "")
    origins = metric_origins(result)
    page = _template().render(
        result=result,
        style=(_HERE / "report.css").read_text(encoding="utf-8"),
        verdict=verdict(result),
        alerts=alerts(result),
        tiles=tiles(result),
        best_change=best_change(result) if result.fits else None,
        sections=_sections(result),
        answers=_answers(result, {clip.file: clip.uri for clip in audio})[:rows],
        layers=[_layer_row(layer, broken) for layer in result.layers[:rows]],
        more_layers=max(0, len(result.layers) - rows),
        infeasible=[_shortage(item) for item in result.infeasible],
        metrics=origins,
        anchors={name: metric_anchor(name) for name in result.metrics},
        constants=_named_first(constant_origins(result), origins)[:rows],
        facts=facts(result),
    )
    return _typeset(page)


def _named_first(constants: list[Origin], metrics: list[Origin]) -> list[Origin]:
    """The constants that results link to, then the others."""
    linked = {anchor for row in metrics for anchor, _ in row.uses}
    return sorted(constants, key=lambda row: row.anchor not in linked)


def _typeset(page: str) -> str:
    """Numbers as print has them: Greek micro, a raised 2, and no line break between a number and its unit."""
    page = re.sub(r"(?<=\d )u(?=(?:s|J|W|V|A|m|S|F|m2)\b)", "µ", page)
    page = re.sub(r"(?<=\d [mµ]m)2\b", "²", page)
    return re.sub(r"(?<=\d) (?=%|(?:[fpnµmkMGT]?(?:s|J|W|Hz)|[KMG]i?B|B|dB|TOPS|mm²)\b)", "\u00a0", page)


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2")


def _sections(result: Result) -> list[dict[str, Any]]:
    """Sections with at least one figure, in reading order."""
    from markupsafe import Markup

    plan = (
        ("accuracy", "How accurate is it?", (accuracy_instances, fidelity_instances, layer_sqnr, confusion)),
        ("time", "Where does the time go?", (timeline, layer_latency, unit_utilization)),
        ("energy", "Where does the energy go?", (energy_breakdown, layer_energy)),
        ("wall", "What would a conventional machine move?", (memory_wall, bytes_moved)),
        ("chip", "How does it lie on the chip?", (floorplan, memory_use)),
    )
    sections: list[dict[str, Any]] = []
    for key, title, draw in plan:
        figures = [figure for function in draw if (figure := function(result)) is not None]
        shown = [{"figure": f, "svg": Markup(f.svg), "href": _href(result, f)} for f in figures]
        if shown:
            sections.append({"key": key, "title": title, "figures": shown})
    return sections


def _href(result: Result, figure: Figure) -> str:
    return metric_anchor(figure.origin_key) if figure.origin_key in result.metrics else "origins"


def _answers(result: Result, uris: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row per recording: what was said, what the float network and the chips answered."""
    rows: list[dict[str, Any]] = []
    for answer in result.extra.get("answers", ()):
        truth = str(answer.get("truth") or UNKNOWN)
        votes = [str(vote) for vote in answer.get("votes", ())]
        tally = sorted(((votes.count(v), v) for v in set(votes)), key=lambda e: (-e[0], e[1]))
        file = str(answer["file"])
        row: dict[str, Any] = {"file": file, "uri": uris.get(Path(file).name, ""), "truth": truth}
        row |= {
            name: {"word": str(answer.get(name) or UNKNOWN), "right": answer.get(name) == truth}
            for name in ("float", "chip")
        }
        row["votes"] = [{"count": n, "word": word, "right": word == truth} for n, word in tally]
        row["instances"] = len(votes)
        rows.append(row)
    return rows


def _layer_row(layer: LayerResult, broken: str) -> dict[str, Any]:
    return {
        "name": layer.name,
        "op": layer.op,
        "unit": layer.unit or "",
        "broken": layer.name == broken,
        "local": _decibels(layer.sqnr_local_db),
        "total": _decibels(layer.sqnr_db),
        "cosine": UNKNOWN if finite(layer.cosine) is None else f"{layer.cosine:.4f}",
        "macs": count(layer.macs),
        "latency": quantity(layer.latency_s, "s"),
        "energy": quantity(layer.energy_j, "J"),
        "readout": layer.readout or "",
    }


def _decibels(value: float | None) -> str:
    if value == float("inf"):
        return "exact"
    return UNKNOWN if finite(value) is None else f"{value:.1f}"


def _shortage(item: Any) -> dict[str, Any]:
    over = item.demand / item.bound if item.bound else None
    return {
        "resource": item.resource,
        "demand": quantity(item.demand, item.unit, digits=4),
        "bound": quantity(item.bound, item.unit, digits=4),
        "share": "" if over is None else f"{over:.3g}",
        "bound_width": f"{100 * min(1.0, item.bound / item.demand) if item.demand else 100:.2f}",
        "filled_by": item.filled_by,
        "ways_out": item.ways_out,
    }
