"""Every claim with what computes it, and the anchors: figures that must come out of the same facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from insitu.base.metrics import Metric
from insitu.cost.book import Book, valued
from insitu.cost.money import electricity_hour
from insitu.plan import claim_scale as scale
from insitu.plan import claim_serving as serving
from insitu.plan.ledger import Compute, Finding, claims, evaluate

COMPUTED: Mapping[str, Compute] = {
    "efficiency": serving.efficiency,
    "system-cost": serving.system_cost,
    "mature-area": scale.mature_area,
    "mature-transistor": scale.mature_transistor,
    "weight-stationary": serving.weight_stationary,
    "compute-grows": scale.compute_grows,
    "electricity": serving.electricity,
    "training-cost": scale.training_cost,
    "training-fleet": scale.training_fleet,
    "compute-demand": scale.compute_demand,
    "video-8k": scale.video_8k,
    "edge": scale.edge,
    "mature-heat": scale.mature_heat,
}
ANCHORS: Mapping[str, tuple[str, Callable[[Book], float]]] = {
    "a100_decode_pj_per_mac_7b": ("pJ", lambda b: serving.pj_per_mac(b, "7b")),
    "a100_decode_pj_per_mac_70b": ("pJ", lambda b: serving.pj_per_mac(b, "70b")),
    "h100_electricity_usd_per_hour": ("USD/h", lambda b: electricity_hour(b, watts=b("h100_watts"))),
    "mm2_5nm_over_28nm": ("x", scale.per_square),
    "transistor_28nm_over_5nm": ("x", scale.dearer_transistor),
    "ufs_8b_int4_tokens_per_s": ("1/s", scale.ufs_tokens_per_s),
    "cent_tokens_per_usd": ("x", serving.cent),
}


def ledger(book: Book) -> tuple[Finding, ...]:
    """Every claim, evaluated."""
    return tuple(evaluate(claim, COMPUTED[claim.id], book) for claim in claims())


def anchors(book: Book) -> tuple[Metric, ...]:
    """Published or hand-checked figures, from the same facts as the claims."""
    return tuple(valued(name, unit, compute, book) for name, (unit, compute) in ANCHORS.items())


def ledger_json(findings: tuple[Finding, ...], figures: tuple[Metric, ...]) -> dict[str, Any]:
    """The one object of `insitu claims --json`."""
    return {
        "schema": 1,
        "claims": [finding.to_json() for finding in findings],
        "anchors": [{"id": m.name, **m.to_json()} for m in figures],
    }


def ledger_text(findings: tuple[Finding, ...], figures: tuple[Metric, ...]) -> str:
    """What a person sees: a claim, its verdict and figures, and what would have to be true."""
    lines: list[str] = []
    for found in findings:
        claim = found.claim
        lines.append(f"{found.verdict.upper():14} {claim.statement}  [{claim.id}]")
        lines.append(f"{'':14} {claim.meaning}")
        if found.value is not None and found.range is not None:
            low, high = found.range
            lines.append(
                f"{'':14} {found.value:,.3g} {claim.unit} for {found.points[0].label}; "
                f"{low:,.3g} to {high:,.3g} over {len(found.points)} conditions, floor to pessimistic"
            )
        lines += [f"{'':14} would hold: {way}" for way in found.would_hold_if[:3]]
    lines.append(
        "Anchors        " + "; ".join(f"{m.name} {m.value:.4g} {m.unit}" for m in figures if m.value is not None)
    )
    return "\n".join(lines)
