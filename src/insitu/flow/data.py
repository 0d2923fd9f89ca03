"""Data for a run: evaluation samples, labels and calibration rows, checked before anything long starts."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import DataError
from insitu.flow.rows import as_type, holds, rows_of, stored
from insitu.frontend.onnx_file import read_model
from insitu.graph.graph import Graph
from insitu.graph.ops.float import numpy_type
from insitu.graph.types import TensorType
from insitu.numeric.affine import dequantize

Array = npt.NDArray[Any]
CALIBRATION_ROWS = 128
EXCLUDE_ABOVE = 256  # rows from which calibration rows are left out of the accuracy


@dataclass(frozen=True)
class Samples:
    """Inputs by name, each (samples, *shape), and labels or targets if the file has `y`.

    Large inputs may stay in their file: what is taken of them is an array in memory.
    """

    inputs: Mapping[str, Array]
    y: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, rows: Array) -> Samples:
        """The samples at `rows`."""
        return Samples({n: rows_of(a, rows) for n, a in self.inputs.items()}, None if self.y is None else self.y[rows])


@dataclass(frozen=True)
class Prepared:
    """What a run works on: evaluation samples (none without data), calibration inputs and where those came from."""

    evaluation: Samples | None
    calibration: Mapping[str, Array]
    source: str  # file | data | data-overlap | random


def read_npz(path: str | Path, *, leave: bool = False) -> dict[str, Array]:
    """Arrays of an .npz file; DataError where it is not one.  Nothing in it is executed: pickles are refused.

    With `leave`, large arrays that are not compressed stay in the file and are read as they are used (`flow/rows.py`).
    """
    need, way = "an .npz file written by numpy.savez", ("numpy.savez('data.npz', x=x, y=y)",)
    try:
        with Path(path).open("rb") as file:
            start = file.read(6)
        if not start.startswith(b"PK"):
            raise DataError(str(path), _kind(start), need, try_=way)
        with np.load(path, allow_pickle=False) as arrays:
            held = stored(path) if leave else {}
            return {name: held[name] if name in held else arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise DataError(str(path), "no such file", "an .npz file", try_=["check the path"]) from None
    except MemoryError:
        raise DataError(str(path), "its arrays do not fit in memory", "fewer samples") from None
    except OSError as error:
        raise DataError(str(path), (error.strerror or str(error)).lower(), "an .npz file that can be read") from None
    except _BROKEN as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise DataError(str(path), f"not a readable .npz ({reason})", need, try_=way) from None


_BROKEN = (
    ValueError, zipfile.BadZipFile, EOFError, AttributeError, TypeError, KeyError, zlib.error, NotImplementedError,
    RuntimeError, SyntaxError,
)  # fmt: skip


def _kind(start: bytes) -> str:
    """What a file is that is not an .npz."""
    if not start:
        return "the file is empty"
    return "a single array (.npy)" if start == b"\x93NUMPY" else "not an .npz file"


def load_samples(source: str | Path | Mapping[str, Array], graph: Graph) -> Samples:
    """Samples for the graph's inputs from a file or arrays: `x`, or one array per input name; optional `y`."""
    where = str(source) if isinstance(source, str | Path) else "data"
    files = isinstance(source, str | Path)
    arrays = read_npz(source, leave=True) if files else {k: np.asarray(v) for k, v in source.items()}
    names = graph.inputs
    if all(n in arrays for n in names):
        found = {n: arrays[n] for n in names}
    elif len(names) == 1 and "x" in arrays:
        found = {names[0]: arrays["x"]}
    else:
        need = f"`x`, or the input's name {names[0]}" if len(names) == 1 else f"one array per input: {', '.join(names)}"
        words = (
            "x=x"
            if len(names) == 1
            else ", ".join(f"{n}={n}" if n.isidentifier() else f"**{{{n!r}: ...}}" for n in names)
        )
        got = f"arrays {', '.join(sorted(arrays)) or 'none'}"
        raise DataError(where, got, need, try_=[f"numpy.savez('data.npz', {words}, y=y)"])
    inputs = {n: _fitted(where, graph, n, a) for n, a in found.items()}
    counts = {n: len(a) for n, a in inputs.items()}
    y = np.asarray(arrays["y"]) if "y" in arrays else None
    if len(set(counts.values())) > 1 or (y is not None and (y.ndim == 0 or len(y) != next(iter(counts.values())))):
        shown = {**counts, **({"y": y.shape[0] if y.ndim else 0} if y is not None else {})}
        raise DataError(
            where, ", ".join(f"{n}: {c} rows" for n, c in shown.items()), "the same number of rows everywhere"
        )
    if next(iter(counts.values())) == 0:
        raise DataError(where, "0 samples", "at least one sample")
    if y is not None and not (np.issubdtype(y.dtype, np.integer) or np.issubdtype(y.dtype, np.floating)):
        raise DataError(f"{where}: y", f"type {y.dtype}", "integer labels, or float targets")
    if y is not None and np.issubdtype(y.dtype, np.integer):
        _check_labels(f"{where}: y", y, graph)
    return Samples(inputs, y)


