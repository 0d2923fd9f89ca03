"""What only a replay of the quantized network shows: mean errors, folded into biases, and shifts of joined row parts.

Layer by layer in order, each on what the quantized layers before it really produce (bias correction).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.replay import (
    at_once,
    codes_of_sums,
    driven_rows,
    grouped,
    layer_codes,
    layer_sums,
    rows_of,
    vectors_back,
)
from insitu.algo.rounding import rounded
from insitu.algo.ties import sharing
from insitu.arch.spec import Chip
from insitu.compiler.draft import is_weight_layer
from insitu.compiler.plan import LayerPlan, QuantPlan, packed
from insitu.compiler.quantize import quantize
from insitu.compiler.quantize_layers import effective_weight, out_axis, quantize_layer, weight_limit, weight_rows
from insitu.graph.export import float_session
from insitu.graph.graph import Graph, Node
from insitu.graph.interpret import node_results
from insitu.numeric.affine import Floats, Ints, QuantSpec
from insitu.numeric.affine import quantize as codes_of

Array = npt.NDArray[Any]
WORK = 6e7  # elements that one replay may touch; a product counts as a tenth of one
SAMPLES = 64
PATIENCE = 10  # a single sample may touch so many times as many, else there is no replay
CLIPPED = 1e-4  # share of partial codes that may clip (DESIGN 2)


def refined(
    graph: Graph, chip: Chip, plan: QuantPlan, *, data: Mapping[str, Array], second_order: bool = False
) -> QuantPlan:
    """The plan with corrected biases and part shifts, where a replay on calibration samples shows that they help.

    With `second_order` weights are first rounded against each other (rounding.py).
    """
    if graph.states or graph.symbols() or not any(is_weight_layer(graph, n) for n in graph.nodes):
        return plan
    count = _samples(graph, data, slow=chip.macro.readout.kind == "adc")
    if count == 0:
        return plan
    few = {k: v[:: max(1, len(v) // count)][:count] for k, v in data.items()}
    real = {**few, **float_session(graph, expose=[n.inputs[0] for n in graph.nodes if is_weight_layer(graph, n)])(few)}
    coded = quantize(graph, chip, plan=plan)
    values: dict[str, Ints] = {}
    for name in graph.inputs:
        plain = coded.type(name).quant is None
        values[name] = real[name] if plain else codes_of(real[name], _spec(coded, name))
    layers = dict(plan.layers)
    original = {n.name: n for n in graph.nodes}
    last = {v: i for i, n in enumerate(coded.nodes) for v in n.inputs}
    first = {n.name: nodes[0].name for nodes in sharing(graph) for n in nodes}
    for index, node in enumerate(coded.nodes):
        if not is_weight_layer(coded, node):
            values.update(node_results(coded, node, values))
        elif node.name in first:  # weights for several layers stay what they are
            if first[node.name] == node.name and len(layers[node.name].parts) > 2 and layers[node.name].gain:
                work = _Layer(graph, chip, coded, original[node.name], plan)
                shifted = work.shifted(layers[node.name], values[node.inputs[0]])
                layers.update((k, shifted) for k, v in first.items() if v == node.name)
            values.update(node_results(coded, node, values))
        else:
            work = _Layer(graph, chip, coded, original[node.name], plan)
            if second_order:
                layers[node.name] = work.rounded(layers[node.name], values[node.inputs[0]])
            layers[node.name], codes = work.refined(layers[node.name], values[node.inputs[0]], real[node.inputs[0]])
            values[node.output] = vectors_back(codes, graph.type(node.output).sizes(), node.op)
        for name in {v for v in node.inputs if last.get(v) == index}:
            values.pop(name, None)
    return replace(plan, layers=layers)


def _spec(graph: Graph, value: str) -> QuantSpec:
    quant = graph.type(value).quant
    assert quant is not None
    return quant


def _samples(graph: Graph, data: Mapping[str, Array], *, slow: bool) -> int:
    """How many samples a replay takes (0: none); a converter's planes and slices cost about 32 times as much."""
    work = 0.0
    for node in graph.nodes:
        if is_weight_layer(graph, node):
            w, columns = graph.constants[node.inputs[1]], graph.constants[node.inputs[1]].shape[out_axis(node)]
            positions = prod(graph.type(node.output).sizes()) // columns
            rows = w.size // columns * int(node.attr("group", 1))
            work += positions * (rows + 4 * columns + w.size / 10) * (32 if slow else 1)
    fits = int(WORK / max(work, 1.0))
    return min(len(next(iter(data.values()))), SAMPLES, fits or (0 if work > WORK * PATIENCE else 1))


