"""Print what the acceptance points of the physics look at, as one JSON object.

    python tools/acceptance_physics.py [wtm2101] [devices] [exact]

wtm2101: eight 256x256 layers at G = 1024 against the vendor log's figures, and one of them at other G.
devices: largest relative error of mean and spread over 1e5 devices against the published formulas, by law and time.
exact: largest relative error of the deterministic cases against independent solutions.
The first two are drawn anew for each of five seeds: `*_by_seed` says how many figures of each miss their bar.
Each group has `*_outside`: how many of its figures miss their bar; 0 is good.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from insitu.arch.load import load_chip
from insitu.base import random
from insitu.base.units import YEAR
from insitu.circuit.anchor import LayerError, layer_error, vendor_layer
from insitu.circuit.effects import Physics
from insitu.circuit.tile import tile_cells
from insitu.circuit.wires import Wires, approximate, solve, transfer
from insitu.device.laws import LAWS
from insitu.numeric.readout import adc_code
from insitu.numeric.slicing import input_planes, slice_weights

N, TIMES = 100_000, (0.0, 3600.0, 86400.0, YEAR)
SEEDS, LAYERS = (1, 2, 3, 4, 5), 8
BANDS = {
    "rms": (1.2, 1.6), "rms_without_offset": (0.67, 0.80), "offset_sd": (0.95, 1.4), "gain": (0.985, 1.005),
    "cosine": (0.95, 0.986), "cosine_without_offset": (0.984, 0.994),
}  # fmt: skip


def _layer(index: int, gain: int, *overrides: str, seed: int) -> LayerError:
    """One layer of one seed: other weights, other inputs and another chip."""
    chip = load_chip("wtm2101", overrides=["calibration.column_offset=false", *overrides])
    weights, x, (y0, x0) = vendor_layer(index + LAYERS * seed)
    physics = Physics.parse("full", chip)
    return layer_error(weights, x, chip=chip, physics=physics, gain=gain, seed=seed, instance=index, y0=y0, x0=x0)


def wtm2101() -> dict[str, Any]:
    """Figures of 8 layers of each seed; a gain of 0.99-1.00 in two digits is 0.985 to 1.005."""
    refined = {seed: [_layer(i, 1024, seed=seed) for i in range(LAYERS)] for seed in SEEDS}
    unrefined = "calibration.refine_passes=0"
    before = {seed: [_layer(i, 1024, unrefined, seed=seed) for i in range(LAYERS)] for seed in SEEDS}
    outside = {seed: _outside(refined[seed], before[seed]) for seed in SEEDS}
    after, raw = ([layer for layers in found.values() for layer in layers] for found in (refined, before))
    others = [_layer(0, g, seed=SEEDS[0]) for g in (256, 512, 1024, 2048, 4096, 8192)]
    return {
        "wtm_layers": {name: _span(after, name) for name in BANDS},
        "wtm_gain_before": _span(raw, "gain"),
        "wtm_rms_ratio_before": round(float(np.mean([b.rms for b in raw]) / np.mean([r.rms for r in after])), 3),
        "wtm_by_gain": {str(o.step): {"rms": round(o.rms, 3), "snr_db": round(o.snr_db, 1)} for o in others},
        "wtm_by_seed": outside,
        "wtm_outside": sum(outside.values()),
    }


def _span(layers: list[LayerError], name: str) -> list[float]:
    values = [getattr(layer, name) for layer in layers]
    return [round(min(values), 4), round(max(values), 4)]


def _outside(refined: list[LayerError], before: list[LayerError]) -> int:
    """How many of a seed's figures leave the log's bands; a gain of a layer has an error of measurement, so +- 0.01."""
    spans = {name: _span(refined, name) for name in BANDS}
    outside = sum(not (lo <= spans[n][0] and spans[n][1] <= hi) for n, (lo, hi) in BANDS.items())
    low, high = _span(before, "gain")
    return outside + (low < 0.87) + (high > 1.05)


def _nandakumar(g: float, t: float) -> tuple[float, float]:
    r = g / 25
    sd = 0.26348 + 1.9650 * r - 1.1731 * r * r
    nu = min(max(-0.0155 * math.log(r) + 0.0244, 0.049), 0.1)
    nu_sd = min(max(-0.0125 * math.log(r) - 0.0059, 0.008), 0.045)
    return _drifted(g, sd, nu, nu_sd, math.log((t + 20) / 20))


def _drifted(g: float, sd: float, nu: float, nu_sd: float, x: float) -> tuple[float, float]:
    """Mean and spread of (g + sd n) exp(-x (nu + nu_sd m))."""
    mean, square = math.exp(-nu * x + (nu_sd * x) ** 2 / 2), math.exp(-2 * nu * x + 2 * (nu_sd * x) ** 2)
    return g * mean, math.sqrt((g * g + sd * sd) * square - (g * mean) ** 2)


def _wan(g: float, t: float) -> tuple[float, float]:
    tables = ((0.348, 16.030, -43.853, 45.393, -16.815), (0.701, 22.086, -50.773, 47.095, -16.458),
              (0.782, 20.274, -43.507, 37.062, -11.934))  # fmt: skip
    now, day, two = (sum(c * (g / 40) ** i for i, c in enumerate(table)) for table in tables)
    if t <= 1:
        return g, now
    share = math.log(t) / math.log(86400)
    return g, (now + share * (day - now) if share <= 1 else two)


def _sonos(g: float, t: float) -> tuple[float, float]:
    tables = ((19.88665, 176.3115), (25.59102, 186.85544), (34.57909, 207.34309))
    fresh, day, last = (a * (1 - math.exp(-g / b)) for a, b in tables)
    days = t / 86400
    return g, (fresh + days * (day - fresh) if days <= 1 else last)


def _read_nandakumar(g: float, t: float) -> float:
    """Of the level at that time, as if it had drifted by the mean exponent alone."""
    q = min(0.2, 0.0088 / max((g / 25) ** 0.65, 1e-3))
    return q * math.sqrt(math.log((t + 20 + 250e-9) / (2 * 250e-9)))


FORMULAS: dict[str, tuple[float, Callable[[float, float], tuple[float, float]]]] = {
    "pcm-nandakumar": (17.0, _nandakumar), "reram-wan": (20.0, _wan), "sonos-agrawal": (1000.0, _sonos),
}  # fmt: skip


def devices() -> dict[str, Any]:
    """Programming and time of PCM, ReRAM and SONOS at 0 s, 1 h, 1 day and 1 year; read noise of PCM."""
    by_seed = {seed: _devices(seed) for seed in SEEDS}
    worst = {name: [max(by_seed[s][name][i] for s in SEEDS) for i in (0, 1)] for name in by_seed[SEEDS[0]]}
    outside = {seed: sum(max(row) > 0.02 for row in rows.values()) for seed, rows in by_seed.items()}
    return {
        "devices": {name: [round(v, 5) for v in row] for name, row in worst.items()},
        "devices_worst": round(max(max(row) for row in worst.values()), 5),
        "devices_by_seed": outside,
        "devices_outside": sum(outside.values()),
    }


def _devices(seed: int) -> dict[str, list[float]]:
    """Relative error of mean and spread by law and time."""
    rows: dict[str, list[float]] = {}
    for name, (target, formula) in FORMULAS.items():
        law, wanted = LAWS[name], np.full(N, target)
        programmed = law.program(wanted, random.normal(seed, "programming_noise", N))
        for t in TIMES:
            level = law.at(programmed, wanted, t, random.normal(seed, "drift", N))
            mean, sd = formula(target, t)
            rows[f"{name} {t:g} s"] = [abs(level.mean() / mean - 1), abs(level.std() / sd - 1)]
            if name == "pcm-nandakumar":
                noise = law.read_sd(level, wanted, t) * random.normal(seed, "read_noise", N)
                rms = math.sqrt(mean**2 + sd**2) * _read_nandakumar(target, t)
                rows[f"{name} read {t:g} s"] = [0.0, abs(noise.std() / rms - 1)]
    return rows


def exact() -> dict[str, Any]:
    """Encodings, slices, converters and wires against Python integers and an independent nodal solve."""
    errors = {"slices": _slices(), "adc": _adc(), "differential": _encoding("differential_pair")}
    errors |= {"offset": _encoding("offset_column"), "wires_256": _wires(), "wires_pair": _pair_of_wires()}
    share, bound = _approximation()
    return {
        "exact": errors,
        "wires_approximation": {"error": share, "stated": bound},
        "exact_outside": sum(v > 1e-9 for v in errors.values()) + (share > bound),
    }


def _slices() -> float:
    rng = np.random.default_rng(1)
    w, x = rng.integers(-127, 128, (256, 256)), rng.integers(-128, 128, (32, 256))
    total = sum(
        (plane @ digits) << (a + b)
        for a, plane in input_planes(x, bits=8, step=1, signed=True)
        for b, digits in slice_weights(w, bits=7, step=2)
    )
    return float(np.abs(total - x @ w).max())


def _adc() -> float:
    """A calibrated range: multiplier and shift that bring the largest sum to the top code, in exact fractions."""
    from fractions import Fraction

    acc = np.random.default_rng(2).integers(-(10**6), 10**6, 5000)
    multiplier, shift = round(127 / 10**6 * 2**30), 30
    wanted = [max(-128, min(127, round(Fraction(int(a) * multiplier, 1 << shift)))) for a in acc]  # half to even
    return float(np.abs(adc_code(acc, multiplier, shift, bits=8, signed=True) - wanted).max())


def _chip(encoding: str, *more: str) -> Any:
    given = ["cell.name=c", "cell.kind=reram", "cell.bits=8", "cell.nonvolatile=true", "cell.area_f2=50"]
    given += ["cell.conductance=[1e-6, 4e-5]", "array.bits_per_cell=8", "array.cell_range=[-127, 127]", *more]
    given += [
        "macro.weights.slices=1",
        f"macro.weights.encoding={encoding}",
        "array.cols=256",
        "macro.columns_per_adc=64",
    ]
    return load_chip("parametric-reram-adc8", overrides=given)


PLACE: dict[str, Any] = {"seed": 0, "instance": 0, "macro": 0, "y0": 0, "x0": 0}


def _encoding(encoding: str) -> float:
    """An encoding whose cells are perfect stands for its weights."""
    w = np.random.default_rng(3).integers(-127, 128, (256, 256))
    chip = _chip(encoding, "cell.drift.nu=0.0")
    return float(np.abs(tile_cells(w, chip=chip, physics=Physics(("drift",), time=1.0), **PLACE).weights - w).max())


def _wires() -> float:
    """Column currents of 256x256 cells against block elimination, row by row."""
    rng = np.random.default_rng(4)
    g, v, wires = rng.uniform(1e-6, 40e-6, (256, 256)), rng.uniform(0, 0.2, 256), Wires(1.0, 1.0)
    other = eliminated(g, v, wires)
    return float(
        max(np.abs(solve(g, v, wires)[0] - other).max(), np.abs(v @ transfer(g, wires) - other).max()) / other.max()
    )


def _pair_of_wires() -> float:
    """A run's weights of a differential pair and of an offset encoding with wires, against that elimination."""
    rng, worst = np.random.default_rng(5), 0.0
    steps = {"differential_pair": 39e-6 / 127, "offset_column": 39e-6 / 255}  # a pair's cells hold magnitudes
    w, x = rng.integers(-127, 128, (48, 40)), rng.uniform(0, 1, 48)
    wires = Wires(1.0, 1.0)
    more = ("physics.wires.row=1 Ohm", "physics.wires.column=1 Ohm", "physics.wires.exact=true")

    def current(level: Any, step: float) -> Any:
        return (eliminated(1e-6 + level * step, x, wires) - 1e-6 * x.sum()) / step

    for encoding, step in steps.items():
        seen = x @ tile_cells(w, chip=_chip(encoding, *more), physics=Physics(("ir_drop",)), **PLACE).weights
        if encoding == "differential_pair":
            wanted = current(np.maximum(w, 0.0), step) - current(np.maximum(-w, 0.0), step)
        else:
            both = current(np.hstack([w + 128.0, np.full((48, 1), 128.0)]), step)
            wanted = both[:-1] - both[-1]
        worst = max(worst, float(np.abs(seen - wanted).max() / np.abs(wanted).max()))
    return worst


