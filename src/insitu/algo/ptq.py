"""Post-training quantization: a QuantPlan for a network on a chip from calibration data, in one call.

Values are decided in execution order, each with what is known of the values before it; a replay of the quantized
network then corrects mean errors (refine.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.adc import adc_layer, seen_vectors
from insitu.algo.calibrate import Calibration, Range, calibrate
from insitu.algo.cells import cell_errors
from insitu.algo.channels import channel_axis
from insitu.algo.equalize import behind, channels_of, equalized
from insitu.algo.gains import CELLS, Columns, affordable, columns_of, free_scales, given_scale, one_scale
from insitu.algo.refine import refined
from insitu.algo.search import (
    OBSERVERS,
    asymmetric,
    drives_much,
    error,
    few_rows,
    power_of_two,
    symmetric,
    top_code,
    unsigned,
)
from insitu.algo.spare import filled
from insitu.algo.ties import bases, carried, sharing
from insitu.algo.weights import weight_scales
from insitu.arch.spec import Chip
from insitu.base.errors import UsageError, did_you_mean
from insitu.base.heap import give_back
from insitu.circuit.effects import Physics
from insitu.compiler.draft import MOVES, follow, is_weight_layer
from insitu.compiler.given import complete, given, given_weights
from insitu.compiler.plain import plain_values
from insitu.compiler.plan import LayerPlan, QuantPlan
from insitu.compiler.quantize import SOFTMAX_SPEC, softmax_spec, window_counts
from insitu.compiler.quantize_layers import weight_limit
from insitu.graph.graph import Graph, Node
from insitu.numeric.affine import QuantSpec

Array = npt.NDArray[Any]
ELEMENTWISE = ("Mul", "Add", "Sub")  # operators whose results may have a multiplier for each channel
WORTH = 0.7  # of an error, at most, that is left for a table of multipliers, which has to be read, to be worth it


@dataclass
class _Choice:
    """A plan while it is made; `bases` holds the values whose scales are tied by powers of two."""

    graph: Graph
    chip: Chip
    seen: Calibration
    bases: Mapping[str, float]
    values: dict[str, QuantSpec] = field(default_factory=dict[str, QuantSpec])
    layers: dict[str, LayerPlan] = field(default_factory=dict[str, LayerPlan])
    real: Mapping[str, Array] = field(default_factory=dict[str, Array])
    carried: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    bias_rows: int = 0
    plain: frozenset[str] = frozenset()  # values that stay numbers
    elementwise: bool = True  # products and sums may have scales per channel
    first: Mapping[str, str] = field(default_factory=dict[str, str])  # layer: the one whose weights it reads
    errors: npt.NDArray[np.float64] | None = None  # of cells, by weight code

    @property
    def kind(self) -> str:
        """The chip's readout."""
        return self.chip.macro.readout.kind

    @property
    def bits(self) -> int:
        """Width of activations: what the rows can be driven with, at most 8."""
        return min(8, self.chip.macro.input.bits)

    def range(self, value: str) -> Range:
        """What was seen of a value; values that become each other from step to step count as one."""
        parts = [self.seen.ranges[v] for v in sorted(self.carried.get(value, {value})) if v in self.seen.ranges]
        return parts[0] if len(parts) == 1 else _together(parts)

    def known(self, value: str) -> QuantSpec | None:
        """The spec of a value that its model or another step's value has already fixed."""
        given = self.graph.types[value].quant
        return given or next((self.values[v] for v in sorted(self.carried.get(value, ())) if v in self.values), None)

    def default(self, node: Node) -> float:
        """A scale of the right size for a value that is always 0: its first input's."""
        spec = self.values.get(node.inputs[0])
        return max(spec.scale) * 127 if spec is not None else 1.0


def _together(parts: list[Range]) -> Range:
    low, high = np.array([min(p.low for p in parts)]), np.array([max(p.high for p in parts)])
    rows = np.concatenate([p.sample for p in parts])[:, None]
    return Range(low, high, rows.mean(axis=0), rows.var(axis=0), rows, len(rows), parts[0].observer)


@dataclass(frozen=True)
class Choices:
    """How ranges are observed and weights rounded; what each was measured to give is in docs/design/quantization.md.

    With `ranges` cells, those of weights weigh what cells err by under the effects given, at their time (cells.py).
    """

    observer: str = "mse"
    rounding: str = "second-order"
    elementwise: bool = True  # results of products and sums, norms' among them, may have a scale for each channel
    ranges: str = "codes"
    effects: Physics | None = None

    def __post_init__(self) -> None:
        chosen = (("observer", OBSERVERS), ("rounding", ROUNDINGS), ("ranges", RANGES))
        for name, known in chosen:
            got = getattr(self, name)
            if got not in known:
                raise UsageError(name, got, f"one of {', '.join(known)}", try_=did_you_mean(got, known))


