"""What a benchmark answers: its cases, the bar, and whether it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One figure: the median of `runs`; `baseline` is what it is compared with and `ratio` says how much better we are.

    `most` or `least` is the bar, the largest or smallest value that holds; none where a case has no bar of its own.
    """

    case: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    runs: tuple[float, ...] = ()
    most: float | None = None
    least: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the value is within its bar."""
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    @property
    def miss(self) -> str:
        """Which side of its bar a value that does not hold is on."""
        return "above" if self.most is not None and self.value > self.most else "below"

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case, "value": self.value, "unit": self.unit, "baseline": self.baseline, "ratio": self.ratio,
            "runs": list(self.runs), "least": self.least, "most": self.most, "holds": self.holds,
        }  # fmt: skip


@dataclass(frozen=True)
class BenchResult:
    """All cases of a benchmark."""

    name: str
    cases: tuple[Case, ...]
    bar: str

    @property
    def holds(self) -> bool:
        """Whether every case is within its bar."""
        return all(case.holds for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """The object that `insitu bench NAME --json` prints."""
        return {
            "name": self.name, "cases": [case.to_json() for case in self.cases], "bar": self.bar, "holds": self.holds
        }  # fmt: skip

    def lines(self) -> list[str]:
        """The same for people."""
        rows = [f"{self.name}: {'holds' if self.holds else 'does not hold'} (bar: {self.bar})"]
        for case in self.cases:
            limit = case.most if case.most is not None else case.least
            bar = "" if limit is None else f", bar {limit:,.6g}"
            peer = "" if case.baseline is None else f", baseline {case.baseline:,.6g}"
            miss = "" if case.holds else f"  <- {case.miss}"
            rows.append(f"  {case.case}: {case.value:,.4g} {case.unit}{bar}{peer}{miss}")
        return rows
