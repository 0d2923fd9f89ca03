"""Weight layers replayed on calibration samples in exact integers, fast: what a plan makes of real inputs.

Products run in float64, exact below 2^53; the readouts are those of `numeric`.  Vectors go a cut at a time, which
follows from the layer alone; column sums are kept where they are few, else made again.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.vectors import Vectors, vectors_of
from insitu.compiler.quantize_layers import weight_rows
from insitu.graph.graph import Graph, Node
from insitu.graph.ops import mvm
from insitu.graph.ops.mvm import Cut
from insitu.numeric.affine import Floats, Ints, QuantSpec, requantize

Array = npt.NDArray[Any]
WIDE = 1 << 40  # no clip
AT_ONCE = 1 << 19  # numbers of the vectors of a cut, or of their sums
KEPT = 1 << 22  # sums that are kept


class ByCut:
    """A function of a cut, with what it gave kept where that is little."""

    def __init__(self, make: Callable[[Cut], Array], *, kept: bool) -> None:
        self._make, self._kept = make, kept
        self._found: dict[str, Array] = {}

    def __call__(self, cut: Cut) -> Array:
        if not self._kept:
            return self._make(cut)
        if (key := str(cut)) not in self._found:
            self._found[key] = self._make(cut)
        return self._found[key]


class Replay:
    """A quantized layer on input codes (samples, *shape): its column sums, which its bias and k do not change."""

    def __init__(self, graph: Graph, node: Node, x: Ints) -> None:
        self.graph, self.node = graph, node
        w = np.asarray(graph.constants[node.inputs[1]])
        self.weights, self.vectors = weight_rows(w, node), self._driven(x, w.shape[2:])
        self.cuts = list(self.vectors.cuts(at_once(self.vectors, len(self.weights))))
        size = len(self.vectors) * len(self.weights) * len(self.parts)
        self.sums = ByCut(self._sums, kept=size <= KEPT)

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Rows that are read together and joined with others by their codes."""
        bounds = tuple(self.node.attr("parts", ())) if self.node.attr("readout") == "wtm2101" else ()
        return list(pairwise(bounds or (0, self.weights.shape[1])))

    def _driven(self, x: Ints, kernel: tuple[int, ...]) -> Vectors:
        zero = mvm.input_codes(np.asarray(_quant(self.graph, self.node.inputs[0]).zero_point), self.node)
        return vectors_of(mvm.input_codes(x, self.node), self.node, kernel=kernel, pad=int(zero))

    def _sums(self, cut: Cut) -> Ints:
        """Sums before bias and readout, [parts, vectors, columns]; behind a converter those of its codes."""
        rows = self.vectors.take(cut)
        if self.node.attr("readout") == "adc":
            return self._converted(rows)[None]
        return np.stack([grouped(rows[..., a:b], self.weights[:, a:b]).astype(np.int64) for a, b in self.parts])

    def _converted(self, rows: Ints) -> Ints:
        each = len(self.weights) // rows.shape[1]
        owns = [slice(g * each, (g + 1) * each) for g in range(rows.shape[1])]
        fine = _table(self.graph, self.node, 5, len(self.weights))
        sums = [
            mvm.adc_sum(
                rows[:, g], self.weights[own].T.astype(np.int64), self.node, None if fine is None else fine[own]
            )
            for g, own in enumerate(owns)
        ]
        return np.concatenate(sums, axis=-1)


def at_once(vectors: Vectors, columns: int) -> int:
    """How many vectors go together."""
    return max(1, AT_ONCE // max(vectors.rows, columns))


def codes_of_sums(graph: Graph, node: Node, sums: Ints, *, clip: bool = True) -> Ints:
    """Output codes [vectors, columns] of `Replay.sums`; without `clip` those beyond the node's bounds stay."""
    bias = np.asarray(graph.constants[node.inputs[2]], np.int64)
    lo, hi = (int(node.attr("lo")), int(node.attr("hi"))) if clip else (-WIDE, WIDE)
    if node.attr("readout") == "wtm2101":
        gain, rows = np.asarray(graph.constants[node.inputs[5]], np.int64), len(_rows(graph, node))
        return mvm.wtm2101_codes(list(sums), node, rows=rows, bias=bias, gain=gain, lo=lo, hi=hi)
    m, r = (graph.constants[v] for v in node.inputs[3:5])
    zero = _quant(graph, node.output).zero_point
    return requantize(sums[0] + bias, m, r, zero_point=zero, lo=lo, hi=hi, rounding=node.attr("rounding", "half_even"))


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


def _rows(graph: Graph, node: Node) -> Array:
    return weight_rows(np.asarray(graph.constants[node.inputs[1]]), node).T


def _table(graph: Graph, node: Node, index: int, columns: int) -> Ints | None:
    name = node.inputs[index] if index < len(node.inputs) else ""
    return np.broadcast_to(np.asarray(graph.constants[name], np.int64), (columns,)) if name else None


def _quant(graph: Graph, value: str) -> QuantSpec:
    quant = graph.type(value).quant
    assert quant is not None
    return quant
