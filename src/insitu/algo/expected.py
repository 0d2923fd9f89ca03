"""What each layer's rows are driven with on average: the frames a chip's own calibration plays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.graph.export import float_session
from insitu.graph.graph import Graph, Node
from insitu.graph.interpret import interpret
from insitu.graph.ops.mvm import block_signs, input_codes, patches
from insitu.numeric.affine import quantize

Array = npt.NDArray[Any]
FRAMES = 16


def expected_inputs(captured: Graph, quantized: Graph, data: Mapping[str, Array], known: int = 0) -> dict[str, Array]:
    """Mean driven code per row of every weight layer, [blocks * groups, rows], over up to 16 calibration samples.

    With `known` inputs to play, up to as many samples are looked at, and behind the mean lie that many rows as the
    layer sees them, [1 + known, blocks * groups, rows]: evenly spread over samples and positions.
    """
    layers = [n for n in quantized.nodes if n.op in ("Conv", "MatMul") and n.inputs[1] in quantized.constants]
    few = {n: np.asarray(_spread(a, known) if known else a[:FRAMES], np.float32) for n, a in data.items()}
    there = {*captured.inputs, *(n.output for n in captured.nodes)}
    wanted = [n.inputs[0] for n in layers if n.inputs[0] in there and n.inputs[0] not in captured.inputs]
    values = {**few, **float_session(captured, expose=list(dict.fromkeys(wanted)))(few)}
    return {n.name: _played(quantized, n, _codes(quantized, n, values), known) for n in layers if n.inputs[0] in values}


def _spread(samples: Array, known: int) -> Array:
    """So many samples from all over the calibration inputs, which may lie in some order of their own."""
    return samples[np.unique(np.linspace(0, len(samples) - 1, max(FRAMES, known)).astype(np.int64))]


def _codes(graph: Graph, node: Node, values: Mapping[str, Array]) -> Array:
    quant = graph.type(node.inputs[0]).quant
    assert quant is not None
    return quantize(values[node.inputs[0]], quant)


def expected_codes(graph: Graph, data: Mapping[str, Array], known: int = 0) -> dict[str, Array]:
    """The same for a network that came quantized; samples of one with state are steps of one stream."""
    layers = [n for n in graph.nodes if n.op in ("Conv", "MatMul") and n.inputs[1] in graph.constants]
    seen: dict[str, list[Array]] = {n.inputs[0]: [] for n in layers}
    states = {s.input: np.zeros((1, *graph.type(s.input).sizes()), np.int64) for s in graph.states}
    for row in range(min(max(FRAMES, known), len(next(iter(data.values()))))):
        step = {n: np.rint(np.asarray(a[row : row + 1], np.float64)).astype(np.int64) for n, a in data.items()}
        values = {**states, **step}
        ends = interpret(graph, values, observe=values.__setitem__)
        states = {s.input: ends[s.output] for s in graph.states}
        for name, rows in seen.items():
            rows.append(values[name])
    return {n.name: _played(graph, n, np.concatenate(seen[n.inputs[0]]), known) for n in layers}


def _played(graph: Graph, node: Node, q: Array, known: int) -> Array:
    """The mean driven codes of a layer's rows, [blocks * groups, rows], and behind them `known` rows as they come."""
    quant = graph.type(node.inputs[0]).quant
    assert quant is not None
    signs = block_signs(node)
    mean = np.concatenate(
        [_block_means(graph, node, q[:: max(1, len(q) // FRAMES)][:FRAMES], sign, quant.zero_point) for sign in signs]
    )
    if not known:
        return mean
    rows = _some_rows(graph, node, q, quant.zero_point, known)
    blocks = [input_codes(rows.astype(np.int64), node, sign=sign).astype(np.int16) for sign in signs]
    return np.concatenate([mean[None], np.concatenate(blocks, axis=1)])


def _some_rows(graph: Graph, node: Node, q: Array, zero: int, known: int) -> Array:
    """Codes [at most known, groups, rows] as the layer reads them, evenly spread over samples and positions."""
    if node.op == "MatMul":
        rows = q.reshape(-1, 1, q.shape[-1])
        return rows[np.unique(np.linspace(0, len(rows) - 1, known).astype(np.int64))]
    w = graph.constants[node.inputs[1]]
    windows = patches(q, node, kernel=w.shape[2:], pad_value=zero)
    places = windows.shape[: windows.ndim - (w.ndim - 1)]
    at = np.unique(np.linspace(0, np.prod(places) - 1, known).astype(np.int64))
    return windows[np.unravel_index(at, places)].reshape(len(at), int(node.attr("group", 1)), -1)


def _block_means(graph: Graph, node: Node, q: Array, sign: int, zero: int) -> Array:
    """Mean driven codes [groups, rows] of one block of rows."""
    if node.op == "MatMul":
        return np.rint(input_codes(q, node, sign=sign).reshape(-1, q.shape[-1]).mean(axis=0))[None].astype(np.int16)
    w = graph.constants[node.inputs[1]]
    windows = patches(q, node, kernel=w.shape[2:], pad_value=zero)
    lead = tuple(range(windows.ndim - (w.ndim - 1)))
    rows = input_codes(windows, node, sign=sign).mean(axis=lead)
    return np.rint(rows.reshape(int(node.attr("group", 1)), -1)).astype(np.int16)
