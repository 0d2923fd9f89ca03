"""ONNX models -> Graph (level "captured"): constants folded, sizes known, every name kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from insitu.base.errors import ModelError
from insitu.frontend.attributes import attributes
from insitu.frontend.functions import inlined
from insitu.frontend.host_nodes import Elements, free_names
from insitu.frontend.inputs import ELEMENTS, Binding, Shapes, bind_inputs
from insitu.frontend.lower import LOWERINGS
from insitu.frontend.lowering import Lowering
from insitu.frontend.onnx_file import as_text, narrow_codes, opset_of, read_model, sparse_array, tensor_array
from insitu.frontend.qdq import LEAST
from insitu.frontend.qdq_dynamic import static_form
from insitu.frontend.qdq_strip import strip
from insitu.frontend.sequences import without_sequences
from insitu.frontend.wtm2101 import ONLY_HERE, Network, Reading, import_network
from insitu.graph.graph import Attr, Graph, Node, const_type, topological
from insitu.graph.rewrite import Builder, Names, drop_copies
from insitu.graph.types import TensorType
from insitu.numeric.affine import QuantSpec

Array = npt.NDArray[Any]
PASSED_ON = ("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Slice")  # of an index
LEAST_INPUTS: Mapping[str, int] = {**dict.fromkeys(("Conv", "Gemm", "MatMul", "Add", "Mul", "Sub", "Div"), 2), **LEAST}
LONGEST_NAME = 60
MOST_NAMED = 200  # nodes of one operator named in one message
MOST_NODES = 50_000  # what can be read in seconds; the largest real networks have some 10,000
MOST_ENDS = 4096  # inputs, or outputs, of the network or of a node
LONGEST_WORD = 120  # of a message: files may hold names of any length


def import_onnx(path: str | Path, *, shapes: Shapes | None = None, reading: Reading | None = None) -> Graph:
    """The network of an ONNX file.

    The leading symbolic size of an input is the batch, 1 on the chip; `shapes` gives other sizes that the file leaves
    open, by input name.  `reading` says how a file of the WTM2101 dialect is read; its graph is a quantized one.
    Raises ModelError with one message for every fault of the file.
    """
    path = Path(path)
    model = read_model(path)
    return import_model(model, where=str(path), name=path.stem, folder=path.parent, shapes=shapes, reading=reading)


def import_model(
    model: onnx.ModelProto, *, where: str = "model", name: str = "", folder: Path = Path(),
    shapes: Shapes | None = None, reading: Reading | None = None,
) -> Graph:  # fmt: skip
    """The network of a model in memory; `folder` holds its external data, `where` stands in messages."""
    try:
        return _import(
            model,
            where=where,
            name=name or as_text(model.graph.name) or "model",
            folder=folder,
            shapes=shapes or {},
            reading=reading,
        )
    except ModelError as error:
        if error.where.startswith(where):
            raise
        inside = f"{where}: {_brief(error.where)}"
        raise ModelError(inside, _brief(error.got), error.need, try_=error.try_, code=error.code) from None


def _brief(text: str) -> str:
    """Text with its overlong words cut."""
    half = LONGEST_WORD // 2
    return re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda m: f"{m[0][:half]}...{m[0][-half:]}", text)


@dataclass
class _File:
    """The file's network with cleaned names."""

    opset: int
    vendor: bool = False  # written in the WTM2101 dialect
    nodes: tuple[Node, ...] = ()
    attrs: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    domains: dict[str, str] = field(default_factory=dict[str, str])
    protos: dict[str, onnx.NodeProto] = field(default_factory=dict[str, onnx.NodeProto])
    captured: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])  # by a node's subgraphs
    constants: dict[str, Array] = field(default_factory=dict[str, Array])
    values: dict[str, str] = field(default_factory=dict[str, str])
    value_names: Names = field(default_factory=Names)
    narrow: dict[str, QuantSpec] = field(default_factory=dict[str, QuantSpec])  # constants of fewer than 8 bits

    def value(self, name: str | bytes) -> str:
        """The cleaned name of a value; the same for every mention."""
        name = as_text(name)
        if not name:
            return ""
        if name not in self.values:
            self.values[name] = self.value_names.fresh(clean(name))
        return self.values[name]


