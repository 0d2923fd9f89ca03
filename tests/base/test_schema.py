from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator, model_validator

from insitu.base.errors import ConfigError
from insitu.base.schema import Bytes, Config, Fraction, Hertz, Seconds, dump_yaml, load_config


class Exact(Config):
    kind: Literal["exact"]


class Adc(Config):
    kind: Literal["adc"]
    bits: int = Field(8, ge=1, le=14)


class Macro(Config):
    arrays: int
    t_read: Annotated[Seconds, Field(gt=0)] = 37e-6
    readout: Annotated[Exact | Adc, Field(discriminator="kind")] = Exact(kind="exact")
    cell_range: tuple[int, int] = (-1, 1)

    @field_validator("arrays")
    @classmethod
    def _even(cls, arrays: int) -> int:
        if arrays % 2:
            raise ValueError("an even number of arrays")
        return arrays

    @model_validator(mode="after")
    def _ordered(self) -> Macro:
        if self.cell_range[0] > self.cell_range[1]:
            raise ValueError("cell_range from low to high")
        return self


class Chip(Config):
    name: str
    macro: Macro
    sram: Annotated[Bytes, Field(gt=0)] | None = None
    clock: Hertz = 1e6
    share: Fraction = 0.5
    origin: Literal["vendor", "paper"] = "paper"
    analog: bool = True
    spare: dict[str, Macro] = {}
    others: tuple[Macro, ...] = ()


GOOD = """
name: x
macro:
  arrays: 2
  t_read: 40 us
  readout: {kind: adc, bits: 6}
  cell_range: [-275, 275]
sram: 8 KiB
clock: 24 MHz
share: 5 %
"""


def _fault(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config("chip.yaml", Chip, text=text)
    return str(caught.value)


def test_quantities_come_as_si() -> None:
    chip = load_config(GOOD, Chip)
    assert (chip.macro.t_read, chip.sram, chip.clock, chip.share) == (40e-6, 8192, 24e6, 0.05)
    assert type(chip.sram) is int
    assert chip.macro.cell_range == (-275, 275)


def test_round_trip() -> None:
    chip = load_config(GOOD, Chip)
    assert load_config(dump_yaml(chip), Chip) == chip
    assert "t_read: 40 us" in dump_yaml(chip)


@given(
    st.builds(
        Chip,
        name=st.text(st.characters(codec="utf-8")),
        macro=st.builds(Macro, arrays=st.integers(0, 9).map(lambda n: 2 * n), t_read=st.floats(1e-15, 1e6)),
        sram=st.none() | st.integers(1, 2**50),
        clock=st.floats(-1e12, 1e12),
        share=st.floats(0, 1),
        spare=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.just(Macro(arrays=2)), max_size=2),
    )
)
def test_any_model_round_trips(chip: Chip) -> None:
    assert load_config("any.yaml", Chip, text=dump_yaml(chip)) == chip


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        load_config(GOOD, Chip).name = "y"  # type: ignore[misc]


def test_all_faults_of_a_file_come_at_once_with_their_lines() -> None:
    text = """name: 3
macro:
  arays: 1
  t_read: 37 uz
  readout: {kind: adc, bits: 0}
  cell_range: [-275, a]
sram: -3 KiB
clock: yes
origin: vendr
analog: 1
share: true
spare: {a: {arrays: 1.0, readout: {kind: exac}, cell: 1}}
others: [{arrays: 3, readout: {}, cell_rnge: 1}]
nmae: 1
"""
    assert _fault(text).splitlines() == [
        "chip.yaml:1: name = 3; needs text",
        "chip.yaml:2: macro.arrays is missing; needs an integer",
        "chip.yaml:3: macro.arays: unknown key; needs one of the keys of macro: arrays, cell_range, readout, t_read. "
        "Try: arrays",
        "chip.yaml:4: macro.t_read = 37 uz; needs a quantity in s, such as 10 ns",
        "chip.yaml:5: macro.readout.bits = 0; needs an integer from 1 to 14",
        "chip.yaml:6: macro.cell_range[1] = a; needs an integer",
        "chip.yaml:7: sram = -3 KiB; needs a quantity in B above 0",
        "chip.yaml:8: clock = yes; needs a quantity in Hz, such as 24 MHz",
        "chip.yaml:9: origin = vendr; needs one of vendor, paper. Try: vendor",
        "chip.yaml:10: analog = 1; needs true or false",
        "chip.yaml:11: share = true; needs a quantity in 1",
        "chip.yaml:12: spare.a.arrays = 1.0; needs an integer",
        "chip.yaml:12: spare.a.readout.kind = exac; needs one of exact, adc. Try: exact",
        "chip.yaml:12: spare.a.cell: unknown key; needs one of the keys of spare.a: arrays, cell_range, readout, "
        "t_read",
        "chip.yaml:13: others[0].arrays = 3; needs an even number of arrays",
        "chip.yaml:13: others[0].readout.kind is missing; needs one of exact, adc",
        "chip.yaml:13: others[0].cell_rnge: unknown key; needs one of the keys of others[0]: arrays, cell_range, "
        "readout, t_read. Try: cell_range",
        "chip.yaml:14: nmae: unknown key; needs one of the keys of the file: analog, clock, macro, name, origin, "
        "others, share, spare, sram. Try: name",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "chip.yaml: an empty file; needs a mapping"),
        ("[1]", "chip.yaml: [1]; needs a mapping"),
        ("name: x\nmacro: 3\n", "chip.yaml:2: macro = 3; needs a mapping"),
        (
            "name: x\nmacro: {arrays: 2}\nothers: {}\n",
            "chip.yaml:3: others = a mapping with the keys (none); needs a list",
        ),
        ("name: x\nmacro:\n  arrays: 2\n  cell_range: [2, 1]\n", "chip.yaml:2: macro = a mapping with the keys arrays"),
        ("name: x\nmacro: {arrays: 2}\nsram: 0.5 B\n", "chip.yaml:3: sram = 0.5 B; needs a whole number of B"),
        ("name: x\nmacro: {arrays: 2}\nsram: 8 KB\n", "needs a quantity in B, such as 8 KiB. Try: kB; or KiB; or B"),
    ],
)
def test_faults(text: str, message: str) -> None:
    assert message in _fault(text)


