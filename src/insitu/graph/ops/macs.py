"""Multiply-accumulates of a node, as its operator defines them (padding counted, zeros of packing not)."""

from __future__ import annotations

from math import prod

from insitu.graph.graph import Graph, Node


def fan_in(graph: Graph, node: Node) -> int:
    """Products per output element of a weight layer."""
    shape = graph.type(node.inputs[1]).sizes()
    if node.op == "MVM":
        return shape[0]
    return prod(shape[1:]) if node.op == "Conv" else shape[-2]


def macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of one node for a hardware batch; 0 where the operator has none."""
    if node.op == "Host":
        return int(node.attr("macs", 0))
    if node.op == "MMA":
        return graph.type(node.output).count() * graph.type(node.inputs[0]).sizes()[-1]
    if node.op not in ("Conv", "MatMul", "MVM"):
        return 0
    return graph.type(node.output).count() * fan_in(graph, node)
