"""`--time`: the same chips at several times after programming, and what does not move says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from insitu.base.errors import InsituError
from insitu.flow.physics import parse_times
from tests.cli.conftest import Insitu

PCM = ("--chip", "parametric-reram-adc8", "--set", "cell=pcm-nandakumar")
TIMES = [0.0, 3600.0, 86400.0, 31557600.0]


@pytest.mark.slow
def test_a_run_shows_the_course_of_a_drifting_chip(insitu: Insitu, model: Path, data: Path) -> None:
    """A third of the levels of phase change is gone after a day; the chip's own compensation brings them back."""
    on = (*PCM, "--set", "calibration.drift_compensation=true")
    done = insitu("run", model, *on, "--data", data, "--instances", 2, "--time", "0s,1h,1d,1y", "--json")
    assert done.code == 0, done.err
    points = done.json()["accuracy_over"]
    assert [p["time_s"] for p in points] == TIMES
    assert all(p["instances"] == 2 and "note" not in p for p in points)
    folder = Path(done.json()["run_dir"])
    lines = (folder / "summary.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 12
    course = next(line for line in lines if line.startswith("Over time"))
    assert all(word in course for word in ("fresh", "after 1 h", "after 1 d", "after 1 y", "+-"))
    assert any(line.startswith("Uncalibrated") for line in lines)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "after 1 y, raw" in page
    bare = insitu("run", model, *on, "--data", data, "--instances", 2, "--time", "1y", "--no-calibration", "--json")
    assert points[-1]["mean"] > bare.json()["accuracy_over"][-1]["mean"] + 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chip", "words"), [("wtm2101", "no drift or retention constants"), ("dcim-28nm", "exact bits")]
)
def test_a_chip_that_does_not_move_says_so(insitu: Insitu, model: Path, data: Path, chip: str, words: str) -> None:
    done = insitu("run", model, "--chip", chip, "--data", data, "--instances", 2, "--time", "0s,1y", "--json")
    first, later = done.json()["accuracy_over"]
    assert "note" not in first
    assert words in later["note"]
    assert words in (Path(done.json()["run_dir"]) / "summary.txt").read_text(encoding="utf-8")


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


def test_times_are_text_or_numbers_earliest_first() -> None:
    for time in ("0s,1h", (0.0, 3600.0), ("1h", 0), "1h, 0s,0s"):
        assert parse_times(time) == (0.0, 3600.0)
    with pytest.raises(InsituError):
        parse_times(())
