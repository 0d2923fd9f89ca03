"""The inputs of a network: their element types, the batch, and the sizes that a file leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from insitu.base.errors import ModelError, did_you_mean
from insitu.frontend.onnx_file import as_text
from insitu.graph.ops.shapes import text
from insitu.graph.types import Dim, TensorType

Shapes = Mapping[str, tuple[int | str, ...]]
MAX_ELEMENTS = 1 << 31
MAX_DIMS = 32  # as far as arrays can be handled with room for axes of our own
ELEMENTS = {
    "FLOAT": "f32", "FLOAT16": "f16", "DOUBLE": "f64", "BFLOAT16": "bf16", "INT8": "i8", "UINT8": "u8",
    "INT16": "i16", "UINT16": "u16", "INT32": "i32", "INT64": "i64",
    "BOOL": "bool", "UINT32": "u32", "UINT64": "u64",
}  # fmt: skip


@dataclass(frozen=True)
class Binding:
    """Types of the inputs (all float); `dtypes` says what the file declares, `batched` where a batch stood."""

    types: Mapping[str, TensorType]
    dtypes: Mapping[str, str]
    batched: tuple[str, ...]
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Input:
    name: str
    original: str
    dtype: str
    shape: tuple[Dim, ...]  # names stand for sizes the file leaves open


def bind_inputs(declared: Sequence[tuple[str, onnx.ValueInfoProto]], shapes: Shapes) -> Binding:
    """Types of all inputs; ModelError names the sizes nobody gave and how to give them."""
    inputs = [_declaration(name, info) for name, info in declared]
    _check_names(inputs, shapes)
    sizes: dict[str, int] = {}
    wanted: set[str] = set()  # names that shall stay open
    for item in inputs:
        given = shapes.get(item.name, shapes.get(item.original))
        if given is not None:
            _match(item, given, sizes, wanted)
    batched = tuple(i.name for i in inputs if _batch(i, shapes, sizes, wanted))
    for item in inputs:
        if item.name in batched:
            sizes.setdefault(str(item.shape[0]), 1)
    types = {i.name: _bound(i, shapes, sizes) for i in inputs}
    _check_open(inputs, types, wanted)
    return Binding(types, {i.name: i.dtype for i in inputs}, batched, tuple(_hint(i) for i in inputs))


def _declaration(name: str, info: onnx.ValueInfoProto) -> _Input:
    original = as_text(info.name)
    place = f"input {original!r}"
    if not info.type.HasField("tensor_type"):
        kind = info.type.WhichOneof("value") or "no type"
        raise ModelError(place, f"{kind.replace('_', ' ')}", "a tensor with an element type and a shape")
    tensor = info.type.tensor_type
    try:
        element = onnx.TensorProto.DataType.Name(tensor.elem_type)
    except ValueError:
        element = str(tensor.elem_type)
    if element not in ELEMENTS:
        raise ModelError(place, f"the element type {element}", f"one of {', '.join(ELEMENTS)}")
    if not tensor.HasField("shape"):
        return _Input(name, original, ELEMENTS[element], ())
    if len(tensor.shape.dim) > MAX_DIMS:
        raise ModelError(place, f"{len(tensor.shape.dim):,} dimensions", f"at most {MAX_DIMS}")
    dims = tuple(_dim(d, f"{name}.{i}", place) for i, d in enumerate(tensor.shape.dim))
    return _Input(name, original, ELEMENTS[element], dims)


def _dim(dim: onnx.TensorShapeProto.Dimension, default: str, place: str) -> Dim:
    if not dim.HasField("dim_value"):
        return as_text(dim.dim_param) or default
    if dim.dim_value < 1:
        raise ModelError(place, f"a size of {dim.dim_value}", "sizes of at least 1, or a name for the batch")
    return int(dim.dim_value)


def _check_names(inputs: Sequence[_Input], shapes: Shapes) -> None:
    known = {i.name for i in inputs} | {i.original for i in inputs}
    for name in shapes:
        if name not in known:
            close = did_you_mean(name, known)
            raise ModelError(
                f"--shape {name}", "no input has this name", f"one of {', '.join(sorted(known))}", try_=close
            )


def _match(item: _Input, given: Sequence[Dim], sizes: dict[str, int], wanted: set[str]) -> None:
    """Compares a given shape with the declared one and notes the sizes of its names."""
    place = f"--shape {item.original}"
    if item.shape and len(given) != len(item.shape):
        raise ModelError(place, f"{text(given)}", f"{len(item.shape)} sizes, as in {text(item.shape)}")
    for got, declared in zip(given, item.shape or given, strict=True):
        if isinstance(got, str):
            wanted.add(got)
        elif got < 1:
            raise ModelError(place, f"a size of {got}", "sizes of at least 1")
        if isinstance(declared, str) and isinstance(got, int):
            if sizes.setdefault(declared, got) != got:
                raise ModelError(place, f"{declared} = {got} and {sizes[declared]}", f"one size for {declared!r}")
        elif isinstance(declared, int) and got != declared:
            raise ModelError(place, f"{text(given)}", f"sizes that fit the declared {text(item.shape)}")


def _batch(item: _Input, shapes: Shapes, sizes: Mapping[str, int], wanted: set[str]) -> bool:
    """True where the input's leading size is open and becomes the batch."""
    lead = item.shape[0] if item.shape else 1
    if not isinstance(lead, str):
        return False
    given = shapes.get(item.name, shapes.get(item.original))
    return sizes.get(lead, 1) == 1 and not (given is not None and given[0] in wanted)


def _bound(item: _Input, shapes: Shapes, sizes: dict[str, int]) -> TensorType:
    given = shapes.get(item.name, shapes.get(item.original))
    shape = (
        item.shape
        if given is None
        else tuple(g if isinstance(g, str) else d for g, d in zip(given, item.shape or given, strict=True))
    )
    bound = TensorType(shape, "f32").bind(sizes)
    count = 1
    for d in bound.shape:
        count *= d if isinstance(d, int) else 1
    if count > MAX_ELEMENTS:
        raise ModelError(
            f"input {item.original!r}", f"{text(bound.shape)} has {count:,} elements", f"at most {MAX_ELEMENTS:,}"
        )
    return replace(bound, dtype="f32")


def _check_open(inputs: Sequence[_Input], types: Mapping[str, TensorType], wanted: set[str]) -> None:
    left = {i.original: [s for s in types[i.name].symbols if s not in wanted] for i in inputs}
    left = {name: names for name, names in left.items() if names}
    if left:
        got = "; ".join(
            f"the size{'s' if len(names) > 1 else ''} {', '.join(names)} of input {name!r}"
            for name, names in left.items()
        )
        hints = tuple(_hint(i) for i in inputs if i.original in left)
        raise ModelError("network", f"{got} left open by the file", "numbers for them", try_=hints)


def _hint(item: _Input) -> str:
    """What to type to give an input its sizes: names stand where numbers go."""
    lead = item.shape[:1]
    sizes = [1 if isinstance(lead[0], str) else lead[0], *item.shape[1:]] if lead else ["..."]
    words = (str(d).rpartition(".")[2] if isinstance(d, str) else str(d) for d in sizes)
    return f"--shape {item.original}={','.join(words)}"
