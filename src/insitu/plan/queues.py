"""Requests through places and links: an event simulation that loses none, with percentiles, joules, bytes and money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from typing import Any

import numpy as np

from insitu.plan.hybrid import Class, Hybrid, Link, Place, Speculative, Step

PERCENTILES = (50.0, 95.0, 99.0)
GB = 1e9
PJ = 1e-12


@dataclass
class _Station:
    """A place or link at work: when each server is free next, and what it has done."""

    free: list[float]
    busy: float = 0.0
    served: int = 0
    payload: float = 0.0
    sent: float = 0.0
    offered: float = 0.0


@dataclass(frozen=True)
class Use:
    """One place or link after the run.  `load`: work that came in over what it can do while requests arrive."""

    name: str
    served: int
    utilization: float
    load: float
    payload_bytes: float
    sent_bytes: float

    @property
    def overloaded(self) -> bool:
        return self.load >= 1.0


@dataclass(frozen=True)
class Outcome:
    """Every request's seconds in the system by class, and what it took."""

    arrived: int
    completed: int
    diverted: int
    seconds: dict[str, np.ndarray[Any, Any]]
    uses: tuple[Use, ...]
    energy_j: float
    network_bytes: float
    money_usd: float | None
    unknown: tuple[str, ...]
    span_s: float

    def all_seconds(self) -> np.ndarray[Any, Any]:
        return np.concatenate(list(self.seconds.values()))

    def to_json(self) -> dict[str, Any]:
        """The object of `insitu plan --hybrid F --json`."""
        rows = {"all": self.all_seconds(), **self.seconds}
        return {
            "schema": 1,
            "requests": {"arrived": self.arrived, "completed": self.completed, "diverted": self.diverted},
            "latency_s": {name: _spread(times) for name, times in rows.items()},
            "energy_j_per_request": self.energy_j / self.arrived,
            "network_bytes_per_request": self.network_bytes / self.arrived,
            "usd_per_request": None if self.money_usd is None else self.money_usd / self.arrived,
            "unknown": [f"{name}: supply it in the file" for name in self.unknown],
            "places_and_links": [{**vars(u), "overloaded": u.overloaded} for u in self.uses],
            "span_s": self.span_s,
        }


@dataclass
class _Run:
    system: Hybrid
    rng: np.random.Generator
    stations: dict[str, _Station]
    events: list[tuple[float, int, int, int]] = field(default_factory=list[tuple[float, int, int, int]])
    routes: list[list[Step]] = field(default_factory=list[list[Step]])
    diverted: set[int] = field(default_factory=set[int])
    energy: float = 0.0
    serial: int = 0

    def push(self, when: float, request: int, step: int) -> None:
        self.serial += 1
        heappush(self.events, (when, self.serial, request, step))


def simulate(system: Hybrid) -> Outcome:
    """Let `count` requests through, in order of arrival at each place and link, until the last is done."""
    rng = np.random.default_rng(system.seed)
    arrivals = _arrivals(system, rng)
    kinds = rng.choice(len(system.classes), size=system.count, p=[c.share for c in system.classes])
    stations = {n: _Station([0.0] * p.servers) for n, p in system.places.items()}
    stations |= {n: _Station([0.0]) for n in system.links}
    run = _Run(system, rng, stations)
    for request, (when, kind) in enumerate(zip(arrivals.tolist(), kinds.tolist(), strict=True)):
        run.routes.append(route(system.classes[kind], rng))
        run.push(when, request, 0)
    done = np.full(system.count, np.nan)
    while run.events:
        when, _, request, at = heappop(run.events)
        steps = run.routes[request]
        if at == len(steps):
            done[request] = when
            continue
        _serve(run, system.classes[int(kinds[request])], when, request, at)
    return _outcome(run, arrivals, kinds, done)


