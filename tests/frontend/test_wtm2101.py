"""The vendor's WTM2101 dialect against its formulas written out in plain NumPy, and against the vendor's own dumps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from insitu.base.errors import ModelError
from insitu.frontend.load import load_model
from insitu.frontend.onnx import import_model
from insitu.frontend.wtm2101 import Reading
from insitu.frontend.wtm2101_draft import dialect
from insitu.frontend.wtm2101_options import parse_options
from insitu.graph.graph import Graph
from insitu.graph.interpret import interpret
from insitu.graph.verify import verify
from tests.frontend.vendor import SAMPLES, Array, biases, layer, network, read, sigmoid_table, tanh_table, weights


def imported(proto: onnx.ModelProto, **reading: Any) -> Graph:
    """The verified graph of a model of the dialect."""
    graph = verify(import_model(proto, reading=Reading(**reading)))
    assert graph.level == "quantized"
    assert graph.meta["dialect"] == "wtm2101"
    return graph


def stepped(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs over the rows of the inputs as one stream (all at once where there is no state)."""
    if not graph.states:
        return interpret(graph, {n: a.reshape(len(a), *graph.type(n).sizes()) for n, a in inputs.items()})
    state = {s.input: np.zeros((1, *graph.type(s.input).sizes()), np.int64) for s in graph.states}
    rows: list[dict[str, Array]] = []
    for t in range(len(next(iter(inputs.values())))):
        now = {n: a[t].reshape(1, *graph.type(n).sizes()) for n, a in inputs.items()}
        rows.append(interpret(graph, {**state, **now}))
        state = {s.input: rows[-1][s.output] for s in graph.states}
    return {n: np.concatenate([r[n] for r in rows]) for n in graph.outputs}


def codes(rng: np.random.Generator, *shape: int, low: int = 0, high: int = 255) -> Array:
    return rng.integers(low, high + 1, shape)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


# array layers


@pytest.mark.parametrize(("gain", "relu"), [(256, False), (1024, True), (8192, False)])
def test_gemm(rng: np.random.Generator, gain: int, relu: bool) -> None:
    w, b = weights(rng, 40, 9), biases(rng, 9)
    graph = imported(network(layer("Gemm", "x", "y", gain=gain, relu=relu), inputs={"x": [1, 40]}, outputs=["y"],
                             tensors={"y.w": w, "y.b": b}))  # fmt: skip
    x = codes(rng, 50, 40)
    wanted = read(x @ w.astype(int) + b.astype(int), gain, 0 if relu else -128)
    assert np.array_equal(stepped(graph, {"x": x})["y"][:, 0], wanted)
    assert [n.name for n in graph.nodes] == ["y"]


def test_gemm_with_signed_inputs_either_way(rng: np.random.Generator) -> None:
    w, b = weights(rng, 30, 7), biases(rng, 7)
    proto = network(layer("Gemm", "x", "y"), inputs={"x": [1, 30]}, outputs=["y"], tensors={"y.w": w, "y.b": b})
    x = codes(rng, 40, 30, low=-128, high=127)
    wanted = read(x @ w.astype(int) + b.astype(int), 1024)
    for signed_input, ops in ((-1, ["MatMul"]), (30, ["Add", "Requantize", "Concat", "MatMul"])):
        text = f'layerOptiConfig {{ name: "y" inputOpti {{ signed_input: {signed_input} }} }}'
        graph = imported(proto, options=parse_options(text))
        assert sorted(n.op for n in graph.nodes) == sorted(ops)
        assert np.array_equal(stepped(graph, {"x": x})["y"][:, 0], wanted)
    assert np.array_equal(stepped(imported(proto, signed_inputs=("x",)), {"x": x})["y"][:, 0], wanted)


def test_options_that_change_cells_but_no_integer(rng: np.random.Generator) -> None:
    w, b = weights(rng, 30, 7), biases(rng, 7)
    nodes = [*layer("Gemm", "x", "h", relu=True), *layer("Gemm", "h", "y")]
    tensors = {"h.w": w, "h.b": b, "y.w": weights(rng, 7, 5), "y.b": biases(rng, 5)}
    proto = network(nodes, inputs={"x": [1, 30]}, outputs=["y"], tensors=tensors)
    text = """
    layerOptiConfig { name: "h" weightOpti { shift: 1 num: 1 region: UP_REGION } doubleWeightOpti { multiple: 1 } }
    layerOptiConfig { name : "y" inputOpti { shift : 1, num : 1 } convOpti { multi_point: 2 } }  # a comment
    """
    graph, plain = imported(proto, options=parse_options(text)), imported(proto)
    x = codes(rng, 60, 30)
    assert np.array_equal(stepped(graph, {"x": x})["y"], stepped(plain, {"x": x})["y"])
    h, y = (next(n for n in graph.nodes if n.name == name) for name in "hy")
    assert graph.constants[h.inputs[1]].shape == (60, 7)
    assert graph.constants[h.inputs[5]].tolist() == [4096]
    assert h.attr("region") == "up"
    assert (y.attr("input_shift"), graph.constants[y.inputs[5]].tolist()) == (1, [2048])
    assert graph.meta["hints_without_effect"] == ("convOpti.multi_point",)


