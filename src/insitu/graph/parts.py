"""The float reference of a graph with operators of the host: stretches of ONNX between them, sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.graph.graph import Graph, Node
from insitu.graph.types import HOST
from insitu.isa.host import run_host

Array = npt.NDArray[Any]
Session = Callable[[Mapping[str, Array], Sequence[str]], list[Array]]


@dataclass(frozen=True)
class Part:
    """Nodes that run together: one Host node, or a stretch without any with what it reads and hands on."""

    nodes: tuple[Node, ...]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    @property
    def hosted(self) -> bool:
        """Whether this is an operator of the host."""
        return self.nodes[0].op == "Host"


def parts_of(graph: Graph, wanted: Sequence[str]) -> list[Part]:
    """The graph's nodes in execution order, cut at Host nodes."""
    hosted = {i for i, n in enumerate(graph.nodes) if n.op == "Host"}
    return cut_parts(graph, wanted, frozenset({*hosted, *(i + 1 for i in hosted)}))


def cut_parts(graph: Graph, wanted: Sequence[str], starts: Container[int]) -> list[Part]:
    """The graph's nodes in execution order, cut before the nodes of these indices."""
    stretches: list[list[Node]] = []
    for index, node in enumerate(graph.nodes):
        if index in starts or not stretches:
            stretches.append([])
        stretches[-1].append(node)
    needed = set(wanted)
    out: list[Part] = []
    for nodes in reversed(stretches):
        made = {v for n in nodes for v in n.outputs if v}
        reads = tuple(dict.fromkeys(v for n in nodes for v in n.inputs if v and v not in made | graph.constants.keys()))
        out.append(Part(tuple(nodes), reads, tuple(sorted(made & needed))))
        needed |= set(reads)
    return out[::-1]


def stretch(graph: Graph, part: Part) -> Graph:
    """A part without Host nodes as a graph of its own."""
    whole = replace(graph, inputs=part.reads, outputs=part.writes, states=())
    return whole.with_nodes(part.nodes)


def run_parts(
    graph: Graph, parts: Sequence[Part], feeds: Mapping[str, Any], session: Callable[[int], Session]
) -> dict[str, Any]:
    """Every value that parts hand on, and the inputs, for one sample; `session` runs the part of an index."""
    values: dict[str, Any] = dict(feeds)
    for index, part in enumerate(parts):
        if part.hosted:
            node = part.nodes[0]
            operands = [values[v] if v in values else graph.constants[v] for v in node.inputs if v]
            found = run_host(str(node.attr("model")), operands)
            for value, array in zip((v for v in node.outputs if v), found, strict=True):
                values[value] = array if graph.types[value].dtype == HOST else np.asarray(array)
        elif part.writes:
            found = session(index)({v: values[v] for v in part.reads}, part.writes)
            values.update(zip(part.writes, found, strict=True))
    return values
