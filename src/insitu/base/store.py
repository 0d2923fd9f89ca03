"""Files and run folders that appear whole or not at all, and whose bytes depend only on what is in them."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b, sha256
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, Self, cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from insitu.base.errors import InsituError, OutputError

MARKER = "insitu-run.json"
_WAYS_OUT = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some of your quota or choose another disk",
    errno.EFBIG: "raise the file size limit or choose another disk",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a disk that is not read-only",
    errno.ENAMETOOLONG: "choose a shorter name",
}


# single files


def write_bytes(path: str | Path, data: bytes | memoryview) -> Path:
    """Write a file whole: a temporary file beside it, flushed to disk, then renamed over it.

    A link is followed; a device or pipe is written to directly.  On any failure the old file stays as it was.
    """
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            _write_special(target, data)
            return Path(path)
        temporary = target.with_name(f".{target.name[:200]}.{token_hex(4)}.tmp")
        try:
            _write_new(temporary, data)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except (OSError, ValueError) as error:
        raise _output_error(path, error) from error
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text whole; line ends stay as they are."""
    return write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> Path:
    """Write `json_text(value)` whole."""
    return write_text(path, json_text(value))


def write_npz(path: str | Path, arrays: Mapping[str, Any], *, compress: bool = True) -> Path:
    """Write arrays as an .npz whole, the same bytes for the same arrays."""
    return write_bytes(path, npz_bytes(arrays, compress=compress))


