from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from insitu.arch.load import chip_from_json, chip_json, chip_schema, load_chip, preset_text, presets
from insitu.arch.spec import Chip
from insitu.base.errors import ChipError, ConfigError
from insitu.base.schema import dump_yaml

EXAMPLE = """\
name: wtm2101
origin: vendor                 # vendor | paper | parametric
technology: {node: 40 nm, supply: 1.2 V, temperature: 300 K}
cell: nor-flash-8b             # from the cell library, or inline
array: {rows: 896, cols: 1024, bits_per_cell: 8, cell_range: [-275, 275]}
macro:
  arrays: 2                    # two regions ...
  bias_rows: 16                # ... sharing these
  input: {bits: 8, signed: false, bits_per_pass: 8}
  weights: {encoding: signed_cell, slices: 1}
  readout: {kind: wtm2101, bits: 8, gain: [256, 8192]}
  columns_per_adc: 8           # assumed
  t_read: 37 us                # inferred from 50 GOPS
core: {macros: 1, vector: {lanes: 16, format: int8, luts: 4}, sram: 8 KiB}
tile: {cores: 1}
chip: {tiles: 1, clock: 24 MHz, host: rv32imafc}
memories: {ram: {kind: sram, size: 320 KiB}}
capabilities: {wload: false, mma: false, scales: power_of_two}
calibration: {refine_passes: 1, reads: 2, column_offset: true}
sources: {array: "wtm2101.md 1.2", t_read: "derived", columns_per_adc: "assumption"}
"""


def test_the_three_chips_ship() -> None:
    assert set(presets()) >= {"wtm2101", "dcim-28nm", "parametric-reram-adc8"}


@pytest.mark.parametrize("name", presets())
def test_every_preset_loads_survives_json_and_yaml(name: str, tmp_path: Path) -> None:
    chip = load_chip(name)
    assert chip.name == name
    plain = json.loads(json.dumps(chip_json(chip)))
    assert chip_from_json(plain) == chip
    assert chip_json(chip_from_json(plain)) == plain
    (tmp_path / "copy.yaml").write_text(dump_yaml(chip))
    assert load_chip(tmp_path / "copy.yaml") == chip


@pytest.mark.parametrize("name", presets())
def test_every_preset_names_the_source_of_its_numbers(name: str) -> None:
    from insitu.arch.cost import source_of

    chip = load_chip(name)
    paths = ["technology", "cell", "array", "macro.t_read", "core", "chip", "memories.ram", "capabilities"]
    given = chip.energy.model_dump(exclude_none=True)
    paths += [f"energy.{field}" for field in given]
    paths += [f"physics.{field}" for field in chip.physics.model_dump(exclude_none=True)]
    missing = [p for p in paths if not source_of(chip, p) and not any(key.startswith(f"{p}.") for key in chip.sources)]
    assert not missing


def test_the_design_example_loads_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(EXAMPLE)
    chip = load_chip(file)
    preset = load_chip("wtm2101")
    assert chip.memories["ram"].bandwidth == 96e6  # one 32-bit word a cycle
    for field in ("array", "macro", "core", "tile", "chip", "memories", "capabilities", "calibration", "cell"):
        assert getattr(chip, field) == getattr(preset, field), field


def test_extends_and_overrides(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: wtm2101\nname: base\ncore: {sram: 16 KiB}\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nname: mine\nchip: {clock: 48 MHz}\n")
    chip = load_chip(tmp_path / "mine.yaml", overrides=["calibration.reads=4"])
    assert (chip.name, chip.core.sram, chip.chip.clock, chip.calibration.reads) == ("mine", 16384, 48e6, 4)
    assert chip.array == load_chip("wtm2101").array


def test_each_file_of_a_chain_is_found_from_the_one_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "first.yaml").write_text("extends: wtm2101\nname: first\n")
    (tmp_path / "inner" / "second.yaml").write_text("extends: first.yaml\nname: second\n")
    (tmp_path / "mine.yaml").write_text("extends: inner/second.yaml\nname: mine\n")
    assert load_chip(tmp_path / "mine.yaml").name == "mine"
    (tmp_path / "loop.yaml").write_text("extends: loop.yaml\nname: mine\n")
    with pytest.raises(ConfigError, match="loop"):
        load_chip(tmp_path / "loop.yaml")


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "chip.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_chip(tmp_path / "chip.yaml")


def test_an_override_that_names_no_key_says_what_is_near() -> None:
    with pytest.raises(ConfigError) as error:
        load_chip("wtm2101", overrides=["core.vectr=3"])
    assert "--set core.vectr=3" in str(error.value)
    assert "vector" in str(error.value)


def test_a_cell_can_stand_inline(tmp_path: Path) -> None:
    cell = "{name: mine, kind: nor_flash, bits: 8, nonvolatile: true, area_f2: 40, programming: {sd: [0.01]}}"
    (tmp_path / "mine.yaml").write_text(f"extends: wtm2101\nname: mine\ncell: {cell}\n")
    assert load_chip(tmp_path / "mine.yaml").cell.area_f2 == 40


