"""Chips and machines as candidates: what a network takes on each, against what is required."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from insitu.arch.cost import area, event_energy, static_power
from insitu.arch.load import load_chip, presets
from insitu.arch.spec import Chip
from insitu.base.errors import InsituError
from insitu.base.metrics import Metric
from insitu.cost.book import Book, dates, valued
from insitu.cost.designs import designs
from insitu.cost.layers import stack
from insitu.cost.machines import System, load_machine, load_system, machine_names
from insitu.cost.money import chip_cost, electricity_hour, hour
from insitu.cost.points import cost
from insitu.cost.roofline import spend
from insitu.plan.network import Network
from insitu.plan.requirements import Requirements

AVAILABLE = {"vendor": "sold", "paper": "published silicon", "parametric": "parametric"}
SIMULATED = ("isaac", "puma")  # published, but never built
TOOLS = ("conformance-fp32",)  # for tests of operators, not a chip to deploy
WORDS = {"sold": "sold", "announced": "announced", "published": "published silicon", "parametric": "parametric"}


@dataclass(frozen=True)
class Bound:
    """One requirement of one candidate: `over` is how many times what is allowed it takes; None where not known."""

    name: str
    value: float | None
    limit: float
    unit: str
    note: str = ""

    @property
    def over(self) -> float | None:
        return None if self.value is None else self.value / self.limit

    def to_json(self) -> dict[str, Any]:
        shown = {"constraint": self.name, "value": self.value, "bound": self.limit, "unit": self.unit}
        return {**shown, "factor": self.over, "note": self.note}


@dataclass(frozen=True)
class Candidate:
    """A system, its figures, and how it stands to each requirement."""

    system: str
    availability: str
    metrics: Mapping[str, Metric]
    bounds: tuple[Bound, ...] = field(default=())
    machine: bool = False  # bought as it is, where a chip is made

    def value(self, name: str) -> float | None:
        metric = self.metrics.get(name)
        return None if metric is None else metric.value

    @property
    def feasible(self) -> bool | None:
        """Whether it meets everything; None where it meets what is known of it."""
        if any(b.over is not None and b.over > 1.0 + 1e-9 for b in self.bounds):
            return False
        return None if any(b.over is None for b in self.bounds) else True

    @property
    def binding(self) -> Bound | None:
        """The requirement that it misses by most, or else comes nearest to."""
        known = [b for b in self.bounds if b.over is not None]
        return max(known, key=lambda b: b.over or 0.0, default=None)

    def to_json(self) -> dict[str, Any]:
        binding = self.binding
        unknown = [b.to_json() for b in self.bounds if b.over is None]
        return {
            "system": self.system,
            "availability": self.availability,
            "feasible": self.feasible,
            "binding": binding.to_json() if binding else None,
            "unknown": unknown,
            "metrics": {name: metric.to_json() for name, metric in self.metrics.items()},
        }


def candidates(
    network: Network, wanted: Requirements, book: Book, *, systems: Sequence[str] = (), beside: Sequence[str] = ()
) -> tuple[Candidate, ...]:
    """Every chip and machine that ships (or `systems` alone), and `beside`, judged."""
    chips = [p for p in presets() if p not in TOOLS] if network.layers else []  # arrays hold weights
    names = systems or (*chips, *_machines(network))
    return tuple(_judged(name, network, wanted, book) for name in dict.fromkeys((*names, *beside)))


def _machines(network: Network) -> Iterable[str]:
    """Machines with a rate that is known, as many of a kind as hold the network's weights."""
    bits = 8.0 if network.weight_bits is None else network.weight_bits
    for name in machine_names():
        machine = load_machine(name)
        size = machine.memory.size
        if not machine.rates or machine.memory.bandwidth is None:
            continue
        need = 1.15 * (network.weights * bits / 8.0 + network.memory)
        count = 1 if not size else 2 ** math.ceil(math.log2(max(1.0, need / size)))
        yield name if count == 1 else f"{count}x{name}"


def _judged(name: str, network: Network, wanted: Requirements, book: Book) -> Candidate:
    if name in presets() or (name.endswith((".yaml", ".yml")) and not _is_machine(name)):
        return on_chip(load_chip(name), network, wanted, book)
    return on_machine(load_system(name), network, wanted, book)


