from __future__ import annotations

import numpy as np
import pytest

from insitu.device.cell import CellSpec, Programming, load_cell
from insitu.device.noise import read_variance
from insitu.device.programming import program, programming_sd


def cell(**given: object) -> CellSpec:
    base = {"name": "test", "kind": "reram", "bits": 4, "nonvolatile": True, "area_f2": 4.0}
    return CellSpec.model_validate({**base, **given})


def test_a_digital_cell_holds_exactly_what_it_was_given() -> None:
    value = np.arange(-3.0, 4.0)
    assert np.array_equal(program(value, np.ones(7), load_cell("sram-6t-digital")), value)


def test_refine_passes_shrink_the_error_to_its_floor() -> None:
    spec = load_cell("nor-flash-8b")
    sd = [float(programming_sd(np.float64(100.0), spec, refine_passes=n)) for n in (0, 1, 2, 20)]
    assert sd == sorted(sd, reverse=True)
    assert sd[0] == pytest.approx(np.hypot(0.0118, 0.0035) * 255)
    assert sd[1] == pytest.approx(np.hypot(0.0118 * 0.4, 0.0035) * 255)
    assert sd[3] == pytest.approx(0.0035 * 255, rel=1e-6)


def test_the_polynomial_of_wan_2022_at_a_quarter_and_full_scale() -> None:
    """0.348 + 16.030 r - 43.853 r^2 + 45.393 r^3 - 16.815 r^4 microsiemens, g_max 40."""
    spec = load_cell("reram-1t1r-2b")
    for r in (1 / 40, 0.25, 0.5, 1.0):
        microsiemens = 0.348 + 16.030 * r - 43.853 * r**2 + 45.393 * r**3 - 16.815 * r**4
        value = (r * 40 - 1) / 39 * 3  # the level that has this conductance
        assert float(programming_sd(np.float64(value), spec)) == pytest.approx(microsiemens / 39 * 3, rel=1e-3)


def test_the_sd_depends_on_magnitude_only_and_is_never_negative() -> None:
    spec = cell(programming={"sd": (-0.01, 0.05)})
    value = np.array([-15.0, 15.0, 0.0])
    sd = programming_sd(value, spec)
    assert sd[0] == sd[1] == pytest.approx(0.04 * 15)
    assert sd[2] == 0.0


def test_drawn_errors_have_the_stated_sd() -> None:
    spec = cell(programming=Programming(sd=(0.02,)).model_dump())
    rng = np.random.default_rng(0)
    held = program(np.full(40_000, 7.0), rng.standard_normal(40_000), spec)
    assert held.mean() == pytest.approx(7.0, abs=0.01)
    assert held.std() == pytest.approx(0.02 * 15, rel=0.02)


def test_read_variance_is_the_variance_of_independent_cells() -> None:
    spec = cell(read_sd=0.01)
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, 64).astype(float)
    noise = rng.standard_normal((20_000, 64)) * 0.01 * 15
    assert float(read_variance((x**2).sum(), spec)) == pytest.approx((noise @ x).var(), rel=0.03)
    assert float(read_variance(1.0, spec, cells=2)) == pytest.approx(2 * float(read_variance(1.0, spec)))
