"""Dynamic quantization, as `quantize_dynamic` writes it, as float operators on quantized weights.

DynamicQuantizeLinear -> MatMulInteger or ConvInteger -> Cast -> Mul by the product of both scales becomes the float
operator with dequantized weights: a chip's scales are fixed, so the activations' come from calibration instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from insitu.graph.graph import Node

Array = npt.NDArray[Any]
FLOAT_OPS = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}


@dataclass(frozen=True)
class Rewritten:
    """Nodes in the file's order; `attrs` of new nodes, constants in new shapes."""

    nodes: tuple[Node, ...]
    attrs: Mapping[str, Mapping[str, Any]]
    constants: Mapping[str, Array]


def static_form(nodes: Sequence[Node], attrs: Mapping[str, Any], constants: Mapping[str, Array]) -> Rewritten:
    """The nodes with every dynamically quantized product as a float one."""
    dynamic = {n.outputs[0]: n for n in nodes if n.op == "DynamicQuantizeLinear" and len(n.outputs) == 3}
    work = _Work(list(nodes), dict(constants), {})
    if dynamic:
        for node in nodes:
            source = dynamic.get(node.inputs[0]) if node.op in FLOAT_OPS and node.inputs else None
            if source is not None and len(node.inputs) > 2 and node.inputs[2] == source.outputs[2]:
                _rewrite(work, node, source)
    return Rewritten(tuple(work.nodes), work.attrs, work.constants)


@dataclass
class _Work:
    nodes: list[Node]
    constants: dict[str, Array]
    attrs: dict[str, Mapping[str, Any]]

    def readers(self, value: str) -> list[Node]:
        return [n for n in self.nodes if value in n.inputs]

    def writer(self, value: str) -> Node | None:
        return next((n for n in self.nodes if value in n.outputs), None)


def _rewrite(work: _Work, node: Node, source: Node) -> None:
    end = _scaled(work, node, source.outputs[1])
    weight = node.inputs[1]
    if end is None or weight not in work.constants:
        return
    chain, scale = end
    zero = node.inputs[3] if len(node.inputs) > 3 else ""
    if zero and zero not in work.constants:
        return
    axis = 0 if node.op == "ConvInteger" else work.constants[weight].ndim - 1
    names = [weight, _flat(work, scale), *([_flat(work, zero)] if zero else [])]
    real = f"{node.name}.real_weight"
    at = work.nodes.index(node)
    work.nodes[at : at + 1] = [
        Node(real, "DequantizeLinear", tuple(names), (real,)),
        Node(node.name, FLOAT_OPS[node.op], (source.inputs[0], real), chain[-1].outputs[:1]),
    ]
    work.attrs[real] = {"axis": axis}
    for done in chain:
        work.nodes.remove(done)


def _flat(work: _Work, name: str) -> str:
    """A scale or zero point of any shape with one long axis as a line."""
    array = work.constants[name]
    if array.ndim < 2:
        return name
    work.constants[f"{name}.line"] = array.reshape(-1)
    return f"{name}.line"


def _scaled(work: _Work, node: Node, step: str) -> tuple[list[Node], str] | None:
    """(Cast and what scales its result, the weights' scale): times `step` and a constant, in either order."""
    casts = work.readers(node.output)
    if len(casts) != 1 or casts[0].op != "Cast":
        return None
    value, scale, chain = casts[0].output, "", [casts[0]]
    pending = True
    while len(readers := work.readers(value)) == 1 and readers[0].op == "Mul" and (pending or not scale):
        after = readers[0]
        other = after.inputs[1] if after.inputs[0] == value else after.inputs[0]
        made = work.writer(other)
        if other == step and pending:
            pending = False
        elif other in work.constants and not scale:
            scale = other
        elif made is not None and made.op == "Mul" and step in made.inputs and pending and not scale:
            rest = [v for v in made.inputs if v != step]
            if len(rest) != 1 or rest[0] not in work.constants:
                return None
            scale, pending = rest[0], False
        else:
            return None
        value = after.output
        chain.append(after)
    return None if pending or not scale else (chain, scale)
