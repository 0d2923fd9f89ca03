"""A run that loses to physics says which change of the chip would help, and the change does."""

from __future__ import annotations

import re

import numpy as np
import pytest

import insitu
from insitu.arch.load import load_chip
from insitu.flow.chain import Options
from insitu.report.diagnose import best_change
from tests.flow.line import BARE
from tests.flow.test_optimize import network

APART = "macro.weights.slice_shift=0"
RERAM = (
    "cell=reram-wan",
    "array.bits_per_cell=4",
    "macro.weights.slices=2",
    "macro.input.bits_per_pass=8",
    APART,
    *BARE,
)


def ran(
    *overrides: str, labels: bool = False, physics: str = "full", time: str = "1d", optimize: str = ""
) -> insitu.Deployment:
    graph, x = network(), np.random.default_rng(1).normal(size=(96, 40)).astype(np.float32)
    data = {"x": x}
    if labels:
        data["y"] = (np.maximum(x @ graph.constants["w1"], 0) @ graph.constants["w2"]).argmax(axis=1)
    chip = load_chip("parametric-reram-adc8", overrides=[*RERAM, *overrides])
    return insitu.deploy(
        graph, chip, data=data, options=Options(instances=3, time=time, physics=physics, optimize=optimize)
    )


def set_in(said: str) -> list[str]:
    """The settings that an advice names."""
    return re.findall(r"--set '?([\w.]+=(?:\[[^\]]*\]|\w+))", said)


@pytest.mark.parametrize(
    ("rows", "words", "count"),
    [("array.rows=256", "fill empty rows with copies", 1), ("array.rows=40", "lay slices of weights closer", 2)],
)
def test_what_is_advised_can_be_typed_and_helps(rows: str, words: str, count: int) -> None:
    found, typed = ran(rows), (rows,)
    said = best_change(found.result)
    assert said is not None
    assert words in said
    assert said.endswith(" dB")
    assert len(set_in(said)) == count
    while said is not None and "cells err" in said:  # until there is no more to change
        typed = (*typed, *set_in(said))
        better = ran(*typed)
        gained = (d.metrics["sqnr_chip_mean_db"].value for d in (better, found))
        assert next(gained) > next(gained) + 1
        found, said = better, better.result.extra.get("accuracy_change")
    assert len(typed) <= 1 + 1 + 2  # each of the two changes once at most


def test_levels_ahead_of_drift_are_advised_where_they_are_bent_by_it() -> None:
    given = ("cell=pcm-hermes", "array.bits_per_cell=8", "macro.weights.slices=1", "array.rows=40")
    found = ran(*given, "calibration.drift_compensation=true", time="1y")
    said = best_change(found.result)
    assert said is not None
    assert "program levels ahead of their drift" in said
    (setting,) = re.findall(r"--set ([\w.]+=\w+)", said)
    better = ran(*given, "calibration.drift_compensation=true", setting, time="1y")
    assert better.metrics["sqnr_chip_mean_db"].value > found.metrics["sqnr_chip_mean_db"].value + 1
    assert "ahead of" not in ran(*given, "calibration.drift_compensation=true", time="0s").result.extra.get(
        "accuracy_change", ""
    )


def test_with_labels_it_says_points() -> None:
    found = ran(labels=True)
    assert "points of accuracy" in found.result.extra["accuracy_change"]


def test_without_physics_there_is_nothing_to_advise() -> None:
    assert "accuracy_change" not in ran(physics="ideal").result.extra


def test_advice_is_of_the_time_that_the_figures_are_of() -> None:
    """Cells that are verified closely ask for no change when they are new, whatever they ask for a day later."""
    given = ("cell=reram-cmo", "physics.column_gain.sd=0.2")
    new, old = ran(*given, time="0s,1d"), ran(*given, time="1d,2d")
    assert "cells err" not in new.result.extra.get("accuracy_change", "")
    assert "cells err" in old.result.extra["accuracy_change"]


@pytest.mark.parametrize(
    ("searched", "words"), [("", "--optimize accuracy"), ("accuracy", "train with the chip's noise")]
)
def test_where_no_change_of_the_chip_helps_a_plan_does_or_training(searched: str, words: str) -> None:
    given = ("cell.read_sd=0.4", "macro.weights.slice_shift=1", "calibration.spare_rows=true")
    assert words in ran(*given, optimize=searched).result.extra["accuracy_change"]
