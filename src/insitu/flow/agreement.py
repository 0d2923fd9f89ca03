"""Operators of a model that came quantized against ONNX Runtime, one by one, on the integers our interpreter had.

Each runs as DequantizeLinear -> operator -> QuantizeLinear in float, optimizations off.  Compared are operators whose
codes the model fixes on all sides and which compute: what only moves codes cannot differ.  A weight layer behind a
converter that rounds (`adc`) means something else by design and is left out.  Results that lie exactly between two
codes (averages that keep their input's scale have many) do not count for `equal_fraction`, because ONNX Runtime's code
is float noise there; `tie_fraction` says how many they are and `equal_fraction_all` what they change (decision 0023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from insitu.compiler.draft import is_weight_layer
from insitu.flow.check import reference
from insitu.graph.export import export_onnx
from insitu.graph.graph import Graph, Node
from insitu.graph.interpret import run_node
from insitu.graph.types import TensorType
from insitu.numeric.affine import QuantSpec
from insitu.report.result import OnnxAgreement

Array = npt.NDArray[Any]
SAMPLES = 4
TWO = ("Add", "Mul", "MatMul")
ROUNDED = (*TWO, "AveragePool", "ReduceMean", "Requantize")
MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Pad")
KINDS = {
    "i8": TensorProto.INT8, "u8": TensorProto.UINT8, "i16": TensorProto.INT16, "u16": TensorProto.UINT16,
}  # fmt: skip
RANGES = {(8, True): "i8", (8, False): "u8", (16, True): "i16", (16, False): "u16"}
NUMPY: Mapping[str, Any] = {"i8": np.int8, "u8": np.uint8, "i16": np.int16, "u16": np.uint16}


def agreement(
    captured: Graph, quantized: Graph, codes: Mapping[str, Array], *, samples: int = SAMPLES
) -> OnnxAgreement | None:
    """How often both give the same integer, over a few samples of input codes; None where nothing is comparable."""
    if captured.level == "quantized":  # a vendor's network: ONNX does not say what its operators give
        return None
    nodes = [n for n in captured.nodes if comparable(captured, quantized, n)]
    if not nodes:
        return None
    few = {n: c[:samples] for n, c in codes.items()}
    values = {**few, **reference(quantized, few)}
    results, clear, equal, equal_clear, most = 0, 0, 0, 0, 0
    for node in nodes:
        apart = np.abs(by_onnx(captured, quantized, node, values) - values[node.output])
        apart_clear = apart[~between(quantized, node.output, values)]
        results, clear = results + apart.size, clear + apart_clear.size
        equal, equal_clear = equal + int((apart == 0).sum()), equal_clear + int((apart_clear == 0).sum())
        most = max(most, int(apart.max(initial=0)))
    if not clear:
        return None
    return OnnxAgreement(equal_clear / clear, most, len(nodes), 1 - clear / results, equal / results)


def between(quantized: Graph, value: str, values: Mapping[str, Array]) -> npt.NDArray[np.bool_]:
    """Where a node's exact result, before it is rounded to a code, has the fraction 1/2."""
    node = quantized.producer(value)
    none = np.zeros(values[value].shape, bool)
    shift = int(node.attr("shift", 0)) if node is not None else 0
    if node is None or node.op not in ROUNDED or shift < 1:
        return none
    table = "".join(node.inputs[1:2]) if node.op == "AveragePool" else ""  # border windows count fewer
    if len(node.inputs) > (2 if node.op in TWO or table else 1):
        return none
    factor: Any = quantized.constants[table] if table else int(node.attr("multiplier", 1))
    attrs = {**node.attrs, "multiplier": 1, "shift": 0, "lo": -(1 << 62), "hi": 1 << 62}
    alone = replace(node, attrs=attrs, inputs=node.inputs[:1] if table else node.inputs)
    quant = quantized.types[value].quant
    sums = run_node(quantized, alone, {v: values[v] for v in alone.inputs if v in values})
    rest = ((sums - (quant.zero_point if quant else 0)) * np.asarray(factor, np.int64)) & ((1 << shift) - 1)
    return np.broadcast_to(rest == 1 << (shift - 1), none.shape)


