"""Random networks in the WTM2101 dialect, of the kinds its users build: a seed gives one network and its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.frontend.vendor import Array, network, sigmoid_table, tanh_table, tensor

PEAKS = (60, 127, 128, 255, 275)


@dataclass
class Draw:
    """A network while it is drawn; gains are chosen so that codes neither vanish nor saturate."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list[onnx.NodeProto])
    tensors: dict[str, Array] = field(default_factory=dict[str, Array])
    inputs: dict[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])
    peaks: Sequence[int] = PEAKS
    peak: int = 127  # of the weights drawn last

    def pick(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def input(self, name: str, *shape: int) -> str:
        self.inputs[name] = shape
        return name

    def node(self, op: str, inputs: Sequence[str], y: str, **attrs: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [y], name=f"{op}_{y}", **attrs))
        return y

    def weights(self, name: str, *shape: int) -> str:
        self.peak = peak = self.pick(*self.peaks)
        self.tensors[name] = self.rng.integers(-peak, peak + 1, shape).astype(np.float32)
        return name

    def bias(self, name: str, count: int, most: int = 0) -> str:
        most = most or max(self.peak // 3, 2)
        self.tensors[name] = 128.0 * self.rng.integers(-most, most + 1, count)
        return name

    def gain(self, rows: int) -> int:
        """A power of two with which random sums over so many rows mostly stay within a byte."""
        return int(np.clip(2 ** round(np.log2(max(rows, 1) ** 0.5 * self.peak * 1.5)), 256, 8192))

    def scaled(self, y: str, gain: int, relu: bool) -> str:
        out = self.node("Scale", [f"{y}.sum"], f"{y}.scaled" if relu else y, scale=1.0 / gain)
        return self.node("Relu", [out], y) if relu else out

    def gemm(self, x: str, y: str, rows: int, cols: int, *, relu: bool | None = None) -> str:
        relu = bool(self.pick(True, False)) if relu is None else relu
        turned = self.pick(0, 0, 1)
        w = self.weights(f"{y}.w", *((cols, rows) if turned else (rows, cols)))
        given = [x, w, self.bias(f"{y}.b", cols)] if self.pick(True, True, False) else [x, w]
        self.node("Gemm", given, f"{y}.sum", **({"transB": 1} if turned else {}))
        return self.scaled(y, self.gain(rows), relu)

    def conv(self, x: str, y: str, ins: int, outs: int, kernel: Sequence[int], *, op: str = "Conv",
             relu: bool | None = None, group: int = 1, **attrs: Any) -> str:  # fmt: skip
        relu = bool(self.pick(True, False)) if relu is None else relu
        shape = (ins, outs, *kernel) if op == "ConvTranspose" else (outs, ins // group, *kernel)
        given = [x, self.weights(f"{y}.w", *shape), self.bias(f"{y}.b", outs)]
        self.node(op, given, f"{y}.sum", kernel_shape=list(kernel), group=group, **attrs)
        return self.scaled(y, self.gain(ins // group * int(np.prod(kernel))), relu)

    def reshape(self, x: str, y: str, *shape: int) -> str:
        self.tensors[f"{y}.shape"] = np.array(shape)
        return self.node("Reshape", [x, f"{y}.shape"], y)

    def table(self, x: str, y: str) -> str:
        entries = self.pick(sigmoid_table(), tanh_table(), tanh_table(256))
        return self.node("ActLut", [x], y, table_params=tensor("t", entries))

    def done(self, *outputs: str) -> onnx.ModelProto:
        return network(self.nodes, inputs=self.inputs, outputs=outputs, tensors=self.tensors)


def dense(draw: Draw) -> onnx.ModelProto:
    """A chain of Gemms, some wider than the array or deeper than a region."""
    sizes = [draw.number(3, 120), draw.pick(5, 1500), draw.number(2, 40), draw.pick(3, 1100), draw.number(1, 9)]
    x = draw.input("x", 1, sizes[0])
    for i, (rows, cols) in enumerate(pairwise(sizes)):
        x = draw.gemm(x, f"h{i}", rows, cols, relu=(True if cols > 800 else None) if i < 3 else False)
    return draw.done(x)


def residual(draw: Draw) -> onnx.ModelProto:
    """Convolutions with skips, a pool, and a classifier."""
    ins, c, side = draw.number(1, 3), draw.number(2, 6) * 2, draw.number(9, 14)
    x = draw.input("x", 1, ins, side, side + 2)
    a = draw.conv(x, "a", ins, c, (3, 3), pads=[1, 1, 1, 1], strides=[1, 1])
    b = draw.conv(a, "b", c, c, (3, 3), pads=[2, 2, 2, 2], dilations=[2, 2], group=draw.pick(1, 1, 2))
    s = draw.node("Add", [a, b], "s", shift_bit=draw.pick(0, -1))
    d = draw.conv(s, "d", c, c, (1, 3), strides=[2, 1], pads=[0, 0, 0, 2])
    p = draw.node("AveragePool", [d], "p", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0])
    high, wide = ((side - 1) // 2 + 1) // 2, (side + 2) // 2
    flat = draw.reshape(p, "flat", 1, c * high * wide)
    return draw.done(draw.gemm(flat, "y", c * high * wide, 5, relu=False))


def u_net(draw: Draw) -> onnx.ModelProto:
    """Down and up again with transposed convolutions, the way down joined to the way up."""
    c, side = draw.number(2, 6), 4 * draw.number(2, 3)
    x = draw.input("x", 1, 2, side, side)
    a = draw.conv(x, "a", 2, c, (3, 3), pads=[1, 1, 1, 1], strides=[2, 2], relu=True)
    b = draw.conv(a, "b", c, 2 * c, (3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    kernel = draw.number(2, 4)
    extra, pad = {2: (0, 0), 3: (1, 1), 4: (0, 1)}[kernel]
    u = draw.conv(b, "u", 2 * c, c, (kernel, kernel), op="ConvTranspose", strides=[2, 2], pads=[pad] * 4,
                  output_padding=[extra, extra])  # fmt: skip
    j = draw.node("Concat", [u, a], "j", axis=1)
    v = draw.conv(j, "v", 2 * c, c, (2, 3), op="ConvTranspose", strides=[2, 1], pads=[0, 1, 0, 1])
    return draw.done(draw.conv(v, "y", c, 3, (1, 1), relu=False))


def tdnn(draw: Draw) -> onnx.ModelProto:
    """Layers over frames behind and ahead, two branches that lag differently, tables and sums."""

    def layer(x: str, y: str, rows: int, cols: int, offsets: Sequence[int]) -> str:
        bias = 128.0 * draw.rng.integers(-90, 91, cols)
        w = draw.weights(f"{y}.w", rows * len(offsets), cols)
        draw.node("Tdnn", [x, w], f"{y}.raw", time_offsets=tensor("o", np.array(offsets)),
                  bias_params=tensor("b", bias), scale_params=draw.gain(rows * len(offsets)))  # fmt: skip
        return draw.node("Relu", [f"{y}.raw"], y) if draw.pick(True, False) else f"{y}.raw"

    n, c = draw.number(3, 20), draw.number(2, 12)
    x = draw.input("x", 1, n)
    a = layer(x, "a", n, c, draw.pick([-2, -1, 0], [-3, 0, 2], [0, 1], [-7]))
    b = layer(a, "b", c, c, draw.pick([-1, 0, 1], [-2, -4], [1]))
    s = draw.node("Add", [a, b], "s", shift_bit=draw.pick(0, -1))
    t = draw.table(s, "t")
    return draw.done(layer(t, "y", c, 4, [-1, 0]))


def _tables(*tables: Array) -> list[onnx.TensorProto]:
    return [tensor(f"t{i}", t[None]) for i, t in enumerate(tables)]


def denoiser(draw: Draw) -> onnx.ModelProto:
    """A mask from an Lstm over the input's own frames, multiplied with them."""
    n, size = draw.number(4, 24), draw.number(3, 16)
    x = draw.input("x", 1, n)
    a = draw.gemm(x, "a", n, n)
    w = [draw.weights("wi", n + size, 3 * size), draw.weights("wc", n + size, size)]
    b = [draw.bias("bi", 3 * size, 60), draw.bias("bc", size, 60)]
    last = draw.pick(tanh_table(256), tanh_table())
    h = draw.node("Lstm", [a, *w, *b], "h", scale_ioft=draw.gain(n + size), scale_ct=draw.gain(n + size),
                  activate_type=["sigmoid", "tanh", "tanh"], shift_bits=draw.pick([-7, -7], [0, 0, -7, -7]),
                  activate_table=_tables(sigmoid_table(), tanh_table(), last))  # fmt: skip
    m = draw.table(draw.gemm(h, "g", size, n, relu=False), "m")
    return draw.done(draw.node("Mul", [a, m], "y", shift_bit=-7))


def gru(draw: Draw) -> onnx.ModelProto:
    """A Gru between two Gemms, its candidate in one array or in two."""
    n, size, halves = draw.number(4, 24), draw.number(3, 16), draw.pick(True, False)
    a = draw.gemm(draw.input("x", 1, n), "a", n, n, relu=draw.pick(True, False))
    w = [draw.weights("wzr", n + size, 2 * size)]
    w += ([draw.weights("wh", size, size), draw.weights("wx", n, size)] if halves
          else [draw.weights("wh", n + size, size)])  # fmt: skip
    b = [draw.bias("bzr", 2 * size, 60), *(draw.bias(f"b{i}", size, 60) for i in range(len(w) - 1))]
    h = draw.node("Gru", [a, *w, *b], "h", scale_zr=draw.gain(n + size), scale_ht=draw.gain(n + size),
                  scale_in=draw.gain(n), shift_bits=[-7, -7], scale_ones=draw.pick(127, 128),
                  activate_type=["sigmoid", "tanh"], activate_table=_tables(sigmoid_table(), tanh_table()))  # fmt: skip
    return draw.done(draw.gemm(h, "y", size, 5))


def attention(draw: Draw) -> onnx.ModelProto:
    """Two values multiplied as matrices, moves, floats and shifts on the way."""
    n, m, k = draw.number(6, 20), draw.number(2, 6), draw.number(2, 7)
    x = draw.input("x", 1, n)
    q = draw.reshape(draw.gemm(x, "q", n, m * k), "q2", m, k)
    key = draw.reshape(draw.gemm(x, "k", n, k * m), "k2", k, m)
    s = draw.node("MatMul", [q, key], "s", shift_bit=draw.pick(-7, -6))
    f = draw.node("FloatScale", [s], "f", scale=draw.pick(0.75, 1.5, 0.11))
    flat = draw.reshape(f, "flat", 1, m * m)
    cut = draw.node("Slice", [flat], "cut", starts=[1], ends=[m * m], axes=[1])
    r = draw.node("Scalar", [cut], "r", scale=float(draw.pick(2, 3, -1)), shift_bit=draw.pick(0, -1, 1))
    return draw.done(draw.gemm(r, "y", m * m - 1, 4))


def normed(draw: Draw) -> onnx.ModelProto:
    """A map normalized by groups of its channels between two convolutions."""
    groups, each, side = draw.number(1, 4), draw.number(1, 3), draw.number(4, 9)
    c = groups * each
    a = draw.conv(draw.input("x", 1, 2, side, side), "a", 2, c, (3, 3), pads=[1, 1, 1, 1])
    gamma, beta = (draw.rng.normal(middle, 0.3, c).astype(np.float32) for middle in (1.0, 0.0))
    draw.tensors |= {"gamma": gamma, "beta": beta}
    n = draw.node("GroupNorm", [a, "gamma", "beta"], "n", num_groups=groups, num_channels=c,
                  scale_out=draw.pick(1 / 32, 1 / 50))  # fmt: skip
    n = draw.node("Relu", [n], "r") if draw.pick(True, False) else n
    return draw.done(draw.conv(n, "y", c, 3, (3, 3), relu=False))


KINDS: dict[str, Callable[[Draw], onnx.ModelProto]] = {
    f.__name__: f for f in (dense, residual, u_net, tdnn, denoiser, gru, attention, normed)
}
STREAMS = frozenset(("tdnn", "denoiser", "gru"))
BEYOND = (276, 300, 600, 1100)  # peaks of weights that several rows share


def drawn(kind: str, seed: int, *, peaks: Sequence[int] = PEAKS) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A network and inputs for it: samples, or frames."""
    draw = Draw(np.random.default_rng([seed, *kind.encode()]), peaks=peaks)
    proto = KINDS[kind](draw)
    return proto, {n: draw.rng.integers(0, 256, (12, *s)) for n, s in draw.inputs.items()}
