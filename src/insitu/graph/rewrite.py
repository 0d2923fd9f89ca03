"""Building blocks of passes: write nodes with inferred types, drop what nobody reads, rename values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from insitu.graph.graph import Array, Attr, Graph, Node, const_type
from insitu.graph.ops.shapes import infer
from insitu.graph.types import TensorType


class Names:
    """Hands out names that nobody uses yet: `base`, else `base_2`, `base_3`, ..."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._counts: dict[str, int] = {}

    def reserve(self, names: Iterable[str]) -> None:
        """Marks names as used."""
        self._taken.update(names)

    def fresh(self, base: str) -> str:
        """A name nobody uses; it is used from now on."""
        name = base
        while name in self._taken:
            self._counts[base] = self._counts.get(base, 1) + 1
            name = f"{base}_{self._counts[base]}"
        self._taken.add(name)
        return name


class Builder:
    """Collects nodes in execution order; every emitted node gets its output types by the shape rules."""

    def __init__(
        self, types: Mapping[str, TensorType], constants: Mapping[str, Array], *, taken: Iterable[str] = ()
    ) -> None:
        self.types = dict(types)
        self.constants = dict(constants)
        self.nodes: list[Node] = []
        self._values = Names((*self.types, *self.constants, *taken))
        self._node_names = Names()

    def fresh(self, base: str) -> str:
        """A value name nobody uses yet."""
        return self._values.fresh(base)

    def constant(self, base: str, array: Array) -> str:
        """Adds a constant under a fresh name."""
        name = self.fresh(base)
        self.constants[name] = array
        self.types[name] = const_type(array)
        return name

    def add(self, node: Node, *, typed: bool = False) -> str:
        """Appends a node; `typed` says that its output types are known already."""
        name = self._node_names.fresh(node.name)
        node = node if name == node.name else replace(node, name=name)
        if not typed:
            for value, kind in zip(node.outputs, infer(node, self.types, self.constants), strict=True):
                old = self.types.get(value)  # real numbers keep the codes that their model gives them
                given = old.quant if old is not None and kind.dtype == "f32" else None
                self.types[value] = kind if given is None else replace(kind, quant=given)
        self._values.reserve(node.outputs)
        self.nodes.append(node)
        return node.output

    def emit(
        self, op: str, inputs: Sequence[str], *, name: str, output: str = "", attrs: Mapping[str, Attr] | None = None
    ) -> str:
        """Appends one operation named `name`; its output is `output`, or called like the node."""
        output = output or self.fresh(name)
        return self.add(Node(name, op, tuple(inputs), (output,), dict(attrs or {})))

    def finish(self, graph: Graph) -> Graph:
        """`graph` with the nodes collected here, those nobody reads left out."""
        types = {**graph.types, **self.types}
        return live(graph.with_nodes(self.nodes, types=types, constants=self.constants))


def pinned(graph: Graph) -> set[str]:
    """Values whose names the outside world knows: inputs, outputs and states."""
    return {*graph.inputs, *graph.outputs, *(v for s in graph.states for v in (s.input, s.output))}


def live(graph: Graph) -> Graph:
    """The graph without nodes whose results reach no output and no state."""
    wanted = {*graph.outputs, *(s.output for s in graph.states)}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    return graph.with_nodes(reversed(kept))


def renamed(nodes: Iterable[Node], names: Mapping[str, str]) -> list[Node]:
    """The nodes with their inputs renamed; chains of renames are followed."""
    if not names:
        return list(nodes)

    def final(value: str) -> str:
        while value in names:
            value = names[value]
        return value

    return [replace(n, inputs=tuple(final(v) for v in n.inputs)) for n in nodes]


def drop_copies(graph: Graph) -> Graph:
    """Removes Reshapes that change nothing, where the names of inputs, outputs and states allow it."""
    fixed, producers = pinned(graph), graph.producers()
    aliases: dict[str, str] = {}  # a value -> the one that replaces it
    outputs: dict[str, str] = {}  # a produced value -> the output name it takes over
    kept: list[Node] = []
    for node in graph.nodes:
        source = node.inputs[0] if node.inputs else ""
        if not is_copy(node, graph.types):
            kept.append(node)
            continue
        while source in aliases:
            source = aliases[source]
        if node.output not in fixed:
            aliases[node.output] = source
        elif source in producers and source not in fixed and source not in outputs:
            outputs[source] = node.output
        else:
            kept.append(node)
    names = {**aliases, **outputs}
    nodes = [replace(n, outputs=tuple(outputs.get(o, o) for o in n.outputs)) for n in renamed(kept, names)]
    return live(graph.with_nodes(nodes))


def is_copy(node: Node, types: Mapping[str, TensorType]) -> bool:
    """True for a Reshape to the shape its input has already."""
    return node.op == "Reshape" and types[node.inputs[0]].shape == types[node.output].shape
