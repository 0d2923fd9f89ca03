"""Apply a QuantPlan: a captured graph becomes a quantized one with integer meaning (DESIGN 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.errors import InternalError
from insitu.compiler.plan import LayerPlan, QuantPlan
from insitu.graph.graph import Attr, Graph, Node, const_type
from insitu.graph.types import TensorType, integer_dtype
from insitu.numeric.affine import Floats, Ints, QuantSpec, multiplier_of
from insitu.numeric.affine import quantize as codes_of
from insitu.numeric.functions import softmax_table
from insitu.numeric.readout import WTM_BIAS_UNIT

PASS_THROUGH = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Pad", "Concat", "MaxPool")
SOFTMAX_SPEC = QuantSpec(8, signed=False, scale=(1 / 256,))
CONSTANT_BITS = 16  # constants of elementwise operators


@dataclass
class _Draft:
    """The quantized graph while it is written."""

    graph: Graph
    chip: Chip
    plan: QuantPlan
    specs: dict[str, QuantSpec] = field(default_factory=dict[str, QuantSpec])
    nodes: list[Node] = field(default_factory=list[Node])
    types: dict[str, TensorType] = field(default_factory=dict[str, TensorType])
    constants: dict[str, npt.NDArray[Any]] = field(default_factory=dict[str, npt.NDArray[Any]])

    @property
    def power_of_two(self) -> bool:
        return self.chip.capabilities.scales == "power_of_two"

    def value(self, name: str, spec: QuantSpec, *, shape: tuple[int | str, ...] | None = None) -> None:
        """Declare a value with its spec."""
        shape = self.graph.type(name).shape if shape is None else shape
        self.specs[name] = spec
        self.types[name] = TensorType(shape, integer_dtype(spec.bits, signed=spec.signed), spec)

    def constant(self, name: str, array: npt.NDArray[Any], quant: QuantSpec | None = None) -> str:
        """Declare a constant; returns its name."""
        self.constants[name] = array
        self.types[name] = replace(const_type(array), quant=quant)
        return name

    def add(self, node: Node, *, inputs: Iterable[str], attrs: dict[str, Attr], op: str = "") -> None:
        self.nodes.append(Node(node.name, op or node.op, tuple(inputs), node.outputs[:1], attrs))


def quantize(graph: Graph, chip: Chip, *, plan: QuantPlan) -> Graph:
    """The quantized graph of a canonical captured graph; integers decided by `plan` alone."""
    draft = _Draft(graph, chip, plan)
    for name in (*graph.inputs, *graph.state_inputs):
        draft.value(name, plan.values[name])
    for node in graph.nodes:
        rule = RULES.get(node.op)
        if rule is None:
            raise InternalError(node.name, f"operator {node.op}", "an operator with a quantization rule")
        rule(draft, node)
    result = replace(graph, level="quantized", nodes=tuple(draft.nodes), types=draft.types, constants=draft.constants)
    return result.with_nodes(result.nodes)


def activation_codes(node: Node, spec: QuantSpec) -> dict[str, Attr]:
    """Lo and hi of a node's output codes: the spec's range narrowed by a fused activation."""
    scale = max(spec.scale)
    low, high = float(node.attr("act_lo", -np.inf)), float(node.attr("act_hi", np.inf))
    lo = spec.lo if low == -np.inf else max(spec.lo, min(spec.hi, round(low / scale) + spec.zero_point))
    hi = spec.hi if high == np.inf else min(spec.hi, max(lo, round(high / scale) + spec.zero_point))
    return {"lo": lo, "hi": hi, "rounding": "half_even"}


def effective_weight(w: Floats, spec: QuantSpec, node: Node) -> tuple[Floats, float]:
    """(weights with per-channel input scales absorbed, the reference input scale)."""
    reference = max(spec.scale)
    if spec.axis is None:
        return w, reference
    ratio = np.asarray(spec.scale) / reference
    if node.op == "MatMul":
        return w * ratio[:, None], reference
    group, (out, each) = int(node.attr("group", 1)), w.shape[:2]
    per_out = ratio.reshape(group, each)[np.arange(out) // (out // group)]
    return w * per_out.reshape(out, each, *(1,) * (w.ndim - 2)), reference


def out_axis(node: Node) -> int:
    """The axis of a weight constant that counts output channels."""
    return 0 if node.op == "Conv" else 1


def _per_channel(values: npt.NDArray[Any], ndim: int, axis: int) -> npt.NDArray[Any]:
    shape = [1] * ndim
    shape[axis] = -1
    return np.asarray(values).reshape(shape)


def _weight_layer(draft: _Draft, node: Node) -> None:
    if node.inputs[1] not in draft.graph.constants:
        return _product(draft, node)
    layer, x_spec, y_spec = draft.plan.layers[node.name], draft.specs[node.inputs[0]], draft.plan.values[node.output]
    w = np.asarray(draft.graph.constants[node.inputs[1]], np.float64)
    bias = np.asarray(draft.graph.constants[node.inputs[2]], np.float64)
    draft.value(node.output, y_spec)
    attrs = {k: v for k, v in node.attrs.items() if not k.startswith("act")} | activation_codes(node, y_spec)
    write = {"wtm2101": _wtm2101, "exact": _exact, "adc": _adc}[draft.chip.macro.readout.kind]
    write(draft, node, attrs, layer, *effective_weight(w, x_spec, node), bias, y_spec)


def _sum_over_rows(q: Ints, axis: int) -> Ints:
    return q.sum(axis=tuple(i for i in range(q.ndim) if i != axis))


def _bounded_scale(scale: npt.NDArray[Any], channels: int) -> Floats:
    scale = np.asarray(scale, np.float64)
    return np.broadcast_to(scale, (channels,)) if scale.size == 1 else scale


def _exact(
    draft: _Draft,
    node: Node,
    attrs: dict[str, Attr],
    layer: LayerPlan,
    w: Floats,
    sx: float,
    bias: Floats,
    out: QuantSpec,
) -> None:
    axis = out_axis(node)
    zero = draft.specs[node.inputs[0]].zero_point
    sw = _bounded_scale(np.asarray(layer.weight_scale), w.shape[axis])
    spec = weight_spec(draft.chip, sw, axis)
    q = weight_codes(w, spec, draft.chip)
    b = np.clip(np.rint(bias / (sx * sw)), -(1 << 30), (1 << 30) - 1).astype(np.int64) - zero * _sum_over_rows(q, axis)
    m, r = multiplier_of(sx * sw / _bounded_scale(np.asarray(out.scale), len(sw)), power_of_two=draft.power_of_two)
    _emit_layer(draft, node, attrs | {"readout": "exact"}, q=q, spec=spec, bias=b, tables=(m, r))


def _adc(
    draft: _Draft,
    node: Node,
    attrs: dict[str, Attr],
    layer: LayerPlan,
    w: Floats,
    sx: float,
    bias: Floats,
    out: QuantSpec,
) -> None:
    axis, chip = out_axis(node), draft.chip
    zero = draft.specs[node.inputs[0]].zero_point
    sw = _bounded_scale(np.asarray(layer.weight_scale), w.shape[axis])
    spec = weight_spec(chip, sw, axis)
    q = weight_codes(w, spec, chip)
    step = 2.0 ** layer.adc[1] / layer.adc[0]
    b = np.rint((np.clip(bias / (sx * sw), -(1 << 30), (1 << 30) - 1) - zero * _sum_over_rows(q, axis)) / step).astype(
        np.int64
    )
    m, r = multiplier_of(
        step * sx * sw / _bounded_scale(np.asarray(out.scale), len(sw)), power_of_two=draft.power_of_two
    )
    macro = chip.macro
    attrs |= {
        "readout": "adc",
        "adc_bits": macro.readout.bits,
        "adc_signed": macro.readout.signed,
        "adc_m": layer.adc[0],
        "adc_s": layer.adc[1],
    }
    attrs |= {
        "parts": layer.parts,
        "input_bits": macro.input.bits,
        "plane_bits": macro.input.bits_per_pass,
        "input_signed": macro.input.signed,
    }
    attrs |= {"weight_bits": weight_magnitude_bits(chip), "slice_bits": slice_bits(chip)}
    _emit_layer(draft, node, attrs, q=q, spec=spec, bias=b, tables=(m, r))


def _wtm2101(
    draft: _Draft,
    node: Node,
    attrs: dict[str, Attr],
    layer: LayerPlan,
    w: Floats,
    sx: float,
    bias: Floats,
    out: QuantSpec,
) -> None:
    axis, chip = out_axis(node), draft.chip
    lo, hi = chip.array.cell_range
    zero = (draft.specs[node.inputs[0]].zero_point << layer.input_shift) + layer.input_offset
    sx = sx / 2**layer.input_shift
    gain = np.broadcast_to(np.asarray(layer.gain, np.int64), (w.shape[axis],))
    sw = _bounded_scale(np.asarray(out.scale), len(gain)) / (gain * sx)
    q = np.clip(np.rint(w / _per_channel(sw, w.ndim, axis)), lo, hi).astype(np.int64)
    unit = WTM_BIAS_UNIT
    limit = chip.macro.bias_rows * hi
    b = (
        np.clip(np.rint((bias / (sx * sw) - zero * _sum_over_rows(q, axis)) / unit), -limit, limit).astype(np.int64)
        * unit
    )
    attrs |= {
        "readout": "wtm2101",
        "input_shift": layer.input_shift,
        "input_offset": layer.input_offset,
        "parts": layer.parts,
        "k": layer.k,
    }
    spec = QuantSpec(10, signed=True, scale=tuple(float(s) for s in sw), axis=axis)
    _emit_layer(draft, node, attrs, q=q, spec=spec, bias=b, tables=None, gain=gain)


def _emit_layer(
    draft: _Draft,
    node: Node,
    attrs: dict[str, Attr],
    *,
    q: Ints,
    spec: QuantSpec,
    bias: Ints,
    tables: tuple[Ints, Ints] | None,
    gain: Ints | None = None,
) -> None:
    name = node.name
    stored = q.astype(np.int8) if q.min() >= -128 and q.max() <= 127 else q.astype(np.int16)
    inputs = [node.inputs[0], draft.constant(f"{name}.weight", stored, spec), draft.constant(f"{name}.bias", bias)]
    if tables is not None:
        inputs += [draft.constant(f"{name}.multiplier", tables[0]), draft.constant(f"{name}.shift", tables[1])]
    else:
        assert gain is not None
        inputs += ["", "", draft.constant(f"{name}.gain", np.ascontiguousarray(gain))]
    draft.add(node, inputs=inputs, attrs=attrs)


def weight_magnitude_bits(chip: Chip) -> int:
    """Bits of the largest weight's magnitude."""
    return weight_limit(chip).bit_length()


