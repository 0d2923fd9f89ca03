"""Hybrid systems as data: places and links, classes of requests and the steps each takes over them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from insitu.base.errors import ConfigError, InsituError, did_you_mean
from insitu.base.schema import Bytes, BytesPerSecond, Config, Seconds, Watts, load_config

Share = Annotated[float, Field(ge=0, le=1)]
AtLeastOne = Annotated[int, Field(ge=1)]


class Place(Config):
    """Where work is done: `servers` requests at a time, the next in order of arrival.

    `usd_per_hour` null: not known, then the money is not.  A request that would wait longer than `max_wait` takes its
    class's fallback, where it has one.
    """

    servers: AtLeastOne = 1
    service: Literal["fixed", "exponential"] = "fixed"
    idle: Watts = Field(default=0.0, ge=0)
    active: Watts = Field(default=0.0, ge=0)
    usd_per_hour: Annotated[float, Field(ge=0)] | None = 0.0
    max_wait: Seconds | None = Field(default=None, ge=0)


class Link(Config):
    """What joins places: one message at a time at `bandwidth`, each `latency` later at the other end.

    A message is lost with probability `loss` and sent again after `retry`; in an outage nothing is sent.
    """

    bandwidth: BytesPerSecond = Field(gt=0)
    latency: Seconds = Field(default=0.0, ge=0)
    pj_per_bit: Annotated[float, Field(ge=0)] = 0.0
    usd_per_gb: Annotated[float, Field(ge=0)] | None = 0.0
    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0
    retry: Seconds = Field(default=0.0, ge=0)
    outages: tuple[tuple[Seconds, Seconds], ...] = ()
    max_wait: Seconds | None = Field(default=None, ge=0)


class Step(Config):
    """Time at a place, or bytes over a link."""

    at: str
    time: Seconds | None = Field(default=None, ge=0)
    bytes: Bytes | None = Field(default=None, ge=0)


class Speculative(Config):
    """A small model at `draft_at` proposes `tokens`, a large one at `verify_at` takes each with probability `accept`.

    Rounds go on until `length` tokens are there; a round gives those accepted in a row and one more.
    """

    draft_at: str
    verify_at: str
    link: str
    draft: Seconds = Field(gt=0)
    verify: Seconds = Field(gt=0)
    tokens: AtLeastOne = 4
    accept: Share = 0.7
    length: AtLeastOne = 100
    bytes_up: Bytes = 64
    bytes_down: Bytes = 16

    def per_round(self) -> float:
        """Tokens that a round gives in the mean: 1 + a + a^2 + ... + a^tokens."""
        return float(sum(self.accept**k for k in range(self.tokens + 1)))


class Split(Config):
    """A network cut by layer: its first part on a chip or machine, values over the link, the rest on another.

    `cut`: how many operators stay with the first; left out, the cut with the least time is taken.
    """

    first_at: str
    rest_at: str
    link: str
    first: str
    rest: str
    cut: Annotated[int, Field(ge=0)] | None = None
    result_bytes: Bytes = 16


class Class(Config):
    """A kind of request: `share` of all, with its steps, a speculative pair, or a split of the command's network."""

    name: str
    share: Share = 1.0
    steps: tuple[Step, ...] = ()
    fallback: tuple[Step, ...] = ()
    speculative: Speculative | None = None
    split: Split | None = None


class Hybrid(Config):
    """The whole system and its traffic: `count` requests at `rate` a second."""

    rate: Annotated[float, Field(gt=0)]
    count: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    arrivals: Literal["poisson", "even"] = "poisson"
    seed: Annotated[int, Field(ge=0)] = 0
    places: dict[str, Place]
    links: dict[str, Link] = {}
    classes: tuple[Class, ...] = Field(min_length=1)


def read_hybrid(file: str | Path) -> Hybrid:
    """A system from its file; names that no place or link has, and shares that are not all, are named."""
    system = load_config(Path(file), Hybrid)
    found = faults(system, str(file))
    if found:
        raise ConfigError.collect(found)
    return system


def faults(system: Hybrid, label: str) -> list[InsituError]:
    """What the schema cannot see."""
    found: list[InsituError] = []
    total = sum(c.share for c in system.classes)
    if abs(total - 1.0) > 1e-9:
        found.append(ConfigError(f"{label}: classes", f"shares that add up to {total:g}", "shares that add up to 1"))
    for name in set(system.places) & set(system.links):
        found.append(ConfigError(f"{label}: {name}", "a place and a link", "a name of its own for each"))
    for c in system.classes:
        where = f"{label}: class {c.name}"
        if sum((bool(c.steps), c.speculative is not None, c.split is not None)) != 1:
            found.append(ConfigError(where, "not one way to work", "one of steps, speculative, split"))
        found += [f for step in (*c.steps, *c.fallback) for f in _step(system, step, where)]
        for pair in (c.speculative, c.split):
            places = () if pair is None else _places(pair)
            found += [_unknown(where, p, system.places) for p in places if p not in system.places]
            if pair is not None and pair.link not in system.links:
                found.append(_unknown(where, pair.link, system.links))
        found += [_endless(f"{label}: {n}") for n, k in system.links.items() if any(a >= b for a, b in k.outages)]
    return found


def _places(pair: Speculative | Split) -> tuple[str, str]:
    return (pair.draft_at, pair.verify_at) if isinstance(pair, Speculative) else (pair.first_at, pair.rest_at)


def _step(system: Hybrid, step: Step, where: str) -> list[InsituError]:
    if step.at in system.places:
        return [] if step.time is not None and step.bytes is None else [_form(where, step.at, "time")]
    if step.at in system.links:
        return [] if step.bytes is not None and step.time is None else [_form(where, step.at, "bytes")]
    return [_unknown(where, step.at, (*system.places, *system.links))]


def _form(where: str, at: str, need: str) -> InsituError:
    return ConfigError(f"{where}: step at {at}", "another form", f"{need}, and nothing else")


def _unknown(where: str, name: str, known: object) -> InsituError:
    names = tuple(map(str, known))  # type: ignore[call-overload]
    return ConfigError(f"{where}: {name!r}", "no such place or link", f"one of {', '.join(names)}",
                       try_=did_you_mean(name, names))  # fmt: skip


def _endless(where: str) -> InsituError:
    return ConfigError(f"{where}: outages", "one that ends before it begins", "[start, end] in order")