def clean(name: str) -> str:
    """A name of printable ASCII without quotes, spaces or brackets.

    Of the long chains that TensorFlow's converters write ("a/Relu;a/BiasAdd;a/Conv2D") the last link stays.
    """
    if len(name) > LONGEST_NAME:
        name = name.rsplit(";", 1)[-1][-4 * LONGEST_NAME :]
    return re.sub(r"[^A-Za-z0-9_./:;+\-]", "_", name) or "_"


def printable(text: str) -> str:
    """Text from a file without control characters, cut to one line's length."""
    return "".join(c if " " <= c <= "~" else "_" for c in text)[:120]


def _import(
    model: onnx.ModelProto, *, where: str, name: str, folder: Path, shapes: Shapes, reading: Reading | None
) -> Graph:
    model = inlined(model, where=where, most=MOST_NODES)
    opset = opset_of(model, where)
    _check_counts(model.graph, where)
    model = without_sequences(model, opset)
    file = _File(opset, vendor=any(as_text(n.op_type) in ONLY_HERE and not n.domain for n in model.graph.node))
    proto = model.graph
    outer = [as_text(v.name) for v in (*proto.input, *proto.output)]
    for value in outer:  # the names people use come first, so they stay as they are
        file.value(value)
    _read_constants(file, proto, folder)
    declared = [i for i in proto.input if file.value(i.name) not in file.constants]
    _read_nodes(file, proto, folder)
    inputs = [file.value(i.name) for i in declared]
    outputs = [file.value(o.name) for o in proto.output]
    _check_ends(file, inputs, outputs)
    _sort(file, inputs, outputs)
    if file.vendor:
        types = bind_inputs([(file.value(i.name), i) for i in declared], shapes).types
        return import_network(_network(file, clean(name), types, outputs, model), reading)
    binding = bind_inputs([(file.value(i.name), i) for i in declared], shapes)
    opsets = {o.domain if o.domain != "ai.onnx" else "": o.version for o in model.opset_import}
    graph = _forward(file, binding, inputs=inputs, outputs=outputs, name=clean(name), opsets=opsets, folder=folder)
    _check_finite(graph)
    originals = {file.value(v): v for v in outer}
    return replace(graph, meta=_meta(model, opset, graph, binding, originals) | dict(graph.meta))


def _check_counts(graph: onnx.GraphProto, where: str) -> None:
    counts = (("nodes", len(graph.node), MOST_NODES), ("inputs", len(graph.input), MOST_ENDS + len(graph.initializer)),
              ("outputs", len(graph.output), MOST_ENDS),
              ("inputs of one node", max((len(n.input) for n in graph.node), default=0), MOST_ENDS))  # fmt: skip
    for kind, count, most in counts:
        if count > most:
            ways = ("cut the network in parts (onnx.utils.extract_model)",)
            raise ModelError(where, f"{count:,} {kind}", f"at most {most:,}", try_=ways)


def _network(
    file: _File, name: str, types: Mapping[str, TensorType], outputs: Sequence[str], model: onnx.ModelProto
) -> Network:
    """The file as a network of the WTM2101 dialect."""
    meta: dict[str, Attr] = {"opset": file.opset, "producer": _producer(model)}
    return Network(name, file.nodes, file.attrs, file.domains, file.constants, types, tuple(outputs), meta)


