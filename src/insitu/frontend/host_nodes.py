"""Operators of a file that have no rule: their ONNX types, what ONNX says they are made of, and Host nodes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx

from insitu.frontend.call import UnloweredError
from insitu.graph.graph import Attr, Node
from insitu.graph.ops.hosted import ELEMENTS, host_model
from insitu.graph.ops.shapes import check_size
from insitu.graph.rewrite import Builder
from insitu.graph.types import HOST, TensorType

FLOAT, INT64, BOOL = 1, 7, 9
FLOATS = (1, 10, 11, 16)
TRUTHS = ("Less", "Greater", "Equal", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Xor", "Not", "IsNaN", "IsInf")
OWN = ("", "ai.onnx")


@dataclass
class Elements:
    """ONNX element types of values that are no floats, and the file's names of what is in scope (for subgraphs)."""

    known: dict[str, int] = field(default_factory=dict[str, int])
    constants: Mapping[str, Any] = field(default_factory=dict[str, Any])
    scope: dict[str, str] = field(default_factory=dict[str, str])

    def of(self, value: str) -> int:
        """The element type of a value in the file."""
        constant = self.constants.get(value)
        if constant is not None:
            return onnx.helper.np_dtype_to_tensor_dtype(constant.dtype)
        return self.known.get(value, FLOAT)

    def infer(self, node: Node) -> None:
        """Note what a node that a rule wrote makes of its inputs' types."""
        if node.op == "Cast" or node.op in TRUTHS:
            kind = BOOL if node.op in TRUTHS else int(node.attr("to", FLOAT))
        elif node.op in ("If", "Loop"):
            return
        else:
            kind = self.of(node.inputs[1 if node.op == "Where" else 0]) if node.inputs else FLOAT
        if kind not in FLOATS:
            self.known.update(dict.fromkeys(filter(None, node.outputs), kind))


