"""Published chips as strangers write them: units in words, kinds by other names, points by the habits of papers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from insitu.base.errors import ConfigError
from insitu.validate.compare import Row, compare, row_json
from insitu.validate.labels import bits_of, refusal, supply_of
from insitu.validate.unseen import read_published

BASE = """
name: Falcon ISSCC'22 (28nm)
kind: sram_digital
node_nm: 28
array_rows: 128
array_cols: 128
input_bits: 8
weight_bits: 8
supply_v: 0.9
tops_per_w: 27
"""


def rows(tmp_path: Path, text: str) -> list[Row]:
    file = tmp_path / "published.yaml"
    file.write_text(text, encoding="utf-8")
    return list(compare(read_published(str(file))))


def variant(**fields: Any) -> str:
    """BASE with lines replaced or added; None leaves a line out."""
    lines = {line.split(":")[0]: line for line in BASE.strip().splitlines()}
    lines |= {key: f"{key}: {value}" for key, value in fields.items() if value is not None}
    return "\n".join(line for key, line in lines.items() if fields.get(key, "") is not None) + "\n"


def modelled(row: Row, name: str = "tops_per_w") -> dict[str, float]:
    return dict(row.figures[name].modelled)


def gaps(row: Row) -> list[str]:
    return [gap.split(" (")[0] for gap in row.missing]


def test_any_text_is_a_name(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, BASE)
    assert row_json(row)["name"] == "Falcon ISSCC'22 (28nm)"
    assert modelled(row)[""] > 0
    (other,) = rows(tmp_path, variant(name="'--'"))
    assert modelled(other) == modelled(row)


@pytest.mark.parametrize(
    "fields",
    [
        {"node_nm": "28 nm"},
        {"node_nm": "28nm"},
        {"node_nm": 28.0},
        {"node_nm": "'28'"},
        {"supply_v": "900 mV"},
        {"supply_v": "0.9V"},
        {"kind": "digital SRAM"},
        {"kind": "DCIM"},
        {"kind": "SRAM-digital"},
        {"kind": "sram", "adc_bits": 0},
        {"kind": "SRAM", "cell": "6T + digital adder tree"},
        {"input_density": 0.5},
        {"input_density": "50%"},
        {"input_bit_sparsity": 0.5, "weight_bit_sparsity": 0.5},
    ],
)
def test_other_spellings_are_the_same_chip(tmp_path: Path, fields: dict[str, Any]) -> None:
    (plain,), (other,) = rows(tmp_path, BASE), rows(tmp_path, variant(**fields))
    assert modelled(other) == pytest.approx(modelled(plain), rel=1e-12)
    assert not other.missing


@pytest.mark.parametrize(
    ("kind", "cell", "library"),
    [
        ("ReRAM", "1T1R", "reram-1t1r-2b"),
        ("RRAM", "", "reram-1t1r-2b"),
        ("PCRAM", "", "pcm-hermes"),
        ("eFlash", "NOR", "nor-flash-8b"),
        ("flash", "split gate", "nor-flash-8b"),
        ("STT-MRAM", "", "mram-stt"),
        ("gain cell", "3T", "gain-cell-3t"),
        ("eDRAM", "2T1C", "gain-cell-3t"),
        ("eDRAM", "1T1C", "dram-1t1c"),
        ("sram", "9T1C", "sram-8t1c-charge"),
        ("SRAM", "10T with MOM caps, charge sharing", "sram-8t1c-charge"),
        ("sram", "twin-8T", "sram-8t-current"),
        ("sram_current", "6T", "sram-6t-current"),
    ],
)
def test_kinds_go_by_other_names(tmp_path: Path, kind: str, cell: str, library: str) -> None:
    text = variant(kind=kind, cell=cell or None, adc_bits=5, array_rows=64)
    assert rows(tmp_path, text)[0].figures
    from insitu.validate.described import described

    (entry,) = read_published(str(tmp_path / "published.yaml"))
    assert described(entry).chip["cell"] == library


def test_a_kind_nobody_knows_is_named_with_those_known(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, variant(kind="optical"))
    assert row.missing[0].startswith("kind (optical is not one of sram_analog, sram_digital,")
    (row,) = rows(tmp_path, variant(kind="sram"))
    assert row.missing[0].startswith("kind (sram_analog or sram_digital")


def test_gaps_say_what_to_type(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, "name: z\nkind: sram_analog\ntops_per_w: 3\n")
    assert gaps(row) == ["node_nm", "array_rows", "array_cols", "cell", "input_bits", "weight_bits"]
    assert all("(" in gap for gap in row.missing)
    assert "6T" in row.missing[3]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("node_nm: small", r"yaml:3: node_nm = small; needs a number of nanometres, such as 28"),
        ("node_nm: -28", r"node_nm = -28; needs a number of nanometres"),
        ("node_nm: 28 mm", r"node_nm = 28 mm; needs"),
        ("node_nm: 2.8e-8", r"node_nm = 2.8e-08; needs a number of nanometres"),
        ("supply_v: low", r"supply_v = low; needs a number of volts, such as 0.9"),
        ("supply_v: 900", r"supply_v = 900; needs a number of volts"),
        ("array_rows: 64.5", r"array_rows = 64.5; needs a whole number above 0"),
        ("array_rows: 256 rows", r"array_rows = 256 rows; needs a whole number"),
        ("array_rows: 0", r"array_rows = 0; needs a whole number"),
        ("input_bits: 0", r"input_bits = 0; needs a number of bits"),
        ("input_bits: true", r"input_bits = true; needs a number of bits"),
        ("adc_bits: 40", r"adc_bits = 40; needs a number of bits"),
        ("input_density: 7", r"input_density = 7; needs a share from 0 to 1, such as 0.5 or 50%"),
        ("input_bit_sparsity: 50", r"input_bit_sparsity = 50; needs a share"),
        ("sparsity: 0.5", r"sparsity = 0.5; needs input_bit_sparsity and weight_bit_sparsity"),
        ("macro_count: many", r"macro_count = many; needs a whole number"),
        ("active_rows: 256\narray_rows: 128", r"active_rows = 256; needs at most array_rows \(128\)"),
        ("array_row: 64", r"array_row: unknown field; needs array_rows"),
        ("supply: 0.9", r"supply: unknown field; needs supply_v"),
        ("node: 28 nm", r"node: unknown field; needs node_nm"),
        ("weights_bits: 8", r"weights_bits: unknown field; needs weight_bits"),
        ("throughput_tops: {8b: \"16.63\"}", r"throughput_tops.8b = \"16.63\" \(text\); needs a number above zero"),
        ("throughput_tops: 20-65", r"throughput_tops = \"20-65\" \(text\); needs a number above zero"),
        ("latency_s: {8b: -4 ns}", r"latency_s.8b = -4 ns; needs"),
    ],
)  # fmt: skip
def test_a_field_that_is_no_number_is_a_fault_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rows(tmp_path, f"name: z\ntops_per_w: 3\n{line}\n")


def test_words_for_bits_are_listed_as_they_stand(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, variant(input_bits="analog", weight_bits="8 (pulse duration)"))
    assert gaps(row) == ["input_bits"]
    assert "analog is not one" in row.missing[0]


def test_all_faults_of_a_file_come_at_once(tmp_path: Path) -> None:
    text = 'name: z\ntops_per_w: {a: "3"}\nnode_nm: small\nsupply_v: low\n'
    with pytest.raises(ConfigError) as fault:
        rows(tmp_path, text)
    assert [str(f).split(" = ")[0].split(": ")[1] for f in fault.value.faults] == [
        "tops_per_w.a",
        "node_nm",
        "supply_v",
    ]


def test_quantities_in_other_units(tmp_path: Path) -> None:
    text = variant(throughput_gops=100, latency_ns="{8b: 20}", power_mw=3, area_um2=9000, tops_per_w=None)
    (row,) = rows(tmp_path, text)
    given = {name: next(iter(figure.published.values())) for name, figure in row.figures.items()}
    assert given == pytest.approx({"tops": 0.1, "latency_s": 2e-8, "power_w": 3e-3, "area_mm2": 9e-3}, rel=1e-9, abs=0)
    text = variant(latency_s="{8b: 20 ns}", power_w="65 mW", area_mm2="0.5 mm2", tops_per_w=None)
    (row,) = rows(tmp_path, text)
    given = {name: next(iter(figure.published.values())) for name, figure in row.figures.items()}
    assert given == pytest.approx({"latency_s": 2e-8, "power_w": 0.065, "area_mm2": 0.5}, rel=1e-9, abs=0)


@pytest.mark.parametrize(
    ("label", "bits", "supply"),
    [
        ("8b", (8, None), None),
        ("8b_0.9v", (8, None), 0.9),
        ("8b @ 0.9 V", (8, None), 0.9),
        ("INT8-0.75V", (8, None), 0.75),
        ("850mV", None, 0.85),
        ("0.5v", None, 0.5),
        ("8b/4b", (8, 4), None),
        ("4b x 8b, 0.7V", (4, 8), 0.7),
        ("4bx4b", (4, 4), None),
        ("8x8", (8, 8), None),
        ("1b_in_2b_w", (1, 2), None),
        ("4b_in_8b_w_0.8v", (4, 8), 0.8),
        ("8bIN-4bW-20bOUT", (8, 4), None),
        ("i4_w1", (4, 1), None),
        ("w4a8", (8, 4), None),
        ("a8w4", (8, 4), None),
        ("8-bit", (8, None), None),
        ("8 bit 1.1 V", (8, None), 1.1),
        ("4b_4b", (4, 4), None),
        ("0.8v_out15", None, 0.8),
        ("peak", None, None),
        ("resnet18", None, None),
        ("o3_i1", None, None),
    ],
)
def test_points_named_by_the_habits_of_papers(
    label: str, bits: tuple[int, int | None] | None, supply: float | None
) -> None:
    assert bits_of(label) == bits
    assert supply_of(label) == supply
    assert refusal(label) is None


@pytest.mark.parametrize(
    ("label", "words"),
    [("bf16", "integers"), ("fp8_0.9v", "integers"), ("1b_normalised", "normalized"), ("8b_per_bit", "normalized")],
)
def test_points_that_no_model_here_speaks_of(tmp_path: Path, label: str, words: str) -> None:
    (row,) = rows(tmp_path, variant(tops_per_w=f"{{8b: 20, {label}: 9}}"))
    assert list(modelled(row)) == ["8b"]
    assert [words in gap for gap in row.missing] == [True]


def test_a_point_named_after_its_sparsity_needs_it_said(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, variant(tops_per_w="{8b: 20, 8b_sparse: 90}"))
    assert list(modelled(row)) == ["8b"]
    assert gaps(row) == ["8b_sparse: input_density"]
    text = variant(tops_per_w="{8b: 20, 8b_sparse: 90}", points="{8b_sparse: {input_density: 0.1}}")
    (row,) = rows(tmp_path, text)
    assert modelled(row)["8b_sparse"] > 1.5 * modelled(row)["8b"]


def test_ternary_weights_take_a_pair_of_cells(tmp_path: Path) -> None:
    """Papistas' entry of silicon.yaml says 1.58 bits: 1024 bitlines, 512 outputs, as its shipped description does."""
    text = """
name: ternary
kind: sram_analog
node_nm: 22
cell: 18T SRAM, ternary weight
array_rows: 1024
array_cols: 1024
input_bits: 7
bits_per_pass: 7
weight_bits: 1.58
adc_bits: 6
supply_v: 0.8
energy_efficiency_tops_per_w: {zigzag_validation_point: 1050}
"""
    (row,) = rows(tmp_path, text)
    shipped = next(r for r in compare() if r.entry.name == "papistas_cicc_2021")
    assert modelled(row) == pytest.approx(modelled(shipped))


