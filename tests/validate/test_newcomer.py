"""`insitu validate --published` as a newcomer uses it: chips in silicon.yaml's form, gaps in them, slips of the pen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from insitu.base.errors import ConfigError
from insitu.cli.main import dispatch
from insitu.validate.compare import compare
from insitu.validate.unseen import read_published

THREE = """
chips:
- name: zenith-charge-2025
  kind: sram_analog
  venue: somewhere
  node_nm: 65
  cell: 8T1C charge-domain bit cell
  array_rows: 2304
  array_cols: 256
  macro_count: 1
  input_bits: [1, 8]
  weight_bits: [1, 8]
  adc_bits: 8
  supply_v: [0.85, 1.2]
  energy_efficiency_tops_per_w: {1b_0.85v: 400, 1b_1.2v: 192, peak: 500}
- name: nimbus-dcim-2024
  kind: sram_digital
  node_nm: 28
  cell: 6T SRAM
  array_rows: 128
  array_cols: 128
  input_bits: 8
  weight_bits: 8
  supply_v: 0.9
  macro_count: 4
  energy_efficiency_tops_per_w: {int8: 27}
  throughput_tops: {int8: null}
  power_w: [3, 4]
- {name: quasar-flash, kind: nor_flash, node_nm: 55, input_bits: 8, tops_per_w: 7.5}
"""
CHIP = """
name: zenith
origin: paper
technology: {node: 28 nm, supply: 0.9 V}
cell: reram-1t1r-2b
array: {rows: 256, cols: 32, bits_per_cell: 2, cell_range: [-128, 127]}
macro:
  input: {bits: 8, signed: true, bits_per_pass: 1}
  weights: {encoding: differential_pair, slices: 4}
  readout: {kind: adc, bits: 6}
