"""The guide "A published chip against the model": its files and commands, as they stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from insitu.cli.main import dispatch

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "own-chip-validate.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks("yaml"):
        Path(block.splitlines()[0].removeprefix("# ")).write_text(block, encoding="utf-8")
    for command in blocks("sh")[0].strip().splitlines():
        assert dispatch(command.split()[1:]) == 0
    assert Path("validate.html").read_text(encoding="utf-8").count("my-macro") >= 2
    capsys.readouterr()
    assert dispatch(["validate", "--chip", "chip.yaml", "--published", "published.yaml", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["chips"][0]
    assert (first["name"], first["split"], first["missing"], first["unfitted"]) == ("my-macro", "unseen", [], False)
    assert set(first["quantities"]["tops_per_w"]["modelled"]) == {"8b_0.9v", "8b_0.7v", "4b_0.9v", "peak"}
    assert first["quantities"]["tops"]["kind"] == "prediction"
    assert all(row["factor"] < 3 for row in first["quantities"].values())
