"""The error of a chip's layers as its programming log sees it: RMS, column offsets, gain and cosine of output codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base import random
from insitu.circuit.effects import Physics
from insitu.circuit.macro import read_codes
from insitu.circuit.spec import MacroChip
from insitu.circuit.tile import column_error, read_noise_sd, tile_cells

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LayerError:
    """Errors in output codes; `*_without_offset` once each column's mean error is removed; `step` is G."""

    step: int
    rms: float
    rms_without_offset: float
    offset_sd: float
    gain: float
    cosine: float
    cosine_without_offset: float
    snr_db: float


def layer_error(
    weights: Floats, x: Floats, *, chip: MacroChip, physics: Physics, gain: int, seed: int, instance: int,
    y0: int, x0: int,
) -> LayerError:  # fmt: skip
    """Codes of `x` [frames, rows] by `weights` [rows, cols] at those places of macro 0, against the ideal codes.

    The chip has the wtm2101 readout; `gain` is its G.
    """
    readout, cols = chip.macro.readout, weights.shape[1]
    place: dict[str, Any] = {"chip": chip, "physics": physics, "seed": seed, "instance": instance, "macro": 0}
    held = tile_cells(weights, y0=y0, x0=x0, **place)
    column, offset = column_error(cols, x0=x0, step=gain, **place)
    sd = read_noise_sd((x**2).sum(axis=1, keepdims=True), chip=chip, physics=physics, step=gain)
    noise = sd * random.normal(seed, "anchor", (len(x), cols), instance=instance)
    ideal = np.asarray(read_codes(x @ weights, readout, gain=gain), np.float64)
    codes = read_codes(
        x @ held.weights, readout, gain=gain, column_gain=column, column_offset=offset, read_noise=noise
    )  # fmt: skip
    return _compared(np.asarray(codes, np.float64), ideal, gain)


def _compared(codes: Floats, ideal: Floats, step: int) -> LayerError:
    error = codes - ideal
    left = codes - error.mean(axis=0)
    centred = ideal - ideal.mean(axis=0)
    rms = float(np.sqrt((error**2).mean()))
    return LayerError(
        step=step,
        rms=rms,
        rms_without_offset=float(np.sqrt(((left - ideal) ** 2).mean())),
        offset_sd=float(error.mean(axis=0).std()),
        gain=float(((left - left.mean(axis=0)) * centred).sum() / (centred**2).sum()),
        cosine=_cosine(codes, ideal),
        cosine_without_offset=_cosine(left, ideal),
        snr_db=float(20 * np.log10(np.sqrt((ideal**2).mean()) / rms)),
    )


def _cosine(a: Floats, b: Floats) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def vendor_layer(index: int, *, frames: int = 100, size: int = 256) -> tuple[Floats, Floats, tuple[int, int]]:
    """Weights, inputs and place (y0, x0) of a layer like those of the vendor's log.

    Weights N(0, 35) clipped to 8 bits; half of the inputs 0, the rest exponential with mean 11.
    """
    rng = np.random.default_rng(index)
    weights = np.clip(np.rint(rng.normal(0, 35, (size, size))), -128, 127)
    driven = rng.exponential(11.0, (frames, size)) * (rng.random((frames, size)) < 0.5)
    x0, y0 = PLACES[index % len(PLACES)]
    return weights, np.clip(np.rint(driven), 0, 255), (y0, x0)


PLACES = ((768, 0), (512, 0), (256, 0), (0, 0), (768, 896), (300, 950), (515, 1100), (100, 1410))
