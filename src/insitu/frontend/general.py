"""Any ONNX model -> Graph: operators with a lowering become the vector unit's, the rest one host command each.

Sizes are those of the given inputs.  Inputs that decide sizes (the shape of a Reshape, the axes of a reduction, ...)
are parameters: their values are built in, as a compiler would at the call.  What a function of ONNX is made of is
used where the operator itself has no lowering and all its parts have.  Nothing is refused but what the host cannot
run either; `General.host_ops` says what went there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from insitu.base.errors import InsituError, ModelError
from insitu.frontend.general_layers import LAYERS
from insitu.frontend.general_moves import MOVES
from insitu.frontend.general_ops import LOWERINGS, TYPES, Op, Rule, UnloweredError
from insitu.frontend.general_resize import RESIZING
from insitu.frontend.general_scatter import SCATTERS
from insitu.frontend.host_nodes import free_names, subgraphs, with_attributes
from insitu.frontend.net import Net
from insitu.frontend.onnx import clean
from insitu.frontend.recurrent import RECURRENT
from insitu.graph.graph import Graph, Node
from insitu.graph.ops.float import VIEWS
from insitu.graph.rewrite import live
from insitu.graph.types import HOST, TensorType
from insitu.isa.host import encode_model, run_host

Array = npt.NDArray[Any]
RULES: dict[str, Rule] = {**LOWERINGS, **MOVES, **LAYERS, **RESIZING, **RECURRENT, **SCATTERS}
ELEMENT = {name: number for number, name in TYPES.items()}
OWN_DOMAIN = ("", "ai.onnx")
PARAMETERS: dict[str, tuple[int, ...]] = {  # inputs that decide sizes, or what a command is
    "Reshape": (1,), "Slice": (1, 2, 3, 4), "Split": (1,), "Expand": (1,), "Tile": (1,), "Pad": (1, 2, 3),
    "Squeeze": (1,),
    "Unsqueeze": (1,), "ConstantOfShape": (0,), "TopK": (1,), "Resize": (1, 2, 3), "Upsample": (1,), "OneHot": (1,),
    "Range": (0, 1, 2), "CumSum": (1,), "CumProd": (1,), "Trilu": (1,), "CenterCropPad": (1,), "AffineGrid": (1,),
    "DFT": (1, 2), "STFT": (1, 3), "Col2Im": (1, 2), "MaxUnpool": (2,), "HannWindow": (0,), "HammingWindow": (0,),
    "BlackmanWindow": (0,), "MelWeightMatrix": (0, 1, 2, 3, 4), "Dropout": (1, 2),
    "ReduceSum": (1,), "ReduceMean": (1,),
    "ReduceProd": (1,), "ReduceMax": (1,), "ReduceMin": (1,), "ReduceL1": (1,), "ReduceL2": (1,),
    "ReduceSumSquare": (1,),
    "ReduceLogSum": (1,), "ReduceLogSumExp": (1,), "SplitToSequence": (1,), "NonMaxSuppression": (2,),
}  # fmt: skip
RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
MOST_NESTED = 4  # conditions around a command
EMBEDDED = 4096  # elements of a constant that is written into a host operator
CANNOT = (
    UnloweredError, InsituError, ValueError, IndexError, KeyError, TypeError, AssertionError, AttributeError,
    ZeroDivisionError, OverflowError,
)  # fmt: skip


@dataclass(frozen=True)
class General:
    """A lowered model: graph, its inputs and outputs by the model's names, and what was decided on the way."""

    graph: Graph
    inputs: Mapping[str, str]
    outputs: tuple[tuple[str, str], ...]
    parameters: tuple[str, ...]
    known: Mapping[str, Any]  # outputs that have no elements
    host_ops: tuple[str, ...]


@dataclass
class _Scope:
    """Names of one graph or function body, its opsets, and the functions of the file."""

    net: Net
    names: dict[str, str]
    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str], onnx.FunctionProto]
    declared: Mapping[str, onnx.TypeProto]
    host_types: dict[str, onnx.TypeProto] = field(default_factory=dict[str, onnx.TypeProto])


