"""The graph interpreter: what the integers of a quantized graph must be.  Slow, obvious, int64.

It is the reference that compiled programs are compared with, so it shares no product kernel with `sim`.
Arrays carry a leading sample axis: value of shape (a, b) is held as (samples, a, b).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import InternalError
from insitu.graph.graph import Graph, Node
from insitu.graph.ops import mvm
from insitu.graph.ops.float import is_plain
from insitu.graph.ops.float import run as run_plain
from insitu.graph.ops.lut import looked_up
from insitu.numeric.affine import Ints, requantize
from insitu.numeric.functions import softmax_codes

Array = npt.NDArray[Any]
Observer = Callable[[str, Ints], None]
AT_ONCE = 1 << 22  # numbers of windows that are held at once


def interpret(graph: Graph, inputs: Mapping[str, Array], *, observe: Observer | None = None) -> dict[str, Ints]:
    """Codes of every output and state output for codes of every input and state input.

    `observe` is called with the name and codes of each computed value, in order.
    """
    values: dict[str, Any] = {name: _given(graph, name, inputs[name]) for name in (*graph.inputs, *graph.state_inputs)}
    keep = {*graph.outputs, *(s.output for s in graph.states)}
    last = {v: i for i, n in enumerate(graph.nodes) for v in n.inputs}
    for index, node in enumerate(graph.nodes):
        for value, result in node_results(graph, node, values):
            values[value] = result
            if observe is not None:
                observe(value, result)
        for value in {*node.inputs}:
            if last.get(value) == index and value not in keep:
                values.pop(value, None)
    return {name: _value(graph, name, values) for name in keep}


def node_results(graph: Graph, node: Node, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Every output of a node with its codes or numbers."""
    results = _plain(graph, node, values) if is_plain(graph, node) else (run_node(graph, node, values),)
    return list(zip((v for v in node.outputs if v), results, strict=True))


def _given(graph: Graph, name: str, array: Any) -> Any:
    """Codes as int64; numbers without quantization, and what only the host holds, as they are."""
    return array if graph.type(name).quant is None else np.asarray(array, np.int64)


