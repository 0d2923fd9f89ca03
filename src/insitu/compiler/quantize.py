"""Apply a QuantPlan: a captured graph becomes a quantized one with integer meaning (DESIGN 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.errors import InternalError
from insitu.compiler import quantize_general as general
from insitu.compiler.draft import MOVES, Draft, activation_codes, follow
from insitu.compiler.plan import QuantPlan
from insitu.compiler.quantize_layers import weight_layer
from insitu.graph.graph import Attr, Graph, Node, State
from insitu.graph.ops.lut import full_table
from insitu.graph.ops.mvm import patches
from insitu.graph.types import integer_dtype
from insitu.numeric.affine import QuantSpec, dequantize, requantize
from insitu.numeric.affine import quantize as codes_of
from insitu.numeric.curves import evaluate
from insitu.numeric.functions import SOFTMAX_ONE, softmax_table

SOFTMAX_SPEC = QuantSpec(8, signed=False, scale=(1 / 256,))


def softmax_spec(node: Node) -> QuantSpec:
    """Shares of 1 in as many bits as a Softmax writes."""
    bits = int(node.attr("bits", 8))
    return QuantSpec(bits, signed=False, scale=(2.0**-bits,))


CONSTANT_BITS = 16  # constants of elementwise operators
FACTOR_BITS = 15  # integer factors of an Add
TABLE_BITS = 20  # of the largest multiplier where every channel of an elementwise result has its own
GIVEN_CONSTANT = 20  # the first where the scales are a model's, whose float arithmetic has 24 bits
GIVEN_BITS = 30  # the second, likewise
SOFTMAX_FINE = 22  # bits of the exponentials and of the factor of a Softmax with a model's scale


def quantize(graph: Graph, chip: Chip, *, plan: QuantPlan) -> Graph:
    """The quantized graph of a canonical captured graph; integers decided by `plan` alone."""
    draft = Draft(graph, chip, plan)
    for name in (*graph.inputs, *graph.state_inputs):
        if name in plan.values:
            draft.value(name, plan.values[name])
        else:
            draft.types[name] = graph.types[name]
    for node in graph.nodes:
        plain = node.op not in ("Host", "Gather", "Scatter") and node.outputs and node.output not in plan.values
        rule = general.plain if plain else RULES.get(node.op)
        if rule is None:
            raise InternalError(node.name, f"operator {node.op}", "an operator with a quantization rule")
        rule(draft, node)
    states = tuple(State(s.input, _next_state(draft, s)) for s in graph.states)
    result = replace(
        graph,
        level="quantized",
        nodes=tuple(draft.nodes),
        types=draft.types,
        constants=draft.constants,
        states=states,
    )
    return result.with_nodes(result.nodes)


def _next_state(draft: Draft, state: State) -> str:
    """The value carried to the next step, in the codes of the state it becomes."""
    wanted = draft.specs[state.input]
    if state.output in draft.graph.constants:
        return _constant(draft, f"{state.output}.next", draft.graph.constants[state.output], wanted)
    return _aligned(draft, state.output, wanted, f"{state.output}.next")


# elementwise


def _operand(draft: Draft, node: Node, index: int) -> str:
    """An input of an elementwise operator; a constant is quantized to 16 bits on the way."""
    name = node.inputs[index]
    if name not in draft.graph.constants:
        return name
    real, given = np.asarray(draft.graph.constants[name], np.float64), draft.graph.types[name].quant
    if given is not None and given.bits <= CONSTANT_BITS and given.axis is None and not draft.power_of_two:
        return _constant(draft, f"{node.name}.constant{index}", real, given)
    bits = GIVEN_CONSTANT if _given(draft, node) else CONSTANT_BITS
    step = (float(np.abs(real).max(initial=0.0)) or 1.0) / ((1 << (bits - 1)) - 1)
    if draft.power_of_two:  # a power of two away from what makes the result's scale one
        unit = _unit(draft, node, 1 - index)
        step = unit * 2.0 ** np.ceil(np.log2(step / unit))
    return _constant(draft, f"{node.name}.constant{index}", real, QuantSpec(bits, signed=True, scale=(float(step),)))


def _unit(draft: Draft, node: Node, other: int) -> float:
    """The scale of a constant with which an operator on it and input `other` is a pure shift."""
    out, value = draft.plan.values[node.output].scale[0], node.inputs[other]
    return out if node.op in ("Add", "Sub") or value in draft.graph.constants else out / draft.specs[value].scale[0]


def _add(draft: Draft, node: Node) -> None:
    names = [_operand(draft, node, i) for i in (0, 1)]
    spec = draft.plan.values[node.output]
    draft.value(node.output, spec)
    ratios = np.array([draft.specs[n].scale[0] / min(spec.scale) for n in names])
    bits = GIVEN_BITS if _given(draft, node) else FACTOR_BITS
    scales, shift = add_scales(ratios, power_of_two=draft.power_of_two, bits=bits)
    second = -scales[1] if node.op == "Sub" else scales[1]
    attrs = activation_codes(node, spec) | {"scale_a": scales[0], "scale_b": second, "multiplier": 1, "shift": shift}
    if spec.axis is not None:
        table, more = _per_channel(draft, node, spec, 2.0**-shift)
        names, attrs = [*names, table], attrs | more
    draft.add(node, inputs=names, attrs=attrs, op="Add")


def _per_channel(draft: Draft, node: Node, spec: QuantSpec, ratio: float) -> tuple[str, dict[str, Attr]]:
    """(table of multipliers shaped against the output, their largest and the shift) for scales per channel.

    `ratio` is that of the finest scale; the largest multiplier has TABLE_BITS, with which float64 holds any product.
    """
    assert spec.axis is not None
    rank = draft.graph.type(node.output).rank
    shares = min(spec.scale) / spec.scales(rank)
    shares = shares.reshape(shares.shape[spec.axis % rank :])
    shift = int(np.clip(TABLE_BITS - 1 - np.floor(np.log2(ratio)), 0, 62))
    table = np.rint(np.clip(shares * ratio * 2.0**shift, 0, (1 << 31) - 1)).astype(np.int64)
    name = draft.constant(f"{node.name}.multiplier", table)
    return name, {"multiplier": int(table.max()), "shift": shift}


def _given(draft: Draft, node: Node) -> bool:
    """True for an operator whose result has a scale of its model."""
    return draft.graph.types[node.output].quant is not None


def add_scales(
    ratios: npt.NDArray[np.float64], *, power_of_two: bool, bits: int = FACTOR_BITS
) -> tuple[tuple[int, int], int]:
    """Integer factors of both addends and a common shift: a*A + b*B over 2**shift; `bits` bits, or powers of two.

    An addend 2**-30 of the other's step counts as 2**-30; one above 2**15 output steps is at its bound anyway.
    """
    ratios = np.clip(ratios, max(2.0**-30, float(ratios.max()) * 2.0**-30), 2.0**FACTOR_BITS)
    if power_of_two:
        exponents = np.rint(np.log2(ratios)).astype(int)
        shift = max(0, -int(exponents.min()))
        return (1 << int(exponents[0] + shift), 1 << int(exponents[1] + shift)), shift
    shift = max(0, bits - 1 - int(np.ceil(np.log2(ratios.max()))))
    factors = np.rint(ratios * 2.0**shift).astype(int)
    return (int(factors[0]), int(factors[1])), shift


def _mul(draft: Draft, node: Node) -> None:
    names = [_operand(draft, node, i) for i in (0, 1)]
    spec = draft.plan.values[node.output]
    draft.value(node.output, spec)
    ratio = draft.specs[names[0]].scale[0] * draft.specs[names[1]].scale[0] / min(spec.scale)
    attrs = activation_codes(node, spec)
    if spec.axis is None:
        return draft.add(node, inputs=names, attrs=attrs | draft.scaling(ratio))
    table, more = _per_channel(draft, node, spec, ratio)
    return draft.add(node, inputs=[*names, table], attrs=attrs | more)


def _rescale(draft: Draft, node: Node) -> None:
    """A clip that could not be fused: requantize into its own range."""
    name, spec = node.inputs[0], draft.plan.values[node.output]
    draft.value(node.output, spec)
    bounds = {"Relu": (0.0, np.inf)}.get(node.op) or (node.attr("lo", -np.inf), node.attr("hi", np.inf))
    clipped = replace(node, attrs={**node.attrs, "act_lo": bounds[0], "act_hi": bounds[1]})
    attrs = activation_codes(clipped, spec) | draft.scaling(draft.specs[name].scale[0] / spec.scale[0])
    if _given(draft, node) and (table := recoded(draft.specs[name], spec, attrs)) is not None:
        table_name = draft.constant(f"{node.name}.table", table)
        return draft.add(node, inputs=[name, table_name], attrs={"lo": attrs["lo"], "hi": attrs["hi"]}, op="Lut")
    return draft.add(node, inputs=[name], attrs=attrs, op="Requantize")


def recoded(source: QuantSpec, spec: QuantSpec, attrs: Mapping[str, Attr]) -> npt.NDArray[np.int32] | None:
    """A table of what ONNX makes of every code, where its float32 rounds one otherwise than the integers here do."""
    if source.bits > 8 or source.axis is not None or spec.axis is not None:
        return None
    codes = np.arange(source.lo, source.hi + 1)
    wanted = np.clip(codes_of(dequantize(codes, source).astype(np.float32), spec), attrs["lo"], attrs["hi"])
    own = requantize(
        codes - source.zero_point, int(attrs["multiplier"]), int(attrs["shift"]),  # pyright: ignore[reportArgumentType]
        zero_point=spec.zero_point, lo=int(attrs["lo"]), hi=int(attrs["hi"]),  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    return None if np.array_equal(wanted, own) else np.roll(wanted, source.lo).astype(np.int32)


def _softmax(draft: Draft, node: Node) -> None:
    spec, source, fine = draft.plan.values[node.output], draft.specs[node.inputs[0]], _given(draft, node)
    draft.value(node.output, spec)
    ratio = 1 / (256 * spec.scale[0])  # of the table's own step to the output's
    fine = fine or spec.bits > 8
    bits = _softmax_bits(draft.graph.type(node.inputs[0]).shape[-1], ratio)
    one = 1 << bits if fine else SOFTMAX_ONE
    table = draft.constant(f"{node.name}.table", softmax_table(source.scale[0], 1 << source.bits, one=one))
    attrs: dict[str, Attr] = {"axis": node.attr("axis", -1), "lo": spec.lo, "hi": spec.hi}
    if ratio != 1.0:
        shift = bits - int(np.floor(np.log2(ratio)))
        attrs |= {"multiplier": int(np.rint(2.0**shift * ratio)), "shift": shift}
    draft.add(node, inputs=[node.inputs[0], table], attrs=attrs)


def _softmax_bits(width: int | str, ratio: float) -> int:
    """Bits of exponentials and factor with which their products and sums stay in 62 bits."""
    count = width if isinstance(width, int) else 1 << 16
    return min(SOFTMAX_FINE, (60 - count.bit_length() + int(np.floor(np.log2(ratio)))) // 2)


def _curve(draft: Draft, node: Node) -> None:
    """One table entry for every code; float32 on the way where a model's scales ask for ONNX's rounding."""
    spec, source = draft.plan.values[node.output], draft.specs[node.inputs[0]]
    draft.value(node.output, spec)
    kind = np.float32 if _given(draft, node) else np.float64
    real = evaluate(str(node.attr("expr")), dequantize(full_table(source), source).astype(kind)).astype(kind)
    table = codes_of(np.clip(real, -(2.0**40) * spec.scale[0], 2.0**40 * spec.scale[0]).astype(kind), spec)
    name = draft.constant(f"{node.name}.table", table.astype(np.int32))
    attrs: dict[str, Attr] = {"expr": str(node.attr("expr")), "lo": spec.lo, "hi": spec.hi}
    draft.add(node, inputs=[node.inputs[0], name], attrs=attrs, op="Lut")


# averages


def _average(draft: Draft, node: Node) -> None:
    """Sums over windows times 1 / count; the plan picks a scale that makes this a shift where it can."""
    spec = draft.plan.values[node.output]
    draft.value(node.output, spec)
    counts = window_counts(node, draft.graph)
    ratio = draft.specs[node.inputs[0]].scale[0] / spec.scale[0]
    attrs = {k: v for k, v in node.attrs.items() if not k.startswith("act") and k != "bits"}
    attrs |= activation_codes(node, spec)
    inputs = [node.inputs[0]]
    if counts.min() == counts.max():
        attrs |= draft.scaling(ratio / counts.max(), shifts=False)
    else:  # border windows divide by fewer: one multiplier per position, all with the largest's shift
        m, r = draft.tables(ratio / counts.min(), shifts=False)
        fine = min(30 - int(m[0]).bit_length(), 62 - int(r[0]))
        table = np.rint((int(m[0]) << max(fine, 0)) * (counts.min() / counts)).astype(np.int64)
        inputs.append(draft.constant(f"{node.name}.multiplier", table))
        attrs |= {"multiplier": int(table.max()), "shift": int(r[0]) + max(fine, 0)}
    draft.add(node, inputs=inputs, attrs=attrs)


def window_counts(node: Node, graph: Graph) -> npt.NDArray[np.int64]:
    """How many elements each output of an average pools, [1] or [*out]."""
    shape = graph.type(node.inputs[0]).shape
    if node.op == "ReduceMean":
        sizes = [shape[a] for a in node.attr("axes")]
        assert all(isinstance(s, int) for s in sizes), f"{node.name} averages over an open size"
        return np.array([int(np.prod([int(s) for s in sizes]))])
    kernel = tuple(node.attr("kernel_shape"))
    if bool(node.attr("count_include_pad", 0)) or not any(node.attr("pads", (0,))):
        return np.array([int(np.prod(kernel))])
    ones = np.ones((1, 1, 1, *graph.type(node.inputs[0]).sizes()[2:]), np.int64)
    windows = patches(ones, node, kernel=kernel, pad_value=0)
    return windows.sum(axis=tuple(range(-len(kernel), 0)))[0, 0, ..., 0]


# moves


def _move(draft: Draft, node: Node) -> None:
    """Operators that move codes: input and output share one spec, or its scales move along."""
    source = node.inputs[0]
    spec = follow(draft.graph, node, draft.specs[source])
    if spec is None:
        raise InternalError(node.name, "scales per channel that it cannot keep", "one scale for its input")
    draft.value(node.output, spec)
    attrs = dict(node.attrs)
    if node.op == "Pad":
        one = replace(spec, scale=spec.scale[:1], axis=None)
        attrs["code"] = int(codes_of(np.array(float(node.attr("value", 0.0))), one))
    draft.add(node, inputs=[source], attrs=attrs)


def _concat(draft: Draft, node: Node) -> None:
    """Inputs are brought into the output's codes."""
    spec = draft.plan.values[node.output]
    names: list[str] = []
    for place, value in enumerate(node.inputs):
        own = f"{node.name}.{place}"
        if value in draft.graph.constants:
            names.append(_constant(draft, own, draft.graph.constants[value], spec))
        else:
            names.append(_aligned(draft, value, spec, own))
    draft.value(node.output, spec)
    draft.add(node, inputs=names, attrs=dict(node.attrs))


