"""Scales per channel where a norm, a product or a sum writes what weight layers read, and what they are worth."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.algo import ptq
from insitu.algo.calibrate import Range
from insitu.algo.search import channel_steps
from insitu.compiler import adapt
from insitu.compiler.plan import plan_from_json, plan_to_json
from insitu.compiler.quantize import quantize
from insitu.flow.chain import build, deploy
from insitu.graph.export import float_session
from insitu.graph.graph import Graph
from insitu.graph.interpret import interpret
from insitu.graph.verify import verify
from insitu.numeric.affine import dequantize
from insitu.numeric.affine import quantize as codes_of
from insitu.runtime.session import Session
from tests.algo.small import Net, chip_of, sqnr

LOUD = (3, 11, 20)  # channels that are some 30 times as large as others


def _affine(net: Net, value: str, *, times: float = 1.0, offset: float = 0.0) -> str:
    """A value times a scale plus a shift per channel; loud channels times `times`, about `offset`."""
    size = net.types[value].sizes()[-1]
    scale, shift = 1 + 0.2 * net.rng.standard_normal(size), 0.1 * net.rng.standard_normal(size)
    scale[list(LOUD)] *= times
    shift[list(LOUD)] += offset
    return net.add("Add", net.add("Mul", value, net.constant(scale)), net.constant(shift))


def _normed(*, residual: bool = False, loud_behind: bool = False, seed: int = 0) -> Graph:
    """Loud channels in front of a norm whose scale makes them as small as others again, as trained encoders have.

    `loud_behind`: the norm's scale is what makes them loud, and a Transpose stands before the layer.
    """
    net = Net(1, 6, 16, seed=seed)
    x = net.dense("x", 32)
    x = x if loud_behind else _affine(net, x, times=10.0, offset=30.0)
    y = net.add("Norm", x, axes=(2,), epsilon=1e-5, center=1)
    y = _affine(net, y, times=30.0 if loud_behind else 1 / 10)
    if loud_behind:
        y = net.add("Reshape", net.add("Transpose", y, perm=(0, 2, 1)), shape=(1, 32, 6, 1))
        w = net.rng.standard_normal((24, 32, 1, 1)) / 5
        w[:, LOUD] /= 30
        return net.graph(net.add("Reshape", net.conv(y, 24, kernel=1, weight=w), shape=(1, 24, 6)))
    z = net.dense(y, 32)
    return net.graph(net.dense(net.add("Add", y, z) if residual else z, 8))


def _planned(graph: Graph, chip: str = "exact", *, seed: int = 0):
    adapted = verify(adapt.run(graph, chip_of(chip)))
    data = np.random.default_rng(seed).standard_normal((64, *graph.type("x").sizes())).astype(np.float32)
    return adapted, ptq.plan(adapted, chip_of(chip), data={"x": data})


def _quality(graph: Graph, chip: str = "exact", *, seed: int = 0) -> float:
    """SQNR in dB on data that were not calibrated on."""
    adapted, plan = _planned(graph, chip, seed=seed)
    quantized = verify(quantize(adapted, chip_of(chip), plan=plan))
    x = np.random.default_rng(seed + 100).standard_normal((32, *graph.type("x").sizes())).astype(np.float32)
    codes = interpret(quantized, {"x": codes_of(x, quantized.type("x").quant)})
    value = graph.outputs[0]
    return sqnr(float_session(graph)({"x": x})[value], dequantize(codes[value], quantized.type(value).quant))


@pytest.mark.parametrize("loud_behind", [False, True])
@pytest.mark.parametrize("chip", ["exact", "unsigned", "adc"])
def test_loud_channels_behind_a_norm(chip, loud_behind, monkeypatch):
    graph = _normed(loud_behind=loud_behind)
    with_scales = _quality(graph, chip)
    monkeypatch.setattr(ptq, "ELEMENTWISE", ())
    assert with_scales > _quality(graph, chip) + 5


def test_a_norm_of_the_host_folds_its_scale():
    """A chip of bytes has the host write codes of every channel's own range, scale and shift in the layers behind."""
    adapted, plan = _planned(_normed(), "wtm2101")
    hosted = [n for n in adapted.nodes if n.op == "Host"]
    assert len(hosted) == 1
    assert plan.values[hosted[0].output].axis == -1
    moved, _ = _planned(_normed(loud_behind=True), "wtm2101")
    assert [n.op for n in moved.nodes if n.op in ("Host", "Mul", "Add")] == ["Host"]