def json_text(value: Any) -> str:
    """JSON with sorted keys and one line end; NaN and infinity are null; NumPy scalars and arrays are numbers."""
    return json.dumps(plain(value), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """The value as JSON knows it: dict, list, str, finite number, boolean or None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in cast(dict[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast(list[Any], value)]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "to_json"):
        return plain(value.to_json())
    return value


def npz_bytes(arrays: Mapping[str, Any], *, compress: bool = True) -> bytes:
    """An .npz with sorted names and a fixed date."""
    import numpy as np

    buffer = BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name in sorted(arrays):
            content = BytesIO()
            np.lib.format.write_array(content, np.asarray(arrays[name]), allow_pickle=False)
            entry = ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = ZIP_DEFLATED if compress else ZIP_STORED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content.getvalue(), compresslevel=6)
    return buffer.getvalue()


def hash8(*parts: str | bytes) -> str:
    """Eight hex digits that name these parts, in this order."""
    digest = blake2b(digest_size=4)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"s" if isinstance(part, str) else b"b")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def hash_file(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    digest = sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


# run folders


class RunFolder:
    """A folder of results, filled beside its final place and put there whole by `commit`.

    Used as a context manager it commits at the end of the block, and on any exception (Ctrl-C too) it leaves
    everything as it was before.  A folder is a run folder if it holds `insitu-run.json`; a run folder is replaced,
    an empty folder is used, anything else is refused before work starts.
    """

    def __init__(self, path: Path, *, work: Path, made: tuple[Path, ...]) -> None:
        self.path = path
        self._work = work
        self._made = made  # parents that did not exist before, outermost first
        self._done = False

    @classmethod
    def create(cls, path: str | Path, *, marker: Mapping[str, Any] | None = None) -> Self:
        """Check that `path` can become a run folder and open one; `marker` is the content of insitu-run.json."""
        path = Path(path)
        _refuse_foreign(path)
        made: list[Path] = []
        try:
            real = Path(os.path.realpath(path))
            for parent in reversed(real.parents):
                if not parent.exists():
                    parent.mkdir()
                    made.append(parent)
            folder = cls(path, work=_work_folder(real), made=tuple(made))
        except (OSError, ValueError) as error:
            _remove_empty(made)
            raise _output_error(path, error) from error
        try:
            folder.write_json(MARKER, {"format": 1, **(marker or {})})
        except BaseException:
            folder.discard()
            raise
        return folder

    def file(self, name: str) -> Path:
        """Where to write `name` ("audio/a.wav") until commit; its folder exists."""
        place = self._work / name
        assert not self._done, "committed or discarded before"
        assert place.resolve().is_relative_to(self._work.resolve()), f"{name} leaves the run folder"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _output_error(self.path / name, error) from error
        return place

    def write_bytes(self, name: str, data: bytes) -> Path:
        return self._write(name, data)

    def write_text(self, name: str, text: str) -> Path:
        return self._write(name, text.encode())

    def write_json(self, name: str, value: Any) -> Path:
        return self._write(name, json_text(value).encode())

    def write_npz(self, name: str, arrays: Mapping[str, Any]) -> Path:
        return self._write(name, npz_bytes(arrays))

    def _write(self, name: str, data: bytes) -> Path:
        """Write into the folder; returns where the file will be."""
        place = self.file(name)
        try:
            with suppress(FileNotFoundError):
                place.unlink()
            _write_new(place, data)
        except OSError as error:
            raise _output_error(self.path / name, error) from error
        return self.path / name

    def commit(self) -> Path:
        """Put the folder in place, replacing the run folder that was there."""
        assert not self._done, "committed or discarded before"
        real = Path(os.path.realpath(self.path))
        try:
            _refuse_foreign(self.path)
            if self._work.parent == real:
                _move_in(self._work, real)
            else:
                _swap(self._work, real)
        except OSError as error:
            self.discard()
            raise _output_error(self.path, error) from error
        except BaseException:
            self.discard()
            raise
        self._done = True
        return self.path

    def discard(self) -> None:
        """Leave nothing behind; does nothing after commit."""
        if self._done:
            return
        self._done = True
        shutil.rmtree(self._work, ignore_errors=True)
        _remove_empty(self._made)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


def _refuse_foreign(path: Path) -> None:
    """Raise unless `path` is absent, an empty folder or a run folder."""
    need = "a new or empty folder, or an earlier run folder"
    try:
        if not os.path.lexists(path):
            return
        if not path.is_dir():
            raise OutputError(str(path), "not a folder", need, try_=(f"--out {path}-run",))
        names = [entry.name for entry in os.scandir(path) if not _is_work(entry.name)]
    except (OSError, ValueError) as error:
        raise _output_error(path, error) from error
    if names and MARKER not in names:
        got = f"a folder that holds something else ({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})"
        raise OutputError(str(path), got, need, try_=(f"--out {path / 'run'}",))


def _is_work(name: str) -> bool:
    return name.startswith(".insitu-") and name.endswith(".tmp")


def _work_folder(real: Path) -> Path:
    """A new folder beside the final place, or inside it where that one cannot be renamed."""
    beside = real.with_name(f".insitu-{real.name[:100]}-{token_hex(4)}.tmp")
    inside = real / f".insitu-{token_hex(4)}.tmp"
    if not real.exists():
        beside.mkdir()
        return beside
    if os.path.ismount(real) or Path.cwd().is_relative_to(real) or not os.access(real.parent, os.W_OK | os.X_OK):
        inside.mkdir()
        return inside
    if not os.access(real, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    beside.mkdir()
    return beside


def _swap(work: Path, real: Path) -> None:
    """Rename the old folder away and the new one in; put the old one back if that fails."""
    old = work.with_name(f"{work.name[:-4]}-old.tmp")
    had_old = real.exists()
    if had_old:
        os.rename(real, old)
    try:
        os.rename(work, real)
    except BaseException:
        if had_old:
            os.rename(old, real)
        raise
    if had_old:
        shutil.rmtree(old, ignore_errors=True)


def _move_in(work: Path, real: Path) -> None:
    """Replace the content of a folder that cannot be renamed; the marker goes in first and so is never missing."""
    os.replace(work / MARKER, real / MARKER)
    for entry in list(real.iterdir()):
        if entry.name == MARKER or _is_work(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    for entry in list(work.iterdir()):
        os.rename(entry, real / entry.name)
    work.rmdir()


def _remove_empty(folders: list[Path] | tuple[Path, ...]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()


# what everything above writes with


def _write_new(path: Path, data: bytes | memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_special(path: Path, data: bytes | memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY)  # fails with EISDIR on a folder
    try:
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _output_error(path: str | Path, error: OSError | ValueError) -> InsituError:
    if not isinstance(error, OSError):
        return OutputError(repr(str(path)), str(error), "a file name")
    reason = (error.strerror or str(error)).lower()
    need = "the folder to exist" if error.errno == errno.ENOENT else "a place that can be written"
    way = _WAYS_OUT.get(error.errno or 0)
    return OutputError(str(path), reason, need, try_=(way,) if way else ())