def test_options_that_change_integers(rng: np.random.Generator) -> None:
    nodes = [*layer("Gemm", "x", "h", relu=True), *layer("Gemm", "h", "y", gain=2048)]
    tensors = {"h.w": weights(rng, 30, 7), "h.b": biases(rng, 7), "y.w": weights(rng, 7, 5), "y.b": biases(rng, 5)}
    proto = network(nodes, inputs={"x": [1, 30]}, outputs=["y"], tensors=tensors)
    text = """
    layerOptiConfig { name: "h" arrayOutputOpti { repeat: 2 } }
    layerOptiConfig { name: "y" inputOpti { shift: 1 num: 2 front_scale: 1 } arrayOutputOpti { magnify: 2 } }
    """
    graph, x = imported(proto, options=parse_options(text)), codes(rng, 60, 30)
    whole = {n: a.astype(int) for n, a in tensors.items()}
    h = read(x @ whole["h.w"] + whole["h.b"], 512, 0)  # read at half its gain, so its codes are doubled
    y = read(2 * h @ whole["y.w"] + 4 * whole["y.b"], 2048 * 4 // 4)
    assert np.array_equal(stepped(graph, {"x": x})["y"][:, 0], y)
    first = next(n for n in graph.nodes if n.name == "h")
    assert graph.constants[first.inputs[1]].shape == (30, 14)


def test_the_codes_of_a_layer_are_doubled_for_all_readers_or_none(rng: np.random.Generator) -> None:
    nodes = [*layer("Gemm", "x", "h", relu=True), *layer("Gemm", "h", "y"), *layer("Gemm", "h", "z")]
    tensors = {f"{n}.w": weights(rng, 7, 7) for n in "hyz"} | {f"{n}.b": biases(rng, 7) for n in "hyz"}
    proto = network(nodes, inputs={"x": [1, 7]}, outputs=["y", "z"], tensors=tensors)
    text = 'layerOptiConfig { name: "y" inputOpti { shift: 1 num: 1 front_scale: 1 } }'
    with pytest.raises(ModelError, match="'z' reads the codes of 'h' too"):
        imported(proto, options=parse_options(text))
    imported(proto, options=parse_options(text + text.replace('"y"', '"z"')))


def test_an_input_shift_that_would_leave_a_byte_is_not_applied(rng: np.random.Generator) -> None:
    w, b = weights(rng, 30, 7), biases(rng, 7)
    proto = network(layer("Gemm", "x", "y"), inputs={"x": [1, 30]}, outputs=["y"], tensors={"y.w": w, "y.b": b})
    graph = imported(proto, options=parse_options('layerOptiConfig { name: "y" inputOpti { shift: 1 num: 1 } }'))
    assert graph.meta["options_not_applied"] == ("y: inputOpti.num = 1 on inputs of 0 to 255",)
    x = codes(rng, 40, 30)
    assert np.array_equal(stepped(graph, {"x": x})["y"][:, 0], read(x @ w.astype(int) + b.astype(int), 1024))


def test_weights_beyond_a_cell(rng: np.random.Generator) -> None:
    w, b = weights(rng, 12, 4, peak=800), biases(rng, 4)
    proto = network(
        layer("Gemm", "x", "y", gain=8192), inputs={"x": [1, 12]}, outputs=["y"], tensors={"y.w": w, "y.b": b}
    )
    x = codes(rng, 60, 12)
    graph = imported(proto)
    cells = graph.constants[graph.nodes[-1].inputs[1]]
    assert np.abs(cells).max() <= 275
    assert cells.shape == (36, 4)
    assert np.array_equal(stepped(graph, {"x": x})["y"][:, 0], read(x @ w.astype(int) + b.astype(int), 8192))
    cut = imported(proto, options=parse_options('layerOptiConfig { name: "y" sparseMatrixOpti { sp_mode: SIM_MODE } }'))
    clipped = np.clip(w, -275, 275).astype(int)
    assert np.array_equal(stepped(cut, {"x": x})["y"][:, 0], read(x @ clipped + b.astype(int), 8192))
    proto.graph.initializer[0].float_data[0] = 30000
    with pytest.raises(ModelError, match="weights beyond 275, the largest 30000"):
        imported(proto)


@pytest.mark.parametrize("mode", ["MIX_MODE", "DIG_MODE"])
@pytest.mark.parametrize("relu", [False, True])
def test_weights_that_the_processor_helps_with(rng: np.random.Generator, mode: str, relu: bool) -> None:
    w, b = weights(rng, 40, 6), biases(rng, 6)
    w[[3, 4, 17]] = weights(rng, 3, 6, peak=20000)
    proto = network(layer("Gemm", "x", "y", gain=8192, relu=relu), inputs={"x": [1, 40]}, outputs=["y"],
                    tensors={"y.w": w, "y.b": b})  # fmt: skip
    graph = imported(
        proto, options=parse_options(f'layerOptiConfig {{ name: "y" sparseMatrixOpti {{ sp_mode: {mode} }} }}')
    )
    x, whole, low = rng.integers(0, 30, (50, 40)), w.astype(int), 0 if relu else -128
    if mode == "DIG_MODE":
        wanted = read(x @ whole + b.astype(int), 8192, low)
    else:
        lows = (whole + 128) % 256 - 128
        held = read(x @ lows + b.astype(int), 8192)
        wanted = np.clip(held + _half_up(256 * (x @ ((whole - lows) // 256)), 13), low, 127)
    assert np.array_equal(stepped(graph, {"x": x})["y"][:, 0], wanted)
    assert len(np.unique(wanted)) > 20


def _conv(x: Array, w: Array, b: Array, pads: tuple[int, int, int, int], strides: tuple[int, int]) -> Array:
    """A convolution in int64 of one image [C, H, W]."""
    x = np.pad(x, [(0, 0), (pads[0], pads[2]), (pads[1], pads[3])])
    view = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(1, 2))[:, :: strides[0], :: strides[1]]
    return np.einsum("chwij,ocij->ohw", view, w.astype(np.int64)) + b.astype(np.int64)[:, None, None]


def _transposed(x: Array, w: Array, b: Array, strides: tuple[int, int], extra: tuple[int, int]) -> Array:
    """A transposed convolution in int64 of one image, nothing cut away."""
    (_, h, v), (_, out, kh, kw) = x.shape, w.shape
    full = np.zeros((out, (h - 1) * strides[0] + kh + extra[0], (v - 1) * strides[1] + kw + extra[1]), np.int64)
    for i in range(kh):
        for j in range(kw):
            part = np.einsum("chw,co->ohw", x, w[:, :, i, j].astype(np.int64))
            full[:, i : i + (h - 1) * strides[0] + 1 : strides[0], j : j + (v - 1) * strides[1] + 1 : strides[1]] += (
                part
            )
    return full + b.astype(np.int64)[:, None, None]


def test_conv(rng: np.random.Generator) -> None:
    w, b = weights(rng, 6, 3, 3, 2), biases(rng, 6)
    nodes = layer("Conv", "x", "y", relu=True, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 0, 0])
    graph = imported(network(nodes, inputs={"x": [1, 3, 8, 5]}, outputs=["y"], tensors={"y.w": w, "y.b": b}))
    x = codes(rng, 3, 8, 5)
    assert np.array_equal(
        stepped(graph, {"x": x[None]})["y"][0, 0], read(_conv(x, w, b, (1, 1, 0, 0), (2, 1)), 1024, 0)
    )


@pytest.mark.parametrize("named", [{"pads": "SAME"}, {"auto_pad": "SAME_UPPER"}])
def test_conv_with_pads_by_name(rng: np.random.Generator, named: dict[str, str]) -> None:
    w, b = weights(rng, 6, 3, 3, 2), biases(rng, 6)
    nodes = layer("Conv", "x", "y", kernel_shape=[3, 2], strides=[2, 1], **named)
    graph = imported(network(nodes, inputs={"x": [1, 3, 8, 5]}, outputs=["y"], tensors={"y.w": w, "y.b": b}))
    x = codes(rng, 3, 8, 5)
    assert np.array_equal(stepped(graph, {"x": x[None]})["y"][0, 0], read(_conv(x, w, b, (0, 0, 1, 1), (2, 1)), 1024))


@pytest.mark.parametrize("mode", ["MIX_MODE", "DIG_MODE"])
@pytest.mark.parametrize("group", [1, 2])
def test_convolutions_that_the_processor_helps_with(rng: np.random.Generator, mode: str, group: int) -> None:
    w, b, pads, strides = weights(rng, 6, 4 // group, 3, 2), biases(rng, 6), (1, 0, 2, 1), (2, 1)
    w[:, 1, 0, 1] = weights(rng, 6, 1, peak=9000)[:, 0]
    w[4, 0, 2, 0] = -20000
    nodes = layer("Conv", "x", "y", gain=8192, kernel_shape=[3, 2], strides=strides, pads=pads, group=group)
    proto = network(nodes, inputs={"x": [1, 4, 7, 6]}, outputs=["y"], tensors={"y.w": w, "y.b": b})
    text = f'layerOptiConfig {{ name: "y" sparseMatrixOpti {{ sp_mode: {mode} }} }}'
    x, whole = rng.integers(0, 60, (5, 1, 4, 7, 6)), np.zeros((6, 4, 3, 2), np.int64)
    for o in range(6):
        first = o // (6 // group) * (4 // group)
        whole[o, first : first + 4 // group] = w[o]
    lows = (whole + 128) % 256 - 128
    for sample, got in zip(x, stepped(imported(proto, options=parse_options(text)), {"x": x})["y"], strict=True):
        if mode == "DIG_MODE":
            wanted = read(_conv(sample[0], whole, b, pads, strides), 8192)
        else:
            held = read(_conv(sample[0], lows, b, pads, strides), 8192)
            high = _conv(sample[0], (whole - lows) // 256, np.zeros(6), pads, strides)
            wanted = np.clip(held + _half_up(256 * high, 13), -128, 127)
        assert np.array_equal(got[0], wanted)
        assert len(np.unique(wanted)) > 20


@pytest.mark.parametrize(("group", "dilations"), [(2, (1, 1)), (1, (2, 3)), (2, (1, 2))])
def test_transposed_convolutions_in_groups_and_with_dilations(
    rng: np.random.Generator, group: int, dilations: tuple[int, int]
) -> None:
    w, b = weights(rng, 4, 3, 2, 3), biases(rng, 3 * group)
    nodes = layer("ConvTranspose", "x", "y", kernel_shape=[2, 3], strides=[2, 1], pads=[0, 1, 1, 0],
                  dilations=dilations, group=group)  # fmt: skip
    graph = imported(network(nodes, inputs={"x": [1, 4, 5, 6]}, outputs=["y"], tensors={"y.w": w, "y.b": b}))
    x = codes(rng, 4, 5, 6)
    tall, wide = dilations[0] + 1, 2 * dilations[1] + 1
    full = np.zeros((3 * group, 4 * 2 + tall, 5 + wide), np.int64)
    for i in range(4):
        first = i // (4 // group) * 3
        for o, row, col, a, c in np.ndindex(3, 5, 6, 2, 3):
            at = (first + o, 2 * row + a * dilations[0], col + c * dilations[1])
            full[at] += x[i, row, col] * int(w[i, o, a, c])
    wanted = (full + b.astype(int)[:, None, None])[:, :-1, 1:]
    assert np.array_equal(stepped(graph, {"x": x[None]})["y"][0, 0], read(wanted, 1024))


@pytest.mark.parametrize(
    ("kernel", "strides", "pads", "extra"),
    [
        ((3, 2), (2, 1), (1, 0, 1, 0), (1, 0)),
        ((5, 3), (4, 2), (1, 1, 1, 0), (1, 1)),
        ((2, 2), (1, 1), (0, 0, 0, 0), (0, 0)),
        ((3, 3), (3, 2), (0, 1, 2, 1), (0, 0)),
        ((1, 4), (2, 3), (0, 2, 0, 1), (1, 2)),
    ],
)
def test_transposed_convolution_is_an_equivalent_convolution(
    rng: np.random.Generator,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, ...],
    extra: tuple[int, int],
) -> None:
    w, b = weights(rng, 4, 5, *kernel), biases(rng, 5)
    nodes = layer(
        "ConvTranspose", "x", "y", kernel_shape=kernel, strides=strides, pads=pads, output_padding=[*extra, *extra]
    )
    graph = imported(network(nodes, inputs={"x": [1, 4, 6, 5]}, outputs=["y"], tensors={"y.w": w, "y.b": b}))
    x = codes(rng, 4, 6, 5)
    full = _transposed(x, w, b, strides, extra)
    wanted = full[:, pads[0] : full.shape[1] - pads[2], pads[1] : full.shape[2] - pads[3]]
    assert np.array_equal(stepped(graph, {"x": x[None]})["y"][0, 0], read(wanted, 1024))


def test_tdnn_is_a_stream(rng: np.random.Generator) -> None:
    w, b, w2 = weights(rng, 15, 4), biases(rng, 4), weights(rng, 8, 3)
    nodes = [
        helper.make_node("Tdnn", ["x", "w"], ["a"], name="a", time_offsets=_floats("o", [-2, 0, 1]),
                         bias_params=_floats("b", b), scale_params=1024),
        helper.make_node("Relu", ["a"], ["h"]),
        helper.make_node("Tdnn", ["h", "w2"], ["y"], name="y", time_offsets=_floats("o2", [-3, 0]), scale_params=512),
    ]  # fmt: skip
    graph = imported(network(nodes, inputs={"x": [1, 5]}, outputs=["y"], tensors={"w": w, "w2": w2}))
    assert graph.meta["lag"] == 1
    x = codes(rng, 12, 5)
    past = np.concatenate([np.zeros((3, 5), np.int64), x])  # frame t at t + 3
    h = np.stack([read(np.concatenate([past[t], past[t + 2], past[t + 3]]) @ w.astype(int) + b.astype(int), 1024, 0)
                  for t in range(12)])  # fmt: skip  # the step at which frame t + 1 is the newest
    old = np.concatenate([np.zeros((3, 4), np.int64), h])
    y = np.stack([read(np.concatenate([old[t], old[t + 3]]) @ w2.astype(int), 512) for t in range(12)])
    assert np.array_equal(stepped(graph, {"x": x})["y"][:, 0], y)


def _floats(name: str, values: Any) -> onnx.TensorProto:
    array = np.asarray(values, np.float32)
    return helper.make_tensor(name, onnx.TensorProto.FLOAT, array.shape, array)


def test_branches_that_lag_differently_meet_at_the_same_frame(rng: np.random.Generator) -> None:
    w = weights(rng, 4, 2)
    nodes = [
        helper.make_node(
            "Tdnn", ["x", "w"], ["late"], name="late", time_offsets=_floats("o", [0, 1]), scale_params=256
        ),
        *layer("Gemm", "x", "now", gain=256),
        helper.make_node("Add", ["late", "now"], ["y"], shift_bit=-1),
    ]
    tensors = {"w": w, "now.w": weights(rng, 2, 2), "now.b": biases(rng, 2, 2)}
    graph = imported(network(nodes, inputs={"x": [1, 2]}, outputs=["y"], tensors=tensors))
    x = codes(rng, 9, 2)
    late = read(np.concatenate([x[:-1], x[1:]], axis=1) @ w.astype(int), 256)
    now = read(x @ tensors["now.w"].astype(int) + tensors["now.b"].astype(int), 256)[:-1]
    assert np.array_equal(stepped(graph, {"x": x})["y"][1:, 0], (late + now) >> 1)


# cells


def _cell_inputs(rng: np.random.Generator) -> tuple[Array, Array]:
    return codes(rng, 20, 6, low=-128, high=127), sigmoid_table()


def test_lstm_line_by_line(rng: np.random.Generator) -> None:
    x, sigmoid = _cell_inputs(rng)
    tensors = {
        "wi": weights(rng, 10, 12),
        "wc": weights(rng, 10, 4),
        "bi": biases(rng, 12, 20),
        "bc": biases(rng, 4, 20),
    }
    tables = [_floats(f"t{i}", t[None]) for i, t in enumerate((sigmoid, tanh_table(), tanh_table(256)))]
    cell = helper.make_node(
        "Lstm",
        ["x", "wi", "wc", "bi", "bc"],
        ["y"],
        name="cell",
        scale_ioft=2048,
        scale_ct=1024,
        activate_type=["sigmoid", "tanh", "tanh"],
        activate_table=tables,
        shift_bits=[-7, -7],
    )
    graph = imported(network([cell], inputs={"x": [20, 6]}, outputs=["y"], tensors=tensors))
    w = {n: t.astype(int) for n, t in tensors.items()}
    h = c = np.zeros(4, np.int64)
    wanted: list[Array] = []
    for row in x:
        both = np.concatenate([row, h])
        gates, inner = read(both @ w["wi"] + w["bi"], 2048), read(both @ w["wc"] + w["bc"], 1024)
        i, f, o = np.split(sigmoid[2 * gates % 1024].astype(int), 3)
        fc, ic = f * c, i * tanh_table()[2 * inner % 1024].astype(int)
        c = np.clip(np.floor((fc + ic) / 128 + 0.5), -128, 127).astype(int)
        h = np.clip(np.floor(o * tanh_table(256)[c % 256] / 128 + 0.5), -128, 127).astype(int)
        wanted.append(h)
    assert np.array_equal(stepped(graph, {"x": x})["y"][:, 0], np.stack(wanted))


def _half_up(value: Array, shift: int) -> Array:
    return np.floor(value / 2.0**shift + 0.5).astype(int)


@pytest.mark.parametrize("halves", [False, True])
def test_gru(rng: np.random.Generator, halves: bool) -> None:
    x, sigmoid = _cell_inputs(rng)
    tensors = {"wz": weights(rng, 10, 8), "bz": biases(rng, 8, 20)}
    if halves:
        tensors |= {
            "wh": weights(rng, 4, 4),
            "wx": weights(rng, 6, 4),
            "bh": biases(rng, 4, 20),
            "bx": biases(rng, 4, 20),
        }
    else:
        tensors |= {"wn": weights(rng, 10, 4), "bn": biases(rng, 4, 20)}
    names = ["wz", "wh", "wx", "bz", "bh", "bx"] if halves else ["wz", "wn", "bz", "bn"]
    table = _floats("t", np.stack([sigmoid, tanh_table()]))
    cell = helper.make_node("Gru", ["x", *names], ["y"], name="cell", scale_zr=2048, scale_ht=1024, scale_in=1024,
                            activate_type=["sigmoid", "tanh"], activate_table=table, scale_ones=128)  # fmt: skip
    graph = imported(network([cell], inputs={"x": [1, 6]}, outputs=["y"], tensors=tensors))
    w = {n: t.astype(int) for n, t in tensors.items()}
    h, wanted = np.zeros(4, np.int64), list[Array]()
    for row in x:
        z, r = np.split(sigmoid[2 * read(np.concatenate([h, row]) @ w["wz"] + w["bz"], 2048) % 1024].astype(int), 2)
        if halves:
            kept = np.clip(_half_up(r * read(h @ w["wh"] + w["bh"], 1024), 7), -128, 127)
            total = np.clip(read(row @ w["wx"] + w["bx"], 1024) + kept, -256, 255)
        else:
            total = read(np.concatenate([_half_up(r * h, 7), row]) @ w["wn"] + w["bn"], 1024)
        n = tanh_table()[2 * total % 1024].astype(int)
        h = np.clip(_half_up((128 - z) * h + z * n, 7), -128, 127)
        wanted.append(h)
    assert np.array_equal(stepped(graph, {"x": x})["y"][:, 0], np.stack(wanted))


def test_gru_2_array(rng: np.random.Generator) -> None:
    x, sigmoid = _cell_inputs(rng)
    tensors = {
        "wi": weights(rng, 6, 12),
        "wh": weights(rng, 4, 12),
        "bi": biases(rng, 12, 20),
        "bh": biases(rng, 12, 20),
    }
    table = _floats("t", np.stack([sigmoid, tanh_table()]))
    cell = helper.make_node(
        "Gru2Array",
        ["x", "wi", "wh", "bi", "bh"],
        ["y"],
        name="cell",
        scale_input=1024,
        scale_hidden=512,
        hidden_shift_bit=-1,
        scale_ones=128,
        input_offset=0,
        clean_ht=0,
        shift_bits=[-7, -5, -1, -2],
        activate_type=["sigmoid", "tanh"],
        activate_table=table,
    )
    graph = imported(network([cell], inputs={"x": [1, 6]}, outputs=["y"], tensors=tensors))
    w = {n: t.astype(int) for n, t in tensors.items()}
    h, wanted = np.zeros(4, np.int64), list[Array]()
    for row in x:
        of_x = np.split(read(row @ w["wi"] + w["bi"], 1024), 3)
        of_h = np.split(_half_up(read(h @ w["wh"] + w["bh"], 512), 1), 3)
        z, r = (sigmoid[2 * (of_x[k] + of_h[k]) % 1024].astype(int) for k in (0, 1))
        n = tanh_table()[2 * np.clip(of_x[2] + np.clip(_half_up(r * of_h[2], 7), -128, 127), -256, 255) % 1024].astype(
            int
        )
        h = np.clip(_half_up(_half_up((128 - z) * h, 1) + _half_up(z * n, 2), 5), -128, 127)
        wanted.append(h)
    assert np.array_equal(stepped(graph, {"x": x})["y"][:, 0], np.stack(wanted))


# digital operators


def _digital(nodes: list[onnx.NodeProto], x: Array, **tensors: Array) -> Array:
    """The result y of digital nodes on int8 codes x: one identity row per code brings them through an array."""
    size = x.shape[-1]
    first = layer("Gemm", "x", "h", gain=256)
    given = {"h.w": 256 * np.eye(size), "h.b": np.zeros(size), **tensors}
    proto = network([*first, *nodes], inputs={"x": [1, size]}, outputs=["y"], tensors=given)
    return stepped(imported(proto, signed_inputs=("x",)), {"x": x})["y"][:, 0]


EVERY = np.arange(-128, 128).reshape(-1, 4)
WIDE = EVERY.astype(np.int64)


@pytest.mark.parametrize(
    ("node", "wanted"),
    [
        (helper.make_node("Scale", ["h"], ["y"], scale=0.25), WIDE >> 2),
        (helper.make_node("Scale", ["h"], ["y"], scale=0.0009765625), WIDE >> 10),
        (helper.make_node("Scale", ["h"], ["y"], scale=3.0), np.clip(3 * WIDE, -128, 127)),
        (helper.make_node("Scale", ["h"], ["y"], scale=-2.0), np.clip(-2 * WIDE, -128, 127)),
        (helper.make_node("Scalar", ["h"], ["y"], scale=3, shift_bit=-2, op_types="mul"), (3 * WIDE) >> 2),
        (helper.make_node("Scalar", ["h"], ["y"], scale=5, shift_bit=0, op_types="add"), np.clip(WIDE + 5, -128, 127)),
        (helper.make_node("Add", ["h", "h"], ["y"], shift_bit=-2), (2 * WIDE) >> 2),
        (helper.make_node("Added", ["h", "h"], ["y"]), np.clip(2 * WIDE, -128, 127)),
        (helper.make_node("Mul", ["h", "h"], ["y"], shift_bit=-8), (WIDE * WIDE) >> 8),
        (helper.make_node("Multi", ["h", "h"], ["y"]), np.clip(WIDE * WIDE, -128, 127)),
        (helper.make_node("Relu", ["h"], ["y"]), np.maximum(WIDE, 0)),
        (helper.make_node("FloatScale", ["h"], ["y"], scale=0.37, clip_bits=5),
         np.clip(np.trunc(WIDE.astype(np.float32) * np.float32(0.37) + np.float32(0.5)), -32, 31)),
        (helper.make_node("ClearLowBits", ["h"], ["y"], bits=3),
         np.clip(np.trunc(np.where(WIDE > 0, WIDE + 4, WIDE - 4) / 8) * 8, -128, 127)),
        (helper.make_node("Tanh", ["h"], ["y"]), np.rint(127 * np.tanh(WIDE / 8))),
    ],
    ids=lambda v: v.op_type if isinstance(v, onnx.NodeProto) else "",
)  # fmt: skip
def test_digital(node: onnx.NodeProto, wanted: Array) -> None:
    lowest = np.where(node.op_type == "ClearLowBits", np.minimum(wanted, 127), wanted)
    assert np.array_equal(np.minimum(_digital([node], EVERY), 127), lowest)


@pytest.mark.parametrize("entries", [256, 1024])
def test_act_lut(entries: int) -> None:
    table = np.random.default_rng(3).integers(-128, 128, entries)
    node = helper.make_node("ActLut", ["h"], ["y"], act_type="sigmoid", table_params=_floats("t", table))
    assert np.array_equal(_digital([node], EVERY), table[EVERY * (entries // 512 or 1) % entries])


def test_a_chain_of_scales_is_taken_in_order() -> None:
    nodes = [helper.make_node("Scale", ["h"], ["a"], scale=2.0), helper.make_node("Relu", ["a"], ["r"]),
             helper.make_node("Scale", ["r"], ["y"], scale=2.0)]  # fmt: skip
    assert np.array_equal(_digital(nodes, EVERY), np.clip(2 * np.clip(2 * WIDE, 0, 127), 0, 255))


def test_batch_normalization_is_within_one_of_its_real_formula(rng: np.random.Generator) -> None:
    gamma, beta, mean, var = rng.normal(size=4), rng.normal(size=4), rng.normal(size=4), rng.uniform(0.1, 2, 4)
    node = helper.make_node("BatchNormalization", ["h", "g", "b", "m", "v"], ["y"], scale_in=0.125, scale_out=0.125)
    got = _digital([node], EVERY, g=gamma, b=beta, m=mean, v=var)
    real = ((EVERY * 0.125 - mean) / np.sqrt(var + 1e-5) * gamma + beta) / 0.125
    assert np.abs(got - np.clip(real, -128, 127)).max() < 0.52


def test_maps_are_stored_n_w_h_c(rng: np.random.Generator) -> None:
    w, b = weights(rng, 3, 2, 1, 1), biases(rng, 3, 3)
    nodes = [
        *layer("Conv", "x", "h", relu=True, kernel_shape=[1, 1], strides=[1, 1], pads=[0, 0, 0, 0]),
        helper.make_node("Reshape", ["h", "shape"], ["line"], name="flat"),
        helper.make_node("Reshape", ["line", "back"], ["y"], name="again"),
    ]
    tensors = {"h.w": w, "h.b": b, "shape": np.array([1, -1]), "back": np.array([1, 3, 4, 5])}
    graph = imported(network(nodes, inputs={"x": [1, 2, 4, 5]}, outputs=["line", "y"], tensors=tensors))
    x = codes(rng, 2, 4, 5)
    h, got = read(_conv(x, w, b, (0, 0, 0, 0), (1, 1)), 1024, 0), stepped(graph, {"x": x[None]})
    assert np.array_equal(got["line"][0, 0], h.transpose(2, 1, 0).ravel())
    assert np.array_equal(got["y"][0, 0], h)


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool", "GlobalAveragePool", "ReduceMean"])
def test_pools(rng: np.random.Generator, op: str) -> None:
    attrs = {"ReduceMean": {"axes": [1], "keepdims": 1}, "GlobalAveragePool": {}}.get(
        op, {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}
    )
    w = weights(rng, 4, 3, 1, 1)
    nodes = [*layer("Conv", "x", "h", kernel_shape=[1, 1]), helper.make_node(op, ["h"], ["y"], **attrs)]
    graph = imported(network(nodes, inputs={"x": [1, 3, 4, 4]}, outputs=["y"], tensors={"h.w": w, "h.b": np.zeros(4)}))
    x = codes(rng, 3, 4, 4)
    h = read(_conv(x, w, np.zeros(4), (0, 0, 0, 0), (1, 1)), 1024)
    blocks = h.reshape(4, 2, 2, 2, 2)
    wanted = {
        "MaxPool": blocks.max(axis=(2, 4)), "AveragePool": np.floor(blocks.mean(axis=(2, 4)) + 0.5),
        "GlobalAveragePool": np.floor(h.mean(axis=(1, 2), keepdims=True) + 0.5),
        "ReduceMean": np.floor(h.mean(axis=0, keepdims=True) + 0.5),
    }[op]  # fmt: skip
    assert np.array_equal(stepped(graph, {"x": x[None]})["y"][0, 0], wanted)


@pytest.mark.parametrize(("shape", "scaled"), [((3, 5, 4), False), ((40, 60, 30), True)])
def test_products_of_two_values(rng: np.random.Generator, shape: tuple[int, int, int], scaled: bool) -> None:
    m, k, n = shape
    a, b = codes(rng, 6, m, k), codes(rng, 6, k, n, low=-128, high=127)
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["p" if scaled else "y"], shift_bit=0 if scaled else -3, name="prod")
    ]
    if scaled:
        nodes.append(helper.make_node("Scale", ["p"], ["y"], scale=2.0**-9))
    else:
        nodes.append(helper.make_node("Scale", ["a"], ["other"], scale=2.0))
    proto = network(nodes, inputs={"a": [m, k], "b": [k, n]}, outputs=["y"])
    got = stepped(imported(proto, signed_inputs=("b",)), {"a": a, "b": b})["y"]
    assert np.array_equal(got, np.clip((a @ b) >> (9 if scaled else 3), -128, 127))


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_sum_norm(rng: np.random.Generator, axis: int) -> None:
    x = codes(rng, 30, 1, 4, 6, 5)
    x[0] = 0
    x[1] %= 2
    proto = network([helper.make_node("SumNorm", ["x"], ["y"], scale_in=2.0, scale_out=1 / 255, axis=axis)],
                    inputs={"x": [1, 4, 6, 5]}, outputs=["y"])  # fmt: skip
    got = stepped(imported(proto), {"x": x})["y"]
    total = x.sum(axis=axis if axis < 0 else axis + 1, keepdims=True)
    wanted = np.where(total > 0, (512 * x + total) // np.maximum(2 * total, 1), 0)
    assert np.array_equal(got, np.minimum(wanted, 255))


@pytest.mark.parametrize(("groups", "relu"), [(1, False), (2, True), (4, False)])
def test_group_norm(rng: np.random.Generator, groups: int, relu: bool) -> None:
    """Against the definition in 64 bits of mantissa; a group of equal codes gives beta."""
    x = codes(rng, 20, 1, 4, 3, 5)
    x[0] = 7
    gamma, beta = np.array([0.5, 0.6, -0.25, 0.8]), np.array([0.75, 0.3, -0.65, 0.5])
    nodes = [helper.make_node("GroupNorm", ["x", "g", "b"], ["n" if relu else "y"], name="norm", num_groups=groups,
                              num_channels=4, scale_in=0.5, scale_out=1 / 32, epsilon=1e-3)]  # fmt: skip
    nodes += [helper.make_node("Relu", ["n"], ["y"])] if relu else []
    proto = network(nodes, inputs={"x": [1, 4, 3, 5]}, outputs=["y"], tensors={"g": gamma, "b": beta})
    got = stepped(imported(proto), {"x": x})["y"]
    grouped = x.reshape(20, groups, -1).astype(np.longdouble) / 2
    normal = (grouped - grouped.mean(axis=2, keepdims=True)) / np.sqrt(grouped.var(axis=2, keepdims=True) + 1e-3)
    wide = (1, 1, 4, 1, 1)
    wanted = np.floor((normal.reshape(x.shape) * gamma.reshape(wide) + beta.reshape(wide)) * 32 + 0.5)
    assert np.array_equal(got, np.clip(wanted, 0 if relu else -128, 127))


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        ({"num_groups": 3}, "3 groups of the 4"),
        ({"num_channels": 5}, "the 5 channels"),
        ({"epsilon": 0.0}, "epsilon 0"),
    ],
)
def test_group_norms_that_contradict_themselves(attrs: dict[str, float], said: str) -> None:
    proto = network([helper.make_node("GroupNorm", ["x"], ["y"], name="norm", **attrs)], inputs={"x": [1, 4, 3]},
                    outputs=["y"])  # fmt: skip
    with pytest.raises(ModelError, match=rf"(?s)norm.*{said}"):
        imported(proto)


def test_split_slice_concat_and_transpose(rng: np.random.Generator) -> None:
    nodes = [
        *layer("Gemm", "x", "h"),
        helper.make_node("Split", ["h"], ["a", "b"], axis=1),
        helper.make_node("Slice", ["h", "s", "e", "ax"], ["c"]),
        helper.make_node("Concat", ["b", "a", "c"], ["j"], axis=1),
        helper.make_node("Relu", ["j"], ["y"]),
    ]
    w = weights(rng, 5, 6)
    tensors = {"h.w": w, "h.b": np.zeros(6), "s": np.array([1]), "e": np.array([3]), "ax": np.array([1])}
    graph = imported(network(nodes, inputs={"x": [1, 5]}, outputs=["y"], tensors=tensors))
    x = codes(rng, 8, 5)
    h = read(x @ w.astype(int), 1024)
    wanted = np.maximum(np.concatenate([h[:, 3:], h[:, :3], h[:, 1:3]], axis=1), 0)
    assert np.array_equal(stepped(graph, {"x": x})["y"][:, 0], wanted)


# refusals


def test_all_unsupported_nodes_are_named_at_once() -> None:
    nodes = [
        helper.make_node("Scale", ["x"], ["a"], scale=0.5),
        helper.make_node("LRN", ["a"], ["b"], name="norm"),
        helper.make_node("Erf", ["b"], ["c"], name="erf"),
        helper.make_node("SumNorm", ["c"], ["y"], name="sum"),
    ]
    with pytest.raises(ModelError) as error:
        imported(network(nodes, inputs={"x": [1, 4]}, outputs=["y"]))
    assert error.value.code == "unsupported_operator"
    assert all(word in error.value.got for word in ("2 nodes", "LRN: norm", "Erf: erf"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scale": 0.3}, "scale = 0.3"),
        ({"scale": 1 / 16384}, "scale = 6.1"),
    ],
)
def test_scales_out_of_rule(change: dict[str, float], said: str) -> None:
    nodes = [*layer("Gemm", "x", "h"), helper.make_node("Scale", ["h"], ["y"], **change)]
    proto = network(nodes, inputs={"x": [1, 2]}, outputs=["y"], tensors={"h.w": np.eye(2), "h.b": np.zeros(2)})
    with pytest.raises(ModelError, match=said):
        imported(proto)


def test_weights_that_are_no_integers() -> None:
    proto = network(layer("Gemm", "x", "y"), inputs={"x": [1, 2]}, outputs=["y"],
                    tensors={"y.w": 0.5 * np.eye(2), "y.b": np.zeros(2)})  # fmt: skip
    with pytest.raises(ModelError, match="no integers"):
        imported(proto)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('layerOptiConfig { name: "y" arrayOutputOpti { repeat: 3 } }', "repeat = 3.*2 or 4"),
        ('layerOptiConfig { name: "y" arrayOutputOpti { magnify: 9 } }', "magnify = 9"),
        ('layerOptiConfig { name: "y" arrayOutputOpti { magnify: 3 } }', "a gain of 128 with its options"),
        ('layerOptiConfig { name: "y" inputOpti { shift: 1 num: 1 front_scale: 1 } }', "no array layer.*right before"),
        ('layerOptiConfig { name: "y" inputOpti { shift: 1 num: 1 front_scale: 2 } }', "at most num"),
        ('layerOptiConfig { name: "z" }', "'z'.*no node has this name"),
        ('layerOptiConfig { name: "y" weightOpt { } }', "weightOpti"),
        ('layerOptiConfig { name: "y" weightOpti { nun: 1 } }', "num"),
        ('layerOptiConfig { name: "y" weightOpti { region: LEFT } }', "UP_REGION"),
        ('layerOptiConfig { name: "y" weightOpti { num: 1 ', "options:1"),
        ("layerOptiConfig { } ", "without a name"),
        ("layerOptiConfig " + "{ a " * 50, "nested too deep"),
        ('layerOptiConfig { name: "y" sparseMatrixOpti { sp_mode: BIG_MODE } }', "MIX_MODE"),
    ],
)
def test_side_files_that_cannot_be_followed(text: str, said: str) -> None:
    proto = network(layer("Gemm", "x", "y"), inputs={"x": [1, 2]}, outputs=["y"],
                    tensors={"y.w": 400 * np.eye(2), "y.b": np.zeros(2)})  # fmt: skip
    with pytest.raises(ModelError, match=f"(?s){said}"):
        imported(proto, options=parse_options(text))


def test_the_table_names_every_operator() -> None:
    from insitu.frontend.wtm2101 import KNOWN, LAYERS
    from insitu.numeric.affine import ROUNDINGS

    table = dialect()
    other = {"Added": "Add", "Multi": "Mul", "GlobalAveragePool": "AveragePool"}
    listed = {*table["operators"], *table["moves"]}
    assert {other.get(op, op) for op in KNOWN if op not in LAYERS} <= listed
    assert all(row["rounding"] in ROUNDINGS for row in table["operators"].values())
    assert all(row["origin"] in ("measured", "stated", "declared") for row in table["operators"].values())


# the vendor's own files


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the vendor's samples are not here")
def test_keyword_network_equals_every_dump_of_the_vendor() -> None:
    folder = SAMPLES / "A1_kws_dnn5"
    graph = verify(load_model(folder / "input" / "bestModel.onnx"))
    dumps = folder / "output_DNN_yxt" / "layer_debug" / "net0"
    x = np.load(folder / "input" / "test_data_0_100.npy").astype(np.int64)
    seen: dict[str, Array] = {}
    interpret(graph, {"in": x[:, None]}, observe=seen.__setitem__)
    for i, node in enumerate(graph.nodes):
        file = dumps / f"{i + 1}_linear_{i + 1}" / f"round{i}" / "output0.txt"
        assert np.array_equal(seen[node.output][:, 0], np.loadtxt(file).reshape(len(x), -1)), node.name


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the vendor's samples are not here")
@pytest.mark.parametrize("path", sorted(SAMPLES.rglob("*.onnx")), ids=lambda p: p.stem)
def test_samples_import(path: Path) -> None:
    assert verify(load_model(path)).meta["dialect"] == "wtm2101"


def test_the_page_says_what_the_table_says(repository: Path) -> None:
    page = (repository / "docs" / "guides" / "wtm2101-dialect.md").read_text()
    for op, row in dialect()["operators"].items():
        assert f"| {op} | {row['rounding']} | {row['origin']} | {row['meaning']} |" in page


@pytest.mark.parametrize("seed", range(60))
def test_broken_files_end_in_a_message(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = _floats("t", np.stack([sigmoid_table(), tanh_table()]))
    nodes = [
        *layer("Conv", "x", "a", relu=True, kernel_shape=[1, 2], strides=[1, 1], pads=[0, 1, 0, 0]),
        helper.make_node("Reshape", ["a", "s"], ["b"]),
        helper.make_node("Gru2Array", ["b", "wi", "wh", "bi", "bh"], ["c"], name="cell", activate_table=table),
        helper.make_node("AveragePool", ["a"], ["p"], kernel_shape=[2, 1], strides=[2, 1]),
        *layer("Gemm", "c", "y"),
    ]
    tensors = {"a.w": weights(rng, 4, 2, 1, 2), "a.b": biases(rng, 4), "s": np.array([9, 16])}
    tensors |= {"wi": weights(rng, 16, 9), "wh": weights(rng, 3, 9), "bi": biases(rng, 9), "bh": biases(rng, 9)}
    tensors |= {"y.w": weights(rng, 3, 2), "y.b": biases(rng, 2)}
    proto = network(nodes, inputs={"x": [1, 2, 4, 9]}, outputs=["y", "p"], tensors=tensors)
    names = [t.name for t in proto.graph.initializer]
    for _ in range(2):
        node = proto.graph.node[rng.integers(len(proto.graph.node))]
        match rng.integers(5):
            case 0 if node.attribute:
                del node.attribute[rng.integers(len(node.attribute))]
            case 1 if node.attribute:
                odd = (0, -1, 0.5, "x", [1], [0, 0], [1.5], 1 << 40)
                key = node.attribute[rng.integers(len(node.attribute))]
                key.CopyFrom(helper.make_attribute(key.name, odd[rng.integers(len(odd))]))
            case 2:
                node.input[rng.integers(len(node.input))] = names[rng.integers(len(names))]
            case 3:
                del node.input[-1]
            case _:
                node.op_type = ("Lstm", "Scale", "Tdnn", "Slice", "Split", "BatchNormalization")[rng.integers(6)]
    try:
        imported(proto)
    except ModelError as error:
        assert str(error)  # noqa: PT017
