"""Post-training quantization: a QuantPlan for a network on a chip from calibration data, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.calibrate import Calibration, Range, calibrate
from insitu.algo.gains import adc_range_of, wtm_layer
from insitu.algo.search import asymmetric, power_of_two, symmetric, unsigned
from insitu.algo.weights import weight_scales
from insitu.arch.spec import Chip
from insitu.compiler.plan import LayerPlan, QuantPlan
from insitu.compiler.quantize import PASS_THROUGH, SOFTMAX_SPEC, window_counts
from insitu.graph.graph import Graph, Node
from insitu.numeric.affine import QuantSpec

Array = npt.NDArray[Any]


@dataclass
class _Choice:
    """A plan while it is made."""

    graph: Graph
    chip: Chip
    seen: Calibration
    values: dict[str, QuantSpec] = field(default_factory=dict[str, QuantSpec])
    layers: dict[str, LayerPlan] = field(default_factory=dict[str, LayerPlan])

    def range(self, value: str) -> Range:
        return self.seen.ranges[value]


def plan(graph: Graph, chip: Chip, *, data: Mapping[str, Array], seed: int = 0) -> QuantPlan:
    """Scales, zero points, gains and ADC ranges for a canonical captured graph.

    `data` holds calibration inputs (samples, *shape) by input name.
    """
    choice = _Choice(graph, chip, calibrate(graph, data, seed=seed))
    tied = _tied_values(graph) if chip.capabilities.scales == "power_of_two" else frozenset[str]()
    for name in (*graph.inputs, *graph.state_inputs):
        choice.values[name] = _input_spec(choice, name, tied=name in tied)
    for node in graph.nodes:
        choice.values[node.output] = _spec(choice, node, tied=node.output in tied)
    _share_specs(choice)
    for node in graph.nodes:
        if node.op in ("Conv", "MatMul") and node.inputs[1] in graph.constants:
            choice.layers[node.name] = _layer(choice, node)
    return QuantPlan(choice.values, choice.layers)


def _tied_values(graph: Graph) -> frozenset[str]:
    """Values whose scales must differ by powers of two: around Add, Mul, Concat and clips that stand alone."""
    tied: set[str] = set()
    for node in graph.nodes:
        if node.op in ("Add", "Mul", "Concat", "Relu", "Clip"):
            tied.update(v for v in (*node.inputs, node.output) if v not in graph.constants)
    for node in reversed(graph.nodes):  # pass-through operators hand the demand on
        if node.op in PASS_THROUGH and node.output in tied:
            tied.update(v for v in node.inputs[:1])
    return frozenset(tied)


def _input_spec(choice: _Choice, name: str, *, tied: bool) -> QuantSpec:
    seen = choice.range(name)
    if choice.chip.macro.readout.kind == "wtm2101":
        return power_of_two(seen, signed=seen.low < 0, bits=8) if tied else asymmetric(seen, signed=False)
    return _digital(choice, seen)


def _digital(choice: _Choice, seen: Range) -> QuantSpec:
    signed = choice.chip.macro.input.signed
    if choice.chip.capabilities.scales == "power_of_two":
        return power_of_two(seen, signed=signed, bits=8)
    return asymmetric(seen, signed=signed)


def _spec(choice: _Choice, node: Node, *, tied: bool) -> QuantSpec:
    seen = choice.range(node.output)
    if node.op == "Softmax":
        return SOFTMAX_SPEC
    if node.op in PASS_THROUGH and node.op != "Concat":
        return choice.values[node.inputs[0]]
    if choice.chip.macro.readout.kind != "wtm2101":
        return _digital(choice, seen)
    if node.op in ("AveragePool", "ReduceMean"):
        return _average_spec(choice, node, seen)
    if node.op in ("Conv", "MatMul"):
        return (
            power_of_two(seen, signed=True, bits=8, relu=seen.low >= 0) if tied else symmetric(seen, relu=seen.low >= 0)
        )
    if tied or seen.low < 0:
        return power_of_two(seen, signed=seen.low < 0, bits=8)
    return unsigned(seen)


def _average_spec(choice: _Choice, node: Node, seen: Range) -> QuantSpec:
    """A scale that makes the division by the window's size a pure shift."""
    source = choice.values[node.inputs[0]]
    signed = seen.low < 0
    top = max(abs(seen.low), abs(seen.high), 1e-12) / (127 if signed else 255)
    base = source.scale[0] / float(window_counts(node, choice.graph).max())
    return QuantSpec(8, signed=signed, scale=(float(base * 2.0 ** np.ceil(np.log2(top / base))),))


def _share_specs(choice: _Choice) -> None:
    """Inputs of a Concat that nothing else fixes, and both ends of a state, take one spec."""
    made = choice.graph.producers()
    for node in choice.graph.nodes:
        if node.op != "Concat":
            continue
        for value in node.inputs:
            maker = made.get(value)
            if maker is not None and maker.op not in PASS_THROUGH and maker.op != "Softmax":
                choice.values[value] = _merged(choice.values[value], choice.values[node.output])
    for _ in choice.graph.states:  # as often as a state may be another one's next value
        for state in choice.graph.states:
            choice.values[state.output] = choice.values[state.input]


def _merged(own: QuantSpec, common: QuantSpec) -> QuantSpec:
    return common if own.signed == common.signed else own


def _layer(choice: _Choice, node: Node) -> LayerPlan:
    kind = choice.chip.macro.readout.kind
    w = np.asarray(choice.graph.constants[node.inputs[1]], np.float64)
    if kind == "wtm2101":
        return wtm_layer(choice.graph, choice.chip, node, choice.values, choice.seen)
    scales = weight_scales(w, choice.chip, node)
    if kind == "exact":
        return LayerPlan(weight_scale=scales)
    return adc_range_of(choice.graph, choice.chip, node, choice.values, choice.seen, scales)