def comparable(captured: Graph, quantized: Graph, node: Node) -> bool:
    """Whether the model fixes all codes of an operator that computes, and the chip means the same by it."""
    if node.op in MOVES or captured.types[node.output].quant is None:
        return False
    if is_weight_layer(captured, node):
        coded = next((n for n in quantized.nodes if n.name == node.name), None)
        if captured.types[node.inputs[1]].quant is None or coded is None or coded.attr("readout") != "exact":
            return False
    ends = [v for v in (*node.inputs, node.output) if v and v not in captured.constants]
    fixed = all(captured.types[v].quant is not None for v in ends)
    return fixed and all(_kind(quantized, v) is not None for v in ends)


def _kind(graph: Graph, value: str) -> str | None:
    """The ONNX type of a value's codes; none where ONNX has no Q and DQ for them."""
    quant = graph.types[value].quant if value in graph.types else None
    return None if quant is None or quant.axis is not None else RANGES.get((quant.bits, quant.signed))


def by_onnx(captured: Graph, quantized: Graph, node: Node, values: Mapping[str, Array]) -> npt.NDArray[np.int64]:
    """Codes (samples, *shape) of one operator by ONNX Runtime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    names = [v for v in dict.fromkeys(node.inputs) if v and v not in captured.constants]
    model = _one(captured, quantized, node, names)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rows: list[Array] = []
    for i in range(len(values[names[0]])):
        feeds = {f"{v}#given": values[v][i].astype(NUMPY[_kind(quantized, v) or "i8"]) for v in names}
        rows.append(np.asarray(session.run(None, feeds)[0], np.int64))
    return np.stack(rows)


def _one(captured: Graph, quantized: Graph, node: Node, names: list[str]) -> onnx.ModelProto:
    """DequantizeLinear -> `node` -> QuantizeLinear as a model of its own."""
    alone = replace(captured, inputs=tuple(names), outputs=(node.output,), states=(), meta={}).with_nodes([node])
    alone = replace(alone, types={v: _real(t, v in names or v == node.output) for v, t in alone.types.items()})
    body = export_onnx(alone, batched=False).graph
    inputs: list[onnx.ValueInfoProto] = []
    before: list[onnx.NodeProto] = []
    for name in names:
        kind = _kind(quantized, name) or "i8"
        inputs.append(helper.make_tensor_value_info(f"{name}#given", KINDS[kind], list(captured.types[name].shape)))
        before.append(_rounding("DequantizeLinear", body, quantized, name, f"{name}#given", name))
    out = f"{node.output}#taken"
    after = _rounding("QuantizeLinear", body, quantized, node.output, node.output, out)
    kind = _kind(quantized, node.output) or "i8"
    end = helper.make_tensor_value_info(out, KINDS[kind], None)
    graph = helper.make_graph([*before, *body.node, after], "one", inputs, [end], list(body.initializer))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _real(kind: TensorType, plain: bool) -> TensorType:
    return replace(kind, quant=None) if plain else kind


def _rounding(op: str, body: onnx.GraphProto, quantized: Graph, value: str, source: str, output: str) -> onnx.NodeProto:
    """A QuantizeLinear or DequantizeLinear with the scale and zero point of `value`, which become initializers."""
    quant, kind = quantized.types[value].quant, _kind(quantized, value) or "i8"
    assert isinstance(quant, QuantSpec)
    scale, zero = f"{output}#{op}#scale", f"{output}#{op}#zero"
    body.initializer.append(numpy_helper.from_array(np.full((), quant.scale[0], np.float32), scale))
    body.initializer.append(numpy_helper.from_array(np.full((), quant.zero_point, NUMPY[kind]), zero))
    return helper.make_node(op, [source, scale, zero], [output])