def _plain(graph: Graph, node: Node, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Outputs of a node on numbers; those that are codes for the nodes behind it as int64."""
    return tuple(
        result if graph.types[value].quant is None else np.asarray(result, np.int64)
        for value, result in zip((v for v in node.outputs if v), run_plain(graph, node, values), strict=True)
    )


def run_node(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    """Codes of one node's output from the codes of its inputs."""
    rule = RULES.get(node.op)
    if rule is None:
        raise InternalError(node.name, f"operator {node.op}", "an operator with integer semantics")
    return rule(graph, node, values)


def _value(graph: Graph, name: str, values: Mapping[str, Ints]) -> Ints:
    if name in values:
        return values[name]
    if name in graph.types and graph.types[name].quant is None and graph.constants[name].dtype.kind not in "iu":
        return graph.constants[name][None]
    return np.asarray(graph.constants[name], np.int64)[None]  # one sample, broadcast over all


def _zero(graph: Graph, name: str) -> int:
    quant = graph.type(name).quant
    return quant.zero_point if quant else 0


def _const(graph: Graph, node: Node, index: int) -> Ints | None:
    name = node.inputs[index] if index < len(node.inputs) else ""
    return np.asarray(graph.constants[name], np.int64) if name else None


def _narrow(acc: Ints, graph: Graph, node: Node, *, multiplier: Ints | int | None = None) -> Ints:
    return requantize(
        acc,
        node.attr("multiplier", 1) if multiplier is None else multiplier,
        node.attr("shift", 0),
        zero_point=_zero(graph, node.output),
        lo=node.attr("lo"),
        hi=node.attr("hi"),
        rounding=node.attr("rounding", "half_even"),
    )


def _layer(graph: Graph, node: Node, x: Ints, w: Ints, columns: slice) -> Ints:
    """Codes of inputs x [..., rows] times w [rows, cols] for the output channels `columns`."""

    def cut(index: int) -> Ints | None:
        array = _const(graph, node, index)
        return array if array is None or array.size == 1 else array[columns]

    bias, m, r, gain = (cut(i) for i in (2, 3, 4, 5))
    assert bias is not None
    post = None if m is None or r is None else (m, r)
    x, w = mvm.driven_rows(x, node), mvm.programmed_rows(w, node)
    return mvm.column_codes(x, w, node, bias=bias, gain=gain, post=post, zero_point=_zero(graph, node.output))


def _conv(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    x, w, groups = _value(graph, node.inputs[0], values), _const(graph, node, 1), int(node.attr("group", 1))
    assert w is not None
    # bias holds -zx*colsum(w), so the driven codes enter as they are; padding inserts the zero point
    windows = mvm.patches(x, node, kernel=w.shape[2:], pad_value=_zero(graph, node.inputs[0]))
    rank, each_in, each_out = w.ndim - 2, w.shape[1], w.shape[0] // groups
    lead = windows.shape[: 2 + rank]
    out = np.empty((*lead, w.shape[0]), np.int64)
    for place in mvm.cuts(lead, max(1, AT_ONCE // (w[0].size * groups))):
        box = windows[place]
        for g in range(groups):
            columns = slice(g * each_out, (g + 1) * each_out)
            x_g = box[(slice(None),) * (2 + rank) + (slice(g * each_in, (g + 1) * each_in),)]
            x_g = x_g.reshape(*box.shape[: 2 + rank], -1)
            out[(*place, columns)] = _layer(graph, node, x_g, w[columns].reshape(each_out, -1).T, columns)
    return np.moveaxis(out, -1, 2)


def _matmul(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    w = graph.constants.get(node.inputs[1])
    if w is not None:
        return _layer(graph, node, _value(graph, node.inputs[0], values), np.asarray(w, np.int64), slice(None))
    a, b = (_value(graph, v, values) - _zero(graph, v) for v in node.inputs[:2])
    return _narrow(a @ b, graph, node)


def _add(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    a, b = _operands(graph, node, values)
    acc = a * node.attr("scale_a", 1) + b * node.attr("scale_b", 1)
    return _narrow(acc, graph, node, multiplier=_const(graph, node, 2))


def _mul(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    a, b = _operands(graph, node, values)
    return _narrow(a * b, graph, node, multiplier=_const(graph, node, 2))


def _operands(graph: Graph, node: Node, values: Mapping[str, Ints]) -> list[Ints]:
    """Both inputs without their zero points, their ranks made equal behind the sample axis."""
    pair = [_value(graph, v, values) - _zero(graph, v) for v in node.inputs[:2]]
    rank = max(p.ndim for p in pair)
    return [p.reshape(p.shape[0], *(1,) * (rank - p.ndim), *p.shape[1:]) for p in pair]


def _rescale(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    x = _value(graph, node.inputs[0], values) - _zero(graph, node.inputs[0])
    return _narrow(x, graph, node)


def _average(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    """Sum over the window of (x - zx), then one multiplier, or a map of them where border windows count fewer."""
    x, zero = _value(graph, node.inputs[0], values), _zero(graph, node.inputs[0])
    if node.op in ("ReduceMean", "ReduceSum"):
        axes = tuple(a + 1 for a in node.attr("axes"))
        acc = (x - zero).sum(axis=axes, keepdims=bool(node.attr("keepdims", 1)))
    else:
        kernel = tuple(node.attr("kernel_shape"))
        windows = mvm.patches(x, node, kernel=kernel, pad_value=zero) - zero
        acc = np.moveaxis(windows.sum(axis=tuple(range(-len(kernel), 0))), -1, 2)
    return _narrow(acc, graph, node, multiplier=_const(graph, node, 1))


def _max_pool(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    quant = graph.type(node.inputs[0]).quant
    assert quant is not None
    kernel = tuple(node.attr("kernel_shape"))
    windows = mvm.patches(_value(graph, node.inputs[0], values), node, kernel=kernel, pad_value=quant.lo)
    return np.moveaxis(windows.max(axis=tuple(range(-len(kernel), 0))), -1, 2)


def _reduce_max(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    axes = tuple(a + 1 for a in node.attr("axes"))
    return _value(graph, node.inputs[0], values).max(axis=axes, keepdims=bool(node.attr("keepdims", 1)))


def _softmax(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    x, axis = _value(graph, node.inputs[0], values), int(node.attr("axis", -1))
    table = _const(graph, node, 1)
    assert table is not None
    axis = axis + 1 if axis >= 0 else axis
    y = softmax_codes(
        np.moveaxis(x, axis, -1), table, zero_point=_zero(graph, node.output), lo=node.attr("lo"), hi=node.attr("hi"),
        multiplier=int(node.attr("multiplier", 1)), shift=int(node.attr("shift", 0)),
    )  # fmt: skip
    return np.moveaxis(y, -1, axis)


def _lut(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    table = _const(graph, node, 1)
    assert table is not None
    return looked_up(node, _value(graph, node.inputs[0], values), table)


def _reshape(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    x = _value(graph, node.inputs[0], values)
    shape = tuple(-1 if isinstance(d, str) else d for d in graph.type(node.output).shape)
    return x.reshape(x.shape[0], *shape)


def _transpose(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    x = _value(graph, node.inputs[0], values)
    order = node.attr("perm") or tuple(reversed(range(x.ndim - 1)))
    return x.transpose(0, *(p + 1 for p in order))


def _slice(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    x = _value(graph, node.inputs[0], values)
    pick = [slice(None)] * x.ndim
    for axis, start, end, step in zip(
        node.attr("axes"), node.attr("starts"), node.attr("ends"), node.attr("steps"), strict=True
    ):
        size = x.shape[axis % (x.ndim - 1) + 1]
        begin, stop, stride = slice(start, end, step).indices(size)
        pick[axis % (x.ndim - 1) + 1] = slice(begin, None if stop < 0 else stop, stride)
    return x[tuple(pick)]


def _pad(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    pads = mvm.spatial_pads(tuple(node.attr("pads")))
    return np.pad(_value(graph, node.inputs[0], values), [(0, 0), *pads], constant_values=node.attr("code"))


def _concat(graph: Graph, node: Node, values: Mapping[str, Ints]) -> Ints:
    parts = [_value(graph, v, values) for v in node.inputs]
    samples, axis = max(p.shape[0] for p in parts), int(node.attr("axis"))
    parts = [np.broadcast_to(p, (samples, *p.shape[1:])) for p in parts]
    return np.concatenate(parts, axis=axis + 1 if axis >= 0 else axis)


Rule = Callable[[Graph, Node, Mapping[str, Ints]], Ints]
RULES: dict[str, Rule] = {
    "Conv": _conv, "MatMul": _matmul, "Add": _add, "Mul": _mul,
    "Requantize": _rescale, "AveragePool": _average, "ReduceMean": _average, "ReduceSum": _average,
    "ReduceMax": _reduce_max, "MaxPool": _max_pool,
    "Softmax": _softmax, "Lut": _lut, "Reshape": _reshape, "Flatten": _reshape, "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose, "Slice": _slice, "Pad": _pad, "Concat": _concat,
}  # fmt: skip
