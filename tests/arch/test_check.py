"""Contradictions in a chip: all at once, each with the line to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from insitu.arch.check import faults
from insitu.arch.load import load_chip, presets
from insitu.base.errors import ConfigError


@pytest.mark.parametrize("name", presets())
def test_presets_are_sound(name: str) -> None:
    assert faults(load_chip(name)) == ()


@pytest.mark.parametrize(
    ("base", "override", "message"),
    [
        ("wtm2101", "macro.readout.bits=7", "needs 8 for the wtm2101 readout"),
        ("wtm2101", "macro.readout.signed=false", "macro.readout.signed = false; needs true"),
        ("wtm2101", "macro.readout.gain=[300, 8192]", "two powers of two"),
        ("wtm2101", "macro.readout.gain=[8192, 256]", "the lowest first"),
        ("wtm2101", "macro.readout.gain=null", "macro.readout.gain = missing"),
        ("wtm2101", "macro.input.signed=true", "unsigned codes in one pass"),
        ("wtm2101", "macro.input.bits_per_pass=4", "unsigned codes in one pass"),
        ("wtm2101", "macro.bias_rows=0", "at least 1"),
        ("wtm2101", "macro.columns_per_adc=7", "a divisor of the 1024 columns"),
        ("wtm2101", "array.cell_range=[-500, 500]", "a range within [-286, 286]"),
        ("wtm2101", "array.cell_range=[5, 5]", "the lowest integer first"),
        ("wtm2101", "array.bits_per_cell=9", "at most 8, what the cell nor-flash-8b holds"),
        ("wtm2101", "macro.weights.slices=2", "1 with signed cells"),
        ("wtm2101", "macro.reserved_columns=1024", "fewer than the 1024 columns"),
        ("wtm2101", "capabilities.wload=true", "a cell that endures reloading"),
        ("dcim-28nm", "macro.bias_rows=2", "the bias is added digitally"),
        ("dcim-28nm", "macro.weights.slices=7", "a range within [-64, 63]"),
        ("dcim-28nm", "macro.input.bits_per_pass=9", "at most the 8 input bits"),
        ("dcim-28nm", "macro.t_adc=1 ns", "converts nothing"),
        ("dcim-28nm", "macro.readout.gain=[256, 512]", "no gain with an exact readout"),
        ("dcim-28nm", "physics.adc_noise={sd: 1}", "none with an exact readout"),
        ("dcim-28nm", "cell=nor-flash-8b", "a digital cell with an exact readout"),
        ("parametric-reram-adc8", "macro.readout.bits=15", "an integer from 1 to 14"),
        ("isaac", "macro.weights.slices=3", "a range within [-32, 31]"),
        (
            "parametric-reram-adc8",
            "array.cell_range=[-127, 127]",
            "[-45, 45]: differential_pair, 4 x 2 bits, 1 apart",
        ),
        ("parametric-reram-adc8", "array.cell_range=[0, 0]", "the lowest integer first"),
        ("parametric-reram-adc8", "macro.weights.encoding=offset_column", "slice_shift=0"),
        ("parametric-reram-adc8", "macro.weights.slice_shift=3", "at most 2, the bits of a cell"),
        ("dcim-28nm", "macro.weights.slice_shift=1", "several slices in differential pairs"),
        ("isaac", "macro.weights.slice_shift=1", "several slices in differential pairs"),
    ],
)
def test_a_contradiction_is_named_with_what_it_needs(base: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_chip(base, overrides=[override])
    assert message in str(error.value)
    assert error.value.where == f"--set {override}" or error.value.where.startswith(f"{base}:")


def test_times_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="t_read"):
        load_chip("wtm2101", overrides=["macro.t_read=0 s"])


def test_all_faults_of_a_file_come_at_once_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: wtm2101\nname: mine\nmacro:\n  columns_per_adc: 7\n  readout:\n    gain: [300, 512]\n"
        "array:\n  cell_range: [-500, 200]\n"
    )
    with pytest.raises(ConfigError) as error:
        load_chip(file)
    wheres = {fault.where for fault in error.value.faults}
    assert wheres == {f"{file}:4", f"{file}:6", f"{file}:8"}


def test_a_fault_of_the_extended_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: wtm2101\nname: base\nmacro:\n  columns_per_adc: 7\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nname: mine\n")
    with pytest.raises(ConfigError) as error:
        load_chip(tmp_path / "mine.yaml")
    assert error.value.where == f"{tmp_path / 'base.yaml'}:4"


def test_a_chip_without_ram_cannot_run_programs(tmp_path: Path) -> None:
    text = "\n".join(line for line in _lines("wtm2101") if "ram: {kind" not in line and line != "memories:")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match="one called ram"):
        load_chip(tmp_path / "mine.yaml")


def _lines(name: str) -> list[str]:
    from insitu.arch.load import preset_text

    return preset_text(name).splitlines()
