"""Small captured graphs with random weights, written down directly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from insitu.algo import ptq
from insitu.arch.load import load_chip
from insitu.compiler.quantize import quantize
from insitu.graph.export import float_session
from insitu.graph.graph import Graph, Node, const_type
from insitu.graph.interpret import interpret
from insitu.graph.ops.shapes import infer
from insitu.graph.types import TensorType
from insitu.graph.verify import verify
from insitu.numeric.affine import dequantize
from insitu.numeric.affine import quantize as codes_of

CHIPS = {
    "exact": ("dcim-28nm", ()), "unsigned": ("dcim-28nm", ("macro.input.signed=false",)),
    "shifts": ("dcim-28nm", ("capabilities.scales=power_of_two",)), "wtm2101": ("wtm2101", ()),
    "adc": ("parametric-reram-adc8", ("physics.adc_noise.sd=0",)),  # ranges give way to noise otherwise
}  # fmt: skip


def chip_of(name: str):
    preset, overrides = CHIPS[name]
    return load_chip(preset, overrides=overrides)


class Net:
    """A captured graph while it grows; weights are drawn as they are needed."""

    def __init__(self, *shape: int, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.types = {"x": TensorType(shape, "f32")}
        self.constants: dict[str, np.ndarray[Any, Any]] = {}
        self.nodes: list[Node] = []

    def constant(self, array) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array, np.float32)
        self.types[name] = const_type(self.constants[name])
        return name

    def add(self, op: str, *inputs: str, **attrs: Any) -> str:
        node = Node(f"n{len(self.nodes)}", op, inputs, (f"v{len(self.nodes)}",), attrs)
        self.types[node.output] = infer(node, self.types, self.constants)[0]
        self.nodes.append(node)
        return node.output

    def conv(self, x: str, out: int, *, kernel: int = 3, group: int = 1, weight=None, bias=None, **attrs: Any) -> str:
        channels = self.types[x].sizes()[1]
        shape = (out, channels // group, kernel, kernel)
        w = self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:])) if weight is None else weight
        b = self.rng.standard_normal(out) * 0.1 if bias is None else bias
        pads = (kernel // 2,) * 4
        return self.add("Conv", x, self.constant(w), self.constant(b), group=group, pads=pads, **attrs)

    def dense(self, x: str, out: int, **attrs: Any) -> str:
        rows = self.types[x].sizes()[-1]
        w = self.rng.standard_normal((rows, out)) / np.sqrt(rows)
        return self.add("MatMul", x, self.constant(w), self.constant(self.rng.standard_normal(out) * 0.1), **attrs)

    def graph(self, *outputs: str) -> Graph:
        return verify(Graph("net", "captured", ("x",), outputs, tuple(self.nodes), self.types, self.constants))

    def data(self, samples: int = 64, *, seed: int = 0):
        return np.random.default_rng(seed).standard_normal((samples, *self.types["x"].sizes())).astype(np.float32)


def quality(graph: Graph, chip: str, data, *, check=None) -> Mapping[str, float]:
    """SQNR in dB of every output of the quantized graph on `check` (or the calibration data)."""
    plan = ptq.plan(graph, chip_of(chip), data={"x": data})
    quantized = verify(quantize(graph, chip_of(chip), plan=plan))
    x = data if check is None else check
    got = interpret(quantized, {"x": codes_of(x, quantized.type("x").quant)})
    wanted = float_session(graph)({"x": x})
    return {v: sqnr(wanted[v], dequantize(got[v], quantized.type(v).quant)) for v in graph.outputs}


def sqnr(wanted, got) -> float:
    noise = float(((wanted - got) ** 2).sum())
    return 10 * np.log10(float((wanted.astype(np.float64) ** 2).sum()) / noise) if noise > 0 else np.inf


def networks() -> Sequence[tuple[str, Net, tuple[str, ...]]]:
    """Every operator that quantization knows, in small networks: (name, network, outputs)."""
    return [_chain(), _residual(), _pools(), _joined(), _mixed(), _flat()]


def _chain():
    net = Net(1, 3, 8, 8, seed=1)
    v = net.conv("x", 8, act_lo=0.0)
    v = net.conv(v, 8, group=8, act_lo=0.0, act_hi=6.0)
    v = net.conv(v, 16, kernel=1, act_lo=0.0, act_hi=6.0)
    v = net.conv(v, 16, group=4, strides=(2, 2), act_lo=0.0)
    v = net.add("ReduceMean", v, axes=(2, 3), keepdims=0)
    return "chain", net, (net.add("Softmax", net.dense(v, 5), axis=-1),)


def _residual():
    net = Net(1, 4, 6, 6, seed=2)
    a = net.conv("x", 8, act_lo=0.0)
    b = net.conv(net.conv(a, 8, act_lo=0.0), 8)
    c = net.add("Add", a, b, act_lo=0.0)
    d = net.add("Add", net.conv(c, 8), c)
    return "residual", net, (net.add("Relu", d), net.conv(d, 4))


def _pools():
    net = Net(1, 3, 9, 9, seed=3)
    v = net.conv("x", 6)
    most = net.add("MaxPool", v, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    mean = net.add("AveragePool", v, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    return "pools", net, (net.conv(most, 4), net.conv(mean, 4), mean)


def _joined():
    net = Net(1, 3, 6, 6, seed=4)
    a, b = net.conv("x", 4, act_lo=0.0), net.conv("x", 4)
    pad = net.constant(net.rng.standard_normal((1, 2, 6, 6)))
    v = net.add("Concat", a, b, pad, axis=1)
    v = net.add("Slice", v, axes=(1,), starts=(1,), ends=(9,), steps=(1,))
    v = net.add("Pad", v, pads=(0, 0, 1, 0, 0, 0, 1, 0), value=0.5)
    return "joined", net, (net.conv(v, 5), net.add("Transpose", v, perm=(0, 2, 3, 1)))


def _mixed():
    net = Net(1, 4, 5, 5, seed=5)
    v = net.add("Mul", net.conv("x", 6), net.constant(net.rng.uniform(0.5, 2, (6, 1, 1))))
    v = net.add("Add", v, net.constant(net.rng.standard_normal((6, 1, 1))))
    w = net.add("Mul", v, net.conv("x", 6, act_lo=0.0, act_hi=1.0))
    return "mixed", net, (net.add("Clip", w, lo=-1.0, hi=2.0), net.conv(v, 3))


def _flat():
    net = Net(1, 40, seed=6)
    v = net.dense(net.dense("x", 64, act_lo=0.0), 48, act_lo=0.0)
    v = net.add("Reshape", v, shape=(1, 3, 16))
    return "flat", net, (net.dense(v, 7),)