def _approximation() -> tuple[float, float]:
    g, wires = np.random.default_rng(6).uniform(1e-6, 40e-6, (128, 128)), Wires(0.2, 0.2)
    v = np.random.default_rng(7).uniform(0, 0.2, (16, 128))
    drop = float((g.sum(1).max() + g.sum(0).max()) * 128 * 0.2)
    share = np.abs(v @ approximate(g, wires) - v @ transfer(g, wires)).max() / (v @ g).max()
    return float(share), drop**2 / 2 + drop / 4


def eliminated(g: Any, v: Any, wires: Wires) -> Any:
    """Column currents by eliminating one row of nodes after the other: dense blocks, no sparse matrix, no adjoint."""
    rows, cols = g.shape
    off = np.diag(np.ones(cols - 1), 1) + np.diag(np.ones(cols - 1), -1)
    ladder = (np.diag(np.full(cols, 2.0)) - off) / wires.row
    ladder[-1, -1] -= 1.0 / wires.row
    seen, injected, eye = np.zeros((cols, cols)), np.zeros(cols), np.eye(cols)
    for i in range(rows):
        cell, source = np.diag(g[i]), np.zeros(cols)
        source[0] = v[i] / wires.row
        through = np.linalg.solve(ladder + cell, np.column_stack([cell, source]))
        if i:  # the rows above come through one wire segment each column
            passed = np.linalg.solve(eye + seen * wires.column, np.column_stack([seen, injected]))
            seen, injected = passed[:, :-1], passed[:, -1]
        seen, injected = seen + cell - cell @ through[:, :-1], injected + cell @ through[:, -1]
    return np.linalg.solve(eye + seen * wires.column, injected)


if __name__ == "__main__":
    groups = {"wtm2101": wtm2101, "devices": devices, "exact": exact}
    found: dict[str, Any] = {}
    for group in sys.argv[1:] or list(groups):
        found |= groups[group]()
    print(json.dumps(found, indent=1, default=float))