def _read_constants(file: _File, proto: onnx.GraphProto, folder: Path) -> None:
    named = [(as_text(t.name), t) for t in proto.initializer]
    named += [(as_text(s.values.name), s) for s in proto.sparse_initializer]
    for original, tensor in named:
        value, place = file.value(original), f"tensor {original!r}"
        if not original or (value in file.constants and not _again(file, value, tensor, folder, place)):
            raise ModelError(
                place, "two tensors have this name" if original else "a tensor without a name", "a name of its own"
            )
        read = sparse_array if isinstance(tensor, onnx.SparseTensorProto) else tensor_array
        file.constants[value] = read(tensor, folder, where=place)  # pyright: ignore[reportArgumentType]
        if isinstance(tensor, onnx.TensorProto) and (narrow := narrow_codes(tensor)) is not None:
            file.narrow[value] = narrow


def _again(file: _File, value: str, tensor: Any, folder: Path, place: str) -> bool:
    """Whether a tensor is one that is there already, which vendor files write once for each reader."""
    if not file.vendor or not isinstance(tensor, onnx.TensorProto):
        return False
    return np.array_equal(file.constants[value], tensor_array(tensor, folder, where=place))


def _read_nodes(file: _File, proto: onnx.GraphProto, folder: Path) -> None:
    names, nodes = Names(), list[Node]()
    for index, node in enumerate(proto.node):
        op = printable(as_text(node.op_type))
        name = names.fresh(clean(as_text(node.name)) if node.name else f"{clean(op)}_{index}")
        inputs, outputs = tuple(file.value(v) for v in node.input), tuple(file.value(v) for v in node.output)
        nodes.append(Node(name, op, inputs, outputs))
        file.protos[name] = node
        inner = [v for a in node.attribute if a.type == onnx.AttributeProto.GRAPH for v in free_names(a.g)]
        if inner:
            file.captured[name] = tuple(file.value(v) for v in dict.fromkeys(inner))
        file.attrs[name] = attributes(node, folder, where=f"node {name!r} ({op})", vendor=file.vendor)
        if node.domain not in ("", "ai.onnx"):
            file.domains[name] = printable(as_text(node.domain))
    written = static_form(nodes, file.attrs, file.constants)
    file.nodes, file.constants = written.nodes, dict(written.constants)
    file.attrs.update({name: dict(attrs) for name, attrs in written.attrs.items()})


# structure