ROUNDINGS = ("nearest", "second-order")
RANGES = ("codes", "cells")


def plan(
    graph: Graph, chip: Chip, *, data: Mapping[str, Array], seed: int = 0, choices: Choices | None = None
) -> QuantPlan:
    """Scales, zero points, gains and ADC ranges for a canonical captured graph.

    `data` holds calibration inputs (samples, *shape) by input name.  UsageError for a choice that is not known.
    """
    choices = choices or Choices()
    seen = Calibration({}, data) if complete(graph, chip) else calibrate(graph, data, seed=seed)
    give_back()
    ranges = {name: replace(r, observer=choices.observer) for name, r in seen.ranges.items()}
    seen = replace(seen, ranges=ranges)
    shifts = chip.capabilities.scales == "power_of_two"
    choice = _Choice(graph, chip, seen, bases(graph, seen) if shifts else {})
    choice = replace(choice, real=_real(graph, chip, seen), carried=carried(graph), bias_rows=chip.macro.bias_rows)
    first = {n.name: nodes[0].name for nodes in sharing(graph) for n in nodes[1:]}
    effects = choices.effects if choices.ranges == "cells" else None
    errors = None if effects is None else cell_errors(chip, effects)
    choice = replace(choice, plain=plain_values(graph), first=first, elementwise=choices.elementwise, errors=errors)
    give_back()
    values, layers = _decided(choice)
    if choice.kind == "wtm2101":
        placed = {name: layer for name, layer in layers.items() if name not in first}  # shared weights lie there once
        rows = affordable(graph, chip, placed)
        if rows < choice.bias_rows:
            values, layers = _decided(replace(choice, bias_rows=rows))
    if given(graph):  # a model's own biases stay what they are
        return QuantPlan(values, layers)
    both = choices.rounding == "second-order"
    made = refined(graph, chip, QuantPlan(values, layers), data=seen.data, second_order=both)
    return filled(graph, chip, made)


def _decided(start: _Choice) -> tuple[dict[str, QuantSpec], dict[str, LayerPlan]]:
    """Specs of all values and choices of all layers, in execution order."""
    choice = replace(start, values={}, layers={})
    for name in (*choice.graph.inputs, *choice.graph.state_inputs):
        if name not in choice.plain:
            choice.values[name] = _input(choice, name)
    for node in choice.graph.nodes:
        _decide(choice, node)
    return choice.values, choice.layers


def _real(graph: Graph, chip: Chip, seen: Calibration) -> Mapping[str, Array]:
    """Some vectors that each layer multiplies, where an ADC's range needs them."""
    needed = chip.macro.readout.kind == "adc" and not graph.states
    return seen_vectors(graph, seen.data) if needed else {}


def _input(choice: _Choice, name: str) -> QuantSpec:
    """An input's spec: tied by its base, else any scale and zero point, per feature where layers can absorb that."""
    known, state = choice.known(name), name in choice.carried
    if known is not None:
        return known
    seen = choice.range(name)
    signed = choice.chip.macro.input.signed
    if name in choice.bases:
        either = seen.low < 0 or signed or _from_layer(choice, name)
        return power_of_two(seen, base=choice.bases[name], signed=either, bits=choice.bits)
    if state and choice.kind == "wtm2101" and _from_layer(choice, name):
        return symmetric(seen, relu=seen.low >= 0)
    common = asymmetric(seen, signed=signed, bits=choice.bits)
    if choice.kind == "adc" and signed and drives_much(seen, common):
        common = symmetric(seen, relu=seen.low >= 0, bits=choice.bits)
    return common if state else _equalized(choice, name, common)


def _from_layer(choice: _Choice, name: str) -> bool:
    """True for a state that a weight layer writes."""
    made = [choice.graph.producer(v) for v in choice.carried.get(name, ())]
    return any(n is not None and is_weight_layer(choice.graph, n) for n in made)


