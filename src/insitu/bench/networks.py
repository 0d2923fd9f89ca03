"""Networks to measure with: ONNX models with random weights, and ResNets as their authors drew them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]


class Network:
    """Writes an ONNX model layer by layer; every method takes and returns a value's name.

    Weights are normal with the variance that keeps activations in range (He et al. 2015), from one seed.
    """

    def __init__(self, name: str, shape: Shape, *, seed: int = 0, batch_norm: bool = False) -> None:
        self.name, self.start, self.batch_norm = name, shape, batch_norm
        self._rng = np.random.default_rng(seed)
        self._nodes: list[Any] = []
        self._tensors: list[Any] = []
        self.shapes: dict[str, Shape] = {"x": shape}

    def channels(self, value: str) -> int:
        """Channels of a value."""
        return self.shapes[value][1]

    def node(self, op: str, inputs: Sequence[str], shape: Shape, **attrs: Any) -> str:
        """Append an operator; returns its output."""
        from onnx import helper

        out = f"{op.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [out], name=out, **attrs))
        self.shapes[out] = shape
        return out

    def tensor(self, array: npt.NDArray[Any]) -> str:
        """Append a constant; returns its name."""
        from onnx import numpy_helper

        name = f"t{len(self._tensors)}"
        self._tensors.append(numpy_helper.from_array(array, name))
        return name

    def random(self, shape: Shape, fan_in: int) -> str:
        """A constant of random weights."""
        scale = np.float32(np.sqrt(2.0 / fan_in))
        return self.tensor(self._rng.standard_normal(shape, np.float32) * scale)

    def conv(
        self,
        x: str,
        out: int,
        kernel: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        pad: int | tuple[int, int] | None = None,
        group: int = 1,
        act: str = "Relu",
        norm: bool | None = None,
    ) -> str:
        """Convolution, batch normalisation where the network has it, activation ("" for none)."""
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        sh, sw = (stride, stride) if isinstance(stride, int) else stride
        ph, pw = (kh // 2, kw // 2) if pad is None else (pad, pad) if isinstance(pad, int) else pad
        n, channels, h, w = self.shapes[x]
        shape = (n, out, (h + 2 * ph - kh) // sh + 1, (w + 2 * pw - kw) // sw + 1)
        each = channels // group
        norm = self.batch_norm if norm is None else norm
        inputs = [x, self.random((out, each, kh, kw), each * kh * kw)]
        inputs += [] if norm else [self.tensor(self._rng.standard_normal(out, np.float32) * np.float32(0.1))]
        y = self.node(
            "Conv", inputs, shape, kernel_shape=[kh, kw], strides=[sh, sw], pads=[ph, pw, ph, pw], group=group
        )
        return self.act(self.norm(y) if norm else y, act)

    def norm(self, x: str) -> str:
        """Batch normalisation with random statistics."""
        c, rng = self.channels(x), self._rng
        tables = [rng.uniform(0.8, 1.2, c), rng.normal(0, 0.1, c), rng.normal(0, 0.1, c), rng.uniform(0.8, 1.2, c)]
        return self.node(
            "BatchNormalization", [x, *(self.tensor(t.astype(np.float32)) for t in tables)], self.shapes[x]
        )

    def act(self, x: str, kind: str = "Relu") -> str:
        """An activation: Relu, Relu6, or none."""
        if kind == "Relu6":
            limits = [self.tensor(np.float32(v)) for v in (0.0, 6.0)]  # pyright: ignore[reportArgumentType]
            return self.node("Clip", [x, *limits], self.shapes[x])
        return self.node(kind, [x], self.shapes[x]) if kind else x

    def pool(self, x: str, kernel: int, *, stride: int, pad: int = 0, kind: str = "MaxPool") -> str:
        """Max or average pooling."""
        n, c, h, w = self.shapes[x]
        shape = (n, c, (h + 2 * pad - kernel) // stride + 1, (w + 2 * pad - kernel) // stride + 1)
        return self.node(kind, [x], shape, kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[pad] * 4)

    def add(self, a: str, b: str, act: str = "Relu") -> str:
        """Sum of two values, activation."""
        return self.act(self.node("Add", [a, b], self.shapes[a]), act)

    def concat(self, values: Sequence[str]) -> str:
        """Values side by side along the channels."""
        n, _, h, w = self.shapes[values[0]]
        return self.node("Concat", values, (n, sum(self.channels(v) for v in values), h, w), axis=1)

    def average(self, x: str) -> str:
        """Global average pooling, flattened."""
        n, c = self.shapes[x][:2]
        return self.flatten(self.node("GlobalAveragePool", [x], (n, c, 1, 1)))

    def flatten(self, x: str) -> str:
        """All but the batch in one dimension."""
        n, *rest = self.shapes[x]
        return self.node("Flatten", [x], (n, int(np.prod(rest))), axis=1)

    def dense(self, x: str, out: int, act: str = "") -> str:
        """A fully connected layer."""
        n, each = self.shapes[x]
        bias = self.tensor(self._rng.standard_normal(out, np.float32) * np.float32(0.1))
        return self.act(self.node("Gemm", [x, self.random((out, each), each), bias], (n, out), transB=1), act)

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The finished model."""
        from onnx import TensorProto, helper

        ends = [helper.make_tensor_value_info(v, TensorProto.FLOAT, list(self.shapes[v])) for v in outputs]
        start = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.start))
        graph = helper.make_graph(self._nodes, self.name, [start], ends, self._tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def resnet(
    name: str, blocks: tuple[int, int, int, int], *, bottleneck: bool, size: int = 224, classes: int = 1000
) -> onnx.ModelProto:
    """A residual network for images: He et al., CVPR 2016, table 1; projections where shapes change."""
    net = Network(name, (1, 3, size, size), batch_norm=True)
    x = net.pool(net.conv("x", 64, 7, stride=2), 3, stride=2, pad=1)
    for stage, count in enumerate(blocks):
        width, out = 64 << stage, (64 << stage) * (4 if bottleneck else 1)
        for block in range(count):
            stride = 2 if stage and block == 0 else 1
            same = net.channels(x) == out and stride == 1
            short = x if same else net.conv(x, out, 1, stride=stride, act="")
            if bottleneck:
                y = net.conv(net.conv(net.conv(x, width, 1), width, 3, stride=stride), out, 1, act="")
            else:
                y = net.conv(net.conv(x, width, 3, stride=stride), out, 3, act="")
            x = net.add(y, short)
    return net.model(net.dense(net.average(x), classes))


def resnet18(size: int = 224, classes: int = 1000) -> onnx.ModelProto:
    """ResNet-18."""
    return resnet("resnet18", (2, 2, 2, 2), bottleneck=False, size=size, classes=classes)


def resnet50(size: int = 224, classes: int = 1000) -> onnx.ModelProto:
    """ResNet-50, the stride in the 3x3 convolutions as torchvision has it."""
    return resnet("resnet50", (3, 4, 6, 3), bottleneck=True, size=size, classes=classes)


def resnet20(classes: int = 10) -> onnx.ModelProto:
    """The residual network for CIFAR of He et al., CVPR 2016, section 4.2, n = 3, with projections."""
    net = Network("resnet20", (1, 3, 32, 32), batch_norm=True)
    x = net.conv("x", 16, 3)
    for stage in range(3):
        for block in range(3):
            out, stride = 16 << stage, 2 if stage and block == 0 else 1
            short = net.conv(x, out, 1, stride=stride, act="") if stride > 1 else x
            x = net.add(net.conv(net.conv(x, out, 3, stride=stride), out, 3, act=""), short)
    return net.model(net.dense(net.average(x), classes))


def encoder(layers: int = 6, width: int = 384, tokens: int = 128, heads: int = 6) -> onnx.ModelProto:
    """A transformer encoder (Vaswani et al. 2017, norms after the sums as in BERT) on embeddings [1, tokens, width]."""
    net = Network("encoder", (1, tokens, width))
    shape, each = (1, tokens, width), width // heads
    split = net.tensor(np.array([0, tokens, heads, each], np.int64))  # 0: as it is
    whole = net.tensor(np.array([0, tokens, width], np.int64))
    scale = net.tensor(np.float32(each**-0.5).reshape(1))
    ones, zeros = net.tensor(np.ones(width, np.float32)), net.tensor(np.zeros(width, np.float32))

    def linear(x: str, rows: int, cols: int) -> str:
        y = net.node("MatMul", [x, net.random((rows, cols), 2 * rows)], (1, tokens, cols))
        return net.node("Add", [y, net.tensor(np.zeros(cols, np.float32))], (1, tokens, cols))

    def turned(x: str, perm: list[int], dims: Shape) -> str:
        return net.node("Transpose", [net.node("Reshape", [x, split], (1, tokens, heads, each))], dims, perm=perm)

    def normed(a: str, b: str) -> str:
        total = net.node("Add", [a, b], shape)
        return net.node("LayerNormalization", [total, ones, zeros], shape, axis=-1, epsilon=1e-5)

    x = "x"
    for _ in range(layers):
        q = turned(linear(x, width, width), [0, 2, 1, 3], (1, heads, tokens, each))
        k = turned(linear(x, width, width), [0, 2, 3, 1], (1, heads, each, tokens))
        v = turned(linear(x, width, width), [0, 2, 1, 3], (1, heads, tokens, each))
        scores = net.node(
            "Mul", [net.node("MatMul", [q, k], (1, heads, tokens, tokens)), scale], (1, heads, tokens, tokens)
        )
        mixed = net.node(
            "MatMul", [net.node("Softmax", [scores], (1, heads, tokens, tokens), axis=-1), v], (1, heads, tokens, each)
        )
        back = net.node(
            "Reshape", [net.node("Transpose", [mixed], (1, tokens, heads, each), perm=[0, 2, 1, 3]), whole], shape
        )
        x = normed(x, linear(back, width, width))
        wide = (1, tokens, 4 * width)
        x = normed(x, linear(net.node("Gelu", [linear(x, width, 4 * width)], wide), 4 * width, width))
    return net.model(x)