class _Layer:
    """One weight layer under replay."""

    def __init__(self, graph: Graph, chip: Chip, coded: Graph, node: Node, plan: QuantPlan):
        self.graph, self.chip, self.coded, self.node, self.plan = graph, chip, coded, node, plan
        self.source, self.out = _spec(coded, node.inputs[0]), _spec(coded, node.output)

    def refined(self, layer: LayerPlan, x: Ints, real: Array) -> tuple[LayerPlan, Ints]:
        """(plan of this layer, its output codes [vectors, columns]) for input codes x and real inputs."""
        if len(layer.parts) > 2 and layer.gain:
            layer = self.shifted(layer, x)
        wanted, read = self.wanted(real), self.reader(layer, x)
        codes, delta = read(layer, True), self.missing(read(layer, False), wanted)
        better = replace(layer, bias=tuple(float(d) for d in delta))
        other = read(better, True)
        target = np.clip(wanted, float(self.node.attr("act_lo", -np.inf)), float(self.node.attr("act_hi", np.inf)))
        gained = self.gained(codes, other, target)
        if not gained.any():
            return layer, codes
        kept = replace(layer, bias=tuple(float(d) for d in np.where(gained, delta, 0.0)))
        return kept, np.where(gained, other, codes)

    def rounded(self, layer: LayerPlan, x: Ints) -> LayerPlan:
        """The layer's plan with weights rounded against each other for input codes x."""
        coded, node = self.coded_as(layer)
        constant, spec = coded.constants[node.inputs[1]], coded.type(node.inputs[1]).quant
        assert spec is not None
        if self.graph.types[self.node.inputs[1]].quant is not None:  # a model's own codes
            return layer
        real, _ = effective_weight(
            np.asarray(self.graph.constants[self.node.inputs[1]], np.float64), self.source, self.node
        )
        nearest, steps = weight_rows(np.asarray(constant, np.int64), node), np.asarray(spec.scale, np.float64)
        v = weight_rows(real, self.node) / np.broadcast_to(steps, (len(nearest),))[:, None]
        zero, wtm = self.source.zero_point, self.chip.macro.readout.kind == "wtm2101"
        rows = rows_of(x, self.node, kernel=real.shape[2:], pad=zero) - zero
        limit = weight_limit(self.chip)
        lo, hi = self.chip.array.cell_range if wtm else (-limit, limit)
        return replace(layer, rounding=packed(rounded(v, nearest, rows, lo=lo, hi=hi) - nearest))

    def wanted(self, real: Array) -> Floats:
        """The float layer before its activation, [vectors, columns]."""
        w = np.asarray(self.graph.constants[self.node.inputs[1]], np.float64)
        bias = np.asarray(self.graph.constants[self.node.inputs[2]], np.float64)
        return grouped(rows_of(real, self.node, kernel=w.shape[2:], pad=0), weight_rows(w, self.node)) + bias

    def coded_as(self, layer: LayerPlan) -> tuple[Graph, Node]:
        """The quantized graph with this layer's constants under another plan, and its node."""
        plan = replace(self.plan, layers={**self.plan.layers, self.node.name: layer})
        draft = quantize_layer(self.graph, self.chip, self.node, plan=plan, source=self.source)
        return replace(self.coded, constants={**self.coded.constants, **draft.constants}), draft.nodes[0]

    def reader(self, layer: LayerPlan, x: Ints) -> Callable[[LayerPlan, bool], Ints]:
        """(plan that differs in its bias, clip) -> codes; products are made once where one sum decides a code."""
        graph, node = self.coded_as(layer)
        sums = layer_sums(graph, node, x) if at_once(node) else None

        def read(other: LayerPlan, clip: bool) -> Ints:
            graph, node = self.coded_as(other)
            return (
                layer_codes(graph, node, x, clip=clip) if sums is None else codes_of_sums(graph, node, sums, clip=clip)
            )

        return read

    def real(self, codes: Ints) -> Floats:
        """The numbers that output codes stand for."""
        return (codes - self.out.zero_point) * np.asarray(self.out.scale, np.float64)

    def gained(self, codes: Ints, other: Ints, target: Floats) -> npt.NDArray[np.bool_]:
        """Columns whose other codes err less, in the mean square and for most of the vectors that they differ on.

        The mean alone would let a few vectors far off (a token that carries huge activations, say) move all others.
        """
        before, after = (np.abs(self.real(c) - target) for c in (codes, other))
        better, worse = (after < before).sum(axis=0), (after > before).sum(axis=0)
        return ((after**2).mean(axis=0) < (before**2).mean(axis=0)) & (better >= worse)

    def missing(self, codes: Ints, wanted: Floats) -> Floats:
        """Mean error per column of codes without clip, where a clip would not hide it, as far as it stands out."""
        got = self.real(codes)
        top = max(self.out.scale)
        low = max(float(self.node.attr("act_lo", -np.inf)), (self.out.lo - self.out.zero_point) * top)
        high = min(float(self.node.attr("act_hi", np.inf)), (self.out.hi - self.out.zero_point) * top)
        inside = ((wanted > low) | (got > low)) & (wanted < high)
        count = np.maximum(inside.sum(axis=0), 1)
        error = np.where(inside, wanted - got, 0.0)
        mean = error.sum(axis=0) / count
        spread = np.maximum((error**2).sum(axis=0) / count - mean**2, 0)
        doubt = spread / count / np.maximum(mean**2, 1e-300)
        return mean * np.maximum(1 - doubt, 0)

    def shifted(self, layer: LayerPlan, x: Ints) -> LayerPlan:
        """The largest k of 3..0 with G / 2**k >= 256 at which fewer than 0.01 % of the partial codes clip."""
        least = (self.chip.macro.readout.gain or (256, 8192))[0]
        sums = self.partial_sums(layer, x)
        for k in (3, 2, 1):
            gain = np.asarray(layer.gain) >> k
            codes = sums / gain
            outside = ((codes < -128.25) | (codes >= 127.5)).mean()
            if gain.min() >= least and outside < CLIPPED:
                return replace(layer, k=k)
        return replace(layer, k=0)

    def partial_sums(self, layer: LayerPlan, x: Ints) -> Floats:
        """Column sums of every row part, [parts, vectors, columns]; the bias is in the first."""
        graph, node = self.coded_as(layer)
        w, bias = (np.asarray(graph.constants[v], np.int64) for v in node.inputs[1:3])
        rows, flat = driven_rows(graph, node, x), weight_rows(w, node)
        pairs = list(zip(layer.parts, layer.parts[1:], strict=False))
        return np.stack([grouped(rows[..., a:b], flat[:, a:b]) + (bias if a == 0 else 0) for a, b in pairs])
