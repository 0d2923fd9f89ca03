"""Columns measured one by one: the trims take away what they say, cost set-up, and change no exact integer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.base.errors import InsituError
from insitu.circuit.effects import Physics
from insitu.circuit.trim import column_trims
from insitu.device.cell import Stuck
from insitu.flow.chain import build
from insitu.flow.check import compare
from insitu.flow.physics import instance_session
from insitu.isa.check import find_faults
from insitu.isa.setup import COLUMNS, COLUMNS_AGAIN
from insitu.runtime.session import Session
from insitu.sim.timing import simulate_setup
from tests.flow.line import BARE, captured, check_semantics, inputs_of
from tests.graph.networks import model, node

YEAR = 365.25 * 86400.0
SPARED, STUCK = ("calibration.spare_columns=true",), Stuck(off=0.0005, on=0.001)
CHIPS = {
    "sliced": ("parametric-reram-adc8", BARE),
    "split": ("parametric-reram-adc8", ("array.rows=24", "array.cols=16", "macro.columns_per_adc=64", *BARE)),
    "pcm": (
        "parametric-reram-adc8",
        ("cell=pcm-hermes", "array.bits_per_cell=8", "macro.weights.slices=1", "macro.input.bits_per_pass=8", *BARE),
    ),
    "wtm2101": ("wtm2101", ("calibration.refine_passes=0",)),
}  # fmt: skip


def chip_of(name: str, *more: str) -> Any:
    preset, overrides = CHIPS[name]
    return load_chip(preset, overrides=(*overrides, *more))


def line(chip: Any) -> Session:
    """A dense layer of 40 by 48 whose inputs are seldom negative."""
    rng = np.random.default_rng(0)
    w, b = (rng.standard_normal((40, 48)) / 6).astype(np.float32), rng.standard_normal(48).astype(np.float32)
    graph = captured(
        model([node("Gemm", ["x", "w", "b"], ["y"])], inputs={"x": ["N", 40]}, outputs=["y"], tensors={"w": w, "b": b})
    )
    _, quantized, program = build(graph, chip, calibration=samples(graph, 64, seed=3))
    return Session(program, graph=quantized)


def samples(graph: Any, count: int, *, seed: int) -> dict[str, Any]:
    return {n: np.abs(x) + 0.1 * x for n, x in inputs_of(graph, count, seed=seed).items()}


def error(session: Session, chip: Any, effects: str, *, time: float = 0.0) -> float:
    """Mean square error of output codes over four chips."""
    codes = session.codes(samples(session.graph, 48, seed=9))
    ideal = session.run_codes(codes)["y"].astype(np.float64)
    physics, total = Physics.parse(effects, chip, time=time), 0.0
    for instance in range(4):
        noisy = instance_session(session, physics, instance=instance, seed=1).run_codes(codes)["y"]
        total += float(((noisy - ideal) ** 2).mean())
    return total / 4


@pytest.mark.parametrize("name", CHIPS)
def test_gains_and_offsets_are_taken_away(name: str) -> None:
    """Spread of 8 % in gain and of 3 codes in offset: what is left is rounding and the measurement's own error."""
    given = ("physics.column_gain={mean: 1, sd: 0.08}", "physics.column_offset={sd: 3, compensated: 1}")
    bare, trimmed = chip_of(name, *given), chip_of(name, *given, "calibration.column_gain=true")
    effects = "column_gain,column_offset,adc_noise"
    before, after = error(line(bare), bare, effects), error(line(trimmed), trimmed, effects)
    assert after < 0.12 * before


@pytest.mark.parametrize(("name", "left"), [("pcm", 0.6), ("sliced", 0.7)])
def test_errors_of_cells_lose_their_part_in_a_column(name: str, left: float) -> None:
    """Of independent errors of cells only mean and slope go: much where inputs are above zero, plane by plane too."""
    bare, trimmed = chip_of(name), chip_of(name, "calibration.column_gain=true")
    assert error(line(trimmed), trimmed, "full") < left * error(line(bare), bare, "full")