def function_of(
    builder: Builder, elements: Elements, node: Node, proto: onnx.NodeProto, opsets: Mapping[str, int]
) -> onnx.FunctionProto | None:
    """The body that ONNX gives an operator, for the newest opset not above the file's."""
    domain = proto.domain if proto.domain != "ai.onnx" else ""
    version = opsets.get(domain, 1)
    try:
        schema: Any = onnx.defs.get_schema(proto.op_type, version, domain)
        if schema.has_function:
            at = _newest(schema.function_opset_versions, version)
            return onnx.FunctionProto.FromString(schema.get_function_with_opset_version(at))
        if schema.has_context_dependent_function:
            types = [_type(builder, elements, v).SerializeToString() for v in node.inputs]
            at = _newest(schema.context_dependent_function_opset_versions, version)
            data = schema.get_context_dependent_function_with_opset_version(at, proto.SerializeToString(), types)
            return onnx.FunctionProto.FromString(data) if data else None
    except (onnx.defs.SchemaError, RuntimeError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return None


def _newest(versions: Any, limit: int) -> int:
    return max((v for v in versions if v <= limit), default=min(versions))


def _type(builder: Builder, elements: Elements, value: str) -> onnx.TypeProto:
    if not value or builder.types[value].dtype == HOST:
        return onnx.TypeProto()
    return onnx.helper.make_tensor_type_proto(elements.of(value), list(builder.types[value].shape))


def with_attributes(node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto]) -> onnx.NodeProto:
    """The node of a function body with the caller's attributes in it, subgraphs included."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    for a in node.attribute:
        if a.ref_attr_name:
            if a.ref_attr_name in given:
                new = copy.attribute.add()
                new.CopyFrom(given[a.ref_attr_name])
                new.name = a.name
            continue
        new = copy.attribute.add()
        new.CopyFrom(a)
        if a.type == onnx.AttributeProto.GRAPH:
            bodies = [with_attributes(n, given) for n in a.g.node]
            del new.g.node[:]
            new.g.node.extend(bodies)
    return copy


# the host


def hosted(builder: Builder, elements: Elements, node: Node, proto: onnx.NodeProto, opsets: Mapping[str, int]) -> None:
    """The node as one operator of the host; UnloweredError with a reason where not even that can be."""
    names = _operands(elements, node, proto)
    constants = {f: builder.constants[v] for f, v in names.items() if v in builder.constants}
    fed = {f: v for f, v in names.items() if v not in builder.constants}
    types = {f: _type(builder, elements, v) for f, v in names.items()}
    results = _results(proto, types, constants, opsets)
    kinds = [_kind(t) for t in results]
    if any(k.dtype == HOST for k in kinds) and any(_text(t) for t in results):
        raise UnloweredError("its results are no numbers")
    wide = {f: (builder.types[v], 0 if builder.types[v].dtype == HOST else elements.of(v)) for f, v in fed.items()}
    outputs = [v for v in node.outputs if v]
    written = [v for v in proto.output if v]
    elements_out = [t.tensor_type.elem_type or 0 for t in results]
    if any(k.dtype == HOST for k in kinds):
        raise UnloweredError("the size of its result depends on data")
    for kind in kinds:
        if min((d for d in kind.shape if isinstance(d, int)), default=1) > 0:
            check_size(node, kind.shape)
    model = host_model(
        [proto],
        operator=f"{proto.domain}::{node.op}" if proto.domain not in OWN else node.op,
        feeds=wide,
        results=dict(zip(written, zip(kinds, elements_out, strict=True), strict=True)),
        constants=constants,
        opsets=dict(opsets),
    )
    builder.types.update(zip(outputs, kinds, strict=True))
    elements.known.update((v, e) for v, e in zip(outputs, elements_out, strict=True) if e not in FLOATS)
    label = f"{proto.domain}::{node.op}" if proto.domain not in OWN else node.op
    attrs: dict[str, Attr] = {"operator": label, "model": model, "macs": _macs(builder, node, kinds)}
    builder.add(Node(node.name, "Host", tuple(fed.values()), tuple(outputs), attrs), typed=True)


def _operands(elements: Elements, node: Node, proto: onnx.NodeProto) -> dict[str, str]:
    """The file's name of every value the node reads, captured ones included: the graph's name."""
    names = {f: g for f, g in zip(proto.input, node.inputs, strict=True) if f}
    for inner in dict.fromkeys(v for g in subgraphs(proto) for v in free_names(g)):
        if inner in elements.scope:
            names.setdefault(inner, elements.scope[inner])
    return names


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for a in node.attribute:
        if a.type == onnx.AttributeProto.GRAPH:
            yield a.g


def free_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Outer values that a subgraph reads."""
    own = {v.name for v in (*graph.input, *graph.initializer)} | {v for n in graph.node for v in n.output}
    for node in graph.node:
        yield from (v for v in node.input if v and v not in own)
        yield from (v for g in subgraphs(node) for v in free_names(g) if v not in own)
    yield from (o.name for o in graph.output if o.name not in own)


def _results(
    proto: onnx.NodeProto, types: Mapping[str, onnx.TypeProto], constants: Mapping[str, Any], opsets: Mapping[str, int]
) -> list[onnx.TypeProto]:
    """ONNX types of the node's outputs; by a trial run on zeros where inference does not know."""
    infos = [onnx.helper.make_value_info(f, t) for f, t in types.items()]
    tensors = [onnx.numpy_helper.from_array(np.asarray(a), f) for f, a in constants.items() if a.size <= 1 << 16]
    ends = [onnx.helper.make_value_info(v, onnx.TypeProto()) for v in proto.output if v]
    graph = onnx.helper.make_graph([proto], "host", infos, ends, initializer=tensors)
    imports = [onnx.helper.make_opsetid(d, v) for d, v in opsets.items()]
    if proto.domain not in OWN and proto.domain not in opsets:
        imports.append(onnx.helper.make_opsetid(proto.domain, 1))
    model = onnx.helper.make_model(graph, opset_imports=imports)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # noqa: BLE001  (a trial run will say what is wrong)
        inferred = model
    found = {v.name: v.type for v in (*inferred.graph.value_info, *inferred.graph.output) if v.type.WhichOneof("value")}
    listed = [found.get(v, onnx.TypeProto()) for v in proto.output if v]
    if all(_kind(t).dtype != HOST or _text(t) for t in listed):
        return listed
    return _tried(proto, types, constants, opsets, listed)


