"""Levels in time: drift, compensation, temperature, stuck cells and wires reach the weights that columns see."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.base.errors import UsageError
from insitu.circuit.effects import Physics
from insitu.circuit.tile import effective_weights
from insitu.circuit.wires import Wires, transfer
from insitu.device.laws import DAY, HOUR, YEAR

DRIFTING = ["cell.drift.nu=0.05", "cell.drift.nu_sd=0.01"]
WEIGHTS = np.random.default_rng(0).integers(-3, 4, (256, 64))


def chip(*overrides: str, cell: str | None = None):
    inline = [] if cell else ["cell={name: mine, kind: reram, bits: 2, nonvolatile: true, area_f2: 50}"]
    named = [f"cell={cell}"] if cell else []
    return load_chip("parametric-reram-adc8", overrides=[*named, *inline, *overrides])


def held(given, physics: Physics):
    where = {"seed": 1, "instance": 0, "macro": 0, "y0": 0, "x0": 0}
    return partial(effective_weights, chip=given, **where)(WEIGHTS, physics=physics)


def slope(now) -> float:
    return float((now * WEIGHTS).sum() / (WEIGHTS**2).sum())


def test_levels_fall_with_time_as_published() -> None:
    """PCM of Nandakumar: 0.763, 0.654, 0.492 of the ideal slope at 1 h, 1 day, 1 year, uncompensated."""
    given = chip(cell="pcm-nandakumar")
    fresh = Physics.parse("programming_noise,drift", given)
    slopes = [slope(held(given, fresh.after(t))) for t in (0.0, HOUR, DAY, YEAR)]
    assert slopes == pytest.approx([0.986, 0.763, 0.654, 0.492], abs=0.04)


def test_compensation_scales_the_array_back() -> None:
    given = chip("calibration.drift_compensation=true", cell="pcm-nandakumar")
    physics = Physics.parse("programming_noise,drift", given, time=YEAR)
    assert slope(held(given, physics)) == pytest.approx(1.0, abs=0.03)
    assert slope(held(given, Physics.parse("drift", given, calibrated=False, time=YEAR))) < 0.7


def test_a_users_drift_and_its_temperature() -> None:
    cool = chip(*DRIFTING, "cell.activation=1.0")
    hot = chip(*DRIFTING, "cell.activation=1.0", "technology.temperature=358 K")
    physics = Physics.parse("drift,temperature", cool, time=DAY)
    assert slope(held(hot, physics)) < slope(held(cool, physics)) < 1.0
    expected = (DAY + 1) ** -0.05 * np.exp((0.01 * np.log(DAY + 1)) ** 2 / 2)
    assert slope(held(cool, physics)) == pytest.approx(expected, rel=0.02)


def test_at_zero_seconds_nothing_has_moved() -> None:
    given = chip(*DRIFTING)
    assert (held(given, Physics.parse("drift", given)) == WEIGHTS).all()


def test_the_draws_of_one_effect_do_not_depend_on_another() -> None:
    given = chip(*DRIFTING, "cell.stuck.off=0.01", "cell.stuck.on=0.02")
    alone, both = (held(given, Physics.parse(p, given, time=DAY)) for p in ("stuck_cells", "stuck_cells,drift"))
    assert ((alone != WEIGHTS) <= (both != WEIGHTS)).all()
    differ = (alone != WEIGHTS).mean()
    assert 0.01 < differ < 0.06


def test_wires_are_the_solved_network() -> None:
    given = chip("cell.conductance=[1e-6, 4e-5]", "physics.wires.row=1 Ohm", "physics.wires.column=1 Ohm")
    exact = given.model_copy(
        update={
            "physics": given.physics.model_copy(
                update={"wires": given.physics.wires.model_copy(update={"exact": True})}
            )
        }
    )
    physics = Physics.parse("ir_drop", given)
    step = 3.9e-5 / 3
    legs = (transfer(1e-6 + np.maximum(s * WEIGHTS, 0) * step, Wires(1.0, 1.0)) for s in (1, -1))
    plus, minus = legs
    assert held(exact, physics) == pytest.approx((plus - minus) / step, abs=1e-9)
    assert abs(held(given, physics) - held(exact, physics)).max() < abs(WEIGHTS - held(exact, physics)).max()


def test_a_chip_without_constants_has_no_such_effect() -> None:
    for name in ("stuck_cells", "drift", "temperature", "ir_drop"):
        with pytest.raises(UsageError, match="has no such effect"):
            Physics.parse(name, load_chip("wtm2101"))


@pytest.mark.parametrize(("cell", "bits"), [("pcm-hermes", 8), ("pcm-nandakumar", 6)])
def test_levels_programmed_ahead_stand_in_proportion_when_it_is_time(cell: str, bits: int) -> None:
    """Low levels drift more: without, the middle of a level's cells leaves the line; with, it is on it at that time."""
    levels = np.repeat(np.arange(1, 1 << bits, 3 if bits == 6 else 12), 2000).reshape(-1, 2000).T
    top = (1 << bits) - 1
    wide = (
        f"array.bits_per_cell={bits}", f"array.cell_range=[-{top}, {top}]", "macro.weights.slices=1",
        "calibration.drift_compensation=true",
    )  # fmt: skip
    off: dict[str, dict[float, float]] = {}
    for ahead in ("0s", "30d"):
        given = chip(*wide, f"calibration.drift_ahead={ahead}", cell=cell)
        where = {"seed": 1, "instance": 0, "macro": 0, "y0": 0, "x0": 0}
        for time in (HOUR, 30 * DAY, YEAR):
            physics = Physics.parse("drift", given, time=time)
            share = np.median(effective_weights(levels, chip=given, physics=physics, **where), axis=0) / levels[0]
            off.setdefault(ahead, {})[time] = float(np.abs(share / share.mean() - 1.0).max())
    assert off["30d"][30 * DAY] < 0.03
    assert off["30d"][30 * DAY] < 0.2 * off["0s"][30 * DAY]
    assert off["30d"][YEAR] < 0.5 * off["0s"][YEAR]


def test_without_drift_nothing_is_ahead_of_it() -> None:
    given = chip("calibration.drift_ahead=30d", "calibration.drift_compensation=true", cell="pcm-hermes")
    plain = chip("calibration.drift_compensation=true", cell="pcm-hermes")
    for physics in (
        Physics.parse("programming_noise", given),
        Physics.parse("programming_noise,drift", given, calibrated=False),
    ):
        assert np.array_equal(held(given, physics), held(plain, physics))
    even = chip(*DRIFTING, "calibration.drift_ahead=30d")  # one mean exponent for all levels
    physics = Physics.parse("drift", even, time=DAY)
    assert np.array_equal(held(even, physics), held(chip(*DRIFTING), physics))


def test_an_array_without_weights_keeps_them_out() -> None:
    """Nothing to restore is no division by nothing."""
    given = chip("calibration.drift_compensation=true", cell="pcm-hermes")
    where = {"seed": 1, "instance": 0, "macro": 0, "y0": 0, "x0": 0}
    physics = Physics.parse("programming_noise,drift", given, time=DAY)
    assert not effective_weights(np.zeros((8, 4), np.int64), chip=given, physics=physics, **where).any()