ANALOG: dict[str, Any] = {
    "kind": "sram_analog", "cell": "6T", "array_rows": 512, "adc_bits": 6, "input_bits": 8, "weight_bits": 8,
    "latency_ns": 8,
}  # fmt: skip


def test_rows_driven_at_once(tmp_path: Path) -> None:
    """Said, or from an output that holds every sum without loss (8 + 8 + 4 bits: 16 products), or all, and named."""
    (whole,) = rows(tmp_path, variant(**ANALOG))
    (said,) = rows(tmp_path, variant(**ANALOG, active_rows=16))
    (derived,) = rows(tmp_path, variant(**ANALOG, output_bits=20))
    (lossy,) = rows(tmp_path, variant(**ANALOG, output_bits=8))
    assert modelled(derived) == modelled(said) != modelled(whole)
    assert modelled(derived, "latency_s")[""] < modelled(whole, "latency_s")[""] / 3
    assert modelled(lossy) == modelled(whole)
    assert any("active_rows (technology default: all 512)" in d for d in whole.defaults)
    assert any("active_rows (16: " in d for d in derived.defaults)
    assert not any("active_rows" in d for d in said.defaults)


def test_cells_by_their_levels(tmp_path: Path) -> None:
    fields = ANALOG | {"kind": "reram", "array_rows": 64}
    (one,) = rows(tmp_path, variant(**fields | {"cell": "1T1R SLC ReRAM"}))
    (two,) = rows(tmp_path, variant(**fields | {"cell": "1T1R 2-bit MLC ReRAM"}))
    assert modelled(one)[""] < 0.7 * modelled(two)[""]  # twice the cells and conversions a weight


