"""Hostile and broken files: every command ends with one message and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from insitu.cli.main import main
from tests.frontend.hostile import CASES, LARGE, SOUND

MOST_TEXT = 4000  # characters of a message
QUICK, SLOW = sorted(set(CASES) - LARGE - SOUND), sorted(LARGE | SOUND)


def commands(path: Path, out: Path) -> dict[str, list[str]]:
    """The commands that read a model."""
    return {
        "compile": ["compile", str(path), "--chip", "wtm2101", "-o", str(out / "net.insitu")],
        "run": ["run", str(path), "--chip", "wtm2101", "--out", str(out / "run"), "--instances", "1"],
        "show": ["show", str(path)],
        "check": ["check", str(path)],
    }


def refused(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All commands on one file: a message and exit code 1 (2 where it does not fit), nothing written."""
    (folder / "model").mkdir()
    (folder / "out").mkdir()
    path = CASES[name](folder / "model")
    for command, words in commands(path, folder / "out").items():
        code, said = main(words), capsys.readouterr().err
        if name in SOUND and code in (0, 2):
            continue
        assert code == 1, (command, code, said)
        assert 0 < len(said) < MOST_TEXT + len(str(path)), command
        assert "Traceback" not in said
        assert not list((folder / "out").iterdir()), command


@pytest.mark.parametrize("name", QUICK)
def test_a_broken_file_ends_in_a_message(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(name, tmp_path, capsys)


@pytest.mark.long
@pytest.mark.parametrize("name", SLOW)
def test_a_large_or_sound_file_ends_in_a_message(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(name, tmp_path, capsys)