def _is_machine(path: str) -> bool:
    try:
        load_machine(path)
    except InsituError:
        return False
    return True


def on_machine(system: System, network: Network, wanted: Requirements, book: Book) -> Candidate:
    """A conventional machine: roofline with efficiency, one inference at a time."""
    spent = spend(network.works, system, weight_bits=network.weight_bits)
    machine = system.machine
    missing = f"not known: supply {' and '.join(f'{machine.name}.{m}' for m in spent.missing)} in a machine file"
    idle = None if machine.power.idle is None else machine.power.idle * system.count
    cost_ = _price(system, book)
    room = machine.memory.size
    bounds = [Bound("chips", float(system.count), float(wanted.max_chips), "1")]
    bounds += [] if room is None else [Bound("memory", spent.needs, float(room * system.count), "B")]
    return _candidate(
        system.name, WORDS[machine.availability], latency=spent.latency, energy=spent.energy, idle=idle,
        price=cost_, count=system.count, bounds=bounds, missing=missing, machine=True, wanted=wanted, book=book,
    )  # fmt: skip


def _price(system: System, book: Book) -> Metric:
    """What so many machines are sold for; null, with the `--set` that supplies it, where no source says."""
    name, price = f"price_{system.machine.name}", system.machine.price
    if name in book.facts:
        return valued("price_usd", "USD", lambda b: system.count * b(name), book)
    if price.value is None:
        return Metric("price_usd", None, "USD", "assumed", "not known: supply price.value in the machine's file")
    return Metric("price_usd", system.count * price.value, "USD", "assumed", f"{price.currency}, {price.date}")


def on_chip(chip: Chip, network: Network, wanted: Requirements, book: Book) -> Candidate:
    """A compute-in-memory chip in closed form: as many as hold the weights, each layer after the other."""
    point = designs([chip])
    found = cost(stack(layer for layer, _ in network.layers), point)
    often = [count for _, count in network.layers]
    latency = sum(n * float(t) for n, t in zip(often, found.latency[:, 0], strict=True))
    static = float(point.static[0])
    energy = sum(
        n * (float(e) - static * float(t))
        for n, e, t in zip(often, found.energy[:, 0], found.latency[:, 0], strict=True)
    )
    chips = max(1, math.ceil(network.weights / _held(chip)))
    if chip.capabilities.gemv:
        latency, energy = _from_banks(chip, network, chips)
    latency += network.runtime_macs / float(point.vector_rate[0]) / chips
    energy += network.runtime_macs * float(point.e_vector[0])
    ram = float(chip.memories["ram"].size or 0.0) * chips
    if chip.capabilities.gemv:  # banks hold keys and values too
        ram += max(0.0, chips * _held(chip) - network.weights)
    price = _made(chip, chips, wanted, book)
    bounds = [Bound("chips", float(chips), float(wanted.max_chips), "1"), Bound("ram", network.memory, ram, "B")]
    return _candidate(
        chip.name if chips == 1 else f"{chips}x{chip.name}", _availability(chip),
        latency=latency, energy=energy + static * chips * latency, idle=(static_power(chip).value or 0.0) * chips,
        price=price, count=chips,
        bounds=bounds, missing="", machine=False, wanted=wanted, book=book,
    )  # fmt: skip


def _made(chip: Chip, chips: int, wanted: Requirements, book: Book) -> Metric:
    """What the chips cost to make; null where the area of their memory banks is not modelled."""
    if chip.capabilities.gemv:
        return Metric("price_usd", None, "USD", "assumed", "not known: the area of its memory banks is not modelled")
    spread = book if wanted.volume is None else book.with_value("volume", wanted.volume)
    square = area(chip).value
    square = None if square is None else square * 1e6
    made = chip_cost(spread, area_mm2=square, node=chip.technology.node, chips=chips)
    return Metric("price_usd", made.value, "USD", made.source, f"to make; {made.note}")


