from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.base.errors import ConfigError
from insitu.base.yaml import load_yaml, parse_yaml, read_scalar, write_yaml

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.sampled_from(["on", "no", "Yes", "1e-9", "0x1F", "012", "~", "null", "true", ".5", "- a", "a: b", "a #b", "#"])
)
PLAIN = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-9", 1e-9),
        ("1E3", 1e3),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("no", "no"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("1_000", "1_000"),
        ("37 us", "37 us"),
        ("9" * 400, "9" * 400),
    ],
)
def test_scalars_of_yaml_1_2(text: str, value: object) -> None:
    read = read_scalar(text)
    assert read == value
    assert type(read) is type(value)


@given(PLAIN)
def test_written_data_reads_back(data: Any) -> None:
    back = parse_yaml(write_yaml(data)).data
    assert back == data
    assert repr(back) == repr(data)  # also tells 1 from 1.0 and from True


def test_lines_are_kept() -> None:
    document = parse_yaml("# c\na: 1\nb:\n  - x\n  - {y: 2,\n     z: 3}\n", label="f.yaml")
    assert document.data == {"a": 1, "b": ["x", {"y": 2, "z": 3}]}
    assert document.place(("a",)) == "f.yaml:2"
    assert document.place(("b", 1, "z")) == "f.yaml:6"
    assert document.place(("b", 1, "nothing")) == "f.yaml:5"
    assert document.at(("b", 0)) == "x"
    assert document.at(("b", 7, "c")) is None


def test_quotes_make_text() -> None:
    assert parse_yaml("a: '1'\nb: \"true\"\nc: |\n  12\n").data == {"a": "1", "b": "true", "c": "12\n"}


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3", "a: a duplicate key; needs one `a`; the first is on line 1"),
        ("x: {a: 1, a: 2}", "f.yaml:1", "duplicate key"),
        ("a: &x 1\nb: *x\n", "f.yaml:1", "&x"),
        ("a: 1\nb: *x\n", "f.yaml:2", "*x"),
        ("a: !!python/object:os.system x\n", "f.yaml:1", "tags are not read"),
        ("a: !!int 3\n", "f.yaml:1", "tags are not read"),
        ("a: .inf\n", "f.yaml:1", "a finite number"),
        ("\na: [1, .nan]\n", "f.yaml:2", "a finite number"),
        ("a: 1e999\n", "f.yaml:1", "1e999"),
        ("? [a]\n: b\n", "f.yaml:1", "a word as a key"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2", "one document"),
        ("a: b: c\n", "f.yaml:1", "YAML"),
        ("a:\n\t- b\n", "f.yaml:2", "spaces instead of tabs"),
        ("a: [1, 2\n", "f.yaml:2", "YAML"),
        ("a: \x07\n", "f.yaml", "control characters"),
        ("a: " + "[" * 5000, "f.yaml:1", "more than 64 levels"),
    ],
)
def test_refuses(text: str, where: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, label="f.yaml")
    assert caught.value.where == where
    assert message in str(caught.value)


@given(st.binary(max_size=60) | TEXT.map(str.encode))
def test_any_bytes_are_data_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    with suppress(ConfigError):
        load_yaml(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a directory"):
        load_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: bytes that are not UTF-8"):
        load_yaml(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_text("a: 1\n" * 100)
    with pytest.raises(ConfigError, match="more than 100 bytes"):
        load_yaml(tmp_path / "large.yaml", max_bytes=100)


def test_short_leaves_stand_on_one_line() -> None:
    data = {"array": {"rows": 896, "cell_range": [-275, 275]}, "macro": {"t": "37 us", "readout": {"kind": "adc"}}}
    assert write_yaml(data) == (
        "array: {rows: 896, cell_range: [-275, 275]}\nmacro:\n  t: 37 us\n  readout: {kind: adc}\n"
    )
