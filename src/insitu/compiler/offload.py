"""Offload: a node of a captured graph as one operator of the host."""

from __future__ import annotations

from dataclasses import replace

from insitu.graph.export import OPSET, node_body
from insitu.graph.graph import Graph, Node
from insitu.graph.ops.hosted import host_model
from insitu.graph.ops.macs import macs

FLOAT = 1


def offloaded(graph: Graph, node: Node) -> Node:
    """The node as a Host node of the same inputs and outputs; constants go into its model."""
    reads = tuple(dict.fromkeys(v for v in node.inputs if v and v not in graph.constants))
    body, constants = node_body(graph, node)
    model = host_model(
        body,
        operator=node.op,
        feeds={v: (graph.types[v], FLOAT) for v in reads},
        results={v: (graph.types[v], FLOAT) for v in node.outputs},
        constants=constants,
        opsets={"": OPSET},
    )
    weighted = len(node.inputs) > 1 and node.inputs[1] in graph.constants
    attrs = {"operator": node.op, "model": model, **({"macs": macs(graph, node)} if weighted else {})}
    return replace(node, op="Host", inputs=reads, attrs=attrs)
