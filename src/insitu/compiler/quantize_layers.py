"""Weight layers in integers: weights, bias, and the tables of the chip's readout (DESIGN 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError
from insitu.compiler.draft import Draft, activation_codes, is_weight_layer
from insitu.compiler.plan import LayerPlan, QuantPlan, unpacked
from insitu.graph.graph import Attr, Graph, Node
from insitu.numeric.affine import Floats, Ints, QuantSpec
from insitu.numeric.affine import quantize as codes_of
from insitu.numeric.readout import WTM_BIAS_UNIT
from insitu.numeric.slicing import slice_weights

Tables = Sequence[tuple[str, Ints | None]]
BIAS_LIMIT = 1 << 30  # column sums with their bias stay below 2^31


def weight_layer(draft: Draft, node: Node) -> None:
    """A Conv or MatMul with constant weights, or a product of two run-time matrices."""
    if not is_weight_layer(draft.graph, node):
        _product(draft, node)
        return
    layer, out = draft.plan.layers[node.name], draft.plan.values[node.output]
    w = np.asarray(draft.graph.constants[node.inputs[1]], np.float64)
    real, sx = effective_weight(w, draft.specs[node.inputs[0]], node)
    bias = np.asarray(draft.graph.constants[node.inputs[2]], np.float64)
    bias = bias + np.asarray(layer.bias) if layer.bias else bias
    draft.value(node.output, out)
    attrs = {k: v for k, v in node.attrs.items() if not k.startswith("act")} | activation_codes(node, out)
    write = {"wtm2101": _wtm2101, "exact": _exact, "adc": _adc}[draft.chip.macro.readout.kind]
    write(_Layer(draft, node, layer, real, sx, bias, out), attrs)


class _Layer:
    """One weight layer in real numbers: weights with the input's scales per channel in them, bias, scales."""

    def __init__(self, draft: Draft, node: Node, plan: LayerPlan, w: Floats, sx: float, bias: Floats, out: QuantSpec):
        self.draft, self.node, self.plan, self.w, self.sx, self.bias = draft, node, plan, w, sx, bias
        self.axis, self.columns = out_axis(node), w.shape[out_axis(node)]
        self.zero = draft.specs[node.inputs[0]].zero_point
        self.sy = np.broadcast_to(np.asarray(out.scale), (self.columns,))

    def sums(self, q: Ints) -> Ints:
        """Column sums of weight codes."""
        return q.sum(axis=tuple(i for i in range(q.ndim) if i != self.axis))

    def stored(self, sw: Floats) -> tuple[Ints, QuantSpec]:
        """Weight codes and their spec, for steps per column; a model's own codes as far as cells hold them."""
        spec = weight_spec(self.draft.chip, sw, self.axis)
        if self.given:
            return np.clip(codes_of(self.w, spec), *self.draft.chip.weight_range), spec
        return self.moved(weight_codes(self.w, spec, self.draft.chip), *self.draft.chip.weight_range), spec

    def moved(self, q: Ints, lo: int, hi: int) -> Ints:
        """Nearest weight codes and the steps that the plan takes from them."""
        if not self.plan.rounding:
            return q
        steps = unpacked(self.plan.rounding, self.columns)
        if steps.size != q.size:
            got = f"steps of {steps.size:,} weights"
            raise ConfigError(f"plan: layer {self.node.name}: rounding", got, f"one for each of {q.size:,}")
        return np.clip(q + (steps.reshape(q.shape) if self.axis == 0 else steps.T), lo, hi)

    @property
    def given(self) -> bool:
        """True where the weights are a model's own codes."""
        return self.draft.graph.types[self.node.inputs[1]].quant is not None

    def bias_steps(self, sw: Floats, q: Ints) -> Floats:
        """The bias in steps of sx * sw, input's zero point included; a model's own int32 codes exactly."""
        steps, own = self.bias / (self.sx * sw), self.draft.graph.types[self.node.inputs[2]].quant
        if own is not None and self.given:
            codes, scale = np.rint(self.bias / own.scales(1)), np.broadcast_to(np.asarray(own.scale), sw.shape)
            steps = np.where(np.isclose(scale, self.sx * sw, rtol=1e-5, atol=0), codes, steps)
        return np.asarray(steps - self.zero * self.sums(q), np.float64)

    def limited(self, bias: Floats, q: Ints) -> Floats:
        """A bias with which no sum leaves int32."""
        if not self.given:
            return np.clip(bias, -BIAS_LIMIT, BIAS_LIMIT - 1)
        spec = self.draft.specs[self.node.inputs[0]]
        rest = BIAS_LIMIT * 2.0 - 1 - self.sums(np.abs(q)) * max(-spec.lo, spec.hi)
        return np.clip(bias, -rest, rest)

    def emit(
        self,
        attrs: dict[str, Attr],
        *,
        q: Ints,
        spec: QuantSpec,
        bias: npt.NDArray[Any],
        tables: Sequence[tuple[str, Ints | None]],
    ) -> None:
        """Append the node with its constants."""
        draft, name = self.draft, self.node.name
        small = q.min(initial=0) >= -128 and q.max(initial=0) <= 127
        weight = draft.constant(f"{name}.weight", q.astype(np.int8 if small else np.int16), spec)
        inputs = [self.node.inputs[0], weight, draft.constant(f"{name}.bias", bias.astype(np.int64))]
        for suffix, table in tables:
            inputs.append("" if table is None else draft.constant(f"{name}.{suffix}", np.ascontiguousarray(table)))
        draft.add(self.node, inputs=[inputs[0], *self._shared(inputs[1:])], attrs=attrs)

    def _shared(self, names: list[str]) -> list[str]:
        """The constants of another layer with the same float weights, where they have become the same integers."""
        draft = self.draft
        known = draft.layers.setdefault(self.node.inputs[1], names)
        same = len(known) == len(names) and all(bool(a) == bool(b) for a, b in zip(known, names, strict=True))
        if known is names or not same:
            return names
        pairs = [(a, b) for a, b in zip(known, names, strict=True) if a]
        equal = all(np.array_equal(draft.constants[a], draft.constants[b]) for a, b in pairs)
        return known if equal and all(draft.types[a] == draft.types[b] for a, b in pairs) else names


