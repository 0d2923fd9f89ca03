"""Plans become integers: one Conv and one MatMul per readout, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.compiler.draft import follow
from insitu.compiler.plan import LayerPlan, QuantPlan
from insitu.compiler.quantize import add_scales, quantize
from insitu.compiler.quantize_layers import slice_bits, stored_bits
from insitu.graph.graph import Graph, Node, State, const_type
from insitu.graph.interpret import interpret
from insitu.graph.ops.shapes import infer
from insitu.graph.types import TensorType
from insitu.graph.verify import verify
from insitu.numeric.affine import QuantSpec


def graph_of(nodes, *, x, constants=None, outputs=None, states=(), more=None):
    tables = {k: np.asarray(v, np.float32) for k, v in (constants or {}).items()}
    types = {"x": TensorType(x, "f32"), **(more or {}), **{k: const_type(v) for k, v in tables.items()}}
    for node in nodes:
        types[node.output] = infer(node, types, tables)[0]
    return verify(Graph("net", "captured", ("x",), outputs or (nodes[-1].output,), tuple(nodes), types, tables, states))


def product(op):
    """y = relu(x . w + b) with two inputs and two outputs, as a MatMul or a 1x1 Conv."""
    w = np.array([[0.5, -0.25], [1.0, 0.75]])  # [in, out]
    b = [1.0, -0.5]
    if op == "MatMul":
        node = Node("n", op, ("x", "w", "b"), ("y",), {"act_lo": 0.0})
        return graph_of([node], x=(1, 2), constants={"w": w, "b": b})
    node = Node("n", op, ("x", "w", "b"), ("y",), {"act_lo": 0.0})
    return graph_of([node], x=(1, 2, 1, 1), constants={"w": w.T[:, :, None, None], "b": b})


def run(graph, chip, plan, codes, overrides=()):
    quantized = verify(quantize(graph, load_chip(chip, overrides=overrides), plan=plan))
    shape = (1, *graph.type("x").sizes())
    return quantized, interpret(quantized, {"x": np.array(codes).reshape(shape)})["y"].reshape(-1).tolist()


@pytest.mark.parametrize("op", ["MatMul", "Conv"])
def test_exact_by_hand(op):
    values = {
        "x": QuantSpec(8, signed=True, scale=(0.5,), zero_point=10),
        "y": QuantSpec(8, signed=True, scale=(0.25,), zero_point=-128),
    }
    plan = QuantPlan(values, {"n": LayerPlan(weight_scale=(0.25, 0.25))})
    quantized, y = run(product(op), "dcim-28nm", plan, [14, 30])
    # w codes [[2, -1], [4, 3]]; bias / (0.5 * 0.25) = [8, -4], minus 10 * column sums [6, 2]
    assert quantized.constants["n.bias"].tolist() == [8 - 60, -4 - 20]
    # x - 10 = [4, 20]: sums 4*2 + 20*4 + 8 = 96, 4*-1 + 20*3 - 4 = 52; times 0.5 * 0.25 / 0.25
    assert y == [96 // 2 - 128, 52 // 2 - 128]
    assert (quantized.constants["n.multiplier"] / 2.0 ** quantized.constants["n.shift"]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("op", ["MatMul", "Conv"])
def test_adc_by_hand(op):
    values = {"x": QuantSpec(8, signed=True, scale=(0.5,)), "y": QuantSpec(8, signed=True, scale=(0.25,))}
    plan = QuantPlan(values, {"n": LayerPlan(weight_scale=(0.25, 0.25), adc=(3, 2))})
    quantized, y = run(product(op), "parametric-reram-adc8", plan, [4, 16], ("macro.weights.slice_shift=0",))
    # 7 bits fill 2-bit slices from the top, 1 bit is left for the lowest.  w [[2, -1], [4, 3]]: low [[0, -1], [0, 1]],
    # next (x2) [[1, 0], [2, 1]].  Planes: bit 2 of the first row, bit 4 of the second; codes of 3/4 sum, half to even:
    # bit 2 low [0, -0.75 -> -1], next [0.75 -> 1, 0]; bit 4 low [0, 1], next [1.5 -> 2, 1]
    sums = [4 * 2 * 1 + 16 * 2 * 2, 4 * -1 + 16 * 1 + 16 * 2 * 1]
    # bias [8, -4] in steps of 4/3 is [6, -3]; a step is 4/3 * 0.5 * 0.25 = 1/6, two thirds of the output's scale
    assert quantized.constants["n.bias"].tolist() == [6, -3]
    assert y == [round((sums[0] + 6) * 2 / 3), round((sums[1] - 3) * 2 / 3)]


@pytest.mark.parametrize("op", ["MatMul", "Conv"])
def test_wtm2101_by_hand(op):
    values = {"x": QuantSpec(8, signed=True, scale=(0.5,)), "y": QuantSpec(8, signed=True, scale=(1.0,))}
    plan = QuantPlan(values, {"n": LayerPlan(gain=(256, 512), input_shift=1)})
    quantized, y = run(product(op), "wtm2101", plan, [4, 16])
    # driven 8, 32 at 0.25 a step; cells at 1 / (256 * 0.25) = 1/64 and 1/128: [[32, -32], [64, 96]]
    w = quantized.constants["n.weight"].reshape(2, 2)
    assert (w.T if op == "Conv" else w).tolist() == [[32, -32], [64, 96]]
    # bias 1 / (0.25 / 64) = 256 = 2 * 128; -0.5 / (0.25 / 128) = -256
    assert quantized.constants["n.bias"].tolist() == [256, -256]
    # sums 8*32 + 32*64 + 256 = 2560 -> 10; -8*32 + 32*96 - 256 = 2560 over 512 -> 5
    assert y == [10, 5]


def test_scales_per_channel_go_into_the_next_weights():
    graph = product("MatMul")
    values = {
        "x": QuantSpec(8, signed=True, scale=(0.5, 0.25), axis=-1),
        "y": QuantSpec(8, signed=True, scale=(0.25, 0.5), axis=-1),
    }
    plan = QuantPlan(values, {"n": LayerPlan(weight_scale=(0.25, 0.125))})
    quantized, y = run(graph, "dcim-28nm", plan, [4, 40])
    # second row halved: [[0.5, -0.25], [0.5, 0.375]] at 0.25 and 0.125
    assert quantized.constants["n.weight"].tolist() == [[2, -2], [2, 3]]
    # (4*2 + 40*2) + 8 = 96, times 0.5*0.25/0.25; (4*-2 + 40*3) - 8 = 104, times 0.5*0.125/0.5
    assert y == [48, 13]


def test_bias_of_the_plan_is_added():
    values = {"x": QuantSpec(8, signed=True, scale=(0.5,)), "y": QuantSpec(8, signed=True, scale=(0.25,))}
    layer = LayerPlan(weight_scale=(0.25, 0.25), bias=(0.25, -0.25))
    quantized, _ = run(product("MatMul"), "dcim-28nm", QuantPlan(values, {"n": layer}), [0, 0])
    assert quantized.constants["n.bias"].tolist() == [10, -6]


def test_bias_rows_bound_the_bias():
    values = {"x": QuantSpec(8, signed=True, scale=(1e-3,)), "y": QuantSpec(8, signed=True, scale=(1e-4,))}
    for rows in (2, 16):
        plan = QuantPlan(values, {"n": LayerPlan(gain=(256, 256), bias_rows=rows)})
        quantized, _ = run(product("MatMul"), "wtm2101", plan, [0, 0])
        assert np.abs(quantized.constants["n.bias"]).max() == rows * 275 * 128


def test_factors_of_an_add():
    (a, b), shift = add_scales(np.array([0.5, 0.125]), power_of_two=True)
    assert (a / 2**shift, b / 2**shift) == (0.5, 0.125)
    (a, b), shift = add_scales(np.array([0.3, 1.7]), power_of_two=False)
    assert a / 2**shift == pytest.approx(0.3, rel=1e-3)
    assert b / 2**shift == pytest.approx(1.7, rel=1e-3)
    for ratios in ([1e-30, 1.0], [1e30, 1.0], [1e-40, 1e-40]):
        for shifts in (True, False):
            (a, b), shift = add_scales(np.array(ratios), power_of_two=shifts)
            assert 0 <= a < 2**46
            assert 0 <= b < 2**46
            assert 0 <= shift <= 62


@pytest.mark.parametrize("ratio", [1e-30, 1e30])
def test_ratios_out_of_range_are_bounded(ratio):
    values = {"x": QuantSpec(8, signed=True, scale=(1.0,)), "y": QuantSpec(8, signed=True, scale=(1 / ratio,))}
    plan = QuantPlan(values, {"n": LayerPlan(weight_scale=(0.25, 0.25))})
    _, y = run(product("MatMul"), "dcim-28nm", plan, [1, 1])
    assert y == ([0, 0] if ratio < 1 else [127, 0])  # the sums are 1.5 + 1 and 0.5 - 0.5


def test_a_state_comes_back_in_its_own_codes():
    nodes = [Node("s", "Add", ("x", "h"), ("y",))]
    graph = graph_of(nodes, x=(1, 4), states=(State("h", "y"),), more={"h": TensorType((1, 4), "f32")})
    spec = QuantSpec(8, signed=True, scale=(0.5,))
    values = {"x": spec, "h": spec, "y": QuantSpec(8, signed=True, scale=(0.25,), zero_point=3)}
    quantized = verify(quantize(graph, load_chip("dcim-28nm"), plan=QuantPlan(values, {})))
    [state] = quantized.states
    assert quantized.type(state.output) == quantized.type("h")
    codes = interpret(quantized, {"x": np.full((1, 1, 4), 6), "h": np.full((1, 1, 4), 2)})
    assert codes["y"].ravel()[0] == 16 + 3
    assert codes[state.output].ravel()[0] == 8


def test_scales_follow_operators_that_move():
    types = {"x": TensorType((1, 3, 2, 2), "f32")}
    spec = QuantSpec(8, signed=True, scale=(1.0, 2.0, 3.0), axis=-3)

    def after(op, **attrs):
        node = Node("n", op, ("x",), ("y",), attrs)
        kinds = {**types, "y": infer(node, types, {})[0]}
        return follow(Graph("g", "captured", ("x",), ("y",), (node,), kinds), node, spec)

    assert after("Transpose", perm=(0, 2, 3, 1)).axis == -1
    flat = after("Reshape", shape=(1, 12))
    assert (flat.axis, flat.scale) == (-1, (1.0,) * 4 + (2.0,) * 4 + (3.0,) * 4)
    assert after("Reshape", shape=(1, 4, 3)) is None
    assert after("ReduceMean", axes=(2, 3), keepdims=0).axis == -1
    assert after("ReduceMean", axes=(1, 2), keepdims=0) is None
    assert after("Slice", axes=(1,), starts=(1,), ends=(3,), steps=(1,)).scale == (2.0, 3.0)
    assert after("MaxPool", kernel_shape=(2, 2)) == spec
    assert after("Pad", pads=(0, 1, 0, 0, 0, 0, 0, 0)) is None


@pytest.mark.parametrize(
    ("encoding", "cell", "slices", "bits"),
    [("differential_pair", 2, 4, 7), ("offset_column", 1, 8, 8), ("offset_column", 3, 3, 8), ("offset_column", 2, 4, 8),
     ("twos_complement", 1, 8, 7), ("twos_complement", 2, 4, 8)],
)  # fmt: skip
def test_what_slices_hold_fits_the_cells_and_leaves_no_slice_that_is_always_empty(encoding, cell, slices, bits):
    more = ("cell=reram-wan", f"array.bits_per_cell={cell}", f"macro.weights.slices={slices}")
    more = (*more, "macro.weights.slice_shift=0")
    chip = load_chip("parametric-reram-adc8", overrides=(*more, f"macro.weights.encoding={encoding}"))
    assert (stored_bits(chip), slice_bits(chip)) == (bits, cell)
    assert -(-bits // cell) <= slices
