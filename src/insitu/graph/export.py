"""Graphs as ONNX: for Netron, for other tools, and for the float reference that ONNX Runtime computes.

A captured graph becomes float ONNX.  A quantized graph becomes the QDQ form: every value `v` stands as `v#codes`
(integers) between QuantizeLinear and DequantizeLinear and as `v` (real); weights are integers with a DequantizeLinear.
Its results are close to the integers' meaning, not equal: ONNX rounds in float.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from insitu.base.errors import DataError, ModelError
from insitu.graph.batch import batch_axes
from insitu.graph.export_nodes import export_curve, export_norm, export_scatter
from insitu.graph.graph import Graph, Node
from insitu.graph.ops.float import numpy_type
from insitu.graph.ops.hosted import ELEMENTS
from insitu.graph.ops.mvm import block_signs
from insitu.graph.ops.shapes import text
from insitu.graph.parts import Part, Session, parts_of, run_parts, stretch
from insitu.graph.types import TensorType
from insitu.numeric.affine import QuantSpec

Array = npt.NDArray[Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]
OPSET, IR_VERSION = 21, 10
BATCH = "N"
BLOCK = 32  # samples in one call of ONNX Runtime
INTEGERS = {"i8": TensorProto.INT8, "u8": TensorProto.UINT8, "i16": TensorProto.INT16, "u16": TensorProto.UINT16}
NUMPY = {"i8": np.int8, "u8": np.uint8, "i16": np.int16, "u16": np.uint16}
PLAIN_ATTRS = {
    "Conv": ("strides", "pads", "dilations", "group"), "Gemm": ("alpha", "beta", "transB"),
    "BatchNormalization": ("epsilon",), "MaxPool": ("kernel_shape", "strides", "pads", "dilations"),
    "AveragePool": ("kernel_shape", "strides", "pads", "dilations", "count_include_pad"), "ReduceMean": ("keepdims",),
    "Softmax": ("axis",), "Concat": ("axis",), "Transpose": ("perm",), "Flatten": ("axis",), "Gather": ("axis",),
    "ReduceSum": ("keepdims",), "ReduceMax": ("keepdims",),
}  # fmt: skip


def export_onnx(graph: Graph, *, expose: Sequence[str] = (), batched: bool = True) -> onnx.ModelProto:
    """The graph as an ONNX model; `expose` adds values as outputs.

    The batch becomes symbolic again where samples cannot mix (`batched`); elsewhere it stays 1.
    """
    return _export(graph, (batch_axes(graph) or {}) if batched else {}, expose)


def _export(graph: Graph, axes: Mapping[str, int], expose: Sequence[str]) -> onnx.ModelProto:
    """The graph as ONNX, the batch open along `axes`."""
    writer = _Writer(graph, axes)
    for name in (*graph.inputs, *graph.state_inputs):
        writer.declare(name)
    for node in graph.nodes:
        writer.operation(node)
    outputs = dict.fromkeys((*graph.outputs, *(s.output for s in graph.states), *expose))
    unknown = [v for v in outputs if v not in graph.types]
    if unknown:
        raise ModelError(f"value {unknown[0]!r}", "the graph has no such value", "a value of the graph")
    protos = [writer.value_info(v) for v in outputs]
    inputs = [writer.value_info(v) for v in (*graph.inputs, *graph.state_inputs)]
    body = helper.make_graph(writer.nodes, graph.name, inputs, protos, writer.tensors)
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION, producer_name="insitu")


def node_body(graph: Graph, node: Node) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """One node of a captured graph as ONNX nodes, and the constants they read by name."""
    writer = _Writer(graph, {})
    writer.operation(node)
    return writer.nodes, {t.name: numpy_helper.to_array(t) for t in writer.tensors}


@dataclass
class _Writer:
    """The ONNX graph while it is written."""

    graph: Graph
    axes: Mapping[str, int]
    nodes: list[onnx.NodeProto] = field(default_factory=list[onnx.NodeProto])
    tensors: list[onnx.TensorProto] = field(default_factory=list[onnx.TensorProto])
    written: set[str] = field(default_factory=set[str])

    def value_info(self, name: str) -> onnx.ValueInfoProto:
        shape: list[int | str] = list(self.graph.type(name).shape)
        if name in self.axes:
            shape[self.axes[name]] = BATCH
        element = ELEMENTS.get(self.graph.type(name).dtype, TensorProto.FLOAT)
        coded = self.graph.type(name).quant is not None
        return helper.make_tensor_value_info(name, TensorProto.FLOAT if coded else element, shape)

    def put(self, op: str, inputs: Sequence[str], output: str, attrs: Mapping[str, Any] | None = None) -> None:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"{output}:{op}", **dict(attrs or {})))

    def tensor(self, name: str, array: Array) -> str:
        if name not in self.written:
            self.written.add(name)
            self.tensors.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def declare(self, name: str) -> None:
        """An input: real numbers, rounded to codes where the graph is quantized."""
        if _coded(self.graph.type(name)):
            self.rounded(name, name, f"{name}#real")

    def rounded(self, name: str, source: str, output: str) -> None:
        """`source` through the codes of value `name`.

        Scales per channel stand as factors around one scale: ONNX Runtime cannot load them in activations.
        """
        kind = self.graph.type(name)
        assert kind.quant is not None
        shared = (
            kind.quant if kind.quant.axis is None else replace(kind.quant, scale=(max(kind.quant.scale),), axis=None)
        )
        scaling, before, after = self.scaling(name, shared, NUMPY[kind.dtype]), source, output
        if kind.quant.axis is not None:
            ratio = (kind.quant.scales(kind.rank) / shared.scale[0]).astype(np.float32)
            self.put("Div", [source, self.tensor(f"{name}#ratio", ratio)], f"{name}#even")
            before, after = f"{name}#even", f"{name}#even_real"
        self.put("QuantizeLinear", [before, *scaling], f"{name}#codes")
        self.put("DequantizeLinear", [f"{name}#codes", *scaling], after)
        if kind.quant.axis is not None:
            self.put("Mul", [after, f"{name}#ratio"], output)

    def scaling(self, name: str, quant: QuantSpec, dtype: Any) -> tuple[str, str]:
        """Scale and zero point as tensors."""
        scale = np.asarray(quant.scale, np.float32).reshape(() if quant.axis is None else -1)
        zero = np.full(scale.shape, quant.zero_point, dtype)
        return self.tensor(f"{name}#scale", scale), self.tensor(f"{name}#zero_point", zero)

    def real(self, name: str) -> str:
        """The name of the real numbers of an input or constant."""
        if not name or name in self.graph.constants:
            return self.constant(name) if name else ""
        ends = (*self.graph.inputs, *self.graph.state_inputs)
        return f"{name}#real" if name in ends and _coded(self.graph.type(name)) else name

    def constant(self, name: str) -> str:
        array, kind = self.graph.constants[name], self.graph.type(name)
        if kind.dtype == "f64" and self.graph.level == "captured":
            return self.tensor(name, array.astype(np.float32))
        if kind.quant is None or kind.dtype == "f32":
            return self.tensor(name, array)
        if kind.dtype not in NUMPY:
            return self.tensor(
                name, ((array - kind.quant.zero_point) * kind.quant.scales(array.ndim)).astype(np.float32)
            )
        codes = self.tensor(f"{name}#codes", array)
        if name not in self.written:
            self.written.add(name)
            axis = {} if kind.quant.axis is None else {"axis": kind.quant.axis}
            self.put("DequantizeLinear", [codes, *self.scaling(name, kind.quant, NUMPY[kind.dtype])], name, axis)
        return name

    def operation(self, node: Node) -> None:
        """One node, its activation, and its codes where the graph is quantized."""
        quantized = _coded(self.graph.type(node.output)) and "lo" in node.attrs
        lo, hi = _code_bounds(self.graph.type(node.output), node) if quantized else _bounds(node)
        clipped = np.isfinite(lo) or np.isfinite(hi)
        codes = _coded(self.graph.type(node.output))
        last = f"{node.output}#exact" if codes else node.output
        self.compute(node, f"{node.output}#linear" if clipped else last)
        if clipped:
            self.clip(f"{node.output}#linear", last, lo, hi)
        if codes:
            self.rounded(node.output, last, node.output)

    def clip(self, source: str, output: str, lo: float, hi: float) -> None:
        if (lo, hi) == (0.0, np.inf):
            self.put("Relu", [source], output)
            return
        low = self.tensor(f"{output}#lo", _number(lo)) if np.isfinite(lo) else ""
        high = self.tensor(f"{output}#hi", _number(hi)) if np.isfinite(hi) else ""
        self.put("Clip", [source, low, high] if high else [source, low], output)

    def compute(self, node: Node, output: str) -> None:
        """The operator alone, in real numbers."""
        if node.op in ("Conv", "MatMul") and len(node.inputs) > 3:
            return self.coded_layer(node, output)
        one = ("AveragePool", "ReduceMean", "MaxPool", "Softmax", "Lut")
        count = 1 if node.op in one else 2 if node.op in ("Add", "Mul") else len(node.inputs)
        names = [self.real(v) for v in node.inputs[:count]]  # tables of integers are left behind
        if node.op == "MatMul" and len(names) == 3:
            return self.product(names[0], names[1], names[2], output)
        if node.op in ("Requantize", "Relu", "Clip"):  # in real numbers a Requantize changes nothing
            return self.rescale(node, names[0], output)
        if node.op in ("Curve", "Lut") and "expr" in node.attrs:
            return export_curve(self.put, self.tensor, str(node.attr("expr")), names[0], output)
        if node.op == "Norm":
            return export_norm(self.put, self.tensor, node, names[0], output)
        if node.op == "Scatter":
            rank = len(self.graph.type(node.output).shape)
            return export_scatter(self.put, self.tensor, int(node.attr("axis")), rank, names, output)
        if node.op in ("Host", "Lut"):
            need = "operators of ONNX; the captured graph, or its ONNX file, has them all"
            raise ModelError(f"node {node.name!r} ({node.op})", "no form in ONNX", need)
        attrs = {k: node.attr(k) for k in PLAIN_ATTRS.get(node.op, ()) if k in node.attrs}
        return self.put(node.op, [*names, *self.arguments(node, output)], output, attrs)

    def product(self, x: str, w: str, b: str, output: str) -> None:
        self.put("MatMul", [x, w], f"{output}#product")
        self.put("Add", [f"{output}#product", b], output)

    def rescale(self, node: Node, source: str, output: str) -> None:
        if node.op == "Clip" and "multiplier" not in node.attrs:
            return self.clip(source, output, float(node.attr("lo", -np.inf)), float(node.attr("hi", np.inf)))
        return self.put("Relu" if node.op == "Relu" else "Identity", [source], output)

    def arguments(self, node: Node, output: str) -> list[str]:
        """Attributes of ours that ONNX takes as inputs."""
        if node.op == "Slice":
            return [self.tensor(f"{output}#{k}", v) for k, v in self.cuts(node).items()]
        if node.op == "Pad":
            value = self.tensor(f"{output}#value", _number(node.attr("value", 0.0)))
            return [self.tensor(f"{output}#pads", _ints(node.attr("pads"))), value]
        if node.op == "Reshape":
            return [self.tensor(f"{output}#shape", self.target(node))]
        if node.op in ("Squeeze", "Unsqueeze", "ReduceMean", "ReduceSum", "ReduceMax"):
            return [self.tensor(f"{output}#axes", _ints(node.attr("axes")))]
        return []

    def cuts(self, node: Node) -> dict[str, Array]:
        """Arguments of a Slice without the batch axis, which stays whole."""
        rank = len(self.graph.type(node.output).shape)
        batch = self.axes.get(node.inputs[0])
        keep = [i for i, axis in enumerate(node.attr("axes")) if axis % rank != batch]
        return {k: _ints([node.attr(k)[i] for i in keep]) for k in ("starts", "ends", "axes", "steps")}

    def target(self, node: Node) -> Array:
        """A Reshape's shape, -1 where the batch or a named size stands."""
        batch = self.axes.get(node.output)
        shape = node.attr("shape") or self.graph.type(node.output).shape
        return _ints([-1 if i == batch or isinstance(d, str) else d for i, d in enumerate(shape)])

    def coded_layer(self, node: Node, output: str) -> None:
        """A quantized weight layer: dequantised weights, and the bias that the integers mean."""
        weights, bias = real_layer(self.graph, node)
        x, name = node.inputs[0], node.inputs[1]
        quant = self.graph.type(x).quant
        plain = quant is not None and quant.axis is None and self.graph.type(name).dtype in NUMPY
        w = self.constant(name) if plain else self.tensor(f"{name}#real", weights)
        b = self.tensor(f"{node.name}#real_bias", bias)
        if node.op == "Conv":
            attrs = {k: node.attr(k) for k in PLAIN_ATTRS["Conv"] if k in node.attrs}
            self.put("Conv", [self.real(x), w, b], output, attrs)
        else:
            self.product(self.real(x), w, b, output)


