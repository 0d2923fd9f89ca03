"""Cells are as warm in a Session as in a run: the program's power over the package."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.circuit.effects import Physics
from insitu.flow import figures
from insitu.runtime.heat import junction_of, warmed
from insitu.runtime.session import Session
from tests.flow.line import build, captured, inputs_of
from tests.flow.test_operators import NETS

# A package so poor that even a small network heats the cells, which then drift a hundred times faster.
HOT = load_chip(
    "parametric-reram-adc8",
    overrides=[
        "package.resistance=20000", "cell={name: c, kind: pcm, bits: 2, nonvolatile: true, area_f2: 50}",
        "cell.conductance=[1e-6, 2e-5]", "cell.drift.nu=0.05", "cell.activation=0.6",
    ],
)  # fmt: skip


@pytest.fixture(scope="module")
def program():
    graph = captured(NETS["residual"](np.random.default_rng(0)))
    return graph, build(graph, HOT)[1]


def test_a_session_is_as_warm_as_a_run(program) -> None:
    found = junction_of(program[1], HOT)
    assert found.value == figures.heat(figures.cost(program[1], HOT), program[1], HOT).value
    assert found.value > HOT.technology.temperature + 10
    session = Session(program[1], physics=Physics.parse("full", HOT, time=86400.0))
    assert session.model.physics.temperature == found.value


def test_heat_moves_what_drifts_and_a_stated_temperature_stands(program) -> None:
    graph, made = program
    effects = Physics.parse("drift,temperature", HOT, time=86400.0)
    x = inputs_of(graph, 8)
    cool = replace(effects, temperature=300.0)
    warm, cold = (Session(made, physics=p).run(x)["y"] for p in (effects, cool))
    assert not np.array_equal(warm, cold)
    assert warmed(cool, made, HOT) == cool


def test_nothing_is_timed_where_no_effect_is_warm(program) -> None:
    for text in ("ideal", "drift"):
        effects = Physics.parse(text, HOT)
        assert warmed(effects, program[1], HOT) is effects