def test_fields_of_the_circuit_are_read(tmp_path: Path) -> None:
    (sar,) = rows(tmp_path, variant(**ANALOG, adc_type="SAR"))
    (flash,) = rows(tmp_path, variant(**ANALOG, adc_type="4-bit flash ADC"))
    (wide,) = rows(tmp_path, variant(**ANALOG, bits_per_pass=2))
    assert modelled(flash, "latency_s")[""] < modelled(sar, "latency_s")[""]
    assert modelled(wide)[""] > modelled(sar)[""]


def test_points_beside_the_fields_of_a_table(tmp_path: Path) -> None:
    text = variant(tops_per_w="{peak: 90, low: 50}", points="{peak: {supply: 0.6 V, input_density: 0.1}}")
    (row,) = rows(tmp_path, text)
    (plain,) = rows(tmp_path, variant(supply_v="0.6", input_density="0.1"))
    assert modelled(row)["peak"] == pytest.approx(modelled(plain)[""])
    assert modelled(row)["peak"] > modelled(row)["low"]


def test_a_chip_beyond_the_models_is_listed(tmp_path: Path) -> None:
    """It neither stops the others of a table nor is it priced as something else."""
    (row,) = rows(tmp_path, variant(**ANALOG | {"kind": "reram", "cell": "16-bit ReRAM", "weight_bits": 16}))
    assert not row.figures
    assert row.missing == ("array.bits_per_cell = 16 (needs an integer from 1 to 12)",)


def test_the_shipped_table_goes_through_the_users_door(shared_data: Path) -> None:
    """Every entry of silicon.yaml, words and ranges and all, is compared or lists what it lacks."""
    found = compare(read_published(str(shared_data.parent / "reference" / "silicon.yaml")))
    assert len(found) == 40
    assert all(row.figures or row.missing for row in found)
    assert sum("tops_per_w" in row.figures for row in found) >= 12
