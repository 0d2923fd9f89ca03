"""Products on torch tensors: draws, every readout, whole programs, and what a machine without a GPU is told."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insitu.base import random
from insitu.base.errors import UsageError
from insitu.runtime.session import Session
from insitu.sim.backends import check_backend
from insitu.sim.macro import MacroModel
from tests.flow.line import build, captured, inputs_of
from tests.flow.line import chip_of as named_chip
from tests.flow.test_operators import NETS
from tests.sim.gpu_products import (
    ANALOG,
    BENT,
    BOWED,
    PLACE,
    READOUTS,
    UNEVEN,
    assert_near,
    binding_of,
    chip_of,
    codes_of,
    inputs,
    like,
)  # fmt: skip

torch: Any = pytest.importorskip("torch", reason="extra gpu")
from insitu.sim.gpu import draws  # noqa: E402  behind the check for torch
from insitu.sim.gpu.model import TensorModel  # noqa: E402

BACKEND, DEVICE = ("cuda", "cuda") if torch.cuda.is_available() else ("torch", "cpu")
COMPOSED = TensorModel(device=DEVICE)


# draws


@pytest.mark.parametrize("first", [0, 1000, (1 << 32) - 3, (1 << 47) + 1])
def test_words_and_uniforms_are_those_of_the_generator(first: int) -> None:
    blocks = torch.arange(first, first + 17, device=DEVICE)
    found = draws.uniforms(draws.words(42, "read_noise", blocks, **PLACE)).cpu().numpy()
    wanted = random.uniform(42, "read_noise", 4 * 17, offset=4 * first, **PLACE)
    np.testing.assert_array_equal(found.T.reshape(-1), wanted)


@pytest.mark.parametrize("columns", [1, 3, 10, 63, 64, 200])
@pytest.mark.parametrize("first", [0, 7, 255])
def test_normals_of_reads_are_those_of_the_generator(columns: int, first: int) -> None:
    given = (1 << 31, "read_noise", 50, columns)
    found = draws.read_normals(*given, first=first, device=DEVICE, **PLACE).cpu().numpy()
    np.testing.assert_allclose(found, random.read_normals(*given, first=first, **PLACE), rtol=0, atol=1e-13)


# products


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
@pytest.mark.parametrize("name", READOUTS)
def test_ideal_codes_are_the_processors(name: str, dtype: Any) -> None:
    x, binding = inputs(50, dtype), binding_of(name, **({} if name.startswith("wtm2101") else {"zero_in": 7}))
    np.testing.assert_array_equal(codes_of(COMPOSED, binding, x), codes_of(MacroModel(), binding, x))


@pytest.mark.parametrize("rounding", ["half_away", "floor", "trunc_q2"])
def test_other_roundings_are_the_processors(rounding: str) -> None:
    from insitu.isa.program import Post

    binding = binding_of("rounded codes", post=Post(multiplier=3, shift=4, lo=-128, hi=127, rounding=rounding))
    x = inputs(50)
    np.testing.assert_array_equal(codes_of(COMPOSED, binding, x), codes_of(MacroModel(), binding, x))


@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_wide_codes_are_the_processors(kind: Any) -> None:
    x, binding = inputs(50, kind), binding_of("exact")
    np.testing.assert_array_equal(codes_of(COMPOSED, binding, x), codes_of(MacroModel(), binding, x))


def test_negated_rows_are_the_processors() -> None:
    binding = binding_of("rounded codes", drive=(-100, 120), negated=(3, 20), input_shift=1)
    x = inputs(50)
    np.testing.assert_array_equal(codes_of(COMPOSED, binding, x), codes_of(MacroModel(), binding, x))


def assert_physics_near(name: str, *overrides: str, vectors: int = 2000) -> None:
    chip, x, binding = chip_of(name, *overrides), inputs(vectors), binding_of(name)
    found = codes_of(like(COMPOSED, chip, "full"), binding, x)
    assert_near(found, codes_of(like(MacroModel(), chip, "full"), binding, x))
    ideal = codes_of(MacroModel(), binding, x)
    assert np.count_nonzero(found != ideal) > 0.01 * ideal.size  # physics is there


@pytest.mark.parametrize("name", ANALOG)
def test_codes_under_physics_are_near_the_processors(name: str) -> None:
    assert_physics_near(name)


@pytest.mark.parametrize("overrides", [UNEVEN, BENT, BOWED])
def test_noise_by_cell_and_bows_are_near_the_processors(overrides: tuple[str, ...]) -> None:
    assert_physics_near("rounded codes", *overrides)


def test_codes_do_not_depend_on_how_vectors_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    chip, x, binding = chip_of("parts"), inputs(100), binding_of("parts")
    model = like(COMPOSED, chip, "full")
    whole = codes_of(model, binding, x)
    monkeypatch.setattr("insitu.sim.gpu.model.TOGETHER", 40 * 7)
    np.testing.assert_array_equal(codes_of(model, binding, x), whole)
    np.testing.assert_array_equal(codes_of(model, binding, x[60:], first=37 + 60), whole[60:])


# whole programs


@pytest.mark.parametrize("chip", ["exact", "wtm2101", "adc"])
def test_a_network_computes_what_the_processor_does(chip: str) -> None:
    graph = captured(NETS["residual"](np.random.default_rng(0)))
    given = chip_of("adc", "macro.input.bits_per_pass=8") if chip == "adc" else named_chip(chip)
    program, x = build(graph, given)[-1], inputs_of(graph, 30)["x"]
    for physics, agree in (("ideal", np.testing.assert_array_equal), ("full", assert_near)):
        sessions = [Session(program, physics=physics, seed=1, backend=b) for b in (BACKEND, "cpu")]
        found = [s.run_codes(s.codes({"x": x}))["y"] for s in sessions]
        agree(*found)


def test_steps_of_a_stream_are_the_processors() -> None:
    graph = captured(NETS["residual"](np.random.default_rng(0)))
    program, x = build(graph, named_chip("exact"))[-1], inputs_of(graph, 3)["x"]
    found = [Session(program, backend=b).step({"x": x})["y"] for b in (BACKEND, "cpu")]
    np.testing.assert_array_equal(*found)


# names


def test_a_backend_that_is_not_there_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        UsageError, match=r"--backend cuda: PyTorch finds no CUDA device; needs a GPU.*Try: --backend cpu"
    ):
        check_backend("cuda", where="--backend")
    with pytest.raises(UsageError, match=r"backend 'cudo': unknown; needs one of cpu, torch, cuda. Try: cuda"):
        check_backend("cudo")
    monkeypatch.setattr("insitu.sim.backends.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'backend torch: PyTorch is not installed.*pip install "insitu\[gpu\]"'):
        check_backend("torch")


# the fused kernel


@pytest.mark.long
@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton (extra gpu)")
def test_the_fused_kernel_in_the_interpreter() -> None:
    """Its tests need Triton to interpret kernels from its first import on, so they run in a process of their own."""
    tests = Path(__file__).with_name("test_gpu_fused.py")
    given = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-n", "0", str(tests)], env=given, capture_output=True)
    assert done.returncode == 0, done.stdout.decode()[-3000:]
    assert b"skipped" not in done.stdout


class NoDevice:
    """What Triton asks of a driver to compile for a GPU that is not there."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton (extra gpu)")
def test_the_fused_kernel_compiles_for_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every kind of product, with the arguments of a launch, down to machine code; and no kernel twice."""
    from triton.runtime import driver

    from insitu.sim.gpu import fused, kernels

    if fused.interpreted(kernels.product) or torch.cuda.is_available():
        pytest.skip("the tests of the fused kernel run it")
    real, made = kernels.product, list[Any]()

    class Compiled:
        """The kernel, compiled where it would be launched."""

        def __getitem__(self, grid: Any) -> Any:
            return lambda *args, **more: made.append(real.warmup(*args, grid=grid, **more))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernels, "product", Compiled())
    monkeypatch.setattr(driver, "_active", NoDevice())
    model = TensorModel(fused=True)
    for name, overrides in (("exact", ()), ("rounded codes", ()), ("wtm2101", ()), ("parts", UNEVEN)):
        codes_of(model, binding_of(name), inputs(20))
        own = like(model, chip_of(name, *overrides), "full")
        for first, sequence in ((0, 0), (1, 1), (16, 48)):
            codes_of(own, binding_of(name), inputs(20), first=first, sequence=sequence)
    assert all("cubin" in kernel.asm for kernel in made)
    assert len({kernel.hash for kernel in made}) < len(made) / 2
