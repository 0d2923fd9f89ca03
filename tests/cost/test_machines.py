"""Machines as data: each loads, names its sources, and the roofline gives what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from insitu.base.errors import InsituError
from insitu.cost.machines import load_machine, load_system, machine_names
from insitu.cost.roofline import Work, mac_energy, spend

# Llama-2-7B: 6.48e9 weights in 32 equal layers, an output matrix, keys and values of 32 x 4096 a token
LAYERS, WIDTH, HEAD = 32, 4096, 131_072_000
BLOCK = 6_476_267_520 / LAYERS


def llama(context: int = 0) -> list[Work]:
    block = Work("block", BLOCK, BLOCK, 7 * WIDTH, 7 * WIDTH, 2.0 * WIDTH * context, LAYERS)
    return [block, Work("head", HEAD, HEAD, WIDTH, 32_000)]


@pytest.mark.parametrize("name", machine_names())
def test_every_machine_is_sound(name: str) -> None:
    machine = load_machine(name)
    assert machine.sources
    assert all(s.url for s in machine.sources)
    assert all(level.pj_per_bit for level in machine.memories)
    assert machine.price.value is None or machine.price.date, "a price has a date"
    if not machine.rates:
        with pytest.raises(InsituError, match="no rate"):
            machine.precision()
        return
    spent = spend(llama(), machine, precision=machine.precision())
    assert spent.latency is not None
    assert spent.latency > 0
    assert (spent.energy is None) == ("power.max" in spent.missing)
    if spent.energy is not None:
        assert machine.power.max is not None
        assert spent.energy <= 1.001 * machine.power.max * spent.latency or spent.rest == 0


def test_kinds_and_names() -> None:
    kinds = {load_machine(name).kind for name in machine_names()}
    assert {"cpu", "mcu", "gpu", "edge_module", "fpga", "tpu", "phone_soc", "pim"} <= kinds
    for alias in ("a100", "h100", "h200"):
        assert load_machine(alias).kind == "gpu"
    assert load_system("8xh100").name == "8xnvidia-h100-80g-sxm"
    with pytest.raises(InsituError, match="h100"):
        load_machine("h10")
    with pytest.raises(InsituError, match="at least 1"):
        load_system("0xh100")


def test_an_a100_decodes_as_measured() -> None:
    """gpt-fast at batch 1 fits the bandwidth; vLLM's largest batch (CENT artifact) is then a prediction."""
    machine = load_machine("a100")
    alone = spend(llama(), machine, precision="fp16")
    assert alone.latency is not None
    assert 1 / alone.latency == pytest.approx(104.9, rel=0.05)
    context = 512 + 3584 // 2
    room = 80e9 - 2 * (BLOCK * LAYERS + HEAD)
    batch = int(room // (2 * 2 * WIDTH * LAYERS * context))
    full = spend(llama(context), machine, precision="fp16", batch=batch)
    assert full.latency is not None
    assert full.energy is not None
    assert batch / full.latency == pytest.approx(960, rel=0.1)
    assert full.energy / batch == pytest.approx(0.303, rel=0.1)


def test_the_slower_of_arithmetic_and_memory_decides() -> None:
    machine = load_machine("h100", overrides=["efficiency.overhead=0 s"])
    bytes_per_s = machine.memory.bandwidth * machine.efficiency.bandwidth  # type: ignore[operator]
    weights = 1e9  # more than the nearest memory holds
    few = spend([Work("w", weights, weights)], machine)
    assert few.bound == machine.memory.name
    assert few.latency == pytest.approx(weights / bytes_per_s)
    assert few.moved[machine.memory.name] == weights
    many = spend([Work("w", weights, weights)], machine, batch=4096)
    assert many.bound == "arithmetic"
    rate = machine.rates["int8"] * machine.efficiency.compute  # type: ignore[operator]
    assert many.latency == pytest.approx(2 * weights * 4096 / rate)
    assert many.arithmetic == pytest.approx(4096 * weights * mac_energy("int8", 4e-9))


def test_small_networks_stay_in_the_near_memory() -> None:
    spent = spend([Work("fc", 1e4, 1e4, 100, 100)], load_machine("h100"))
    assert spent.moved["l2"] == 1e4 + 200
    assert spent.moved["hbm3"] == 0
    assert spent.bound == "start of layers"


def test_an_unknown_fact_stays_unknown(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "name: mine\ntitle: Mine\nkind: cpu\nrates: {int8: 1e12}\n"
        "memories:\n- {name: ram, kind: ddr, size: 8 GB}\nsources: []\n"
    )
    spent = spend([Work("w", 1e9, 1e9)], load_machine(mine))
    assert spent.latency is None
    assert spent.energy is None
    assert spent.missing == ("bandwidth", "power.max")
    known = load_machine(mine, overrides=["power.max=10 W"])
    assert known.power.active == pytest.approx(5.0)
    assert "power.active" in known.assumptions


def test_eight_are_faster_than_one_but_pay_for_their_links() -> None:
    one, eight = load_system("h100"), load_system("8xh100")
    layers = [Work("w", 4e10, 4e10, 1e6, 1e6)]
    alone, shared = spend(layers, one), spend(layers, eight)
    assert alone.latency is not None
    assert shared.latency is not None
    assert alone.latency / 8 <= shared.latency < alone.latency
    slow = replace(eight, machine=eight.machine.model_copy(update={"link": 1e6}))
    assert spend(layers, slow).bound == "link"


@pytest.mark.parametrize("text", ["power: {idle: 9 W, max: 1 W}", "rates: {int7: 1}", "memories: []", "kind: abacus"])
def test_broken_files_are_named(tmp_path: Path, text: str) -> None:
    mine = tmp_path / "mine.yaml"
    lines = {
        "name": "name: mine", "title": "title: Mine", "kind": "kind: cpu", "rates": "rates: {int8: 1e12}",
        "memories": "memories: [{name: ram, kind: ddr, bandwidth: 1 GB/s}]",
    }  # fmt: skip
    lines[text.partition(":")[0]] = text
    mine.write_text("\n".join(lines.values()) + "\n")
    with pytest.raises(InsituError):
        load_machine(mine)
