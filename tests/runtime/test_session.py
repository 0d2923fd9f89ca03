"""Sessions: floats and codes in and out, faults of inputs, blocks and threads that change nothing."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from insitu.base.errors import DataError, UsageError
from insitu.numeric.affine import dequantize, quantize
from insitu.runtime import blocks
from insitu.runtime.blocks import block_size
from insitu.runtime.session import Session
from tests.flow.line import build, captured, chip_of, inputs_of
from tests.flow.test_operators import NETS


@cache
def compiled(name="residual", chip="exact"):
    graph = captured(NETS[name](np.random.default_rng(0)))
    return graph, *build(graph, chip_of(chip))


def made(name="residual", chip="exact", **more):
    return Session(compiled(name, chip)[2], **more)


def test_floats_come_back_as_floats_and_codes_as_codes():
    session = made()
    (name,), (out,) = session.inputs, session.outputs
    real = inputs_of(compiled()[0], 3)[name]
    codes = quantize(real, session.spec(name))
    answers = session.run(real)[out]
    assert np.array_equal(session.run({name: real})[out], answers)
    integers = session.run(codes)[out]
    assert integers.dtype.kind in "iu"
    assert np.array_equal(dequantize(integers, session.spec(out)), answers)


def test_a_row_may_come_flat():
    session = made()
    real = inputs_of(compiled()[0], 2)["x"]
    assert np.array_equal(session.run(real.reshape(2, -1))["y"], session.run(real)["y"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: x[:0], "shape"),
        (lambda x: x[..., :-1], r"\(samples, 1, 3, 6, 6\)"),
        (lambda x: x[0, 0, 0, 0, 0], "shape"),
        (lambda x: np.where(x > 1, np.nan, x), "NaN"),
        (lambda x: np.where(x > 1, np.inf, x), "infinity"),
        (lambda x: (x * 1000).astype(np.int64), "codes"),
        (lambda x: {"x": x, "z": x}, "unknown z"),
        (lambda x: {"z": x}, "unknown z, missing x"),
        (lambda x: {}, "missing x"),
    ],
)
def test_wrong_inputs_are_refused(change, text):
    with pytest.raises(DataError, match=text):
        made().run(change(inputs_of(compiled()[0], 2)["x"]))


def test_several_inputs_need_the_same_number_of_samples():
    graph, _, program = compiled("two_inputs_two_outputs")
    data = inputs_of(graph, 4)
    session = Session(program)
    assert set(session.run(data)) == {"y", "z"}
    with pytest.raises(DataError, match="sample"):
        session.run({"u": data["u"], "v": data["v"][:3]})


def test_unknown_physics_is_refused():
    with pytest.raises(UsageError):
        made("residual", "adc", physics="gravity")


@pytest.mark.parametrize("physics", ["ideal", "full"])
@pytest.mark.parametrize("chip", ["adc", "wtm2101"])
def test_neither_blocks_nor_threads_change_a_code(monkeypatch, chip, physics):
    session = made("residual", chip, physics=physics, seed=5)
    codes = session.codes(inputs_of(compiled("residual", chip)[0], 13))
    monkeypatch.setenv("INSITU_THREADS", "1")
    told = []
    whole = session.run_codes(codes, done=told.append)["y"]
    assert told[-1] == 13
    monkeypatch.setattr(blocks, "MAX_BLOCK", 4)
    assert block_size(session.program, 13) == 4
    for count in ("1", "2"):
        monkeypatch.setenv("INSITU_THREADS", count)
        assert np.array_equal(made("residual", chip, physics=physics, seed=5).run_codes(codes)["y"], whole)
    alone = session.run_codes({"x": codes["x"][9:10]}, first_sample=9)["y"]
    assert np.array_equal(alone, whole[9:10])


def test_instances_differ_and_repeat():
    codes = made("residual", "adc").codes(inputs_of(compiled("residual", "adc")[0], 30))
    answers = [made("residual", "adc", physics="full", instance=i).run_codes(codes)["y"] for i in (0, 0, 1)]
    assert np.array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])


def test_observing_shows_every_value_once():
    graph, quantized, program = compiled()
    session, seen = Session(program, graph=quantized), []
    session.run_codes(session.codes(inputs_of(graph, 2)), observe=lambda name, value: seen.append((name, value.shape)))
    names = [n for n, _ in seen]
    assert len(set(names)) == len(names)
    assert {n.output for n in quantized.nodes} <= set(names)
    assert all(shape == (2, *quantized.type(n).sizes()) for n, shape in seen if n in quantized.types)
