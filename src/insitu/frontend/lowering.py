"""One ONNX node after the other into the captured graph: by a rule, by what it is made of, or as the host's.

In this order a node is: computed at once (its inputs are constant), written by a rule of integers (lower*.py), replaced
by the branch of an If or the steps of a Loop that are known, by what ONNX says it is made of where all of that has
rules, else one operator of the host.  What not even the host can run is collected, so that one message names all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from insitu.base.errors import InsituError, ModelError
from insitu.frontend.attributes import attributes
from insitu.frontend.call import Call, UnloweredError
from insitu.frontend.fold import fold, foldable
from insitu.frontend.host_nodes import Elements, function_of, hosted, with_attributes
from insitu.frontend.lower import LOWERINGS, variant_fault
from insitu.frontend.lower_elementwise import ELEMENTWISE, divided
from insitu.frontend.lower_layers import LAYERS
from insitu.frontend.lower_moves import MOVES
from insitu.frontend.lower_recurrent import RECURRENT
from insitu.frontend.onnx_file import as_text
from insitu.frontend.qdq import QDQ, followed
from insitu.graph.graph import Node, const_type
from insitu.graph.rewrite import Builder
from insitu.isa.host import encode_model, run_host

Array = npt.NDArray[Any]
RULES = {**LOWERINGS, **ELEMENTWISE, **MOVES, **LAYERS, **RECURRENT}
CODED = {name: rule for name, rule in QDQ.items() if name != "Cast"}  # on codes; by their domain too
OWN = ("", "ai.onnx")
CONTRIBUTED = ("Gelu", "FastGelu", "QuickGelu", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
               "SimplifiedLayerNormalization")  # fmt: skip
STEPS = 256  # of a Loop that is written out
NUMBERS = frozenset((*ELEMENTWISE, "Add", "Mul", "Sub", "Div", "MatMul", "Gemm", "Concat", "Conv", "Clip", "Softmax",
                     "PRelu")) - {"Cast"}  # fmt: skip
ARGUMENTS: Mapping[str, int] = {"ReduceSum": 1, "ReduceMax": 1, "ReduceMin": 1, "ReduceL1": 1, "ReduceL2": 1,
                                "ReduceSumSquare": 1, "ReduceLogSum": 1}  # fmt: skip
CANNOT = (UnloweredError, ValueError, IndexError, KeyError, TypeError, AssertionError, AttributeError)


@dataclass
class Lowering:
    """The graph while nodes are written into it, and what is known beside it."""

    builder: Builder
    opsets: Mapping[str, int]
    batched: bool
    folder: Path
    elements: Elements  # ONNX element type of values that are no floats
    hints: tuple[str, ...] = ()
    faults: dict[str, list[str]] = field(default_factory=dict[str, list[str]])  # operator: nodes nobody can run
    lost: set[str] = field(default_factory=set[str])  # values that such nodes would have written
    behind: int = 0  # nodes behind them
    budget: int = 1 << 28  # elements of all computed constants

    def write(self, node: Node, attrs: dict[str, Any], proto: onnx.NodeProto, domain: str = "") -> None:
        """One node of the file or of a function's body; names of values are those of the graph."""
        if self.lost.intersection(node.inputs):
            self.lost.update(v for v in node.outputs if v)
            self.behind += 1
            if not _exists(node, proto, self.opsets):
                label = f"{domain}::{node.op}" if domain else node.op or "no operator"
                self.faults.setdefault(f"{label} (no such operator)", []).append(node.name)
            return
        for way in (self._coded, self._computed, self._ruled, self._branched, self._looped, self._made_of):
            if way(node, attrs, proto, domain):
                return
        try:
            hosted(self.builder, self.elements, node, proto, self.opsets)
        except UnloweredError as error:
            label = f"{domain}::{node.op}" if domain else node.op or "no operator"
            reason = str(error) if _exists(node, proto, self.opsets) else "no such operator"
            self.faults.setdefault(f"{label} ({reason})" if reason else label, []).append(node.name)
            self.lost.update(v for v in node.outputs if v)

    # codes

    def _coded(self, node: Node, attrs: dict[str, Any], proto: onnx.NodeProto, domain: str) -> bool:
        """Operators of quantized models, which keep the scales of what they read and write (qdq.py)."""
        name = f"{domain}::{node.op}" if domain not in OWN else node.op
        kinds = [self.builder.types[v] for v in node.inputs if v in self.builder.types]
        codes = node.op == "Cast" and domain in OWN and bool(kinds) and kinds[0].quant is not None
        if name not in CODED and not codes:
            return False
        rule = QDQ["Cast"] if codes else CODED[name]
        rule(Call(self.builder, node, attrs, self.opsets.get("", 1), self.batched, RULES))
        return True

    # constants

    def _computed(self, node: Node, attrs: dict[str, Any], proto: onnx.NodeProto, domain: str) -> bool:
        value = None if domain not in OWN else self._folded(node, attrs)
        if value is not None:
            self._keep(node, [value])
            if (spec := followed(self.builder, node, value, attrs)) is not None:
                kind = self.builder.types[node.output]
                self.builder.types[node.output] = replace(kind, quant=spec)
            return True
        names = [v for v in node.inputs if v]
        if node.op in ("If", "Loop", "Scan") or not all(v in self.builder.constants for v in names):
            return False
        if (
            node.op.startswith("Random")
            or node.op in ("Multinomial", "Bernoulli")
            or (not names and not proto.attribute)
        ):
            return False
        try:
            found = self._run(node, proto)
        except InsituError:
            return False
        if not all(isinstance(v, np.ndarray) and v.dtype.kind in "fiub" for v in found):
            return False
        self._keep(node, found)
        return True

    def _folded(self, node: Node, attrs: Mapping[str, Any]) -> Array | None:
        place = f"node {node.name!r} ({node.op})"
        if node.op in ("Shape", "Size") and node.inputs:
            return self._shape(node, attrs, place)
        if not foldable(node.op) or any(v and v not in self.builder.constants for v in node.inputs):
            return None
        arrays = [self.builder.constants[v] if v else None for v in node.inputs]
        return fold(node.op, arrays, attrs, where=place)

    def _shape(self, node: Node, attrs: Mapping[str, Any], place: str) -> Array:
        shape = self.builder.types[node.inputs[0]].shape
        open_ = [d for d in shape if isinstance(d, str)]
        if open_:
            got = f"it asks for the size {open_[0]!r}, which is not known"
            raise ModelError(place, got, "known sizes", try_=self.hints)
        sizes = np.asarray([int(d) for d in shape], np.int64)
        return (
            np.asarray(np.prod(sizes, dtype=np.int64))
            if node.op == "Size"
            else sizes[slice(attrs.get("start", 0), attrs.get("end"))]
        )

    def _run(self, node: Node, proto: onnx.NodeProto) -> list[Any]:
        """A node of constants, by the host."""
        copy = onnx.NodeProto()
        copy.CopyFrom(proto)
        del copy.input[:], copy.output[:]
        copy.input.extend(f"i{i}" if v else "" for i, v in enumerate(node.inputs))
        copy.output.extend(f"o{i}" if v else "" for i, v in enumerate(node.outputs))
        given = {f"i{i}": self.builder.constants[v] for i, v in enumerate(node.inputs) if v}
        infos = [
            onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in given.items()
        ]
        ends = [onnx.ValueInfoProto(name=v) for v in copy.output if v]
        graph = onnx.helper.make_graph([copy], "constant", infos, ends)
        imports = [onnx.helper.make_opsetid(d, v) for d, v in self.opsets.items()]
        model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
        return run_host(encode_model(model.SerializeToString()), list(given.values()))

    def _keep(self, node: Node, values: Sequence[Array]) -> None:
        for name, value in zip((v for v in node.outputs if v), values, strict=True):
            array = np.asarray(value)
            array = _narrow(array)
            self.budget -= array.size
            if self.budget < 0:
                place = f"node {node.name!r} ({node.op})"
                raise ModelError(place, "more than 2^28 elements of computed constants", "fewer")
            self.builder.constants[name], self.builder.types[name] = array, const_type(array)

    # rules

    def _ruled(self, node: Node, attrs: dict[str, Any], proto: onnx.NodeProto, domain: str) -> bool:
        rule = RULES.get(node.op)
        own = domain in OWN or (domain == "com.microsoft" and node.op in CONTRIBUTED)
        if rule is None or not own:
            return False
        fixed = [not v or v in self.builder.constants for v in node.inputs]
        if node.op == "Div" and not fixed[-1]:
            rule = divided
        elif variant_fault(node.op, attrs, fixed):
            return False
        try:
            return self._tried(node, lambda: rule(self._call(node, attrs)))
        except ModelError:
            if node.op in LOWERINGS or node.op in RECURRENT:
                raise  # the file is wrong
            return False

    def _call(self, node: Node, attrs: dict[str, Any]) -> Call:
        """The node with operands as numbers: integers and truth values stand as floats."""
        types, names = self.builder.types, list(node.inputs)
        most = ARGUMENTS.get(node.op, len(names))
        if any(types[v].dtype == "host" for v in names if v):
            raise UnloweredError
        for i, value in enumerate(names[:most] if node.op in NUMBERS else ()):
            if value and types[value].dtype != "f32" and types[value].quant is None:
                names[i] = self._as_floats(node, value)
        element = self.elements.of(node.inputs[0]) if node.inputs and node.inputs[0] else 1
        given = {**attrs, "#element": element} if node.op == "Cast" else attrs
        opset = self.opsets.get("", 1)
        node = node if tuple(names) == node.inputs else replace(node, inputs=tuple(names))
        return Call(self.builder, node, given, opset, self.batched)

    def _as_floats(self, node: Node, value: str) -> str:
        constant = self.builder.constants.get(value)
        if constant is not None:
            return self.builder.constant(f"{value}_real", constant.astype(np.float32))
        raise UnloweredError

    def _tried(self, node: Node, work: Any) -> bool:
        """Whether `work` could be done; what it had written is taken back otherwise."""
        before = len(self.builder.nodes)
        try:
            work()
        except ModelError:
            del self.builder.nodes[before:]
            raise
        except CANNOT:
            del self.builder.nodes[before:]
            return False
        self.elements.infer(node)
        return True

    # control flow and functions

    def _branched(self, node: Node, attrs: dict[str, Any], proto: onnx.NodeProto, domain: str) -> bool:
        """An If whose condition is known."""
        known = self.builder.constants.get(node.inputs[0]) if node.op == "If" and node.inputs else None
        if known is None or domain not in OWN:
            return False
        taken = "then_branch" if bool(known.reshape(-1)[0]) else "else_branch"
        [body] = [a.g for a in proto.attribute if a.name == taken]
        return self._tried(node, lambda: self._finish(node, self._body(node, body, self.elements.scope)))

    def _looped(self, node: Node, attrs: dict[str, Any], proto: onnx.NodeProto, domain: str) -> bool:
        """A Loop with a known number of steps that nothing ends early."""
        count = self.builder.constants.get(node.inputs[0]) if node.op == "Loop" and node.inputs else None
        if count is None or domain not in OWN or not 0 < int(count.reshape(-1)[0]) <= STEPS:
            return False
        [body] = [a.g for a in proto.attribute if a.name == "body"]
        return self._tried(node, lambda: self._steps(node, body, int(count.reshape(-1)[0])))

    def _steps(self, node: Node, body: onnx.GraphProto, count: int) -> None:
        carried = list(node.inputs[2:])
        rows: list[list[str]] = []
        truth = self.builder.constant(f"{node.name}_true", np.array(True))
        if len(node.inputs) > 1 and node.inputs[1]:
            first = self.builder.constants.get(node.inputs[1])
            if first is None or not first.all():
                raise UnloweredError
        for step in range(count):
            number = self.builder.constant(f"{node.name}_step", np.array(step, np.int64))
            scope = {**self.elements.scope}
            scope.update(zip((v.name for v in body.input), (number, truth, *carried), strict=True))
            found = self._body(node, body, scope)
            goes_on = self.builder.constants.get(found[0])
            if goes_on is None or (not goes_on.all() and step + 1 < count):
                raise UnloweredError
            carried, row = found[1 : 1 + len(carried)], found[1 + len(carried) :]
            rows.append(row)
        stacked: list[str] = []
        for values in zip(*rows, strict=True):
            parts = [self._emitted(node, "Unsqueeze", [v], {"axes": (0,)}) for v in values]
            stacked.append(parts[0] if len(parts) == 1 else self._emitted(node, "Concat", parts, {"axis": 0}))
        self._finish(node, [*carried, *stacked])

    def _emitted(self, node: Node, op: str, inputs: Sequence[str], attrs: dict[str, Any]) -> str:
        names = [v if v not in self.builder.constants or self.builder.types[v].dtype == "f32" else "" for v in inputs]
        if not all(names):
            raise UnloweredError
        return self.builder.emit(op, names, name=f"{node.name}_{op.lower()}", attrs=attrs)

    def _body(self, node: Node, body: onnx.GraphProto, scope: dict[str, str]) -> list[str]:
        """Write a subgraph; the graph's names of its outputs."""
        inner = dict(scope)
        for tensor in body.initializer:
            inner[tensor.name] = self.builder.constant(
                self.builder.fresh(f"{node.name}_c"), _narrow(numpy_helper.to_array(tensor))
            )
        self._protos(node, body.node, inner)
        return [inner[o.name] for o in body.output]

    def _protos(self, node: Node, protos: Sequence[onnx.NodeProto], inner: dict[str, str]) -> None:
        """Nodes of a subgraph or a function, in its own names."""
        outer, self.elements.scope = self.elements.scope, inner
        try:
            for each in protos:
                label = f"{node.name}.{each.name or each.op_type}"
                outputs: list[str] = []
                for value in each.output:
                    if value:
                        inner[value] = self.builder.fresh(f"{node.name}.{_clean(value)}")
                    outputs.append(inner[value] if value else "")
                inputs = tuple(inner[v] if v else "" for v in each.input)
                made = Node(label, each.op_type, inputs, tuple(outputs))
                domain = each.domain if each.domain not in OWN else ""
                self.write(made, attributes(each, self.folder, where=label), each, domain)
        finally:
            self.elements.scope = outer

    def _finish(self, node: Node, values: Sequence[str]) -> None:
        """The node's outputs as these values."""
        for output, value in zip(node.outputs, values, strict=False):
            if not output:
                continue
            if value in self.lost:
                self.lost.add(output)
                continue
            self.elements.known[output] = self.elements.of(value)
            constant = self.builder.constants.get(value)
            if constant is not None:
                self._keep(replace(node, outputs=(output,)), [constant])
            else:
                shape = self.builder.types[value].shape
                self.builder.emit("Reshape", [value], name=node.name, output=output, attrs={"shape": shape})

    def _made_of(self, node: Node, attrs: dict[str, Any], proto: onnx.NodeProto, domain: str) -> bool:
        """What ONNX says the operator is made of, where all of that has rules."""
        function = function_of(self.builder, self.elements, node, proto, self.opsets)
        if function is None:
            return False
        faults, lost = {k: list(v) for k, v in self.faults.items()}, set(self.lost)
        opsets = self.opsets

        def work() -> None:
            before = len(self.builder.nodes)
            inner = dict.fromkeys(("", *function.input), "") | dict(zip(function.input, node.inputs, strict=False))
            self.opsets = {**opsets, **{o.domain: o.version for o in function.opset_import}}
            given = {a.name: a for a in function.attribute_proto} | {a.name: a for a in proto.attribute}
            self._protos(node, [with_attributes(n, given) for n in function.node], inner)
            wrong = any(n.op == "Host" for n in self.builder.nodes[before:]) or self.lost != lost
            if wrong:
                raise UnloweredError
            wanted = zip(function.output, node.outputs, strict=False)
            self._finish(node, [inner[o] if v else "" for o, v in wanted])

        try:
            done = self._tried(node, work)
        except ModelError:
            done = False
        finally:
            self.opsets = opsets
        if not done:
            self.faults, self.lost = faults, lost
        return done


def _exists(node: Node, proto: onnx.NodeProto, opsets: Mapping[str, int]) -> bool:
    """Whether anybody knows the operator: a rule, ONNX, or ONNX Runtime's own domain."""
    domain = proto.domain if proto.domain != "ai.onnx" else ""
    if domain == "com.microsoft" or (domain in OWN and node.op in RULES):
        return True
    try:
        onnx.defs.get_schema(node.op, opsets.get(domain, 1), as_text(domain))
    except onnx.defs.SchemaError:
        return False
    return True


def _narrow(array: Array) -> Array:
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _clean(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_./:-" else "_" for c in name) or "_"
