"""Which values of a captured graph stay plain numbers in the quantized one, because only the host works on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from insitu.graph.graph import Graph, Node

MOVES = ("Reshape", "Transpose", "Slice", "Pad", "Concat", "Flatten", "Squeeze", "Unsqueeze")


def plain_values(graph: Graph) -> frozenset[str]:
    """Values without codes: other element types than f32, and what runs from host operators or inputs to the host.

    A value that one reader on the chip needs has codes for all readers.
    """
    other = {v for v, kind in graph.types.items() if kind.dtype != "f32"}
    if not other and not any(n.op == "Host" for n in graph.nodes):
        return frozenset()
    fixed = {v for s in graph.states for v in (s.input, s.output)}
    readers = graph.consumers()
    found = {v for v in graph.inputs if readers.get(v)}
    for node in graph.nodes:
        moved = node.op in MOVES and all(v in found for v in node.inputs)
        found.update(v for v in node.outputs if v and (node.op == "Host" or moved))
    found -= fixed
    while True:
        wrong = {v for v in found if not _stays(graph, v, found, readers)}
        wrong |= {
            v for n in graph.nodes if n.op in MOVES for v in n.outputs if v in found and not found.issuperset(n.inputs)
        }
        if not wrong:
            return frozenset(found | other)
        found -= wrong


def _stays(graph: Graph, value: str, found: set[str], readers: Mapping[str, Sequence[Node]]) -> bool:
    made = graph.producer(value)
    mine = readers.get(value, [])
    fine = all(n.op == "Host" or (n.op in MOVES and n.output in found) for n in mine)
    return fine and (bool(mine) or made is not None)