def _exact(layer: _Layer, attrs: dict[str, Attr]) -> None:
    sw = np.broadcast_to(np.asarray(layer.plan.weight_scale, np.float64), (layer.columns,))
    q, spec = layer.stored(sw)
    bias = layer.limited(np.rint(layer.bias_steps(sw, q)), q)
    m, r = layer.draft.tables(layer.sx * sw / layer.sy)
    layer.emit(attrs | {"readout": "exact"}, q=q, spec=spec, bias=bias, tables=(("multiplier", m), ("shift", r)))


def _adc(layer: _Layer, attrs: dict[str, Attr]) -> None:
    """The bias joins behind the converter, in its steps."""
    macro, chip, (adc_m, adc_s) = layer.draft.chip.macro, layer.draft.chip, layer.plan.adc
    sw = np.broadcast_to(np.asarray(layer.plan.weight_scale, np.float64), (layer.columns,))
    q, spec = layer.stored(sw)
    step = 2.0**adc_s / adc_m
    bias = np.rint(layer.bias_steps(sw, q) / step)
    m, r = layer.draft.tables(step * layer.sx * sw / layer.sy)
    attrs |= {"readout": "adc", "adc_bits": macro.readout.bits, "adc_signed": macro.readout.signed}
    attrs |= {"adc_m": adc_m, "adc_s": adc_s, "parts": layer.plan.parts}
    attrs |= {"input_bits": macro.input.bits, "plane_bits": macro.input.bits_per_pass}
    attrs |= {"input_signed": macro.input.signed, "weight_bits": stored_bits(chip)}
    attrs |= {"slice_bits": slice_bits(chip)}
    if macro.weights.apart:
        attrs["slice_shift"] = macro.weights.apart
    if macro.weights.encoding == "offset_column" and len(chip.slice_bits) > 1:
        attrs["slice_offset"] = 1
    bias = np.clip(bias, -BIAS_LIMIT, BIAS_LIMIT - 1)
    layer.emit(attrs, q=q, spec=spec, bias=bias, tables=(("multiplier", m), ("shift", r)))