def _arrivals(system: Hybrid, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    if system.arrivals == "even":
        return np.arange(system.count) / system.rate
    return np.cumsum(rng.exponential(1.0 / system.rate, system.count))


def route(kind: Class, rng: np.random.Generator) -> list[Step]:
    """The steps of one request; a speculative pair draws what each round accepts."""
    return list(kind.steps) if kind.speculative is None else _rounds(kind.speculative, rng)


def _rounds(pair: Speculative, rng: np.random.Generator) -> list[Step]:
    """Rounds until the text is long enough, each with what was accepted in a row and one token more."""
    rounds = written = 0
    while written < pair.length:
        refused = np.flatnonzero(rng.random(pair.tokens) >= pair.accept)
        written += (int(refused[0]) if refused.size else pair.tokens) + 1
        rounds += 1
    return [*_round(pair)] * rounds


def _round(pair: Speculative) -> tuple[Step, ...]:
    return (
        Step(at=pair.draft_at, time=pair.tokens * pair.draft),
        Step(at=pair.link, bytes=pair.bytes_up),
        Step(at=pair.verify_at, time=pair.verify),
        Step(at=pair.link, bytes=pair.bytes_down),
    )


def _serve(run: _Run, kind: Class, when: float, request: int, at: int) -> None:
    """One step: wait for the first free server, work, go on; or take the fallback where the wait is too long."""
    step = run.routes[request][at]
    station = run.stations[step.at]
    place, link = run.system.places.get(step.at), run.system.links.get(step.at)
    start = max(when, station.free[0])
    if link is not None:
        start = _after_outages(start, link)
    limit = place.max_wait if place is not None else link.max_wait if link is not None else None
    if limit is not None and start - when > limit and kind.fallback and request not in run.diverted:
        run.diverted.add(request)
        run.routes[request] = [*run.routes[request][:at], *kind.fallback]
        run.push(when, request, at)
        return
    held, later = _place(run, place, step) if place is not None else _link(run, link, step, station)
    station.busy += held
    station.offered += held
    station.served += 1
    heapreplace(station.free, start + held)
    run.push(start + held + later, request, at + 1)


def _place(run: _Run, place: Place, step: Step) -> tuple[float, float]:
    """(seconds held, seconds later)."""
    time = step.time or 0.0
    held = float(run.rng.exponential(time)) if place.service == "exponential" and time else time
    run.energy += held * (place.active - place.idle)
    return held, 0.0


def _link(run: _Run, link: Link | None, step: Step, station: _Station) -> tuple[float, float]:
    """A message and its repetitions hold the link; waiting to repeat does not."""
    assert link is not None
    assert step.bytes is not None
    tries = int(run.rng.geometric(1.0 - link.loss)) if link.loss else 1
    station.payload += step.bytes
    station.sent += tries * step.bytes
    run.energy += 8.0 * tries * step.bytes * link.pj_per_bit * PJ
    return tries * step.bytes / link.bandwidth, link.latency + (tries - 1) * link.retry


def _after_outages(start: float, link: Link) -> float:
    for begin, end in sorted(link.outages):
        if begin <= start < end:
            start = end
    return start


def _outcome(
    run: _Run, arrivals: np.ndarray[Any, Any], kinds: np.ndarray[Any, Any], done: np.ndarray[Any, Any]
) -> Outcome:
    system = run.system
    finished = ~np.isnan(done)
    seconds = {c.name: (done - arrivals)[finished & (kinds == i)] for i, c in enumerate(system.classes)}
    span, coming = float(np.nanmax(done)), float(arrivals[-1])
    uses = tuple(_use(name, s, span, coming) for name, s in run.stations.items())
    idle = sum(p.idle * p.servers for p in system.places.values()) * span
    money, unknown = _money(run, span)
    return Outcome(
        len(arrivals), int(finished.sum()), len(run.diverted), seconds, uses, run.energy + idle,
        sum(u.sent_bytes for u in uses), money, unknown, span,
    )  # fmt: skip


def _use(name: str, station: _Station, span: float, coming: float) -> Use:
    servers = len(station.free)
    load = station.offered / servers / coming if coming > 0 else 0.0
    return Use(
        name, station.served, station.busy / servers / span if span else 0.0, load, station.payload, station.sent
    )


def _money(run: _Run, span: float) -> tuple[float | None, tuple[str, ...]]:
    """US dollars of places by the hour and links by the gigabyte; None where one of them has no price."""
    total, unknown = 0.0, []
    for name, place in run.system.places.items():
        if place.usd_per_hour is None:
            unknown.append(f"places.{name}.usd_per_hour")
        else:
            total += place.usd_per_hour * place.servers * span / 3600.0
    for name, link in run.system.links.items():
        sent = run.stations[name].sent
        if link.usd_per_gb is None and sent:
            unknown.append(f"links.{name}.usd_per_gb")
        else:
            total += (link.usd_per_gb or 0.0) * sent / GB
    return (None if unknown else total), tuple(unknown)


def _spread(times: np.ndarray[Any, Any]) -> dict[str, float | None]:
    if not times.size:
        return {"mean": None, **{f"p{p:.0f}": None for p in PERCENTILES}}
    values: Sequence[float] = np.percentile(times, PERCENTILES).tolist()
    return {"mean": float(times.mean()), **{f"p{p:.0f}": v for p, v in zip(PERCENTILES, values, strict=True)}}


def outcome_text(outcome: Outcome) -> str:
    """What a person sees."""
    from insitu.report.text import percent, quantity

    lines = [
        f"{outcome.arrived:,} requests, {outcome.completed:,} completed, {outcome.diverted:,} took their fallback; "
        f"{quantity(outcome.span_s, 's')} in all"
    ]
    for name, times in {"all": outcome.all_seconds(), **outcome.seconds}.items():
        row = _spread(times)
        lines.append(f"{name:16} " + ", ".join(f"{k} {quantity(v, 's')}" for k, v in row.items()))
    each = outcome.to_json()
    money = each["usd_per_request"]
    lines.append(
        f"Each request    {quantity(each['energy_j_per_request'], 'J')}, "
        f"{quantity(each['network_bytes_per_request'], 'B')} over links, "
        + ("money not known: " + ", ".join(outcome.unknown) if money is None else f"{money:.4g} USD")
    )
    for use in outcome.uses:
        words = f", overloaded: {use.load:.3g} times what it can do came in" if use.overloaded else ""
        lines.append(f"{use.name:16} {use.served:,} served, busy {percent(use.utilization)}{words}")
    return "\n".join(lines)