def import_general(model: onnx.ModelProto, inputs: Mapping[str, Any], *, name: str = "") -> General:
    """The graph of a model for inputs like these (arrays by name; lists and text for what only the host holds).

    Raises ModelError for a graph that is broken, or an operator whose result type nobody knows.
    """
    net, proto = Net(), model.graph
    net.names.reserve(clean(v.name) for v in (*proto.input, *proto.output))
    declared = {v.name: v.type for v in (*proto.input, *proto.output, *proto.value_info)}
    opsets = {o.domain if o.domain != "ai.onnx" else "": o.version for o in model.opset_import}
    functions = {(f.domain, f.name): f for f in model.functions}
    scope = _Scope(net, {"": ""}, opsets, functions, declared)
    _initializers(scope, proto)
    fixed = _parameters(proto)
    taken = _inputs(scope, proto, inputs, fixed)
    for node in proto.node:
        lower_node(scope, node)
    outputs, known = _outputs(scope, proto)
    graph = Graph(
        name or clean(proto.name or "model"), "quantized", tuple(taken.values()), tuple(v for _, v in outputs), (), {}
    )
    graph = live(graph.with_nodes(net.nodes, types=net.types, constants=net.constants))
    hosted = tuple(str(n.attr("operator")) for n in graph.nodes if n.op == "Host")
    return General(graph, taken, tuple(outputs), tuple(sorted(fixed - {*taken})), known, hosted)


def _initializers(scope: _Scope, proto: onnx.GraphProto) -> None:
    for tensor in proto.initializer:
        _keep(scope, tensor.name, numpy_helper.to_array(tensor))


def _keep(scope: _Scope, name: str, array: Any) -> None:
    """A constant under a name of the file; element types the chip does not know stay with the host."""
    scope.net.label = clean(name)
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype) if isinstance(array, np.ndarray) else 0
    if kind in TYPES:
        scope.names[name] = scope.net.constant(np.ascontiguousarray(array).reshape(array.shape))
        return
    attribute = onnx.helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
    _host(scope, attribute)


def _parameters(proto: onnx.GraphProto) -> set[str]:
    """Inputs that decide sizes, directly or through other operators."""
    wanted: set[str] = set()
    for node in reversed(proto.node):
        if wanted.intersection(node.output) and node.op_type not in ("Shape", "Size"):
            wanted.update(node.input)
        wanted.update(node.input[i] for i in PARAMETERS.get(node.op_type, ()) if i < len(node.input))
    return {v.name for v in proto.input if v.name in wanted}


def _inputs(scope: _Scope, proto: onnx.GraphProto, given: Mapping[str, Any], fixed: set[str]) -> dict[str, str]:
    """Inputs of the graph by name; parameters and empty arrays become constants."""
    taken: dict[str, str] = {}
    for value in proto.input:
        if value.name in scope.names and value.name not in given:
            continue
        if value.name not in given:
            raise ModelError(f"input {value.name!r}", "no value", "an array for each input")
        held = given[value.name]
        array = np.asarray(held) if isinstance(held, np.ndarray | np.generic) else None
        dtype = TYPES.get(onnx.helper.np_dtype_to_tensor_dtype(array.dtype)) if array is not None else None
        if array is not None and dtype and (value.name in fixed or array.size == 0):
            _keep(scope, value.name, array)
            continue
        name = clean(value.name)
        scope.names[value.name] = taken[value.name] = name
        scope.host_types[name] = value.type
        plain = array is not None and dtype
        scope.net.types[name] = (
            TensorType(array.shape, str(dtype)) if array is not None and plain else TensorType((), HOST)
        )
    return taken


