"""The physics of one tile of weights on one macro: what its cells hold, its columns' errors, the noise of a read.

Every static draw belongs to a place on the chip (instance, macro, row, column, slice), so that any split of a matrix
into tiles finds the same cells and columns there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base import random
from insitu.base.arrays import namespace
from insitu.circuit.effects import Physics
from insitu.circuit.spec import AdcNoise, ColumnOffset, MacroChip
from insitu.device.noise import read_variance
from insitu.device.programming import program

Floats = npt.NDArray[np.float64]
BLOCK = 64  # columns whose cells are neighbours in the random stream


def effective_weights(
    weights: npt.NDArray[Any], *, chip: MacroChip, physics: Physics, seed: int, instance: int, macro: int,
    y0: int, x0: int, slice_index: int = 0,
) -> Floats:  # fmt: skip
    """What the cells at rows y0.. and columns x0.. of a macro hold after they were asked for `weights` [rows, cols].

    `weights` are the integers of one slice (of the whole weight where there is one slice), signed if the encoding's
    cells or pairs are; the result is in the same units.  A differential pair programs max(w, 0) and max(-w, 0).
    """
    target = np.asarray(weights, np.float64)
    if not physics.has("programming_noise"):
        return target
    passes = physics.calibration(chip).refine_passes
    full_scale = float((1 << chip.array.bits_per_cell) - 1)

    def held(value: Floats, leg: int) -> Floats:
        normal = cell_normals(
            target.shape,
            chip=chip,
            seed=seed,
            instance=instance,
            macro=macro,
            y0=y0,
            x0=x0,
            plane=2 * slice_index + leg,
        )
        return program(value, normal, chip.cell, refine_passes=passes, full_scale=full_scale)

    if chip.macro.weights.encoding == "differential_pair":
        return held(np.maximum(target, 0.0), 0) - held(np.maximum(-target, 0.0), 1)
    return held(target, 0)


def cell_normals(
    shape: tuple[int, ...], *, chip: MacroChip, seed: int, instance: int, macro: int, y0: int, x0: int, plane: int = 0
) -> Floats:
    """Standard normals of the cells at rows y0.. and columns x0.., the same whichever rectangle asks for them.

    The stream is laid out plane by plane, then blocks of 64 columns, then rows, then the columns of the block, so that
    a rectangle is a few contiguous runs.
    """
    rows, cols = shape
    height = chip.array.rows * chip.macro.arrays
    blocks = -(-chip.array.cols // BLOCK)
    normals = np.empty((rows, cols))
    for block in range(x0 // BLOCK, -(-(x0 + cols) // BLOCK)):
        start = ((plane * blocks + block) * height + y0) * BLOCK
        run = random.normal(
            seed, "programming_noise", (rows, BLOCK), instance=instance, macro=macro, offset=start
        )  # fmt: skip
        left, right = max(block * BLOCK, x0), min((block + 1) * BLOCK, x0 + cols)
        normals[:, left - x0 : right - x0] = run[:, left - block * BLOCK : right - block * BLOCK]
    return normals


def column_error(
    cols: int, *, chip: MacroChip, physics: Physics, seed: int, instance: int, macro: int, x0: int,
    step: float | npt.NDArray[Any] = 1.0, slice_index: int = 0,
) -> tuple[Floats, Floats]:  # fmt: skip
    """(gain, offset) of `cols` columns from x0 on, after calibration; the offset is in output codes.

    `step` is how many units of the column sum one code is (G for wtm2101, 2**S / M for adc); only offsets that are
    referred to the bitline depend on it.
    """
    where = {"seed": seed, "instance": instance, "macro": macro}
    first = slice_index * chip.array.cols + x0
    gain = _gain(cols, chip, physics, first=first, **where)
    offset = _offset(cols, chip, physics, first=first, **where)
    spec = chip.physics.column_offset
    return gain, offset * (_code_scale(spec, step) if spec else 1.0)


def read_noise_sd(x_squares: Any, *, chip: MacroChip, physics: Physics, step: Any = 1.0) -> Any:
    """Standard deviation of the noise on a column sum, averaged over the chip's reads, in units of the column sum.

    `x_squares` is sum(x**2) over the tile's rows for each vector (or input plane), shaped to broadcast with `step`,
    which is as in `column_error`.
    """
    xp = namespace(x_squares, step)
    variance = 0.0 * x_squares * step
    if physics.has("read_noise"):
        full_scale = float((1 << chip.array.bits_per_cell) - 1)
        cells = chip.macro.cells_per_slice
        variance = variance + read_variance(x_squares, chip.cell, full_scale=full_scale, cells=cells)
    adc = chip.physics.adc_noise
    if physics.has("adc_noise") and adc is not None:
        variance = variance + (adc.sd * step * _code_scale(adc, step)) ** 2
    return xp.sqrt(variance / physics.calibration(chip).reads)


def _gain(
    cols: int, chip: MacroChip, physics: Physics, *, first: int, seed: int, instance: int, macro: int
) -> Floats:  # fmt: skip
    spec = chip.physics.column_gain
    if spec is None or not physics.has("column_gain"):
        return np.ones(cols)
    banks = np.arange(first, first + cols) // spec.bank_columns
    common = random.normal_at(seed, "column_gain_bank", banks, instance=instance, macro=macro)
    own = random.normal(seed, "column_gain", cols, instance=instance, macro=macro, offset=first)
    raw = spec.mean + spec.bank_sd * common + spec.sd * own
    return 1.0 + (raw - 1.0) * spec.refine ** physics.calibration(chip).refine_passes


def _offset(
    cols: int, chip: MacroChip, physics: Physics, *, first: int, seed: int, instance: int, macro: int
) -> Floats:  # fmt: skip
    spec = chip.physics.column_offset
    if spec is None or not physics.has("column_offset"):
        return np.zeros(cols)
    calibration = physics.calibration(chip)
    left = spec.refine**calibration.refine_passes * (spec.compensated if calibration.column_offset else 1.0)
    own = random.normal(seed, "column_offset", cols, instance=instance, macro=macro, offset=first)
    return np.asarray(spec.sd * left * own, np.float64)


def _code_scale(spec: ColumnOffset | AdcNoise, step: Any) -> Any:
    """Codes at this step per code where the constant was measured."""
    return 1.0 if spec.referred == "adc" else spec.step / step
