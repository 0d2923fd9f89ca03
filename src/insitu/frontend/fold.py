"""Constant subgraphs: the value of a node whose inputs are all known, in NumPy, with limits on size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from insitu.base.errors import ModelError
from insitu.frontend.onnx_file import narrowed
from insitu.graph.ops.shapes import resolve_reshape

Array = npt.NDArray[Any]
Attrs = Mapping[str, Any]
Inputs = Sequence[Array | None]
MAX_ELEMENTS = 1 << 26
FAILURES = (
    ValueError,
    IndexError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    NotImplementedError,
    MemoryError,
)


def foldable(op: str) -> bool:
    """True for operators whose value can be computed when all inputs are constants."""
    return op in FOLDS


def fold(op: str, inputs: Inputs, attrs: Attrs, *, where: str) -> Array:
    """The value of a node of constants; ModelError names the node where there is none."""
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(FOLDS[op](inputs, attrs))
    except FAILURES as error:
        text = (str(error) or type(error).__name__).splitlines()[0][:100]
        shapes = ", ".join(str(list(i.shape)) for i in inputs if i is not None)
        raise ModelError(
            where,
            f"its value cannot be computed from its constants of the shapes {shapes} ({text})",
            "constants that fit",
        ) from None
    return narrowed(value, where)


def _sized(count: int) -> None:
    if count > MAX_ELEMENTS or count < 0:
        raise ValueError(f"a constant of {count:,} elements, at most {MAX_ELEMENTS:,}")


def _data(inputs: Inputs, index: int = 0) -> Array:
    value = inputs[index]
    if value is None:
        raise ValueError(f"input {index} is missing")
    return value


def _optional(inputs: Inputs, index: int) -> Array | None:
    return inputs[index] if index < len(inputs) else None


def ints(value: Array) -> list[int]:
    """A constant as a flat list of integers."""
    return [int(v) for v in np.asarray(value).reshape(-1)]


def axes_of(inputs: Inputs, attrs: Attrs, *, index: int = 1) -> list[int] | None:
    """Axes given as an input (newer opsets) or an attribute (older ones)."""
    given = _optional(inputs, index)
    if given is not None:
        return ints(given)
    return [int(a) for a in attrs["axes"]] if "axes" in attrs else None


def _broadcasting(function: Callable[..., Any]) -> Callable[[Inputs, Attrs], Any]:
    def run(inputs: Inputs, attrs: Attrs) -> Any:
        arrays = [_data(inputs, i) for i in range(len(inputs))]
        _sized(prod(np.broadcast_shapes(*(a.shape for a in arrays))))
        return function(*arrays)

    return run


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    if not np.all(b):
        raise ValueError("a division by zero")
    return (
        np.trunc(a / b).astype(a.dtype) if max(np.abs(a).max(initial=0), np.abs(b).max(initial=0)) < 1 << 52 else a // b
    )


def _constant(inputs: Inputs, attrs: Attrs) -> Any:
    for name, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in attrs:
            return np.asarray(attrs[name], dtype)
    return attrs["value"]


def _constant_of_shape(inputs: Inputs, attrs: Attrs) -> Any:
    shape = ints(_data(inputs))
    _sized(prod(shape) if min(shape, default=0) >= 0 else -1)
    value = np.asarray(attrs.get("value", np.zeros(1, np.float32))).reshape(-1)
    return np.full(shape, value[0], value.dtype)


def _cast(inputs: Inputs, attrs: Attrs) -> Any:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(attrs["to"])
    return _data(inputs).astype(dtype)


def _slice(inputs: Inputs, attrs: Attrs) -> Any:
    x = _data(inputs)
    starts, ends, axes, steps = slice_arguments(inputs, attrs)
    pick = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        begin, stop, stride = slice(start, end, step).indices(x.shape[axis])
        pick[axis] = slice(begin, None if stop < 0 else stop, stride)
    return x[tuple(pick)]


def slice_arguments(inputs: Inputs, attrs: Attrs) -> tuple[list[int], list[int], list[int], list[int]]:
    """starts, ends, axes, steps of a Slice, from inputs (opset 10 on) or attributes."""
    if "starts" in attrs:
        starts, ends = list(attrs["starts"]), list(attrs["ends"])
        given, steps = attrs.get("axes"), None
    else:
        starts, ends = ints(_data(inputs, 1)), ints(_data(inputs, 2))
        given, steps = _optional(inputs, 3), _optional(inputs, 4)
    axes = list(range(len(starts))) if given is None else ints(np.asarray(given))
    return starts, ends, axes, [1] * len(starts) if steps is None else ints(steps)


def _reshape(inputs: Inputs, attrs: Attrs) -> Any:
    x, target = _data(inputs), ints(_data(inputs, 1))
    shape = resolve_reshape(x.shape, target, allow_zero=bool(attrs.get("allowzero", 0)))
    if shape is None:
        raise ValueError(f"the shape {target}")
    return x.reshape([int(d) for d in shape])


def _squeeze(inputs: Inputs, attrs: Attrs) -> Any:
    axes = axes_of(inputs, attrs)
    return np.squeeze(_data(inputs), None if axes is None else tuple(axes))


def _unsqueeze(inputs: Inputs, attrs: Attrs) -> Any:
    return np.expand_dims(_data(inputs), tuple(axes_of(inputs, attrs) or ()))


def _flatten(inputs: Inputs, attrs: Attrs) -> Any:
    x, axis = _data(inputs), int(attrs.get("axis", 1))
    return x.reshape(prod(x.shape[:axis]), -1)


def _gather(inputs: Inputs, attrs: Attrs) -> Any:
    x, index, axis = _data(inputs), _data(inputs, 1), int(attrs.get("axis", 0))
    _sized(prod(x.shape) // max(x.shape[axis], 1) * index.size)
    return np.take(x, index.astype(np.int64), axis)


def _concat(inputs: Inputs, attrs: Attrs) -> Any:
    arrays = [_data(inputs, i) for i in range(len(inputs))]
    _sized(sum(a.size for a in arrays))
    return np.concatenate(arrays, int(attrs["axis"]))


def _expand(inputs: Inputs, attrs: Attrs) -> Any:
    shape = np.broadcast_shapes(_data(inputs).shape, tuple(ints(_data(inputs, 1))))
    _sized(prod(shape))
    return np.broadcast_to(_data(inputs), shape).copy()


def _tile(inputs: Inputs, attrs: Attrs) -> Any:
    repeats = ints(_data(inputs, 1))
    _sized(prod(repeats) * _data(inputs).size)
    return np.tile(_data(inputs), repeats)


def _range(inputs: Inputs, attrs: Attrs) -> Any:
    start, limit, delta = (_data(inputs, i).reshape(()) for i in range(3))
    _sized(int(np.ceil((float(limit) - float(start)) / float(delta))))
    return np.arange(start.item(), limit.item(), delta.item()).astype(start.dtype)


def _pad(inputs: Inputs, attrs: Attrs) -> Any:
    x, pads = _data(inputs), attrs.get("pads") or ints(_data(inputs, 1))
    if attrs.get("mode", "constant") != "constant" or min(pads) < 0 or _optional(inputs, 3) is not None:
        raise ValueError("a Pad of this kind")
    widths = [(int(pads[i]), int(pads[i + x.ndim])) for i in range(x.ndim)]
    _sized(prod(d + a + b for d, (a, b) in zip(x.shape, widths, strict=True)))
    value = _optional(inputs, 2)
    return np.pad(x, widths, constant_values=attrs.get("value", 0.0) if value is None else value.reshape(()))


def _matmul(inputs: Inputs, attrs: Attrs) -> Any:
    a, b = _data(inputs), _data(inputs, 1)
    _sized(a.size // a.shape[-1] * b.shape[-1] * prod(b.shape[:-2]) if b.ndim > 1 else a.size)
    return a @ b


def _clip(inputs: Inputs, attrs: Attrs) -> Any:
    low, high = _optional(inputs, 1), _optional(inputs, 2)
    low = attrs.get("min", -np.inf) if low is None else low
    return np.clip(_data(inputs), low, attrs.get("max", np.inf) if high is None else high)


def _reducing(function: Callable[..., Any]) -> Callable[[Inputs, Attrs], Any]:
    def run(inputs: Inputs, attrs: Attrs) -> Any:
        axes = axes_of(inputs, attrs)
        return function(_data(inputs), axis=tuple(axes) if axes else None, keepdims=bool(attrs.get("keepdims", 1)))

    return run


def _unary(function: Callable[..., Any]) -> Callable[[Inputs, Attrs], Any]:
    return lambda inputs, attrs: function(_data(inputs))


FOLDS: dict[str, Callable[[Inputs, Attrs], Any]] = {
    "Constant": _constant, "ConstantOfShape": _constant_of_shape, "Cast": _cast, "Slice": _slice, "Reshape": _reshape,
    "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Flatten": _flatten, "Gather": _gather, "Concat": _concat,
    "Expand": _expand, "Tile": _tile, "Range": _range, "Pad": _pad, "MatMul": _matmul, "Clip": _clip,
    "Transpose": lambda inputs, attrs: np.transpose(_data(inputs), attrs.get("perm")),
    "Identity": _unary(lambda x: x), "Dropout": _unary(lambda x: x),
    "Neg": _unary(np.negative), "Abs": _unary(np.abs), "Sqrt": _unary(np.sqrt),
    "Exp": _unary(np.exp), "Log": _unary(np.log),
    "Floor": _unary(np.floor), "Ceil": _unary(np.ceil), "Round": _unary(np.rint), "Not": _unary(np.logical_not),
    "Reciprocal": _unary(np.reciprocal), "Relu": _unary(lambda x: np.maximum(x, 0)), "Sign": _unary(np.sign),
    "Add": _broadcasting(np.add), "Sub": _broadcasting(np.subtract), "Mul": _broadcasting(np.multiply),
    "Div": _broadcasting(_divide), "Pow": _broadcasting(lambda a, b: np.power(a, b).astype(a.dtype)),
    "Equal": _broadcasting(np.equal), "Greater": _broadcasting(np.greater), "Less": _broadcasting(np.less),
    "GreaterOrEqual": _broadcasting(np.greater_equal), "LessOrEqual": _broadcasting(np.less_equal),
    "And": _broadcasting(np.logical_and), "Or": _broadcasting(np.logical_or), "Where": _broadcasting(np.where),
    "Mod": _broadcasting(np.mod), "Min": _broadcasting(lambda *a: np.minimum.reduce(np.broadcast_arrays(*a))),
    "Max": _broadcasting(lambda *a: np.maximum.reduce(np.broadcast_arrays(*a))),
    "ReduceSum": _reducing(np.sum), "ReduceProd": _reducing(np.prod), "ReduceMean": _reducing(np.mean),
    "ReduceMax": _reducing(np.max), "ReduceMin": _reducing(np.min),
}  # fmt: skip