SIZED_BY_DATA = ("NonZero", "Unique", "NonMaxSuppression", "Compress", "StringNormalizer", "TfIdfVectorizer")


def _tried(
    proto: onnx.NodeProto, types: Mapping[str, onnx.TypeProto], constants: Mapping[str, Any],
    opsets: Mapping[str, int], listed: list[onnx.TypeProto],
) -> list[onnx.TypeProto]:  # fmt: skip
    """Result types from one run on zeros; operators whose results depend on data stay unknown."""
    if proto.op_type in SIZED_BY_DATA:
        return listed
    from insitu.isa.host import encode_model, run_host

    feeds = {f: t for f, t in types.items() if f not in constants}
    infos = [onnx.helper.make_value_info(f, t) for f, t in feeds.items()]
    tensors = [onnx.numpy_helper.from_array(np.asarray(a), f) for f, a in constants.items()]
    ends = [onnx.ValueInfoProto(name=v) for v in proto.output if v]
    graph = onnx.helper.make_graph([proto], "trial", infos, ends, initializer=tensors)
    imports = [onnx.helper.make_opsetid(d, v) for d, v in opsets.items()]
    if proto.domain not in OWN and proto.domain not in opsets:
        imports.append(onnx.helper.make_opsetid(proto.domain, 1))
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
    try:
        zeros = [_zeros(t) for t in feeds.values()]
        found = run_host(encode_model(model.SerializeToString()), zeros)
    except Exception as error:  # noqa: BLE001  (a host library may raise anything)
        reason = (str(error).splitlines() or ["it fails"])[0][:120]
        raise UnloweredError(reason) from None
    if not all(isinstance(v, np.ndarray) and v.dtype.kind in "fiub" for v in found):
        raise UnloweredError("its results are no numbers")
    return [onnx.helper.make_tensor_type_proto(onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for v in found]


def _zeros(kind: onnx.TypeProto) -> Any:
    tensor = kind.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return np.zeros([d.dim_value for d in tensor.shape.dim], dtype)


def _text(kind: onnx.TypeProto) -> bool:
    """Whether a known type is no tensor of numbers."""
    which = kind.WhichOneof("value")
    return which is not None and (which != "tensor_type" or kind.tensor_type.elem_type == onnx.TensorProto.STRING)


def _kind(kind: onnx.TypeProto) -> TensorType:
    """Numbers in memory stand as f32; HOST where sizes are not known."""
    if kind.WhichOneof("value") != "tensor_type" or kind.tensor_type.elem_type not in ELEMENTS.values():
        return TensorType((), HOST)
    dims = kind.tensor_type.shape.dim
    if not kind.tensor_type.HasField("shape") or any(not d.HasField("dim_value") for d in dims):
        return TensorType((), HOST)
    shape = tuple(d.dim_value for d in dims)
    return TensorType((), HOST) if prod(shape) == 0 else TensorType(shape, "f32")


def _macs(builder: Builder, node: Node, kinds: list[TensorType]) -> int:
    """Multiply-accumulates with constant weights that the host does instead of arrays."""
    names = [*node.inputs, "", "", ""]
    weights = builder.constants.get(names[1])
    if weights is None:
        return 0
    if node.op in ("MatMul", "Gemm"):
        inner = weights.shape[-1] if node.op == "Gemm" and node.attr("transB", 0) else weights.shape[-2:][0]
        return kinds[0].count() * int(inner)
    if node.op == "Conv":
        return kinds[0].count() * int(np.prod(weights.shape[1:]))
    if node.op == "ConvTranspose":
        return builder.types[names[0]].count() * int(np.prod(weights.shape[1:]))
    if node.op in ("LSTM", "GRU", "RNN"):
        other = builder.constants.get(names[2])
        steps = builder.types[names[0]].sizes()
        return int(steps[0] * steps[1] * (weights.size + (0 if other is None else other.size)))
    return 0