def slice_bits(chip: Chip) -> int:
    """Bits of one weight slice (all of the magnitude when one cell holds a weight)."""
    return 16 if chip.macro.weights.slices == 1 else chip.array.bits_per_cell


def weight_limit(chip: Chip) -> int:
    """Largest weight code: symmetric, so that no code is without its negative."""
    return min(-chip.weight_range[0], chip.weight_range[1])


def weight_spec(chip: Chip, scale: Floats, axis: int) -> QuantSpec:
    """The spec of stored weights: signed, per output channel."""
    return QuantSpec(weight_magnitude_bits(chip) + 1, signed=True, scale=tuple(float(s) for s in scale), axis=axis)


def weight_codes(w: Floats, spec: QuantSpec, chip: Chip) -> Ints:
    """Weights as codes within the chip's symmetric range."""
    return np.clip(codes_of(w, spec), -weight_limit(chip), weight_limit(chip))


def _product(draft: _Draft, node: Node) -> None:
    """A product of two run-time matrices."""
    a, b = (draft.specs[v] for v in node.inputs[:2])
    spec = draft.plan.values[node.output]
    draft.value(node.output, spec)
    m, r = multiplier_of(a.scale[0] * b.scale[0] / spec.scale[0], power_of_two=draft.power_of_two)
    draft.add(
        node,
        inputs=node.inputs[:2],
        attrs={**activation_codes(node, spec), "multiplier": int(m[0]), "shift": int(r[0])},
    )