def _outputs(scope: _Scope, proto: onnx.GraphProto) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Every output as a value that a command writes, under its own name."""
    net, out, known = scope.net, list[tuple[str, str]](), dict[str, Any]()
    written = {v: n for n in net.nodes for v in n.outputs}
    for value in proto.output:
        if value.name not in scope.names:
            raise ModelError("network", f"the output {value.name!r} that nothing defines", "a node that writes it")
        source = scope.names[value.name]
        kind = net.types[source]
        if kind.dtype != HOST and kind.count() == 0:
            known[value.name] = net.constants[source]
            continue
        node = written.get(source)
        if kind.dtype == HOST and node is not None:
            out.append((value.name, source))
            continue
        name = net.names.fresh(f"{clean(value.name)}.out") if clean(value.name) in net.types else clean(value.name)
        net.nodes.append(Node(net.names.fresh(f"{name}.write"), "Copy", (source,), (name,)))
        net.types[name] = kind
        out.append((value.name, name))
    _drop_last_copies(net, [v for _, v in out])
    return out, known


def _drop_last_copies(net: Net, outputs: Sequence[str]) -> None:
    """A command writes its output at once, where nobody else reads what was copied."""
    readers: dict[str, int] = {}
    for node in net.nodes:
        for value in node.inputs:
            readers[value] = readers.get(value, 0) + 1
    makers = {v: i for i, n in enumerate(net.nodes) for v in n.outputs}
    gone: set[int] = set()
    for i, node in enumerate(net.nodes):
        source = node.inputs[0] if node.op == "Copy" and node.output in outputs else ""
        at = makers.get(source)
        if at is None or readers[source] != 1 or source in outputs or net.nodes[at].op in VIEWS:
            continue
        maker = net.nodes[at]
        net.nodes[at] = replace(maker, outputs=tuple(node.output if v == source else v for v in maker.outputs))
        gone.add(i)
    net.nodes = [n for i, n in enumerate(net.nodes) if i not in gone]


# one node


def lower_node(scope: _Scope, node: onnx.NodeProto) -> None:
    """Write one node of the file into the net by the first way that works."""
    missing = [v for v in node.input if v not in scope.names]
    if missing:
        raise ModelError(f"node {node.name!r} ({node.op_type})", f"its input {missing[0]!r}", "a value that is defined")
    scope.net.label = clean(node.name or (node.output[0] if node.output else node.op_type))
    for way in (_constant, _rule, _branch, _choice, _file_function, _onnx_function, _computed):
        if way(scope, node):
            return
    _host(scope, node)


def _try(scope: _Scope, work: Any) -> bool:
    """Whether `work` could be done; what it had written is taken back otherwise."""
    nodes, names, label = len(scope.net.nodes), dict(scope.names), scope.net.label
    try:
        with np.errstate(all="ignore"):
            work()
    except CANNOT:
        del scope.net.nodes[nodes:]
        scope.names.clear()
        scope.names.update(names)
        scope.net.label = label
        return False
    scope.net.label = label
    return True


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes as Python values and arrays."""
    found: dict[str, Any] = {}
    for a in node.attribute:
        value = onnx.helper.get_attribute_value(a)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        found[a.name] = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
    return found


def _constant(scope: _Scope, node: onnx.NodeProto) -> bool:
    if node.op_type != "Constant" or node.domain not in OWN_DOMAIN:
        return False
    given = attributes_of(node)
    for key, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if key in given:
            _keep(scope, node.output[0], np.asarray(given[key], dtype))
            return True
    if "value" in given:
        _keep(scope, node.output[0], given["value"])
        return True
    return False


def _rule(scope: _Scope, node: onnx.NodeProto) -> bool:
    rule = RULES.get(node.op_type)
    values = [scope.names[v] for v in node.input]
    if rule is None or node.domain not in OWN_DOMAIN or any(v and scope.net.is_host(v) for v in values):
        return False

    def work() -> None:
        attrs = attributes_of(node) | ({"upsample": 1} if node.op_type == "Upsample" else {})
        wanted = max((i + 1 for i, v in enumerate(node.output) if v), default=0)
        found = rule(Op(scope.net, tuple(values), attrs, scope.opsets.get("", 1), wanted))
        results = [found] if isinstance(found, str) else found
        if len(results) < wanted:
            raise UnloweredError
        scope.names.update((v, r) for v, r in zip(node.output, results, strict=False) if v)

    return _try(scope, work)


def _branch(scope: _Scope, node: onnx.NodeProto) -> bool:
    """An If whose condition is known."""
    known = scope.net.known(scope.names[node.input[0]]) if node.op_type == "If" and node.input else None
    if known is None or node.domain not in OWN_DOMAIN:
        return False
    body = attributes_of(node)["then_branch" if bool(known.reshape(-1)[0]) else "else_branch"]

    def work() -> None:
        found = _lower_body(scope, body)
        scope.names.update((v, f) for v, f in zip(node.output, found, strict=False) if v)

    return _try(scope, work)


def _lower_body(scope: _Scope, body: onnx.GraphProto) -> list[str]:
    """The outputs of a subgraph written into the net."""
    inner = replace(scope, names=dict(scope.names))
    _initializers(inner, body)
    for each in body.node:
        lower_node(inner, each)
    return [inner.names[o.name] for o in body.output]


