"""What only a replay of the quantized network shows: mean errors, folded into biases, and shifts of joined row parts.

Layer by layer in order, each on what the quantized layers before it really produce (bias correction).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.replay import KEPT, ByCut, Replay, codes_of_sums, grouped, vectors_back
from insitu.algo.rounding import looked_at, rounded
from insitu.algo.ties import sharing
from insitu.algo.vectors import in_groups, vectors_of
from insitu.arch.spec import Chip
from insitu.compiler.draft import is_weight_layer
from insitu.compiler.plan import LayerPlan, QuantPlan, packed
from insitu.compiler.quantize import quantize
from insitu.compiler.quantize_layers import effective_weight, out_axis, quantize_layer, weight_limit, weight_rows
from insitu.graph.graph import Graph, Node
from insitu.graph.interpret import node_results
from insitu.graph.passes import Passes
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
    count = replayed_samples(graph, len(next(iter(data.values()))), slow=chip.macro.readout.kind == "adc")
    if count == 0:
        return plan
    few = {k: v[:: max(1, len(v) // count)][:count] for k, v in data.items()}
    real = _Reals(graph, few)
    coded = quantize(graph, chip, plan=plan)
    values: dict[str, Ints] = {}
    for name in graph.inputs:
        plain = coded.type(name).quant is None
        values[name] = few[name] if plain else codes_of(few[name], _spec(coded, name))
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
                replay = Replay(*work.coded_as(layers[node.name]), values[node.inputs[0]])
                shifted = work.shifted(layers[node.name], replay)
                layers.update((k, shifted) for k, v in first.items() if v == node.name)
            values.update(node_results(coded, node, values))
        else:
            work = _Layer(graph, chip, coded, original[node.name], plan)
            if second_order:
                layers[node.name] = work.rounded(layers[node.name], values[node.inputs[0]])
            layers[node.name], codes = work.refined(layers[node.name], values[node.inputs[0]], real.of(node))
            values[node.output] = vectors_back(codes, graph.type(node.output).sizes(), node.op)
        for name in {v for v in node.inputs if last.get(v) == index}:
            values.pop(name, None)
    return replace(plan, layers=layers)


class _Reals:
    """Real inputs of weight layers, made as the layers come and dropped after the last that reads them."""

    def __init__(self, graph: Graph, few: Mapping[str, Array]) -> None:
        layers = [n for n in graph.nodes if is_weight_layer(graph, n)]
        self._last = {n.inputs[0]: n.name for n in layers}
        self._values = Passes(graph, [v for v in self._last if v not in few]).values(few)
        self._held = {v: a for v, a in few.items() if v in self._last}

    def of(self, node: Node) -> Array:
        """The inputs of a layer; layers are asked for in the order of the graph."""
        value = node.inputs[0]
        while value not in self._held:
            name, array = next(self._values)
            self._held |= {name: array} if name in self._last else {}
        return self._held.pop(value) if self._last[value] == node.name else self._held[value]


def _spec(graph: Graph, value: str) -> QuantSpec:
    quant = graph.type(value).quant
    assert quant is not None
    return quant


def replayed_samples(graph: Graph, samples: int, *, slow: bool) -> int:
    """How many of the samples a replay takes (0: none); a converter's planes and slices cost about 32 times as much."""
    work = 0.0
    for node in graph.nodes:
        if is_weight_layer(graph, node):
            w, columns = graph.constants[node.inputs[1]], graph.constants[node.inputs[1]].shape[out_axis(node)]
            positions = prod(graph.type(node.output).sizes()) // columns
            rows = w.size // columns * int(node.attr("group", 1))
            work += positions * (rows + 4 * columns + w.size / 10) * (32 if slow else 1)
    fits = int(WORK / max(work, 1.0))
    return min(samples, SAMPLES, fits or (0 if work > WORK * PATIENCE else 1))