def _ints(values: Sequence[int]) -> Array:
    return np.asarray(list(values), np.int64)


def _number(value: float) -> Array:
    return np.full((), value, np.float32)


def _coded(kind: TensorType) -> bool:
    """True for a value that stands as integers ONNX can hold."""
    return kind.quant is not None and kind.dtype in NUMPY


def _bounds(node: Node) -> tuple[float, float]:
    return float(node.attr("act_lo", -np.inf)), float(node.attr("act_hi", np.inf))


def _code_bounds(kind: TensorType, node: Node) -> tuple[float, float]:
    """The real numbers that a node's smallest and largest code stand for; infinite where the type ends there too."""
    assert kind.quant is not None
    limits, scale = np.iinfo(NUMPY[kind.dtype]), max(kind.quant.scale)
    lo, hi = int(node.attr("lo")), int(node.attr("hi"))
    return (
        -np.inf if lo <= limits.min else (lo - kind.quant.zero_point) * scale,
        np.inf if hi >= limits.max else (hi - kind.quant.zero_point) * scale,
    )


def real_layer(graph: Graph, node: Node) -> tuple[Array, Array]:
    """Weights and bias of a quantized weight layer as real numbers (float32)."""
    x, w, out = (graph.type(v).quant for v in (node.inputs[0], node.inputs[1], node.output))
    assert x is not None
    assert w is not None
    assert out is not None
    codes, bias = (np.asarray(graph.constants[v], np.float64) for v in node.inputs[1:3])
    axis = 0 if node.op == "Conv" else 1
    sums = codes.sum(axis=tuple(i for i in range(codes.ndim) if i != axis))
    zero = (x.zero_point << int(node.attr("input_shift", 0))) + int(node.attr("input_offset", 0))
    signs = block_signs(node)
    zero = zero * len(signs) if min(signs) > 0 else 0  # in rows driven with both signs it cancels
    step = 2.0 ** (int(node.attr("adc_s", 0)) - max(node.attr("finer", ()), default=0)) / int(node.attr("adc_m", 1))
    if node.attr("readout") == "adc" and len(node.inputs) > 5:  # columns that are converted in finer steps
        step = step / 2.0 ** np.asarray(graph.constants[node.inputs[5]], np.float64)
    if node.attr("readout") == "wtm2101":
        bias = bias * max(int(node.attr("apart", 1)), 1)  # every copy holds it
    weights = codes * w.scales(codes.ndim)
    if x.axis is not None:
        weights = weights / _input_ratio(x, node, codes.shape)
    real_bias = _column_units(graph, node, out) * (bias + zero * sums / step)
    return weights.astype(np.float32), real_bias.astype(np.float32)