def _choice(scope: _Scope, node: onnx.NodeProto) -> bool:
    """An If whose condition is a value of the run: both branches, of which the chip runs one, then a choice."""
    net, cond = scope.net, scope.names[node.input[0]] if node.input else ""
    if node.op_type != "If" or node.domain not in OWN_DOMAIN or not cond or net.is_host(cond):
        return False
    around = net.when

    def work() -> None:
        bodies = attributes_of(node)
        first, at = len(net.nodes), net.add("Copy", [cond])  # memory of its own: a choice stays while it is followed
        results: list[list[str]] = []
        for name, taken in (("then_branch", 1), ("else_branch", 0)):
            net.when = (*around, (at, taken))
            results.append(_lower_body(scope, bodies[name]))
        net.when = around
        if any(net.is_host(v) for n in net.nodes[first:] for v in (*n.inputs, *n.outputs) if v):
            raise UnloweredError
        for value, a, b in zip(node.output, *results, strict=True):
            if net.types[a] != net.types[b] or net.types[a].count() == 0 or net.is_host(a):
                raise UnloweredError
            scope.names[value] = net.select(net.reshape(at, (1,) * len(net.shape(a))), a, b)

    try:
        return len(around) < MOST_NESTED and _try(scope, work)
    finally:
        net.when = around


def _file_function(scope: _Scope, node: onnx.NodeProto) -> bool:
    function = scope.functions.get((node.domain, node.op_type))
    if function is None:
        return False
    return _try(scope, lambda: _inline(scope, node, function))


def _onnx_function(scope: _Scope, node: onnx.NodeProto) -> bool:
    """What ONNX says the operator is made of, where all of that has a lowering."""
    function = function_of(scope, node)
    if function is None or any(v and scope.net.is_host(scope.names[v]) for v in node.input):
        return False

    def work() -> None:
        before = len(scope.net.nodes)
        _inline(scope, node, function)
        if any(n.op == "Host" for n in scope.net.nodes[before:]):
            raise UnloweredError

    return _try(scope, work)


