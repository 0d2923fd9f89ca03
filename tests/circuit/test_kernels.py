"""The fused readout equals the composed one: signal, noise from the stream, readout, shift and add."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from insitu.base.random import effect_key, read_normals
from insitu.circuit.kernels import ADC, WTM2101, convert
from insitu.circuit.macro import read_codes
from insitu.isa.program import Readout

PLACE = {"time": 11, "macro": 2, "instance": 1}


def case(vectors: int, columns: int, *, wide: bool, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    step = rng.uniform(20, 60, columns).astype(np.float32)
    return {
        "acc": (rng.standard_normal((vectors, columns)) * 1500).astype(np.float32),
        "squares": rng.uniform(50, 200, (vectors, columns if wide else 1)).astype(np.float32),
        "gain": rng.uniform(0.9, 1.1, columns).astype(np.float32),
        "offset": rng.standard_normal(columns).astype(np.float32),
        "step": step,
        "floor": rng.uniform(0, 400, columns).astype(np.float32),
    }


def fused(c: dict[str, Any], *, first: int = 0, slope: float = 3.0, kind: int = ADC, up: int = 0) -> Any:
    total = np.zeros(c["acc"].shape, np.int32)
    stream = np.array([first, 11, 2, 1, 42, effect_key("read_noise")], np.int64)
    inverse = (1 / c["step"]).astype(np.float32)
    floor = c["floor"] if slope else 0 * c["floor"]
    scale = (c["gain"] * inverse).astype(np.float32)
    convert(
        c["acc"],
        c["squares"],
        scale,
        c["offset"],
        inverse,
        np.float32(slope),
        floor,
        stream,
        kind,
        -128,
        127,
        up,
        total,
    )
    return total


def composed(c: dict[str, Any], *, first: int = 0, slope: float = 3.0, kind: int = ADC) -> Any:
    vectors, columns = c["acc"].shape
    z = read_normals(42, "read_noise", vectors, columns, first=first, **PLACE)
    floor = c["floor"] if slope else 0 * c["floor"]
    noise = np.sqrt(slope * c["squares"].astype(np.float64) + floor) * z
    args = {"column_gain": c["gain"].astype(np.float64), "column_offset": c["offset"], "read_noise": noise}
    acc, step = c["acc"].astype(np.float64), c["step"].astype(np.float64)
    if kind == ADC:
        return read_codes(acc, Readout(kind="adc", bits=8, signed=True), multiplier=1 / step, **args)
    return read_codes(acc, Readout(kind="wtm2101"), gain=step, **args)


@pytest.mark.parametrize("kind", [ADC, WTM2101])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("columns", [1, 7, 16, 64, 100, 512, 700])
def test_codes_equal_the_composed_physics(columns: int, wide: bool, kind: int) -> None:
    c = case(4000 // columns + 3, columns, wide=wide)
    got, wanted = fused(c, kind=kind), composed(c, kind=kind)
    assert np.abs(got - wanted).max() <= 1
    assert np.count_nonzero(got != wanted) <= max(1, 1e-4 * got.size)


@pytest.mark.parametrize("columns", [5, 64, 600])
def test_without_noise_nothing_is_drawn(columns: int) -> None:
    c = case(50, columns, wide=False)
    got, wanted = fused(c, slope=0.0), composed(c, slope=0.0)
    assert np.count_nonzero(got != wanted) <= max(1, 1e-4 * got.size)
    assert np.count_nonzero(got != fused(c, slope=0.0, first=9)) == 0


@pytest.mark.parametrize("columns", [1, 13, 64, 130, 1100])
def test_bytes_do_not_depend_on_how_vectors_are_cut(columns: int) -> None:
    c = case(90, columns, wide=False)
    whole = fused(c, first=1000)
    for begin, end in ((0, 1), (1, 40), (40, 90)):
        part = {k: v[begin:end] if k in ("acc", "squares") else v for k, v in c.items()}
        np.testing.assert_array_equal(fused(part, first=1000 + begin), whole[begin:end])


def test_codes_are_shifted_and_added() -> None:
    c = case(9, 20, wide=False)
    total = np.full((9, 20), 5, np.int32)
    inverse = (1 / c["step"]).astype(np.float32)
    stream = np.array([0, 11, 2, 1, 42, effect_key("read_noise")], np.int64)
    convert(
        c["acc"], c["squares"], (c["gain"] * inverse).astype(np.float32), c["offset"], inverse, np.float32(3.0),
        c["floor"], stream, ADC, -128, 127, 3, total,
    )  # fmt: skip
    np.testing.assert_array_equal(total, 5 + 8 * fused(c))
