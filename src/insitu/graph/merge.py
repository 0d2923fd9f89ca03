"""Several networks as one: their nodes side by side, so that they share a chip; names stay where they are unique."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from insitu.base.errors import ModelError
from insitu.graph.graph import Attr, Graph, Node, State


def merge(graphs: Sequence[Graph], *, name: str = "") -> Graph:
    """One graph that computes all of them; a name that two of them use gets its network's in front."""
    levels = {g.level for g in graphs}
    if len(levels) != 1:
        raise ModelError("networks", f"graphs at the levels {', '.join(sorted(levels))}", "networks of one kind")
    titles = _unique([g.name for g in graphs])
    taken = [_names(g) for g in graphs]
    shared = {n for i, own in enumerate(taken) for n in own for other in taken[i + 1 :] if n in other}
    parts = [_renamed(g, title, shared) for g, title in zip(graphs, titles, strict=True)]
    return Graph(
        name or "+".join(titles),
        graphs[0].level,
        tuple(v for g in parts for v in g.inputs),
        tuple(v for g in parts for v in g.outputs),
        tuple(n for g in parts for n in g.nodes),
        {v: t for g in parts for v, t in g.types.items()},
        {v: c for g in parts for v, c in g.constants.items()},
        tuple(s for g in parts for s in g.states),
        _meta(graphs, titles),
    )


def _unique(names: Sequence[str]) -> list[str]:
    """The names, numbered where one comes again."""
    return [n if names.count(n) == 1 else f"{n}{names[: i + 1].count(n)}" for i, n in enumerate(names)]


def _names(graph: Graph) -> set[str]:
    return {*graph.types, *graph.constants, *(n.name for n in graph.nodes)}


def _renamed(graph: Graph, title: str, shared: set[str]) -> Graph:
    def new(value: str) -> str:
        return f"{title}.{value}" if value in shared else value

    def all_new(values: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(new, values))

    return replace(
        graph,
        inputs=all_new(graph.inputs),
        outputs=all_new(graph.outputs),
        nodes=tuple(_node(n, new) for n in graph.nodes),
        types={new(v): t for v, t in graph.types.items()},
        constants={new(v): c for v, c in graph.constants.items()},
        states=tuple(State(new(s.input), new(s.output)) for s in graph.states),
    )


def _node(node: Node, new: Callable[[str], str]) -> Node:
    inputs, outputs = (tuple(new(v) if v else "" for v in names) for names in (node.inputs, node.outputs))
    return replace(node, name=new(node.name), inputs=inputs, outputs=outputs)


def _meta(graphs: Sequence[Graph], titles: Sequence[str]) -> dict[str, Attr]:
    """Facts of all: counts are added up, what only some say is kept."""
    meta: dict[str, Attr] = {}
    for graph in graphs:
        meta |= dict(graph.meta)
    counts = [g.meta.get("parameters") for g in graphs]
    if all(isinstance(c, int) for c in counts):
        meta["parameters"] = sum(c for c in counts if isinstance(c, int))
    for lists in ("batch_inputs", "input_dtypes"):
        found = [g.meta.get(lists, ()) for g in graphs]
        if any(found):
            meta[lists] = tuple(v for values in found if isinstance(values, tuple) for v in values)
    meta.pop("original_names", None)
    meta["networks"] = tuple(titles)
    return meta