def _operand(draft: _Draft, node: Node, index: int) -> str:
    """An input of an elementwise operator; a constant is quantized to 16 bits on the way."""
    name = node.inputs[index]
    if name not in draft.graph.constants:
        return name
    real = np.asarray(draft.graph.constants[name], np.float64)
    peak = float(np.abs(real).max(initial=0.0)) or 1.0
    scale = peak / ((1 << (CONSTANT_BITS - 1)) - 1)
    if draft.power_of_two:
        scale = 2.0 ** np.ceil(np.log2(scale))
    spec = QuantSpec(CONSTANT_BITS, signed=True, scale=(scale,))
    own = f"{node.name}.constant{index}"
    draft.specs[own] = spec
    return draft.constant(own, codes_of(real, spec).astype(np.int16), spec)


def _add(draft: _Draft, node: Node) -> None:
    names = [_operand(draft, node, i) for i in (0, 1)]
    spec = draft.plan.values[node.output]
    draft.value(node.output, spec)
    ratios = np.array([draft.specs[n].scale[0] / spec.scale[0] for n in names])
    scales, shift = add_scales(ratios, power_of_two=draft.power_of_two)
    attrs = activation_codes(node, spec) | {"scale_a": scales[0], "scale_b": scales[1], "multiplier": 1, "shift": shift}
    draft.add(node, inputs=names, attrs=attrs)


