"""Norms that a file writes out, as one Norm: (x - mean) / sqrt(mean square + epsilon), with or without the mean."""

from __future__ import annotations

from dataclasses import replace

from insitu.graph.graph import Graph, Node
from insitu.graph.rewrite import live

SQUARES = ("mul x x", "pow x 2.0")


def run(graph: Graph) -> Graph:
    """The same network with written-out norms as Norm nodes; expects joined Curves."""
    if not any(n.op == "Curve" for n in graph.nodes):
        return graph
    made = graph.producers()
    found = {n.name: norm for n in graph.nodes if n.op == "Mul" and (norm := _match(graph, n, made)) is not None}
    return live(graph.with_nodes(found.get(n.name, n) for n in graph.nodes)) if found else graph


def _match(graph: Graph, node: Node, made: dict[str, Node]) -> Node | None:
    """The Norm that a product is the last step of."""
    for middle, inverse in (node.inputs[:2], node.inputs[1::-1]):
        curve = made.get(inverse)
        epsilon = _epsilon(str(curve.attr("expr"))) if curve is not None and curve.op == "Curve" else None
        variance = made.get(curve.inputs[0]) if curve is not None else None
        if epsilon is None or variance is None or variance.op != "ReduceMean":
            continue
        square = made.get(variance.inputs[0])
        base = _squared(square) if square is not None else None
        axes = tuple(variance.attr("axes"))
        if base is None or not variance.attr("keepdims", 1) or not _same(base, middle, made):
            continue
        source = _centred(base, axes, made)
        attrs = {"axes": axes, "epsilon": epsilon, "center": int(source != base)}
        return replace(node, op="Norm", inputs=(source,), attrs=attrs)
    return None


def _epsilon(text: str) -> float | None:
    """The epsilon of 1 / sqrt(x + epsilon)."""
    words = text.split()
    for lead, tail in ((["reciprocal", "sqrt"], []), (["pow"], ["-0.5"])):
        inner = words[len(lead) : len(words) - len(tail)]
        if words[: len(lead)] != lead or words[len(words) - len(tail) :] != tail:
            continue
        if inner == ["x"]:
            return 0.0
        if len(inner) == 3 and inner[0] == "add" and "x" in inner[1:]:
            return float(inner[1] if inner[2] == "x" else inner[2])
    return None


def _squared(node: Node) -> str | None:
    if node.op == "Curve" and node.attr("expr") in SQUARES:
        return node.inputs[0]
    return node.inputs[0] if node.op == "Mul" and node.inputs[0] == node.inputs[1] else None


def _same(a: str, b: str, made: dict[str, Node]) -> bool:
    """One value, or two differences of the same operands."""
    left, right = made.get(a), made.get(b)
    if a == b:
        return True
    return left is not None and right is not None and left.op == right.op == "Sub" and left.inputs == right.inputs


def _centred(value: str, axes: tuple[int, ...], made: dict[str, Node]) -> str:
    """What a difference from its own mean is taken of; the value itself where it is none."""
    node = made.get(value)
    mean = made.get(node.inputs[1]) if node is not None and node.op == "Sub" else None
    if node is None or mean is None or mean.op != "ReduceMean" or mean.inputs[0] != node.inputs[0]:
        return value
    return node.inputs[0] if tuple(mean.attr("axes")) == axes and mean.attr("keepdims", 1) else value
