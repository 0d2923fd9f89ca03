"""Emit: nodes become commands over descriptors.  Here the rule of each operator and the vector operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from insitu.base.errors import InternalError
from insitu.compiler.commands import Axis, Op, Operand, TableVector, descriptor, merge, split_loops
from insitu.compiler.emit_layers import emit_layer
from insitu.compiler.emit_moves import concat, copy_reshaped, pad, transfer
from insitu.compiler.emitter import Emitter, axes_of, in_memory, operand_at, vector_op, with_halo
from insitu.compiler.storage import RESHAPES
from insitu.compiler.stored import chosen
from insitu.graph.graph import Node
from insitu.graph.types import Dim
from insitu.isa.program import Descriptor, Location, Vector


def emit_node(emitter: Emitter, node: Node) -> None:
    """Append the tasks of one node."""
    if node.output in emitter.storage.views:
        if node.inputs[0] in emitter.cores:
            emitter.cores[node.output] = emitter.cores[node.inputs[0]]
        return
    if node.op in RESHAPES or node.op in ("Transpose", "Slice"):
        copy_reshaped(emitter, node)
        return
    rule = RULES.get(node.op)
    if rule is None:
        raise InternalError(node.name, f"operator {node.op}", "an operator with an emission rule")
    rule(emitter, node)


def _product(emitter: Emitter, node: Node) -> None:
    """Two run-time matrices: leading dimensions broadcast, then (m, k) x (k, n)."""
    a, b, y = (emitter.at(v) for v in (*node.inputs[:2], node.output))
    rank = len(y.shape)
    lead = [_broadcast(at, rank, y.shape[:-2]) for at in (a, b)]
    axes = [Axis(d, (y.strides[i], lead[0][i], lead[1][i])) for i, d in enumerate(y.shape[:-2])]
    loops, dims = split_loops(merge(axes), inner=2)
    tail = {0: (y.shape[-2:], y.strides[-2:]), 1: (a.shape[-2:], a.strides[-2:]), 2: (b.shape[-2:], b.strides[-2:])}
    operands: list[Descriptor] = []
    for index, at in ((0, y), (1, a), (2, b)):
        sizes, strides = tail[index]
        own = [Axis(d.size, (d.strides[index],)) for d in dims] + [
            Axis(n, (s,)) for n, s in zip(sizes, strides, strict=True)
        ]
        operands.append(descriptor(operand_at(at, 0), [Axis(x.size, (x.strides[index],)) for x in loops], own))
    settings = Vector(
        zero_a=emitter.zero(node.inputs[0]),
        zero_b=emitter.zero(node.inputs[1]),
        post=emitter.post(node),
        label=node.name,
    )
    op = Op("MMA", (*operands, settings), tuple(x.size for x in loops))
    with_halo(emitter, node, [chosen(emitter, node, op, emitter.core_of(node))])


def _broadcast(at: Location, rank: int, lead: Sequence[Dim]) -> list[int]:
    """Strides of a location's leading dimensions against `lead`; broadcast ones are 0."""
    missing = rank - len(at.shape)
    return [0 if i < missing or at.shape[i - missing] != lead[i] else at.strides[i - missing] for i in range(len(lead))]


def _binary(emitter: Emitter, node: Node) -> None:
    y = emitter.at(node.output)
    rank = len(y.shape)
    names = [in_memory(emitter, v) for v in node.inputs[:2]]
    strides = [_broadcast(emitter.at(v), rank, y.shape) for v in names]
    settings = Vector(
        emitter.zero(names[0]),
        emitter.zero(names[1]),
        node.attr("scale_a", 1),
        node.attr("scale_b", 1),
        emitter.post(node),
        label=node.name,
    )
    operands = [operand_at(y, 0), *(operand_at(emitter.at(v), i + 1) for i, v in enumerate(names))]
    axes = axes_of(y.shape, y.strides, *strides)
    if len(node.inputs) == 2:
        return with_halo(emitter, node, [vector_op(node.op.upper(), axes, operands, settings)])
    table = emitter.at(in_memory(emitter, node.inputs[2]))
    own = [Axis(a.size, (*a.strides, s)) for a, s in zip(axes, _broadcast(table, rank, y.shape), strict=True)]
    loops, dims = split_loops(merge(own), inner=0)
    *read, factors = [descriptor(o, loops, dims) for o in (*operands, operand_at(table, 3))]
    op = Op(node.op.upper(), (*read, TableVector(settings, factors)), tuple(a.size for a in loops))
    return with_halo(emitter, node, [op])


def _lut(emitter: Emitter, node: Node) -> None:
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    table = emitter.look_up(f"{node.name}.table", emitter.graph.constants[node.inputs[1]])
    scale = 1 << int(node.attr("input_shift", 0))
    settings = Vector(scale_a=scale, post=emitter.post(node), lut=table, label=node.name)
    op = vector_op("LUT", axes_of(y.shape, y.strides, x.strides), [operand_at(y, 0), operand_at(x, 1)], settings)
    with_halo(emitter, node, [op])


