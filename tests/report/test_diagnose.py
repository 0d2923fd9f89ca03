"""The rule that names the layer which broke a network, on small networks quantized for real."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from insitu.report.diagnose import best_change, broken_layer, broken_text
from insitu.report.result import LayerResult

SEEDS = range(3)
KINDS = ("plain", "depthwise", "residual", "tiny")


@dataclass(frozen=True)
class Step:
    name: str
    op: str
    sources: tuple[int, ...]  # indices of values; 0 is the input, i + 1 the output of step i
    weight: np.ndarray | None = None
    relu: bool = True


def network(kind, seed):
    rng = np.random.default_rng(seed)
    width, steps = 48, []
    for i in range({"plain": 8, "depthwise": 12, "residual": 12, "tiny": 3}[kind]):
        last = i + 1 == {"plain": 8, "depthwise": 12, "residual": 12, "tiny": 3}[kind]
        if kind == "depthwise" and i % 2 == 0 and i:
            spread = np.diag(np.exp(rng.normal(0, 1.5, width)) * rng.choice([-1, 1], width))  # unequal channels
            steps.append(Step(f"block{i}/depthwise", "Conv", (i,), spread))
        elif kind == "residual" and i % 3 == 2:
            steps.append(Step(f"add{i}", "Add", (i, i - 2)))
        else:
            weight = rng.normal(0, 1 / math.sqrt(width), (width, 10 if last else width))
            steps.append(Step(f"layer{i}", "Gemm", (i,), weight, relu=not last))
    return steps, rng.normal(0, 1, (200, width))


def apply(step, inputs, weight):
    out = inputs[0] @ weight if step.weight is not None else inputs[0] + inputs[1]
    return np.maximum(out, 0) if step.relu else out


def weights8(step, per_tensor):
    if step.weight is None:
        return None
    scale = np.abs(step.weight).max(axis=None if per_tensor else 0, keepdims=True) / 127
    return np.rint(step.weight / scale) * scale


def codes(x, scale):
    return np.clip(np.rint(x / scale), -128, 127) * scale


def decibels(r, y):
    noise = ((r - y) ** 2).sum()
    return math.inf if noise == 0 else 10 * math.log10((r**2).sum() / noise)


def measured(kind, seed, *, broken=None, factor=1.0, power_of_two=False):
    """The `layers` of a network with 8-bit codes; the output scale of step `broken` is off by `factor`."""
    steps, x = network(kind, seed)
    reference, run = [x], []
    for step in steps:
        reference.append(apply(step, [reference[i] for i in step.sources], step.weight))
    scales = [np.abs(value).max() / 127 for value in reference]
    if power_of_two:
        scales = [2.0 ** math.ceil(math.log2(scale)) for scale in scales]
    if broken is not None:
        scales[broken + 1] *= factor
    run, layers = [codes(x, scales[0])], []
    for i, step in enumerate(steps):
        weight = weights8(step, per_tensor="depthwise" in step.name)
        run.append(codes(apply(step, [run[j] for j in step.sources], weight), scales[i + 1]))
        fed = [codes(reference[j], scales[j]) for j in step.sources]
        alone = codes(apply(step, fed, weight), scales[i + 1])
        row = LayerResult(step.name, step.op, sqnr_db=decibels(reference[i + 1], run[-1]))
        layers.append(replace(row, sqnr_local_db=decibels(reference[i + 1], alone)))
    return layers


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_healthy_network_has_no_broken_layer(kind, seed, power_of_two):
    layers = measured(kind, seed, power_of_two=power_of_two)
    assert broken_layer(layers) is None
    assert broken_layer([replace(layer, sqnr_local_db=None) for layer in layers]) is None


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("factor", [64.0, 1 / 64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_layer_with_the_wrong_scale_is_named(kind, seed, factor, power_of_two):
    steps, _ = network(kind, seed)
    for i, step in enumerate(steps):
        layers = measured(kind, seed, broken=i, factor=factor, power_of_two=power_of_two)
        shown = [(layer.name, layer.sqnr_local_db, layer.sqnr_db) for layer in layers]
        assert broken_layer(layers) == step.name, shown


def rows(*local, cumulative=None):
    both = zip(local, cumulative or local, strict=True)
    return [LayerResult(f"l{i}", "Conv", sqnr_db=c, sqnr_local_db=v) for i, (v, c) in enumerate(both)]


def test_depthwise_layers_at_15_db_are_healthy():
    assert broken_layer(rows(34, 16, 33, 15, 31, 18, 30, 15.5, 36)) is None


def test_an_evenly_poor_network_has_no_single_culprit():
    assert broken_layer(rows(6, 7, 8, 6.5, 7, 6)) is None


def test_the_first_of_a_run_of_collapsed_layers_is_named():
    assert broken_layer(rows(35, 33, 7.5, -1.0, 34, 33, 36, 35)) == "l2"


def test_a_weak_layer_is_not_taken_for_the_broken_one():
    assert broken_layer(rows(35, 9.0, 33, 34, 0.4, 1.0, 33, 35, 36)) == "l4"


def test_without_local_values_the_fall_of_the_cumulative_ones_counts():
    layers = rows(*[None] * 6, cumulative=(33, 28, 1.5, 1.2, 1.4, 0.9))
    assert broken_layer(layers) == "l2"


def test_unknown_values_name_nobody():
    assert broken_layer([]) is None
    assert broken_layer(rows(math.nan, None, math.nan)) is None
    assert broken_layer(rows(math.inf, 35, math.nan, -math.inf, 33)) is None


def test_the_sentence_names_the_layer_and_the_gap(broken):
    text = broken_text(broken)
    assert text is not None
    assert "block2/pointwise" in text
    assert "1.3 dB" in text
    assert "31 dB" in text
    assert best_change(broken) == "repair the output scale of layer block2/pointwise"


def test_the_best_change_is_worth_what_it_says(keyword):
    assert best_change(keyword) == "half the energy of the ADCs (57.9 % of all) saves 29.0 %"
    timed = replace(keyword, metrics={})
    assert best_change(timed) == "layer conv1 takes 24.8 % of the layers' time: twice as fast there saves 12.4 %"
    assert best_change(replace(timed, layers=())) is None
    assert best_change(replace(keyword, extra={"best_change": "buy two"})) == "buy two"
