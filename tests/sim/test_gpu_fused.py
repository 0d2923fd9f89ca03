"""The Triton kernel against the processor's: run with TRITON_INTERPRET=1, or on a GPU."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from insitu.base import random
from insitu.base.random import effect_key, rows_together
from insitu.bench.layer import bench_chip, layer
from insitu.bench.mvm_gpu import layer_of
from insitu.runtime.session import Session, machine_of
from insitu.sim.macro import MacroModel
from tests.flow.line import build, captured, inputs_of
from tests.flow.line import chip_of as named_chip
from tests.flow.test_operators import NETS
from tests.sim.gpu_products import (
    ANALOG,
    BENT,
    PLACE,
    READOUTS,
    UNEVEN,
    assert_near,
    binding_of,
    chip_of,
    codes_of,
    inputs,
    like,
    matrix_of,
)  # fmt: skip

torch: Any = pytest.importorskip("torch", reason="extra gpu")
pytest.importorskip("triton", reason="extra gpu")
GPU = torch.cuda.is_available()
if not GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU or TRITON_INTERPRET=1", allow_module_level=True)

import triton  # noqa: E402  behind the checks
import triton.language as tl  # noqa: E402

from insitu.sim.gpu import fused, kernels  # noqa: E402
from insitu.sim.gpu.model import TensorModel  # noqa: E402

BACKEND, DEVICE = ("cuda", "cuda") if GPU else ("torch", "cpu")
FUSED = TensorModel(device=DEVICE, fused=True)
COUNT = tl.constexpr(64)


@triton.jit(do_not_specialize=["first", "columns", "together", "time", "name", "instance", "seed", "effect"])
def draw_reads(out, first, columns, together, time, name, instance, seed, effect):
    """Normals of 64 vectors and columns."""
    v, c = tl.arange(0, COUNT).to(tl.int64), tl.arange(0, COUNT).to(tl.int64)
    place, column = (v + first)[:, None], c[None, :]
    drawn = kernels.read_normals(place, column, columns, together, time, name, instance, seed, effect)
    tl.store(out + v[:, None] * COUNT + column, drawn)


@triton.jit
def draw_words(words, out, count: tl.constexpr):
    """Words (4, count) of counters (4, count), key 42 and that of 'read_noise'."""
    i = tl.arange(0, count)
    c0, c1, c2, c3 = (tl.load(words + n * count + i).to(tl.uint32) for n in tl.static_range(4))
    w0, w1, w2, w3 = kernels.philox(c0, c1, c2, c3, (c0 & 0) + 42, c0 & 0)
    tl.store(out + i, w0)
    tl.store(out + count + i, w1)
    tl.store(out + 2 * count + i, w2)
    tl.store(out + 3 * count + i, w3)


def test_words_are_those_of_the_generator() -> None:
    counters = np.random.default_rng(0).integers(0, 1 << 32, (4, 256))
    out = torch.zeros(4, 256, dtype=torch.int64, device=DEVICE)
    draw_words[(1,)](torch.from_numpy(counters).to(DEVICE), out, 256)
    np.testing.assert_array_equal(out.cpu().numpy(), random.philox(counters.astype(np.uint32), (42, 0)))


@pytest.mark.parametrize("columns", [3, 10, 64])
@pytest.mark.parametrize("first", [0, 7, 1 << 36])
def test_normals_of_reads_are_those_of_the_generator(columns: int, first: int) -> None:
    out = torch.zeros(64, 64, dtype=torch.float32, device=DEVICE)
    place = (PLACE["time"], PLACE["macro"], PLACE["instance"], 1 << 31, effect_key("read_noise"))
    draw_reads[(1,)](out, first, columns, rows_together(columns), *place)
    wanted = random.read_normals(1 << 31, "read_noise", 64, columns, first=first, **PLACE)
    assert np.abs(out.cpu().numpy()[:, :columns] - wanted).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("name", READOUTS)
def test_ideal_codes_are_the_processors(name: str, dtype: Any) -> None:
    x, binding = inputs(50, dtype), binding_of(name, **({} if name.startswith("wtm2101") else {"zero_in": 7}))
    assert matrix_of(FUSED, binding, x.dtype).launches
    np.testing.assert_array_equal(codes_of(FUSED, binding, x), codes_of(MacroModel(), binding, x))


def test_negated_rows_and_other_roundings_are_the_processors() -> None:
    from insitu.isa.program import Post

    post = Post(multiplier=3, shift=4, lo=-128, hi=127, rounding="floor")
    binding = binding_of("rounded codes", drive=(-100, 120), negated=(3, 20), input_shift=1, post=post)
    x = inputs(50)
    np.testing.assert_array_equal(codes_of(FUSED, binding, x), codes_of(MacroModel(), binding, x))


def assert_physics_near(name: str, *overrides: str, vectors: int = 1000) -> None:
    chip, x, binding = chip_of(name, *overrides), inputs(vectors), binding_of(name)
    model = like(FUSED, chip, "full")
    assert matrix_of(model, binding, x.dtype).launches
    assert_near(codes_of(model, binding, x), codes_of(like(MacroModel(), chip, "full"), binding, x))


@pytest.mark.parametrize("name", ANALOG)
def test_codes_under_physics_are_near_the_processors(name: str) -> None:
    assert_physics_near(name)


def test_noise_by_cell_is_near_the_processors() -> None:
    assert_physics_near("parts", *UNEVEN, vectors=8000)  # of 80,000 codes 3 differ: too few for a tenth as many


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks as a GPU has them, smaller than rows, vectors and columns."""
    chip, x, binding = chip_of("parts"), inputs(70), binding_of("parts")
    whole = codes_of(like(FUSED, chip, "full"), binding, x)
    monkeypatch.setattr(fused, "WIDE", (32, 16, 16))
    np.testing.assert_array_equal(codes_of(like(FUSED, chip, "full"), binding, x), whole)


