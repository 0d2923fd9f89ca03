"""Scales that a model brings along (`quant` on real values of a captured graph), made to suit a chip.

A chip whose vector unit only shifts takes none of them: what is left is the float network.  Elsewhere every given spec
stays, and where codes have to change their form on the way (signed rows, wider weights than a cell) that is exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.errors import ModelError
from insitu.compiler import canonicalize, fuse
from insitu.compiler.draft import MOVES, follow, is_weight_layer
from insitu.graph.graph import Graph, Node, const_type
from insitu.graph.rewrite import Names
from insitu.graph.types import TensorType
from insitu.numeric.affine import QuantSpec

Array = npt.NDArray[Any]
MOST_PARTS = 4  # rows a weight may take where one cell does not hold it
WIDE_BITS = 16  # of the negative of a value


def run(graph: Graph, chip: Chip) -> Graph:
    """The canonical captured graph with the scales that the chip can take from its model."""
    if not brings(graph):
        return graph
    if not takes_scales(chip):
        return without(graph)
    work = _Work(graph, chip, given(graph))
    work.spread()
    work.settle()
    work.signs()
    work.weights()
    return work.finish()


def brings(graph: Graph) -> bool:
    """True for a captured graph whose model came quantized, values or weights."""
    return graph.level == "captured" and any(t.quant is not None for t in graph.types.values())


def given(graph: Graph) -> dict[str, QuantSpec]:
    """Values (not constants) whose codes the model fixes."""
    values = {v: t.quant for v, t in graph.types.items() if v not in graph.constants and t.dtype == "f32"}
    return {v: q for v, q in values.items() if q is not None} if graph.level == "captured" else {}


def given_weights(graph: Graph, node: Node) -> QuantSpec | None:
    """What the model says of a weight layer's codes."""
    return graph.types[node.inputs[1]].quant if is_weight_layer(graph, node) else None


def origin(graph: Graph, *, had: bool) -> dict[str, int | str] | None:
    """How many values have their model's scale, how many took one from calibration; none for a float model."""
    if not had:
        return None
    values = [*graph.inputs, *(n.output for n in graph.nodes)]
    kept = given(graph)
    layers = [n for n in graph.nodes if is_weight_layer(graph, n)]
    own = [n for n in layers if given_weights(graph, n) is not None]
    rest = sum(v not in kept for v in values)
    source = "model" if kept or own else "re-derived: this chip's vector unit only shifts"
    return {"source": source, "values": len(values) - rest, "calibrated_values": rest, "layers": len(own),
            "calibrated_layers": len(layers) - len(own)}  # fmt: skip


def complete(graph: Graph, chip: Chip) -> bool:
    """True where the model fixes everything, so that no value has to be seen."""
    kept = given(graph)
    values = (*graph.inputs, *(n.output for n in graph.nodes))
    layers = (n for n in graph.nodes if is_weight_layer(graph, n))
    whole = not graph.states and all(v in kept for v in values)
    return whole and chip.macro.readout.kind == "exact" and all(given_weights(graph, n) is not None for n in layers)


def takes_scales(chip: Chip) -> bool:
    """True for a chip that can requantize by any factor."""
    return chip.capabilities.scales != "power_of_two" and chip.macro.readout.kind != "wtm2101"


def without(graph: Graph) -> Graph:
    """The float network alone, for scales of our own."""
    types = {v: replace(t, quant=None) for v, t in graph.types.items()}
    constants = {v: c.astype(np.float32) if c.dtype == np.float64 else c for v, c in graph.constants.items()}
    types |= {v: const_type(c) for v, c in constants.items()}
    nodes = (
        replace(n, op="Reshape", attrs={"shape": types[n.output].shape}) if n.op == "Requantize" else n
        for n in graph.nodes
    )
    bare = replace(graph, types=types, constants=constants).with_nodes(nodes)
    return fuse.run(canonicalize.run(bare))


