"""`insitu plan` and `insitu claims`: the contract of their JSON, their files and their exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Insitu


def test_plan(insitu: Insitu, tmp_path: Path) -> None:
    done = insitu("plan", "shape:llama-3-8b", "--prefer", "latency", "--json")
    assert done.code == 0, done.err
    found = done.json()
    assert set(found) >= {"candidates", "recommendation", "runner_up", "flips_if"}
    assert len(found["candidates"]) >= 30
    assert insitu("plan", "--init", tmp_path / "r.yaml").code == 0
    none = insitu("plan", "shape:llama-3-8b", "--requirements", tmp_path / "r.yaml", "--json")
    assert none.code == 2
    assert none.json()["recommendation"] is None
    rungs = insitu("plan", "--ladder", "--json").json()["ladder"]
    assert rungs[0]["size"] == 2e6
    assert rungs[-1]["size"] == 256e12
    assert insitu("plan", "--json").code == 1


@pytest.mark.slow
def test_claims(insitu: Insitu, tmp_path: Path) -> None:
    done = insitu("claims", "--json", "--set", "electricity_generic=5", "--out", tmp_path / "claims.html")
    assert done.code == 0, done.err
    rows = {row["id"]: row for row in done.json()["claims"]}
    assert rows["electricity"]["verdict"] != "does not hold"
    assert any(row["source"] == "given with --set" for row in rows["electricity"]["assumptions"])
    assert (tmp_path / "claims.html").stat().st_size < 500_000
    assert insitu("claims", "--set", "electricty_generic=5").code == 1
    assert insitu("claims", "--out", tmp_path / "claims.txt").code == 1