def _check_ends(file: _File, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    for kind, names in (("input", inputs), ("output", outputs)):
        if not names:
            raise ModelError("network", f"it has no {kind}", f"at least one {kind}")
        twice = [v for v, count in Counter(names).items() if count > 1]
        if twice:
            raise ModelError("network", f"two {kind}s are called {twice[0]!r}", "a name of its own for each")
    written: dict[str, str] = {}
    given = set(inputs)
    for node in file.nodes:
        for value in filter(None, node.outputs):
            other = written.setdefault(value, node.name)
            taken = "an input" if value in given else "a tensor" if value in file.constants else ""
            if taken or other != node.name or node.outputs.count(value) > 1:
                got = f"it writes {value!r}, which {taken or f'node {other!r}'} {'is' if taken else 'writes'} already"
                raise ModelError(f"node {node.name!r} ({node.op})", got, "a value name of its own")


def _sort(file: _File, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Puts the nodes that outputs depend on in execution order; names undefined values and cycles."""
    known = {*inputs, *file.constants}
    own = {n.name: n for n in file.nodes}
    more = file.captured
    nodes = [replace(n, inputs=(*n.inputs, *more[n.name])) if more.get(n.name) else n for n in file.nodes]
    available = {*known, *(v for n in nodes for v in n.outputs)}
    undefined = [(n, v) for n in nodes for v in dict.fromkeys(n.inputs) if v and v not in available]
    undefined += [(None, v) for v in outputs if v not in available]
    if undefined:
        lines = [f"{f'node {n.name!r} ({n.op})' if n else 'the network'} reads {v!r}" for n, v in undefined]
        need = "an initializer, an input or a node of that name"
        raise ModelError("network", f"values that nothing defines: {_listed(lines)}", need)
    order, stuck = topological(nodes, known)
    if stuck:
        raise ModelError(
            "network", f"nodes in a cycle: {_listed(repr(n) for n in _cycle(stuck))}", "a network without cycles"
        )
    wanted, kept = set(outputs), list[Node]()
    for node in reversed(order):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    file.nodes = tuple(own[n.name] for n in reversed(kept))


def _listed(words: Iterable[str], most: int = 20) -> str:
    every = list(words)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _cycle(stuck: Sequence[Node]) -> list[str]:
    """Names of the nodes of one cycle among nodes that can never run."""
    producers = {v: n for n in stuck for v in n.outputs if v}
    path: dict[str, int] = {}
    node = stuck[0]
    while node.name not in path:
        path[node.name] = len(path)
        node = next(producers[v] for v in node.inputs if v in producers)
    return list(path)[path[node.name] :][::-1]


def _check_inputs(file: _File) -> None:
    """Nodes that lack inputs they cannot do without."""
    for node in file.nodes:
        op = f"{file.domains[node.name]}::{node.op}" if node.name in file.domains else node.op
        least = LEAST_INPUTS.get(op, 1)
        if op in LEAST_INPUTS and len(node.inputs) < least:
            need = "all inputs that the operator needs"
            raise ModelError(f"node {node.name!r} ({op})", f"{len(node.inputs)} inputs", need)
        if node.op in LOWERINGS and node.name not in file.domains:
            most = _most_inputs(node.op, file.opset)
            if len(node.inputs) > most:
                raise ModelError(f"node {node.name!r} ({node.op})", f"{len(node.inputs)} inputs", f"at most {most}")


def _check_possible(work: Lowering) -> None:
    """One error for all nodes that neither chip nor host can run, with where the rest would run."""
    if not work.faults:
        return
    parts = [f"{label}: {_listed(names, MOST_NAMED)}" for label, names in work.faults.items()]
    total = sum(len(names) for names in work.faults.values())
    hosts = sorted({str(n.attr("operator")) for n in work.builder.nodes if n.op == "Host"})
    weights = sum(
        n.op in ("Conv", "MatMul", "Gemm") and n.inputs[1] in work.builder.constants for n in work.builder.nodes
    )
    others = len(work.builder.nodes) - weights - sum(n.op == "Host" for n in work.builder.nodes)
    where = f"before them {weights} weight layers would run in arrays, {others} nodes as vector commands and moves"
    where += f", {', '.join(hosts)} on the host" if hosts else ""
    where += f"; {work.behind} nodes behind them could not be looked at" if work.behind else ""
    got = f"{total} node{'s cannot' if total > 1 else ' cannot'} run on chip or host ({'; '.join(parts)}); {where}"
    ways = (
        "cut the network there (onnx.utils.extract_model) and run that part yourself",
        "give sizes that the file leaves open (--shape), or replace these nodes before the export",
    )
    raise ModelError("network", got, "operators on numbers whose sizes do not depend on data", try_=ways,
                     code="unsupported_operator")  # fmt: skip


@cache
def _most_inputs(op: str, opset: int) -> int:
    """Inputs that an operator of the standard can have; any number where the standard has no such operator."""
    if not onnx.defs.has(op, min(opset, onnx.defs.onnx_opset_version()), ""):
        return 1 << 31
    return int(onnx.defs.get_schema(op, min(opset, onnx.defs.onnx_opset_version()), "").max_input)


# values


def _forward(
    file: _File, binding: Binding, *, inputs: Sequence[str], outputs: Sequence[str], name: str,
    opsets: Mapping[str, int], folder: Path,
) -> Graph:  # fmt: skip
    """Write all nodes into a captured graph; sizes become known on the way."""
    _check_inputs(file)
    types = {**binding.types, **{v: const_type(c) for v, c in file.constants.items()}}
    types |= {v: replace(types[v], quant=spec) for v, spec in file.narrow.items()}
    rows = _index_inputs(file, binding)
    for value, dtype in rows.items():
        types[value] = replace(types[value], dtype=dtype)
    builder = Builder(types, file.constants, taken=(v for n in file.nodes for v in n.outputs))
    codes = {name: int(onnx.TensorProto.DataType.Value(text)) for text, name in ELEMENTS.items()}
    known = {v: codes[dtype] for v, dtype in binding.dtypes.items() if dtype != "f32"}
    elements = Elements(known, builder.constants, dict(file.values))
    work = Lowering(builder, opsets, bool(binding.batched), folder, elements, binding.hints)
    for node in file.nodes:
        work.write(node, file.attrs[node.name], _proto(file, node), file.domains.get(node.name, ""))
    _check_possible(work)
    coded = frozenset(v for v in inputs if binding.dtypes[v][0] in "iu" and v not in rows)
    fixed = [v for v in outputs if v in builder.constants or v in inputs]
    if fixed:
        what = "an input" if fixed[0] in inputs else "constant"
        raise ModelError("network", f"its output {fixed[0]!r} is {what}", "outputs computed from the inputs")
    graph = Graph(name, "captured", tuple(inputs), tuple(outputs), (), {v: types[v] for v in binding.types})
    return strip(drop_copies(builder.finish(graph)), coded=coded)


def _proto(file: _File, node: Node) -> onnx.NodeProto:
    """The node as the file has it; one that came up on the way as it would be written."""
    if node.name in file.protos:
        return file.protos[node.name]
    domain = file.domains.get(node.name, "")
    return onnx.helper.make_node(node.op, node.inputs, node.outputs, domain=domain, **file.attrs[node.name])


def _index_inputs(file: _File, binding: Binding) -> dict[str, str]:
    """Integer inputs that pick rows of a table: they stay integers."""
    makers = {v: n for n in file.nodes for v in n.outputs if v}
    found: dict[str, str] = {}
    for node in file.nodes:
        if node.op != "Gather" or len(node.inputs) < 2:
            continue
        value = node.inputs[1]
        while value in makers and makers[value].op in PASSED_ON:
            value = makers[value].inputs[0]
        if binding.dtypes.get(value) in ("i32", "i64"):
            found[value] = binding.dtypes[value]
    return found


def _check_finite(graph: Graph) -> None:
    """Weights that are not numbers, all named at once."""
    bad = [v for v, c in graph.constants.items() if c.dtype.kind == "f" and not np.isfinite(c).all()]
    if bad:
        kinds = "NaN" if any(np.isnan(graph.constants[v]).any() for v in bad) else "infinite"
        raise ModelError("weights", f"{kinds} values in {_listed(repr(v) for v in bad)}", "finite numbers")
    moved = ("Reshape", "Transpose", "Slice", "Pad", "Concat", "Gather", "Flatten", "Squeeze", "Unsqueeze")
    odd = [v for n in graph.nodes for v in n.outputs if v and graph.types[v].dtype != "f32" and n.op not in moved]
    if odd:
        got = f"the value {odd[0]!r} has the type {graph.types[odd[0]].dtype}"
        raise ModelError("network", got, "a network that computes in floating point")


def _producer(model: onnx.ModelProto) -> str:
    return printable(f"{as_text(model.producer_name)} {as_text(model.producer_version)}".strip() or "unknown")


def _meta(
    model: onnx.ModelProto, opset: int, graph: Graph, binding: Binding, originals: Mapping[str, str]
) -> dict[str, Attr]:
    meta: dict[str, Attr] = {
        "opset": opset,
        "producer": _producer(model),
        "parameters": sum(c.size for c in graph.constants.values() if c.dtype.kind == "f"),
        "batch_inputs": binding.batched,
        "input_dtypes": tuple(binding.dtypes[v] for v in graph.inputs),
    }
    ends = (*graph.inputs, *graph.outputs)
    if any(originals[v] != v for v in ends):
        meta["original_names"] = tuple(originals[v] for v in ends)
    return meta
