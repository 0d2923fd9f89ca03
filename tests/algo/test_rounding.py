"""Weights rounded against each other, and observers of ranges: each does what it says, and the plan carries it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from insitu.algo import ptq
from insitu.algo.calibrate import Range
from insitu.algo.ptq import Choices
from insitu.algo.rounding import rounded, second_order
from insitu.algo.search import symmetric
from insitu.arch.load import load_chip
from insitu.base.errors import ConfigError, UsageError
from insitu.compiler.plan import packed, plan_from_json, plan_to_json, unpacked
from insitu.compiler.quantize import quantize
from insitu.flow.chain import build, deploy
from insitu.flow.check import compare
from insitu.graph.export import float_session
from insitu.graph.graph import Graph
from insitu.runtime.session import Session
from tests.flow.line import captured
from tests.graph.networks import model, node


def inputs(count: int, seed: int) -> np.ndarray:
    """Features [count, 40] that go together: twelve directions make most of them."""
    basis = np.random.default_rng(7).standard_normal((12, 40))
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 12)) @ basis + 0.1 * rng.standard_normal((count, 40))


def test_errors_of_the_output_fall_and_codes_stay_in_range() -> None:
    v = 3 * np.random.default_rng(0).standard_normal((30, 40))
    x, fresh = inputs(400, 1), inputs(400, 2)
    nearest = np.clip(np.rint(v), -7, 7).astype(np.int64)
    codes = second_order(v, x, lo=-7, hi=7)
    errors = [float(((fresh @ (c - v).T) ** 2).mean()) for c in (nearest, codes)]
    assert errors[1] < 0.4 * errors[0]
    assert np.abs(codes).max() <= 7
    kept = rounded(v, nearest, x[:, None], lo=-7, hi=7)  # fitted on three quarters
    assert float(((fresh @ (kept - v).T) ** 2).mean()) < 0.45 * errors[0]


def test_independent_inputs_are_rounded_to_nearest() -> None:
    """Nothing can make up for a rounding error where rows have nothing in common: the nearest code is the best."""
    v = 3 * np.random.default_rng(0).standard_normal((30, 16))
    codes = second_order(v, np.sqrt(16) * np.eye(16), lo=-127, hi=127)
    assert np.array_equal(codes, np.rint(v))


def network(op: str) -> Graph:
    rng = np.random.default_rng(0)
    if op == "Gemm":
        tensors = {"w": rng.standard_normal((40, 16)) / 6, "b": rng.standard_normal(16)}
        nodes, shape = [node("Gemm", ["x", "w", "b"], ["y"])], ["N", 40]
    else:
        tensors = {"w": rng.standard_normal((8, 2, 3, 2)) / 4, "b": rng.standard_normal(8)}
        nodes, shape = [node("Conv", ["x", "w", "b"], ["y"], group=2)], ["N", 4, 5, 2]
    floats = {n: a.astype(np.float32) for n, a in tensors.items()}
    return captured(model(nodes, inputs={"x": shape}, outputs=["y"], tensors=floats))


@pytest.mark.parametrize("op", ["Gemm", "Conv"])
@pytest.mark.parametrize("name", ["dcim-28nm", "parametric-reram-adc8", "wtm2101"])
def test_the_plan_carries_it_and_integers_are_one_thing(op: str, name: str) -> None:
    narrow = ("array.cell_range=[-7, 7]",) if name == "dcim-28nm" else ()
    graph, chip = network(op), load_chip(name, overrides=narrow)
    shape = (64, *graph.type("x").sizes())
    x, fresh = ({"x": inputs(64, s).astype(np.float32).reshape(shape)} for s in (1, 2))
    plan, quantized, program = build(graph, chip, calibration=x, choices=Choices(rounding="second-order"))
    assert plan is not None
    assert plan_from_json(plan_to_json(plan)) == plan
    session = Session(program, graph=quantized)
    assert compare(session, session.codes(fresh)).mismatches == 0
    if name == "dcim-28nm":  # four bits a weight: what rounding costs is all there is
        real, usual = (
            float_session(graph)(fresh)["y"],
            build(graph, chip, calibration=x, choices=Choices(rounding="nearest")),
        )
        errors = [float(((s.run(fresh)["y"] - real) ** 2).mean()) for s in (Session(usual[2], graph=usual[1]), session)]
        assert errors[1] < (0.6 if op == "Gemm" else 1.0) * errors[0]


def test_steps_are_packed_and_checked() -> None:
    steps = np.random.default_rng(0).integers(-1, 2, (8, 12))
    assert np.array_equal(unpacked(packed(steps), 8), steps)
    assert packed(np.zeros((3, 4))) == ""
    graph, chip = network("Gemm"), load_chip("dcim-28nm")
    plan = ptq.plan(graph, chip, data={"x": inputs(16, 0)[:, None].astype(np.float32)})
    for text in ("rubbish", packed(steps)):
        broken = replace(plan, layers={n: replace(p, rounding=text) for n, p in plan.layers.items()})
        with pytest.raises(ConfigError, match="rounding"):
            quantize(graph, chip, plan=broken)


def scale(observer: str, values: np.ndarray) -> float:
    """Of a symmetric 8-bit range for these values, in codes 0..127."""
    rows = values.astype(np.float32)[:, None]
    seen = Range(rows.min(axis=0), rows.max(axis=0), rows.mean(axis=0), rows.var(axis=0), rows, len(rows), observer)
    return symmetric(seen, relu=False).scale[0] * 127


def test_observers_see_outliers_as_they_say() -> None:
    """A normal variable of 60,000 draws with one outlier at 40 deviations."""
    values = np.random.default_rng(0).standard_normal(30_000)
    values[5] = 40.0
    assert scale("minmax", values) >= 40.0
    assert 3.0 < scale("percentile", values) < 5.5
    assert 2.5 < scale("entropy", values) < 12.0
    assert 3.0 < scale("mse", values) < 40.0
    flat = np.random.default_rng(0).uniform(-1, 1, 30_000)
    for observer in ("minmax", "percentile", "entropy", "mse"):
        assert scale(observer, flat) == pytest.approx(1.0, rel=0.1)


def test_unknown_choices_are_refused() -> None:
    from insitu.flow.chain import Options

    with pytest.raises(UsageError, match="entropy"):
        deploy(network("Gemm"), "dcim-28nm", options=Options(observer="entropie"))
    with pytest.raises(UsageError, match="second-order"):
        Choices(rounding="gptq")