def _decide(choice: _Choice, node: Node) -> None:
    """The specs of a node's outputs, and a weight layer's own choices."""
    graph, out = choice.graph, node.output
    if node.op == "Host" or out in choice.plain:
        for value in (v for v in node.outputs if v and v not in choice.plain):
            choice.values[value] = choice.known(value) or _hosted(choice, node, value)
        return
    layer = is_weight_layer(graph, node)
    known = choice.known(out)
    if layer and choice.kind == "wtm2101":
        spec, choice.layers[node.name] = _wtm_layer(choice, node, known)
    else:
        free = graph.types[out].quant is None and node.op in (*MOVES, "Softmax")
        spec = known if known is not None and not free else _spec(choice, node)
    choice.values[out] = spec
    if layer and choice.kind != "wtm2101":
        choice.layers[node.name] = _layer(choice, node)
    if (first := choice.first.get(node.name)) is not None and _alike(choice, node, first):
        choice.layers[node.name] = choice.layers[first]


def _alike(choice: _Choice, node: Node, first: str) -> bool:
    """Whether a layer has the codes of the one whose weights it reads, on both sides."""
    other = next(n for n in choice.graph.nodes if n.name == first)
    pairs = ((node.inputs[0], other.inputs[0]), (node.output, other.output))
    return all(choice.values[a] == choice.values[b] for a, b in pairs)


def _spec(choice: _Choice, node: Node) -> QuantSpec:
    """The spec of a value that is not a wtm2101 layer's output."""
    seen, name, default = choice.range(node.output), node.output, choice.default(node)
    picks = node.op == "Gather" and node.inputs[0] not in choice.graph.constants
    if picks:
        return choice.values[node.inputs[0]]
    if node.op == "Scatter":
        return choice.values[node.inputs[0]]
    if node.op == "Softmax":
        return softmax_spec(node)
    if node.op in MOVES:
        moved = follow(choice.graph, node, choice.values[node.inputs[0]])
        assert moved is not None
        return moved
    if name in choice.bases:
        either = seen.low < 0 or _fixed_sign(choice, node)
        own = int(node.attr("bits", choice.bits))
        return power_of_two(seen, base=choice.bases[name], signed=either, default=default, bits=own)
    source = choice.values.get(node.inputs[0], SOFTMAX_SPEC)
    if node.op in ("AveragePool", "ReduceMean") and (source.axis is not None or choice.kind == "wtm2101"):
        return _average(choice, node, source)
    common = _free_value(choice, node, name, default)
    if choice.kind == "wtm2101":
        return common
    layer = is_weight_layer(choice.graph, node)
    if name in choice.carried or not (layer or (choice.elementwise and node.op in ELEMENTWISE)):
        return common
    return _equalized(choice, name, common, worth=1.0 if layer else WORTH)


def _hosted(choice: _Choice, node: Node, value: str) -> QuantSpec:
    """What the host writes: per channel where that is better, for the host divides by any scales."""
    common = _free_value(choice, node, value, choice.default(node))
    return common if value in choice.bases or value in choice.carried else _equalized(choice, value, common)


def _free_value(choice: _Choice, node: Node, name: str, default: float) -> QuantSpec:
    """The spec of a value that nothing ties, as its range asks for."""
    seen, bits = choice.range(name), int(node.attr("bits", choice.bits))
    if name in choice.bases:
        either = seen.low < 0 or _fixed_sign(choice, node)
        return power_of_two(seen, base=choice.bases[name], signed=either, default=default, bits=bits)
    if choice.kind == "wtm2101":
        return symmetric(seen, relu=False, default=default) if seen.low < 0 else unsigned(seen, default=default)
    signed = choice.chip.macro.input.signed
    if choice.kind == "adc" and signed:
        # sums of mostly zero planes stay small in front of a converter, so 0 is the code 0
        return symmetric(seen, relu=seen.low >= 0, default=default, bits=bits)
    return asymmetric(seen, signed=signed, default=default, bits=bits)


def _fixed_sign(choice: _Choice, node: Node) -> bool:
    """True where codes must be signed although values are not: the readout of a layer gives signed codes."""
    return choice.chip.macro.input.signed or (choice.kind == "wtm2101" and is_weight_layer(choice.graph, node))


