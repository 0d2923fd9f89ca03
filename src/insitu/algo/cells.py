"""What a chip's cells err by for every weight code, so that ranges of weights can weigh it against clipping.

Where cells err much, fewer and larger codes hold more of a weight: clipping some of them costs less than it gains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.random import effect_key
from insitu.circuit.effects import CELL_EFFECTS, LEVEL_NOISE, Physics
from insitu.circuit.spec import usual_range
from insitu.circuit.tile import drawn_cells
from insitu.compiler.quantize_layers import slice_bits, sliced_codes, stored_bits, weight_limit
from insitu.numeric.slicing import offset_slices

Floats = npt.NDArray[np.float64]
DRAWS = 256  # of every code: their mean square is known to a tenth
TOGETHER = 512  # codes: some ten MB, however wide weights are
OF_CELLS = frozenset((*CELL_EFFECTS, *LEVEL_NOISE, "read_noise")) - {"ir_drop", "dac_nonlinearity"}


def cell_errors(chip: Chip, physics: Physics) -> Floats | None:
    """Mean square error of what cells hold and are read as, in weight codes squared, for the codes 0 .. limit.

    Errors of cells alone, those of a read among them: not of columns, converters or wires.  None where there are none.
    """
    own = replace(physics, effects=tuple(e for e in physics.effects if e in OF_CELLS))
    if own.ideal:
        return None
    found, pieces = np.zeros(weight_limit(chip) + 1), -(-weight_limit(chip) // TOGETHER)
    for first in range(pieces):  # each from all over the range, since drift is made up for by what all have lost
        found[first::pieces] = _errors(chip, own, np.arange(first, len(found), pieces))
    return found if found.any() else None


def _errors(chip: Chip, own: Physics, codes: npt.NDArray[np.int64]) -> Floats:
    """Mean square error of each code, over DRAWS of its cells."""
    asked = np.repeat(codes, DRAWS)[:, None]  # a column, so that every draw has a reference cell of its own
    held, noise = np.zeros(asked.shape), np.zeros(asked.shape)
    for number, (shift, digits, levels) in enumerate(_slices(chip, asked)):
        drawn = _normals(digits.shape, number)
        cells = drawn_cells(
            digits.astype(np.float64), drawn, chip=chip, physics=own, slice_index=number, levels=levels
        )  # fmt: skip
        held += cells.weights * 2.0**shift
        if cells.variance is not None:
            noise += cells.variance * 4.0**shift / own.calibration(chip).reads
    return ((held - asked) ** 2 + noise).reshape(len(codes), DRAWS).mean(axis=1)


def better_slices(chip: Chip, physics: Physics, layers: Sequence[Floats]) -> tuple[Chip, float] | None:
    """The chip with slices of weights as far apart as cells err least, and the decibels that a weight gains by that.

    `layers` are weights as shares of their column's largest, each as large as any other in the mean; what weights lose
    to fewer codes counts as well.  None where a chip's weights have no slices to move, or no others are better.
    """
    own = chip.macro.weights
    if own.encoding != "differential_pair" or own.slices == 1 or chip.macro.readout.kind != "adc":
        return None
    known = [(_share_lost(other, physics, layers), other) for other in (chip, *_others(chip))]
    if known[0][0] == 0.0:
        return None
    lost, best = min(known, key=lambda pair: pair[0])
    return None if best is chip else (best, 10.0 * math.log10(known[0][0] / lost))


def _others(chip: Chip) -> Iterator[Chip]:
    """The chip with each other distance between slices, and the range that they hold."""
    own, array = chip.macro.weights, chip.array
    for shift in range(array.bits_per_cell):
        weights = own.model_copy(update={"slice_shift": shift})
        held = usual_range(array, weights)
        if shift != own.slice_shift and held != array.cell_range:
            macro = chip.macro.model_copy(update={"weights": weights})
            yield chip.model_copy(update={"macro": macro, "array": array.model_copy(update={"cell_range": held})})


def gained(chip: Chip, other: Chip, physics: Physics, layers: Sequence[Floats], copies: Sequence[int] = ()) -> float:
    """Decibels that weights err less by on another chip, where each of `layers` is there so many times.

    0 where cells err nothing.
    """
    before = _share_lost(chip, physics, layers)
    return 10.0 * math.log10(before / _share_lost(other, physics, layers, copies)) if before else 0.0


def _share_lost(chip: Chip, physics: Physics, layers: Sequence[Floats], copies: Sequence[int] = ()) -> float:
    """Mean square error of weights by cells and rounding over their mean square, mean over layers."""
    cells, limit = cell_errors(chip, physics), weight_limit(chip)
    if cells is None or not layers:
        return 0.0
    found: list[float] = []
    for w, times in zip(layers, copies or (1,) * len(layers), strict=True):
        error = cells[np.rint(w * limit).astype(np.int64)].mean() / times + 1 / 12
        found.append(float(error / (w * w).mean() / limit**2))
    return float(np.mean(found))


def _slices(chip: Chip, codes: npt.NDArray[np.int64]) -> list[tuple[int, Any, Any]]:
    """(shift, digits, what cells and reference column hold) of weight codes, as the macro has them."""
    digits = sliced_codes(codes, chip)
    if chip.macro.weights.encoding != "offset_column":
        return [(shift, q, None) for shift, q in digits]
    levels = offset_slices(codes, bits=stored_bits(chip), step=slice_bits(chip))
    held = [(cells.astype(np.float64), reference) for cells, reference in levels]
    return [(shift, q, own) for (shift, q), own in zip(digits, held, strict=True)]


def _normals(shape: tuple[int, int], slice_index: int) -> Callable[[bool], Callable[[str, int], Floats]]:
    """Standard normals of cells, the same on every call."""

    def of(reference: bool) -> Callable[[str, int], Floats]:
        size = (shape[0], shape[1] + int(reference))

        def draw(effect: str, plane: int) -> Floats:
            return np.random.default_rng((effect_key(effect), plane, slice_index)).standard_normal(size)

        return draw

    return of
