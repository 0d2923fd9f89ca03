from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from insitu.base.errors import ConfigError
from insitu.base.schema import load_config
from tools.accept import Acceptance, Outcome, Point, judge, replace_section, row, section, verdicts, written_rows


def _point(**fields: Any) -> Point:
    return Point.model_validate({"id": "p", "text": "t", "command": "true", **fields})


@pytest.mark.parametrize(
    ("fields", "stdout", "holds"),
    [
        ({"figure": {"json": "a[1].b"}, "bar": ">= 0.5"}, '{"a": [0, {"b": 0.5}]}', True),
        ({"figure": {"json": "a.b"}, "bar": "== 0"}, '{"a": null}', False),
        ({"figure": {"json": "a"}, "bar": "== 0"}, '{"a": null}', False),
        ({"figure": {"json": "a"}, "bar": "== 0"}, "not JSON", False),
        ({"figure": {"regex": r"([\d,]+) passed"}, "bar": "> 999"}, "1,234 passed", True),
        ({"figure": {"regex": r"(\d+) passed"}, "bar": "> 0"}, "none", False),
        ({"figure": "seconds", "bar": "< 2"}, "", True),
        ({}, "", True),
    ],
)
def test_judge(fields: dict[str, Any], stdout: str, holds: bool) -> None:
    assert judge(_point(**fields), Outcome(0, 1.5, stdout, "")).holds is holds


def test_a_wrong_exit_code_fails_whatever_the_figure_says() -> None:
    point = _point(figure={"json": "a"}, bar="== 0")
    assert not judge(point, Outcome(1, 0.1, '{"a": 0}', "")).holds
    assert not judge(point, Outcome(None, 0.1, '{"a": 0}', "")).holds
    assert judge(_point(figure={"json": "a"}, bar="== 0", exit=2), Outcome(2, 0.1, '{"a": 0}', "")).holds


def test_a_shared_command_runs_once(tmp_path: Path) -> None:
    command = f"echo x >> {tmp_path / 'ran'}"
    judged = verdicts([_point(command=command), _point(id="q", command=command)])
    assert [verdict.holds for verdict in judged] == [True, True]
    assert (tmp_path / "ran").read_text() == "x\n"


def test_a_command_that_hangs_is_ended() -> None:
    (verdict,) = verdicts([_point(command="sleep 60", timeout=0.2)])
    assert not verdict.holds
    assert "ran past" in verdict.why


@pytest.mark.parametrize(
    "fields", ["by: eye", "command: x, bar: about 3", "command: x, figure: {}", "command: x, bra: 1"]
)
def test_a_wrong_file_is_refused(fields: str) -> None:
    with pytest.raises(ConfigError):
        load_config("a.yaml", Acceptance, text=f"title: t\npoints:\n  - {{id: a, text: t, {fields}}}\n")


def test_only_this_section_of_the_page_changes() -> None:
    page = "# Status\n\nText.\n"
    rows = [row(judge(_point(), Outcome(0, 1, "", "")))]
    page = replace_section(page, "02", section("02", "Two", rows))
    page = replace_section(page, "01", section("01", "One", rows))
    assert page.index("## 01 One") < page.index("## 02 Two")
    assert replace_section(page, "01", section("01", "One", rows)) == page
    assert "1 of 1 points hold" in page


def test_the_rows_of_a_page_are_read_back_by_point() -> None:
    line = row(judge(_point(), Outcome(0, 1, "", "")))
    page = replace_section("# Status\n", "02", section("02", "Two", [line]))
    assert written_rows(page, "02") == {_point().id: line}
    assert written_rows(page, "03") == {}


def test_every_acceptance_file_is_well_formed(repository: Path) -> None:
    for path in sorted((repository / "acceptance").glob("*.yaml")):
        points = load_config(path, Acceptance).points
        assert len({point.id for point in points}) == len(points)
