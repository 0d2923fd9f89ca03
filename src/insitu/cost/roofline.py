"""One roofline with efficiency for every conventional machine: time, bytes moved, joules of moving and of computing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from math import fsum

from insitu.circuit.cost import energy_scale, facts
from insitu.cost.machines import BYTES, Level, Machine, Precision, System
from insitu.graph.graph import Graph
from insitu.graph.ops.macs import macs

PJ = 1e-12
SUPPLY = 0.8  # volts a processor's logic is taken to run at; an assumption, as no data sheet gives it


@dataclass(frozen=True)
class Work:
    """What a layer asks of any machine, for one inference, in elements.  `count` equal layers follow each other.

    `weights` are read once for all inferences of a batch; `inputs`, `outputs` and `state` (keys and values of earlier
    tokens) once for each.
    """

    name: str
    macs: float
    weights: float = 0.0
    inputs: float = 0.0
    outputs: float = 0.0
    state: float = 0.0
    count: int = 1


@dataclass(frozen=True)
class Spent:
    """What a batch takes on a machine; None where the machine's file lacks the fact that decides (`missing`).

    `moved` are bytes read from or written to each memory; `energy` = moving + arithmetic + rest, where arithmetic is
    the bare multiply and add, and the rest is control, caches, clocks and what flows all the time.
    """

    machine: str
    precision: Precision
    batch: int
    latency: float | None
    moved: Mapping[str, float]
    moving: float | None
    arithmetic: float | None
    rest: float | None
    bound: str
    missing: tuple[str, ...] = ()
    needs: float = 0.0
    fits: bool = True

    @property
    def energy(self) -> float | None:
        """Joules of the batch; where the process is not known the bare arithmetic is part of the rest."""
        if self.moving is None or self.rest is None:
            return None
        return fsum((self.moving, self.arithmetic or 0.0, self.rest))


def works_of(graph: Graph) -> tuple[Work, ...]:
    """The nodes of a graph whose sizes are bound, one inference of its own batch."""
    found: list[Work] = []
    for node in graph.nodes:
        constants = [i for i in node.inputs if i in graph.constants]
        values = [i for i in node.inputs if i and i not in graph.constants]
        found.append(
            Work(
                node.name or node.output,
                macs(graph, node),
                float(sum(graph.constants[i].size for i in constants)),
                float(sum(graph.type(i).count() for i in values)),
                float(sum(graph.type(o).count() for o in node.outputs if o)),
            )
        )
    return tuple(found)


def spend(
    works: Iterable[Work], system: System | Machine, *, precision: Precision | None = None, batch: int = 1,
    weight_bits: float | None = None,
) -> Spent:  # fmt: skip
    """What `batch` inferences take together; weights may be narrower than the arithmetic (`weight_bits`)."""
    if isinstance(system, Machine):
        system = System(system)
    machine, given = system.machine, list(works)
    kind = precision or machine.precision()
    width = BYTES[kind]
    stored = width if weight_bits is None else weight_bits / 8.0
    rows = [_Bytes.of(work, batch, width, stored) for work in given]
    held = fsum(r.weights * w.count for r, w in zip(rows, given, strict=True))
    total = held + fsum(r.state * w.count for r, w in zip(rows, given, strict=True))
    home = _level(machine, total, system.count)
    far = machine.memory.size
    missing = _missing(machine, home)
    moved = dict.fromkeys((m.name for m in machine.memories), 0.0)
    seconds: list[tuple[float, str]] = []
    for row, work in zip(rows, given, strict=True):
        near = _level(machine, row.values, system.count)
        moved[home.name] += work.count * (row.weights + row.state)
        moved[near.name] += work.count * row.values
        seconds.append(_seconds(row, work, batch, system, kind, home, near))
    latency = None if missing.intersection(_TIMES) or not given else fsum(s for s, _ in seconds)
    bound = max(seconds, key=lambda s: s[0])[1] if seconds else ""
    operations = 2.0 * batch * fsum(w.macs * w.count for w in given)
    moving, arithmetic, rest = _joules(system, kind, moved, operations, latency)
    fits = far is None or total <= far * system.count
    return Spent(
        system.name, kind, batch, latency, moved, moving, arithmetic, rest, bound,
        tuple(sorted(missing)), total, fits,
    )  # fmt: skip


@dataclass(frozen=True)
class _Bytes:
    """Bytes of one layer for a batch."""

    weights: float
    values: float
    state: float

    @staticmethod
    def of(work: Work, batch: int, width: float, stored: float) -> _Bytes:
        return _Bytes(work.weights * stored, batch * width * (work.inputs + work.outputs), batch * width * work.state)


_TIMES = frozenset({"bandwidth"})


def _level(machine: Machine, needed: float, count: int) -> Level:
    """The nearest memory that holds `needed` bytes; the farthest where none does."""
    holds = (m for m in machine.memories if m.size is not None and m.size * count >= needed)
    return next(holds, machine.memory)


def _missing(machine: Machine, home: Level) -> set[str]:
    lacking: set[str] = set()
    if home.bandwidth is None and home is machine.memory:
        lacking.add("bandwidth")
    if machine.power.max is None:
        lacking.add("power.max")
    return lacking


def _seconds(
    row: _Bytes, work: Work, batch: int, system: System, kind: Precision, home: Level, near: Level
) -> tuple[float, str]:
    """(seconds of the `count` layers, what bounds them): the slowest of arithmetic and memories, and the start."""
    machine, share = system.machine, system.machine.efficiency
    rate = machine.rates[kind] * system.count * (share.compute or 1.0)
    times = {"arithmetic": 2.0 * batch * work.macs / rate}
    for level, amount in ((home, row.weights + row.state), (near, row.values)):
        if level.bandwidth:
            flow = level.bandwidth * system.count * (share.bandwidth or 1.0)
            times[level.name] = times.get(level.name, 0.0) + amount / flow
    if system.count > 1 and machine.link:
        times["link"] = 2.0 * row.values / (machine.link * (share.bandwidth or 1.0))  # every part's sums meet
    bound = max(times, key=lambda name: times[name])
    start = share.overhead or 0.0
    return work.count * (times[bound] + start), bound if times[bound] > start else "start of layers"


def _joules(
    system: System, kind: Precision, moved: Mapping[str, float], operations: float, latency: float | None
) -> tuple[float | None, float | None, float | None]:
    """(moving, bare arithmetic, rest): the machine draws `active` all the time and, with its arithmetic busy, `max`."""
    machine = system.machine
    energies = {m.name: m.pj_per_bit for m in machine.memories}
    unknown = any(amount and energies[name] is None for name, amount in moved.items())
    moving = None if unknown else fsum(8.0 * PJ * (energies[n] or 0.0) * b for n, b in moved.items())
    arithmetic = None if machine.node is None else operations / 2.0 * mac_energy(kind, machine.node)
    top, active = machine.power.max, machine.power.active
    if top is None or active is None or latency is None or moving is None:
        return moving, arithmetic, None
    known = arithmetic or 0.0
    busy = operations * (top - active) / machine.rates[kind] + moving + system.count * active * latency
    whole = max(min(busy, system.count * top * latency), moving + known)
    return moving, arithmetic, whole - moving - known


@cache
def mac_energy(kind: Precision, node: float, supply: float = SUPPLY) -> float:
    """Joules of a bare multiply and add: Horowitz (ISSCC 2014) at 45 nm, scaled by Stillmaker and Baas (2017)."""
    digital = facts()["digital"]
    name = {"int8": "int8", "int4": "int8", "fp8": "int8", "fp4": "int8", "fp32": "fp32"}.get(kind, "fp16")
    narrow = 0.25 if kind in ("int4", "fp4") else 1.0  # a multiplier's area and energy go with the square of its bits
    at = {"from_node": digital["node_nm"] * 1e-9, "from_supply": digital["supply"]}
    return digital["multiply_pj"][name] * narrow * PJ * energy_scale(node, supply, **at)