def _scatter(draft: Draft, node: Node) -> None:
    """Entries of an axis replaced by new ones, which are brought into the codes of the rest."""
    x, index, new = node.inputs
    spec = draft.specs[x]
    draft.value(node.output, spec)
    names = [x, index, _aligned(draft, new, spec, f"{node.name}.new")]
    draft.add(node, inputs=names, attrs={"axis": node.attr("axis", 0)})


def _constant(draft: Draft, name: str, real: npt.NDArray[np.generic], spec: QuantSpec) -> str:
    kind = {"i8": np.int8, "u8": np.uint8, "i16": np.int16, "u16": np.uint16}
    dtype = kind.get(integer_dtype(spec.bits, signed=spec.signed), np.int32)
    return draft.constant(name, codes_of(real, spec).astype(dtype), spec)


def _aligned(draft: Draft, value: str, spec: QuantSpec, fresh: str) -> str:
    """`value` in the codes of `spec`, through a Requantize called `fresh` where it has others."""
    if draft.specs[value] == spec:
        return value
    draft.value(fresh, spec, shape=draft.types[value].shape)
    attrs: dict[str, Attr] = {"lo": spec.lo, "hi": spec.hi, "rounding": "half_even"}
    attrs |= draft.scaling(draft.specs[value].scale[0] / spec.scale[0])
    draft.nodes.append(Node(fresh, "Requantize", (value,), (fresh,), attrs))
    return fresh


Rule = Callable[[Draft, Node], None]
RULES: dict[str, Rule] = {
    "Conv": weight_layer, "MatMul": weight_layer, "Add": _add, "Sub": _add, "Mul": _mul, "Relu": _rescale,
    "Clip": _rescale, "Requantize": _rescale, "Curve": _curve, "AveragePool": _average, "ReduceMean": _average,
    "Softmax": _softmax, "Concat": _concat, "Scatter": _scatter, "Gather": general.gather,
    "ReduceSum": general.reduce_sum, "Host": general.host,
    **dict.fromkeys(MOVES, _move),
}  # fmt: skip
