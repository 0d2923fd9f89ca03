"""`insitu plan`: candidates, what binds, what is not known, and what would flip the answer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from insitu.arch.cost import event_energy
from insitu.arch.load import load_chip
from insitu.base.errors import InsituError
from insitu.llm.shapes import load_shape
from insitu.plan.bill import money
from insitu.plan.candidates import candidates
from insitu.plan.decide import Decision, decide
from insitu.plan.facts import plan_book
from insitu.plan.network import Network, of_graph, of_shape
from insitu.plan.requirements import TEMPLATE, Requirements, profiles, read_requirements
from tests.cost.test_points import mlp

KEYS = {"system", "availability", "feasible", "binding", "metrics"}


@pytest.fixture(scope="module")
def network() -> Network:
    return of_graph(mlp(256, 128, 10).bind({"N": 1}))


def plan(network: Network, *, sets: tuple[str, ...] = (), include_all: bool = False, **bounds: object) -> Decision:
    wanted = Requirements.model_validate(bounds)
    return decide(candidates(network, wanted, plan_book(overrides=sets)), wanted, include_all=include_all)


def test_thirty_candidates_in_five_seconds(network: Network) -> None:
    start = time.monotonic()
    found = plan(network)
    assert time.monotonic() - start < 5
    assert len(found.candidates) >= 30
    assert {c.availability for c in found.candidates} >= {"sold", "published silicon", "parametric"}
    for row in found.to_json()["candidates"]:
        assert set(row) >= KEYS


def test_only_what_is_sold_is_recommended(network: Network) -> None:
    found = plan(network)
    assert found.recommendation is not None
    assert found.recommendation.availability == "sold"
    assert found.best_other is not None
    assert found.best_other.availability != "sold"
    assert any("were sold" in words for words in found.flips_if)
    every = plan(network, include_all=True)
    assert every.recommendation is not None
    assert every.recommendation.value("energy_j") <= found.recommendation.value("energy_j")  # type: ignore[operator]


def test_what_binds_and_by_how_much(network: Network) -> None:
    found = plan(network, latency=1e-9)
    assert found.recommendation is None
    nearest = found.nearest()[0].binding
    assert nearest is not None
    assert nearest.name == "latency"
    assert nearest.over is not None
    assert nearest.over == pytest.approx(nearest.value / 1e-9)  # type: ignore[operator]
    assert found.to_json()["infeasible"][0]["binding"]["factor"] > 1


def test_the_binding_requirement_flips_the_answer(network: Network) -> None:
    """Just above the recommended system's own figure it stays feasible, just below it no longer is."""
    best = plan(network).recommendation
    assert best is not None
    power = best.value("power_w")
    assert power is not None
    at, below = (plan(network, power=power * f) for f in (1.001, 0.999))
    name = best.system
    assert next(c for c in at.candidates if c.system == name).feasible is not False
    assert next(c for c in below.candidates if c.system == name).feasible is False


def test_an_unknown_price_is_null_and_named(network: Network) -> None:
    found = plan(network, price_usd=1e6)
    row = next(c for c in found.candidates if c.system == "riscv-gap9")
    assert row.value("price_usd") is None
    assert row.feasible is None
    assert "--set price_riscv-gap9=NUMBER" in row.metrics["price_usd"].note
    known = plan(network, price_usd=1e6, sets=("price_riscv-gap9=12",))
    assert next(c for c in known.candidates if c.system == "riscv-gap9").feasible is True
    for c in found.candidates:
        if c.value("price_usd") is not None:
            assert "USD" in c.metrics["price_usd"].note
            assert any(y in c.metrics["price_usd"].note for y in ("2016", "2020", "2022", "2023", "2024", "2025"))


def test_nobody_on_the_front_is_beaten(network: Network) -> None:
    found = plan(network)
    rows = {c.system: c for c in found.candidates}
    front = [rows[name] for name in found.pareto]
    assert front
    for one in front:
        for other in (c for c in found.candidates if c.feasible):
            pairs = [(other.value(k), one.value(k)) for k in ("energy_j", "latency_s", "price_usd")]
            if all(a is not None and b is not None for a, b in pairs):
                assert not all(a < b for a, b in pairs)  # type: ignore[operator]


def test_a_language_model_takes_several_machines() -> None:
    name, shape = load_shape("shape:llama-3-70b")
    found = plan(of_shape(name, shape, context=1024, weight_bits=8), max_chips=8)
    by_name = {c.system: c for c in found.candidates}
    assert "nvidia-h200-141g-sxm" in by_name
    assert "2xnvidia-h100-80g-sxm" in by_name
    chips = next(c for c in found.candidates if c.system.endswith("xdcim-28nm"))
    assert chips.feasible is False


def test_battery_hours(network: Network) -> None:
    found = plan(network, battery_wh=0.2, hours=8.0, rate=10.0)
    for c in found.candidates:
        power, hours = c.value("power_w"), c.value("battery_hours")
        if power:
            assert hours == pytest.approx(0.2 / power)


def test_requirements_from_every_side(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(TEMPLATE)
    assert read_requirements(str(file), None, {}).latency == 0.1
    mixed = read_requirements(str(file), "earbuds", {"power": "2 mW"})
    assert (mixed.power, mixed.latency) == (2e-3, 0.1)
    for name in profiles():
        read_requirements(None, name, {})
    file.write_text("latencies: 3 ms\n")
    with pytest.raises(InsituError, match="latency"):
        read_requirements(str(file), None, {})
    with pytest.raises(InsituError, match="earbuds"):
        read_requirements(None, "earbud", {})


def test_near_memory_chips_pay_for_their_banks(network: Network) -> None:
    """Every weight is read once a vector at the bank's energy; GDDR6-AiM holds a gibibyte."""
    row = next(c for c in plan(network, include_all=True).candidates if c.system == "aim-gddr6")
    chip = load_chip("aim-gddr6")
    read = (256 * 128 + 128 * 10) * (event_energy(chip)["bank_read_byte"].value or 0.0)
    assert row.value("energy_j") > read  # type: ignore[operator]


def test_the_money_of_a_chip_of_ones_own(network: Network) -> None:
    """Three cases in order, parts that add up, and a volume at which it costs what the cheapest machine does."""
    wanted, book = Requirements(volume=1e5), plan_book()
    found = candidates(network, wanted, book)
    chip = next(c for c in found if c.system == "dcim-28nm")
    shown = money(chip, found, wanted, book)
    assert shown is not None
    cases = shown["cases"]
    assert cases["floor"] < cases["typical"] < cases["pessimistic"]
    assert sum(shown["parts"].values()) == pytest.approx(shown["price_usd"])
    assert shown["owning"]["total_usd"] == pytest.approx(shown["price_usd"] + shown["owning"]["electricity_usd"])
    row = next(r for r in shown["break_even"] if r["against"] == "raspberry-pi-5")
    same = Requirements(volume=row["volume"])
    at = next(c for c in candidates(network, same, book) if c.system == "dcim-28nm")
    assert at.value("price_usd") == pytest.approx(row["price_usd"])
    assert "volume" in shown["percent_for_one_percent"] or "design_nre" in shown["percent_for_one_percent"]