def test_bows_go_through_torchs_operations() -> None:
    chip, x, binding = chip_of("rounded codes", *BENT), inputs(50), binding_of("rounded codes")
    model = like(FUSED, chip, "full")
    assert not matrix_of(model, binding, x.dtype).launches
    assert_near(codes_of(model, binding, x), codes_of(like(MacroModel(), chip, "full"), binding, x))


@pytest.mark.parametrize("chip", ["wtm2101", "adc"])
def test_a_network_computes_what_the_processor_does(chip: str) -> None:
    graph = captured(NETS["residual"](np.random.default_rng(0)))
    given = chip_of("adc", "macro.input.bits_per_pass=8") if chip == "adc" else named_chip(chip)
    program, x = build(graph, given)[-1], inputs_of(graph, 1)["x"]
    for physics, agree in (("ideal", np.testing.assert_array_equal), ("full", assert_near)):
        sessions = [Session(program, physics=physics, seed=1, backend=b) for b in (BACKEND, "cpu")]
        found = [s.run_codes(s.codes({"x": x}))["y"] for s in sessions]
        agree(*found)
        assert any(m.launches for m in machine_of(sessions[0]).matrices.values())


def test_the_benchmarks_layer_is_the_processors() -> None:
    w = (np.random.default_rng(0).standard_normal((64, 32)) / 8).astype(np.float32)
    x, out = np.random.default_rng(1).standard_normal((100, 64)).astype(np.float32), np.empty((100, 32), np.float32)
    ours, theirs = (layer(w, bench_chip(), physics="full", inputs=x[:16], backend=b) for b in (BACKEND, "cpu"))
    theirs(x, out)
    step = theirs.target.scale[0]
    found = layer_of(ours, torch.from_numpy(x).to(DEVICE)).cpu().numpy()
    assert_near(np.round(found / step), np.round(out / step))
