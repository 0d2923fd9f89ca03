"""What the command sets before it imports anything heavy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from insitu.cli import environment


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in (*environment.BLAS, "NUMBA_CACHE_DIR", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # so that what settle() sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return monkeypatch


def test_one_blas_thread_whatever_is_asked(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("OPENBLAS_NUM_THREADS", "4")
    environment.settle()
    assert {os.environ[name] for name in environment.BLAS} == {"1"}


def test_nothing_is_sent_anywhere(clean: pytest.MonkeyPatch) -> None:
    environment.settle()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_kernels_lie_beside_their_source_or_in_the_users_cache(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.settle()
    assert "NUMBA_CACHE_DIR" not in os.environ
    beside = environment.Path(environment.insitu.__file__).parent / "sim"
    clean.setattr(os, "access", lambda path, _: Path(path) != beside)
    environment.settle()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "insitu" / "kernels")


def test_kernels_lie_in_a_private_folder_where_nothing_else_is(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setattr(os, "access", lambda path, _: "insitu-kernels-" in str(path))
    environment.settle()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert folder.stat().st_mode & 0o077 == 0


def test_compiled_kernels_older_than_a_source_are_dropped(tmp_path: Path) -> None:
    """Those of other files too: they may contain what has changed."""
    for name, age in (("a", 50), ("b", 10)):
        cache = tmp_path / name / "__pycache__"
        cache.mkdir(parents=True)
        (tmp_path / name / "kernels.py").write_text("")
        os.utime(tmp_path / name / "kernels.py", (1000 - age, 1000 - age))
        for label, made in (("old", 980), ("new", 995)):
            compiled = cache / f"kernels.{label}-1.py311.nbi"
            compiled.write_text("")
            os.utime(compiled, (made, made))
    environment.drop_stale_kernels(tmp_path)
    assert sorted(p.name.split(".")[1] for p in tmp_path.rglob("*.nbi")) == ["new-1", "new-1"]