def test_a_cell_can_be_a_file_beside_its_chip_or_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = (files("insitu.device") / "presets" / "reram-1t1r-2b.yaml").read_text()
    (tmp_path / "own.yaml").write_text(cell.replace("name: reram-1t1r-2b", "name: own"))
    chip = tmp_path / "chip.yaml"
    chip.write_text("extends: parametric-reram-adc8\nname: mine\ncell: own.yaml\n")
    assert load_chip(chip).cell.name == "own"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "chip.yaml").write_text("extends: ../chip.yaml\nname: other\n")
    assert load_chip(tmp_path / "other" / "chip.yaml").cell.name == "own"
    monkeypatch.chdir(tmp_path)
    assert load_chip("parametric-reram-adc8", overrides=["cell=own.yaml"]).cell == load_chip(chip).cell
    (tmp_path / "own.yaml").write_text("name: own\n")
    with pytest.raises(ConfigError, match=r"chip.yaml:3: cell = own.yaml; needs a sound cell.*own.yaml:1: kind"):
        load_chip(chip)
    (tmp_path / "own.yaml").unlink()
    with pytest.raises(ConfigError, match="there is none"):
        load_chip(chip)


def test_overrides_go_into_a_cell_that_a_name_stands_for(tmp_path: Path) -> None:
    stuck = load_chip("parametric-reram-adc8", overrides=["cell.stuck.off=0.0175", "cell.stuck.on=0.0904"]).cell
    assert stuck.name == "reram-1t1r-2b"
    assert stuck.stuck is not None
    assert (stuck.stuck.off, stuck.stuck.on) == (0.0175, 0.0904)
    assert load_chip("parametric-reram-adc8", overrides=["cell=reram-wan", "cell.read_sd=0.1"]).cell.read_sd == 0.1
    (tmp_path / "own.yaml").write_text("name: own\nkind: reram\nbits: 2\nnonvolatile: true\narea_f2: 50\n")
    (tmp_path / "mine.yaml").write_text("extends: parametric-reram-adc8\nname: mine\ncell: own.yaml\n")
    assert load_chip(tmp_path / "mine.yaml", overrides=["cell.area_f2=60"]).cell.area_f2 == 60


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["cell=reram-wam", "cell.read_sd=0.1"], "reram-wan"),
        (["cell=none.yaml", "cell.read_sd=0.1"], "no such file"),
        (["cell.read_sdd=0.1"], "unknown key"),
        (["cell.read_sd=-1"], "at least 0"),
    ],
)
def test_overrides_of_a_cell_that_cannot_be(overrides: list[str], words: str) -> None:
    with pytest.raises((ChipError, ConfigError), match=words):
        load_chip("parametric-reram-adc8", overrides=overrides)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wtm2102", "Try: wtm2101"),
        ("dcim28nm", "Try: dcim-28nm"),
        ("nope.yaml", "no such file"),
        ("some/where.yml", "no such file"),
        ("", "unknown"),
    ],
)
def test_an_unknown_chip_is_a_chip_error(name: str, message: str) -> None:
    with pytest.raises(ChipError) as error:
        load_chip(name)
    assert message in str(error.value)


def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chip.txt").write_text("name: x")
    with pytest.raises(ChipError, match=r"\.txt"):
        load_chip(tmp_path / "chip.txt")


def test_unknown_cells_and_keys_say_what_is_near(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: wtm2101\nname: mine\ncell: nor-flash\nmacro: {colums_per_adc: 4}\n")
    with pytest.raises(ConfigError) as error:
        load_chip(file)
    text = str(error.value)
    assert f"{file}:3: cell = nor-flash" in text
    assert "Try: nor-flash-8b" in text
    assert "colums_per_adc: unknown key" in text
    assert "columns_per_adc" in text


def test_faults_of_a_number_inside_an_inline_cell_have_their_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: wtm2101\nname: mine\ncell:\n  name: c\n  kind: reram\n  bits: 2\n  nonvolatile: yes\n")
    with pytest.raises(ConfigError) as error:
        load_chip(file)
    assert f"{file}:7: cell.nonvolatile" in str(error.value)


def test_a_programs_chip_that_was_tampered_with_is_a_config_error() -> None:
    plain = chip_json(load_chip("dcim-28nm"))
    with pytest.raises(ConfigError):
        chip_from_json({**plain, "array": {"rows": -1}})
    with pytest.raises(ConfigError, match="a range within"):
        chip_from_json({**plain, "array": {**plain["array"], "cell_range": [-1000, 1000]}})


def test_schema_knows_the_keys_and_lets_bandwidth_out() -> None:
    schema = chip_schema()
    assert set(schema["required"]) >= {"name", "array", "macro", "core", "chip", "capabilities"}
    assert "bandwidth" not in schema["$defs"]["Memory"]["required"]
    assert schema["additionalProperties"] is False
    json.dumps(schema)


def test_preset_text_is_the_file_and_loads() -> None:
    assert "sources:" in preset_text("wtm2101")
    with pytest.raises(ChipError):
        preset_text("nothing")


def test_chips_are_frozen() -> None:
    chip = load_chip("wtm2101")
    assert isinstance(chip, Chip)
    with pytest.raises(ValueError, match="frozen"):
        chip.name = "other"  # type: ignore[misc]


def test_a_name_in_capitals_is_told_what_names_look_like(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: wtm2101\nname: My Chip\n")
    with pytest.raises(ConfigError, match=r"name = My Chip; needs small letters, digits and \. _ -, such as my-chip"):
        load_chip(str(tmp_path / "mine.yaml"))
