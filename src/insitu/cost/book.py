"""Facts with their sources: looked up by name for a cheap, typical or dear case, replaced by `--set`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from insitu.base.errors import ConfigError, InsituError, RangeError, UsageError, did_you_mean
from insitu.base.metrics import Metric, Source
from insitu.base.schema import load_yaml

Case = Literal["floor", "typical", "pessimistic"]
CASES: tuple[Case, ...] = ("floor", "typical", "pessimistic")


@dataclass(frozen=True)
class Fact:
    """One number.  `value` None: no source was found.  `low` makes things cheap, `high` dear."""

    name: str
    value: float | None
    unit: str = "1"
    date: str = ""
    source: str = ""
    verified: bool = False
    low: float | None = None
    high: float | None = None
    note: str = ""
    given: bool = False  # by --set

    def at(self, case: Case) -> float | None:
        """The number of that case; where there is no other source, the typical one."""
        end = {"floor": self.low, "pessimistic": self.high, "typical": None}[case]
        return self.value if end is None or self.given else end

    @property
    def assumed(self) -> bool:
        """Whether nobody's source gives it."""
        return self.given or self.source.startswith("assumption")

    def to_json(self) -> dict[str, Any]:
        shown = {"name": self.name, "value": self.value, "low": self.low, "high": self.high, "unit": self.unit}
        return {**shown, "date": self.date, "source": self.source, "verified": self.verified, "note": self.note}


class UnknownError(InsituError):
    """A number that nobody has given; `name` is what `--set` would supply."""

    code = "unknown"

    def __init__(self, name: str, unit: str = "1") -> None:
        super().__init__(name, "not known", f"a number in {unit}", try_=(f"--set {name}=NUMBER",))
        self.name = name


@dataclass(frozen=True)
class Book:
    """Facts by name for one case.  Which were read is noted in `used`, so that a result can name what it rests on."""

    facts: Mapping[str, Fact]
    case: Case = "typical"
    used: dict[str, Fact] = field(default_factory=dict[str, Fact], compare=False)

    def __call__(self, name: str) -> float:
        """The number; UnknownError where there is none, UsageError where nobody has heard of it."""
        fact = self.fact(name)
        self.used[name] = fact
        value = fact.at(self.case)
        if value is None:
            raise UnknownError(name, fact.unit)
        return value

    def fact(self, name: str) -> Fact:
        if name not in self.facts:
            raise UsageError(f"fact {name!r}", "unknown", "the name of a fact", try_=did_you_mean(name, self.facts))
        return self.facts[name]

    def maybe(self, name: str) -> float | None:
        """The number, or None where it is not known."""
        try:
            return self(name)
        except UnknownError:
            return None

    def at_node(self, series: str, node: float) -> float:
        """A series of nodes at `node` metres: between two of them on a line of logarithms, outside the nearest.

        Every entry that is read can be replaced: `--set wafer_300mm_28nm=4000`.
        """
        sizes = _nodes(series)
        if not sizes:
            raise UsageError(f"series {series!r}", "unknown", "a series of prices.yaml")
        nm = node * 1e9
        below = max((s for s in sizes if s <= nm * 1.0000001), default=sizes[0])
        above = min((s for s in sizes if s >= nm * 0.9999999), default=sizes[-1])
        low, high = (self(f"{series}_{s}nm") for s in (below, above))
        if below == above or low <= 0 or high <= 0:
            return low
        part = math.log(nm / below) / math.log(above / below)
        return math.exp((1 - part) * math.log(low) + part * math.log(high))

    def for_case(self, case: Case) -> Book:
        """The same facts for another case, with nothing noted yet."""
        return Book(self.facts, case)

    def with_value(self, name: str, value: float) -> Book:
        """The book with one number replaced, with nothing noted yet."""
        fact = replace(self.fact(name), value=value, given=True)
        return Book({**self.facts, name: fact}, self.case)


def load_book(*, overrides: Sequence[str] = (), more: Iterable[Fact] = ()) -> Book:
    """Every price that ships, and `more` facts; `overrides` are "name=number"."""
    facts = {**_shipped(), **{fact.name: fact for fact in more}}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or name not in facts:
            near = did_you_mean(name, facts) if equals else ()
            raise UsageError(f"--set {text}", "no such fact" if equals else "no value", "NAME=NUMBER", try_=near)
        facts[name] = replace(facts[name], value=_number(text, value), given=True, source="given with --set")
    return Book(facts)


def facts_of(data: Mapping[str, Any]) -> dict[str, Fact]:
    """The facts of a file: `facts` by name, and `series` by node, one fact each."""
    found = {name: Fact(name, **row) for name, row in data.get("facts", {}).items()}
    for series, row in data.get("series", {}).items():
        common = {key: value for key, value in row.items() if key != "by_node_nm"}
        for node, value in row["by_node_nm"].items():
            found[f"{series}_{node}nm"] = Fact(f"{series}_{node}nm", value, **common)
    return found


def valued(name: str, unit: str, compute: Callable[[Book], float], book: Book) -> Metric:
    """A figure with the facts it rests on; null, with the `--set` that supplies it, where one is not known."""
    reading = book.for_case(book.case)
    try:
        value = compute(reading)
    except UnknownError as lack:
        return Metric(
            name, None, unit, "assumed", f"not known: {lack.name} has no source; supply it with {lack.try_[0]}"
        )
    source: Source = "assumed" if any(f.assumed for f in reading.used.values()) else "modelled"
    return Metric(name, value, unit, source, f"{dates(reading)}; rests on {', '.join(reading.used)}")


def dates(book: Book) -> str:
    """Currency and the span of dates of what was read."""
    known = sorted({f.date for f in book.used.values() if f.date and f.date[:1].isdigit() and "USD" in f.unit})
    span = known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}" if known else "no dated price"
    return f"USD, {span}"


@cache
def _shipped() -> dict[str, Fact]:
    text = (files("insitu.cost") / "prices.yaml").read_text(encoding="utf-8")
    return facts_of(load_yaml("prices.yaml", text=text).data)


@cache
def _nodes(series: str) -> tuple[int, ...]:
    """The nodes of a series, in nanometres, smallest first."""
    names = (re.fullmatch(rf"{re.escape(series)}_(\d+)nm", name) for name in _shipped())
    return tuple(sorted(int(match[1]) for match in names if match))


def _number(override: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"--set {override}", f"{text!r}", "a number") from None
    if not math.isfinite(value):
        raise RangeError(f"--set {override}", text, "a finite number")
    return value
