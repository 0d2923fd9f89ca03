"""`insitu validate` as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from insitu.base.errors import UsageError
from insitu.cli.main import dispatch


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["validate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    assert {"name", "kind", "split", "quantities", "missing"} <= set(found["chips"][0])
    jia = next(row for row in found["chips"] if row["name"] == "jia_jssc_2020_cima")
    assert {"published", "modelled", "ratio"} <= set(jia["quantities"]["tops_per_w"])
    assert {"median_factor", "p90_factor"} <= set(found["summary"]["holdout"])


def test_table_and_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "validate.html"
    assert dispatch(["validate", "--out", str(page)]) == 0
    assert "7 shared constants of energy fitted on 9 calibration chips, 7 of time on 42" in capsys.readouterr().out
    assert "<svg" in page.read_text(encoding="utf-8")


def test_a_chip_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("name: mine\ntops_per_w: {8b_0.9v: 20, 8b_0.8v: 26}\n")
    assert dispatch(["validate", "--chip", "isaac", "--published", str(tmp_path / "p.yaml"), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["chips"][0]
    assert (first["name"], first["split"]) == ("mine", "unseen")


@pytest.mark.parametrize("words", [["--chip", "isaac"], ["--out", "page.txt"]])
def test_misuse(words: list[str]) -> None:
    with pytest.raises(UsageError):
        dispatch(["validate", *words])
