from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.base import store
from insitu.base.errors import OutputError
from insitu.base.metrics import Metric
from insitu.base.store import (
    MARKER,
    RunFolder,
    hash8,
    hash_file,
    json_text,
    npz_bytes,
    write_bytes,
    write_json,
    write_text,
)


@pytest.fixture
def disk_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A disk that takes so many bytes, some at a time, and is then full."""

    def limit(capacity: int) -> None:
        real_write, left = os.write, [capacity]

        def write(descriptor: int, data: Any) -> int:
            if left[0] <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            count = real_write(descriptor, memoryview(data)[: min(left[0], 7)])
            left[0] -= count
            return count

        monkeypatch.setattr(os, "write", write)

    return limit


def _tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# single files


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new µ\n")
    assert _tree(tmp_path) == {"a.txt": "new µ\n".encode()}
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0o077 & ~os.umask(os.umask(0o022)) & 0o066


@pytest.mark.parametrize("capacity", [0, 1, 9])
def test_full_disk_leaves_the_old_file(tmp_path: Path, disk_of: Callable[[int], None], capacity: int) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    disk_of(capacity)
    with pytest.raises(OutputError) as caught:
        write_text(path, "something longer")
    assert caught.value.where == str(path)
    assert "no space left" in caught.value.got
    assert "free some space" in caught.value.try_[0]
    assert _tree(tmp_path) == {"a.txt": b"old"}


def test_interrupt_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.txt", "old")

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a.txt", "new")
    assert _tree(tmp_path) == {"a.txt": b"old"}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_refused_by_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError) as caught:
        write_bytes(tmp_path / "a", b"x")
    assert caught.value.got == os.strerror(number).lower()
    assert caught.value.try_


def test_places_that_are_not_files(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such file or directory; needs the folder to exist"):
        write_text(tmp_path / "none" / "a", "x")
    with pytest.raises(OutputError, match="is a directory"):
        write_text(tmp_path, "x")
    with pytest.raises(OutputError, match="a file name"):
        write_text("a\0b", "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a directory"):
        write_text(tmp_path / "file" / "a", "x")


def test_devices_are_written_to_not_replaced() -> None:
    write_text("/dev/null", "x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_a_device_can_be_full_too() -> None:
    with pytest.raises(OutputError, match="no space left"):
        write_text("/dev/full", "x")


def test_links_stay_links(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


# formats


def test_json_is_sorted_and_has_no_nan(tmp_path: Path) -> None:
    value = {
        "b": math.nan,
        "a": [np.float32(0.5), np.int64(3), np.array([1.0, np.inf]), None, True],
        "c": Metric("x", math.inf, "s", "modelled"),
    }
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {
        "a": [0.5, 3, [1.0, None], None, True],
        "b": None,
        "c": {"value": None, "unit": "s", "source": "modelled"},
    }
    assert text.index('"a"') < text.index('"b"')
    assert text == json_text(dict(reversed(value.items())))


def test_npz_bytes_depend_only_on_content(tmp_path: Path) -> None:
    x, y = np.arange(6.0).reshape(2, 3), np.int8(3)
    assert npz_bytes({"x": x, "y": y}) == npz_bytes({"y": y, "x": x.copy()})
    store.write_npz(tmp_path / "a.npz", {"x": x, "y": y})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as back:
        assert np.array_equal(back["x"], x)
        assert back["y"].dtype == np.int8
    with pytest.raises(ValueError, match="allow_pickle"):
        npz_bytes({"x": np.array([object()])})


@given(st.lists(st.text() | st.binary(), max_size=4), st.lists(st.text() | st.binary(), max_size=4))
def test_hash8_tells_parts_apart(one: list[Any], two: list[Any]) -> None:
    assert (hash8(*one) == hash8(*two)) == (one == two)
    assert len(hash8(*one)) == 8


def test_hash_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# run folders


def _fill(folder: RunFolder, word: str = "new") -> None:
    folder.write_text("result.txt", word)
    folder.write_json("deep/er/result.json", {"word": word})
    folder.write_npz("y.npz", {"y": np.ones(3)})


@pytest.fixture(params=["absent", "empty", "run", "nested", "current"])
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every kind of place a run folder may be put."""
    path = tmp_path / "runs" / "x" if request.param == "nested" else tmp_path / "x"
    if request.param in ("empty", "run", "current"):
        path.mkdir()
    if request.param == "run":
        (path / MARKER).write_text("{}")
        (path / "stale.txt").write_text("old")
        (path / "sub").mkdir()
    if request.param == "current":
        monkeypatch.chdir(path)
        yield Path()
    else:
        yield path


