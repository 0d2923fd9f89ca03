"""Sequences of tensors whose parts are known when the file is read: they become the slices and joins they stand for.

PyTorch's exporter writes `torch.split` and `chunk` as SplitToSequence and one SequenceAt a part, and `torch.stack` of a
list as SequenceConstruct and ConcatFromSequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from insitu.frontend.host_nodes import free_names, subgraphs
from insitu.frontend.onnx_file import as_text

Ints = npt.NDArray[np.int64]
LARGEST = 4096  # numbers of a constant that is looked at: places and lengths
MAKERS = ("SplitToSequence", "SequenceConstruct")
READERS = ("SequenceAt", "ConcatFromSequence", "SequenceLength")


def without_sequences(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model without the sequences of its network that are only taken apart and joined; others stay."""
    if not any(n.op_type in MAKERS for n in model.graph.node):
        return model
    graph = model.graph
    known, makers = _constants(graph), {n.output[0]: n for n in graph.node if n.op_type in MAKERS and n.output}
    ends = {o.name for o in graph.output}
    taken = {n.input[0] for n in graph.node if n.op_type in READERS and n.input}
    write = _Writer(known, {v: n for v, n in makers.items() if v in taken and v not in ends}, opset)
    nodes = [made for node in graph.node for made in write.node(node)]
    read = {v for n in nodes for v in n.input} | ends | _inner(nodes)
    kept = [n for n in nodes if n.op_type not in MAKERS or read.intersection(n.output)]
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    made.graph.node.extend(kept)
    made.graph.initializer.extend(write.constants)
    return made


def _inner(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Every value that a subgraph reads from outside."""
    return {v for n in nodes for g in subgraphs(n) for v in free_names(g)}


def _constants(graph: onnx.GraphProto) -> dict[str, Ints]:
    """Short whole-number constants by name."""
    tensors = [(t.name, t) for t in graph.initializer]
    found: dict[str, Ints] = {}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for a in node.attribute:
                if a.name == "value":
                    tensors.append((node.output[0], a.t))
                elif a.name in ("value_int", "value_ints"):
                    found[node.output[0]] = np.array(helper.get_attribute_value(a), np.int64)
    for name, tensor in tensors:
        whole = tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
        outside = tensor.data_location == onnx.TensorProto.EXTERNAL
        if whole and not outside and 0 <= np.prod(tensor.dims, dtype=float) <= LARGEST:
            try:
                found[name] = numpy_helper.to_array(tensor).astype(np.int64)
            except (ValueError, TypeError):  # a broken tensor: whoever reads it says so
                continue
    return found


@dataclass
class _Part:
    """Elements first .. end of an axis; without the axis where it is one element and `alone`."""

    first: int
    end: int
    alone: bool


class _Writer:
    """Nodes in place of those that read a sequence."""

    def __init__(self, known: Mapping[str, Ints], makers: Mapping[str, onnx.NodeProto], opset: int) -> None:
        self.known, self.makers, self.opset = known, makers, opset
        self.constants: list[onnx.TensorProto] = []
        self._ways: dict[str, Callable[[onnx.NodeProto, onnx.NodeProto], list[onnx.NodeProto] | None]] = {
            "SequenceAt": self._at, "ConcatFromSequence": self._joined, "SequenceLength": self._length,
        }  # fmt: skip

    def node(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """What stands in place of a node; the node itself where its sequence is not known."""
        maker = self.makers.get(node.input[0]) if node.op_type in READERS and node.input and node.output else None
        made = None if maker is None or node.domain not in ("", "ai.onnx") else self._ways[node.op_type](maker, node)
        return [node] if made is None else made

    def _at(self, maker: onnx.NodeProto, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        place = self.known.get(node.input[1]) if len(node.input) > 1 else None
        if place is None or place.size != 1:
            return None
        index = int(place.reshape(-1)[0])
        if maker.op_type == "SequenceConstruct":
            if not -len(maker.input) <= index < len(maker.input):
                return None
            return [helper.make_node("Identity", [maker.input[index]], list(node.output), name=node.name)]
        part = self._part(maker, index)
        return None if part is None else self._cut(maker, node, part)

    def _part(self, maker: onnx.NodeProto, index: int) -> _Part | None:
        """Which elements the part of that index has; none where that hangs on the tensor's own size."""
        if len(maker.input) < 2 or not maker.input[1]:
            alone = not int(_attribute(maker, "keepdims", 1))
            return _Part(index, index + 1, alone) if index >= 0 else None
        lengths = self.known.get(maker.input[1])
        if lengths is None:
            return None
        if lengths.ndim == 0:
            size = int(lengths)
            return _Part(index * size, (index + 1) * size, False) if index >= 0 and size > 0 else None
        if not -len(lengths) <= index < len(lengths) or lengths.min(initial=0) < 0:
            return None
        first = int(lengths[: index % len(lengths)].sum())
        return _Part(first, first + int(lengths[index]), False)

    def _cut(self, maker: onnx.NodeProto, node: onnx.NodeProto, part: _Part) -> list[onnx.NodeProto]:
        axis, out = int(_attribute(maker, "axis", 0)), node.output[0]
        if part.alone:
            at = self._constant(f"{out}.at", part.first)
            return [helper.make_node("Gather", [maker.input[0], at], [out], name=node.name, axis=axis)]
        places = {"first": part.first, "end": part.end, "axis": axis}
        bounds = [self._constant(f"{out}.{name}", [value]) for name, value in places.items()]
        return [helper.make_node("Slice", [maker.input[0], *bounds], [out], name=node.name)]

    def _joined(self, maker: onnx.NodeProto, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        if maker.op_type != "SequenceConstruct":
            return None
        axis, parts, nodes = int(_attribute(node, "axis", 0)), list(maker.input), list[onnx.NodeProto]()
        if int(_attribute(node, "new_axis", 0)):
            if self.opset < 13:  # where the axis is an attribute
                return None
            at = self._constant(f"{node.output[0]}.axis", [axis])
            wide = [f"{node.output[0]}.{i}" for i in range(len(parts))]
            nodes = [helper.make_node("Unsqueeze", [p, at], [w], name=w) for p, w in zip(parts, wide, strict=True)]
            parts = wide
        return [*nodes, helper.make_node("Concat", parts, list(node.output), name=node.name, axis=axis)]

    def _length(self, maker: onnx.NodeProto, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        lengths = self.known.get(maker.input[1]) if len(maker.input) > 1 else None
        if maker.op_type == "SequenceConstruct":
            count = len(maker.input)
        elif lengths is not None and lengths.ndim == 1:
            count = len(lengths)
        else:
            return None
        value = numpy_helper.from_array(np.array(count, np.int64))
        return [helper.make_node("Constant", [], list(node.output), name=node.name, value=value)]

    def _constant(self, name: str, values: int | list[int]) -> str:
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    found = next((a for a in node.attribute if as_text(a.name) == name), None)
    return default if found is None else helper.get_attribute_value(found)
