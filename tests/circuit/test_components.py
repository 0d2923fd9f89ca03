"""Components: never free, never cheaper for more bits, rows or bytes or an older node, and of a known order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from insitu.arch.cost import area, event_energy, memory_latency, peak_efficiency
from insitu.arch.load import load_chip
from insitu.arch.thermal import heated
from insitu.circuit.converters import conversion_energy, converter_area, decision_energy
from insitu.circuit.effects import Physics
from insitu.circuit.heat import leakage_factor
from insitu.circuit.memories import access_time, dram_byte, dram_time
from insitu.circuit.network import bus_byte
from insitu.circuit.periphery import (
    adder_energy,
    decoder_area,
    decoder_energy,
    driver_area,
    hold_area,
    hold_energy,
    line_energy,
    periphery_area,
)
from insitu.circuit.spec import Technology
from insitu.circuit.times import Converter

NODES = np.array([3, 5, 7, 16, 22, 28, 32, 45, 65, 90, 130]) * 1e-9
KINDS: tuple[Converter, ...] = ("sar", "flash", "ramp", "cco")
N28, V = 28e-9, 0.9

# each against one growing quantity, all else fixed
GROWING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "wordline over columns": lambda n: line_energy(n, N28, V),
    "decoder over rows": lambda n: decoder_energy(n, N28, V),
    "decoder area over rows": lambda n: decoder_area(n, N28),
    "driver area over rows": lambda n: driver_area(n, 1, N28),
    "driver area over bits": lambda n: driver_area(128, np.minimum(n, 16), N28),
    "adder tree over bits": lambda n: adder_energy(n, N28, V),
    "periphery area over bitlines": lambda n: periphery_area(128, n, 1, N28),
    "bus over area": lambda n: bus_byte(n * 1e-6, V, stops=1, router_scale=1.0),
}
OLDER: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "comparison": lambda node: decision_energy(node, V),
    "line": lambda node: line_energy(128, node, V),
    "decoder": lambda node: decoder_energy(128, node, V),
    "decoder area": lambda node: decoder_area(128, node),
    "driver area": lambda node: driver_area(128, 4, node),
    "sample-and-hold": lambda node: hold_energy(node, V),
    "sample-and-hold area": hold_area,
    "adder": lambda node: adder_energy(8, node, V),
    **{f"{kind} energy": lambda node, kind=kind: conversion_energy(8, node, V, kind) for kind in KINDS},
    **{f"{kind} area": lambda node, kind=kind: converter_area(8, node, kind) for kind in KINDS},
}


@pytest.mark.parametrize("name", GROWING)
def test_more_never_costs_less(name: str) -> None:
    values = GROWING[name](np.arange(1.0, 600.0))
    assert (values > 0).all()
    assert (np.diff(values) >= 0).all()


@pytest.mark.parametrize("name", OLDER)
def test_an_older_node_never_costs_less(name: str) -> None:
    values = OLDER[name](NODES)
    assert (values > 0).all()
    assert (np.diff(values) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_converter_of_more_bits_costs_more(kind: Converter) -> None:
    bits = np.arange(1, 13)
    assert (np.diff(conversion_energy(bits, N28, V, kind)) > 0).all()
    assert (np.diff(converter_area(bits, N28, kind)) > 0).all()


def test_kinds_of_converters_differ_as_they_should() -> None:
    """A flash converter compares 2^b - 1 times where a SAR converter compares b times."""
    flash, sar = (conversion_energy(6, N28, V, kind) for kind in ("flash", "sar"))
    assert flash > 5 * sar
    assert float(conversion_energy(1, N28, V, "flash")) == pytest.approx(
        float(decision_energy(N28, V)) * 4 / 3, rel=1e-9, abs=0
    )


def test_sar_converters_lie_among_published_ones() -> None:
    """8 bits at 28 nm: the best fifth of the survey takes 1.1 pJ at 100 MS/s, slower ones in macros take less."""
    assert 0.05e-12 < float(conversion_energy(8, N28, V, "sar")) < 2e-12


def test_dram_rows() -> None:
    """LPDDR4's 8 pJ/bit at the mean use of a row; a row for every burst costs more, and takes three times as long."""
    used = 1 - 256 / 2066
    assert dram_byte(used) == pytest.approx(64e-12, rel=1e-6, abs=0)
    hits = np.linspace(0, 1, 11)
    assert (np.diff([dram_byte(h) for h in hits]) <= 0).all()
    assert dram_time(0.0) == pytest.approx(3 * dram_time(1.0), rel=1e-9, abs=0)


def test_memories_are_slower_where_they_are_larger_and_never_instant() -> None:
    """One peer's table has an eDRAM that answers in 1e-16 s."""
    for node in (65, 28, 7):
        process = Technology(node=node * 1e-9, supply=0.9)
        times = [access_time(kib * 1024, kib * 2e-10, process) for kib in (1, 8, 64, 1024, 65536)]
        assert (np.diff(times) > 0).all()
        assert 5e-11 < times[0] < times[-1] < 1e-7
    for name in ("isaac", "puma", "wtm2101", "dcim-28nm"):
        assert 5e-11 < (memory_latency(load_chip(name), "ram").value or 0.0) < 1e-7


def test_a_shared_memory_is_further_away_on_a_larger_die() -> None:
    one, many = (event_energy(load_chip("parametric-reram-adc8", overrides=[f"chip.tiles={n}"])) for n in (1, 16))
    assert (one["ram_read_byte"].value or 0) < (many["ram_read_byte"].value or 0)


def test_summed_components_need_no_fit() -> None:
    """Within a factor of 3 of 22 TOPS/W for the class of dcim-28nm's silicon, and dearer with a flash converter."""
    digital = load_chip("dcim-28nm", overrides=["macro.costs=components", "energy.mac=null"])
    assert 22 / 3 < (peak_efficiency(digital).value or 0) < 22 * 3
    sar, flash = (
        load_chip("parametric-reram-adc8", overrides=["macro.costs=components", f"macro.converter={kind}"])
        for kind in ("sar", "flash")
    )
    assert (peak_efficiency(sar).value or 0) > (peak_efficiency(flash).value or 0)
    assert (area(sar).value or 0) < (area(flash).value or 0)


def test_heat() -> None:
    """Leakage doubles every 20 K; heat makes cells drift faster."""
    assert leakage_factor(320) == pytest.approx(2.0)
    drifting = [
        "cell={name: mine, kind: reram, bits: 2, nonvolatile: true, area_f2: 50}",
        "cell.drift.nu=0.05",
        "cell.activation=1.0",
    ]
    cool = load_chip("parametric-reram-adc8", overrides=drifting)
    hot = heated(cool, 1.0)
    aged = [Physics.parse("drift,temperature", chip, time=3600.0).age(chip) for chip in (cool, hot)]
    assert aged[0] == pytest.approx(3600.0)
    assert aged[1] > 2 * aged[0]
