"""The last layer solved again for the features of one chip: ridge regression in closed form, no labels, no torch.

A trial deployment shows which codes reach the last weight layer of a programmed chip.  Its weights and bias are moved
so that these codes give what the float network gives on the same samples; how far is chosen by the leave-one-out error,
which has a closed form too (Allen's PRESS, Technometrics 16:125, 1974), so that where features tell nothing new the
layer stays as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.graph.graph import Graph, Node
from insitu.graph.ops.mvm import input_codes

Floats = npt.NDArray[np.float64]
STRENGTHS = tuple(10.0**e for e in np.arange(-4.0, 4.5, 0.5))  # of the ridge, over the mean power of a feature


def head_of(quantized: Graph, captured: Graph) -> Node | None:
    """The last weight layer where it can be solved for: a MatMul of one block of rows with a linear, rounded output."""
    layers = [n for n in quantized.nodes if n.op in ("Conv", "MatMul") and n.inputs[1] in quantized.constants]
    node = layers[-1] if layers else None
    if node is None or node.op != "MatMul" or node.attr("blocks", ()) or quantized.states:
        return None
    out, known = quantized.type(node.output).quant, {n.output for n in captured.nodes}
    shifted = node.attr("input_offset", 0) != 0  # then weights and bias move together, more than bias rows hold
    if shifted or node.attr("readout") not in ("exact", "adc", "wtm2101"):
        return None
    linear = out is not None and node.attr("lo", out.lo) == out.lo and node.attr("hi", out.hi) == out.hi
    return node if linear and node.output in known else None


def solved(graph: Graph, node: Node, codes: npt.NDArray[Any], wanted: Floats) -> Graph:
    """The graph with the head's integers for input codes [samples, ..., rows] that should give `wanted` reals."""
    w, bias = (np.asarray(graph.constants[node.inputs[i]], np.float64) for i in (1, 2))
    source = graph.type(node.inputs[0]).quant
    assert source is not None
    x = input_codes(codes.astype(np.int64), node).reshape(-1, len(w)).astype(np.float64) - source.zero_point
    unit, read = _units(graph, node)
    missing = wanted.reshape(len(x), -1) / (unit * read) - x @ w - bias / read
    movable = node.attr("readout") != "wtm2101"  # whose bias lies in rows of the array, which columns share
    change, level = ridge(x, missing, intercept=movable)
    kind = graph.constants[node.inputs[1]].dtype
    peak = np.abs(w).max()  # cells go no further than the layer's largest weight does
    constants = {
        node.inputs[1]: np.clip(np.rint(w + change), -peak, peak).astype(kind),
        node.inputs[2]: np.rint(bias + read * level).astype(graph.constants[node.inputs[2]].dtype),
    }
    return replace(graph, constants={**graph.constants, **constants})


def _units(graph: Graph, node: Node) -> tuple[Floats, float]:
    """(real output per unit of what is requantized, such units per unit of the column sum)."""
    out = graph.type(node.output).quant
    assert out is not None
    scale = np.asarray(out.scale)
    if node.attr("readout") == "wtm2101":
        return scale / np.asarray(graph.constants[node.inputs[5]], np.float64), 1.0
    multiplier, shift = (np.asarray(graph.constants[node.inputs[i]], np.float64) for i in (3, 4))
    each = scale * multiplier / 2.0**shift
    adc = node.attr("readout") == "adc"
    return each, node.attr("adc_m", 1) / 2.0 ** node.attr("adc_s", 0) if adc else 1.0


def ridge(x: Floats, y: Floats, *, intercept: bool = True) -> tuple[Floats, Floats]:
    """(weights [features, outputs], intercept) of y on x [samples, features], at the best leave-one-out error."""
    middle, level = (a.mean(axis=0) if intercept else np.zeros(a.shape[1]) for a in (x, y))
    u, s, vt = np.linalg.svd(x - middle, full_matrices=False)
    along = u.T @ (y - level)
    power = float((s**2).sum()) / max(x.shape[1], 1)
    best, found = np.inf, np.zeros((x.shape[1], y.shape[1]))
    for strength in (*STRENGTHS, np.inf):
        share = s**2 / (s**2 + strength * power) if power > 0 and np.isfinite(strength) else np.zeros_like(s)
        lever = 1.0 - intercept / len(x) - (u**2 @ share)
        rest = (y - level - u @ (share[:, None] * along)) / np.maximum(lever, 1e-9)[:, None]
        error = float((rest**2).mean())
        if error < best:
            scale = np.divide(share, s, out=np.zeros_like(s), where=s > 0)
            best, found = error, vt.T @ (scale[:, None] * along)
    return found, level - middle @ found
