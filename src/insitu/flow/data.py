"""Data for a run: evaluation samples, labels and calibration rows, checked before anything long starts."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import DataError
from insitu.graph.graph import Graph

Array = npt.NDArray[Any]
CALIBRATION_ROWS = 128
EXCLUDE_ABOVE = 256  # rows from which calibration rows are left out of the accuracy


@dataclass(frozen=True)
class Samples:
    """Inputs by name, each (samples, *shape), and labels or targets if the file has `y`."""

    inputs: Mapping[str, Array]
    y: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, rows: Array) -> Samples:
        """The samples at `rows`."""
        return Samples({n: a[rows] for n, a in self.inputs.items()}, None if self.y is None else self.y[rows])


@dataclass(frozen=True)
class Prepared:
    """What a run works on: evaluation samples (none without data), calibration inputs and where those came from."""

    evaluation: Samples | None
    calibration: Mapping[str, Array]
    source: str  # file | data | data-overlap | random


def read_npz(path: str | Path) -> dict[str, Array]:
    """Arrays of an .npz file; DataError where it is not one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise DataError(str(path), "no such file", "an .npz file", try_=["check the path"]) from error
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError, TypeError) as error:
        raise DataError(str(path), f"not a readable .npz ({error})", "an .npz file written by numpy.savez", try_=["numpy.savez('data.npz', x=x, y=y)"]) from error


def load_samples(source: str | Path | Mapping[str, Array], graph: Graph) -> Samples:
    """Samples for the graph's inputs from a file or arrays: `x`, or one array per input name; optional `y`."""
    where = str(source) if isinstance(source, str | Path) else "data"
    arrays = read_npz(source) if isinstance(source, str | Path) else {k: np.asarray(v) for k, v in source.items()}
    names = graph.inputs
    if all(n in arrays for n in names):
        found = {n: arrays[n] for n in names}
    elif len(names) == 1 and "x" in arrays:
        found = {names[0]: arrays["x"]}
    else:
        need = f"`x`, or the input's name {names[0]}" if len(names) == 1 else f"one array per input: {', '.join(names)}"
        raise DataError(where, f"arrays {', '.join(sorted(arrays)) or 'none'}", need, try_=["numpy.savez('data.npz', x=x, y=y)"])
    inputs = {n: _fitted(where, graph, n, a) for n, a in found.items()}
    counts = {n: len(a) for n, a in inputs.items()}
    y = arrays.get("y")
    if len(set(counts.values())) > 1 or (y is not None and (y.ndim == 0 or len(y) != next(iter(counts.values())))):
        shown = {**counts, **({"y": y.shape[0] if y.ndim else 0} if y is not None else {})}
        raise DataError(where, ", ".join(f"{n}: {c} rows" for n, c in shown.items()), "the same number of rows everywhere")
    if next(iter(counts.values())) == 0:
        raise DataError(where, "0 samples", "at least one sample")
    if y is not None and not (np.issubdtype(y.dtype, np.integer) or np.issubdtype(y.dtype, np.floating)):
        raise DataError(f"{where}: y", f"type {y.dtype}", "integer labels, or float targets")
    return Samples(inputs, y)


def _fitted(where: str, graph: Graph, name: str, array: Array) -> Array:
    """The array as (samples, *shape) of an input, floats unless the input is quantized."""
    kind = graph.type(name)
    shape = kind.sizes()
    label = f"{where}: {'x' if len(graph.inputs) == 1 else name}"
    if array.dtype.kind not in "fiub":
        raise DataError(label, f"type {array.dtype}", "numbers")
    if array.ndim == 0 or tuple(array.shape[1:]) not in _accepted(shape):
        text = " x ".join(map(str, array.shape)) or "a single number"
        raise DataError(label, f"shape {text}", f"shape N x {' x '.join(map(str, shape[1:] if shape[:1] == (1,) else shape))}, for input {name}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0, 0])
        raise DataError(label, f"NaN or infinity in row {row}", "finite numbers", try_=["numpy.nan_to_num, or leave those rows out"])
    array = array.reshape(len(array), *shape)
    return array if kind.quant is not None and array.dtype.kind in "iu" else array.astype(np.float32)


def _accepted(shape: tuple[int, ...]) -> set[tuple[int, ...]]:
    """Shapes of one row that mean an input: its own, or without its batch of one."""
    return {shape, shape[1:]} if shape[:1] == (1,) else {shape}


def random_inputs(graph: Graph, count: int, *, seed: int) -> dict[str, Array]:
    """Seeded random inputs: standard normal for floats."""
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal((count, *graph.type(n).sizes()), dtype=np.float32) for n in graph.inputs}


def prepare(
    graph: Graph, *, data: str | Path | Mapping[str, Array] | None, calib: str | Path | Mapping[str, Array] | None, samples: int | None, seed: int
) -> Prepared:
    """Evaluation and calibration inputs as DESIGN 10 fixes them."""
    everything = load_samples(data, graph) if data is not None else None
    if calib is not None:
        return Prepared(_first(everything, samples), load_samples(calib, graph).inputs, "file")
    if everything is None:
        return Prepared(None, random_inputs(graph, CALIBRATION_ROWS, seed=seed), "random")
    total = len(everything)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(total)[: min(CALIBRATION_ROWS, total)])
    chosen = everything.take(rows).inputs
    if total <= EXCLUDE_ABOVE:
        return Prepared(_first(everything, samples), chosen, "data-overlap")
    rest = np.setdiff1d(np.arange(total), rows)
    return Prepared(_first(everything.take(rest), samples), chosen, "data")


def _first(samples: Samples | None, count: int | None) -> Samples | None:
    if samples is None or count is None or count >= len(samples):
        return samples
    return samples.take(np.arange(count))
