"""Normal forms: one way to write each meaning, so that later passes know few operators.

Weight layers are Conv(x, w, b) and MatMul(x, w [K, N], b [N]), bias always there.  BatchNormalization is Mul and Add
per channel, GlobalAveragePool and whole-map AveragePool are ReduceMean, what only renames sizes is Reshape, Softmax
runs over the last axis.  Transposes in a row become one, Reshapes too, and what changes nothing goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ModelError
from insitu.compiler import curves, norms
from insitu.graph.graph import Attr, Graph, Node
from insitu.graph.rewrite import Builder, drop_copies
from insitu.graph.types import Dim

Array = npt.NDArray[Any]


def run(graph: Graph) -> Graph:
    """The same network in normal form; values that are inputs, outputs or states keep their names."""
    graph = norms.run(curves.run(graph))
    work = _Work(Builder(graph.types, graph.constants, taken=(v for n in graph.nodes for v in n.outputs)))
    for node in graph.nodes:
        RULES.get(node.op, _keep)(work, node)
    return drop_copies(merge_moves(work.builder.finish(graph)))


@dataclass(frozen=True)
class _Work:
    builder: Builder

    def constant(self, name: str) -> Array | None:
        return self.builder.constants.get(name)

    def shape(self, name: str) -> tuple[Dim, ...]:
        return self.builder.types[name].shape

    def write(self, node: Node, op: str, inputs: tuple[str, ...], attrs: Mapping[str, Attr] | None = None) -> None:
        """`node` as another operator, its name and output kept."""
        self.builder.add(replace(node, op=op, inputs=inputs, outputs=node.outputs[:1], attrs=dict(attrs or {})))

    def helper(self, node: Node, op: str, inputs: tuple[str, ...], attrs: Mapping[str, Attr] | None = None) -> str:
        """A node written before `node`; returns its value."""
        return self.builder.emit(op, inputs, name=f"{node.name}_{op.lower()}", attrs=attrs)

    def table(self, node: Node, suffix: str, values: Array) -> str:
        """A new constant; ModelError where float32 does not hold it."""
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.asarray(values, np.float32, order="C")
        if not np.all(np.isfinite(array)):
            got = "its constants, taken together, leave the range of float32"
            raise ModelError(f"node {node.name!r} ({node.op})", got, "smaller constants")
        return self.builder.constant(f"{node.name}_{suffix}", array)


def _input(node: Node, index: int) -> str:
    """An input's name; "" where it is absent."""
    return node.inputs[index] if index < len(node.inputs) else ""


def _keep(work: _Work, node: Node) -> None:
    work.builder.add(node)


def _sub(work: _Work, node: Node) -> None:
    """A - c as a + (-c); a constant minuend stays in front."""
    constant = work.constant(node.inputs[1])
    if constant is None:
        return _keep(work, node)
    negated = work.table(node, "negated", -constant)
    return _add(work, replace(node, op="Add", inputs=(node.inputs[0], negated)))


# weight layers


def _conv(work: _Work, node: Node) -> None:
    if _input(node, 2):
        return _keep(work, node)
    bias = work.table(node, "bias", np.zeros(_size(work.shape(node.inputs[1])[0])))
    return work.write(node, node.op, (*node.inputs[:2], bias), node.attrs)


def _size(dim: Dim) -> int:
    assert isinstance(dim, int), f"weights of the open size {dim!r}"
    return dim


def _gemm(work: _Work, node: Node) -> None:
    weight = work.constant(node.inputs[1])
    assert weight is not None, "import leaves no Gemm without constant weights"
    w = (weight.T if node.attr("transB", 0) else weight).astype(np.float64) * node.attr("alpha", 1.0)
    addend = work.constant(_input(node, 2)) if _input(node, 2) else np.zeros(())
    assert addend is not None
    bias = addend.astype(np.float64) * node.attr("beta", 1.0)
    x = node.inputs[0]
    names = work.table(node, "weight", w)
    if bias.size not in (1, w.shape[1]) or (bias.ndim > 1 and bias.shape[-1] != w.shape[1] and bias.size != 1):
        zeros = work.table(node, "zeros", np.zeros(w.shape[1]))
        value = work.helper(node, "MatMul", (x, names, zeros))
        return work.write(node, "Add", (value, work.table(node, "bias", bias)))
    flat = np.broadcast_to(bias.reshape(-1), (w.shape[1],))
    plain = not node.attr("transB", 0) and node.attr("alpha", 1.0) == node.attr("beta", 1.0) == 1.0
    if plain and _input(node, 2) and addend.shape == (w.shape[1],):  # as they are, so that steps share them
        return work.write(node, "MatMul", node.inputs)
    return work.write(node, "MatMul", (x, names, work.table(node, "bias", flat)))


