"""The claims ledger: each standing claim as numbers over models, batches, baselines; a verdict; what would flip it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from insitu.base.schema import load_yaml
from insitu.cost.book import CASES, Book, Fact, UnknownError

Verdict = Literal["holds", "holds only if", "does not hold", "not known"]
SPAN = 4  # decades that a lever is tried over, either way
STEPS = 8  # of them a decade
SHARE = "share"  # unit of what cannot be above 1


@dataclass(frozen=True)
class Point:
    """The claim's quantity for one model, batch, baseline: the label says which."""

    label: str
    value: float


Compute = Callable[[Book], Sequence[Point]]


@dataclass(frozen=True)
class Claim:
    """A statement of the field, its precise meaning, and the bounds within which its quantity must lie.

    The first point that `compute` gives is the headline; `levers` are the facts that one would turn to flip it.
    """

    id: str
    statement: str
    meaning: str
    unit: str
    levers: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        """Whether a value lies within the bounds."""
        above = self.at_least is None or value >= self.at_least * (1 - 1e-12)
        return above and (self.at_most is None or value <= self.at_most * (1 + 1e-12))

    def bounds(self) -> str:
        """The bounds in words."""
        low, high = self.at_least, self.at_most
        if low is not None and high is not None:
            return f"{low:,.4g} to {high:,.4g}"
        return f"at least {low:,.4g}" if low is not None else f"at most {high:,.4g}"


@dataclass(frozen=True)
class Finding:
    """What a claim comes to: typical points, the range over all cases, and what it rests on."""

    claim: Claim
    verdict: Verdict
    value: float | None
    range: tuple[float, float] | None
    points: tuple[Point, ...]
    rests_on: tuple[Fact, ...]
    would_hold_if: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """One entry of `insitu claims --json`."""
        claim = self.claim
        return {
            "id": claim.id,
            "statement": claim.statement,
            "meaning": claim.meaning,
            "verdict": self.verdict,
            "value": self.value,
            "unit": claim.unit,
            "holds_at": {"at_least": claim.at_least, "at_most": claim.at_most},
            "range": list(self.range) if self.range else None,
            "points": [{"label": p.label, "value": p.value, "holds": claim.met(p.value)} for p in self.points],
            "assumptions": [f.to_json() for f in self.rests_on if f.assumed],
            "sources": [f.to_json() for f in self.rests_on if not f.assumed],
            "would_hold_if": list(self.would_hold_if),
        }


@cache
def claims() -> tuple[Claim, ...]:
    """The claims of claims.yaml, in its order."""
    text = (files("insitu.plan") / "claims.yaml").read_text(encoding="utf-8")
    data: Mapping[str, Any] = load_yaml("claims.yaml", text=text).data["claims"]
    return tuple(
        Claim(
            id=name,
            statement=row["statement"],
            meaning=row["meaning"],
            unit=row["unit"],
            levers=tuple(row["levers"]),
            at_least=row.get("at_least"),
            at_most=row.get("at_most"),
        )
        for name, row in data.items()
    )


def evaluate(claim: Claim, compute: Compute, book: Book) -> Finding:
    """Points in the typical case, the range over floor and pessimistic ones, the verdict, what would change it."""
    reading = book.for_case("typical")
    try:
        points = tuple(compute(reading))
    except UnknownError as lack:
        used = tuple(reading.used.values())
        return Finding(claim, "not known", None, None, (), used, (f"known with {lack.try_[0]}",))
    good = [claim.met(p.value) for p in points]
    verdict: Verdict = "holds" if all(good) else "holds only if" if any(good) else "does not hold"
    return Finding(
        claim, verdict, points[0].value, _range(compute, book), points, tuple(reading.used.values()),
        () if verdict == "holds" else _ways(claim, compute, reading, points),
    )  # fmt: skip


def _range(compute: Compute, book: Book) -> tuple[float, float]:
    values: list[float] = []
    for case in CASES:
        try:
            values += [p.value for p in compute(book.for_case(case))]
        except UnknownError:
            continue
    return min(values), max(values)


def _ways(claim: Claim, compute: Compute, book: Book, points: Sequence[Point]) -> tuple[str, ...]:
    """The conditions that hold already, then the turn of each lever that makes the first failing point hold."""
    met = [f"{p.label} ({p.value:,.3g} {claim.unit})" for p in points if claim.met(p.value)]
    failing = next(i for i, p in enumerate(points) if not claim.met(p.value))
    ways = [f"as it does for: {'; '.join(met)}"] if met else []
    for lever in claim.levers:
        found = turning(claim, compute, book, lever=lever, index=failing)
        fact = book.fact(lever)
        if found is not None:
            now = fact.at(book.case) or 0.0
            side = "at least" if found > now else "at most"
            ways.append(f"{points[failing].label}: {lever} {side} {found:.3g} {fact.unit} (now {now:.3g})")
    return tuple(ways) or ("no single assumption within four decades makes it hold",)


def turning(claim: Claim, compute: Compute, book: Book, *, lever: str, index: int) -> float | None:
    """The value of a fact nearest to its own at which a point holds; None within four decades."""
    fact = book.fact(lever)
    now = fact.at(book.case)
    if not now:
        return None

    def good(factor: float) -> bool:
        if fact.unit == SHARE and now * factor > 1.0:
            return False
        points = compute(book.with_value(lever, now * factor))
        return index < len(points) and claim.met(points[index].value)

    for step in range(1, SPAN * STEPS + 1):
        for sign in (1, -1):
            if good(10.0 ** (sign * step / STEPS)):
                return now * _edge(good, sign * (step - 1) / STEPS, sign * step / STEPS)
    return None


def _edge(good: Callable[[float], bool], bad: float, well: float) -> float:
    """The factor between the exponents `bad` and `well` where it begins to hold."""
    for _ in range(30):
        middle = (bad + well) / 2
        bad, well = (bad, middle) if good(10.0**middle) else (middle, well)
    return math.pow(10.0, well)
