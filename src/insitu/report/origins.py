"""Where every number comes from: one row per metric and per constant, each with an anchor to link to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from insitu.report.result import Result
from insitu.report.text import UNKNOWN, metric_text, metric_title, quantity

KINDS = ("measured", "modelled", "assumed")
_ORDER = (
    "accuracy",
    "sqnr",
    "cosine",
    "latency",
    "throughput",
    "energy_j",
    "power",
    "energy_breakdown",
    "array",
    "area",
)
_MEANING = {
    "accuracy_float": "share of the samples the float network answers correctly",
    "accuracy_quantized": "share of the same samples the quantized graph answers correctly",
    "accuracy_chip_mean": "mean over the chip instances, with physics",
    "accuracy_chip_std": "standard deviation between the chip instances",
    "accuracy_chip_min": "the worst chip instance",
    "sqnr_db": "all outputs of the quantized graph against the float network's, without physics",
    "cosine": "all outputs of the quantized graph against the float network's, without physics",
    "latency_s": "event-driven timing of the compiled program",
    "throughput_per_s": "event-driven timing of the compiled program",
    "energy_j": "executed events times energy per event, plus leakage over the time",
    "power_w": "energy over time, while it works",
    "array_utilization": "cells that hold a weight, of all cells",
    "tops_per_w": "two operations per MAC, over the energy",
    "peak_tops": "from the arrays and their read time",
    "program_bytes": "size of the compiled program",
    "chips": "what the compiler needed to hold all weights",
    "segments": "groups of layers whose weights take turns in the macros",
    "cells_gap": "cells taken, over the weights that have to be held",
    "latency_gap": "time over the work of the busiest unit",
    "setup_s": "calibration, tables and modes of arrays, before all inferences",
    "setup_energy_j": "their events times energy per event, plus leakage over that time",
}


@dataclass(frozen=True)
class Origin:
    """One row: `anchor` is its id in the page, `uses` the (anchor, name) of the constants it rests on."""

    anchor: str
    name: str
    value: str
    kind: str
    source: str
    uses: tuple[tuple[str, str], ...] = ()


def metric_anchor(name: str) -> str:
    """The id of a metric's row."""
    return f"origin-{_slug(name)}"


def metric_origins(result: Result) -> list[Origin]:
    """The rows of the metrics, accuracy first, and one for the check of the numbers."""
    constants = dict(zip((str(c["name"]) for c in _constants(result)), constant_anchors(result), strict=True))
    rests_on: Mapping[str, Iterable[str]] = result.extra.get("metric_constants", {})
    rows = [_check(result)] if result.bit_exact else []
    for name in sorted(result.metrics, key=_rank):
        metric = result.metrics[name]
        uses = tuple((constants[c], c) for c in rests_on.get(name, ()) if c in constants)
        text = metric_text(name, metric)
        rows.append(
            Origin(
                metric_anchor(name),
                metric_title(name),
                text,
                metric.source,
                _note(name, metric.note, result.data_note),
                uses,
            )
        )
    return rows


def _note(name: str, note: str, data_note: str) -> str:
    """What the number means, unless the metric says more, and what the samples are; always sentences."""
    events = "this component's events times their energy" if name.startswith("energy_breakdown.") else ""
    of = f"samples: {data_note}" if data_note and name.startswith("accuracy") else ""
    sentences = [words.removesuffix(".") for words in (note or _MEANING.get(name, events), of) if words]
    return " ".join(f"{words[:1].upper()}{words[1:]}." for words in sentences)


def constant_origins(result: Result) -> list[Origin]:
    """The rows of the chip's constants, in the order given: those that weigh most first."""
    rows: list[Origin] = []
    for anchor, constant in zip(constant_anchors(result), _constants(result), strict=True):
        kind = str(constant.get("kind", "assumed"))
        source = f"{str(constant.get('source') or UNKNOWN).removesuffix('.')}."
        weighs = f" Weighs: {constant['weighs']}." if constant.get("weighs") else ""
        rows.append(Origin(anchor, str(constant["name"]), _shown(constant), kind, f"{source}{weighs}"))
    return rows


def constant_anchors(result: Result) -> list[str]:
    """Ids of the constants' rows; equal names are told apart by a number."""
    seen: dict[str, int] = {}
    anchors: list[str] = []
    for constant in _constants(result):
        slug = f"constant-{_slug(str(constant['name']))}"
        seen[slug] = seen.get(slug, 0) + 1
        anchors.append(slug if seen[slug] == 1 else f"{slug}-{seen[slug]}")
    return anchors


def _constants(result: Result) -> list[Mapping[str, Any]]:
    return list(result.extra.get("constants", ()))


def _shown(constant: Mapping[str, Any]) -> str:
    value, unit = constant.get("value"), str(constant.get("unit") or "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return quantity(value, unit)
    return UNKNOWN if value is None else f"{value} {unit}".strip()


def _check(result: Result) -> Origin:
    check = result.bit_exact
    assert check is not None
    text = "Graph interpreter against functional simulator: every element of every quantized tensor of the samples."
    value = f"{check.mismatches:,} mismatches of {check.checked_values:,}"
    return Origin("origin-bit-exact", "Same numbers", value, "measured", text)


def _rank(name: str) -> tuple[int, str]:
    place = next((i for i, start in enumerate(_ORDER) if name.startswith(start)), len(_ORDER))
    return place, name


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "x"
