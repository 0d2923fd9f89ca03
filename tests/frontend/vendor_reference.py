"""What a network of the WTM2101 dialect computes, written down again from the facts and apart from the package.

Nothing here imports our kernels: sums are plain int64 arithmetic on the tensors of the ONNX file, shifts are Python's.
Values are (steps, *shape): samples, or the frames of one stream for networks with Tdnn, Lstm or Gru.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product as places
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]
CELLS = ("Gemm", "Conv", "ConvTranspose", "Tdnn", "MatMul")


def adc(total: Array, gain: int, low: int = -128) -> Array:
    """clip((trunc(4 total / G) + 2) >> 2, low, 127), trunc toward zero."""
    quarters = np.sign(total) * (4 * np.abs(total) // gain)
    return np.clip((quarters + 2) >> 2, low, 127)


def joined(parts: Sequence[Array], gain: int) -> Array:
    """Parts of the rows are read one by one and their codes added (ours, not the vendor's)."""
    return np.clip(sum(adc(p, gain) for p in parts), -128, 127)


def half_up(value: Array, shift: int) -> Array:
    """value * 2**shift; shifts to the right round halves up."""
    return value << shift if shift >= 0 else (value + (1 << (-shift - 1))) >> -shift


def moved(value: Array, shift: int) -> Array:
    """value * 2**shift; shifts to the right cut (floor)."""
    return value << shift if shift >= 0 else value >> -shift


def looked_up(x: Array, table: Array) -> Array:
    """256 entries by the byte, 1024 by twice the code."""
    return table[x % 256] if table.size == 256 else table[(2 * x) % 1024]


def frames_back(x: Array, steps: int) -> Array:
    """The value `steps` frames ago, zeros before the stream."""
    return np.concatenate([np.zeros_like(x[:steps]), x[: len(x) - steps]]) if steps else x


class Reference:
    """One run: the values of all tensors by name, and how many steps each lags behind the input."""

    def __init__(self, model: onnx.ModelProto, inputs: Mapping[str, Array], signed: Sequence[str] = ()) -> None:
        graph, self.signed = model.graph, signed
        self.producers = {v: n for n in graph.node for v in n.output}
        self.consts = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.values: dict[str, Array] = {n: np.asarray(x, np.int64) for n, x in inputs.items()}
        self.lag = dict.fromkeys(self.values, 0)
        self.sums: dict[str, list[Array]] = {}  # sums of array layers that a Scale has not divided yet
        self.readers = {v: [n for n in graph.node if v in n.input] for n in graph.node for v in n.output}
        for node in graph.node:
            attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            self.lag[node.output[0]] = max([self.lag[v] for v in node.input if v in self.lag], default=0)
            for v, value in zip(node.output, self.run(node, attrs), strict=True):
                self.values[v], self.lag[v] = value, self.lag[node.output[0]]
        self.outputs = {o.name: self.values[o.name] for o in graph.output}

    def run(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> list[Array]:
        result = getattr(self, node.op_type)(node, attrs)
        return result if isinstance(result, list) else [result]

    def x(self, node: onnx.NodeProto, index: int = 0) -> Array:
        """An input, held back to the lag of the node's latest one."""
        name = node.input[index]
        if name in self.consts:
            return self.whole(name)[None]
        return frames_back(self.values[name], self.lag[node.output[0]] - self.lag[name])

    def whole(self, name: str) -> Array:
        return np.rint(self.consts[name]).astype(np.int64)

    # array layers

    def bias(self, node: onnx.NodeProto, count: int, index: int = 2) -> Array:
        if len(node.input) <= index:
            return np.zeros(count, np.int64)
        return 128 * np.rint(self.whole(node.input[index]) / 128).astype(np.int64)

    def layer(self, node: onnx.NodeProto, *parts: Array) -> Array:
        """Sums of parts of the rows, kept for a Scale that alone reads them; else read at 1024."""
        readers = self.readers.get(node.output[0], [])
        if len(readers) == 1 and readers[0].op_type == "Scale":
            self.sums[node.output[0]] = list(parts)
        return joined(parts, 1024)

    def Gemm(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        w = self.whole(node.input[1])
        w = w.T if attrs.get("transB") else w
        x, count = self.x(node), -(-len(w) // 896)  # a region has 896 rows: parts as equal as can be
        parts = [a @ b for a, b in zip(np.array_split(x, count, axis=-1), np.array_split(w, count), strict=True)]
        return self.layer(node, parts[0] + self.bias(node, w.shape[1]), *parts[1:])

    def MatMul(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        if node.input[1] in self.consts:
            return self.Gemm(node, attrs)
        total = self.x(node) @ self.x(node, 1)
        readers = self.readers.get(node.output[0], [])
        if len(readers) == 1 and readers[0].op_type == "Scale":
            return moved(total, attrs.get("shift_bit", 0))  # clipped behind the Scale
        return np.clip(moved(total, attrs.get("shift_bit", 0)), -128, 127)

    def Conv(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        x, w = self.x(node)[:, 0], self.whole(node.input[1])
        rank, groups = w.ndim - 2, attrs.get("group", 1)
        strides, dilations = (attrs.get(k) or [1] * rank for k in ("strides", "dilations"))
        pads = attrs.get("pads") or [0] * 2 * rank
        x = np.pad(x, [(0, 0), (0, 0), *((pads[i], pads[i + rank]) for i in range(rank))])
        sizes = [(x.shape[2 + i] - (w.shape[2 + i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(rank)]
        total = np.zeros((len(x), w.shape[0], *sizes), np.int64)
        each_in, each_out = w.shape[1], w.shape[0] // groups
        for g, at in places(range(groups), places(*(range(k) for k in w.shape[2:]))):
            spans = [slice(a * d, a * d + (n - 1) * s + 1, s)
                     for a, d, n, s in zip(at, dilations, sizes, strides, strict=True)]  # fmt: skip
            part = x[:, g * each_in : (g + 1) * each_in][(slice(None), slice(None), *spans)]
            tap = w[g * each_out : (g + 1) * each_out][(slice(None), slice(None), *at)]
            total[:, g * each_out : (g + 1) * each_out] += np.einsum("oi,ni...->no...", tap, part)
        bias = self.bias(node, w.shape[0]).reshape(-1, *(1,) * rank)
        return self.layer(node, (total + bias)[:, None])

    def ConvTranspose(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        x, w = self.x(node)[:, 0], self.whole(node.input[1])
        rank = w.ndim - 2
        strides = attrs.get("strides") or [1] * rank
        pads, extra = attrs.get("pads") or [0] * 2 * rank, attrs.get("output_padding") or [0] * rank
        full = [(x.shape[2 + i] - 1) * strides[i] + w.shape[2 + i] + extra[i] for i in range(rank)]
        total = np.zeros((len(x), w.shape[1], *full), np.int64)
        for at in places(*(range(k) for k in w.shape[2:])):
            spans = [slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(at, x.shape[2:], strides, strict=True)]
            total[(slice(None), slice(None), *spans)] += np.einsum(
                "io,ni...->no...", w[(slice(None), slice(None), *at)], x
            )
        kept = [slice(pads[i], full[i] - pads[i + rank]) for i in range(rank)]
        bias = self.bias(node, w.shape[1]).reshape(-1, *(1,) * rank)
        return self.layer(node, (total[(slice(None), slice(None), *kept)] + bias)[:, None])

    def Tdnn(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        offsets = [int(v) for v in numpy_helper.to_array(attrs["time_offsets"]).reshape(-1)]
        ahead = max(0, *offsets)
        x, w = self.x(node), self.whole(node.input[1])
        rows = np.concatenate([frames_back(x, ahead - o) for o in offsets], axis=-1)
        self.lag[node.output[0]] += ahead
        bias = numpy_helper.to_array(attrs["bias_params"]).astype(np.int64)
        return adc(rows @ w + bias, attrs.get("scale_params", 1024))

    # recurrent cells

    def tables(self, attrs: dict[str, Any]) -> list[Array]:
        return [numpy_helper.to_array(t).reshape(-1).astype(np.int64) for t in attrs["activate_table"]]

    def Lstm(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        sigmoid, tanh, tanh_c = self.tables(attrs)
        w_ifo, w_c = self.whole(node.input[1]), self.whole(node.input[2])
        size, out = w_c.shape[1], list[Array]()
        b_ifo, b_c = self.bias(node, 3 * size, 3), self.bias(node, size, 4)
        h = c = np.zeros((1, size), np.int64)
        for frame in self.x(node):
            row = np.concatenate([frame, h], axis=-1)
            i, f, o = np.split(looked_up(adc(row @ w_ifo + b_ifo, attrs["scale_ioft"]), sigmoid), 3, axis=-1)
            cell = looked_up(adc(row @ w_c + b_c, attrs["scale_ct"]), tanh)
            c = np.clip(half_up(f * c + i * cell, -7), -128, 127)
            h = np.clip(half_up(o * looked_up(c, tanh_c), -7), -128, 127)
            out.append(h)
        return np.array(out)

    def Gru(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        sigmoid, tanh = self.tables(attrs)
        halves = len(node.input) == 7
        ws = [self.whole(v) for v in node.input[1 : 4 if halves else 3]]
        bs = [self.bias(node, w.shape[1], i + len(ws) + 1) for i, w in enumerate(ws)]
        size, ones, out = ws[1].shape[1], attrs.get("scale_ones", 127), list[Array]()
        s_r, s_h = attrs.get("shift_bits", [-7, -7])
        wide = (-256, 255) if tanh.size == 1024 else (-128, 127)
        h = np.zeros((1, size), np.int64)
        for frame in self.x(node):
            z, r = np.split(looked_up(adc(np.concatenate([h, frame], -1) @ ws[0] + bs[0], attrs["scale_zr"]), sigmoid),
                            2, axis=-1)  # fmt: skip
            if halves:
                of_h, of_x = adc(h @ ws[1] + bs[1], attrs["scale_ht"]), adc(frame @ ws[2] + bs[2], attrs["scale_in"])
                n = looked_up(np.clip(of_x + np.clip(half_up(r * of_h, s_r), -128, 127), *wide), tanh)
            else:
                kept = np.clip(half_up(r * h, s_r), -128, 127)
                n = looked_up(adc(np.concatenate([kept, frame], -1) @ ws[1] + bs[1], attrs["scale_ht"]), tanh)
            h = np.clip(half_up((ones - z) * h + z * n, s_h), -128, 127)
            out.append(h)
        return np.array(out)

    # digital operators

    def Scale(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        scale = attrs["scale"]
        if node.input[0] in self.sums and 256 <= round(1 / scale) <= 8192:
            return joined(self.sums[node.input[0]], round(1 / scale))
        x = self.x(node)
        if scale == int(scale):
            return self.byte(x * int(scale), node)
        return self.byte(x >> round(-np.log2(scale)), node)

    def byte(self, value: Array, node: onnx.NodeProto) -> Array:
        """Unsigned where nothing is below 0: here where a Relu or an unsigned input came before."""
        return np.clip(value, -128, 255 if self.unsigned(node.input[0]) else 127)

    def unsigned(self, value: str) -> bool:
        maker = self.producers.get(value)
        if maker is None:
            return value not in self.signed
        if maker.op_type == "Relu":
            return True
        return maker.op_type in ("Concat", "Reshape", "MaxPool", "Slice") and all(
            self.unsigned(v) for v in maker.input if v in self.values
        )

    def Scalar(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        kind, number = attrs.get("op_types", b"mul"), int(attrs.get("scale", 1))
        x = self.x(node)
        y = moved(x * number if kind == b"mul" else x + number, attrs.get("shift_bit", 0))
        return np.clip(y, -128, 127)

    def Relu(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        return np.maximum(self.x(node), 0)

    def Add(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        return np.clip(moved(self.x(node) + self.x(node, 1), attrs.get("shift_bit", 0)), -128, 127)

    def Mul(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        return np.clip(moved(self.x(node) * self.x(node, 1), attrs.get("shift_bit", 0)), -128, 127)

    def ActLut(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        return looked_up(self.x(node), numpy_helper.to_array(attrs["table_params"]).reshape(-1).astype(np.int64))

    def FloatScale(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        y = np.trunc(self.x(node).astype(np.float32) * np.float32(attrs["scale"]) + np.float32(0.5)).astype(np.int64)
        bits = attrs.get("clip_bits", 7)
        return np.clip(y, -(1 << bits), (1 << bits) - 1)

    def AveragePool(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        (kh, kw), (sh, sw), x = attrs["kernel_shape"], attrs["strides"], self.x(node)
        top, left, bottom, right = attrs.get("pads") or (0, 0, 0, 0)
        x = np.pad(x, [(0, 0)] * 3 + [(top, bottom), (left, right)])
        size = [(x.shape[3] - kh) // sh + 1, (x.shape[4] - kw) // sw + 1]
        total = sum(x[..., i : i + (size[0] - 1) * sh + 1 : sh, j : j + (size[1] - 1) * sw + 1 : sw]
                    for i in range(kh) for j in range(kw))  # fmt: skip
        return np.clip((2 * np.asarray(total) + kh * kw) // (2 * kh * kw), -128, 127)

    def GroupNorm(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        x, wide = self.x(node), (-1, *[1] * (self.x(node).ndim - 3))
        grouped = x.reshape(len(x), attrs["num_groups"], -1).astype(np.longdouble)
        spread = np.sqrt(grouped.var(axis=2, keepdims=True) + np.longdouble(1e-5))
        normal = ((grouped - grouped.mean(axis=2, keepdims=True)) / spread).reshape(x.shape)
        gamma, beta = (self.consts[v].astype(np.longdouble).reshape(wide) for v in node.input[1:])
        return np.clip(np.floor((normal * gamma + beta) / attrs["scale_out"] + 0.5), -128, 127).astype(np.int64)

    # moves

    def Concat(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        axis = attrs["axis"]
        return np.concatenate([self.x(node, i) for i in range(len(node.input))], axis + 1 if axis >= 0 else axis)

    def Slice(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        x = self.x(node)
        pick = [slice(None)] * x.ndim
        for start, end, axis in zip(attrs["starts"], attrs["ends"], attrs["axes"], strict=True):
            pick[axis + 1 if axis >= 0 else axis] = slice(start, end)
        return x[tuple(pick)]

    def Reshape(self, node: onnx.NodeProto, attrs: dict[str, Any]) -> Array:
        """Elements in the order N, W, H, C on both sides."""
        x, target = self.x(node), [int(d) for d in self.whole(node.input[1])]
        if x.ndim > 3:
            x = x.transpose(0, 1, *range(x.ndim - 1, 1, -1))
        if len(target) <= 2:
            return x.reshape(len(x), *target)
        y = x.reshape(len(x), target[0], *reversed(target[1:]))
        return y.transpose(0, 1, *range(y.ndim - 1, 1, -1))