def _from_banks(chip: Chip, network: Network, chips: int) -> tuple[float, float]:
    """(seconds, joules beside what always flows) where every input vector reads all weights out of the banks."""
    energy = {name: metric.value or 0.0 for name, metric in event_energy(chip).items()}
    read = sum(count * layer.macs for layer, count in network.layers)
    width = chip.array.bits_per_cell * chip.macro.weights.slices / 8.0
    rate = chips * chip.macros * chip.array.rows / chip.macro.t_read
    return read / rate, read * (energy["mac"] + width * energy["bank_read_byte"])


def _held(chip: Chip) -> float:
    """Weights that one chip holds: in its macros, or in the banks that they read."""
    banks = chip.memories.get("banks")
    if chip.capabilities.gemv and banks is not None and banks.size:
        return banks.size * 8.0 / (chip.array.bits_per_cell * chip.macro.weights.slices)
    return float(chip.macros * chip.weight_rows * chip.weight_cols)


def _availability(chip: Chip) -> str:
    return "parametric" if chip.name in SIMULATED else AVAILABLE.get(chip.origin, chip.origin)


def _candidate(
    name: str, availability: str, *, latency: float | None, energy: float | None, idle: float | None, price: Metric,
    count: int, bounds: Sequence[Bound], missing: str, machine: bool, wanted: Requirements, book: Book,
) -> Candidate:  # fmt: skip
    """Figures at the required rate: mean power is work and, between inferences, idling."""
    busy = None if latency is None else wanted.rate * latency
    power = None
    if energy is not None and idle is not None and busy is not None:
        power = wanted.rate * energy + idle * max(0.0, 1.0 - busy)
    hours = None if wanted.battery_wh is None or not power else wanted.battery_wh / power
    figures = {
        "latency_s": Metric("latency_s", latency, "s", "modelled", "" if latency is not None else missing),
        "throughput_per_s": Metric("throughput_per_s", None if not latency else 1.0 / latency, "1/s", "modelled"),
        "energy_j": Metric("energy_j", energy, "J", "modelled", "" if energy is not None else missing),
        "power_w": Metric("power_w", power, "W", "modelled", "mean at the required rate"),
        "chips": Metric("chips", float(count), "1", "modelled"),
        "price_usd": price,
        "electricity_usd_per_year": _year(power, book),
        "usd_per_result": _per_result(price, power, wanted, book),
    }
    if wanted.battery_wh is not None:
        figures["battery_hours"] = Metric("battery_hours", hours, "h", "modelled", "of one charge, all of it for this")
    judged = (*bounds, *_bounds(figures, busy, wanted))
    return Candidate(name, availability, figures, judged, machine)


def _per_result(price: Metric, power: float | None, wanted: Requirements, book: Book) -> Metric:
    """Dollars of an inference (a token) at the required rate: the price over the years, and electricity."""
    name = "usd_per_result"
    if price.value is None or power is None:
        note = price.note if price.value is None else "not known: the power is not"
        return Metric(name, None, "USD", "assumed", note)
    bought = price.value

    def each(b: Book) -> float:
        return hour(b, price=bought, watts=power, around="server_share").total / (3600.0 * wanted.rate)

    return valued(name, "USD", each, book)


def _year(power: float | None, book: Book) -> Metric:
    if power is None:
        return Metric("electricity_usd_per_year", None, "USD", "modelled", "not known: the power is not")
    reading = book.for_case(book.case)
    value = electricity_hour(reading, watts=power, pue="pue_average") * reading("hours_per_year")
    return Metric("electricity_usd_per_year", value, "USD", "modelled", dates(reading))


def _bounds(figures: Mapping[str, Metric], busy: float | None, wanted: Requirements) -> list[Bound]:
    found = [Bound("rate", None if busy is None else busy, 1.0, "share of the time at work")]
    for name, metric, limit, unit in (
        ("latency", "latency_s", wanted.latency, "s"),
        ("power", "power_w", wanted.power, "W"),
        ("price", "price_usd", wanted.price_usd, "USD"),
    ):
        if limit is not None:
            found.append(Bound(name, figures[metric].value, limit, unit, figures[metric].note))
    if wanted.battery_wh is not None and wanted.hours is not None:
        power = figures["power_w"].value
        asked = None if power is None else power * wanted.hours
        found.append(Bound("battery", asked, wanted.battery_wh, "Wh"))
    return found
