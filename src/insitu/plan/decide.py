"""Which candidate, why, and what would flip it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from insitu.plan.candidates import Candidate
from insitu.plan.requirements import Requirements
from insitu.report.text import quantity

NEAR = 0.05  # a bound that is used less than this flips nothing
METRIC = {"energy": "energy_j", "price": "price_usd", "latency": "latency_s"}
UNIT = {"energy": "J", "price": "USD", "latency": "s"}


@dataclass(frozen=True)
class Decision:
    """The recommendation among what may be chosen, the next best, the best of what may not, and the nearest misses."""

    wanted: Requirements
    candidates: tuple[Candidate, ...]
    recommendation: Candidate | None
    runner_up: Candidate | None
    best_other: Candidate | None
    flips_if: tuple[str, ...]
    pareto: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The object of `insitu plan --json`."""
        chosen = [None if c is None else c.system for c in (self.recommendation, self.runner_up, self.best_other)]
        shown = {
            "schema": 1,
            "requirements": self.wanted.model_dump(mode="json", exclude_none=True),
            "candidates": [c.to_json() for c in self.candidates],
            "recommendation": chosen[0],
            "runner_up": chosen[1],
            "best_other": chosen[2],
            "flips_if": list(self.flips_if),
            "pareto": list(self.pareto),
        }
        return shown if self.recommendation else {**shown, "infeasible": [c.to_json() for c in self.nearest()]}

    def nearest(self) -> list[Candidate]:
        """Candidates that miss by least, first."""
        return sorted(
            (c for c in self.candidates if c.binding and c.feasible is False),
            key=lambda c: c.binding.over or 0.0,  # type: ignore[union-attr]
        )[:3]


def decide(found: Sequence[Candidate], wanted: Requirements, *, include_all: bool) -> Decision:
    """Rank what meets everything by what is preferred; what is not known of a candidate does not rank it first."""
    good = sorted((c for c in found if c.feasible), key=lambda c: _rank(c, wanted))
    chosen = [c for c in good if include_all or c.availability == "sold"]
    others = [c for c in good if c not in chosen]
    best, second = (chosen[0] if chosen else None), (chosen[1] if len(chosen) > 1 else None)
    other = others[0] if others else None
    return Decision(wanted, tuple(found), best, second, other, _flips(best, second, other, wanted), _pareto(found))


def _rank(candidate: Candidate, wanted: Requirements) -> tuple[float, ...]:
    """The preferred figure first, what is not known last; then energy and latency."""
    first = candidate.value(METRIC[wanted.prefer])
    rest = (candidate.value("energy_j"), candidate.value("latency_s"))
    return tuple(float("inf") if v is None else v for v in (first, *rest))


def _flips(
    best: Candidate | None, second: Candidate | None, other: Candidate | None, wanted: Requirements
) -> tuple[str, ...]:
    found: list[str] = []
    if best is None:
        return ()
    for bound in sorted(best.bounds, key=lambda b: -(b.over or 0.0))[:2]:
        if bound.over and bound.over >= NEAR:
            words = f"{quantity(bound.value, bound.unit)} of {quantity(bound.limit, bound.unit)}"
            found.append(f"{bound.name} tightens by {1.0 / bound.over:.3g} x: {best.system} takes {words}")
    for rival, words in ((second, ""), (other, "were sold and ")):
        mine, theirs = best.value(METRIC[wanted.prefer]), rival.value(METRIC[wanted.prefer]) if rival else None
        if rival is None or mine is None or not theirs:
            continue
        if theirs <= mine:
            found.append(f"{rival.system} ({rival.availability}) were sold: {wanted.prefer} {theirs / mine:.3g} x")
        else:
            found.append(f"{rival.system} {words}took {theirs / mine:.3g} x less {wanted.prefer} than modelled")
    return tuple(found)


def _pareto(found: Sequence[Candidate]) -> tuple[str, ...]:
    """Systems that meet everything and that no other beats in energy, latency and price at once."""
    keys = tuple(METRIC.values())
    rows = [(c, tuple(float("inf") if (v := c.value(k)) is None else v for k in keys)) for c in found if c.feasible]
    kept = [c.system for c, row in rows if not any(_beats(other, row) for _, other in rows)]
    return tuple(kept)


def _beats(other: tuple[float, ...], row: tuple[float, ...]) -> bool:
    return other != row and all(o <= r for o, r in zip(other, row, strict=True))


def decision_text(decision: Decision, name: str) -> str:
    """What a person sees: the answer, what binds, what would flip it, and a table of the candidates."""
    best, lines = decision.recommendation, [f"{name}: {len(decision.candidates)} chips and systems"]
    if best is None:
        lines.append("Nothing that may be chosen meets every requirement. Nearest:")
        lines += [f"  {c.system}: {_binding(c)}" for c in decision.nearest()]
        if decision.best_other is not None:
            lines.append(f"  {decision.best_other.system} meets them, but is {decision.best_other.availability}")
    else:
        lines.append(f"Take {best.system}; {_binding(best)}")
        lines += [f"Next best: {c.system}" for c in (decision.runner_up,) if c]
        lines += [f"Best of what is not sold: {c.system} ({c.availability})" for c in (decision.best_other,) if c]
        lines += [f"It flips if {words}" for words in decision.flips_if]
    lines.append(f"{'':44} {'latency':>10} {'energy':>10} {'power':>10} {'price':>10}  meets")
    for c in sorted(
        decision.candidates, key=lambda c: (c.feasible is not True, c.feasible is False, _rank(c, decision.wanted))
    ):
        cells = [quantity(c.value(k), u) for k, u in (("latency_s", "s"), ("energy_j", "J"), ("power_w", "W"))]
        price = c.value("price_usd")
        cells.append("not known" if price is None else f"{price:,.4g} USD")
        meets = "yes" if c.feasible else _binding(c) if c.feasible is False else f"not known: {_unknown(c)}"
        star = "*" if c.system in decision.pareto else " "
        lines.append(
            f"{star}{c.system[:34]:34} {c.availability[:9]:9}" + "".join(f"{t:>11}" for t in cells) + f"  {meets}"
        )
    return "\n".join(lines)


def _binding(candidate: Candidate) -> str:
    bound = candidate.binding
    if bound is None or bound.over is None:
        return "nothing binds"
    words = f"{quantity(bound.value, bound.unit)} of {quantity(bound.limit, bound.unit)}"
    return f"{'nearest bound' if bound.over <= 1 else 'misses'} {bound.name}: {words}, {bound.over:.3g} x"


def _unknown(candidate: Candidate) -> str:
    return ", ".join(f"{b.name}{f' ({b.note})' if b.note else ''}" for b in candidate.bounds if b.over is None)
