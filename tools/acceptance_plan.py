"""What planning must hold, as one JSON object: anchors, verdicts that flip, currents, queries, hybrid closed forms.

python tools/acceptance_plan.py
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from insitu.arch.cost import load_power
from insitu.arch.load import load_chip
from insitu.cost.machines import load_machine, machine_names
from insitu.llm.shapes import load_shape
from insitu.plan.candidates import candidates
from insitu.plan.claims import COMPUTED, anchors, ledger
from insitu.plan.claims_page import page
from insitu.plan.decide import decide
from insitu.plan.facts import plan_book
from insitu.plan.hybrid import Class, Hybrid, Link, Place, Step
from insitu.plan.ledger import Claim, claims, evaluate
from insitu.plan.network import of_shape
from insitu.plan.queues import simulate
from insitu.plan.requirements import Requirements

PUBLISHED = {  # what the issue names, and the digits it names
    "a100_decode_pj_per_mac_7b": 46.0, "a100_decode_pj_per_mac_70b": 18.0, "h100_electricity_usd_per_hour": 0.13,
    "mm2_5nm_over_28nm": 5.9, "transistor_28nm_over_5nm": 1.54, "ufs_8b_int4_tokens_per_s": 1.05,
    "cent_tokens_per_usd": 5.19,
}  # fmt: skip
CURRENTS = {"wake-up": (400e6, 0.4), "40 commands": (400e6, 0.6), "100 commands": (400e6, 0.8),
            "noise suppression": (800e6, 1.0)}  # fmt: skip
VOLTS, REQUESTS = 3.3, 200_000


def main() -> int:
    """Print every figure."""
    found = {"anchors": _anchors(), **_ledger(), "currents": _currents(), **_plan(), **_hybrid(), **_data()}
    json.dump(found, sys.stdout, indent=1)
    return 0


def _anchors() -> dict[str, float | None]:
    """Each anchor less what it should be, relative."""
    return {m.name: None if m.value is None else abs(m.value / PUBLISHED[m.name] - 1) for m in anchors(plan_book())}


def _ledger() -> dict[str, Any]:
    book = plan_book()
    findings = ledger(book)
    flipped = [c.id for c in claims() if _flips(c)]
    return {
        "claims": len(findings),
        "claims_computed": sum(f.value is not None and bool(f.rests_on) for f in findings),
        "claims_that_flip": len(flipped),
        "page_bytes": len(page(findings, anchors(book), book).encode()),
    }


def _flips(claim: Claim) -> bool:
    """Whether one assumption turned by up to a thousand changes the verdict."""
    book, compute = plan_book(), COMPUTED[claim.id]
    before = evaluate(claim, compute, book).verdict
    for lever in claim.levers:
        now = book.fact(lever).at("typical") or 0.0
        for step in (sign * k for k in range(1, 145) for sign in (1, -1)):
            points = compute(book.with_value(lever, now * 10.0 ** (step / 48.0)))
            good = [claim.met(p.value) for p in points]
            if before != ("holds" if all(good) else "holds only if" if any(good) else "does not hold"):
                return True
    return False


def _currents() -> dict[str, float]:
    """Modelled over published currents of the four tasks that set no constant, the farthest of either side."""
    chip = load_chip("wtm2101")
    ratios = [(load_power(chip, r, tile=(256, 256)).value or 0.0) / VOLTS * 1e3 / ma for r, ma in CURRENTS.values()]
    return {"largest": max(ratios), "smallest": min(ratios)}


def _plan() -> dict[str, Any]:
    start = time.monotonic()
    name, shape = load_shape("shape:llama-3-8b")
    network = of_shape(name, shape, context=1024, weight_bits=8)
    book = plan_book()
    open_ = decide(candidates(network, Requirements(), book), Requirements(), include_all=False)
    seconds = time.monotonic() - start
    tight = Requirements(latency=1e-9)
    none = decide(candidates(network, tight, book), tight, include_all=False)
    nearest = none.nearest()[0].binding
    unpriced = [c for c in open_.candidates if c.value("price_usd") is None]
    priced = [c for c in open_.candidates if c.value("price_usd") is not None]
    return {
        "plan_seconds": seconds,
        "candidates": len(open_.candidates),
        "recommended_is_sold": int(open_.recommendation is not None and open_.recommendation.availability == "sold"),
        "infeasible_names_what_binds": int(nearest is not None and (nearest.over or 0.0) > 1.0),
        "unknown_prices_without_way": sum("suppl" not in c.metrics["price_usd"].note
                                          and "not modelled" not in c.metrics["price_usd"].note for c in unpriced),
        "prices_without_currency": sum("USD" not in c.metrics["price_usd"].note for c in priced),
    }  # fmt: skip


def _queue(service: str, load: float) -> float:
    place = Place.model_validate({"service": service})
    kind = Class(name="any", steps=(Step(at="cloud", time=1.0),))
    system = Hybrid(rate=load, count=REQUESTS, seed=7, places={"cloud": place}, classes=(kind,))
    return float(simulate(system).all_seconds().mean())


def _hybrid() -> dict[str, Any]:
    """Errors against closed forms; requests and bytes that are missing under loss, outage and overload."""
    mm1 = max(abs(_queue("exponential", r) * (1 - r) - 1) for r in (0.3, 0.6, 0.8))
    md1 = max(abs(_queue("fixed", r) / (1 + r / (2 * (1 - r))) - 1) for r in (0.3, 0.6, 0.8))
    link = Link(bandwidth=1e5, latency=0.01, loss=0.2, retry=0.1, outages=((5.0, 30.0),), max_wait=3.0)
    kind = Class(name="any", steps=(Step(at="link", bytes=3000), Step(at="cloud", time=0.1)),
                 fallback=(Step(at="device", time=1.0),))  # fmt: skip
    places = {"device": Place(), "cloud": Place()}
    out = simulate(Hybrid(rate=40.0, count=20_000, places=places, links={"link": link}, classes=(kind,)))
    use = {u.name: u for u in out.uses}
    return {
        "mm1_error": mm1,
        "md1_error": md1,
        "lost_requests": out.arrived - out.completed,
        "missing_bytes": abs(use["link"].payload_bytes - 3000.0 * use["link"].served),
        "unserved": out.arrived - use["cloud"].served - use["device"].served,
        "overload_named": int(use["cloud"].overloaded or use["device"].overloaded),
        "diverted": out.diverted,
        "finite": int(bool(np.isfinite(out.all_seconds()).all())),
    }


def _data() -> dict[str, Any]:
    found = [load_machine(name) for name in machine_names()]
    dollars = [f for f in plan_book().facts.values() if f.unit.startswith("USD") and f.value is not None]
    return {
        "machines": len(found),
        "kinds_of_machines": len({m.kind for m in found}),
        "machines_without_source": sum(not m.sources for m in found),
        "dollars_without_date": sum(not f.date for f in dollars),
    }


if __name__ == "__main__":
    sys.exit(main())
