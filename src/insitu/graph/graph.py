"""Graph: an immutable network in SSA form, one type for every stage of the compiler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from insitu.graph.types import TensorType

Scalar = bool | int | float | str
Attr = Scalar | tuple[Scalar, ...]
Level = Literal["captured", "quantized", "placed"]
LEVELS: tuple[Level, ...] = ("captured", "quantized", "placed")
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Node:
    """One operation: ONNX name and semantics; an absent optional input is the empty string."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict[str, Attr])

    @property
    def output(self) -> str:
        """The first (for most operators the only) output."""
        return self.outputs[0]

    def attr(self, name: str, default: Any = None) -> Any:
        """The attribute `name`, or `default` where it is absent."""
        return self.attrs.get(name, default)


@dataclass(frozen=True)
class State:
    """A value carried from one step to the next: `input` at the next step is `output` of this one."""

    input: str
    output: str


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order over typed values; `constants` holds weights and tables by value name.

    `meta` carries facts about the model as a whole (parameters, fallbacks), never semantics.
    """

    name: str
    level: Level
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, Array] = field(default_factory=dict[str, Array])
    states: tuple[State, ...] = ()
    meta: Mapping[str, Attr] = field(default_factory=dict[str, Attr])

    def type(self, value: str) -> TensorType:
        """The type of a value."""
        return self.types[value]

    def producer(self, value: str) -> Node | None:
        """The node that writes a value; none for inputs and constants."""
        return self._producers.get(value)

    def producers(self) -> dict[str, Node]:
        """Value name -> the node that writes it."""
        return dict(self._producers)

    def consumers(self) -> Mapping[str, Sequence[Node]]:
        """Value name -> the nodes that read it, in order; found once, for passes ask for each value."""
        return self._consumers

    @cached_property
    def _producers(self) -> dict[str, Node]:
        return {o: n for n in self.nodes for o in n.outputs if o}

    @cached_property
    def _consumers(self) -> dict[str, list[Node]]:
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(v for v in node.inputs if v):
                readers.setdefault(value, []).append(node)
        return readers

    @property
    def state_inputs(self) -> tuple[str, ...]:
        """Names of the values that hold the previous step's state."""
        return tuple(s.input for s in self.states)

    def symbols(self) -> tuple[str, ...]:
        """Names of all sizes bound at run time."""
        return tuple(dict.fromkeys(s for t in self.types.values() for s in t.symbols))

    def bind(self, sizes: Mapping[str, int]) -> Graph:
        """The graph with named sizes replaced by numbers."""
        known = dict(sizes)
        nodes = tuple(_bound(n, known) if isinstance(n.attr("shape"), tuple) else n for n in self.nodes)
        return replace(self, nodes=nodes, types={v: t.bind(known) for v, t in self.types.items()})

    def with_nodes(
        self,
        nodes: Iterable[Node],
        *,
        types: Mapping[str, TensorType] | None = None,
        constants: Mapping[str, Array] | None = None,
    ) -> Graph:
        """A copy with these nodes; types and constants nobody refers to are dropped."""
        nodes = tuple(nodes)
        all_types = {**self.types, **(types or {})}
        all_constants = {**self.constants, **(constants or {})}
        used = {*self.inputs, *self.outputs, *(v for s in self.states for v in (s.input, s.output))}
        used.update(v for n in nodes for v in (*n.inputs, *n.outputs) if v)
        return replace(
            self,
            nodes=nodes,
            types={v: t for v, t in all_types.items() if v in used},
            constants={v: c for v, c in all_constants.items() if v in used},
        )

    def __str__(self) -> str:
        from insitu.graph.text import print_graph

        return print_graph(self, weights=False)


def _bound(node: Node, sizes: Mapping[str, int]) -> Node:
    """The node with named sizes in its target shape replaced by numbers."""
    shape = tuple(sizes.get(d, d) if isinstance(d, str) else d for d in node.attr("shape"))
    return replace(node, attrs={**node.attrs, "shape": shape})


def const_type(array: Array) -> TensorType:
    """The type of a constant as stored."""
    names = {"float32": "f32", "float16": "f16", "float64": "f64", "bool": "bool"}
    name = names.get(array.dtype.name) or array.dtype.name.replace("uint", "u").replace("int", "i")
    return TensorType(tuple(array.shape), name)


def topological(nodes: Sequence[Node], known: Iterable[str]) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """(nodes in execution order, nodes that can never run); stable, so an ordered list keeps its order."""
    ready = {"", *known}
    readers: dict[str, list[int]] = {}
    missing: list[int] = []
    for index, node in enumerate(nodes):
        wanted = {v for v in node.inputs if v not in ready}
        missing.append(len(wanted))
        for value in wanted:
            readers.setdefault(value, []).append(index)
    import heapq

    queue = [i for i, count in enumerate(missing) if count == 0]
    heapq.heapify(queue)
    order: list[int] = []
    while queue:
        index = heapq.heappop(queue)
        order.append(index)
        for value in nodes[index].outputs:
            for reader in readers.pop(value, ()):
                missing[reader] -= 1
                if missing[reader] == 0:
                    heapq.heappush(queue, reader)
    done = set(order)
    return tuple(nodes[i] for i in order), tuple(n for i, n in enumerate(nodes) if i not in done)


def float_array(values: object) -> npt.NDArray[np.float32]:
    """Any array-like as float32."""
    return np.asarray(values, np.float32)
