"""Searches: what they choose is never worse than what they might have chosen."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import CHIPS, Net, chip_of, networks, quality

from insitu.algo import ptq
from insitu.algo.calibrate import Range, calibrate
from insitu.algo.gains import _blocks, _segments
from insitu.algo.search import _tails, asymmetric, channel_steps, error, headroom, power_of_two, symmetric
from insitu.algo.ties import bases, groups
from insitu.base.errors import ConfigError
from insitu.compiler.plan import plan_from_json, plan_to_json
from insitu.numeric.affine import QuantSpec


def seen(rows) -> Range:
    rows = np.asarray(rows, np.float32)
    low, high = rows.min(axis=0).astype(float), rows.max(axis=0).astype(float)
    return Range(low, high, rows.mean(axis=0), rows.var(axis=0), rows, len(rows))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6), st.booleans(), st.sampled_from(["normal", "relu", "heavy"]))
def test_a_chosen_range_beats_the_full_one(seed, scale, signed, kind):
    rng = np.random.default_rng(seed)
    draw = {"normal": rng.standard_normal, "relu": rng.standard_normal, "heavy": lambda s: rng.standard_t(3, s)}[kind]
    values = draw((20000, 2)) * scale
    values = np.maximum(values, 0) if kind == "relu" else values
    stats = seen(values)
    low, high = min(stats.low, 0.0), max(stats.high, 0.0)
    step = (high - low) / 255
    full = QuantSpec(8, signed=signed, scale=(step,), zero_point=int(np.rint(-low / step)) - (128 if signed else 0))
    chosen = asymmetric(stats, signed=signed)
    assert error(stats.rows, chosen) <= 1.1 * error(stats.rows, full)
    assert symmetric(stats, relu=stats.low >= 0).zero_point == 0


@settings(deadline=None, max_examples=40)
@given(st.floats(1e-9, 1e9), st.sampled_from([1.0, 1.3, 0.7]), st.booleans())
def test_tied_scales_are_the_base_times_a_power_of_two(scale, base, signed):
    values = np.abs(np.random.default_rng(0).standard_normal((500, 3))) * scale
    exponent = np.log2(power_of_two(seen(values), base=base, signed=signed).scale[0] / base)
    assert exponent == pytest.approx(round(exponent), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_column_blocks_are_the_best_of_all(kinds, columns, count, seed):
    errors = np.random.default_rng(seed).random((kinds, columns))
    total, chosen = _segments(errors, count)
    assert total == pytest.approx(errors[chosen, np.arange(columns)].sum())
    assert 1 + np.count_nonzero(np.diff(chosen)) <= count
    assert total <= errors.sum(axis=1).min() + 1e-12
    if count >= columns:
        assert total == pytest.approx(errors.min(axis=0).sum())


def test_a_block_more_must_pay():
    flat = np.tile(np.array([[1.0], [1.001]]), (1, 8)) * np.linspace(1, 1.001, 8)
    assert len(set(_blocks(flat, (256, 512))[1])) == 1
    split = np.where(np.arange(8) < 4, [[1.0], [9.0]], [[9.0], [1.0]])
    assert list(_blocks(split, (256, 512))[1]) == [256] * 4 + [512] * 4


def test_steps_grow_with_the_square_and_trust_what_was_seen_often():
    rows = np.random.default_rng(1).standard_normal((200000, 2)) * [1.0, 0.01]
    steps = channel_steps(seen(rows), below=128, above=127)
    assert steps.cost(steps.natural * 4) == pytest.approx(16 * steps.cost(steps.natural))
    assert steps.natural[0] / steps.natural[1] == pytest.approx(100, rel=0.2)
    few = channel_steps(seen(rows[:2]), below=128, above=127)
    assert few.natural[0] / few.natural[1] < 3
    assert headroom(2) > headroom(100) > headroom(100000) == 1.0


@pytest.mark.parametrize("case", networks(), ids=lambda c: c[0])
@pytest.mark.parametrize("chip", CHIPS)
def test_small_networks_keep_their_numbers(case, chip):
    _, net, outputs = case
    found = quality(net.graph(*outputs), chip, net.data(), check=net.data(32, seed=9))
    assert min(found.values()) > 25, found


def test_no_seed_no_choice_changes():
    net = Net(1, 3, 6, 6)
    graph = net.graph(net.conv(net.conv("x", 8, act_lo=0.0), 4))
    plans = [ptq.plan(graph, chip_of("wtm2101"), data={"x": net.data()}, seed=3) for _ in range(2)]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("chip", CHIPS)
def test_a_plan_survives_its_json(chip):
    _, net, outputs = networks()[0]
    plan = ptq.plan(net.graph(*outputs), chip_of(chip), data={"x": net.data()})
    assert plan_from_json(plan_to_json(plan)) == plan


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"values": {"x": {}}, "layers": {}}', '{"values": 3, "layers": {}}'])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(ConfigError, match="plan_to_json"):
        plan_from_json(text)
    assert json.loads("{}") == {}


def test_values_around_an_add_share_a_base():
    _, net, outputs = networks()[1]
    graph = net.graph(*outputs)
    found = bases(graph, calibrate(graph, {"x": net.data()}))
    adds = [n for n in graph.nodes if n.op == "Add"]
    assert {found[v] for n in adds for v in (*n.inputs, n.output)} == {found[adds[0].output]}
    assert all(not absolute for _, absolute in groups(graph))


@pytest.mark.parametrize("bits", [4, 6])
def test_codes_are_no_wider_than_the_rows_take(bits: int) -> None:
    stats = seen(np.random.default_rng(0).normal(size=(400, 10)))
    for spec in (asymmetric(stats, signed=True, bits=bits), symmetric(stats, relu=False, bits=bits)):
        assert spec.bits == bits
    assert power_of_two(stats, base=1.0, signed=True, bits=bits).bits == bits


def test_steps_of_channels_that_are_zero_in_half_of_what_was_seen() -> None:
    """Tails are judged half against half; a half of zeros has no steps of its own."""
    rows = np.zeros((400, 3), np.float32)
    rows[200:] = np.random.default_rng(0).standard_normal((200, 3))
    assert _tails(rows, below=128, above=127) >= 1.0
