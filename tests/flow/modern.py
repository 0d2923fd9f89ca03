"""Transformers, recurrent and image-to-image networks with random weights, of any width and depth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


class Writer:
    """An ONNX graph while it is written; values are named after their number."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attrs: Any) -> Any:
        names = [f"{kind.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{len(self.nodes)}", **attrs))
        return names[0] if outputs == 1 else names

    def const(self, array: Any) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape: int, fan: int = 0, gain: float = 1.0) -> str:
        real = self.rng.standard_normal(shape, np.float32) * gain / np.float32(np.sqrt(fan or shape[0]))
        return self.const(real.astype(np.float32))

    def vector(self, size: int, mean: float = 0.0) -> str:
        return self.const((mean + 0.1 * self.rng.standard_normal(size)).astype(np.float32))

    def dense(self, x: str, inputs: int, outputs: int, *, bias: bool = True) -> str:
        y = self.op("MatMul", x, self.weight(inputs, outputs))
        return self.op("Add", y, self.vector(outputs)) if bias else y

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.const(np.array(shape, np.int64)))

    def model(self, inputs: dict[str, Sequence[Any]], outputs: Sequence[str], *, opset: int = 17, **kinds: int) -> Any:
        infos = [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), list(s)) for n, s in inputs.items()]
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
        graph = helper.make_graph(self.nodes, "net", infos, ends, self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _heads(w: Writer, x: str, tokens: int, heads: int, each: int, *, keys: bool = False) -> str:
    y = w.reshape(x, 1, tokens, heads, each)
    return w.op("Transpose", y, perm=[0, 2, 3, 1] if keys else [0, 2, 1, 3])


def _attended(w: Writer, q: str, k: str, v: str, width: int, each: int, tokens: int, mask: str = "") -> str:
    scores = w.op("Div", w.op("MatMul", q, k), w.const(np.float32(np.sqrt(each))))
    scores = w.op("Add", scores, mask) if mask else scores
    y = w.op("MatMul", w.op("Softmax", scores, axis=-1), v)
    return w.reshape(w.op("Transpose", y, perm=[0, 2, 1, 3]), 1, tokens, width)


def _gelu(w: Writer, x: str) -> str:
    """As exporters of older opsets write it out."""
    inner = w.op("Add", w.op("Erf", w.op("Div", x, w.const(np.float32(np.sqrt(2))))), w.const(np.float32(1)))
    return w.op("Mul", w.op("Mul", x, inner), w.const(np.float32(0.5)))


def _norm(w: Writer, x: str, width: int) -> str:
    """A layer norm written out."""
    axes = {"axes": [-1], "keepdims": 1}
    middle = w.op("Sub", x, w.op("ReduceMean", x, **axes))
    variance = w.op("ReduceMean", w.op("Pow", middle, w.const(np.float32(2))), **axes)
    spread = w.op("Sqrt", w.op("Add", variance, w.const(np.float32(1e-12))))
    return w.op("Add", w.op("Mul", w.op("Div", middle, spread), w.vector(width, 1.0)), w.vector(width))


def bert(layers: int = 12, width: int = 768, heads: int = 12, tokens: int = 128, words: int = 30522) -> Any:
    """BERT: tokens and a mask in, the sequence and a pooled vector out; norms and GELU written out."""
    w, each = Writer(), width // heads
    mask = w.op("Unsqueeze", w.op("Cast", "attention_mask", to=1), w.const(np.array([1, 2], np.int64)))
    mask = w.op("Mul", w.op("Sub", w.const(np.float32(1)), mask), w.const(np.float32(-10000)))
    x = w.op("Gather", w.weight(words, width, fan=1), "input_ids")
    x = w.op("Add", x, w.weight(1, tokens, width, fan=4))
    x = _norm(w, x, width)
    for _ in range(layers):
        q, k, v = (w.dense(x, width, width) for _ in range(3))
        q, v = (_heads(w, t, tokens, heads, each) for t in (q, v))
        y = _attended(w, q, _heads(w, k, tokens, heads, each, keys=True), v, width, each, tokens, mask)
        x = _norm(w, w.op("Add", w.dense(y, width, width), x), width)
        y = w.dense(_gelu(w, w.dense(x, width, 4 * width)), 4 * width, width)
        x = _norm(w, w.op("Add", y, x), width)
    first = w.op("Gather", x, w.const(np.array(0, np.int64)), axis=1)
    pooled = w.op("Tanh", w.dense(first, width, width))
    ids = {"input_ids": (1, tokens), "attention_mask": (1, tokens)}
    return w.model(ids, [x, pooled], input_ids=TensorProto.INT64, attention_mask=TensorProto.INT64)


def vit(
    layers: int = 12, width: int = 768, heads: int = 12, size: int = 224, patch: int = 16, classes: int = 1000
) -> Any:
    """A vision transformer: norms before, a class token, GELU as an operator."""
    w, each, grid = Writer(), width // heads, size // patch
    tokens = grid * grid + 1
    x = w.op("Conv", "x", w.weight(width, 3, patch, patch, fan=3 * patch * patch), w.vector(width),
             kernel_shape=[patch, patch], strides=[patch, patch])  # fmt: skip
    x = w.op("Transpose", w.reshape(x, 1, width, grid * grid), perm=[0, 2, 1])
    x = w.op("Concat", w.weight(1, 1, width, fan=1), x, axis=1)
    x = w.op("Add", x, w.weight(1, tokens, width, fan=4))

    def norm(value: str) -> str:
        return w.op("LayerNormalization", value, w.vector(width, 1.0), w.vector(width), axis=-1, epsilon=1e-6)

    for _ in range(layers):
        y = norm(x)
        qkv = w.reshape(w.dense(y, width, 3 * width), 1, tokens, 3, heads, each)
        parts = w.op("Split", w.op("Transpose", qkv, perm=[2, 0, 3, 1, 4]), outputs=3, axis=0, num_outputs=3)
        q, k, v = (w.op("Squeeze", p, w.const(np.array([0], np.int64))) for p in parts)
        y = _attended(w, q, w.op("Transpose", k, perm=[0, 1, 3, 2]), v, width, each, tokens)
        x = w.op("Add", x, w.dense(y, width, width))
        x = w.op("Add", x, w.dense(w.op("Gelu", w.dense(norm(x), width, 4 * width)), 4 * width, width))
    x = w.op("Gather", norm(x), w.const(np.array(0, np.int64)), axis=1)
    return w.model({"x": (1, 3, size, size)}, [w.dense(x, width, classes)], opset=20)


def gpt(layers: int = 2, width: int = 64, heads: int = 4, groups: int = 2, tokens: int = 16, words: int = 100) -> Any:
    """A decoder as of today: RMS norms, rotary positions, grouped queries, a causal mask, SwiGLU."""
    w, each = Writer(), width // heads
    angle = np.arange(tokens)[:, None] / 10000 ** (np.arange(each // 2)[None] * 2 / each)
    cos, sin = (w.const(np.concatenate([f(angle)] * 2, -1)[None, None].astype(np.float32)) for f in (np.cos, np.sin))
    mask = w.const(np.triu(np.full((1, 1, tokens, tokens), -np.inf, np.float32), 1))
    x = w.op("Gather", w.weight(words, width, fan=1), "ids")

    def rotated(value: str) -> str:
        a, b = (w.op("Slice", value, *(w.const(np.array([n], np.int64)) for n in cut))
                for cut in ((0, each // 2, 3), (each // 2, each, 3)))  # fmt: skip
        turned = w.op("Concat", w.op("Neg", b), a, axis=3)
        return w.op("Add", w.op("Mul", value, cos), w.op("Mul", turned, sin))

    def repeated(value: str) -> str:
        value = w.op("Unsqueeze", value, w.const(np.array([2], np.int64)))
        shape = (1, groups, heads // groups, tokens, each)
        return w.reshape(w.op("Expand", value, w.const(np.array(shape, np.int64))), 1, heads, tokens, each)

    def norm(value: str) -> str:
        square = w.op("Pow", value, w.const(np.float32(2)))
        mean = w.op("ReduceMean", square, axes=[-1], keepdims=1)
        root = w.op("Sqrt", w.op("Add", mean, w.const(np.float32(1e-6))))
        scaled = w.op("Mul", value, w.op("Reciprocal", root))
        return w.op("Mul", scaled, w.vector(width, 1.0))

    for _ in range(layers):
        y = norm(x)
        q = rotated(_heads(w, w.dense(y, width, width, bias=False), tokens, heads, each))
        k = rotated(_heads(w, w.dense(y, width, groups * each, bias=False), tokens, groups, each))
        v = _heads(w, w.dense(y, width, groups * each, bias=False), tokens, groups, each)
        k = w.op("Transpose", repeated(k), perm=[0, 1, 3, 2])
        y = _attended(w, q, k, repeated(v), width, each, tokens, mask)
        x = w.op("Add", x, w.dense(y, width, width, bias=False))
        y = norm(x)
        gate = w.dense(y, width, 3 * width, bias=False)
        gate = w.op("Mul", gate, w.op("Sigmoid", gate))
        y = w.op("Mul", gate, w.dense(y, width, 3 * width, bias=False))
        x = w.op("Add", x, w.dense(y, 3 * width, width, bias=False))
    return w.model({"ids": (1, tokens)}, [w.dense(norm(x), width, words, bias=False)], ids=TensorProto.INT64)


def lstm2(steps: int = 16, inputs: int = 40, hidden: int = 128, classes: int = 12) -> Any:
    """Two LSTM layers over a sequence, and a classifier of the last step."""
    w, x, width = Writer(), "x", inputs
    for _ in range(2):
        tables = [w.weight(1, 4 * hidden, width, fan=width), w.weight(1, 4 * hidden, hidden, fan=hidden),
                  w.const(0.1 * w.rng.standard_normal((1, 8 * hidden), np.float32))]  # fmt: skip
        y, last, _ = w.op("LSTM", x, *tables, outputs=3, hidden_size=hidden)
        x, width = w.op("Squeeze", y, w.const(np.array([1], np.int64))), hidden
    return w.model({"x": (steps, 1, inputs)}, [w.dense(w.reshape(last, 1, hidden), hidden, classes)])


def unet(size: int = 64, width: int = 16, depth: int = 3, *, resize: bool = False) -> Any:
    """A U-Net with instance norms; up by transposed convolutions, or by resizing and a convolution."""
    w = Writer()

    def conv(x: str, inputs: int, outputs: int, kernel: int = 3) -> str:
        tables = w.weight(outputs, inputs, kernel, kernel, fan=inputs * kernel * kernel), w.vector(outputs)
        return w.op("Conv", x, *tables, pads=[kernel // 2] * 4)

    def block(x: str, inputs: int, outputs: int) -> str:
        for _ in range(2):
            x = w.op("InstanceNormalization", conv(x, inputs, outputs), w.vector(outputs, 1.0), w.vector(outputs))
            x, inputs = w.op("LeakyRelu", x, alpha=0.1), outputs
        return x

    skips: list[str] = []
    x, channels = "x", 3
    for level in range(depth):
        x, channels = block(x, channels, width << level), width << level
        skips.append(x)
        x = w.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x, channels = block(x, channels, width << depth), width << depth
    for level in reversed(range(depth)):
        half = width << level
        if resize:
            scale = w.const(np.array([1, 1, 2, 2], np.float32))
            x = conv(w.op("Resize", x, "", scale, mode="linear"), channels, half)
        else:
            x = w.op("ConvTranspose", x, w.weight(channels, half, 2, 2, fan=channels), w.vector(half), strides=[2, 2])
        x = block(w.op("Concat", x, skips[level], axis=1), 2 * half, half)
        channels = half
    return w.model({"x": (1, 3, size, size)}, [w.op("Sigmoid", conv(x, channels, 1, 1))])


def tc_resnet(frames: int = 98, bands: int = 40, classes: int = 12, widths: Sequence[int] = (16, 24, 32, 48)) -> Any:
    """TC-ResNet8: convolutions over time, frequency bands as channels."""
    w = Writer()

    def conv(x: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> str:
        y = w.op("Conv", x, w.weight(outputs, inputs, 1, kernel, fan=inputs * kernel), strides=[1, stride],
                 pads=[0, kernel // 2, 0, kernel // 2])  # fmt: skip
        tables = (w.vector(outputs, 1.0), w.vector(outputs), w.vector(outputs),
                  w.const(np.ones(outputs, np.float32)))  # fmt: skip
        return w.op("BatchNormalization", y, *tables)

    x = conv("x", bands, widths[0], 3)
    for inputs, outputs in pairwise(widths):
        y = conv(w.op("Relu", conv(x, inputs, outputs, 9, 2)), outputs, outputs, 9)
        x = w.op("Relu", w.op("Add", y, w.op("Relu", conv(x, inputs, outputs, 1, 2))))
    x = w.op("Flatten", w.op("GlobalAveragePool", x))
    return w.model({"x": (1, bands, 1, frames)}, [w.dense(x, widths[-1], classes)])
