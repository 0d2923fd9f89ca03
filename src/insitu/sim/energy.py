"""What a run costs: events times the energy of each, and what flows all the time times the latency."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from insitu.arch.cost import awake, event_energy, host_idle, leakage
from insitu.arch.spec import Chip
from insitu.base.metrics import Metric, Source
from insitu.sim.counts import Counts
from insitu.sim.poly import Number, whole
from insitu.sim.timing import Timing

# event of sim/counts.py -> (event of arch/cost.py, component of the breakdown)
CHARGES: Mapping[str, tuple[str, str]] = {
    "array_macs": ("mac", "array"),
    "dac_drives": ("dac", "dac"),
    "adc_conversions": ("adc", "adc"),
    "shift_adds": ("shift_add", "shift_add"),
    "vector_operations": ("vector_op", "vector"),
    "ram_read_bytes": ("ram_read_byte", "ram"),
    "ram_write_bytes": ("ram_write_byte", "ram"),
    "weight_bits": ("weight_bits", "weights"),
    "bank_read_bytes": ("bank_read_byte", "banks"),
    "store_read_bytes": ("store_read_byte", "weights"),
    "link_bytes": ("link_byte", "link"),
    "commands": ("control", "control"),
}
HOST_VALUE = Metric(
    "host_value",
    100e-12,
    "J",
    "assumed",
    "assumption: 8 cycles of a microcontroller core for each element, any operator",
)
RARE = ("weights", "banks", "link")  # of programs that load weights, multiply in memory banks, or span chips
_WEAKEST: tuple[Source, ...] = ("assumed", "modelled", "measured")


@dataclass(frozen=True)
class Energy:
    """Joules of one run by component, with the origin of the constants; `layers` holds what their own events take.

    Leakage and the idle host belong to no layer: they flow as long as the run takes.
    """

    components: Mapping[str, Metric]
    layers: Mapping[str, float]
    total: Metric
    power: Metric
    tops_per_w: Metric

    def metrics(self) -> dict[str, Metric]:
        """By their names in a report: energy_j, energy_breakdown.<component>_j, power_w, tops_per_w."""
        parts = {f"energy_breakdown.{name}_j": metric for name, metric in self.components.items()}
        return {"energy_j": self.total, **parts, "power_w": self.power, "tops_per_w": self.tops_per_w}


def energy(counts: Counts, timing: Timing, chip: Chip, *, chips: int = 1) -> Energy:
    """The energy of a run with these events and this latency on `chips` chips, which all leak, with their hosts.

    Counts with named sizes in them are an error.
    """
    costs = event_energy(chip)
    parts = _dynamic(counts.total, costs)
    for name, power in (("leakage", leakage(chip)), ("host", host_idle(chip))):
        parts[name] = Metric(name, chips * (power.value or 0.0) * timing.latency, "J", power.source, power.note)
    if drawn := awake(chip).value:
        parts["awake"] = Metric("awake", chips * drawn * timing.latency, "J", awake(chip).source, awake(chip).note)
    if counts.total["host_values"]:
        parts["host"] = _joined("host", [parts["host"], _host_work(counts.total)])
    joules = math.fsum(part.value or 0.0 for part in parts.values())
    source, note = _origin(parts, joules)
    watts = joules / timing.latency if timing.latency else None
    rate = 2e-12 * whole(counts.total["macs"]) / joules if joules else None
    return Energy(
        components=parts,
        layers={label: _joules(events, costs) for label, events in counts.layers.items()},
        total=Metric("energy_j", joules, "J", source, note),
        power=Metric("power_w", watts, "W", source, f"energy over latency; {note}"),
        tops_per_w=Metric("tops_per_w", rate, "TOPS/W", source, f"2 operations a MAC of the network; {note}"),
    )


def _host_work(events: Mapping[str, Number]) -> Metric:
    joules = whole(events["host_values"]) * (HOST_VALUE.value or 0.0)
    return Metric("host_values", joules, "J", HOST_VALUE.source, HOST_VALUE.note)


def _dynamic(events: Mapping[str, Number], costs: Mapping[str, Metric]) -> dict[str, Metric]:
    """Component -> joules of its events; the weakest origin among those that cost anything."""
    parts: dict[str, list[Metric]] = {}
    for event, (cost, component) in CHARGES.items():
        if component in RARE and not events[event]:
            continue
        unit = costs[cost]
        joules = whole(events[event]) * (unit.value or 0.0)
        parts.setdefault(component, []).append(Metric(cost, joules, "J", unit.source, f"{cost}: {unit.note}"))
    return {component: _joined(component, metrics) for component, metrics in parts.items()}


def _joined(name: str, metrics: list[Metric]) -> Metric:
    sources = {metric.source for metric in metrics if metric.value} or {metrics[0].source}
    source: Source = next(s for s in _WEAKEST if s in sources)
    note = "; ".join(dict.fromkeys(m.note for m in metrics))
    return Metric(name, math.fsum(m.value or 0.0 for m in metrics), "J", source, note)


def _joules(events: Mapping[str, Number], costs: Mapping[str, Metric]) -> float:
    own = [whole(events[event]) * (costs[cost].value or 0.0) for event, (cost, _) in CHARGES.items()]
    return math.fsum([*own, _host_work(events).value or 0.0])


def _origin(parts: Mapping[str, Metric], joules: float) -> tuple[Source, str]:
    """Assumed where most of it rests on assumptions; the note names them and their share."""
    assumed = {name: part.value for name, part in parts.items() if part.source == "assumed" and part.value}
    if not assumed:
        return "modelled", "executed events times component energies"
    share = math.fsum(assumed.values()) / joules
    note = f"{100 * share:.0f} % rests on assumed constants ({', '.join(sorted(assumed))})"
    return ("assumed" if share > 0.5 else "modelled"), note