def add_scales(ratios: npt.NDArray[np.float64], *, power_of_two: bool) -> tuple[tuple[int, int], int]:
    """Integer factors of both addends and a common shift: a*A + b*B over 2**shift; 15 bits, or powers of two."""
    if power_of_two:
        exponents = np.rint(np.log2(ratios)).astype(int)
        shift = max(0, -int(exponents.min()))
        return (1 << int(exponents[0] + shift), 1 << int(exponents[1] + shift)), shift
    shift = max(0, 14 - int(np.ceil(np.log2(ratios.max()))))
    factors = np.rint(ratios * 2.0**shift).astype(int)
    return (int(factors[0]), int(factors[1])), shift


def _mul(draft: _Draft, node: Node) -> None:
    names = [_operand(draft, node, i) for i in (0, 1)]
    spec = draft.plan.values[node.output]
    draft.value(node.output, spec)
    ratio = draft.specs[names[0]].scale[0] * draft.specs[names[1]].scale[0] / spec.scale[0]
    m, r = multiplier_of(ratio, power_of_two=draft.power_of_two)
    draft.add(node, inputs=names, attrs=activation_codes(node, spec) | {"multiplier": int(m[0]), "shift": int(r[0])})


def _rescale(draft: _Draft, node: Node) -> None:
    """A clip that could not be fused: requantize into its own range."""
    name = node.inputs[0]
    spec = draft.plan.values[node.output]
    draft.value(node.output, spec)
    bounds = {"Relu": (0.0, np.inf)}.get(node.op) or (node.attr("lo", -np.inf), node.attr("hi", np.inf))
    clipped = replace(node, attrs={**node.attrs, "act_lo": bounds[0], "act_hi": bounds[1]})
    m, r = multiplier_of(draft.specs[name].scale[0] / spec.scale[0], power_of_two=draft.power_of_two)
    draft.add(
        node,
        inputs=[name],
        attrs=activation_codes(clipped, spec) | {"multiplier": int(m[0]), "shift": int(r[0])},
        op="Requantize",
    )