def test_the_float_network_stays_what_it_is():
    for graph in (_normed(), _normed(residual=True), _normed(loud_behind=True)):
        x = np.random.default_rng(1).standard_normal((8, *graph.type("x").sizes())).astype(np.float32)
        for chip in ("exact", "wtm2101"):
            adapted = verify(adapt.run(graph, chip_of(chip)))
            for value, wanted in float_session(graph)({"x": x}).items():
                got = float_session(adapted)({"x": x})[value]
                np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_a_sum_reads_wide_codes_of_one_scale_and_layers_bytes_of_many():
    graph = _normed(residual=True)
    adapted, plan = _planned(graph)
    total = next(n for n in adapted.nodes if n.op == "Add" and not set(n.inputs) & set(adapted.constants))
    layers = [n for n in adapted.nodes if n.op == "MatMul"]
    normed, narrow = total.inputs[0], layers[1].inputs[0]
    assert narrow == f"{normed}.bytes"
    assert (plan.values[normed].axis, plan.values[normed].bits) == (None, 16)
    assert (plan.values[narrow].axis, plan.values[narrow].bits) == (-1, 8)


def test_other_readers_leave_one_scale():
    net = Net(1, 6, 16)
    y = _affine(net, net.add("Norm", net.dense("x", 32), axes=(2,), epsilon=1e-5, center=1), times=30.0)
    both = net.add("Concat", y, net.dense(y, 32), axis=1)
    adapted, plan = _planned(net.graph(net.dense(both, 8)))
    assert plan.values[y].axis is None
    assert not any(v.endswith(".bytes") for v in adapted.types)


@pytest.mark.parametrize("chip", ["exact", "unsigned", "adc", "wtm2101"])
def test_the_program_gives_the_integers(chip):
    graph = _normed(residual=True)
    x = np.random.default_rng(2).standard_normal((32, 1, 6, 16)).astype(np.float32)
    plan, quantized, program = build(graph, chip_of(chip), calibration={"x": x})
    session = Session(program, graph=quantized)
    codes = session.codes({"x": x})
    wanted = interpret(quantized, codes)
    for value, got in session.run_codes(codes).items():
        np.testing.assert_array_equal(got, wanted[value])
    again = build(graph, chip_of(chip), calibration={"x": x}, plan=plan_from_json(plan_to_json(plan)))[1]
    assert all(np.array_equal(again.constants[n], a) for n, a in quantized.constants.items())


def test_the_report_compares_layers_behind_parted_norms():
    result = deploy(_normed(residual=True), chip_of("exact"), physics="ideal", instances=1).result
    assert result.bit_exact is not None
    assert result.bit_exact.mismatches == 0
    assert all(layer.sqnr_local_db is not None for layer in result.layers if layer.op == "MatMul")


def test_ranges_of_products_reach_as_far_as_their_tails():
    """A channel's largest of few positions says little where tails are long; what is clipped then costs most."""

    def drawn(positions: int, factors: int):
        return (
            np.random.default_rng(positions).standard_normal((factors, positions, 64)).prod(axis=0).astype(np.float32)
        )

    def error(factors: int, *, tails: bool) -> float:
        rows, fresh = drawn(200, factors), drawn(5000, factors)
        low, high = (np.asarray(v, np.float64) for v in (rows.min(axis=0), rows.max(axis=0)))
        seen = Range(low, high, rows.mean(axis=0), rows.var(axis=0), rows, len(rows))
        steps = channel_steps(seen, below=128, above=127, tails=tails).least
        return float(((np.clip(np.rint(fresh / steps), -128, 127) * steps - fresh) ** 2).mean())

    assert error(3, tails=True) < error(3, tails=False) / 2
    assert error(1, tails=True) < error(1, tails=False) * 1.2  # a normal variable's reach as far as they did
