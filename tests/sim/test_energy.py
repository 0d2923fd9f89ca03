import math

import pytest

from insitu.arch.cost import awake, event_energy, static_power
from insitu.arch.load import load_chip
from insitu.sim.energy import CHARGES, energy
from insitu.sim.timing import simulate_time


def run(toy, chip, *, kind, vectors=4, trips=3):
    section = toy.section(
        f"LOOP {trips}", "MVM 0 1 0", "REQ 0 0 0", "ENDL", "HALT",
        descriptors=toy.mvm_operands(vectors), bindings=[toy.binding("fc", kind=kind)],
        vectors=[toy.Vector(label="relu")],
    )  # fmt: skip
    timing = simulate_time(toy.program(section), chip)
    return timing, energy(timing.counts, timing, chip)


@pytest.mark.parametrize(
    ("name", "kind"), [("wtm2101", "wtm2101"), ("dcim-28nm", "exact"), ("parametric-reram-adc8", "adc")]
)
def test_energy_is_events_times_their_cost_and_power_over_time(toy, name, kind):
    chip = load_chip(name)
    timing, spent = run(toy, chip, kind=kind)
    costs, total = event_energy(chip), timing.counts.total
    dynamic = sum(total[event] * costs[cost].value for event, (cost, _) in CHARGES.items())
    static = (static_power(chip).value + awake(chip).value) * timing.latency
    assert spent.total.value == pytest.approx(dynamic + static, rel=1e-12, abs=0)
    assert spent.total.value == pytest.approx(
        math.fsum(part.value for part in spent.components.values()), rel=1e-12, abs=0
    )
    assert sum(spent.layers.values()) == pytest.approx(dynamic, rel=1e-12, abs=0)
    assert set(spent.layers) == {"fc", "relu", "control"}
    assert spent.power.value == pytest.approx(spent.total.value / timing.latency)
    assert spent.tops_per_w.value == pytest.approx(2e-12 * 12 * 32 / spent.total.value)


def test_each_component_says_where_its_number_is_from(toy):
    _, spent = run(toy, toy.chip("adc"), kind="adc")
    assert set(spent.components) == {
        "array", "dac", "adc", "shift_add", "vector", "ram", "control", "leakage", "host",
    }  # fmt: skip
    assert all(part.unit == "J" and part.note for part in spent.components.values())
    assert spent.components["leakage"].source == "assumed" != spent.components["adc"].source
    assert "leakage" in spent.total.note


def test_a_given_constant_is_used_and_its_source_shown(toy):
    chip = toy.chip("adc", **{"energy.adc": "1 nJ", "sources": {}})
    _, spent = run(toy, chip, kind="adc")
    assert spent.components["adc"].value == pytest.approx(3 * 4 * 16 * 1e-9)
    assert spent.components["adc"].source == "assumed"
    assert spent.total.source == "modelled" or spent.components["adc"].value > spent.total.value / 2


def test_metrics_carry_the_names_of_a_report(toy):
    _, spent = run(toy, toy.chip(), kind="exact")
    metrics = spent.metrics()
    assert {"energy_j", "power_w", "tops_per_w", "energy_breakdown.ram_j", "energy_breakdown.leakage_j"} <= set(metrics)
    assert all(
        metric.unit == {"power_w": "W", "tops_per_w": "TOPS/W"}.get(name, "J") for name, metric in metrics.items()
    )


def test_twice_the_trips_take_twice_the_dynamic_energy(toy):
    chip = toy.chip()
    once, twice = (run(toy, chip, kind="exact", trips=n)[1].layers for n in (5, 10))
    assert twice["fc"] == pytest.approx(2 * once["fc"], rel=1e-9, abs=0)