def _average(choice: _Choice, node: Node, source: QuantSpec) -> QuantSpec:
    """The input's scales over the window's size, times a power of two: an average is then a shift."""
    seen, counts = choice.range(node.output), window_counts(node, choice.graph)
    spec = follow(choice.graph, node, source) if source.axis is not None else source
    assert spec is not None
    scales = np.asarray(spec.scale)
    reach = np.maximum(np.abs(seen.low_of), np.abs(seen.high_of))
    reach = reach if reach.size == scales.size else np.array([seen.peak])
    signed = source.signed if source.signed and choice.kind != "wtm2101" else seen.low < 0
    base, top = scales / float(counts.max()), float(top_code(choice.bits, signed=signed))
    need = float((reach / (top * base)).max())
    exponent = np.ceil(np.log2(need)) if need > 0 else np.ceil(np.log2(float(counts.max())))
    chosen = tuple(float(s) for s in base * 2.0**exponent)
    if signed and choice.kind != "wtm2101" and not choice.chip.macro.input.signed:  # the same codes, moved up
        middle = 1 << (choice.bits - 1)
        return QuantSpec(choice.bits, signed=False, scale=chosen, zero_point=middle, axis=spec.axis)
    return QuantSpec(choice.bits, signed=signed, scale=chosen, axis=spec.axis)


def _equalized(choice: _Choice, name: str, common: QuantSpec, *, worth: float = 1.0) -> QuantSpec:
    """One scale per channel instead of `common` where that lowers the error behind to less than `worth` of it."""
    made = choice.graph.producer(name)
    shifts = choice.chip.capabilities.scales == "power_of_two" and choice.kind != "wtm2101"
    if shifts and (made is None or made.op != "Host"):
        return common
    seen = choice.seen.ranges[name]
    limit = CELLS if choice.kind == "wtm2101" else weight_limit(choice.chip)
    rows = few_rows(seen.rows)
    least, chosen = np.inf, common
    for zero in _zeros(common, seen):
        channels = channels_of(
            choice.graph, choice.seen, name, below=0 if seen.low >= 0 else zero - common.lo, above=common.hi - zero
        )
        if channels is None:
            return common
        flat = np.array([error(rows[:, c], common) for c in range(rows.shape[1])])
        whole = float((channels.worth * flat).sum()) + behind(
            channels, np.full(len(flat), common.scale[0]), limit=limit
        )
        cost, steps = equalized(channels, limit=limit)
        if cost < min(least, whole * worth):
            axis, scale = channel_axis(choice.graph, name), tuple(float(s) for s in steps)
            least, chosen = cost, replace(common, scale=scale, zero_point=zero, axis=axis)
    return chosen


def _zeros(common: QuantSpec, seen: Range) -> tuple[int, ...]:
    """Zero points tried for channels that share one: the common spec's, and the middle where both signs occur."""
    middle = (common.lo + common.hi + 1) // 2
    return tuple(dict.fromkeys((common.zero_point, middle))) if seen.low < 0 else (common.zero_point,)


def _wtm_layer(choice: _Choice, node: Node, known: QuantSpec | None) -> tuple[QuantSpec, LayerPlan]:
    """Output spec and gains together: the gain ties the weight step to the output's scale."""
    source = choice.values[node.inputs[0]]
    columns = columns_of(choice.graph, choice.chip, node, source=source, seen=choice.seen, bias_rows=choice.bias_rows)
    seen, name = choice.range(node.output), node.output
    if known is not None or name in choice.bases:
        spec = known or power_of_two(seen, base=choice.bases[name], signed=True, default=choice.default(node))
        return spec, given_scale(columns, spec.scale[0])
    relu = seen.low >= 0
    channels = channels_of(choice.graph, choice.seen, name, below=0 if relu else 128, above=127)
    if channels is not None and name not in choice.carried:
        return _free(choice, name, columns, channels)
    if seen.peak == 0:
        return (spec := symmetric(seen, relu=relu, default=choice.default(node))), given_scale(columns, spec.scale[0])
    scale, layer = one_scale(columns, seen, relu=relu)
    return QuantSpec(8, signed=True, scale=(scale,)), layer


def _free(choice: _Choice, name: str, columns: Columns, channels: Any) -> tuple[QuantSpec, LayerPlan]:
    steps, layer = free_scales(columns, channels)
    axis = channel_axis(choice.graph, name)
    return QuantSpec(8, signed=True, scale=tuple(float(s) for s in steps), axis=axis), layer


def _layer(choice: _Choice, node: Node) -> LayerPlan:
    """Weight scales, and the converter's range where there is one."""
    source, out = choice.values[node.inputs[0]], choice.values[node.output]
    fixed = given_weights(choice.graph, node)
    if fixed is not None:
        scales = fixed.scale
    else:
        scales = weight_scales(choice.graph, choice.chip, node, source, out, cells=choice.errors)
    real = choice.real.get(node.name)
    if choice.kind == "exact" or real is None:
        return LayerPlan(weight_scale=scales)
    return adc_layer(choice.graph, choice.chip, node, source=source, real=real, scales=scales)