def _check_labels(where: str, y: Array, graph: Graph) -> None:
    """Labels name one of the first output's elements."""
    if y.size != len(y):
        shape = " x ".join(map(str, y.shape))
        raise DataError(
            where, f"integers of shape {shape}", "one label for each sample", try_=["y.argmax(axis=1) of one-hot rows"]
        )
    sizes = graph.type(graph.outputs[0]).shape
    if any(isinstance(n, str) for n in sizes):
        return
    classes = prod(int(n) for n in sizes)
    if int(y.min()) < 0 or int(y.max()) >= classes:
        raise DataError(
            where,
            f"labels {y.min()} to {y.max()}",
            f"0 to {classes - 1}: output {graph.outputs[0]} has {classes} elements",
        )


def _fitted(where: str, graph: Graph, name: str, array: Array) -> Array:
    """The array as (samples, *shape) of an input, floats unless the input is quantized."""
    kind = graph.type(name)
    shape = kind.sizes()
    label = f"{where}: {'x' if len(graph.inputs) == 1 else name}"
    if array.dtype.kind not in "fiub":
        raise DataError(label, f"type {array.dtype}", "numbers")
    array = _as_frames(graph, np.asarray(array) if graph.meta.get("frames") else array, shape)
    if array.ndim == 0 or tuple(array.shape[1:]) not in _accepted(shape):
        text = " x ".join(map(str, array.shape)) or "a single number"
        raise DataError(
            label,
            f"shape {text}",
            f"shape N x {' x '.join(map(str, shape[1:] if shape[:1] == (1,) else shape))}, for input {name}",
        )
    if array.dtype.kind == "f" and not holds(array, lambda rows: bool(np.isfinite(rows).all())):
        row = int(np.argwhere(~np.isfinite(np.asarray(array)).reshape(len(array), -1).all(axis=1))[0, 0])
        raise DataError(
            label, f"NaN or infinity in row {row}", "finite numbers", try_=["numpy.nan_to_num, or leave those rows out"]
        )
    array = array.reshape(len(array), *shape)
    if kind.quant is not None and graph.meta.get("dialect"):
        return _codes(label, kind, np.asarray(array))
    if name in _coded(graph):
        return _reals(label, kind, np.asarray(array))
    if kind.quant is not None and kind.dtype != "f32" and array.dtype.kind in "iu":
        return array
    if kind.quant is None and kind.dtype != "f32":
        return as_type(array, numpy_type(kind.dtype))
    if array.dtype != np.float32 and not holds(array, _fits_float32):
        raise DataError(label, f"numbers up to {np.abs(np.asarray(array)).max():.3g}", "numbers that float32 holds")
    return as_type(array, np.float32)


def _fits_float32(rows: Array) -> bool:
    return float(np.abs(rows.astype(np.float64)).max(initial=0)) <= float(np.finfo(np.float32).max)


def _coded(graph: Graph) -> tuple[str, ...]:
    """Inputs of a network of real numbers that its model takes as integers (a graph with its own scales)."""
    names = graph.meta.get("coded_inputs", ())
    return tuple(str(n) for n in names) if isinstance(names, tuple) else ()


def _reals(label: str, kind: TensorType, array: Array) -> Array:
    """What the integers of an input stand for; numbers that are no integers stand for themselves."""
    assert kind.quant is not None
    if array.dtype.kind not in "iub":
        return array.astype(np.float32)
    return dequantize(_codes(label, kind, array), kind.quant).astype(np.float32)


def _codes(label: str, kind: TensorType, array: Array) -> Array:
    """Codes of an input whose integers stand for themselves, whatever the type they are stored in."""
    whole = np.rint(array)
    assert kind.quant is not None
    if array.dtype.kind == "f" and not np.array_equal(whole, array):
        raise DataError(label, "numbers that are no integers", "the integers that the quantized network takes")
    if whole.min(initial=kind.quant.lo) < kind.quant.lo or whole.max(initial=kind.quant.hi) > kind.quant.hi:
        got = f"codes {int(whole.min())} to {int(whole.max())}"
        ways = ("compile the model with this file as --data: inputs with negative codes are then signed",)
        raise DataError(label, got, f"codes {kind.quant.lo} to {kind.quant.hi}", try_=ways)
    return whole.astype(np.int32)


