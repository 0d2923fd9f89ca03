"""Values whose scales must differ by powers of two, where a chip's vector unit only shifts: around Add, Mul, Concat.

Each such group shares one real base, chosen by error; a value's scale is base * 2**e.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from insitu.algo.calibrate import Calibration, Range
from insitu.algo.search import error, few_rows, power_of_two
from insitu.compiler.draft import MOVES, is_weight_layer
from insitu.graph.graph import Graph, Node

TYING = ("Add", "Sub", "Mul", "Concat", "Relu", "Clip", "ReduceSum")
BASES = tuple(2.0 ** (i / 8) for i in range(8))


def bases(graph: Graph, seen: Calibration) -> dict[str, float]:
    """Value -> base of its group, for every value in a group."""
    out: dict[str, float] = {}
    for group, absolute in groups(graph):
        base = 1.0 if absolute else _base([seen.ranges[v] for v in sorted(group)])
        out.update(dict.fromkeys(group, base))
    return out


def groups(graph: Graph) -> list[tuple[frozenset[str], bool]]:
    """(values tied to each other, whether their scales must be powers of two themselves)."""
    parent: dict[str, str] = {}
    tied: set[str] = set()
    absolute: set[str] = set()
    for node in graph.nodes:
        if node.op == "Host" or not node.outputs or graph.types[node.output].dtype != "f32":
            continue
        values = [v for v in (*node.inputs, node.output) if v and v not in graph.constants]
        if node.op == "Gather":
            _join(parent, [v for v in (node.inputs[0], node.output) if v not in graph.constants])
        if node.op == "Scatter":
            _join(parent, (node.inputs[0], node.inputs[2], node.output))
        if node.op in TYING or node.op in MOVES:
            _join(parent, values)
        if node.op in TYING:
            tied.update(values)
        if _multiplies(graph, node):
            tied.update(values)
            absolute.update(values)
        if node.op == "Softmax":
            absolute.add(node.output)
    for state in graph.states:
        _join(parent, (state.input, state.output))
    for nodes in sharing(graph):
        _join(parent, [n.inputs[0] for n in nodes])
        _join(parent, [n.output for n in nodes])
    found: dict[str, set[str]] = {}
    for value in sorted({*parent, *tied}):
        found.setdefault(_root(parent, value), set()).add(value)
    return [(frozenset(g), bool(g & absolute)) for g in found.values() if g & tied]


def sharing(graph: Graph) -> list[list[Node]]:
    """Groups of weight layers that read the same weights and bias, as the steps of a recurrent layer do."""
    found: dict[tuple[object, ...], list[Node]] = {}
    for node in graph.nodes:
        if is_weight_layer(graph, node):
            attrs = tuple(sorted((k, v) for k, v in node.attrs.items()))
            found.setdefault((node.op, node.inputs[1:], attrs), []).append(node)
    return [nodes for nodes in found.values() if len(nodes) > 1]


def carried(graph: Graph) -> dict[str, frozenset[str]]:
    """Value -> all values that share its codes: one becomes the other at the next step, or they share weights."""
    parent: dict[str, str] = {}
    for state in graph.states:
        _join(parent, (state.input, state.output))
    for nodes in sharing(graph):
        _join(parent, [n.inputs[0] for n in nodes])
        _join(parent, [n.output for n in nodes])
    found: dict[str, set[str]] = {}
    for value in sorted(parent):
        found.setdefault(_root(parent, value), set()).add(value)
    return {v: frozenset(g) for g in found.values() for v in g}


def _multiplies(graph: Graph, node: Node) -> bool:
    """True for a product of two run-time values: its scale is the product of theirs."""
    both = all(v not in graph.constants for v in node.inputs[:2])
    return node.op in ("Mul", "MatMul") and both and not is_weight_layer(graph, node)


def _root(parent: dict[str, str], value: str) -> str:
    while parent.setdefault(value, value) != value:
        value = parent[value]
    return value


def _join(parent: dict[str, str], values: Iterable[str]) -> None:
    roots = [_root(parent, v) for v in values]
    parent.update(dict.fromkeys(roots[1:], roots[0]))


def _base(ranges: list[Range]) -> float:
    """The base with the least relative error over the group."""
    return min(BASES, key=lambda b: sum(_relative(r, b) for r in ranges))


def _relative(seen: Range, base: float) -> float:
    sample = few_rows(seen.rows)
    power = float(np.mean(sample.astype(np.float64) ** 2))
    return error(sample, power_of_two(seen, base=base, signed=seen.low < 0)) / power if power > 0 else 0.0