def test_commit_puts_the_whole_folder(target: Path, tmp_path: Path) -> None:
    with RunFolder.create(target, marker={"inputs": "0123abcd"}) as folder:
        _fill(folder)
        shown = folder.write_text("late.txt", "1")
    assert shown == target / "late.txt"
    tree = _tree(target)
    assert sorted(tree) == ["deep/er/result.json", MARKER, "late.txt", "result.txt", "y.npz"]
    assert json.loads(tree[MARKER]) == {"format": 1, "inputs": "0123abcd"}
    root = "runs/x/" if target.parent.name == "runs" else "x/"
    assert all(name.startswith(root) for name in _tree(tmp_path))  # no temporary folder is left


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_run_leaves_everything_as_it_was(target: Path, tmp_path: Path, error: type[BaseException]) -> None:
    before, folders = _tree(tmp_path), sorted(tmp_path.rglob("*"))

    def run() -> None:
        with RunFolder.create(target) as folder:
            _fill(folder)
            raise error

    with pytest.raises(error):
        run()
    assert (_tree(tmp_path), sorted(tmp_path.rglob("*"))) == (before, folders)


@pytest.mark.parametrize("capacity", [0, 5, 60, 200])
def test_full_disk_leaves_everything_as_it_was(
    target: Path, tmp_path: Path, disk_of: Callable[[int], None], capacity: int
) -> None:
    before, folders = _tree(tmp_path), sorted(tmp_path.rglob("*"))
    disk_of(capacity)

    def run() -> None:
        with RunFolder.create(target) as folder:
            _fill(folder)

    with pytest.raises(OutputError, match="no space left"):
        run()
    assert (_tree(tmp_path), sorted(tmp_path.rglob("*"))) == (before, folders)


def test_a_swap_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder.create(tmp_path / "x") as folder:
        _fill(folder, "old")
    before = _tree(tmp_path)
    real_rename, calls = os.rename, []

    def rename(source: Any, to: Any) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real_rename(source, to)

    folder = RunFolder.create(tmp_path / "x")
    _fill(folder)
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OutputError, match="input/output error"):
        folder.commit()
    assert _tree(tmp_path) == before


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    for word in ("one", "two"):
        with RunFolder.create(tmp_path / "x") as folder:
            _fill(folder, word)
            folder.write_text(f"{word}.txt", "")
    assert (tmp_path / "x" / "result.txt").read_text() == "two"
    assert not (tmp_path / "x" / "one.txt").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "under a file", "null byte", "dangling link"])
def test_refuses_what_holds_something_else(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
        (path / "thesis.tex").write_text("")
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    else:
        path.write_text("")
    place = {"under a file": path / "y", "null byte": tmp_path / "a\0b"}.get(kind, path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError) as caught:
        RunFolder.create(place)
    assert sorted(tmp_path.rglob("*")) == before
    if kind == "folder":
        assert "thesis.tex" in caught.value.got
        assert caught.value.try_ == (f"--out {path / 'run'}",)


def test_refuses_a_folder_that_filled_up_meanwhile(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "x")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "other.txt").write_text("")
    with pytest.raises(OutputError, match="something else"):
        folder.commit()
    assert sorted(_tree(tmp_path)) == ["x/other.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(mode=0o500)
    for place in (tmp_path / "x", tmp_path / "x" / "y"):
        with pytest.raises(OutputError, match="permission denied"):
            RunFolder.create(place)


def test_names_stay_inside(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "x")
    with pytest.raises(AssertionError, match="leaves the run folder"):
        folder.file("../../a")
    folder.discard()
    folder.discard()
    assert list(tmp_path.iterdir()) == []
