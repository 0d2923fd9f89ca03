"""What is printed: plain text, one JSON object, and streams that somebody closed or that are full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from insitu.cli import console
from tests.cli.conftest import started


def test_control_characters_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    console.put("a\x1b[31mb\r\tc\n[bold]d[/bold]\x9b")
    assert capsys.readouterr().out == "a?[31mb?\tc\n[bold]d[/bold]?\n"


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    console.put_json({"a": float("nan"), "b": (1, float("inf")), "\ud800": "\x1b"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": None, "b": [1, None], "\ud800": "\x1b"}
    assert out.isascii()


def test_progress_without_a_terminal_is_a_line_per_stage(capsys: pytest.CaptureFixture[str]) -> None:
    progress = console.Progress()
    for stage in ("one", "two"):
        for done in range(100):
            progress(stage, done, 100)
    progress.end()
    assert capsys.readouterr().err == "one ...\ntwo ...\n"


def test_progress_on_a_terminal_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = console.Progress()
    progress("a long stage [red]", 1, 2)
    progress("two", 0, 1)
    progress.end()
    err = capsys.readouterr().err
    assert "\n" not in err
    assert err.endswith("\r")
    assert err.split("\r")[1:3] == ["a long stage [red] 1/2", f"{'two':<22}"]


def test_a_reader_that_leaves_is_no_fault(tmp_path: Path) -> None:
    process = started("show", "isa", cwd=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait() == 1
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_output_that_is_full(tmp_path: Path, more: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "insitu.cli.main", "chips", *more]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=_environment(), check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("standard output: no space left on device")
    assert len(done.stderr.splitlines()) == 1


def test_text_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    process = started("show", "nö€", cwd=tmp_path, environment={"PYTHONIOENCODING": "ascii"})
    _, err = process.communicate()
    assert process.returncode == 1
    assert "n\\xf6\\u20ac" in err


def _environment() -> dict[str, str]:
    import insitu

    return {**os.environ, "PYTHONPATH": str(Path(insitu.__file__).parents[1])}
