"""QuantizeLinear and DequantizeLinear taken out: a float graph whose types say which codes its values are.

What is left computes in real numbers with every saturation of the codes (as Clip), without their rounding.  A value the
model quantizes has its QuantSpec in `types`; `compiler/given.py` makes a chip use it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ModelError
from insitu.frontend.qdq_spec import spec_in
from insitu.graph.graph import Attr, Graph, Node, topological
from insitu.graph.rewrite import Builder, drop_copies
from insitu.numeric.affine import QuantSpec

Array = npt.NDArray[Any]
MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Pad", "MaxPool", "Concat")
CLIPPED = (  # operators that a saturation behind them is part of, as a fused activation is
    "Conv", "Gemm", "MatMul", "Add", "Mul", "BatchNormalization", "AveragePool", "GlobalAveragePool", "ReduceMean",
    "Relu", "Clip",
)  # fmt: skip


def strip(graph: Graph, *, coded: frozenset[str] = frozenset()) -> Graph:
    """The float graph of one that holds QuantizeLinear and DequantizeLinear; `coded` inputs are given as integers.

    Raises ModelError where codes are computed with in another way than these two operators say.
    """
    if not any(n.op in ("QuantizeLinear", "DequantizeLinear") for n in graph.nodes):
        return graph
    types = {v: graph.types[v] for v in (*graph.inputs, *graph.constants)}
    taken = [v for n in graph.nodes for v in n.outputs]
    work = _Work(graph, Builder(types, graph.constants, taken=taken), coded)
    for node in graph.nodes:
        rule = {"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize}.get(node.op, _other)
        rule(work, node)
    return work.finish()


@dataclass
class _Work:
    """The graph while it is written: what each value became, and the specs the model gives."""

    graph: Graph
    builder: Builder
    coded: frozenset[str]
    alias: dict[str, str] = field(default_factory=dict[str, str])
    specs: dict[str, QuantSpec] = field(default_factory=dict[str, QuantSpec])
    clips: dict[str, str] = field(default_factory=dict[str, str])  # a value -> the same within its codes

    def now(self, value: str) -> str:
        """What a value of the file is called here."""
        value = self.alias.get(value, value)
        return self.clips.get(value, value)

    def made(self, value: str) -> Node | None:
        """The node that writes a value."""
        return next((n for n in reversed(self.builder.nodes) if value in n.outputs), None)

    def source(self, value: str) -> tuple[str, Node | None]:
        """The value behind operators that only move, up to one with a spec, and what writes it."""
        node = self.made(value)
        while value not in self.specs and node is not None and node.op in MOVES and node.op != "Concat":
            value = node.inputs[0]
            node = self.made(value)
        return value, node

    def give(self, value: str, spec: QuantSpec) -> str:
        """The value with this spec: within its codes where an operator in front can do that."""
        root, node = self.source(value)
        if node is not None and node.op == "Concat" and root not in self.specs:
            self._give_parts(node, spec)
        if root in self.specs or node is None or node.op not in CLIPPED or spec.axis is not None:
            self.specs[value] = spec
            return value
        scale, zero = spec.scale[0], spec.zero_point
        bounds = {"lo": float((spec.lo - zero) * scale), "hi": float((spec.hi - zero) * scale)}
        name = self.builder.emit("Clip", [value], name=f"{value}.codes", attrs=bounds)
        self.specs[name] = spec
        self.clips[value] = name
        return name

    def _give_parts(self, concat: Node, spec: QuantSpec) -> None:
        """Inputs of a Concat that have no spec take that of its result."""
        for value in dict.fromkeys(concat.inputs):
            if value not in self.builder.constants and value not in self.specs and self.clips.get(value) is None:
                root, _ = self.source(value)
                if root not in self.specs:
                    self.give(value, spec)

    def finish(self) -> Graph:
        """The float graph: every reader of a value reads it within its codes."""
        self._outputs()
        nodes = [
            n if n.op == "Clip" and self.clips.get(n.inputs[0]) == n.output else self._within(n)
            for n in self.builder.nodes
        ]
        known = (*self.graph.inputs, *self.builder.constants)
        order, stuck = topological(nodes, known)
        assert not stuck
        self.builder.nodes = list(order)
        for value, spec in self.specs.items():
            self.builder.types[value] = replace(self.builder.types[value], quant=spec)
        types = {v: t for v, t in self.graph.types.items() if v in self.graph.inputs}
        coded = tuple(v for v in self.graph.inputs if v in self.coded and v in self.specs)
        ends = tuple(v for v in self.graph.outputs if self.graph.types[v].dtype[0] in "iu" and v in self.specs)
        meta: dict[str, Attr] = {"coded_inputs": coded} if coded else {}
        meta |= {"coded_outputs": ends} if ends else {}
        bare = replace(self.graph, types=types, nodes=(), meta={**self.graph.meta, **meta})
        return drop_copies(self.builder.finish(bare))

    def _within(self, node: Node) -> Node:
        return replace(node, inputs=tuple(self.clips.get(v, v) for v in node.inputs))

    def _outputs(self) -> None:
        for output in self.graph.outputs:
            value = self.now(output)
            if value == output:
                continue
            shape = self.builder.types[value].shape
            if value in self.clips.values() and output not in self.alias:  # the output itself is clipped
                self._renamed(output, f"{output}.linear")
            self.builder.add(Node(f"{output}.end", "Reshape", (value,), (output,), {"shape": shape}))
            if value in self.specs:
                self.specs[output] = self.specs[value]

    def _renamed(self, old: str, new: str) -> None:
        """A value of the graph under another name, so that an output may have its own."""
        new = self.builder.fresh(new)
        self.builder.types[new] = self.builder.types[old]
        names = {old: new}
        self.builder.nodes = [
            replace(
                n,
                inputs=tuple(names.get(v, v) for v in n.inputs),
                outputs=tuple(names.get(v, v) for v in n.outputs),
            )
            for n in self.builder.nodes
        ]
        self.clips[new] = self.clips.pop(old)


def _fault(node: Node, got: str, need: str) -> ModelError:
    return ModelError(f"node {node.name!r} ({node.op})", got, need)


def _quantize(work: _Work, node: Node) -> None:
    value, spec = work.now(node.inputs[0]), spec_in(node)
    known = work.specs.get(value)
    if known is None:
        work.alias[node.output] = work.give(value, spec)
    elif known == spec:
        work.alias[node.output] = value
    else:
        name = work.builder.emit("Requantize", [value], name=node.name)
        work.specs[name] = spec
        work.alias[node.output] = name


def _dequantize(work: _Work, node: Node) -> None:
    value, spec = work.now(node.inputs[0]), spec_in(node)
    root, _ = work.source(value)
    known = work.specs.get(root)
    if known is None:
        if root not in work.coded:
            need = "codes that QuantizeLinear wrote, or an integer input"
            raise _fault(node, f"it reads {node.inputs[0]!r}, which has no scale", need)
        work.specs[value] = spec
    elif known != spec and root == value:
        value = _relabeled(work, node, value, spec)
    elif known != spec and not _same(known, spec):
        raise _fault(node, f"a scale of {spec.scale[0]:g} for codes of the scale {known.scale[0]:g}", "equal scales")
    work.alias[node.output] = value


def _same(a: QuantSpec, b: QuantSpec) -> bool:
    """Equal but for the axis, which moves may have changed."""
    return a.axis is not None and b.axis is not None and (a.bits, a.signed) == (b.bits, b.signed)


def _relabeled(work: _Work, node: Node, value: str, spec: QuantSpec) -> str:
    """Codes read with another scale than they were written with: a factor, where zero points are 0."""
    known = work.specs[value]
    if known.zero_point or spec.zero_point or known.axis is not None or spec.axis is not None:
        got = f"a scale of {spec.scale[0]:g} for codes of the scale {known.scale[0]:g}"
        raise _fault(node, got, "equal scales, or zero points of 0")
    factor = work.builder.constant(f"{node.name}_factor", np.full(1, spec.scale[0] / known.scale[0], np.float32))
    return work.builder.emit("Mul", [value, factor], name=node.name)


def _other(work: _Work, node: Node) -> None:
    codes = [v for v in node.inputs if v in work.graph.types and work.graph.types[v].dtype[0] in "iu"]
    wrong = [v for v in codes if v not in work.graph.constants]
    if wrong and node.op not in MOVES:
        raise _fault(node, f"it computes with the codes {wrong[0]!r}", "DequantizeLinear in front of it")
    inputs = tuple(work.now(v) if v else v for v in node.inputs)
    work.builder.add(_plain_gemm(work, replace(node, inputs=inputs)))


def _plain_gemm(work: _Work, node: Node) -> Node:
    """A Gemm with quantized weights as MatMul(x, w [K, N], b [N]), which keeps their codes."""
    weight: Array | None = work.builder.constants.get(node.inputs[1]) if node.op == "Gemm" else None
    quant = work.builder.types[node.inputs[1]].quant if weight is not None else None
    alpha = float(node.attr("alpha", 1.0))
    if weight is None or quant is None or alpha <= 0 or float(node.attr("beta", 1.0)) != 1.0:
        return node
    bias, turned = "".join(node.inputs[2:3]), bool(node.attr("transB", 0))
    columns = int(weight.shape[0 if turned else -1])
    if bias and work.builder.types[bias].shape not in ((columns,), (1, columns), (1,), ()):
        return node
    name = node.inputs[1]
    if turned or alpha != 1.0:
        real = np.ascontiguousarray(weight.T if turned else weight)
        name = work.builder.constant(f"{node.name}_weight", (real * alpha).astype(real.dtype))
        axis = quant.axis if quant.axis is None or not turned else 1 - quant.axis
        spec = replace(quant, axis=axis, scale=tuple(s * alpha for s in quant.scale))
        work.builder.types[name] = replace(work.builder.types[name], quant=spec)
    return replace(node, op="MatMul", inputs=(node.inputs[0], name, _bias(work, node, bias, columns)), attrs={})


def _bias(work: _Work, node: Node, bias: str, columns: int) -> str:
    if not bias:
        return work.builder.constant(f"{node.name}_bias", np.zeros(columns, np.float32))
    array, kind = work.builder.constants[bias], work.builder.types[bias]
    if array.shape == (columns,):
        return bias
    name = work.builder.constant(f"{node.name}_bias", np.broadcast_to(array.reshape(-1), (columns,)).copy())
    axis = None if kind.quant is None or kind.quant.axis is None else 0
    quant = None if kind.quant is None else replace(kind.quant, axis=axis)
    work.builder.types[name] = replace(work.builder.types[name], quant=quant)
    return name
