"""An ONNX file as bytes and tensors: nothing in it is trusted, every fault is one message."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from insitu.base.errors import ModelError
from insitu.numeric.affine import QuantSpec

Array = npt.NDArray[Any]
MAX_BYTES = 1 << 31  # protobuf's own limit
MAX_TENSOR = 1 << 31  # elements
MAX_DENSE = 1 << 26  # elements of a sparse tensor written out
OLDEST_OPSET = 7
NARROW = {21: (4, False), 22: (4, True), 25: (2, False), 26: (2, True)}  # TensorProto's UINT4, INT4, UINT2, INT2


def read_model(path: Path) -> onnx.ModelProto:
    """The model in a file; ModelError where the file is missing, empty, truncated or something else."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelError(
                str(path), f"{size:,} bytes", f"at most {MAX_BYTES:,}; keep the weights in an external data file"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(str(path), f"the file cannot be read ({error.strerror})", "a readable .onnx file") from None
    return parse_model(data, str(path))


def parse_model(data: bytes, where: str) -> onnx.ModelProto:
    """The model in bytes, checked to be one."""
    if not data:
        raise ModelError(where, "the file is empty", "an ONNX model")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RuntimeError, ValueError):
        raise ModelError(where, f"{kind_of(data)}", "an ONNX model that is complete") from None
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ModelError(where, "it holds no network", "an ONNX model that is complete")
    return model


def kind_of(data: bytes) -> str:
    """What bytes that do not parse look like, in the user's words."""
    known = {
        b"PK\x03\x04": "a zip archive",
        b"\x89HDF": "an HDF5 file",
        b"\x93NUMPY": "a NumPy array",
        b"%PDF": "a PDF file",
        b"GGUF": "a GGUF file",
    }
    for magic, kind in known.items():
        if data.startswith(magic):
            return f"this is {kind}, not an ONNX model"
    if data[4:8] == b"TFL3":
        return "this is a TensorFlow Lite model, not an ONNX model"
    head = data[:512]
    if all(32 <= byte < 127 or byte in b"\r\n\t" for byte in head):
        return "this is a text file, not an ONNX model"
    return "the file is not an ONNX model, or is truncated"


def as_text(value: str | bytes) -> str:
    """A string of the file; protobuf hands over bytes where it is not UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def opset_of(model: onnx.ModelProto, where: str) -> int:
    """The version of the standard operators."""
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if not versions:
        raise ModelError(
            where, "the opset of the standard operators is missing", "an opset_import, as exporters write it"
        )
    if max(versions) < OLDEST_OPSET:
        need = f"opset {OLDEST_OPSET} or later"
        raise ModelError(
            where, f"opset {max(versions)}", need, try_=("onnx.version_converter.convert_version(model, 17)",)
        )
    return max(versions)


def tensor_array(tensor: TensorProto, folder: Path, *, where: str) -> Array:
    """A tensor's values; floats of any width become float32.  `where` names file and tensor in messages."""
    dims = _dims(tensor.dims, where)
    if tensor.data_location == TensorProto.EXTERNAL:
        array = _external(tensor, dims, folder, where=where)
    else:
        array = _inline(tensor, dims, where)
    return narrowed(array, where)


def narrow_codes(tensor: TensorProto) -> QuantSpec | None:
    """Bits and sign of a tensor of integers that NumPy has no type for (4 and 2 bits); none for any other."""
    kind = NARROW.get(tensor.data_type)
    return None if kind is None else QuantSpec(kind[0], signed=kind[1], scale=(1.0,))


def narrowed(array: Array, where: str) -> Array:
    """Floats of any width as float32, other numbers as they are."""
    if array.dtype == np.float32 or array.dtype.kind in "iub":
        return array
    if array.dtype.kind in "OSUc":
        raise ModelError(where, f"elements of the type {array.dtype}", "numbers")
    floats = array.dtype.kind == "f" or "float" in array.dtype.name
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float32 if floats else np.int8)


def _dims(dims: Iterable[int], where: str) -> tuple[int, ...]:
    sizes = tuple(int(d) for d in dims)
    if min(sizes, default=0) < 0 or prod(sizes) > MAX_TENSOR:
        raise ModelError(
            where, f"the shape {list(sizes)}", f"sizes of at least 0 and at most {MAX_TENSOR:,} elements in all"
        )
    return sizes


def _inline(tensor: TensorProto, dims: tuple[int, ...], where: str) -> Array:
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError, OverflowError) as error:
        raise ModelError(
            where, f"its data does not match its type and shape {list(dims)} ({_short(error)})", "a complete tensor"
        ) from None
    if array.shape != dims:
        raise ModelError(where, f"data of the shape {list(array.shape)}", f"{list(dims)}")
    return array


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:100]


def _external(tensor: TensorProto, dims: tuple[int, ...], folder: Path, *, where: str) -> Array:
    """A tensor in a file beside the model; only files in the model's own folder are opened."""
    entries = {as_text(e.key): as_text(e.value) for e in tensor.external_data}
    path = _inside(folder, entries.get("location", ""), where)
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        offset = int(entries.get("offset", 0) or 0)
        length = int(entries.get("length", 0) or 0) or prod(dims) * dtype.itemsize
    except (ValueError, KeyError, TypeError):
        raise ModelError(where, f"an unknown type or place in {path.name}", "a type, an offset and a length") from None
    size = path.stat().st_size
    if offset < 0 or length != prod(dims) * dtype.itemsize or offset + length > size:
        got = f"{length} bytes from {offset} of {path.name}, which has {size}"
        raise ModelError(where, got, f"{prod(dims) * dtype.itemsize} bytes for the shape {list(dims)}")
    try:
        return np.fromfile(
            path, dtype.newbyteorder("<") if dtype.kind in "iuf" else dtype, prod(dims), offset=offset
        ).reshape(dims)
    except OSError as error:
        raise ModelError(
            where, f"{path.name} cannot be read ({error.strerror})", "a readable file beside the model"
        ) from None


def _inside(folder: Path, location: str, where: str) -> Path:
    root = folder.resolve()
    try:
        path = (root / location).resolve()
        inside = bool(location) and path.is_relative_to(root) and not Path(location).is_absolute()
        found = inside and path.is_file()
    except (OSError, ValueError):
        inside = found = False
        path = root
    if not inside:
        raise ModelError(where, f"its data lies outside the model's folder ({location!r})", "a file beside the model")
    if not found:
        raise ModelError(where, f"its data file {location!r} is missing", "that file beside the model")
    return path


def sparse_array(sparse: onnx.SparseTensorProto, folder: Path, *, where: str) -> Array:
    """A sparse tensor written out."""
    dims = _dims(sparse.dims, where)
    if prod(dims) > MAX_DENSE:
        raise ModelError(where, f"a sparse tensor of {prod(dims):,} elements", f"at most {MAX_DENSE:,}")
    values = tensor_array(sparse.values, folder, where=where).reshape(-1)
    indices = tensor_array(sparse.indices, folder, where=where).astype(np.int64)
    dense = np.zeros(prod(dims), values.dtype)
    try:
        flat = np.ravel_multi_index(tuple(indices.T), dims) if indices.ndim == 2 else indices
        if flat.shape != values.shape or (flat.size and (flat.min() < 0 or flat.max() >= dense.size)):
            raise ValueError(flat.shape)
    except ValueError:
        raise ModelError(
            where, "indices of a sparse tensor that do not match it", f"one place in {list(dims)} per value"
        ) from None
    dense[flat] = values
    return dense.reshape(dims)