def _matmul(work: _Work, node: Node) -> None:
    a, b = node.inputs[0], node.inputs[1]
    left, right = work.constant(a), work.constant(b)
    if _input(node, 2) or (right is None) == (left is None):
        return _keep(work, node)
    if right is None:
        assert left is not None
        return _weights_left(work, node, left)
    if right.ndim == 1:
        value = _times(work, node, a, right[:, None])
        return work.write(node, "Reshape", (value,), {"shape": work.shape(a)[:-1]})
    if right.ndim > 2:
        return _written(work, node, _batched(work, node, a, right))
    return work.write(node, "MatMul", (a, b, work.table(node, "bias", np.zeros(right.shape[1]))))


def _times(work: _Work, node: Node, x: str, weight: Array) -> str:
    """X [..., K] times a matrix [K, N]."""
    names = work.table(node, "weight", weight), work.table(node, "bias", np.zeros(weight.shape[1]))
    return work.helper(node, "MatMul", (x, *names))


def _written(work: _Work, node: Node, value: str, perm: tuple[int, ...] = ()) -> None:
    """A value under the node's own name, its axes in another order where `perm` says so; in the node's shape."""
    shape = work.shape(node.output)
    if perm:
        value = work.helper(node, "Transpose", (value,), {"perm": perm})
    work.write(node, "Reshape", (value,), {"shape": shape})


def _batched(work: _Work, node: Node, x: str, weights: Array) -> str:
    """X [..., M, K] times matrices [..., K, N] of their own: a layer for each, side by side along its axis."""
    rank = max(len(work.shape(x)), weights.ndim)
    shape = work.shape(x) if len(work.shape(x)) > 1 else (1, *work.shape(x))
    if len(work.shape(x)) < rank:
        x = work.helper(node, "Reshape", (x,), {"shape": ((1,) * (rank - len(shape)) + shape)})
    return _side_by_side(work, node, x, weights)


def _side_by_side(work: _Work, node: Node, x: str, weights: Array) -> str:
    if weights.ndim == 2:
        return _times(work, node, x, weights)
    if len(weights) == 1:
        return _side_by_side(work, node, x, weights[0])
    axis = len(work.shape(x)) - weights.ndim
    each = work.shape(x)[axis] != 1
    parts: list[str] = []
    for i, weight in enumerate(weights):
        cut: dict[str, Attr] = {"axes": (axis,), "starts": (i,), "ends": (i + 1,), "steps": (1,)}
        own = work.helper(node, "Slice", (x,), cut) if each else x
        parts.append(_side_by_side(work, node, own, weight))
    return work.helper(node, "Concat", tuple(parts), {"axis": axis})


def _weights_left(work: _Work, node: Node, weight: Array) -> None:
    """The product w @ x as (x' @ w')', so that weights stand right."""
    x, shape = node.inputs[1], work.shape(node.inputs[1])
    if len(shape) == 1 or weight.ndim == 1:  # a vector on one side is a matrix of one column, or of one row
        x = x if len(shape) > 1 else work.helper(node, "Reshape", (x,), {"shape": (*shape, 1)})
        weight = weight if weight.ndim > 1 else weight[None]
    rank = len(work.shape(x))
    x = work.helper(node, "Transpose", (x,), {"perm": (*range(rank - 2), rank - 1, rank - 2)})
    turned = weight.swapaxes(-1, -2)
    value = _times(work, node, x, turned) if turned.ndim == 2 else _batched(work, node, x, turned)
    rank = len(work.shape(value))
    _written(work, node, value, (*range(rank - 2), rank - 1, rank - 2))


def _batch_norm(work: _Work, node: Node) -> None:
    tables = [work.constant(v) for v in node.inputs[1:5]]
    assert all(t is not None for t in tables), "import leaves no BatchNormalization without constants"
    scale, bias, mean, variance = (np.asarray(t, np.float64) for t in tables)
    with np.errstate(all="ignore"):  # what is not finite is refused as a table
        factor = scale / np.sqrt(variance + float(node.attr("epsilon", 1e-5)))
    shape = (-1, *(1,) * (len(work.shape(node.inputs[0])) - 2))
    value = work.helper(node, "Mul", (node.inputs[0], work.table(node, "scale", factor.reshape(shape))))
    work.write(node, "Add", (value, work.table(node, "shift", (bias - mean * factor).reshape(shape))))


# pools


def _global_average(work: _Work, node: Node) -> None:
    axes = tuple(range(2, len(work.shape(node.inputs[0]))))
    work.write(node, "ReduceMean", node.inputs[:1], {"axes": axes, "keepdims": 1})


