"""Random networks in ONNX's quantized form: a float network, its ranges, and QuantizeLinear around every operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.graph.networks import Random, node, run_onnx

Array = np.ndarray[Any, Any]
MOVES = ("Reshape", "Transpose", "MaxPool", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Pad", "Identity")
KINDS = {"u8": np.uint8, "i8": np.int8}
SAMPLES = 16


class Network(Random):
    """A random float network; beside what `Random` has, attention, recurrent cells and functions."""

    def deep(self) -> None:
        """A convolution per channel and one across channels."""
        c, h, w = self.shape
        self.emit("Conv", self.tensor(self.normal(c, 1, 3, 3)), self.tensor(self.normal(c)), pads=[1, 1, 1, 1], group=c)
        self.emit("Relu")
        out = self.pick(2, 5, 8)
        self.emit("Conv", self.tensor(self.normal(out, c, 1, 1)), self.tensor(self.normal(out)), shape=(out, h, w))

    def function(self) -> None:
        self.emit(self.pick("Sigmoid", "Tanh", "HardSigmoid", "LeakyRelu", "HardSwish"))

    def gate(self) -> None:
        """x * sigmoid(x)."""
        value, shape = self.value, self.shape
        self.emit("Sigmoid")
        gate, self.value = self.value, value
        self.emit("Mul", gate, shape=shape)

    def rows(self) -> tuple[int, int]:
        """The map as a sequence of rows."""
        c, h, w = self.shape
        self.emit("Reshape", self.tensor([0, c, h * w], np.int64), shape=(c, h * w))
        self.emit("Transpose", perm=[0, 2, 1], shape=(h * w, c))
        return h * w, c

    def back(self, c: int, h: int, w: int) -> None:
        self.emit("Transpose", perm=[0, 2, 1], shape=(c, h * w))
        self.emit("Reshape", self.tensor([0, c, h, w], np.int64), shape=(c, h, w))

    def attention(self) -> None:
        c, h, w = self.shape
        if h * w > 49:
            return
        count, _ = self.rows()
        x, d = self.value, self.pick(4, 6)
        heads: dict[str, str] = {}
        for name in ("q", "k", "v"):
            self.value, self.shape = x, (count, c)
            self.emit("MatMul", self.tensor(self.normal(c, d) * 2), shape=(count, d))
            heads[name] = self.value
        self.value = heads["k"]
        self.emit("Transpose", perm=[0, 2, 1], shape=(d, count))
        turned, self.value = self.value, heads["q"]
        self.emit("MatMul", turned, shape=(count, count))
        self.emit("Mul", self.tensor(1 / np.sqrt(d)))
        self.emit("Softmax", axis=-1)
        self.emit("MatMul", heads["v"], shape=(count, d))
        self.emit("MatMul", self.tensor(self.normal(d, c)), shape=(count, c))
        self.emit("Add", x)
        self.back(c, h, w)

    def cell(self) -> None:
        """Two steps of a gated cell over the rows, written as plain operators."""
        c, h, w = self.shape
        count, _ = self.rows()
        sequence, d = self.value, self.pick(3, 5)
        weights = [self.tensor(self.normal(c, d)), self.tensor(self.normal(d, d)), self.tensor(self.normal(c, d))]
        state = ""
        for step in range(2):
            self.value, self.shape = sequence, (count, c)
            arguments = [self.tensor([v], np.int64) for v in (step, step + 1, 1, 1)]
            self.emit("Slice", *arguments, shape=(1, c))
            x = self.value
            self.emit("MatMul", weights[0], shape=(1, d))
            if state:
                mine, self.value = self.value, state
                self.emit("MatMul", weights[1], shape=(1, d))
                self.emit("Add", mine)
            self.emit("Tanh")
            new, self.value, self.shape = self.value, x, (1, c)
            self.emit("MatMul", weights[2], shape=(1, d))
            self.emit("Sigmoid")
            self.emit("Mul", new)
            state = self.value
        self.emit("MatMul", self.tensor(self.normal(d, c * h * w)), shape=(1, c * h * w))
        self.emit("Reshape", self.tensor([0, c, h, w], np.int64), shape=(c, h, w))

    def window(self) -> None:
        """An average over an odd number of elements: none of its results lies between two codes."""
        c, h, w = self.shape
        if min(h, w) >= 4:
            self.emit("AveragePool", shape=(c, h - 2, w - 2), kernel_shape=[3, 3])


STEPS: tuple[Callable[[Network], None], ...] = (
    Network.conv, Network.conv, Network.conv, Network.deep, Network.act, Network.act, Network.constant,
    Network.residual, Network.residual, Network.concat, Network.concat, Network.cut, Network.pad, Network.pool,
    Network.turn, Network.fold_and_back, Network.function, Network.gate, Network.attention, Network.cell,
    Network.window,
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How a network is quantized."""

    activations: str
    weights: str
    per_channel: bool
    symmetric: bool
    zero: int  # of unsigned weights
    coded_input: bool
    coded_output: bool
    shared: bool  # moves keep their input's scale
    left: float  # share of operators left in float