def test_each_column_makes_up_for_its_own_drift() -> None:
    """Trims of when the chip was programmed go stale; those of now beat one factor for the whole array."""
    found = {
        what: error(line(chip_of("pcm", *more)), chip_of("pcm", *more), "full", time=YEAR)
        for what, more in {
            "array": ("calibration.drift_compensation=true",),
            "then": ("calibration.drift_compensation=true", "calibration.column_gain=true"),
            "now": ("calibration.drift_compensation=true", "calibration.column_drift=true"),
        }.items()
    }
    assert found["now"] < found["then"] < found["array"]
    assert found["now"] < 0.7 * found["array"]


@pytest.mark.parametrize("name", CHIPS)
def test_exact_integers_stay_and_set_up_is_counted(name: str) -> None:
    bare, chip = chip_of(name), chip_of(name, "calibration.column_gain=true", "calibration.known_inputs=16")
    session = line(chip)
    program, codes = session.program, session.codes(samples(session.graph, 3, seed=5))
    assert compare(session, codes).mismatches == 0
    check_semantics(program, session.graph, {n: c[0] for n, c in codes.items()})
    assert [c.args[1] for s in program.sections for c in s.code if c.op == "CAL"].count(COLUMNS) > 0
    once, played = (
        simulate_setup(p, c).counts.total["adc_conversions"] for p, c in ((line(bare).program, bare), (program, chip))
    )
    assert played == once * (1 + 16 * 4)  # beside the mean input, 16 inputs are read four times each
    assert simulate_setup(program, chip).latency > simulate_setup(line(bare).program, bare).latency


def test_a_procedure_without_inputs_is_a_fault() -> None:
    chip = chip_of("sliced", "calibration.column_gain=true")
    program = line(chip).program
    section = program.sections[0]
    bindings = tuple(replace(b, expected="") for b in section.bindings)
    broken = replace(program, sections=(replace(section, bindings=bindings), *program.sections[1:]))
    assert any(f"procedure {COLUMNS}" in str(f) for f in find_faults(broken))
    assert COLUMNS_AGAIN not in {c.args[1] for c in section.code if c.op == "CAL"}


def test_what_does_not_stand_out_is_not_believed() -> None:
    """Columns that are alike keep a gain of one, however noisy the reads; those that differ get their own."""
    rng = np.random.default_rng(0)
    wanted, noise = rng.normal(0, 20, (64, 100)), rng.normal(0, 4, (64, 100))
    alike = column_trims(wanted, wanted + noise, lo=-128, hi=127)
    assert np.std(alike.gain) < 0.5 * 4 / 20 / 8  # half of the error of an estimate
    gains, offsets = 1 + 0.1 * rng.standard_normal(100), 3 * rng.standard_normal(100)
    apart = column_trims(wanted, wanted * gains + offsets + noise, lo=-128, hi=127)
    assert np.std(apart.gain * gains) < 0.04
    assert np.std(apart.offset - offsets) < 0.7


@pytest.mark.parametrize("name", ["sliced", "pcm"])
@pytest.mark.parametrize("time", [0.0, YEAR])
def test_spare_columns_take_the_place_of_the_worst(name: str, time: float) -> None:
    """A few stuck cells spoil a few columns: twelve spares for 48 columns take most of that, and no exact integer."""
    bare, spared = (chip_of(name, "macro.reserved_columns=12", *more) for more in ((), SPARED))
    bare, spared = (c.model_copy(update={"cell": c.cell.model_copy(update={"stuck": STUCK})}) for c in (bare, spared))
    effects = "stuck_cells" if time == 0 or name == "sliced" else "stuck_cells,drift"
    session = line(spared)
    assert compare(session, session.codes(samples(session.graph, 3, seed=5))).mismatches == 0
    before, after = error(line(bare), bare, "stuck_cells"), error(session, spared, "stuck_cells")
    assert after < 0.5 * before
    if effects != "stuck_cells":
        assert error(session, spared, effects, time=time) < error(line(bare), bare, effects, time=time)


def test_spares_need_reserved_columns() -> None:
    with pytest.raises(InsituError, match="reserved"):
        chip_of("sliced", "calibration.spare_columns=true")
