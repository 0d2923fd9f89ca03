"""Apply a QuantPlan: a captured graph becomes a quantized one with integer meaning (DESIGN 2)."""

from __future__ import annotations

from collections.abc import Callable
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
from insitu.graph.ops.mvm import patches
from insitu.graph.types import integer_dtype
from insitu.numeric.affine import QuantSpec
from insitu.numeric.affine import quantize as codes_of
from insitu.numeric.functions import softmax_table

SOFTMAX_SPEC = QuantSpec(8, signed=False, scale=(1 / 256,))
CONSTANT_BITS = 16  # constants of elementwise operators
FACTOR_BITS = 15  # integer factors of an Add


def quantize(graph: Graph, chip: Chip, *, plan: QuantPlan) -> Graph:
    """The quantized graph of a canonical captured graph; integers decided by `plan` alone."""
    draft = Draft(graph, chip, plan)
    for name in (*graph.inputs, *graph.state_inputs):
        if name in plan.values:
            draft.value(name, plan.values[name])
        else:
            draft.types[name] = graph.types[name]
    for node in graph.nodes:
        plain = node.op not in ("Host", "Gather") and node.outputs and node.output not in plan.values
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
    real = np.asarray(draft.graph.constants[name], np.float64)
    step = (float(np.abs(real).max(initial=0.0)) or 1.0) / ((1 << (CONSTANT_BITS - 1)) - 1)
    if draft.power_of_two:  # a power of two away from what makes the result's scale one
        unit = _unit(draft, node, 1 - index)
        step = unit * 2.0 ** np.ceil(np.log2(step / unit))
    spec = QuantSpec(CONSTANT_BITS, signed=True, scale=(float(step),))
    return draft.constant(f"{node.name}.constant{index}", codes_of(real, spec).astype(np.int16), spec)


def _unit(draft: Draft, node: Node, other: int) -> float:
    """The scale of a constant with which an operator on it and input `other` is a pure shift."""
    out, value = draft.plan.values[node.output].scale[0], node.inputs[other]
    return out if node.op in ("Add", "Sub") or value in draft.graph.constants else out / draft.specs[value].scale[0]


def _add(draft: Draft, node: Node) -> None:
    names = [_operand(draft, node, i) for i in (0, 1)]
    spec = draft.plan.values[node.output]
    draft.value(node.output, spec)
    ratios = np.array([draft.specs[n].scale[0] / spec.scale[0] for n in names])
    scales, shift = add_scales(ratios, power_of_two=draft.power_of_two)
    second = -scales[1] if node.op == "Sub" else scales[1]
    attrs = activation_codes(node, spec) | {"scale_a": scales[0], "scale_b": second, "multiplier": 1, "shift": shift}
    draft.add(node, inputs=names, attrs=attrs, op="Add")


def add_scales(ratios: npt.NDArray[np.float64], *, power_of_two: bool) -> tuple[tuple[int, int], int]:
    """Integer factors of both addends and a common shift: a*A + b*B over 2**shift; 15 bits, or powers of two.

    An addend 2**-30 of the other's step counts as 2**-30; one above 2**15 output steps is at its bound anyway.
    """
    ratios = np.clip(ratios, max(2.0**-30, float(ratios.max()) * 2.0**-30), 2.0**FACTOR_BITS)
    if power_of_two:
        exponents = np.rint(np.log2(ratios)).astype(int)
        shift = max(0, -int(exponents.min()))
        return (1 << int(exponents[0] + shift), 1 << int(exponents[1] + shift)), shift
    shift = max(0, FACTOR_BITS - 1 - int(np.ceil(np.log2(ratios.max()))))
    factors = np.rint(ratios * 2.0**shift).astype(int)
    return (int(factors[0]), int(factors[1])), shift


def _mul(draft: Draft, node: Node) -> None:
    names = [_operand(draft, node, i) for i in (0, 1)]
    spec = draft.plan.values[node.output]
    draft.value(node.output, spec)
    ratio = draft.specs[names[0]].scale[0] * draft.specs[names[1]].scale[0] / spec.scale[0]
    draft.add(node, inputs=names, attrs=activation_codes(node, spec) | draft.scaling(ratio))


def _rescale(draft: Draft, node: Node) -> None:
    """A clip that could not be fused: requantize into its own range."""
    name, spec = node.inputs[0], draft.plan.values[node.output]
    draft.value(node.output, spec)
    bounds = {"Relu": (0.0, np.inf)}.get(node.op) or (node.attr("lo", -np.inf), node.attr("hi", np.inf))
    clipped = replace(node, attrs={**node.attrs, "act_lo": bounds[0], "act_hi": bounds[1]})
    attrs = activation_codes(clipped, spec) | draft.scaling(draft.specs[name].scale[0] / spec.scale[0])
    draft.add(node, inputs=[name], attrs=attrs, op="Requantize")


def _softmax(draft: Draft, node: Node) -> None:
    draft.value(node.output, SOFTMAX_SPEC)
    source = draft.specs[node.inputs[0]]
    table = draft.constant(f"{node.name}.table", softmax_table(source.scale[0], 1 << source.bits))
    attrs: dict[str, Attr] = {"axis": node.attr("axis", -1), "lo": SOFTMAX_SPEC.lo, "hi": SOFTMAX_SPEC.hi}
    draft.add(node, inputs=[node.inputs[0], table], attrs=attrs)


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
    "Clip": _rescale,
    "AveragePool": _average, "ReduceMean": _average, "Softmax": _softmax, "Concat": _concat,
    "Curve": general.curve, "Gather": general.gather, "ReduceSum": general.reduce_sum,
    "Host": general.host,
    **dict.fromkeys(MOVES, _move),
}  # fmt: skip