def _average_pool(work: _Work, node: Node) -> None:
    space = work.shape(node.inputs[0])[2:]
    whole = tuple(node.attr("kernel_shape")) == space and not any(node.attr("pads", ()))
    if whole and set(node.attr("dilations", (1,))) == {1}:
        return _global_average(work, node)
    return _keep(work, node)


# moving


def _renaming(work: _Work, node: Node) -> None:
    """Flatten, Squeeze and Unsqueeze only rename sizes."""
    shape = work.builder.types[node.output].shape
    work.write(node, "Reshape", node.inputs[:1], {"shape": shape})


def _slice(work: _Work, node: Node) -> None:
    if work.shape(node.inputs[0]) == work.builder.types[node.output].shape and set(node.attr("steps", (1,))) == {1}:
        return _renaming(work, node)
    return _keep(work, node)


def _pad(work: _Work, node: Node) -> None:
    return _keep(work, node) if any(node.attr("pads")) else _renaming(work, node)


def _softmax(work: _Work, node: Node) -> None:
    rank = len(work.shape(node.inputs[0]))
    axis = int(node.attr("axis", -1)) % rank
    if axis == rank - 1:
        return work.write(node, "Softmax", node.inputs, {"axis": rank - 1})
    perm = (*(i for i in range(rank) if i != axis), axis)
    moved = work.helper(node, "Transpose", node.inputs[:1], {"perm": perm})
    soft = work.helper(node, "Softmax", (moved,), {"axis": rank - 1})
    return work.write(node, "Transpose", (soft,), {"perm": tuple(int(p) for p in np.argsort(perm))})


def _clip(work: _Work, node: Node) -> None:
    lo, hi = float(node.attr("lo", -np.inf)), float(node.attr("hi", np.inf))
    if (lo, hi) == (-np.inf, np.inf):
        return _renaming(work, node)
    return work.write(node, "Relu", node.inputs) if (lo, hi) == (0.0, np.inf) else _keep(work, node)


def _mul(work: _Work, node: Node) -> None:
    _neutral(work, node, 1.0)


def _add(work: _Work, node: Node) -> None:
    _neutral(work, node, 0.0)


def _neutral(work: _Work, node: Node, element: float) -> None:
    """Drops x * 1 and x + 0; a constant operand stands second."""
    inputs = node.inputs[::-1] if work.constant(node.inputs[0]) is not None else node.inputs
    constant = work.constant(inputs[1])
    same = work.shape(inputs[0]) == work.builder.types[node.output].shape
    if constant is not None and same and bool(np.all(constant == element)) and not node.attrs:
        return work.write(node, "Reshape", inputs[:1], {"shape": work.shape(inputs[0])})
    return work.write(node, node.op, inputs, node.attrs)


RULES: dict[str, Callable[[_Work, Node], None]] = {
    "Conv": _conv, "Gemm": _gemm, "MatMul": _matmul, "BatchNormalization": _batch_norm,
    "GlobalAveragePool": _global_average, "AveragePool": _average_pool,
    "Flatten": _renaming, "Squeeze": _renaming, "Unsqueeze": _renaming, "Slice": _slice, "Pad": _pad,
    "Softmax": _softmax, "Clip": _clip, "Mul": _mul, "Add": _add, "Sub": _sub,
}  # fmt: skip


# chains


def merge_moves(graph: Graph) -> Graph:
    """Transposes after Transposes as one, Reshapes after Reshapes as one."""
    producers: dict[str, Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        merged = _simpler(graph, _merged(node, producers))
        nodes.append(merged)
        producers.update(dict.fromkeys(merged.outputs, merged))
    return graph.with_nodes(nodes)


def _merged(node: Node, producers: Mapping[str, Node]) -> Node:
    """`node` reading past a producer of its own kind."""
    if node.op not in ("Transpose", "Reshape"):
        return node
    before = producers.get(node.inputs[0])
    if before is None or before.op != node.op:
        return node
    if node.op == "Reshape":
        return replace(node, inputs=before.inputs)
    perm = tuple(before.attr("perm")[p] for p in node.attr("perm"))
    return replace(node, inputs=before.inputs, attrs={"perm": perm})


def _simpler(graph: Graph, node: Node) -> Node:
    """A Transpose that moves only sizes of 1 (and leaves the batch in front) as a Reshape."""
    if node.op != "Transpose":
        return node
    shape, perm = graph.types[node.inputs[0]].shape, tuple(node.attr("perm"))
    moving = [p for p in perm if shape[p] != 1]
    if moving != sorted(moving) or (perm and perm[0] != 0):
        return node
    return replace(node, op="Reshape", attrs={"shape": graph.types[node.output].shape})