def code_ranges(
    graph: Graph, sources: Sequence[str | Path | Mapping[str, Array] | None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(inputs with negative numbers, inputs without but with numbers above 127) in any of these files or arrays."""
    low, high = dict.fromkeys(graph.inputs, 0.0), dict.fromkeys(graph.inputs, 0.0)
    for source in sources:
        arrays = {} if source is None else read_npz(source) if isinstance(source, str | Path) else source
        for name in graph.inputs:
            array = arrays.get(name, arrays.get("x") if len(graph.inputs) == 1 else None)
            if array is not None and np.asarray(array).dtype.kind in "fiu" and np.asarray(array).size:
                low[name] = min(low[name], float(np.min(array)))
                high[name] = max(high[name], float(np.max(array)))
    negative = tuple(n for n in graph.inputs if low[n] < 0)
    return negative, tuple(n for n in graph.inputs if high[n] > 127 and n not in negative)


def _as_frames(graph: Graph, array: Array, shape: tuple[int, ...]) -> Array:
    """A record of all frames, time last, as rows of single frames, where a network takes frame after frame."""
    if not graph.meta.get("frames") or len(shape) < 3 or array.shape[-1:] == (1,):
        return array
    lead = array.shape[:-1]
    if lead in (shape[:-1], shape[1:-1], (1, *shape[:-1])):
        return np.moveaxis(array, -1, 0).reshape(array.shape[-1], *shape)
    return array


def _accepted(shape: tuple[int, ...]) -> set[tuple[int, ...]]:
    """Shapes of one row that mean an input: its own, or without its batch of one."""
    return {shape, shape[1:]} if shape[:1] == (1,) else {shape}


def random_inputs(graph: Graph, count: int, *, seed: int) -> dict[str, Array]:
    """Seeded random inputs: normal for floats, uniform over the codes of quantized inputs and rows that integers pick.

    Other integers are 1 (masks that let everything through).
    """
    rng = np.random.default_rng(seed)
    sizes, kinds = _picked_sizes(graph), graph.meta.get("input_dtypes", ())
    declared = dict(zip(graph.inputs, kinds, strict=False)) if isinstance(kinds, tuple) else {}
    found: dict[str, Array] = {}
    for name in graph.inputs:
        if name in sizes:
            shape = (count, *graph.type(name).sizes())
            found[name] = rng.integers(0, sizes[name], shape).astype(numpy_type(graph.type(name).dtype))
        elif str(declared.get(name, "f32"))[0] in "iub" and graph.type(name).quant is None:
            found[name] = np.ones((count, *graph.type(name).sizes()), numpy_type(graph.type(name).dtype))
        else:
            found[name] = _random(graph.type(name), count, rng, coded=name in _coded(graph))
    return found


def _picked_sizes(graph: Graph) -> dict[str, int]:
    """Integer inputs that pick rows: how many rows there are."""
    source = {v: v for v in graph.inputs}
    found: dict[str, int] = {}
    for node in graph.nodes:
        names = list(node.inputs)
        if node.op == "Gather" and names[1] in source:
            size, origin = graph.type(names[0]).sizes()[int(node.attr("axis", 0))], source[names[1]]
            found[origin] = min(size, found.get(origin, size))
        elif node.op in ("Reshape", "Transpose", "Slice") and names[0] in source:
            source[node.output] = source[names[0]]
    return found


def _random(kind: TensorType, count: int, rng: np.random.Generator, *, coded: bool) -> Array:
    shape = (count, *kind.sizes())
    if kind.quant is None or (kind.dtype == "f32" and not coded):
        return rng.standard_normal(shape, dtype=np.float32)
    codes = rng.integers(kind.quant.lo, kind.quant.hi, shape, dtype=np.int32, endpoint=True)
    return dequantize(codes, kind.quant).astype(np.float32) if coded else codes


def shapes_of_data(model: Path, data: str | Path, *, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Sizes that an ONNX file leaves open beside the batch, from the arrays of a data file where they are there."""
    proto = read_model(model).graph
    weights = {t.name for t in proto.initializer}
    declared = [i for i in proto.input if i.name not in weights]
    wanted = {i.name: _open_dims(i) for i in declared if i.name not in given}
    wanted = {name: dims for name, dims in wanted.items() if any(d is None for d in dims[1:])}
    if not wanted:
        return {}
    arrays = read_npz(data)
    found = {name: arrays.get(name, arrays.get("x") if len(declared) == 1 else None) for name in wanted}
    return {n: shape for n, a in found.items() if a is not None and (shape := _row_shape(wanted[n], a.shape))}


def _open_dims(info: Any) -> tuple[int | None, ...]:
    """The sizes of an input, None where the file leaves one open."""
    dims = info.type.tensor_type.shape.dim
    return tuple(int(d.dim_value) if d.HasField("dim_value") else None for d in dims)


def _row_shape(dims: tuple[int | None, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one sample with its batch; () where the array does not fit the declared sizes."""
    rows = shape[1:] if len(shape) == len(dims) + 1 else (dims[0] or 1, *shape[1:]) if len(shape) == len(dims) else ()
    return rows if all(d in (None, n) for d, n in zip(dims, rows, strict=False)) else ()


def prepare(
    graph: Graph,
    *,
    data: str | Path | Mapping[str, Array] | None,
    calib: str | Path | Mapping[str, Array] | None,
    samples: int | None,
    seed: int,
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
    chosen = {n: np.asarray(a) for n, a in everything.take(rows).inputs.items()}
    if total <= EXCLUDE_ABOVE:
        return Prepared(_first(everything, samples), chosen, "data-overlap")
    rest = np.setdiff1d(np.arange(total), rows)
    return Prepared(_first(everything.take(rest), samples), chosen, "data")


def _first(samples: Samples | None, count: int | None) -> Samples | None:
    if samples is None or count is None or count >= len(samples):
        return samples
    return samples.take(np.arange(count))
