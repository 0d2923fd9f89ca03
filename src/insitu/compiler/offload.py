"""Offload: a node of a captured graph, or a chain of them, as one operator of the host."""

from __future__ import annotations

from dataclasses import replace

from insitu.graph.export import OPSET, node_body
from insitu.graph.graph import Graph, Node
from insitu.graph.ops.hosted import host_model
from insitu.graph.ops.macs import macs

FLOAT = 1


def offloaded(graph: Graph, node: Node, *behind: Node) -> Node:
    """The node as a Host node of the same inputs and outputs; constants go into its model.

    `behind` are done with it: each is the only reader of the one before, and the last one's outputs are written.
    """
    inner = {v for n in (node, *behind[:-1]) for v in n.outputs} if behind else set[str]()
    used = [v for n in (node, *behind) for v in n.inputs if v and v not in graph.constants]
    reads = tuple(dict.fromkeys(v for v in used if v not in inner))
    parts = [node_body(graph, n) for n in (node, *behind)]
    body, constants = [b for p in parts for b in p[0]], {k: v for p in parts for k, v in p[1].items()}
    outputs = behind[-1].outputs if behind else node.outputs
    model = host_model(
        body,
        operator=node.op,
        feeds={v: (graph.types[v], FLOAT) for v in reads},
        results={v: (graph.types[v], FLOAT) for v in outputs},
        constants=constants,
        opsets={"": OPSET},
    )
    weighted = len(node.inputs) > 1 and node.inputs[1] in graph.constants
    attrs = {"operator": node.op, "model": model, **({"macs": macs(graph, node)} if weighted else {})}
    return replace(node, op="Host", inputs=reads, outputs=outputs, attrs=attrs)
