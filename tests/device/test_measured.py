"""Tables of measurements as laboratories write them: units, separators, gaps, repeats, clocks that start at zero."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from insitu.base.errors import ChipError, ConfigError, UsageError
from insitu.cli.main import dispatch
from insitu.device.cell import load_cell
from insitu.device.fit import CellFit, fit_cell
from insitu.device.measured import read

BASE = load_cell("reram-1t1r-2b")
LEVELS = (5.0, 10.0, 20.0, 30.0, 40.0)


def levels(n: int = 1000, sd: float = 0.02, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.choice(LEVELS, n)
    return target, target + 40 * sd * rng.standard_normal(n)


def table(header: str, *columns: np.ndarray | list[str], sep: str = ",") -> str:
    rows = zip(*columns, strict=True)
    return "\n".join([header, *(sep.join(v if isinstance(v, str) else f"{v:.8g}" for v in row) for row in rows)])


def fit(text: str) -> CellFit:
    return fit_cell(text, base=BASE, name="mine", where="m.csv")


def spread(found: CellFit, r: float = 0.5) -> float:
    assert found.cell.programming is not None
    return sum(c * r**i for i, c in enumerate(found.cell.programming.sd))


PLAIN = table("target,measured", *levels())


@pytest.mark.parametrize(
    "text",
    [
        table("target (uS),measured (nS)", levels()[0], levels()[1] * 1000),
        table("Target [uS];Measured [uS]", *levels(), sep=";"),
        table("target_uS\tmeasured_S", levels()[0], levels()[1] * 1e-6, sep="\t"),
        table("target;measured", *levels(), sep=";").replace(".", ","),
        "# a comment\n\n" + PLAIN,
        PLAIN + "\n1,\n,2\nnan,nan\n3,NA\n4,inf\n",
        table("id,target,measured", [f"die3/c{i}" for i in range(1000)], *levels()),
        table("target,measured,temperature (C)", *levels(), np.full(1000, 25.0)),
    ],
)
def test_one_table_in_many_dresses(text: str) -> None:
    plain, other = fit(PLAIN), fit(text)
    assert other.samples == plain.samples == 1000
    assert other.cell.programming is not None
    assert plain.cell.programming is not None
    assert other.cell.programming.sd == pytest.approx(plain.cell.programming.sd, rel=1e-4)


def test_what_was_left_out_is_said() -> None:
    text = fit(PLAIN + "\n1,\nnan,nan\n").text()
    assert "2 rows without a number left out" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (table("target,measured,temperature", *levels(), np.repeat([25.0, 85.0], 500)), "temperature has 2 values"),
        (table("target,measured", -levels()[0], levels()[1]), "below zero"),
        (table("target (kOhm),measured (kOhm)", *levels()), "conductance"),
        (table("target (uS),measured (V)", *levels()), "same kind"),
        (table("target,mesured", *levels()), "measured"),
        (PLAIN.replace("target,measured\n", ""), "header"),
        (table("target,measured", np.full(100, 5.0), levels(100)[1]), "at least two levels"),
        (PLAIN + "\n5,fast\n", "m.csv:1002: measured"),
        (PLAIN + "\n5,4.9,7\n", "m.csv:1002: 3 values"),
        (table("target,measured", levels()[0], levels()[1] * 1e-6), "both in one unit"),
        (table("target,measured", levels()[0], levels()[1] * 1e300), "both in one unit"),
        (table("target,measured,time", *levels(), np.full(1000, -3.0)), "time"),
        (table("target,measured,target", *levels(), levels()[0]), "target twice"),
    ],
)
def test_what_cannot_be_fitted_says_why(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as fault:
        fit(text)
    assert words in str(fault.value)


def drifting(times: tuple[float, ...], *, nu: float, t0: float, nu_sd: float = 0.0, read: float = 0.0) -> str:
    """Readings `times` seconds after the first one is due, of levels that fall as ((t + t0) / t0)^-nu."""
    rng = np.random.default_rng(5)
    target, level = levels(2000)
    own = nu + nu_sd * rng.standard_normal(2000)
    lines = ["target,measured,time,cell"]
    for t in times:
        now = np.maximum(level, 0.1) * ((t + t0) / t0) ** -own + 40 * read * rng.standard_normal(2000)
        lines += [f"{a:g},{b:.8g},{t:g},{c}" for c, (a, b) in enumerate(zip(target, now, strict=True))]
    return "\n".join(lines)


def loss(found: CellFit, t: float) -> float:
    assert found.cell.drift is not None
    return ((t + found.cell.drift.t0) / found.cell.drift.t0) ** -found.cell.drift.nu


def test_a_clock_that_starts_at_zero() -> None:
    """Times 0, 100 s, 10^4 s, 10^6 s: t0 comes out of the curve, and the loss at each time is the measured one."""
    found = fit(drifting((0, 100, 1e4, 1e6), nu=0.06, t0=20))
    assert found.cell.drift is not None
    assert found.cell.drift.nu == pytest.approx(0.06, rel=0.02)
    assert found.cell.drift.t0 == pytest.approx(20, rel=0.2)
    for t in (100, 1e4, 1e6):
        assert loss(found, t) == pytest.approx(((t + 20) / 20) ** -0.06, rel=0.005)


def test_zero_and_one_later_time_do_not_say_how_early_it_began() -> None:
    found = fit(drifting((0, 3600), nu=0.06, t0=20))
    assert loss(found, 3600) == pytest.approx((3620 / 20) ** -0.06, rel=0.005)
    assert "t0 1 s is an assumption" in found.text()
    assert "assumption" in found.cell.sources["drift"]


def test_noise_of_reads_is_no_spread_of_exponents() -> None:
    quiet = fit(drifting((0, 10, 100, 1e3, 1e4), nu=0.05, t0=1, nu_sd=0.01))
    noisy = fit(drifting((0, 10, 100, 1e3, 1e4), nu=0.05, t0=1, nu_sd=0.01, read=0.01))
    assert quiet.cell.drift is not None
    assert noisy.cell.drift is not None
    assert quiet.cell.drift.nu_sd == pytest.approx(0.01, rel=0.1)
    assert noisy.cell.drift.nu_sd == pytest.approx(0.01, rel=0.5)


def test_times_with_units_and_of_each_cell() -> None:
    """Every cell is first read at its own moment; hours are hours."""
    rng = np.random.default_rng(9)
    target, level = levels(600)
    start = 1.0 + 0.2 * rng.random(600)
    lines = ["target,measured,time (h),cell"]
    for later in (1.0, 100.0, 10000.0):
        lines += [
            f"{a:g},{b * later**-0.05:.8g},{s * later / 3600:.10g},{c}"
            for c, (a, b, s) in enumerate(zip(target, level, start, strict=True))
        ]
    found = fit("\n".join(lines))
    assert found.samples == 600
    assert found.cell.drift is not None
    assert found.cell.drift.nu == pytest.approx(0.05, rel=0.01)
    assert found.cell.drift.t0 == pytest.approx(1.1, rel=0.02)


def test_levels_that_grow_are_said_and_not_drift() -> None:
    found = fit(drifting((1, 100, 1e4), nu=-0.02, t0=1))
    assert found.cell.drift is None
    assert "levels grow" in found.text()


def test_repeated_reads_are_one_cell_and_give_the_noise_of_a_read() -> None:
    rng = np.random.default_rng(4)
    target, level = levels(800)
    read_sd = 0.01
    lines = ["target,measured,cell"]
    for _ in range(10):
        now = level + 40 * read_sd * rng.standard_normal(800)
        lines += [f"{a:g},{b:.8g},{c}" for c, (a, b) in enumerate(zip(target, now, strict=True))]
    found = fit("\n".join(lines))
    assert found.samples == 800
    assert found.cell.read_sd == pytest.approx(read_sd, rel=0.05)
    assert spread(found) == pytest.approx(0.02, rel=0.1)
    assert found.cell.sources["read_sd"].startswith("measured")


def test_a_device_asked_for_several_levels_is_several_cells() -> None:
    """200 devices, five levels each: averaging a device over its levels would lose them."""
    target, device = np.tile(LEVELS, 200), np.repeat(np.arange(200), 5)
    level = target + 40 * 0.02 * np.random.default_rng(6).standard_normal(1000)
    reused, plain = (
        fit(table("cell,target,measured", device, target, level)),
        fit(table("target,measured", target, level)),
    )
    assert reused.samples == 1000
    assert reused.cell.programming == plain.cell.programming


def test_a_law_that_explains_little_is_said() -> None:
    rng = np.random.default_rng(8)
    target, level = levels(300)
    lines = ["target,measured,time,cell"]
    for t in (1, 10, 100, 1000):
        now = level * (1 + 0.05 * rng.standard_normal(300)) * t**-0.003
        lines += [f"{a:g},{b:.8g},{t},{c}" for c, (a, b) in enumerate(zip(target, now, strict=True))]
    assert "which explains little of them" in fit("\n".join(lines)).text()


def test_rows_written_twice_count_once() -> None:
    text = table("cell,target,measured", np.arange(1000), *levels())
    twice = text + "\n" + "\n".join(text.splitlines()[1:])
    once, found = fit(text), fit(twice)
    assert found.samples == 1000
    assert found.cell == once.cell
    assert "1000 rows twice" in found.text()


def test_goodness_knows_how_much_sampling_explains() -> None:
    """A spread that does not depend on the level: one coefficient, and what is left is the noise of few samples."""
    flat = fit(table("target,measured", *levels(200)))
    assert flat.cell.programming is not None
    assert len(flat.cell.programming.sd) == 1
    assert 0.3 < flat.rms_residual / flat.sampling < 3
    target = np.repeat(np.linspace(1, 40, 20), 500)
    wavy = target + 40 * (0.02 + 0.015 * np.sin(target)) * np.random.default_rng(2).standard_normal(target.size)
    rough = fit(table("target,measured", target, wavy))
    assert rough.rms_residual > 3 * rough.sampling
    assert "more than sampling explains" in rough.text()


def test_a_large_table_takes_seconds() -> None:
    target, level = levels(30_000)
    cell = np.arange(30_000)
    text = "target,measured,time,cell\n" + "\n".join(
        f"{a:g},{b:.6g},{t},{c}"
        for t, f in ((1, 1.0), (100, 0.8), (10000, 0.63))
        for a, b, c in zip(target, level * f, cell, strict=True)
    )
    start = time.perf_counter()
    found = fit(text)
    assert found.drift_samples == 30_000
    assert time.perf_counter() - start < 10  # a mask a cell took minutes


def test_the_table_is_read_in_one_unit() -> None:
    rows = read(table("target (uS),measured (nS)", levels()[0], levels()[1] * 1000), "m.csv")
    assert rows.target.max() == pytest.approx(40e-6)
    assert rows.measured.mean() == pytest.approx(levels()[1].mean() * 1e-6, rel=1e-5)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "My Device.csv").write_text(PLAIN)
    out = tmp_path / "cell.yaml"
    assert dispatch(["fit", str(tmp_path / "My Device.csv"), "--like", "reram-wan", "-o", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["file"] == str(out)
    assert report["fit"]["samples"] == 1000
    assert report["cell"]["name"] == "my-device"
    from insitu.base.schema import load_config
    from insitu.device.cell import CellSpec

    cell = load_config("cell", CellSpec, text=out.read_text())
    assert cell.programming is not None
    assert cell.programming.sd == tuple(report["cell"]["programming"]["sd"])
    assert dispatch(["fit", str(tmp_path / "My Device.csv")]) == 0
    assert "programming:" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"none.csv: cannot be read; needs a CSV"):
        dispatch(["fit", str(tmp_path / "none.csv")])
    with pytest.raises(ChipError, match=r"Try: reram-wan"):
        dispatch(["fit", str(tmp_path / "My Device.csv"), "--like", "reram-wann"])
    with pytest.raises(UsageError, match=r"ending in .yaml"):
        dispatch(["fit", str(tmp_path / "My Device.csv"), "-o", str(tmp_path / "x.csv")])
