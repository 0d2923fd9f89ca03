"""The integers of a quantized graph for many samples: the interpreter's rules, weight layers through matrix products.

Products are float64 and exact (sums stay below 2^53); the readouts are those of `numeric`.  A test holds every readout
against `graph.interpret`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.replay import Replay, codes_of_sums, vectors_back
from insitu.compiler.draft import is_weight_layer
from insitu.graph.graph import Graph, Node
from insitu.graph.interpret import node_results
from insitu.graph.ops.float import is_plain, numpy_type
from insitu.numeric.affine import dequantize, quantize

Array = npt.NDArray[Any]
TRANSFORMED = ("blocks", "drive", "apart", "finer")  # attributes whose rows only the interpreter lays out


def integers(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Codes (or numbers) of every output for real inputs (samples, *shape)."""
    values: dict[str, Any] = {n: _given(graph, n, a) for n, a in inputs.items()}
    last = {v: i for i, n in enumerate(graph.nodes) for v in n.inputs}
    for index, node in enumerate(map(_once, graph.nodes)):
        if is_weight_layer(graph, node) and not is_plain(graph, node) and not any(node.attr(t) for t in TRANSFORMED):
            values[node.output] = _layer(graph, node, values[node.inputs[0]])
        else:
            values.update(node_results(graph, node, values))
        for name in {v for v in node.inputs if last.get(v) == index} - {*graph.outputs}:
            values.pop(name, None)
    return {name: values[name] for name in graph.outputs}


def reals(graph: Graph, codes: Mapping[str, Array]) -> list[Array]:
    """The numbers that outputs stand for, in order."""
    found: list[Array] = []
    for name in graph.outputs:
        quant = graph.type(name).quant
        found.append(codes[name] if quant is None else dequantize(codes[name], quant).astype(np.float32))
    return found


def _once(node: Node) -> Node:
    """A layer whose rows are there several times, behind a converter with a step as many times as large: with one."""
    blocks = tuple(node.attr("blocks", ()))
    others = (node.attr(t) for t in TRANSFORMED if t != "blocks")
    if node.attr("readout") != "adc" or len(blocks) < 2 or set(blocks) != {1} or any(others):
        return node
    kept = {name: value for name, value in node.attrs.items() if name != "blocks"}
    return replace(node, attrs={**kept, "adc_s": int(node.attr("adc_s", 0)) - (len(blocks).bit_length() - 1)})


def _given(graph: Graph, name: str, array: Array) -> Array:
    quant = graph.type(name).quant
    if quant is None:
        return array.astype(numpy_type(graph.type(name).dtype))
    return quantize(array, quant)


def _layer(graph: Graph, node: Node, x: Array) -> Array:
    replay = Replay(graph, node, x)
    codes = np.concatenate([codes_of_sums(graph, node, replay.sums(cut)) for cut in replay.cuts])
    return vectors_back(codes, graph.type(node.output).sizes(), node.op)