def _column_units(graph: Graph, node: Node, out: QuantSpec) -> Array:
    """What one unit of a column's sum (with its bias) means in real numbers."""
    if node.attr("readout") == "wtm2101":
        return np.asarray(out.scale) / np.asarray(graph.constants[node.inputs[5]], np.float64)
    m, r = (np.asarray(graph.constants[v], np.float64) for v in node.inputs[3:5])
    return m / 2.0**r * np.asarray(out.scale)


def _input_ratio(x: QuantSpec, node: Node, shape: Sequence[int]) -> Array:
    """Per-channel input scales over their largest, shaped like the weights: quantize has multiplied them in."""
    ratio = np.asarray(x.scale) / max(x.scale)
    if node.op == "MatMul":
        return ratio[:, None]
    group, out, each = int(node.attr("group", 1)), shape[0], shape[1]
    rows = ratio.reshape(group, each)[np.arange(out) // (out // group)]
    return rows.reshape(out, each, *(1,) * (len(shape) - 2))


# the float reference


def float_session(
    graph: Graph, expose: Sequence[str] = (), *, threads: int = 1, block: int = BLOCK, arena: bool = True
) -> Run:
    """A function from inputs (S, *shape) to all outputs and exposed values (S, *shape), by ONNX Runtime.

    Samples run `block` at a time where the batch can grow, else one by one; the first two samples are run both ways
    once, and one by one it stays if they differ.  With `arena` ONNX Runtime keeps the memory of one call for the next.
    """
    names = tuple(dict.fromkeys((*graph.outputs, *(s.output for s in graph.states), *expose)))
    return _Reference(graph, names, batch_axes(graph), threads, block, arena)


class _Reference:
    """ONNX Runtime sessions of one graph, made when first needed."""

    def __init__(
        self, graph: Graph, names: Sequence[str], axes: Mapping[str, int] | None, threads: int, block: int, arena: bool
    ):
        self.graph, self.names, self.threads, self.block, self.arena = graph, tuple(names), threads, block, arena
        self.axes = axes if axes is not None and all(n in axes for n in names) else None
        self._checked = False
        self._sessions: dict[bool, Any] = {}
        self.parts: list[Part] = parts_of(graph, names) if any(n.op == "Host" for n in graph.nodes) else []
        self._parts: dict[int, Any] = {}

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        data = {v: _checked_input(self.graph, v, inputs) for v in (*self.graph.inputs, *self.graph.state_inputs)}
        samples = len(next(iter(data.values())))
        if self.axes is not None and samples > 1 and self.block > 1 and not self._checked:
            self._check({v: a[:2] for v, a in data.items()})
        if self.axes is None:
            return self._one_by_one(data, samples)
        parts = [self._many({v: a[i : i + self.block] for v, a in data.items()}) for i in range(0, samples, self.block)]
        return parts[0] if len(parts) == 1 else {n: np.concatenate([p[n] for p in parts]) for n in self.names}

    def _session(self, *, batched: bool) -> Any:
        if batched not in self._sessions:
            expose = [n for n in self.names if n not in self.graph.outputs]
            self._sessions[batched] = self._loaded(self.graph, (self.axes or {}) if batched else {}, expose)
        return self._sessions[batched]

    def _loaded(self, graph: Graph, axes: Mapping[str, int], expose: Sequence[str]) -> Any:
        """A session of ONNX Runtime."""
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would send model names and hashes to its makers
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level, options.enable_cpu_mem_arena = 3, self.arena
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # real numbers, not integer kernels
        model = _export(graph, axes, expose).SerializeToString()
        return ort.InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["Pad_Fusion"],  # it makes pools whose padding ONNX Runtime then refuses
        )

    def _part(self, index: int) -> Session:
        if index not in self._parts:
            self._parts[index] = self._loaded(stretch(self.graph, self.parts[index]), {}, ())
        session = self._parts[index]
        return lambda feeds, names: session.run(list(names), dict(feeds))

    def _in_parts(self, data: Mapping[str, Array], samples: int) -> dict[str, Array]:
        rows: list[dict[str, Any]] = []
        for i in range(samples):
            found = run_parts(self.graph, self.parts, {v: np.asarray(a[i]) for v, a in data.items()}, self._part)
            rows.append({n: found[n] for n in self.names})
        return {n: _stacked([np.asarray(row[n]) for row in rows]) for n in self.names}

    def _one_by_one(self, data: Mapping[str, Array], samples: int) -> dict[str, Array]:
        if self.parts:
            return self._in_parts(data, samples)
        session = self._session(batched=False)
        rows = [session.run(list(self.names), {v: np.asarray(a[i]) for v, a in data.items()}) for i in range(samples)]
        return {n: _stacked([row[k] for row in rows]) for k, n in enumerate(self.names)}

    def _many(self, data: Mapping[str, Array]) -> dict[str, Array]:
        assert self.axes is not None
        feeds = {v: a.reshape(len(a), *a.shape[2:]) for v, a in data.items()}
        values = self._session(batched=True).run(list(self.names), feeds)
        axes = [self.axes[n] for n in self.names]
        rows = zip(self.names, values, axes, strict=True)
        return {n: np.expand_dims(np.moveaxis(value, axis, 0), axis + 1) for n, value, axis in rows}

    def _check(self, data: Mapping[str, Array]) -> None:
        """Falls back to one by one where the batch changes the result."""
        self._checked = True
        alone, together = self._one_by_one(data, 2), self._many(data)
        for name in self.names:
            peak = float(np.abs(alone[name]).max(initial=0.0)) or 1.0
            same = alone[name].shape == together[name].shape
            if not same or not np.allclose(alone[name], together[name], rtol=0, atol=1e-3 * peak, equal_nan=True):
                self.axes = None


def _stacked(rows: list[Array]) -> Array:
    """Arrays of one shape as one, the first axis counts them; a single one is not copied."""
    return rows[0][None] if len(rows) == 1 else np.stack(rows)


def _checked_input(graph: Graph, name: str, inputs: Mapping[str, Array]) -> Array:
    shape = graph.type(name).shape
    if name not in inputs:
        raise DataError(f"input {name!r}", "no array", f"samples of the shape {text(shape)}")
    kind = graph.type(name)
    array = np.asarray(inputs[name], np.float32 if kind.quant is not None else numpy_type(kind.dtype))
    fits = array.ndim == len(shape) + 1 and all(
        isinstance(d, str) or d == n for d, n in zip(shape, array.shape[1:], strict=True)
    )
    if not fits:
        raise DataError(f"input {name!r}", f"an array {text(array.shape)}", f"samples of the shape {text(shape)}")
    return array
