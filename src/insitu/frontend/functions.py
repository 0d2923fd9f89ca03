"""Functions of an ONNX file, taken apart: each call becomes the nodes of its body."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
import onnx.inliner

from insitu.base.errors import ModelError

Key = tuple[str, str]


def inlined(model: onnx.ModelProto, *, where: str, most: int) -> onnx.ModelProto:
    """The model without functions of its own.

    ModelError where functions call each other in a circle, or would become more than `most` nodes.
    """
    if not model.functions:
        return model
    bodies = {(f.domain, f.name): f for f in model.functions}
    sizes = _sizes(bodies, where, most)
    total = sum(sizes.get((n.domain, n.op_type), 1) for n in _every(model.graph.node))
    if total > most:
        raise ModelError(where, f"functions that become {_count(total)} nodes", f"at most {most:,}")
    return onnx.inliner.inline_local_functions(model)


def _sizes(bodies: dict[Key, onnx.FunctionProto], where: str, most: int) -> dict[Key, int]:
    """Nodes that each function becomes, those it calls first; without recursion, for files may nest deeply."""
    calls = {key: [(n.domain, n.op_type) for n in _every(body.node)] for key, body in bodies.items()}
    sizes: dict[Key, int] = {}
    for start in calls:
        path: list[Key] = [start]
        while path:
            key = path[-1]
            missing = next((c for c in calls[key] if c in calls and c not in sizes), None)
            if missing in path:
                circle = " -> ".join(name for _, name in (*path[path.index(missing) :], missing))
                raise ModelError(where, f"functions that call each other: {circle[:200]}", "functions without a circle")
            if missing is not None:
                path.append(missing)
                continue
            sizes[key] = min(sum(sizes.get(c, 1) for c in calls[key]), 1 << 62)
            path.pop()
    return sizes


def _every(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, those of their subgraphs included."""
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                stack.extend(graph.node)


def _count(total: int) -> str:
    return f"{total:,}" if total < 1 << 62 else "over 10^18"
