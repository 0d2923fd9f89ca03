"""What breaks quantizers: dead channels, constants, outliers, single samples, tiny and huge numbers."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from small import CHIPS, Net, chip_of, quality

from insitu.algo import ptq
from insitu.algo.refine import refined
from insitu.base.errors import InsituError
from insitu.compiler.quantize import quantize
from insitu.graph.export import float_session
from insitu.graph.interpret import interpret
from insitu.graph.verify import verify
from insitu.numeric.affine import dequantize
from insitu.numeric.affine import quantize as codes_of


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def two_layers(*, weight=None, bias=None, seed=0):
    net = Net(1, 3, 6, 6, seed=seed)
    v = net.conv("x", 6, act_lo=0.0, weight=weight, bias=bias)
    return net, net.graph(net.conv(net.conv(v, 6, group=6, act_lo=0.0), 4))


def weights(seed=0, out=6):
    return np.random.default_rng(seed).standard_normal((out, 3, 3, 3)) / 5


@pytest.mark.parametrize("chip", CHIPS)
def test_dead_channels_do_no_harm(chip):
    weight, bias = weights(), np.full(6, 0.1)
    weight[1], weight[2], weight[3] = 0, 1e-20, weight[3] * 1e-3
    bias[1], bias[4] = 0.7, -50.0  # a constant channel; one that is always 0 behind its activation
    net, graph = two_layers(weight=weight, bias=bias)
    assert min(quality(graph, chip, net.data()).values()) > 25


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
def test_any_scale_of_the_data(chip, scale):
    net = Net(1, 3, 6, 6)
    graph = net.graph(net.conv(net.conv("x", 6, act_lo=0.0, bias=np.zeros(6)), 4, bias=np.zeros(4)))
    assert min(quality(graph, chip, net.data() * np.float32(scale)).values()) > 25


@pytest.mark.parametrize("chip", CHIPS)
def test_values_that_are_always_zero(chip):
    net, graph = two_layers(weight=np.zeros((6, 3, 3, 3)), bias=np.full(6, -1.0))
    assert min(quality(graph, chip, net.data()).values()) > 18  # the last layer's bias is what remains
    assert min(quality(graph, chip, net.data() * 0).values()) > 25


@pytest.mark.parametrize("chip", CHIPS)
def test_single_sample(chip):
    net, graph = two_layers()
    assert min(quality(graph, chip, net.data(1), check=net.data(16, seed=5)).values()) > 12


@pytest.mark.parametrize("chip", CHIPS)
def test_outliers_keep_the_rest_usable(chip):
    net, graph = two_layers()
    data = net.data()
    data[3, 0, 1, 2, 2] = 300.0
    plan = ptq.plan(graph, chip_of(chip), data={"x": data})
    quantized = verify(quantize(graph, chip_of(chip), plan=plan))
    codes = interpret(quantized, {"x": codes_of(data[4:8], quantized.type("x").quant)})
    name = graph.outputs[0]
    assert np.isfinite(dequantize(codes[name], quantized.type(name).quant)).all()
    assert len(np.unique(codes[name])) > 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_calibration_data_must_be_finite(bad):
    net, graph = two_layers()
    data = net.data()
    data[0, 0, 0, 0, 0] = bad
    with pytest.raises(InsituError, match="finite"):
        ptq.plan(graph, chip_of("exact"), data={"x": data})


@pytest.mark.parametrize("chip", CHIPS)
def test_a_clipped_activation_stays_clipped_where_channels_have_scales_of_their_own(chip):
    net = Net(1, 3, 8, 8, seed=3)
    v = net.conv(
        net.conv("x", 8), 16, kernel=1, weight=net.rng.standard_normal((16, 8, 1, 1)) * 6, act_lo=0.0, act_hi=6.0
    )
    v = net.conv(v, 16, group=16, act_lo=0.0, act_hi=6.0)
    assert min(quality(net.graph(net.conv(v, 4)), chip, net.data(), check=net.data(16, seed=4)).values()) > 25


def test_one_position_in_nine_does_not_move_the_others():
    """A bias follows what all vectors miss; a clipped token that some see moves the mean, but is no reason to."""
    net = Net(1, 9, 32)
    graph, chip, x = net.graph(net.dense("x", 24)), chip_of("exact"), net.data()
    x[:, 0, 0] *= 30.0  # the first of nine positions
    clipping = ptq.plan(graph, chip, data={"x": x}).with_output_scale("x", 0.1)
    plain = replace(clipping, layers={n: replace(p, bias=(), rounding="") for n, p in clipping.layers.items()})
    wanted = float_session(graph)({"x": x})[graph.outputs[0]][:, 0, 1:]

    def error(plan):
        coded = quantize(graph, chip, plan=plan)
        got = interpret(coded, {"x": codes_of(x, coded.type("x").quant)})[graph.outputs[0]]
        return float(((dequantize(got, coded.type(graph.outputs[0]).quant)[:, 0, 1:] - wanted) ** 2).mean())

    assert error(refined(graph, chip, plain, data={"x": x})) < 1.02 * error(plain)
