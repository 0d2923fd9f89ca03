"""ONNX models for tests: small ones by hand, and random ones of every supported operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


def model(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    tensors: Mapping[str, Array] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of these nodes; outputs are declared without shapes."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in inputs.items()]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    weights = [numpy_helper.from_array(np.asarray(a), n) for n, a in (tensors or {}).items()]
    graph = helper.make_graph(list(nodes), "test", infos, ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attrs: Any) -> onnx.NodeProto:
    """A node named after its first output."""
    return helper.make_node(op, list(inputs), list(outputs), name=f"{outputs[0]}_node", **attrs)


def run_onnx(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The model's own answer, by ONNX Runtime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=["Pad_Fusion"]
    )
    return session.run(None, dict(feeds))


class Random:
    """Writes a random network; every step knows the current value and its shape (without the batch)."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, Array] = {}
        self.shape = (int(self.rng.integers(1, 5)), int(self.rng.integers(5, 11)), int(self.rng.integers(5, 11)))
        self.start = self.shape
        self.value = "x"
        self.past: list[tuple[str, tuple[int, ...]]] = []

    def pick(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def tensor(self, array: Any, dtype: Any = np.float32) -> str:
        name = f"w{len(self.tensors)}"
        self.tensors[name] = np.asarray(array, dtype)
        return name

    def normal(self, *shape: int) -> Array:
        return self.rng.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 1))

    def emit(self, op: str, *more: str, shape: tuple[int, ...] | None = None, **attrs: Any) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(node(op, [self.value, *more], [name], **attrs))
        self.past.append((self.value, self.shape))
        self.value, self.shape = name, self.shape if shape is None else shape

    def conv(self) -> None:
        c, h, w = self.shape
        group = self.pick(1, 1, c)
        out = group * self.pick(1, 2, 3) if group > 1 else self.pick(1, 3, 4)
        k, s, d = (self.pick(1, 2, 3), self.pick(1, 3)), (self.pick(1, 2), self.pick(1, 2)), self.pick(1, 1, 2)
        reach = [(x - 1) * d + 1 for x in k]
        pads = [self.pick(0, 1, 2) for _ in range(4)]
        sizes = [(n + pads[i] + pads[i + 2] - reach[i]) // s[i] + 1 for i, n in enumerate((h, w))]
        attrs: dict[str, Any] = {"pads": pads, "dilations": [d, d]}
        auto = self.pick("", "", "SAME_UPPER", "SAME_LOWER", "VALID") if d == 1 else ""
        if auto.startswith("SAME"):
            attrs, sizes = {"auto_pad": auto}, [-(-n // s[i]) for i, n in enumerate((h, w))]
        elif auto:
            attrs, sizes = {"auto_pad": auto}, [(n - reach[i]) // s[i] + 1 for i, n in enumerate((h, w))]
        if min(sizes) < 1:
            return
        more = [self.tensor(self.normal(out, c // group, *k))]
        more += [self.tensor(self.normal(out))] if self.pick(True, False) else []
        self.emit("Conv", *more, shape=(out, *sizes), strides=list(s), group=group, kernel_shape=list(k), **attrs)

    def norm(self) -> None:
        c = self.shape[0]
        stats = [self.normal(c) + 1, self.normal(c), self.normal(c), np.abs(self.normal(c)) + 0.3]
        self.emit("BatchNormalization", *(self.tensor(t) for t in stats), epsilon=1e-3)

    def act(self) -> None:
        if self.pick(True, False):
            return self.emit("Relu")
        low = self.pick("", self.tensor(-0.5), self.tensor(0.0))
        return self.emit("Clip", low, self.tensor(1.0)) if low or self.pick(True, False) else self.emit("Clip")

    def constant(self) -> None:
        c = self.shape[0]
        shape = self.pick((1,), (c, 1, 1), (1, c, 1, 1), self.shape, ())
        table = self.rng.uniform(0.5, 1.5, shape) * self.pick(1, -1)
        self.emit(self.pick("Add", "Mul", "Sub", "Div"), self.tensor(table))

    def residual(self) -> None:
        same = [v for v, s in self.past if s == self.shape]
        if same:
            self.emit(self.pick("Add", "Add", "Mul", "Sub"), self.pick(*same))

    def concat(self) -> None:
        same = [(v, s) for v, s in self.past if s[1:] == self.shape[1:] and s[0] + self.shape[0] < 12]
        if same:
            other, shape = self.pick(*same)
            self.emit("Concat", other, axis=self.pick(1, -3), shape=(self.shape[0] + shape[0], *self.shape[1:]))

    def cut(self) -> None:
        axis = self.pick(1, 2)
        size, step = self.shape[axis], self.pick(1, 2, -1)
        start, end = (self.pick(0, 1), self.pick(size, 2**62, -1)) if step > 0 else (-1, -(2**62))
        kept = len(range(*slice(start, end, step).indices(size)))
        if kept < 3:
            return
        shape = tuple(kept if i == axis else d for i, d in enumerate(self.shape))
        arguments = [self.tensor([v], np.int64) for v in (start, end, axis + 1, step)]
        self.emit("Slice", *arguments, shape=shape)

    def pad(self) -> None:
        a, b, c, d = (self.pick(0, 1, 2) for _ in range(4))
        low = self.pick(0, 0, -1)
        value = [self.tensor(self.pick(0.0, 0.0, 1.5))] if self.pick(True, False) else []
        shape = (self.shape[0], self.shape[1] + a + c, self.shape[2] + low + b + d)
        if shape[2] > 2:
            pads = self.tensor([0, 0, a, low or b, 0, 0, c, d if not low else d + b], np.int64)
            self.emit("Pad", pads, *value, shape=shape)

    def pool(self) -> None:
        op, k, s = (
            self.pick("MaxPool", "AveragePool"),
            (self.pick(2, 3), self.pick(2, 3)),
            (self.pick(1, 2), self.pick(1, 2)),
        )
        pads, ceil = [self.pick(0, 1) for _ in range(4)], self.pick(0, 0, 1)
        sizes: list[int] = []
        for i, n in enumerate(self.shape[1:]):
            room = n + pads[i] + pads[i + 2] - k[i]
            count = -(-room // s[i]) + 1 if ceil else room // s[i] + 1
            if ceil and (count - 1) * s[i] >= n + pads[i]:
                return  # a window in the padding alone: ONNX's shape rule and ONNX Runtime disagree
            sizes.append(count)
        if min(sizes) < 2:
            return
        more = {"count_include_pad": self.pick(0, 1)} if op == "AveragePool" and not ceil else {}
        self.emit(
            op, shape=(self.shape[0], *sizes), kernel_shape=list(k), strides=list(s), pads=pads, ceil_mode=ceil, **more
        )

    def turn(self) -> None:
        c, h, w = self.shape
        self.emit("Transpose", perm=[0, 2, 3, 1], shape=(h, w, c))
        if self.pick(True, False):
            self.emit("Relu")
        self.emit("Transpose", perm=[0, 3, 1, 2], shape=(c, h, w))

    def copy(self) -> None:
        self.emit(self.pick("Identity", "Dropout"))

    def fold_and_back(self) -> None:
        c, h, w = self.shape
        self.emit("Reshape", self.tensor([0, c, -1], np.int64), shape=(c, h * w))
        if self.pick(True, False):
            self.emit("Relu")
        self.emit("Reshape", self.tensor([-1, c, h, w], np.int64), shape=(c, h, w))

    def head(self) -> None:
        """From maps to scores."""
        c, h, w = self.shape
        kind = self.pick("mean", "gap", "gmp", "flat", "pool", "squeeze")
        if kind == "mean":
            self.emit("ReduceMean", axes=[2, 3], keepdims=0, shape=(c,))
        elif kind == "flat":
            self.emit("Flatten", shape=(c * h * w,))
        elif kind == "pool":
            self.emit("AveragePool", kernel_shape=[h, w], shape=(c, 1, 1))
            self.emit("Reshape", self.tensor([-1, c], np.int64), shape=(c,))
        else:
            self.emit("GlobalMaxPool" if kind == "gmp" else "GlobalAveragePool", shape=(c, 1, 1))
            if kind == "squeeze":
                self.emit("Squeeze", self.tensor([2, 3], np.int64), shape=(c,))
            else:
                self.emit("Flatten", shape=(c,))
        features = self.shape[0]
        if self.pick(True, False):
            w = self.tensor(self.normal(5, features))
            bias = [self.tensor(self.normal(*self.pick((5,), (1, 5), (1,))))] if self.pick(True, False) else []
            self.emit("Gemm", w, *bias, transB=1, alpha=self.pick(1.0, 0.5), shape=(5,))
        else:
            self.emit("MatMul", self.tensor(self.normal(features, 5)), shape=(5,))
            self.emit("Add", self.tensor(self.normal(5)))
        if self.pick(True, False):
            self.emit("Softmax", axis=self.pick(1, -1))


STEPS: tuple[Callable[[Random], None], ...] = (
    Random.conv, Random.conv, Random.conv, Random.norm, Random.act, Random.act, Random.constant, Random.residual,
    Random.concat, Random.cut, Random.pad, Random.pool, Random.turn, Random.copy, Random.fold_and_back,
)  # fmt: skip


def random_model(seed: int, *, steps: int = 10) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A random model with one batched input "x", and the shape of a sample without the batch."""
    net = Random(seed)
    for _ in range(steps):
        if min(net.shape[1:]) > 2:
            net.pick(*STEPS)(net)
    net.head()
    outputs = [net.value]
    if net.rng.integers(3) == 0 and len(net.past) > 2:  # a second output, somewhere inside
        outputs += [v for v in {net.pick(*net.past)[0]} if v not in ("x", net.value)]
    proto = model(net.nodes, inputs={"x": ["N", *net.start]}, outputs=outputs, tensors=net.tensors)
    return proto, net.start
