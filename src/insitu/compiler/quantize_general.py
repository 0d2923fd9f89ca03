"""Quantization rules of functions, differences, sums, picks and operators of the host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import helper

from insitu.compiler.draft import Draft, activation_codes
from insitu.graph.export import OPSET
from insitu.graph.graph import Attr, Node
from insitu.graph.ops.hosted import ELEMENTS, host_model, recoded
from insitu.graph.ops.lut import full_table
from insitu.graph.types import integer_dtype
from insitu.numeric.affine import quantize as codes_of
from insitu.numeric.curves import evaluate

NUMPY = {"i8": np.int8, "u8": np.uint8, "i16": np.int16, "u16": np.uint16}


def curve(draft: Draft, node: Node) -> None:
    """One table entry for every code of the input."""
    spec, source = draft.plan.values[node.output], draft.specs[node.inputs[0]]
    draft.value(node.output, spec)
    text = str(node.attr("expr"))
    codes = full_table(source)
    real = evaluate(text, (codes - source.zero_point) * source.scale[0])
    limit = 2.0**40 * spec.scale[0]
    table = codes_of(np.clip(real, -limit, limit), spec).astype(np.int32)
    name = draft.constant(f"{node.name}.table", table)
    attrs: dict[str, Attr] = {"expr": text, "lo": spec.lo, "hi": spec.hi}
    draft.add(node, inputs=[node.inputs[0], name], attrs=attrs, op="Lut")


def gather(draft: Draft, node: Node) -> None:
    """Codes picked by index; a table of constants is quantized first."""
    x, index = node.inputs[:2]
    spec = draft.plan.values[node.output]
    if node.attr("hosted") and x in draft.graph.constants:
        _picked_by_host(draft, node)
        return
    if x in draft.graph.constants:
        kind = NUMPY[integer_dtype(spec.bits, signed=spec.signed)]
        x = draft.constant(f"{node.name}.table", codes_of(draft.graph.constants[x], spec).astype(kind), spec)
    if index in draft.graph.constants:
        index = draft.constant(f"{node.name}.index", draft.graph.constants[index])
    draft.value(node.output, spec)
    draft.add(node, inputs=[x, index], attrs={"axis": node.attr("axis", 0)})


def _picked_by_host(draft: Draft, node: Node) -> None:
    """The host picks rows of codes from a table in its own memory."""
    spec, index = draft.plan.values[node.output], node.inputs[1]
    draft.value(node.output, spec)
    kind = draft.types[node.output]
    codes = codes_of(draft.graph.constants[node.inputs[0]], spec).astype(NUMPY[kind.dtype])
    body = [helper.make_node("Gather", ["table", "index"], ["rows"], axis=int(node.attr("axis", 0)))]
    plain, element = replace(kind, quant=None), ELEMENTS[kind.dtype]
    asked = draft.types[index]
    model = host_model(
        body,
        operator="Gather",
        feeds={"index": (asked, ELEMENTS[asked.dtype])},
        results={"rows": (plain, element)},
        constants={"table": codes},
        opsets={"": OPSET},
    )
    draft.nodes.append(Node(node.name, "Host", (index,), node.outputs, {"operator": "Gather", "model": model}))


def reduce_sum(draft: Draft, node: Node) -> None:
    """A sum, requantized."""
    spec = draft.plan.values[node.output]
    draft.value(node.output, spec)
    attrs: dict[str, Attr] = {k: node.attrs[k] for k in ("axes", "keepdims") if k in node.attrs}
    attrs |= activation_codes(node, spec)
    attrs |= draft.scaling(draft.specs[node.inputs[0]].scale[0] / spec.scale[0])
    draft.add(node, inputs=node.inputs[:1], attrs=attrs)


def host(draft: Draft, node: Node) -> None:
    """One operator of the host between codes, or between plain numbers where no code is needed."""
    for value in filter(None, node.outputs):
        if value in draft.plan.values:
            draft.value(value, draft.plan.values[value])
        else:
            draft.types[value] = draft.graph.types[value]
    names = [v for v in node.inputs if v]
    kinds = [draft.types[v] for v in names]
    model = recoded(str(node.attr("model")), kinds, [draft.types[v] for v in node.outputs if v])
    draft.nodes.append(replace(node, inputs=tuple(names), attrs={**node.attrs, "model": model}))


def plain(draft: Draft, node: Node) -> None:
    """A move of numbers that have no codes."""
    for value in node.inputs:
        if value in draft.graph.constants:
            draft.constant(value, draft.graph.constants[value])
    draft.types.update((v, draft.graph.types[v]) for v in node.outputs if v)
    draft.nodes.append(node)
