"""Operators of the vector unit, of moves and of the host: their types, and what the interpreter makes of them.

Values without a QuantSpec are numbers of their element type (f32, i64, bool, ...).  Names are those of the
instructions they become:

    V1 {fn}, V2 {fn}, SEL, RED {fn, axes, keepdims}, CVT {to}      element by element, shapes broadcast
    MMA {to}                                                       [.., m, k] x [.., k, n], sums exact, rounded once
    MVM {rows}                                                     the last `rows` axes times a constant [k, n], + bias
    Q {to}, DQ                                                     numbers to codes by (x, scale, zero), and back
    QDYN {to, lead}                                                codes, scale and zero along the `lead` first axes
    Scatter {axis}                                                 (x, index, updates): x, entries of an axis replaced
    Place {axis}                                                   (x, at, new): x, entries from `at` on replaced
    Gather {axis}, Pad {pads, value}, Concat {axis}, Copy          moves
    Reshape, Transpose, Slice, Expand {shape}, Window {kernel, strides, dilations}   moves that need no command
    Host {operator, model}                                         one operator by ONNX Runtime

A node may say when it is needed: only where each value `when` (one element) is what `taken` says; elsewhere nobody
reads what it gives.  Arrays carry a leading sample axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import DataError, ModelError
from insitu.graph.graph import Graph, Node
from insitu.graph.types import HOST, Dim, TensorType
from insitu.isa.elements import element
from insitu.isa.host import run_host
from insitu.numeric import dynamic, vector

Array = npt.NDArray[Any]
Values = Mapping[str, Any]
VIEWS = ("Reshape", "Transpose", "Slice", "Expand", "Window")
SLOW = 1 << 20  # products of an interpreted matrix product that are summed one by one


# types


def infer(node: Node, types: Mapping[str, TensorType]) -> tuple[TensorType, ...]:
    """The type of a node's output from those of its inputs; Host nodes know theirs."""
    if node.op == "Host":
        return tuple(types[v] for v in node.outputs)
    known = [types[v] for v in node.inputs if v]
    if node.op == "QDYN":
        lead, to = known[0].sizes()[: int(node.attr("lead"))], str(node.attr("to"))
        return TensorType(known[0].shape, to), TensorType(lead, "f32"), TensorType(lead, to)
    try:
        return (TYPES[node.op](node, known),)
    except (ValueError, IndexError, AssertionError):
        shapes = ", ".join(str(list(t.shape)) for t in known)
        raise ModelError(
            f"node {node.name!r} ({node.op})", f"inputs of the shapes {shapes}", "shapes that fit"
        ) from None


def _elementwise(node: Node, known: list[TensorType]) -> TensorType:
    shape = np.broadcast_shapes(*(t.sizes() for t in known))
    dtype = known[1].dtype if node.op == "SEL" else vector.result_dtype(str(node.attr("fn")), known[0].dtype)
    return TensorType(shape, dtype)


def _reduced(node: Node, known: list[TensorType]) -> TensorType:
    axes, keep = node.attr("axes"), node.attr("keepdims", 1)
    shape = [1 if i in axes else d for i, d in enumerate(known[0].shape) if keep or i not in axes]
    return TensorType(tuple(shape), vector.result_dtype(str(node.attr("fn")), known[0].dtype))


def _converted(node: Node, known: list[TensorType]) -> TensorType:
    return TensorType(known[0].shape, str(node.attr("to")))


def _coded(node: Node, known: list[TensorType]) -> TensorType:
    assert np.broadcast_shapes(*(t.sizes() for t in known)) == known[0].sizes()
    return TensorType(known[0].shape, str(node.attr("to")) if node.op == "Q" else "f32")


def _scattered(node: Node, known: list[TensorType]) -> TensorType:
    axis, x, index, new = int(node.attr("axis")), *(t.sizes() for t in known)
    assert new == (*x[:axis], *index, *x[axis + 1 :])
    return known[0]


def _placed(node: Node, known: list[TensorType]) -> TensorType:
    axis, x, at, new = int(node.attr("axis")), *(t.sizes() for t in known)
    assert prod(at) == 1
    assert new[axis] <= x[axis]
    assert (*new[:axis], x[axis], *new[axis + 1 :]) == x
    return known[0]


def _product(node: Node, known: list[TensorType]) -> TensorType:
    a, b = (t.sizes() for t in known[:2])
    assert a[-1] == b[-2]
    return TensorType((*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1]), str(node.attr("to", known[0].dtype)))


