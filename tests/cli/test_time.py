"""`--time`: the same chips at several times after programming, and what does not move says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import insitu as insitu_package
from tests.cli.conftest import Insitu

PCM = ("--chip", "parametric-reram-adc8", "--set", "cell=pcm-nandakumar")
TIMES = [0.0, 3600.0, 86400.0, 31557600.0]


def test_a_run_shows_the_course_of_a_drifting_chip(insitu: Insitu, model: Path, data: Path) -> None:
    given = ("run", model, *PCM, "--data", data, "--instances", 3, "--check", 1, "--time", "0s,1h,1d,1y")
    done = insitu(*given, "--json")
    assert done.code == 0, done.err
    points = done.json()["accuracy_over"]
    assert [p["time_s"] for p in points] == TIMES
    assert all(p["instances"] == 3 and "note" not in p for p in points)
    assert points[0]["mean"] > points[-1]["mean"] + 0.1  # a third of the levels is gone after a day
    text = insitu(*given).out
    line = next(line for line in text.splitlines() if line.startswith("Over time"))
    assert all(word in line for word in ("fresh", "after 1 h", "after 1 d", "after 1 y", "+-"))
    page = (Path(done.json()["run_dir"]) / "report.html").read_text(encoding="utf-8")
    assert "after 1 y" in page


def test_the_chips_own_compensation_is_shown_beside_what_it_corrects(insitu: Insitu, model: Path, data: Path) -> None:
    on = (*PCM, "--set", "calibration.drift_compensation=true")
    given = ("run", model, *on, "--data", data, "--instances", 3, "--check", 1, "--time", "0s,1y")
    done = insitu(*given)
    assert done.code == 0, done.err
    assert "Uncalibrated" in done.out
    with_it, without = (insitu(*given, *more, "--json").json()["accuracy_over"] for more in ((), ("--no-calibration",)))
    assert with_it[-1]["mean"] > without[-1]["mean"] + 0.1


def test_a_chip_that_does_not_move_says_so(insitu: Insitu, model: Path, data: Path) -> None:
    for chip, words in (("wtm2101", "no drift or retention constants"), ("dcim-28nm", "exact bits")):
        done = insitu("run", model, "--chip", chip, "--data", data, "--instances", 2, "--time", "0s,1y", "--json")
        first, later = done.json()["accuracy_over"]
        assert "note" not in first
        assert words in later["note"]
        assert words in insitu("run", model, "--chip", chip, "--data", data, "--instances", 2, "--time", "0s,1y").out


def test_simulate_takes_times_and_stacks_them(insitu: Insitu, tmp_path: Path, model: Path, data: Path) -> None:
    assert insitu("compile", model, *PCM, "--calib", data, "-o", "p.insitu").code == 0
    done = insitu(
        "simulate", "p.insitu", "--data", data, "--physics", "full", "--instances", 2, "--time", "0s,1y",
        "--outputs", "y.npz", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = done.json()
    assert found["times_s"] == [0.0, TIMES[-1]]
    assert [p["instances"] for p in found["accuracy_over"]] == [2, 2]
    assert len(found["accuracy"]) == 4
    with np.load(tmp_path / "y.npz") as z:
        fresh, old = next(z[name] for name in z if not name.endswith("__int"))
    assert fresh.shape == old.shape
    assert len(fresh) == 2
    assert not np.array_equal(fresh, old)


def test_python_takes_times_as_text_or_numbers(model: Path, data: Path) -> None:
    for time in ("0s,1h", (0.0, 3600.0), ("1h", 0)):
        made = insitu_package.deploy(str(model), "wtm2101", data=str(data), instances=2, time=time)
        assert [p.time_s for p in made.result.accuracy_over] == [0.0, 3600.0]