def test_files_and_text(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(GOOD)
    assert (
        load_config(tmp_path / "c.yaml", Chip) == load_config(str(tmp_path / "c.yaml"), Chip) == load_config(GOOD, Chip)
    )
    with pytest.raises(ConfigError, match="no such file"):
        load_config("none.yaml", Chip)


def test_overrides() -> None:
    chip = load_config(GOOD, Chip, overrides=["macro.readout.bits=3", "clock=1 GHz", "macro.cell_range.0=-9"])
    assert (chip.macro.readout, chip.clock, chip.macro.cell_range) == (Adc(kind="adc", bits=3), 1e9, (-9, 275))
    chip = load_config(GOOD, Chip, overrides=["macro.readout={kind: exact}"])
    assert chip.macro.readout == Exact(kind="exact")
    chip = load_config(GOOD, Chip, overrides=["spare.a.arrays=4"])
    assert chip.spare["a"].arrays == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("macro.readout.bits=x", "--set macro.readout.bits=x: macro.readout.bits = x; needs an integer from 1 to 14"),
        ("macro.redout.bits=3", "macro.redout: unknown key"),
        ("clock", "path=value"),
        ("=3", "path=value"),
        ("macro.cell_range.7=3", "a number from 0 to 1"),
        ("clock=[", "YAML"),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(GOOD, Chip, overrides=[override])
    assert message in str(caught.value)
    assert caught.value.where.startswith("--set ")


def _library(name: str) -> tuple[str, str]:
    files = {
        "base": GOOD,
        "middle": "extends: base\nclock: 1 MHz\n",
        "loop": "extends: loop\n",
        "broken": GOOD.replace("arrays: 2", "arrays: two"),
    }
    return files[name], f"{name}.yaml"


def test_extends_merges_mappings() -> None:
    text = "extends: middle\nmacro: {arrays: 4, readout: {bits: 3}}\n"
    chip = load_config(text, Chip, extends_resolver=_library)
    assert (chip.macro.arrays, chip.macro.t_read, chip.clock, chip.name) == (4, 40e-6, 1e6, "x")
    assert chip.macro.readout == Adc(kind="adc", bits=3)
    chip = load_config("extends: base\nmacro: {readout: {kind: exact}}\n", Chip, extends_resolver=_library)
    assert chip.macro.readout == Exact(kind="exact")  # another kind replaces, it does not merge


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: loop\n", "loop.yaml:1: extends = loop, already extended: loop; needs a chain without a loop"),
        ("extends: [a]\n", "c.yaml:1: extends = "),
        ("extends: broken\nclock: x\n", "broken.yaml:4: macro.arrays = two; needs an integer"),
        ("extends: base\n\nclock: x\n", "c.yaml:3: clock = x; needs a quantity in Hz"),
    ],
)
def test_extends_faults_name_the_file_they_are_in(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("c.yaml", Chip, text=text, extends_resolver=_library)
    assert message in str(caught.value)


def test_json_schema_says_what_a_quantity_takes() -> None:
    macro = Chip.model_json_schema()["$defs"]["Macro"]["properties"]
    assert {"number", "string"} == {branch["type"] for branch in macro["t_read"]["anyOf"]}
