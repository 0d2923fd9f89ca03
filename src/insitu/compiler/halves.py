"""Attention over half-precision caches: keys and values as fp16 numbers, sums exact and rounded to fp32, codes again.

A quantized graph has products of two run-time operands in codes.  Here they become products of numbers: both sides are
dequantized where they are computed and rounded to fp16 (caches hold those), and sums return to the codes that the
graph had, so that all around them stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.graph.graph import Attr, Graph, Node
from insitu.graph.types import TensorType
from insitu.numeric.affine import QuantSpec

MOVES = ("Reshape", "Transpose", "Gather")  # Gather: of pages of a cache


def halved(graph: Graph) -> Graph:
    """The graph with its run-time products, and the states that they read, in fp16."""
    products = [n for n in graph.nodes if n.op == "MatMul" and n.inputs[1] not in graph.constants]
    work = _Halves(graph)
    for node in products:
        work.want(node.inputs[0])
        work.want(node.inputs[1])
    nodes: list[Node] = []
    names = {n.name for n in products}
    for node in graph.nodes:
        nodes += work.product(node) if node.name in names else work.beside(node)
    return replace(graph, types=work.types).with_nodes(nodes, constants=work.constants)


@dataclass
class _Halves:
    graph: Graph
    wanted: dict[str, str] = field(default_factory=dict[str, str])  # value of codes: its fp16 numbers
    types: dict[str, TensorType] = field(default_factory=dict[str, TensorType])
    constants: dict[str, npt.NDArray[Any]] = field(default_factory=dict[str, npt.NDArray[Any]])

    def __post_init__(self) -> None:
        self.types = dict(self.graph.types)

    def want(self, value: str) -> None:
        """Note that a value is needed in fp16: moves and caches hold numbers all the way."""
        if value in self.wanted:
            return
        node = self.graph.producer(value)
        if node is not None and self._caches(node):
            self.wanted[value] = value
            self.want(node.inputs[2])
            for name in (value, node.inputs[0]):
                self.types[name] = TensorType(self.graph.type(name).shape, "f16")
            return
        self.wanted[value] = f"{value}.half"
        self.types[f"{value}.half"] = TensorType(self.graph.type(value).shape, "f16")
        if node is not None and node.op in MOVES:
            self.want(node.inputs[0])

    def _caches(self, node: Node | None) -> bool:
        return node is not None and node.op == "Scatter" and node.inputs[0] in self.graph.state_inputs

    def beside(self, node: Node) -> Iterator[Node]:
        """A node as it is, and behind it what makes its output fp16 where that is wanted."""
        half = self.wanted.get(node.output) if node.outputs else None
        if half == node.output:
            yield replace(node, inputs=(*node.inputs[:2], self.wanted[node.inputs[2]]))
            return
        if half is None or node.op not in MOVES or self._others_read(node.output):
            yield node
        if half is not None and node.op in MOVES:
            yield replace(node, name=half, inputs=(self.wanted[node.inputs[0]], *node.inputs[1:]), outputs=(half,))
        elif half is not None:
            yield from self._numbers(node.output, half)

    def _others_read(self, value: str) -> bool:
        """Whether somebody wants the codes of a value that is moved: caches, moves and products do not."""
        readers = self.graph.consumers().get(value, ())
        return value in self.graph.outputs or any(
            not (self._caches(r) or r.op == "MatMul" or (r.op in MOVES and not self._others_read(r.output)))
            for r in readers
        )

    def _numbers(self, value: str, half: str) -> Iterator[Node]:
        kind = self.graph.type(value)
        assert kind.quant is not None
        wide = f"{value}.numbers"
        self.types[wide] = TensorType(kind.shape, "f32")
        yield Node(wide, "DQ", (value, *self._scaling(value, kind.quant, kind.dtype)), (wide,), {})
        yield Node(half, "CVT", (wide,), (half,), {"to": "f16"})

    def product(self, node: Node) -> Iterator[Node]:
        """Sums of products of fp16 numbers in fp32, as codes."""
        kind = self.graph.type(node.output)
        assert kind.quant is not None
        sums, whole = f"{node.output}.sums", _fills(kind.quant, kind.dtype)
        coded = node.output if whole else f"{node.output}.wide"
        self.types[sums] = TensorType(kind.shape, "f32")
        yield Node(sums, "MMA", tuple(self.wanted[v] for v in node.inputs[:2]), (sums,), {"to": "f32"})
        scaling, to = self._scaling(node.output, kind.quant, kind.dtype), {"to": kind.dtype}
        if whole:
            yield from self._coded(node, Node(node.name, "Q", (sums, *scaling), (coded,), to))
            return
        bits = int(kind.dtype[1:])
        self.types[coded] = replace(kind, quant=replace(kind.quant, bits=bits))
        yield Node(coded, "Q", (sums, *scaling), (coded,), to)
        attrs: dict[str, Attr] = {"multiplier": 1, "shift": 0, "rounding": "half_even",
                                  "lo": kind.quant.lo, "hi": kind.quant.hi}  # fmt: skip
        yield from self._coded(node, Node(node.name, "Requantize", (coded,), (node.output,), attrs))

    def _coded(self, node: Node, last: Node) -> Iterator[Node]:
        yield last
        half = self.wanted.get(node.output)
        yield from () if half is None else self._numbers(node.output, half)

    def _scaling(self, value: str, quant: QuantSpec, dtype: str) -> Sequence[str]:
        names = f"{value}.scale", f"{value}.zero"
        element = (
            {"i": np.int8, "u": np.uint8}[dtype[0]] if dtype[1:] == "8" else {"i": np.int16, "u": np.uint16}[dtype[0]]
        )
        self.constants[names[0]] = np.asarray(quant.scale[0], np.float32)
        self.constants[names[1]] = np.asarray(quant.zero_point, element)
        self.types[names[0]], self.types[names[1]] = TensorType((), "f32"), TensorType((), dtype)
        return names


def _fills(quant: QuantSpec, dtype: str) -> bool:
    """Whether codes use all of their element type."""
    return quant.bits == int(dtype[1:])
