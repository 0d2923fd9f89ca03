"""Published silicon: the split, the statistics, the bars, and a user's own chip."""

from __future__ import annotations

import hashlib
from pathlib import Path
from statistics import median

import pytest

from insitu.arch.load import chip_from_json, chip_json, load_chip
from insitu.base.errors import ConfigError
from insitu.circuit.model import constants
from insitu.validate.compare import Figure, compare, report
from insitu.validate.entries import entries, split_of
from insitu.validate.fit import fit_all, shipped
from insitu.validate.page import html
from insitu.validate.table import table
from insitu.validate.unseen import read_published

ROWS = compare()


def test_the_split_is_the_hash_of_the_name() -> None:
    for entry in entries():
        held = hashlib.sha256(entry.name.encode()).digest()[0] % 3 == 0
        assert entry.split == split_of(entry.name) == ("holdout" if held else "calibration")


def test_bars() -> None:
    """At least 18 measured chips, 8 held out; median factors 1.2 and 1.5; all but one held-out chip within 3."""
    found = report(ROWS)["summary"]
    calibration, holdout = found["calibration"], found["holdout"]
    assert calibration["chips"] + holdout["chips"] >= 18
    assert holdout["chips"] >= 8
    assert calibration["median_factor"] <= 1.2
    assert holdout["median_factor"] <= 1.5
    assert len(holdout["beyond_3"]) <= 1
    timed = [r for r in ROWS if r.entry.measured and {"tops", "latency_s"} & set(r.figures)]
    assert len(timed) >= 10


def test_times_on_held_out_chips() -> None:
    """Passes of 20 held-out macros: median within 2; of digital ones, without a converter to guess, within 1.5."""
    held = [r for r in ROWS if r.entry.split == "holdout" and r.entry.measured and "latency_s" in r.figures]
    assert len(held) >= 20
    assert median(r.figures["latency_s"].factor for r in held) < 2.0
    digital = [r.figures["latency_s"].factor for r in held if r.entry.kind == "sram_digital"]
    assert len(digital) >= 5
    assert median(digital) < 1.5


def test_no_chip_of_the_banks_is_also_described() -> None:
    """A chip counts once: indices of the database that published.yaml covers are not in banks.yaml."""
    banks = {entry.name for entry in entries() if entry.name.startswith("uiuc_")}
    assert len(banks) == 57
    assert not banks & {f"uiuc_{index}" for index in (25, 5, 2, 33, 28, 94, 64, 31, 74, 49, 72, 23, 91)}


def test_shipped_constants_are_the_fit_on_calibration_rows() -> None:
    for name, value in fit_all().items():
        assert shipped(name) == pytest.approx(value, rel=0.01), name


def test_every_entry_is_compared_or_says_what_is_missing() -> None:
    assert len(ROWS) == 40 + 57
    for row in report(ROWS)["chips"]:
        assert row["quantities"] or row["missing"], row["name"]
        assert all(text.startswith("not enough data: ") for text in row["missing"])


def test_constants_that_no_row_supports_are_marked() -> None:
    marked = {row["name"] for row in report(ROWS)["chips"] if row["unfitted"] and row["quantities"]}
    assert {"samsung_mram_nature_2022", "fick_mythic_isscc_2022"} <= marked
    assert not {"hermes_core_vlsi_2021", "neurram_nature_2022", "jia_jssc_2020_cima"} & marked
    assert constants()["kinds"]["mram"]["fitted"] == []


def test_a_factor_is_the_same_for_twice_and_half() -> None:
    figure = Figure({"a": 10.0, "b": 10.0}, {"a": 20.0, "b": 5.0})
    assert figure.factor == pytest.approx(2.0)
    assert figure.ratio == pytest.approx(1.0)


def test_a_published_clock_predicts_nothing() -> None:
    [jia] = [row for row in ROWS if row.entry.name == "jia_jssc_2020_cima"]
    assert not jia.figures["tops"].prediction
    assert jia.figures["tops_per_w"].prediction


def test_a_chip_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text('name: mine\nenergy_efficiency_tops_per_w: {a: 20, "b": 22}\nthroughput_tops: 100\n')
    [row] = compare(read_published(str(file)), chip=load_chip("dcim-28nm"))
    assert row.entry.split == "unseen"
    assert row.figures["tops_per_w"].factor == pytest.approx(1.05, abs=0.01)
    found = report((row, *ROWS))["summary"]
    assert found["unseen"]["chips"] == 1
    assert found["holdout"] == report(ROWS)["summary"]["holdout"]


@pytest.mark.parametrize("text", ["name: x\n", "tops: 3\n", "name: x\ntops_per_w: -1\n", "name: x\ntops: many\n"])
def test_a_bad_file_says_what_it_needs(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        read_published(str(file))


def test_table_and_page() -> None:
    assert "median factor" in table(ROWS)
    page = html(ROWS)
    assert page.count("<circle") >= 18
    assert "<script" not in page


def test_a_list_of_entries_names_what_each_lacks(tmp_path: Path) -> None:
    file = tmp_path / "many.yaml"
    file.write_text("chips:\n- {name: a, throughput_tops: {x: 1, y: null}}\n- {name: b, node_nm: 28}\n")
    first, second = compare(read_published(str(file)))
    assert [gap.split(" (")[0] for gap in first.missing[:3]] == ["x: node_nm", "x: array_rows", "x: array_cols"]
    assert second.missing == ("an energy, throughput or latency",)


def test_a_given_chip_at_other_bits_and_supplies(tmp_path: Path) -> None:
    """A point's name states its supply; other bits need a description, and then the same cells hold other weights."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\ntops_per_w: {8b_0.9v: 20, fig_12: 21, int8: 20, 4b_0.9v: 80, 4b_0.7v: 130, 2b: 300}\n"
        "points: {4b_0.9v: {input_bits: 4, weight_bits: 4}, 4b_0.7v: {input_bits: 4, weight_bits: 4, supply: 0.7 V}}\n"
    )
    chip = load_chip("dcim-28nm", overrides=["energy.mac=null"])
    [row] = compare(read_published(str(file)), chip=chip)
    found = row.figures["tops_per_w"].modelled
    assert found["fig_12"] == found["int8"] == found["8b_0.9v"]
    assert found["4b_0.9v"] == pytest.approx(4 * found["8b_0.9v"])
    assert found["4b_0.7v"] == pytest.approx(found["4b_0.9v"] * (0.9 / 0.7) ** 2)
    assert row.missing == ("2b: points.2b.input_bits and weight_bits: the chip file has 8-bit inputs",)
    assert not row.unfitted


def test_a_time_that_the_file_leaves_out_is_a_prediction(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nthroughput_tops: {0.9v: 100, 0.7v: 60}\nlatency_ns_per_mvm: 50\n")
    data = chip_json(load_chip("dcim-28nm"))
    del data["macro"]["t_read"]
    modelled = chip_from_json(data)
    [row] = compare(read_published(str(file)), chip=modelled)
    tops = row.figures["tops"]
    assert tops.prediction
    assert row.figures["latency_s"].prediction
    assert tops.modelled["0.7v"] < tops.modelled["0.9v"]
    [stated] = compare(read_published(str(file)), chip=load_chip("dcim-28nm"))
    assert not stated.figures["tops"].prediction
    assert stated.figures["tops"].modelled["0.9v"] == pytest.approx(stated.figures["tops"].modelled["0.7v"])
