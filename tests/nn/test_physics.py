"""Noise-aware training: the simulator's functions with gradients, and errors as large as the simulator's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import insitu
from insitu.arch.load import load_chip
from insitu.circuit.effects import Physics
from insitu.circuit.tile import cell_normals, drawn_cells, tile_cells
from insitu.compiler.quantize_layers import sliced_codes
from insitu.device.cell import load_cell

torch: Any = pytest.importorskip("torch", reason="extra torch")
pytest.importorskip("onnxscript", reason="extra torch")

from insitu.flow.physics import instance_session  # noqa: E402  behind the check for torch
from insitu.nn import Config, convert  # noqa: E402
from insitu.nn.physics import sliced  # noqa: E402
from tests.flow.line import BARE  # noqa: E402

WHOLE = ["array.bits_per_cell=8", "macro.weights.slices=1", "macro.input.bits_per_pass=8"]  # one cell, one pass
CELLS = ("pcm-hermes", "pcm-hermes ahead", "pcm-nandakumar", "reram-wan", "reram-cmo", "reram-1t1r-2b", "nor-flash-8b")
ENCODINGS = ("signed_cell", "differential_pair", "offset_column")


def chip(cell: str, encoding: str = "differential_pair") -> Any:
    name, _, ahead = cell.partition(" ")
    bits = min(load_cell(name).bits, 8)
    top = 1 if encoding == "offset_column" else (1 << bits) - 1
    return load_chip(
        "parametric-reram-adc8",
        overrides=[f"cell={name}", f"calibration.drift_ahead={30 if ahead else 0}d",
                   f"array.bits_per_cell={bits}", "macro.weights.slices=1",
                   "macro.input.bits_per_pass=8", f"macro.weights.encoding={encoding}",
                   f"array.cell_range=[{-top}, {top}]", "calibration.drift_compensation=true"],
    )  # fmt: skip


@pytest.mark.parametrize("closer", [(), ("macro.weights.slice_shift=0",)])
def test_tensors_are_sliced_as_arrays_are(closer: tuple[str, ...]) -> None:
    given = load_chip("parametric-reram-adc8", overrides=closer)
    limit = given.array.cell_range[1]
    q = np.arange(-limit, limit + 1)[:, None]
    theirs = sliced_codes(q, given)
    for (a, mine, _), (b, digits) in zip(sliced(given, torch.from_numpy(q).float()), theirs, strict=True):
        assert a == b
        np.testing.assert_array_equal(mine.numpy(), digits)


def codes(bits: int, *shape: int) -> Any:
    """Weight codes of one slice, neither 0 nor full scale, where laws have corners."""
    rng, top = np.random.default_rng(3), (1 << bits) - 1
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.3 * top, 0.8 * top, shape)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tensors_hold_what_arrays_hold(cell: str, encoding: str) -> None:
    given = chip(cell, encoding)
    w = codes(given.array.bits_per_cell, 12, 7)
    physics = Physics.parse("full", given, time=3600.0)
    place: dict[str, Any] = {"seed": 5, "instance": 2, "macro": 1, "y0": 0, "x0": 0}
    mine = tile_cells(w, chip=given, physics=physics, **place)

    def drawn(reference: bool) -> Any:
        def draw(effect: str, plane: int) -> Any:
            own = cell_normals(w.shape, chip=given, effect=effect, plane=plane, **place)
            if reference:
                beside = cell_normals((len(w), 1), chip=given, effect=effect, plane=plane + 1, **place)
                own = np.hstack([own, beside])
            return torch.from_numpy(own)

        return draw

    theirs = drawn_cells(torch.from_numpy(w), drawn, chip=given, physics=physics)
    np.testing.assert_allclose(theirs.weights.numpy(), mine.weights, rtol=1e-9, atol=1e-9)
    assert (theirs.variance is None) == (mine.variance is None)
    if mine.variance is not None:
        np.testing.assert_allclose(theirs.variance.numpy(), mine.variance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_through_cells_are_right(cell: str) -> None:
    given = chip(cell)
    physics = Physics.parse("full", given, time=86400.0)
    w = torch.from_numpy(codes(given.array.bits_per_cell, 4, 3)).requires_grad_()
    normals = {p: torch.from_numpy(np.random.default_rng(p).standard_normal((4, 3))) * 0.3 for p in range(4)}

    def held(weights: Any) -> Any:
        return drawn_cells(weights, lambda _: lambda effect, plane: normals[plane], chip=given, physics=physics).weights

    assert torch.autograd.gradcheck(held, (w,), eps=1e-4, atol=1e-4)


@pytest.mark.slow
def test_rounding_passes_gradients_straight_through() -> None:
    """Where nothing clips, gradients are those of the layer on the rounded inputs and weights."""
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Linear(12, 5)), torch.randn(40, 12)
    made = convert(model, "dcim-28nm", config=Config(data=x))
    inner = x[:20].clone().requires_grad_()
    out = made(inner * 0.5)
    out.sum().backward()
    setting = made.insitu.shared.settings["0.weight"]
    real = torch.round(made[0].weight / setting.step).clamp(setting.lo, setting.hi) * setting.step
    torch.testing.assert_close(inner.grad, (0.5 * real.sum(0)).expand(20, -1).detach())
    rounded = setting.x.rounded(x[:20] * 0.5)
    torch.testing.assert_close(made[0].weight.grad, rounded.sum(0).expand(5, -1))


@pytest.mark.parametrize("overrides", [(), ("calibration.spare_rows=false",), ("macro.readout.bits=6",)])
def test_one_conversion_an_output_is_in_training_what_it_is_on_the_chip(overrides: tuple[str, ...]) -> None:
    """Its rounding and its clipping, code for code; a bias joins behind it."""
    torch.manual_seed(0)
    nn, x = torch.nn, torch.randn(64, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 10, 3))
    made = convert(model.eval(), load_chip("parametric-pcm-adc8", overrides=overrides), config=Config(data=x[:16]))
    assert all(made.insitu.shared.settings[f"{i}.weight"].converter is not None for i in (0, 3))
    exact = made.eval()(3.0 * x)  # beyond what the range was chosen for
    made.train()[1].eval()
    torch.testing.assert_close(made(3.0 * x), exact)
    parts = convert(nn.Sequential(nn.Linear(600, 8)), made.insitu.chip, config=Config(data=torch.randn(64, 600)))
    assert parts.insitu.shared.settings["0.weight"].converter is None  # several conversions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides", "time"),
    [("wtm2101", [], "0s"), ("parametric-reram-adc8", ["cell=pcm-hermes", *WHOLE, *BARE], "1d"),
     ("parametric-reram-adc8", ["cell=reram-wan", "array.rows=150", *BARE], "1d"),
     ("parametric-reram-adc8", ["cell=reram-wan", "array.rows=1300", "calibration.column_drift=false"], "1d"),
     ("parametric-reram-adc8", ["array.rows=400"], "1d"), ("parametric-pcm-adc8", ["array.rows=400"], "1y")],
)  # fmt: skip
def test_training_errs_as_much_as_the_simulator(name: str, overrides: list[str], time: str) -> None:
    given = load_chip(name, overrides=overrides)
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Linear(300, 40)), torch.randn(64, 300)
    x = x.relu() if given.calibration.column_drift else x  # sparse inputs, most planes of which are empty
    made = convert(model, given, config=Config(data=x, physics="full", time=time))
    exact = made.eval()(x)
    made.train()
    with torch.no_grad():
        trained = torch.stack([made(x) - exact for _ in range(8)])
    found = insitu.deploy(made, given, data={"x": x.numpy()}, instances=1)
    assert found.session is not None
    effects = Physics.parse("full", given).after(made.insitu.times[0])
    rows: list[Any] = []
    for instance in range(8):
        session = instance_session(found.session, effects, instance=instance, seed=0)
        (y,) = session.run(x[:, None].numpy()).values()
        rows.append(torch.from_numpy(y[:, 0].astype(np.float32)) - exact)
    simulated = torch.stack(rows)
    assert made.insitu.shared.settings["0.weight"].rows_times == (
        given.array.rows // 300 if given.calibration.spare_rows else 1
    )
    assert float(trained.std() / simulated.std()) == pytest.approx(1.0, abs=0.08)
    gain = [float((e.mean(0) * exact).mean() / exact.square().mean()) for e in (trained, simulated)]
    assert gain[0] == pytest.approx(gain[1], abs=0.02)