def function_of(scope: _Scope, node: onnx.NodeProto) -> onnx.FunctionProto | None:
    """The body that ONNX gives an operator, for the newest opset not above the file's."""
    version = scope.opsets.get(node.domain if node.domain != "ai.onnx" else "", 1)
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, version, node.domain)
        if schema.has_function:
            return onnx.FunctionProto.FromString(
                schema.get_function_with_opset_version(_newest(schema.function_opset_versions, version))
            )
        if schema.has_context_dependent_function:
            types = [_type_of(scope, scope.names[v]).SerializeToString() for v in node.input]
            at = _newest(schema.context_dependent_function_opset_versions, version)
            data = schema.get_context_dependent_function_with_opset_version(at, node.SerializeToString(), types)
            return onnx.FunctionProto.FromString(data) if data else None
    except (onnx.defs.SchemaError, RuntimeError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return None


def _newest(versions: Sequence[int], limit: int) -> int:
    return max((v for v in versions if v <= limit), default=min(versions))


def _inline(scope: _Scope, node: onnx.NodeProto, function: onnx.FunctionProto) -> None:
    values = [scope.names[v] for v in node.input]
    names = {"": "", **dict.fromkeys(function.input, ""), **dict(zip(function.input, values, strict=False))}
    opsets = {o.domain if o.domain != "ai.onnx" else "": o.version for o in function.opset_import}
    inner = replace(scope, names=names, opsets={**scope.opsets, **opsets}, declared={})
    given = {a.name: a for a in function.attribute_proto} | {a.name: a for a in node.attribute}
    for each in function.node:
        lower_node(inner, with_attributes(each, given))
    scope.names.update((v, inner.names[o]) for v, o in zip(node.output, function.output, strict=False) if v)


# the host


def _computed(scope: _Scope, node: onnx.NodeProto) -> bool:
    """An operator of constants, computed now."""
    values = [scope.names[v] for v in (*node.input, *_captured(node, scope.names)) if scope.names[v]]
    if node.op_type in RANDOM or not all(v in scope.net.constants for v in values):
        return False

    def work() -> None:
        model, names = _model(scope, node, embed=False)
        found = run_host(encode_model(model.SerializeToString()), [scope.net.constants[scope.names[v]] for v in names])
        outputs = [v for v in node.output if v]
        if not all(isinstance(v, np.ndarray) and _known_type(v) for v in found):
            raise UnloweredError
        for name, value in zip(outputs, found, strict=True):
            _keep(scope, name, value)

    return _try(scope, work)


def _known_type(array: Array) -> bool:
    return onnx.helper.np_dtype_to_tensor_dtype(array.dtype) in TYPES


def _captured(node: onnx.NodeProto, names: Mapping[str, str]) -> list[str]:
    """Outer values that the node's subgraphs read."""
    return list(dict.fromkeys(v for g in subgraphs(node) for v in free_names(g) if names.get(v)))


def _type_of(scope: _Scope, value: str) -> onnx.TypeProto:
    """The ONNX type of a value; an empty one for an absent input."""
    if not value:
        return onnx.TypeProto()
    kind = scope.net.types[value]
    if kind.dtype == HOST:
        return scope.host_types.get(value, onnx.TypeProto())
    return onnx.helper.make_tensor_type_proto(ELEMENT[kind.dtype], kind.sizes())


def _model(scope: _Scope, node: onnx.NodeProto, *, embed: bool) -> tuple[onnx.ModelProto, list[str]]:
    """A model of this one node, and the names of the values it is fed with."""
    names = list(dict.fromkeys(v for v in (*node.input, *_captured(node, scope.names)) if v and scope.names[v]))
    tensors: list[onnx.TensorProto] = []
    feeds: list[str] = []
    for name in names:
        value = scope.net.known(scope.names[name])
        if embed and value is not None and value.size <= EMBEDDED:
            tensors.append(numpy_helper.from_array(value, name))
        else:
            feeds.append(name)
    inputs = [onnx.helper.make_value_info(v, _type_of(scope, scope.names[v])) for v in feeds]
    outputs = [onnx.helper.make_value_info(v, onnx.TypeProto()) for v in node.output if v]
    graph = onnx.helper.make_graph([node], "host", inputs, outputs, initializer=tensors)
    opsets = [onnx.helper.make_opsetid(d, v) for d, v in scope.opsets.items()] or [onnx.helper.make_opsetid("", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, functions=list(scope.functions.values())), feeds


def _host(scope: _Scope, node: onnx.NodeProto) -> None:
    """One command for the host."""
    net = scope.net
    model, feeds = _model(scope, node, embed=True)
    types = _result_types(scope, node, model)
    values = [scope.names[v] for v in feeds]
    empty = [v for v in values if net.types[v].dtype != HOST and net.types[v].count() == 0]
    if empty:
        raise ModelError(f"node {node.name!r} ({node.op_type})", "an empty input", "one with elements")
    kinds = [_tensor_type(t, hosted=any(net.is_host(v) for v in values)) for t in types]
    domain = f"{node.domain}::" if node.domain not in OWN_DOMAIN else ""
    attrs = {"operator": f"{domain}{node.op_type}", "model": encode_model(model.SerializeToString())}
    results = net.host(values, kinds, attrs)
    named = [v for v in node.output if v]
    for name, value, kind in zip(named, results, types, strict=True):
        scope.names[name] = value
        scope.host_types[value] = kind


def _result_types(scope: _Scope, node: onnx.NodeProto, model: onnx.ModelProto) -> list[onnx.TypeProto]:
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # noqa: BLE001  (the host itself will say what is wrong)
        inferred = model
    found = {v.name: v.type for v in (*inferred.graph.value_info, *inferred.graph.output) if v.type.WhichOneof("value")}
    return [found.get(v) or scope.declared.get(v, onnx.TypeProto()) for v in node.output if v]


def _tensor_type(kind: onnx.TypeProto, *, hosted: bool) -> TensorType:
    """A type that memory can hold, else the host's."""
    if kind.WhichOneof("value") != "tensor_type" or kind.tensor_type.elem_type not in TYPES:
        return TensorType((), HOST)
    dims = kind.tensor_type.shape.dim
    if not kind.tensor_type.HasField("shape") or any(not d.HasField("dim_value") for d in dims):
        return TensorType((), HOST)
    shape = tuple(d.dim_value for d in dims)
    return TensorType((), HOST) if prod(shape) == 0 else TensorType(shape, TYPES[kind.tensor_type.elem_type])