@dataclass
class _Work:
    """The graph and its specs while they are made to suit."""

    graph: Graph
    chip: Chip
    specs: dict[str, QuantSpec]
    types: dict[str, TensorType] = field(default_factory=dict[str, TensorType])
    constants: dict[str, Array] = field(default_factory=dict[str, Array])
    borders: dict[str, QuantSpec] = field(default_factory=dict[str, QuantSpec])  # of integer inputs and outputs

    def __post_init__(self) -> None:
        self.names = Names(self.graph.types)
        self.inside: dict[str, str] = {}  # what an integer input or output is called where rows are driven with it

    def finish(self) -> Graph:
        """The graph with its specs in its types."""
        types = {**self.graph.types, **self.types}
        types |= {v: replace(types[v], quant=spec) for v, spec in self.specs.items()}
        return self.graph.with_nodes(self.graph.nodes, types=types, constants=self.constants)

    def value(self, base: str, like: str, spec: QuantSpec | None, *, shape: Iterable[int | str] | None = None) -> str:
        """A new value of the type of another one."""
        name = self.names.fresh(base)
        kind = self.graph.types.get(like) or self.types[like]
        self.types[name] = TensorType(kind.shape if shape is None else tuple(shape), "f32")
        if spec is not None:
            self.specs[name] = spec
        return name

    def replaced(self, nodes: Iterable[Node]) -> None:
        """The graph with these nodes."""
        types, constants = {**self.graph.types, **self.types}, {**self.graph.constants, **self.constants}
        self.graph = replace(self.graph, nodes=tuple(nodes), types=types, constants=constants)

    # specs through operators that move codes

    def spread(self) -> None:
        """What only moves has one spec on both sides; a value's negative has its scale."""
        for node in reversed(self.graph.nodes):
            spec = self.specs.get(node.output)
            if spec is None or spec.axis is not None or node.op not in (*MOVES, "Concat"):
                continue
            for value in node.inputs:
                if value not in self.graph.constants and value not in self.specs:
                    self.specs[value] = spec
        for node in self.graph.nodes:
            self._forward(node)

    def _forward(self, node: Node) -> None:
        spec = self.specs.get(node.inputs[0])
        if spec is None or node.output in self.specs:
            return
        if node.op in MOVES:
            moved = follow(self.graph, node, spec)
            if moved is not None:
                self.specs[node.output] = moved
        elif node.op == "Concat" and len({self.specs.get(v) for v in node.inputs}) == 1:
            self.specs[node.output] = spec
        elif _negates(self.graph, node) and spec.axis is None and spec.bits < WIDE_BITS:
            self.specs[node.output] = QuantSpec(WIDE_BITS, signed=True, scale=spec.scale)

    def settle(self) -> None:
        """A Requantize behind what moves codes into a value with other ones."""
        nodes: list[Node] = []
        for node in self.graph.nodes:
            before, after = self.specs.get(node.inputs[0]), self.specs.get(node.output)
            moved = follow(self.graph, node, before) if node.op in MOVES and before is not None else None
            if moved is None or after is None or moved == after:
                nodes.append(node)
                continue
            between = self.value(f"{node.output}.moved", node.output, moved)
            nodes.append(replace(node, outputs=(between,)))
            nodes.append(Node(f"{node.name}.codes", "Requantize", (between,), node.outputs))
        self.replaced(nodes)

    # codes that rows can be driven with

    def signs(self) -> None:
        """Codes that drive rows are signed where the rows are, unsigned elsewhere; the numbers stay what they are."""
        driven = {n.inputs[0] for n in self.graph.nodes if is_weight_layer(self.graph, n)}
        moved = self._sharing(v for v in driven if v in self.specs and self._off(self.specs[v], v))
        fixed = [v for v in (*self._ends("coded_inputs"), *self._ends("coded_outputs")) if v in moved]
        for value in fixed:
            self._bordered(value)
        for value in moved:
            spec = self.specs[value]
            half = 1 << (spec.bits - 1)
            zero = spec.zero_point - half if self.chip.macro.input.signed else spec.zero_point + half
            self.specs[value] = replace(spec, signed=self.chip.macro.input.signed, zero_point=zero)
        for value in fixed:  # the model's own integers stay at the borders
            self.specs[self.inside[value]], self.specs[value] = self.specs[value], self.borders[value]

    def _ends(self, kind: str) -> tuple[str, ...]:
        found = self.graph.meta.get(kind, ())
        return tuple(str(v) for v in found) if isinstance(found, tuple) else ()

    def _off(self, spec: QuantSpec, value: str) -> bool:
        """Whether codes have to change their form for the rows; ModelError where they are too wide."""
        lo, hi = self.chip.input_range
        if lo <= spec.lo and spec.hi <= hi:
            return False
        if spec.bits <= self.chip.macro.input.bits:
            return True
        got = f"codes of {spec.bits} bits drive a weight layer"
        need = f"at most {self.chip.macro.input.bits} bits, what the rows of {self.chip.name} take"
        raise ModelError(f"value {value!r}", got, need, try_=("quantize activations to 8 bits",))

    def _sharing(self, values: Iterable[str]) -> set[str]:
        """The values and all that have their codes because only moves lie between."""
        found = set(values)
        while True:
            more = {
                v
                for n in self.graph.nodes
                if n.op in (*MOVES, "Concat")
                for v in (*n.inputs, n.output)
                if v in self.specs and found & {*n.inputs, n.output} and self._alike(n, v, found)
            } - found
            if not more:
                return found
            found |= more

    def _alike(self, node: Node, value: str, found: set[str]) -> bool:
        """Whether a value of a move has the codes of one that is in `found`."""
        known = [self.specs[v] for v in (*node.inputs, node.output) if v in found]
        return any((k.bits, k.signed, k.zero_point) == _form(self.specs[value]) for k in known)

    def _bordered(self, value: str) -> None:
        """A Requantize between an integer input or output and the codes inside."""
        inside = self.value(f"{value}.rows", value, None)
        outward = value in self.graph.outputs
        nodes = [replace(n, inputs=tuple(inside if v == value else v for v in n.inputs)) for n in self.graph.nodes]
        self.borders[value], self.inside[value] = self.specs[value], inside
        if outward:
            nodes = [replace(n, outputs=tuple(inside if v == value else v for v in n.outputs)) for n in nodes]
            nodes.append(Node(f"{value}.codes", "Requantize", (inside,), (value,)))
        else:
            nodes.insert(0, Node(f"{value}.codes", "Requantize", (value,), (inside,)))
        self.replaced(nodes)

    # weights

    def weights(self) -> None:
        """Weights that a cell does not hold take several rows; those that rows cannot sum lose their spec."""
        nodes: list[Node] = []
        for node in self.graph.nodes:
            spec = given_weights(self.graph, node)
            nodes += [node] if spec is None else self._weights(node, spec)
        self.replaced(nodes)

    def _weights(self, node: Node, spec: QuantSpec) -> list[Node]:
        name = node.inputs[1]
        out = 0 if node.op == "Conv" else 1
        codes = weight_steps(self.graph.constants[name], spec)
        parts = self._parts(codes)
        if spec.axis not in (None, out) or parts > MOST_PARTS:
            self.types[name] = replace(self.graph.types[name], quant=None)
            return [node]
        return [node] if parts == 1 else self._split(node, spec, codes, parts)

    def _parts(self, codes: Array) -> int:
        """Cells that one weight needs; a converter's error is larger than that of a -128 read as -127."""
        lo, hi = self.chip.weight_range
        low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
        if self.chip.macro.readout.kind != "exact" and low == lo - 1:
            low = lo
        return max(1, -(-low // lo) if lo < 0 else MOST_PARTS + 1, -(-high // hi))

    def _split(self, node: Node, spec: QuantSpec, codes: Array, parts: int) -> list[Node]:
        """The layer on `parts` copies of its input: floor((q + i) / parts) over i adds up to q."""
        axis = 1 if node.op == "Conv" else 0
        small = np.concatenate([(codes + i) // parts for i in range(parts)], axis=axis)
        fits = replace(spec, bits=8, scale=spec.scale)
        weight = self.names.fresh(f"{node.inputs[1]}.parts")
        self.constants[weight] = (small * fits.scales(small.ndim)).astype(np.float32)
        self.types[weight] = TensorType(small.shape, "f32", fits)
        copies, value = self._copies(node, parts)
        return [*copies, replace(node, inputs=(value, weight, *node.inputs[2:]))]

    def _copies(self, node: Node, parts: int) -> tuple[list[Node], str]:
        """(nodes, value): the input beside itself, within each group of channels."""
        source, spec = node.inputs[0], self.specs.get(node.inputs[0])
        shape, groups = list(self.graph.types[source].shape), int(node.attr("group", 1))
        axis = 1 if node.op == "Conv" else len(shape) - 1
        wide = [int(d) * parts if i == axis else d for i, d in enumerate(shape)]
        if groups == 1:
            value = self.value(f"{node.name}.copies", source, spec, shape=wide)
            return [Node(value, "Concat", (source,) * parts, (value,), {"axis": axis})], value
        each = [shape[0], groups, int(shape[1]) // groups, *shape[2:]]
        many = [*each[:2], int(each[2]) * parts, *each[3:]]
        names = [
            self.value(f"{node.name}.{word}", source, spec, shape=s)
            for word, s in (("groups", each), ("copies", many), ("wide", wide))
        ]
        ops = [
            Node(names[0], "Reshape", (source,), (names[0],), {"shape": tuple(each)}),
            Node(names[1], "Concat", (names[0],) * parts, (names[1],), {"axis": 2}),
            Node(names[2], "Reshape", (names[1],), (names[2],), {"shape": tuple(wide)}),
        ]
        return ops, names[2]


def _form(spec: QuantSpec) -> tuple[int, bool, int]:
    return spec.bits, spec.signed, spec.zero_point


def weight_steps(real: Array, spec: QuantSpec) -> npt.NDArray[np.int64]:
    """The codes of weights given as real numbers; exact, for a float32 holds each code's product to half a unit."""
    return np.rint(np.asarray(real, np.float64) / spec.scales(real.ndim)).astype(np.int64)


def _negates(graph: Graph, node: Node) -> bool:
    """True for a product with -1, as a difference is written."""
    constant = graph.constants.get(node.inputs[1]) if node.op == "Mul" else None
    return constant is not None and bool(np.all(constant == -1.0))