def _bound_product(node: Node, known: list[TensorType]) -> TensorType:
    x, w = known[0].sizes(), known[1].sizes()
    cut = len(x) - int(node.attr("rows"))
    assert prod(x[cut:]) == w[0]
    return TensorType((*x[:cut], w[1]), known[0].dtype)


def _gathered(node: Node, known: list[TensorType]) -> TensorType:
    axis, x = int(node.attr("axis")), known[0].shape
    return TensorType((*x[:axis], *known[1].shape, *x[axis + 1 :]), known[0].dtype)


def _padded(node: Node, known: list[TensorType]) -> TensorType:
    pads, rank = node.attr("pads"), known[0].rank
    return TensorType(tuple(d + pads[i] + pads[i + rank] for i, d in enumerate(known[0].sizes())), known[0].dtype)


def _joined(node: Node, known: list[TensorType]) -> TensorType:
    axis, first = int(node.attr("axis")), known[0].sizes()
    total = sum(t.sizes()[axis] for t in known)
    return TensorType((*first[:axis], total, *first[axis + 1 :]), known[0].dtype)


def _windows(node: Node, known: list[TensorType]) -> TensorType:
    x, kernel = known[0].sizes(), tuple(node.attr("kernel"))
    lead = len(x) - len(kernel)
    steps = zip(x[lead:], kernel, node.attr("strides"), node.attr("dilations"), strict=True)
    out = tuple((size - (k - 1) * d - 1) // s + 1 for size, k, s, d in steps)
    assert min(out, default=1) > 0
    return TensorType((*x[:lead], *out, *kernel), known[0].dtype)


def _sliced(node: Node, known: list[TensorType]) -> TensorType:
    shape: list[Dim] = list(known[0].shape)
    for axis, start, end, step in _cuts(node):
        shape[axis] = len(range(known[0].sizes()[axis])[start:end:step])
    return TensorType(tuple(shape), known[0].dtype)


def _cuts(node: Node) -> list[tuple[int, int, int, int]]:
    return list(zip(*(node.attr(n) for n in ("axes", "starts", "ends", "steps")), strict=True))


def _shaped(node: Node, known: list[TensorType]) -> TensorType:
    return TensorType(tuple(node.attr("shape")), known[0].dtype)


def _turned(node: Node, known: list[TensorType]) -> TensorType:
    return TensorType(tuple(known[0].shape[p] for p in node.attr("perm")), known[0].dtype)


TYPES: Mapping[str, Callable[[Node, list[TensorType]], TensorType]] = {
    "V1": _elementwise, "V2": _elementwise, "SEL": _elementwise, "RED": _reduced, "CVT": _converted, "MMA": _product,
    "MVM": _bound_product, "Q": _coded, "DQ": _coded, "Scatter": _scattered, "Place": _placed,
    "Gather": _gathered, "Pad": _padded, "Concat": _joined, "Window": _windows, "Slice": _sliced,
    "Reshape": _shaped, "Expand": _shaped, "Transpose": _turned, "Copy": lambda n, known: known[0],
}  # fmt: skip
OWN = frozenset((
    "V1", "V2", "SEL", "RED", "CVT", "MMA", "MVM", "Gather", "Window", "Expand", "Copy", "Host", "Q", "DQ", "QDYN",
    "Scatter", "Place",
))  # fmt: skip


def is_plain(graph: Graph, node: Node) -> bool:
    """Whether a node computes numbers of an element type, not codes."""
    return node.op in OWN or (node.op in TYPES and all(graph.types[v].quant is None for v in node.outputs if v))


# what the interpreter makes of them


def numpy_type(dtype: str) -> np.dtype[Any]:
    """The NumPy type of an element type; object for values that only the host holds."""
    kind = element(dtype)
    return np.dtype(object) if kind is None else np.dtype(kind.numpy)


def run(graph: Graph, node: Node, values: Values) -> tuple[Any, ...]:
    """All outputs of a node, each with its sample axis; 0 in samples in which nobody reads them."""
    mask = needed(node, values)
    if mask is None or mask.all():
        return _run(graph, node, values)
    own = {v: values[v][mask] if len(values[v]) == len(mask) else values[v] for v in node.inputs if v in values}
    out: list[Array] = []
    for index, value in enumerate(node.outputs):
        kind = graph.types[value]
        full = np.zeros((len(mask), *kind.sizes()), numpy_type(kind.dtype))
        if mask.any():
            full[mask] = _run(graph, node, own)[index]
        out.append(full)
    return tuple(out)


def _run(graph: Graph, node: Node, values: Values) -> tuple[Any, ...]:
    if node.op == "Host":
        return _host(graph, node, values)
    if node.op == "QDYN":
        return _qdyn(node, _value(graph, node.inputs[0], values))
    return (RULES[node.op](graph, node, [_value(graph, v, values) for v in node.inputs if v]),)


def _value(graph: Graph, name: str, values: Values) -> Any:
    held = values[name] if name in values else graph.constants[name][None]
    kind = graph.types[name]
    return held if kind.dtype == HOST else np.asarray(held, numpy_type(kind.dtype))


def _aligned(arrays: list[Array]) -> list[Array]:
    """Ranks made equal behind the sample axis."""
    rank = max(a.ndim for a in arrays)
    return [a.reshape(a.shape[0], *(1,) * (rank - a.ndim), *a.shape[1:]) for a in arrays]


def _v1(graph: Graph, node: Node, x: list[Array]) -> Array:
    return vector.unary(node.attr("fn"), x[0])


def _v2(graph: Graph, node: Node, x: list[Array]) -> Array:
    a, b = _aligned(x)
    return vector.binary(node.attr("fn"), a, b)


def _sel(graph: Graph, node: Node, x: list[Array]) -> Array:
    chosen, a, b = _aligned(x)
    return np.where(chosen, a, b)


def _red(graph: Graph, node: Node, x: list[Array]) -> Array:
    axes = [a + 1 for a in node.attr("axes")]
    kept = [i for i in range(x[0].ndim) if i not in axes]
    y = vector.fold(node.attr("fn"), x[0].transpose(*kept, *axes), len(axes))
    return np.expand_dims(y, tuple(axes)) if node.attr("keepdims", 1) else y


def _cvt(graph: Graph, node: Node, x: list[Array]) -> Array:
    return vector.convert(x[0], numpy_type(str(node.attr("to"))))


def _mma(graph: Graph, node: Node, x: list[Array]) -> Array:
    return _sums(*_aligned(x), to=numpy_type(str(node.attr("to", ""))) if node.attr("to") else x[0].dtype)


def _mvm(graph: Graph, node: Node, x: list[Array]) -> Array:
    cut = x[0].ndim - int(node.attr("rows"))
    y = _sums(x[0].reshape(x[0].shape[0], -1, x[1].shape[1]), x[1], to=x[0].dtype)
    with np.errstate(all="ignore"):
        return (y + x[2] if len(x) > 2 else y).reshape(*x[0].shape[:cut], -1)


def _sums(a: Array, b: Array, *, to: np.dtype[Any]) -> Array:
    """Exact sums of products, rounded once: one by one where there are few, else with the shared error bound."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if a.dtype.kind != "f":
        return np.matmul(a, b)
    if prod(lead) * a.shape[-2] * a.shape[-1] * b.shape[-1] > SLOW:
        return vector.dot(a, b, to)
    a, b = (np.broadcast_to(m, (*lead, *m.shape[-2:])) for m in (a, b))
    out = np.empty((*lead, a.shape[-2], b.shape[-1]))
    with np.errstate(all="ignore"):
        for index in np.ndindex(out.shape):
            terms = vector.terms(a[index[:-1]], b[(*index[:-2], slice(None), index[-1])])
            out[index] = vector.exact_sum(terms) if np.isfinite(terms).all() else terms.sum()
        return out.astype(to)


def _reshape(graph: Graph, node: Node, x: list[Array]) -> Array:
    return x[0].reshape(x[0].shape[0], *node.attr("shape"))


def _transpose(graph: Graph, node: Node, x: list[Array]) -> Array:
    return x[0].transpose(0, *(p + 1 for p in node.attr("perm")))


def _slice(graph: Graph, node: Node, x: list[Array]) -> Array:
    pick = [slice(None)] * x[0].ndim
    for axis, start, end, step in _cuts(node):
        begin, stop, stride = slice(start, end, step).indices(x[0].shape[axis + 1])
        pick[axis + 1] = slice(begin, None if stop < 0 else stop, stride)
    return x[0][tuple(pick)]


def _expand(graph: Graph, node: Node, x: list[Array]) -> Array:
    shape = tuple(node.attr("shape"))
    padded = x[0].reshape(x[0].shape[0], *(1,) * (len(shape) + 1 - x[0].ndim), *x[0].shape[1:])
    return np.broadcast_to(padded, (x[0].shape[0], *shape))


def _pad(graph: Graph, node: Node, x: list[Array]) -> Array:
    pads, rank = node.attr("pads"), x[0].ndim - 1
    return np.pad(x[0], [(0, 0), *zip(pads[:rank], pads[rank:], strict=True)], constant_values=node.attr("value"))


def _concat(graph: Graph, node: Node, x: list[Array]) -> Array:
    samples = max(a.shape[0] for a in x)
    return np.concatenate([np.broadcast_to(a, (samples, *a.shape[1:])) for a in x], axis=int(node.attr("axis")) + 1)


def _window(graph: Graph, node: Node, x: list[Array]) -> Array:
    kernel, strides, dilations = (tuple(node.attr(n)) for n in ("kernel", "strides", "dilations"))
    axes = tuple(range(x[0].ndim - len(kernel), x[0].ndim))
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x[0], reach, axis=axes)
    lead = (slice(None),) * (x[0].ndim - len(kernel))
    return view[(*lead, *(slice(None, None, s) for s in strides), *(slice(None, None, d) for d in dilations))]


def _gather(graph: Graph, node: Node, x: list[Array]) -> Array:
    axis = int(node.attr("axis")) + 1
    samples = max(len(x[0]), len(x[1]))
    rows = [np.take(x[0][i % len(x[0])], x[1][i % len(x[1])], axis=axis - 1) for i in range(samples)]
    return np.stack(rows)


def _scatter(graph: Graph, node: Node, x: list[Array]) -> Array:
    axis = int(node.attr("axis"))
    samples = max(len(a) for a in x)
    out = np.repeat(x[0], samples // len(x[0]), axis=0)
    for i, row in enumerate(out):
        index, new = x[1][i % len(x[1])], x[2][i % len(x[2])]
        flat = np.moveaxis(new.reshape(*row.shape[:axis], -1, *row.shape[axis + 1 :]), axis, 0)
        for place, entry in zip(index.reshape(-1), flat, strict=True):  # in order: the last of equals stays
            row[(*(slice(None),) * axis, place)] = entry
    return out


def _place(graph: Graph, node: Node, x: list[Array]) -> Array:
    axis, count = int(node.attr("axis")), x[2].shape[int(node.attr("axis")) + 1]
    samples = max(len(a) for a in x)
    out = np.repeat(x[0], samples // len(x[0]), axis=0)
    for i, row in enumerate(out):
        at = int(x[1][i % len(x[1])].reshape(()))
        if not 0 <= at <= row.shape[axis] - count:
            raise DataError(f"node {node.name!r}", f"place {at}", f"0 to {row.shape[axis] - count}")
        row[(*(slice(None),) * axis, slice(at, at + count))] = x[2][i % len(x[2])]
    return out


def _q(graph: Graph, node: Node, x: list[Array]) -> Array:
    data, scale, zero = _aligned(x)
    return dynamic.to_codes(data, scale, zero, numpy_type(str(node.attr("to"))))


def _dq(graph: Graph, node: Node, x: list[Array]) -> Array:
    return dynamic.to_numbers(*_aligned(x))


def _qdyn(node: Node, x: Array) -> tuple[Array, Array, Array]:
    shape, to = x.shape[: 1 + int(node.attr("lead"))], numpy_type(str(node.attr("to")))
    rows = x.reshape(*shape, -1)
    scale, zero = dynamic.dynamic_range(rows, to)
    return dynamic.to_codes(rows, scale[..., None], zero[..., None], to).reshape(x.shape), scale, zero


def _host(graph: Graph, node: Node, values: Values) -> tuple[Any, ...]:
    operands = [_value(graph, v, values) for v in node.inputs if v]
    samples = max([len(o) for o in operands], default=1)
    runs = [run_host(str(node.attr("model")), [o[i % len(o)] for o in operands]) for i in range(samples)]
    out: list[Any] = []
    for value, found in zip((v for v in node.outputs if v), zip(*runs, strict=True), strict=True):
        out.append(list(found) if graph.types[value].dtype == HOST else np.stack(found))
    return tuple(out)


RULES: Mapping[str, Callable[[Graph, Node, list[Array]], Array]] = {
    "V1": _v1, "V2": _v2, "SEL": _sel, "RED": _red, "CVT": _cvt, "MMA": _mma, "MVM": _mvm, "Gather": _gather,
    "Q": _q, "DQ": _dq, "Scatter": _scatter, "Place": _place,
    "Pad": _pad, "Concat": _concat, "Window": _window, "Slice": _slice, "Reshape": _reshape, "Expand": _expand,
    "Transpose": _transpose, "Copy": lambda graph, node, x: x[0].copy(),
}  # fmt: skip


def needed(node: Node, values: Values) -> npt.NDArray[np.bool_] | None:
    """The samples in which somebody may read what a node gives; none: all of them."""
    asked = zip(node.attr("when", ()), node.attr("taken", ()), strict=True)
    masks = [np.asarray(values[v]).reshape(len(values[v]), -1)[:, 0].astype(bool) == bool(taken) for v, taken in asked]
    return np.logical_and.reduce(masks) if masks else None