def _average(draft: _Draft, node: Node) -> None:
    spec = draft.plan.values[node.output]
    draft.value(node.output, spec)
    counts = window_counts(node, draft.graph)
    even = bool(counts.min() == counts.max())  # else border windows divide by fewer, and each output has a multiplier
    ratio = draft.specs[node.inputs[0]].scale[0] / (spec.scale[0] * counts.min())
    m, r = multiplier_of(ratio, power_of_two=draft.power_of_two and even)
    if not even:
        room = np.minimum(31 - np.int64(int(m[0]).bit_length()), 62 - r)
        m, r = m << room, r + room
    attrs = {k: v for k, v in node.attrs.items() if not k.startswith("act")}
    attrs |= activation_codes(node, spec) | {"multiplier": int(m[0]), "shift": int(r[0])}
    inputs = [node.inputs[0]]
    if not even:
        table = np.rint(int(m[0]) * counts.min() / counts).astype(np.int64)
        inputs.append(draft.constant(f"{node.name}.multiplier", table))
    draft.add(node, inputs=inputs, attrs=attrs)


def window_counts(node: Node, graph: Graph) -> npt.NDArray[np.int64]:
    """How many elements each output of an average pools, [1] or [*out]."""
    shape = graph.type(node.inputs[0]).sizes()
    if node.op == "ReduceMean":
        return np.array([int(np.prod([shape[a] for a in node.attr("axes")]))])
    kernel = tuple(node.attr("kernel_shape"))
    if bool(node.attr("count_include_pad", 0)) or not any(node.attr("pads", (0,))):
        return np.array([int(np.prod(kernel))])
    from insitu.graph.ops.mvm import patches

    ones = np.ones((1, 1, 1, *shape[2:]), np.int64)
    windows = patches(ones, node, kernel=kernel, pad_value=0)
    return windows.sum(axis=tuple(range(-len(kernel), 0)))[0, 0, ..., 0]


def _softmax(draft: _Draft, node: Node) -> None:
    draft.value(node.output, SOFTMAX_SPEC)
    source = draft.specs[node.inputs[0]]
    table = draft.constant(f"{node.name}.table", softmax_table(source.scale[0], 1 << source.bits))
    attrs: dict[str, Attr] = {"axis": node.attr("axis", -1), "lo": SOFTMAX_SPEC.lo, "hi": SOFTMAX_SPEC.hi}
    draft.add(node, inputs=[node.inputs[0], table], attrs=attrs)


def _move(draft: _Draft, node: Node) -> None:
    """Operators that move codes: inputs and output share one spec."""
    data = [v for v in node.inputs if v and v not in draft.graph.constants]
    spec = draft.plan.values[node.output] if node.op == "Concat" else draft.specs[data[0]]
    draft.value(node.output, spec)
    attrs = dict(node.attrs)
    if node.op == "Pad":
        attrs["code"] = int(codes_of(np.array(float(node.attr("value", 0.0))), spec))
    names = [_aligned(draft, node, v, spec) for v in (node.inputs if node.op == "Concat" else data[:1])]
    draft.add(node, inputs=names, attrs=attrs)


def _aligned(draft: _Draft, node: Node, name: str, spec: QuantSpec) -> str:
    """`name` in the codes of `spec`, through a Requantize where it has others."""
    if name in draft.graph.constants:
        own = f"{node.name}.{name}"
        draft.specs[own] = spec
        return draft.constant(own, codes_of(np.asarray(draft.graph.constants[name]), spec).astype(np.int16), spec)
    if draft.specs[name] == spec:
        return name
    fresh = f"{node.name}.{name}"
    draft.value(fresh, spec, shape=draft.graph.type(name).shape)
    m, r = multiplier_of(draft.specs[name].scale[0] / spec.scale[0], power_of_two=draft.power_of_two)
    attrs: dict[str, Attr] = {
        "multiplier": int(m[0]),
        "shift": int(r[0]),
        "lo": spec.lo,
        "hi": spec.hi,
        "rounding": "half_even",
    }
    draft.nodes.append(Node(fresh, "Requantize", (name,), (fresh,), attrs))
    return fresh


Rule = Callable[[_Draft, Node], None]
RULES: dict[str, Rule] = {
    "Conv": _weight_layer, "MatMul": _weight_layer, "Add": _add, "Mul": _mul, "Relu": _rescale, "Clip": _rescale,
    "AveragePool": _average, "ReduceMean": _average, "Softmax": _softmax, **dict.fromkeys(PASS_THROUGH, _move),
}  # fmt: skip