def _wtm2101(layer: _Layer, attrs: dict[str, Attr]) -> None:
    """The weight step follows from gain and scales; the bias is 128 times a sum of cells."""
    chip, plan, unit = layer.draft.chip, layer.plan, WTM_BIAS_UNIT
    lo, hi = chip.array.cell_range
    gain = np.broadcast_to(np.asarray(plan.gain, np.int64), (layer.columns,))
    zero, sx = (layer.zero << plan.input_shift) + plan.input_offset, layer.sx / 2**plan.input_shift
    sw = layer.sy / (gain * sx)
    q = np.clip(np.rint(layer.w / _per_channel(sw, layer.w.ndim, layer.axis)), lo, hi).astype(np.int64)
    q = layer.moved(q, lo, hi)
    limit = (plan.bias_rows or chip.macro.bias_rows) * hi
    bias = np.clip(np.rint((layer.bias / (sx * sw) - zero * layer.sums(q)) / unit), -limit, limit) * unit
    attrs |= {"readout": "wtm2101", "input_shift": plan.input_shift, "input_offset": plan.input_offset}
    attrs |= {"parts": plan.parts, "k": plan.k}
    spec = QuantSpec(10, signed=True, scale=tuple(float(s) for s in sw), axis=layer.axis)
    layer.emit(attrs, q=q, spec=spec, bias=bias, tables=(("", None), ("", None), ("gain", gain)))


def _product(draft: Draft, node: Node) -> None:
    """A product of two run-time matrices."""
    a, b = (draft.specs[v] for v in node.inputs[:2])
    spec = draft.plan.values[node.output]
    draft.value(node.output, spec)
    ratio = a.scale[0] * b.scale[0] / spec.scale[0]
    draft.add(node, inputs=node.inputs[:2], attrs=activation_codes(node, spec) | draft.scaling(ratio))


def effective_weight(w: Floats, spec: QuantSpec, node: Node) -> tuple[Floats, float]:
    """(weights with the input's scales per channel absorbed, the reference input scale)."""
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


def weight_rows(w: npt.NDArray[Any], node: Node) -> npt.NDArray[Any]:
    """Weights as [outputs, rows], rows in the order of the patch."""
    return np.moveaxis(w, out_axis(node), 0).reshape(w.shape[out_axis(node)], -1)


def _per_channel(values: npt.NDArray[Any], ndim: int, axis: int) -> npt.NDArray[Any]:
    shape = [1] * ndim
    shape[axis] = -1
    return np.asarray(values).reshape(shape)


def weight_magnitude_bits(chip: Chip) -> int:
    """Bits of the largest weight's magnitude."""
    return weight_limit(chip).bit_length()


def stored_bits(chip: Chip) -> int:
    """Bits that the slices of a weight hold: its magnitude, with an offset column a code that has the sign in it.

    Two's complement lies from the bottom up, in whole slices; of slices with a shift of their own all bits count.
    """
    if chip.macro.weights.apart:
        return chip.macro.weights.slices * slice_bits(chip)
    magnitude = weight_magnitude_bits(chip)
    match chip.macro.weights.encoding:
        case "offset_column":
            return magnitude + 1
        case "twos_complement":
            return -(-magnitude // slice_bits(chip)) * slice_bits(chip)
        case _:
            return magnitude


def slice_bits(chip: Chip) -> int:
    """Bits of one weight slice (all of the magnitude when one cell holds a weight)."""
    return 16 if chip.macro.weights.slices == 1 else chip.array.bits_per_cell


def sliced_codes(codes: Ints, chip: Chip) -> list[tuple[int, Ints]]:
    """[(shift, digits)] of weight codes in the chip's cells."""
    own = chip.macro.weights
    cut: dict[str, Any] = {"shift": own.apart, "offset": own.encoding == "offset_column"}
    return slice_weights(codes, bits=stored_bits(chip), step=slice_bits(chip), **cut)


def weight_limit(chip: Chip) -> int:
    """Largest weight code: symmetric, so that no code is without its negative."""
    return min(-chip.weight_range[0], chip.weight_range[1])


def weight_spec(chip: Chip, scale: Floats, axis: int) -> QuantSpec:
    """The spec of stored weights: signed, per output channel."""
    return QuantSpec(weight_magnitude_bits(chip) + 1, signed=True, scale=tuple(float(s) for s in scale), axis=axis)


def weight_codes(w: Floats, spec: QuantSpec, chip: Chip) -> Ints:
    """Weights as codes within the chip's symmetric range."""
    return np.clip(codes_of(w, spec), -weight_limit(chip), weight_limit(chip))


def quantize_layer(graph: Graph, chip: Chip, node: Node, *, plan: QuantPlan, source: QuantSpec) -> Draft:
    """One weight layer alone, for an input spec: a draft that holds its node and constants."""
    draft = Draft(graph, chip, plan, specs={node.inputs[0]: source})
    weight_layer(draft, node)
    return draft
