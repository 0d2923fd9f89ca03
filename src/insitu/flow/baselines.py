"""The same network on conventional machines: what moves, what that costs beside the arithmetic, chip first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from typing import Any

from insitu.cost.machines import System
from insitu.cost.roofline import Spent, spend, works_of
from insitu.graph.graph import Graph
from insitu.report.result import Result

# What a component of a chip's energy breakdown is for; what is named nowhere belongs to the rest.
MOVING = ("ram", "weights", "banks", "link")
ARITHMETIC = ("array", "dac", "adc", "shift_add", "vector")


def beside(result: Result, graph: Graph, systems: Sequence[System]) -> list[dict[str, Any]]:
    """Rows for the report: the chip as this run found it, then each machine, one inference each."""
    works = works_of(graph)
    return [_chip(result), *(_machine(spend(works, system), system) for system in systems)]


def _chip(result: Result) -> dict[str, Any]:
    parts = {
        name.removeprefix("energy_breakdown.").removesuffix("_j"): metric.value or 0.0
        for name, metric in result.metrics.items()
        if name.startswith("energy_breakdown.")
    }
    moving, arithmetic = (fsum(parts.get(n, 0.0) for n in names) for names in (MOVING, ARITHMETIC))
    total = result.value("energy_j")
    known = total is not None
    return {
        "name": result.chip,
        "title": result.chip,
        "precision": "its own",
        "batch": 1,
        "latency_s": result.value("latency_s"),
        "energy_j": total,
        "bytes_moved": dict(result.extra.get("moved", {})),
        "moving_j": moving if known else None,
        "arithmetic_j": arithmetic if known else None,
        "rest_j": total - moving - arithmetic if total is not None else None,
        "bound": "",
        "fits": result.fits,
        "missing": [],
        "source": "modelled",
        "assumptions": {},
    }


def _machine(spent: Spent, system: System) -> dict[str, Any]:
    return {
        "name": spent.machine,
        "title": system.title,
        "precision": spent.precision,
        "batch": spent.batch,
        "latency_s": spent.latency,
        "energy_j": spent.energy,
        "bytes_moved": _counted(spent.moved),
        "moving_j": spent.moving,
        "arithmetic_j": spent.arithmetic,
        "rest_j": spent.rest,
        "bound": spent.bound,
        "fits": spent.fits,
        "missing": [f"machine.{name}" for name in spent.missing],
        "source": "modelled",
        "assumptions": dict(system.machine.assumptions),
    }


def _counted(moved: Mapping[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in moved.items() if amount}
