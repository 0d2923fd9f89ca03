"""Shapes without weights: closed forms against compiled programs and published counts."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.base.errors import ModelError
from insitu.bench.llm_tokens import random_model
from insitu.cli.main import main
from insitu.compiler.pipeline import compile_graph
from insitu.flow.shape import ShapeOptions, run_shape
from insitu.llm.build import prepare
from insitu.llm.on_chips import OnChips, batch_rate, token
from insitu.llm.shapes import load_shape, shapes
from insitu.sim.energy import energy
from insitu.sim.timing import simulate_time

PUBLISHED = {n: s.published for n, s in shapes().items() if s.published}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_as_published(name: str) -> None:
    assert shapes()[name].parameters == pytest.approx(PUBLISHED[name], rel=0.007)


def test_caches_and_products() -> None:
    """Known values: 2 x layers x kv heads x head size; weights but for tables and norms; 576 latents a layer."""
    assert shapes()["llama-3-70b"].cached_elements == 2 * 80 * 8 * 128
    assert shapes()["llama-3-70b"].macs_per_token == 69_501_714_432
    assert shapes()["deepseek-v3"].cached_elements == 61 * 576
    assert shapes()["deepseek-v3"].macs_per_token == pytest.approx(36_624_596_992, rel=1e-9)
    assert shapes()["mixtral-8x7b"].macs_per_token == 12_748_587_008


def test_few_tokens_fire_few_experts() -> None:
    shape = shapes()["mixtral-8x7b"]
    assert shape.fired_share(1) == pytest.approx(shape.product_weights / shape.stored_weights, rel=1e-9)
    assert shape.fired_share(1000) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("keys", [32, 128])
def test_a_token_costs_what_its_program_does(keys: int) -> None:
    """Products are equal; bytes, time and energy of a step near, with the one core that the compiler uses."""
    given = ["core.vector.luts=32", "capabilities.wload=false"]  # all tables have places, attention stays on the lanes
    chip = load_chip("dcim-28nm", overrides=given)
    ready = prepare(random_model(), chip, np.random.default_rng(0).integers(0, 512, (4, 16)))
    program = compile_graph(ready.step(keys), chip)
    timing = simulate_time(program, chip)
    spent, total = energy(timing.counts, timing, chip), timing.counts.total
    one = token(OnChips(shapes()["stories260k"], chip, cores=1), keys=keys)
    assert one.counts["array_macs"] == total["array_macs"]
    assert one.counts["mma_macs"] == total["mma_macs"]
    work = one.counts["vector_operations"] + one.counts["mma_macs"]
    assert work == pytest.approx(total["vector_operations"], rel=0.03)
    moved = one.counts["moved_bytes"] + one.counts["cache_bytes"]
    assert moved == pytest.approx(total["ram_read_bytes"] + total["ram_write_bytes"], rel=0.1)
    assert one.latency == pytest.approx(timing.latency, rel=0.2)
    assert one.energy == pytest.approx(spent.metrics()["energy_j"].value, rel=0.2)


def test_weights_and_products_are_conserved() -> None:
    for bits in (4, 8):
        for name in ("llama-3-8b", "mixtral-8x7b", "llama-3-405b"):
            on = OnChips(shapes()[name], load_chip("aim-gddr6"), weight_bits=bits)
            one = token(on, keys=100)
            assert one.counts["weight_bytes"] == shapes()[name].stored_weights * bits / 8
            assert one.counts["array_macs"] == shapes()[name].product_weights
            assert on.count * on.fits_per_chip >= shapes()[name].stored_weights
            assert one.counts["streamed_bytes"] == 0


def test_what_does_not_fit_is_streamed() -> None:
    chip = load_chip("dcim-28nm")
    on = OnChips(shapes()["llama-3-8b"], chip, limit=8)
    one = token(on, keys=10)
    assert one.counts["streamed_bytes"] == shapes()["llama-3-8b"].stored_weights - 8 * chip.capacity
    assert one.seconds["stream"] == pytest.approx(one.counts["streamed_bytes"] / (8 * chip.store_bandwidth))


def test_a_batch_gives_more_and_costs_no_more() -> None:
    on = OnChips(shapes()["llama-3-8b"], load_chip("aim-gddr6"))
    points = [batch_rate(on, keys=512, batch=b) for b in (1, 2, 8, 64)]
    assert all(b[0] >= a[0] for a, b in pairwise(points))
    assert all(b[1] <= a[1] * (1 + 1e-9) for a, b in pairwise(points))
    assert points[0][0] == pytest.approx(1 / token(on, keys=512).latency)


def test_a_run_shows_where_time_goes_beside_a_gpu() -> None:
    found = run_shape("llama-3-70b", shapes()["llama-3-70b"], load_chip("aim-gddr6"), ShapeOptions(weight_bits=4))
    value = found.result.metrics["tokens_per_s_per_sequence"].value
    assert value is not None
    assert sum(found.seconds.values()) == pytest.approx(1 / value)
    assert found.beside[0].batch == 1
    assert len(found.beside) == 2
    assert found.beside[1].tokens_per_s > found.beside[0].tokens_per_s


def test_infeasible_and_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "shape:llama-3-70b", "--chip", "aim-gddr6", "--max-chips", "4", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["infeasible"][0]["resource"] == "weights"
    with pytest.raises(ModelError, match="shape:llama-3-70b"):
        load_shape("shape:llama-3-70")