class _Layer:
    """One weight layer under replay."""

    def __init__(self, graph: Graph, chip: Chip, coded: Graph, node: Node, plan: QuantPlan):
        self.graph, self.chip, self.coded, self.node, self.plan = graph, chip, coded, node, plan
        self.source, self.out = _spec(coded, node.inputs[0]), _spec(coded, node.output)

    def refined(self, layer: LayerPlan, x: Ints, real: Array) -> tuple[LayerPlan, Ints]:
        """(plan of this layer, its output codes [vectors, columns]) for input codes x and real inputs."""
        replay = Replay(*self.coded_as(layer), x)
        layer = self.shifted(layer, replay)
        wanted = self.wanted(real)
        delta = self.missing(self.coded_as(layer), replay, wanted)
        better = replace(layer, bias=tuple(float(d) for d in delta))
        gained, codes, other = self.compared((self.coded_as(layer), self.coded_as(better)), replay, wanted)
        if not gained.any():
            return layer, codes
        kept = replace(layer, bias=tuple(float(d) for d in np.where(gained, delta, 0.0)))
        np.copyto(codes, other, where=gained)
        return kept, codes

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
        vectors = vectors_of(x, self.node, kernel=real.shape[2:], pad=zero)
        rows = in_groups(vectors.at(looked_at(v, vectors.groups, len(vectors))), 1, vectors.groups) - zero
        limit = weight_limit(self.chip)
        lo, hi = self.chip.array.cell_range if wtm else (-limit, limit)
        return replace(layer, rounding=packed(rounded(v, nearest, rows, lo=lo, hi=hi) - nearest))

    def wanted(self, real: Array) -> ByCut:
        """The float layer before its activation, [vectors, columns] of a cut."""
        w = np.asarray(self.graph.constants[self.node.inputs[1]], np.float64)
        bias = np.asarray(self.graph.constants[self.node.inputs[2]], np.float64)
        vectors, rows = vectors_of(real, self.node, kernel=w.shape[2:], pad=0), weight_rows(w, self.node)
        return ByCut(lambda cut: grouped(vectors.take(cut), rows) + bias, kept=len(vectors) * len(rows) <= KEPT)

    def coded_as(self, layer: LayerPlan) -> tuple[Graph, Node]:
        """The quantized graph with this layer's constants under another plan, and its node."""
        plan = replace(self.plan, layers={**self.plan.layers, self.node.name: layer})
        draft = quantize_layer(self.graph, self.chip, self.node, plan=plan, source=self.source)
        return replace(self.coded, constants={**self.coded.constants, **draft.constants}), draft.nodes[0]

    def real(self, codes: Ints) -> Floats:
        """The numbers that output codes stand for."""
        return (codes - self.out.zero_point) * np.asarray(self.out.scale, np.float64)

    def compared(
        self, layers: tuple[tuple[Graph, Node], tuple[Graph, Node]], replay: Replay, wanted: ByCut
    ) -> tuple[npt.NDArray[np.bool_], Ints, Ints]:
        """Columns whose codes of the second of two layers err less, and the codes [vectors, columns] of both.

        Less in the mean square and for most of the vectors that they differ on: the mean alone would let a few vectors
        far off (a token that carries huge activations, say) move all others.
        """
        low, high = float(self.node.attr("act_lo", -np.inf)), float(self.node.attr("act_hi", np.inf))
        both = [np.empty((len(replay.vectors), len(replay.weights)), np.int64) for _ in layers]
        squares, votes, start = np.zeros((2, len(replay.weights))), 0, 0
        for cut in replay.cuts:
            sums, target = replay.sums(cut), np.clip(wanted(cut), low, high)
            errors: list[Floats] = []
            for codes, layer in zip(both, layers, strict=True):
                own = codes[start : start + len(target)] = codes_of_sums(*layer, sums)
                errors.append(np.abs(self.real(own) - target))
            start += len(target)
            squares += [(e**2).sum(axis=0) for e in errors]
            votes = votes + (errors[1] < errors[0]).sum(axis=0) - (errors[1] > errors[0]).sum(axis=0)
        return (squares[1] < squares[0]) & (votes >= 0), both[0], both[1]

    def missing(self, layer: tuple[Graph, Node], replay: Replay, wanted: ByCut) -> Floats:
        """Mean error per column of codes without clip, where a clip would not hide it, as far as it stands out."""
        top = max(self.out.scale)
        low = max(float(self.node.attr("act_lo", -np.inf)), (self.out.lo - self.out.zero_point) * top)
        high = min(float(self.node.attr("act_hi", np.inf)), (self.out.hi - self.out.zero_point) * top)
        total = np.zeros((3, len(replay.weights)))  # counts, errors, their squares
        for cut in replay.cuts:
            aim, got = wanted(cut), self.real(codes_of_sums(*layer, replay.sums(cut), clip=False))
            inside = ((aim > low) | (got > low)) & (aim < high)
            error = np.where(inside, aim - got, 0.0)
            total += [inside.sum(axis=0), error.sum(axis=0), (error**2).sum(axis=0)]
        count = np.maximum(total[0], 1)
        mean = total[1] / count
        spread = np.maximum(total[2] / count - mean**2, 0)
        doubt = spread / count / np.maximum(mean**2, 1e-300)
        return mean * np.maximum(1 - doubt, 0)

    def shifted(self, layer: LayerPlan, replay: Replay) -> LayerPlan:
        """The largest k of 3..0 with G / 2**k >= 256 at which fewer than 0.01 % of the partial codes clip."""
        if len(layer.parts) <= 2 or not layer.gain:
            return layer
        least = (self.chip.macro.readout.gain or (256, 8192))[0]
        shifts = [k for k in (3, 2, 1) if min(layer.gain) >> k >= least]
        bias, outside = np.asarray(replay.graph.constants[replay.node.inputs[2]], np.int64), dict.fromkeys(shifts, 0)
        for cut in replay.cuts:
            sums = replay.sums(cut).astype(np.float64)
            sums[0] += bias
            for k in shifts:
                codes = sums / (np.asarray(layer.gain) >> k)
                outside[k] += int(((codes < -128.25) | (codes >= 127.5)).sum())
        total = len(replay.vectors) * len(replay.weights) * len(replay.parts)
        return replace(layer, k=next((k for k in shifts if outside[k] / total < CLIPPED), 0))