def _rescale(emitter: Emitter, node: Node) -> None:
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    settings = Vector(emitter.zero(node.inputs[0]), post=emitter.post(node), label=node.name)
    op = vector_op("REQ", axes_of(y.shape, y.strides, x.strides), [operand_at(y, 0), operand_at(x, 1)], settings)
    with_halo(emitter, node, [op])


def _pool(emitter: Emitter, node: Node) -> None:
    """Windows reduced to their sum or largest code."""
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    kernel = tuple(node.attr("kernel_shape"))
    rank = len(kernel)
    strides, dilations = (tuple(node.attr(n, (1,) * rank)) for n in ("strides", "dilations"))
    corner = x.offset - sum(p * s for p, s in zip(tuple(node.attr("pads", (0,) * rank)), x.strides[2:], strict=False))
    steps = [*x.strides[:2], *(s * k for s, k in zip(x.strides[2:], strides, strict=True))]
    window = [Axis(k, (0, s * d)) for k, s, d in zip(kernel, x.strides[2:], dilations, strict=True)]
    source = Operand(x.symbol, corner, 1)
    axes = axes_of(y.shape, y.strides, steps)
    settings = Vector(emitter.zero(node.inputs[0]), post=emitter.post(node), label=node.name)
    if node.op == "MaxPool":  # codes stay as they are
        settings = Vector(post=replace(settings.post, zero_point=0), label=node.name)
    if node.op == "AveragePool" and len(node.inputs) > 1:
        _mapped_pool(emitter, node, axes, window, source, settings)
        return
    op = vector_op("MAX" if node.op == "MaxPool" else "SUM", axes, [operand_at(y, 0), source], settings, inner=window)
    with_halo(emitter, node, [op])


def _mapped_pool(
    emitter: Emitter, node: Node, axes: list[Axis], window: list[Axis], source: Operand, settings: Vector
) -> None:
    """An average whose border windows divide by fewer: one multiplier per output position."""
    name = in_memory(emitter, node.inputs[1])
    at, y = emitter.at(name), emitter.at(node.output)
    own = [Axis(a.size, (*a.strides, s)) for a, s in zip(axes, (0, 0, *at.strides), strict=True)]
    inner = merge(window)
    loops, dims = split_loops(merge(own), inner=len(inner))
    out = descriptor(operand_at(y, 0), loops, dims)
    read = descriptor(source, loops, [*(dims or [Axis(1, (1, 1, 1))]), *(Axis(a.size, (*a.strides, 0)) for a in inner)])
    table = TableVector(settings, descriptor(Operand(at.symbol, at.offset, 2), loops, dims))
    with_halo(emitter, node, [Op("SUM", (out, read, table), tuple(a.size for a in loops))])


def _reduce(emitter: Emitter, node: Node) -> None:
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    axes = [a % len(x.shape) for a in node.attr("axes")]
    kept = [i for i in range(len(x.shape)) if i not in axes]
    out_strides = [y.strides[i] for i in kept] if node.attr("keepdims", 1) else list(y.strides)
    outer = axes_of([x.shape[i] for i in kept], out_strides, [x.strides[i] for i in kept])
    inner = [Axis(x.shape[i], (0, x.strides[i])) for i in axes]
    settings = Vector(emitter.zero(node.inputs[0]), post=emitter.post(node), label=node.name)
    if node.op == "ReduceMax":  # codes stay as they are
        settings = Vector(post=replace(settings.post, zero_point=0), label=node.name)
    op = "MAX" if node.op == "ReduceMax" else "SUM"
    with_halo(emitter, node, [vector_op(op, outer, [operand_at(y, 0), operand_at(x, 1)], settings, inner=inner)])


def _softmax(emitter: Emitter, node: Node) -> None:
    x, y = emitter.at(node.inputs[0]), emitter.at(node.output)
    axis = int(node.attr("axis", -1)) % len(x.shape)
    table = emitter.look_up(f"{node.name}.table", emitter.graph.constants[node.inputs[1]])
    settings = Vector(post=emitter.post(node), lut=table, label=node.name)
    others = [i for i in range(len(x.shape)) if i != axis]
    loops, dims = split_loops(
        merge(axes_of([x.shape[i] for i in others], [y.strides[i] for i in others], [x.strides[i] for i in others])),
        inner=1,
    )
    last = Axis(x.shape[axis], (y.strides[axis], x.strides[axis]))
    operands = [descriptor(operand_at(at, i), loops, [*dims, last]) for i, at in enumerate((y, x))]
    with_halo(emitter, node, [Op("SOFTMAX", (*operands, settings), tuple(a.size for a in loops))])


def _matmul(emitter: Emitter, node: Node) -> None:
    """A weight layer, or a product of two run-time matrices."""
    rule = emit_layer if node.inputs[1] in emitter.graph.constants else _product
    rule(emitter, node)


Rule = Callable[[Emitter, Node], None]
RULES: dict[str, Rule] = {
    "Conv": emit_layer, "MatMul": _matmul, "Add": _binary, "Mul": _binary, "Requantize": _rescale, "AveragePool": _pool,
    "MaxPool": _pool, "ReduceMean": _reduce, "ReduceSum": _reduce, "ReduceMax": _reduce,
    "Softmax": _softmax, "Lut": _lut, "Concat": concat, "Pad": pad,
    "Transfer": transfer,
}  # fmt: skip
