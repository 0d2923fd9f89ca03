"""`insitu validate --llm`: measured language-model inference held against the model, a group left out at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from insitu.base.yaml import load_yaml
from insitu.llm.anchors import Anchor, anchors
from insitu.llm.fit import Figure, Row, factor_for, factors, pooled, read_rows, usable

OPERATORS = "gpu x operators"  # the measured layer of the anchors is of this class
WITHIN = 2.0


@dataclass(frozen=True)
class Compared:
    """One figure: measured, predicted without its group, and with all rows."""

    row: Row
    figure: Figure
    held_out: float
    in_sample: float
    source: str

    @property
    def ratio(self) -> float:
        """Predicted over measured, its group left out."""
        return self.held_out / self.figure.measured

    def to_json(self) -> dict[str, Any]:
        """One figure of the report."""
        figure = self.figure
        return {
            "id": self.row.id, "class": self.row.key, "group": self.row.group, "quantity": figure.name,
            "unit": figure.unit, "measured": figure.measured, "modelled": self.held_out, "ratio": self.ratio,
            "modelled_in_sample": self.in_sample, "factor_from": self.source,
        }  # fmt: skip


def compare(path: str | Path) -> tuple[list[Row], list[Compared]]:
    """All rows of a file, and every figure that is predicted."""
    rows = read_rows(load_yaml(path, max_bytes=1 << 24).data, where=str(path))
    good = usable(rows)
    known = factors(good)
    found: list[Compared] = []
    for row in good:
        factor, source = factor_for(row, [r for r in good if r.group != row.group])
        found += [Compared(row, f, f.predicted(factor), f.predicted(known[row.key]), source) for f in row.figures]
    return rows, found


def summary(rows: Sequence[Row], compared: Sequence[Compared]) -> dict[str, Any]:
    """Errors with groups left out and in sample, the factors, and the published anchors."""
    good = usable(rows)
    ratios = [c.ratio for c in compared]
    inside = [c.in_sample / c.figure.measured for c in compared]
    others = pooled([r for r in good if r.key != OPERATORS], "gpu") or 1.0
    return {
        **_errors(ratios), "in_sample": _errors(inside), "figures": len(ratios), "rows": len(rows),
        "groups": len({r.group for r in rows}), "factors": factors(good),
        "anchors": [_anchor(a) for a in anchors(others)],
        "missing": len([r for r in rows if not r.figures]), "implausible": len([r for r in rows if r.implausible]),
    }  # fmt: skip


def _errors(ratios: Sequence[float]) -> dict[str, float | None]:
    if not ratios:
        return {"median_abs_error": None, "p90_factor": None, "within_2": None}
    values = np.asarray(ratios)
    away = np.maximum(values, 1 / values)
    return {
        "median_abs_error": float(np.median(np.abs(values - 1))), "p90_factor": float(np.quantile(away, 0.9)),
        "within_2": float((away <= WITHIN).mean()),
    }  # fmt: skip


def _anchor(anchor: Anchor) -> dict[str, Any]:
    return {**vars(anchor), "error": anchor.error}


def report(rows: Sequence[Row], compared: Sequence[Compared]) -> dict[str, Any]:
    """The object of `insitu validate --llm F --json`."""
    left = [
        {"id": r.id, "class": r.key, "missing": r.missing or None, "implausible": r.implausible or None}
        for r in rows
        if not r.figures or r.implausible
    ]
    return {"rows": [*(c.to_json() for c in compared), *left], "summary": summary(rows, compared)}


def table(rows: Sequence[Row], compared: Sequence[Compared]) -> str:
    """The same for people."""
    lines = [f"{'row':58} {'quantity':22} {'measured':>10} {'modelled':>10} {'ratio':>6}  factor from"]
    lines += [
        f"{c.row.id[:58]:58} {c.figure.name[:22]:22} {c.figure.measured:10.4g} {c.held_out:10.4g} {c.ratio:6.2f}"
        f"  {c.source}"
        for c in compared
    ]
    lines += [f"{r.id[:58]:58} implausible: {r.implausible}" for r in rows if r.implausible]
    lines += [f"{r.id[:58]:58} not modelled: {r.missing}" for r in rows if r.missing and not r.implausible]
    total = summary(rows, compared)
    lines += [
        "",
        "factors: " + ", ".join(f"{k} {v:.3f}" for k, v in total["factors"].items()),
        _line("left out", total),
    ]
    lines.append(_line("in sample", total["in_sample"]))
    lines += [
        f"{a['system']} {a['name']}: published {a['published']:.4g}, modelled {a['modelled']:.4g} {a['unit']}, "
        f"{100 * a['error']:+.1f} % ({a['fitted']})"
        for a in total["anchors"]
    ]
    return "\n".join(lines)


def _line(name: str, errors: Mapping[str, Any]) -> str:
    if errors["median_abs_error"] is None:
        return f"{name}: nothing to compare"
    return (
        f"{name}: median error {100 * errors['median_abs_error']:.1f} %, 90 % within a factor of "
        f"{errors['p90_factor']:.2f}, {100 * errors['within_2']:.0f} % within {WITHIN:.0f}"
    )