def style(rng: np.random.Generator) -> Style:
    """One of the ways that converters write."""
    flip = lambda p: bool(rng.random() < p)  # noqa: E731
    unsigned = flip(0.15)
    return Style(
        activations="u8" if flip(0.5) else "i8",
        weights="u8" if unsigned else "i8",
        per_channel=flip(0.5) and not unsigned,
        symmetric=flip(0.3),
        zero=int(rng.integers(100, 156)) if flip(0.3) else 128,
        coded_input=flip(0.2),
        coded_output=flip(0.2),
        shared=flip(0.8),
        left=0.1 if flip(0.15) else 0.0,
    )


def qdq_model(seed: int, *, steps: int = 7) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """(a random QDQ model with one input "x", inputs of some samples)."""
    net = Network(seed)
    for _ in range(steps):
        if min(net.shape[1:]) > 2 and net.shape[0] <= 12:
            net.pick(*STEPS)(net)
    net.head()
    plain = float_model(net)
    rng = np.random.default_rng(seed + 1)
    x = rng.standard_normal((SAMPLES, *net.start), dtype=np.float32)
    values = exposed(plain, x)
    return quantized(plain, values, style(rng), rng), {"x": x}


def float_model(net: Network) -> onnx.ModelProto:
    """The network in real numbers."""
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *net.start])]
    outputs = [helper.make_tensor_value_info(net.value, TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(a, n) for n, a in net.tensors.items()]
    graph = helper.make_graph(net.nodes, "qdq", infos, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def exposed(model: onnx.ModelProto, x: Array) -> dict[str, Array]:
    """Every value of the float network."""
    every = onnx.ModelProto()
    every.CopyFrom(model)
    names = [v for n in model.graph.node for v in n.output]
    del every.graph.output[:]
    every.graph.output.extend(helper.make_tensor_value_info(v, TensorProto.FLOAT, None) for v in names)
    return {"x": x, **dict(zip(names, run_onnx(every, {"x": x}), strict=True))}


@dataclass
class _Writer:
    """The QDQ model while it is written."""

    model: onnx.ModelProto
    values: Mapping[str, Array]
    style: Style
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors = {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}
        self.extra: dict[str, Array] = {}
        self.scales: dict[str, tuple[np.float32, int]] = {}
        self.codes: dict[str, str] = {}
        self.readers: dict[str, int] = {}

    def constant(self, name: str, array: Array) -> str:
        self.extra[name] = array
        return name

    def scale(self, value: str) -> tuple[np.float32, int]:
        """Scale and zero point by what was seen of a value."""
        limits = np.iinfo(KINDS[self.style.activations])
        real = self.values[value]
        low, high = min(float(real.min()), 0.0), max(float(real.max()), 0.0)
        if self.style.symmetric and self.style.activations == "i8":
            return np.float32(max(-low, high, 1e-3) / 127), 0
        step = np.float32(max(high - low, 1e-3) / (limits.max - limits.min))
        return step, int(np.clip(np.rint(limits.min - low / step), limits.min, limits.max))

    def coded(self, value: str, source: str, *, like: str = "") -> None:
        """`source` as the codes of `value`, with the scale of another value where it is `like` it."""
        self.scales[value] = self.scales[like] if like else self.scale(value)
        step, zero = self.scales[value]
        names = self.constant(f"{value}.s", step), self.constant(f"{value}.z", KINDS[self.style.activations](zero))
        self.codes[value] = f"{value}.q"
        if source:
            self.nodes.append(node("QuantizeLinear", [source, *names], [f"{value}.q"]))

    def real(self, value: str) -> str:
        """The dequantized value, a node of its own for each reader."""
        if value not in self.codes:
            return value
        count = self.readers[value] = self.readers.get(value, 0) + 1
        name = f"{value}.r{count}"
        self.nodes.append(node("DequantizeLinear", [self.codes[value], f"{value}.s", f"{value}.z"], [name]))
        return name

    def weight(self, name: str, axis: int) -> tuple[str, Array]:
        """(dequantized weights, their scale per channel)."""
        w, style = self.tensors[name].astype(np.float64), self.style
        rest = tuple(i for i in range(w.ndim) if i != axis)
        peak = np.abs(w).max(axis=rest if style.per_channel else None)
        step = np.maximum(peak, 1e-6) / 127
        if style.weights == "u8":
            step = step * 127 / min(style.zero, 255 - style.zero)
        step = np.asarray(step, np.float32)
        shaped = step.reshape([-1 if i == axis else 1 for i in range(w.ndim)]) if style.per_channel else step
        zero = style.zero if style.weights == "u8" else 0
        kind = np.uint8 if style.weights == "u8" else np.int8
        codes = np.clip(np.rint(w / shaped) + zero, *(-128, 127) if kind is np.int8 else (0, 255)).astype(kind)
        if kind is np.int8 and self.rng.random() < 0.2:
            codes.flat[0] = -128
        own = f"{name}.{len(self.nodes)}"
        names = self.constant(f"{own}.q", codes), self.constant(f"{own}.s", step)
        zeros = self.constant(f"{own}.z", np.full(step.shape, zero, kind))
        attrs = {"axis": axis} if style.per_channel else {}
        self.nodes.append(node("DequantizeLinear", [*names, zeros], [f"{own}.r"], **attrs))
        return f"{own}.r", step

    def bias(self, name: str, x: str, step: Array) -> str:
        """A bias as int32 at the product of the scales."""
        scale = np.asarray(self.scales[x][0] * step, np.float32)
        b = self.tensors[name].astype(np.float64)
        codes = np.clip(np.rint(b / scale), -(2**31), 2**31 - 1).astype(np.int32)
        own = f"{name}.{len(self.nodes)}"
        names = self.constant(f"{own}.q", codes), self.constant(f"{own}.s", scale)
        zero = self.constant(f"{own}.z", np.zeros(scale.shape, np.int32))
        attrs = {"axis": 0} if scale.ndim else {}
        self.nodes.append(node("DequantizeLinear", [*names, zero], [f"{own}.r"], **attrs))
        return f"{own}.r"

    def operation(self, proto: onnx.NodeProto, output: str) -> None:
        """The operator on dequantized inputs, `output` being its real result."""
        inputs = [self.real(v) for v in proto.input]
        x = proto.input[0]
        weights = len(proto.input) > 1 and proto.input[1] in self.tensors and x in self.codes
        if proto.op_type in ("Conv", "Gemm", "MatMul") and weights and self.tensors[proto.input[1]].ndim > 1:
            transposed = any(a.name == "transB" and a.i for a in proto.attribute)
            axis = 0 if proto.op_type == "Conv" or transposed else 1
            inputs[1], step = self.weight(proto.input[1], axis)
            alpha = any(a.name == "alpha" and a.f != 1 for a in proto.attribute)
            if len(inputs) > 2 and inputs[2] and self.tensors[proto.input[2]].ndim == 1 and not alpha:
                columns = self.tensors[proto.input[2]].size
                if not step.ndim or columns == step.size:
                    inputs[2] = self.bias(proto.input[2], x, step)
        again = onnx.NodeProto()
        again.CopyFrom(proto)
        del again.input[:], again.output[:]
        again.input.extend(inputs)
        again.output.append(output)
        self.nodes.append(again)

    def left(self) -> bool:
        return bool(self.rng.random() < self.style.left)


def quantized(
    model: onnx.ModelProto, values: Mapping[str, Array], how: Style, rng: np.random.Generator
) -> onnx.ModelProto:
    """The model in QDQ form: an activation behind an operator stays with it, operators that move keep the scale."""
    work = _Writer(model, values, how, rng)
    nodes, readers = list(model.graph.node), _readers(model)
    work.coded("x", "" if how.coded_input else "x")
    if how.coded_input:
        work.codes["x"] = "x"
    for index, proto in enumerate(nodes):
        output, follower = proto.output[0], readers.get(proto.output[0], [])
        fused = len(follower) == 1 and follower[0].op_type in ("Relu", "Clip") and proto.op_type not in MOVES
        if (fused and output not in _outputs(model)) or (work.left() and index + 1 < len(nodes)):
            work.operation(proto, output)
            continue
        work.operation(proto, f"{output}.x")
        moves = proto.op_type in MOVES and how.shared and proto.input[0] in work.scales
        zeros = proto.op_type == "Pad" and len(proto.input) > 2
        work.coded(output, f"{output}.x", like=proto.input[0] if moves and not zeros else "")
    return _finished(work, model)


def _readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = {}
    for proto in model.graph.node:
        for value in proto.input:
            found.setdefault(value, []).append(proto)
    return found


def _outputs(model: onnx.ModelProto) -> Sequence[str]:
    return [o.name for o in model.graph.output]


def _finished(work: _Writer, model: onnx.ModelProto) -> onnx.ModelProto:
    last = model.graph.output[0].name
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(KINDS[work.style.activations]))
    if work.style.coded_output:
        end = helper.make_tensor_value_info(work.codes[last], kind, None)
    else:
        work.nodes.append(node("DequantizeLinear", [work.codes[last], f"{last}.s", f"{last}.z"], ["y"]))
        end = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    start = onnx.ValueInfoProto()
    start.CopyFrom(model.graph.input[0])
    if work.style.coded_input:
        start.type.tensor_type.elem_type = kind
    used = {v for n in work.nodes for v in n.input}
    tensors = {n: a for n, a in {**work.tensors, **work.extra}.items() if n in used}
    weights = [numpy_helper.from_array(np.asarray(a), n) for n, a in tensors.items()]
    graph = helper.make_graph(work.nodes, "qdq", [start], [end], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
