"""Samples that are not all in memory: rows of a file, numbers as codes, made when they are taken."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Mapping
from copy import copy as copy_of
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
KEEP_ABOVE = 64 << 20  # bytes of an array that stays in its file
ROWS_BYTES = 4 << 20  # looked at, at once
NARROW = (np.int8, np.uint8, np.int16, np.uint16, np.int32)


class Rows:
    """Rows (samples, *shape) of an array that stays in its file; what is taken of them is an array in memory.

    The file is mapped for each taking only, so that no more of it counts as this process's memory.
    """

    def __init__(self, path: Path, offset: int, stored: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.path, self.offset, self.stored, self.dtype = path, offset, stored, stored
        self.rows, self.shape = np.arange(shape[0]), shape

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ndim(self) -> int:
        """Dims, that of the samples among them."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.shape)

    def __getitem__(self, which: Any) -> Array:
        rows = self.rows[which]
        if rows.size == 0:
            return np.zeros((*rows.shape, *self.shape[1:]), self.dtype)
        first, last = int(rows.min()), int(rows.max())
        start = self.offset + first * prod(self.shape[1:]) * self.stored.itemsize
        held = np.memmap(self.path, self.stored, "r", start, (last + 1 - first, *self.shape[1:]))
        together = rows.ndim and last + 1 - first == len(rows) and bool((np.diff(rows) == 1).all())
        return np.array(held if together else np.asarray(held)[rows - first], self.dtype)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return self[:] if dtype is None else self[:].astype(dtype)

    def reshape(self, *shape: int) -> Rows:
        """The same rows in another shape of the same size."""
        return self._with(shape=shape)

    def astype(self, dtype: npt.DTypeLike) -> Rows:
        """The same rows in another type."""
        return self._with(dtype=np.dtype(dtype))

    def take(self, rows: npt.NDArray[np.int64]) -> Rows:
        """Some of the rows."""
        return self._with(rows=self.rows[rows], shape=(len(rows), *self.shape[1:]))

    def _with(self, **changes: Any) -> Rows:
        other = copy_of(self)
        for name, value in changes.items():
            setattr(other, name, value)
        return other


def rows_of(array: Array, rows: npt.NDArray[np.int64]) -> Array:
    """The rows; those of an array that stays in its file are read when they are taken."""
    held: Any = array
    return cast(Array, held.take(rows)) if isinstance(held, Rows) else array[rows]


def as_type(array: Array, dtype: npt.DTypeLike) -> Array:
    """The array in a type, itself where it has it; one that stays in its file is converted as it is taken."""
    return array if array.dtype == dtype else array.astype(dtype)


def holds(array: Array, check: Callable[[Array], bool]) -> bool:
    """Whether a check holds for all rows; they are looked at a few at a time."""
    each = max(1, ROWS_BYTES // max(1, array[:1].nbytes))
    return all(check(array[i : i + each]) for i in range(0, len(array), each))


def stored(path: str | Path) -> dict[str, Array]:
    """The large arrays of an .npz file that are not compressed, as rows left in the file."""
    found: dict[str, Array] = {}
    with zipfile.ZipFile(path) as archive, Path(path).open("rb") as file:
        for info in archive.infolist():
            if (
                info.compress_type == zipfile.ZIP_STORED
                and info.file_size > KEEP_ABOVE
                and info.filename[-4:] == ".npy"
            ):
                file.seek(info.header_offset)
                name, extra = struct.unpack("<HH", file.read(30)[26:])
                file.seek(info.header_offset + 30 + name + extra)
                rows = _rows(Path(path), file)
                found |= {} if rows is None else {info.filename[:-4]: cast(Array, rows)}
    return found


def _rows(path: Path, file: Any) -> Rows | None:
    """The array whose .npy form begins where the file stands; none of Python objects, in column order or of no rows."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        return None
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return None if dtype.hasobject or fortran or not shape else Rows(path, file.tell(), dtype, shape)


class Coded:
    """Codes (samples, *shape) of an input, made of its numbers when they are taken."""

    def __init__(self, array: Array, code: Callable[[Array], Array]) -> None:
        self.array, self.code, self.shape, self.ndim = array, code, array.shape, array.ndim

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, which: Any) -> Array:
        return self.code(self.array[which])


def coded(
    inputs: Mapping[str, Array], code: Callable[[str, Array], Array], *, unit: int, room: int
) -> dict[str, Array]:
    """Codes of all inputs: made once and kept in their narrowest type where `room` bytes hold them, else when taken."""

    def one(name: str, array: Array) -> Array:
        made = cast(Array, Coded(array, lambda rows: code(name, rows)))
        first = made[:1]
        if not np.issubdtype(first.dtype, np.integer) or first.nbytes // 2 * len(array) > room:
            return made
        return np.concatenate([narrowed(made[i : i + unit]) for i in range(0, len(array), unit)])

    return {name: one(name, array) for name, array in inputs.items()}


def narrowed(codes: Array) -> Array:
    """Integers in the narrowest type that holds them."""
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    for kind in NARROW:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return codes.astype(kind)
    return codes
