"""Weight layers replayed on calibration samples in exact integers, fast: what a plan makes of real inputs.

Products run in float64, exact below 2^53; the readouts are those of `numeric`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.compiler.quantize_layers import weight_rows
from insitu.graph.graph import Graph, Node
from insitu.graph.ops import mvm
from insitu.numeric.affine import Floats, Ints, QuantSpec, quantize, requantize
from insitu.numeric.readout import wtm2101_code

Array = npt.NDArray[Any]
WIDE = 1 << 40  # no clip


def rows_of(x: Array, node: Node, *, kernel: tuple[int, ...], pad: int) -> Array:
    """Vectors a layer multiplies [vectors, groups, rows] of inputs (samples, *shape)."""
    if node.op == "MatMul":
        return x.reshape(-1, 1, x.shape[-1])
    windows = mvm.patches(x, node, kernel=kernel, pad_value=pad)
    lead = windows.ndim - len(kernel) - 1
    return windows.reshape(int(np.prod(windows.shape[:lead])), int(node.attr("group", 1)), -1)


def driven(real: Array, node: Node, source: QuantSpec, *, kernel: tuple[int, ...]) -> Ints:
    """Input codes of a layer's vectors before the chip's own input transform."""
    return rows_of(quantize(real, source), node, kernel=kernel, pad=source.zero_point)


def grouped(x: Array, w: Array) -> Floats:
    """Products of x [vectors, groups, rows] and w [columns, rows]: [vectors, columns]."""
    groups = x.shape[1]
    columns = np.asarray(w, np.float64).reshape(groups, -1, w.shape[1]).transpose(0, 2, 1)
    out = x.transpose(1, 0, 2).astype(np.float64) @ columns
    return out.transpose(1, 0, 2).reshape(len(x), -1)


def vectors_back(y: Array, shape: tuple[int, ...], op: str) -> Array:
    """Columns of vectors [vectors, columns] as samples of a layer's output (samples, *shape)."""
    if op == "MatMul":
        return y.reshape(-1, *shape)
    space = (*shape[:1], *shape[2:], shape[1])
    return np.moveaxis(y.reshape(-1, *space), -1, 2)


def layer_sums(graph: Graph, node: Node, x: Ints) -> Ints:
    """Column sums without bias [vectors, columns], for readouts that read all rows at once."""
    w = np.asarray(graph.constants[node.inputs[1]])
    return grouped(driven_rows(graph, node, x), weight_rows(w, node)).astype(np.int64)


def at_once(node: Node) -> bool:
    """True for a layer whose code follows from one column sum."""
    return node.attr("readout") != "adc" and len(tuple(node.attr("parts", ()))) <= 2


def codes_of_sums(graph: Graph, node: Node, sums: Ints, *, clip: bool = True) -> Ints:
    """Output codes of column sums; without `clip` those beyond the node's bounds stay."""
    acc = sums + np.asarray(graph.constants[node.inputs[2]], np.int64)
    lo, hi = (int(node.attr("lo")), int(node.attr("hi"))) if clip else (-WIDE, WIDE)
    if node.attr("readout") == "wtm2101":
        return wtm2101_code(acc, graph.constants[node.inputs[5]], lo=lo, hi=hi)
    m, r = (graph.constants[v] for v in node.inputs[3:5])
    zero = _quant(graph, node.output).zero_point
    return requantize(acc, m, r, zero_point=zero, lo=lo, hi=hi, rounding=node.attr("rounding"))


def layer_codes(graph: Graph, node: Node, x: Ints, *, clip: bool = True) -> Ints:
    """Output codes [vectors, columns] of a quantized layer for its input codes, through converters and row parts."""
    rows, w = driven_rows(graph, node, x), weight_rows(np.asarray(graph.constants[node.inputs[1]]), node)
    bounds = {} if clip else {"lo": -WIDE, "hi": WIDE}
    wide = replace(node, attrs={**node.attrs, **bounds})
    exact = rows.astype(np.float64) if node.attr("readout") == "wtm2101" else rows
    groups, each = rows.shape[1], len(w) // rows.shape[1]
    parts = [_columns(graph, wide, exact[:, g], w, slice(g * each, (g + 1) * each)) for g in range(groups)]
    return np.concatenate(parts, axis=-1)


def _columns(graph: Graph, node: Node, x: Array, w: Array, own: slice) -> Ints:
    """Codes of some columns for their inputs [vectors, rows]."""
    bias, m, r, gain = (_table(graph, node, i, len(w), own) for i in (2, 3, 4, 5))
    assert bias is not None
    post = None if m is None or r is None else (m, r)
    zero = _quant(graph, node.output).zero_point
    return mvm.column_codes(x, w[own].T.astype(x.dtype), node, bias=bias, gain=gain, post=post, zero_point=zero)


def _table(graph: Graph, node: Node, index: int, columns: int, own: slice) -> Ints | None:
    name = node.inputs[index] if index < len(node.inputs) else ""
    return np.broadcast_to(np.asarray(graph.constants[name], np.int64), (columns,))[own] if name else None


def _quant(graph: Graph, value: str) -> QuantSpec:
    quant = graph.type(value).quant
    assert quant is not None
    return quant


def driven_rows(graph: Graph, node: Node, x: Ints) -> Ints:
    """Driven codes of a layer's vectors [vectors, groups, rows]."""
    kernel = np.shape(graph.constants[node.inputs[1]])[2:]
    return rows_of(mvm.input_codes(x, node), node, kernel=kernel, pad=_driven_zero(graph, node))


def _driven_zero(graph: Graph, node: Node) -> int:
    """The driven code of the zero point, which padding holds."""
    return int(mvm.input_codes(np.asarray(_quant(graph, node.inputs[0]).zero_point), node))