core: {macros: 4, vector: {lanes: 1}}
chip: {clock: 200 MHz}
memories: {ram: {kind: sram, size: 64 KiB}}
capabilities: {wload: false, mma: false}
"""


def read(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "published.yaml"
    file.write_text(text, encoding="utf-8")
    return read_published(str(file))


def test_three_chips_in_the_form_of_silicon_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "three.yaml"
    file.write_text(THREE, encoding="utf-8")
    assert dispatch(["validate", "--published", str(file), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    charge, digital, flash = report["chips"][:3]
    assert [row["split"] for row in report["chips"][:3]] == ["unseen"] * 3
    assert set(charge["quantities"]["tops_per_w"]["modelled"]) == {"1b_0.85v", "1b_1.2v"}
    assert [gap.split(" (")[0] for gap in charge["missing"]] == [
        f"not enough data: peak: {key}" for key in ("supply_v", "input_bits", "weight_bits")
    ]
    assert digital["quantities"]["tops_per_w"]["factor"] < 2
    assert digital["missing"] == [
        "not enough data: power_w (a list is no figure: a number, or a number for each point)"
    ]
    assert any("sparsity" in text for text in digital["defaults"])
    assert flash["quantities"] == {}
    assert [gap.split(" (")[0].removeprefix("not enough data: ") for gap in flash["missing"]] == [
        "array_rows", "array_cols", "weight_bits",
    ]  # fmt: skip
    assert report["summary"]["unseen"]["chips"] == 2
    plain = {row["name"]: row for row in report["chips"][3:]}
    assert dispatch(["validate", "--json"]) == 0
    assert {
        row["name"]: row for row in json.loads(capsys.readouterr().out)["chips"]
    } == plain  # nothing was fitted anew


def test_the_fields_describe_the_shipped_chips_alike(tmp_path: Path) -> None:
    """Jia's charge-domain macro from a dozen fields of its entry is the shipped description, to the digit."""
    (described, *_) = compare(read(tmp_path, THREE))
    shipped = next(row for row in compare() if row.entry.name == "jia_jssc_2020_cima")
    assert described.figures["tops_per_w"].modelled == shipped.figures["tops_per_w"].modelled


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: z\ntops_per_w: 0\n", r"yaml:2: .*tops_per_w = 0; needs a number above zero"),
        ("name: z\ntops_per_w: -3\n", r"= -3; needs a number above zero"),
        ("name: z\ntops_per_w: {8b: 0}\n", r"tops_per_w.8b = 0; needs a number above zero"),
        ("name: z\ntops_per_w: {8b: fast}\n", r"tops_per_w.8b = \"fast\" \(text\); needs a number above zero"),
        ("name: z\npower_w: 65 mA\n", r"65 mA\" \(text\); needs a number above zero"),
        ("name: z\ntops_per_w: true\n", r"needs a number above zero"),
        ("name: z\ntops_per_w: .nan\n", r"finite"),
        ("name: z\ntops_per_w: [1, 2]\n", r"a list is no figure"),
        ("name: z\ntops_per_w: null\n", r"no figure to compare"),
        ("name: z\ntops_per_wat: 3\n", r"unknown quantity; needs tops_per_w"),
        ("name: z\ntops: 1\nenergy_eficiency_tops_per_w: 3\n", r"needs energy_efficiency_tops_per_w"),
        ("name: z\npublished: {speed: 3}\n", r"speed: unknown quantity"),
        ("name: z\npublished: 3\n", r"needs a mapping"),
        ("name: 7\ntops_per_w: 3\n", r"needs text"),
        ("tops_per_w: 3\n", r"name is missing"),
        ("", r"no entries"),
        ("[]", r"no entries"),
        ("chips: 3", r"no entries"),
        ("chips: [3]", r"needs a mapping"),
        ("name: z\ntops_per_w: 3\ntops_per_w: 4\n", r"duplicate key"),
        ("chips:\n- {name: z, tops: 1}\n- {name: z, tops: 2}\n", r"yaml:3: name: z again"),
        ("name: z\nmeasured: maybe\ntops_per_w: 3\n", r"true or false"),
        ("name: z\nmissing: 7\ntops_per_w: 3\n", r"needs a list"),
        ("name: z\ntops_per_w: {a: 3}\npoints: {a: {supply: -1 V}}\n", r"supply = -1 V; needs a quantity in V above 0"),
        ("name: z\ntops_per_w: {a: 3}\npoints: {a: {supply: fast}}\n", r"such as 1.2 V"),
        ("name: z\ntops_per_w: {a: 3}\npoints: {a: {input_bits: 0}}\n", r"integer from 1 to 16"),
        ("name: z\ntops_per_w: {a: 3}\npoints: {a: {input_bits: eight}}\n", r"integer from 1 to 16"),
        ("name: z\ntops_per_w: {a: 3}\npoints: {a: {input_density: 7}}\n", r"from 0 to 1"),
        ("name: z\ntops_per_w: {a: 3}\npoints: {a: 3}\n", r"needs a mapping"),
        ("name: z\ntops_per_w: {a: 3}\npoints: [a]\n", r"needs a mapping"),
        ("name: z\ntops_per_w: {a: 3}\npoints: {b: {supply: 1 V}}\n", r"points.b: no such point"),
        ("name: z\ntops_per_w: {a: 3}\nchip: 3\n", r"needs a mapping"),
        ("name: z\ntops_per_w: {a: 3}\nchip: {cell: sram-6t-digitl}\n", r"sram-6t-digital"),
        ("name: z\ntops_per_w: {a: 3}\nchip: {node: -28 nm, rows: 0, cols: x}\n", r"(?s)node.*rows.*cols"),
    ],
)
def test_a_slip_is_one_message_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as fault:
        read(tmp_path, text)
    assert "published.yaml" in str(fault.value)


def test_a_chip_file_describes_the_entry_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chip.yaml").write_text(CHIP, encoding="utf-8")
    (tmp_path / "p.yaml").write_text(
        "name: zenith\nnode_nm: 28\nenergy_efficiency_tops_per_w: {8b_0.9v: 12, 8b_0.8v: 14, 8b_0v: 9, 2b: 80}\n"
        "throughput_tops: 0.6\n"
    )
    words = ["validate", "--chip", str(tmp_path / "chip.yaml"), "--published", str(tmp_path / "p.yaml"), "--json"]
    assert dispatch(words) == 0
    first = json.loads(capsys.readouterr().out)["chips"][0]
    found = first["quantities"]["tops_per_w"]["modelled"]
    assert set(found) == {"8b_0.9v", "8b_0.8v"}
    assert found["8b_0.8v"] > found["8b_0.9v"]
    assert first["quantities"]["tops"]["kind"] == "prediction"
    assert [gap.split(": ")[1] for gap in first["missing"]] == ["8b_0v", "2b"]
