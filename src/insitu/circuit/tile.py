"""The physics of one tile of weights on one macro: what its cells hold, its columns' errors, the noise of a read.

Every static draw belongs to a place on the chip (instance, macro, row, column, slice), so that any split of a matrix
into tiles finds the same cells and columns there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base import random
from insitu.base.arrays import namespace
from insitu.circuit.effects import Physics
from insitu.circuit.spec import AdcNoise, ColumnOffset, MacroChip
from insitu.circuit.wires import Wires, approximate, transfer
from insitu.device.cell import CellSpec
from insitu.device.faults import stick
from insitu.device.laws import compensation, drift, law_of
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
    if not any(physics.has(name) for name in ("programming_noise", "stuck_cells", "drift", "ir_drop")):
        return target

    def draws(effect: str, plane: int) -> Floats:
        where = {"seed": seed, "instance": instance, "macro": macro, "y0": y0, "x0": x0, "plane": plane}
        return cell_normals(target.shape, chip=chip, effect=effect, **where)

    def held(age: float) -> Floats:
        def leg(value: Floats, number: int) -> Floats:
            level = held_levels(value, draws, chip=chip, physics=physics, plane=2 * slice_index + number, age=age)
            return through_wires(level, chip) if physics.has("ir_drop") else level

        if chip.macro.weights.encoding == "differential_pair":
            return leg(np.maximum(target, 0.0), 0) - leg(np.maximum(-target, 0.0), 1)
        return leg(target, 0)

    age = physics.age(chip)
    now = held(age)
    if age > 0 and physics.calibration(chip).drift_compensation:
        return now * float(compensation(held(0.0), now))
    return now


def held_levels(
    value: Floats, draws: Callable[[str, int], Floats], *, chip: MacroChip, physics: Physics, plane: int, age: float
) -> Floats:
    """What one cell a weight holds `age` seconds after it was asked for `value` (0 .. full scale), in hook order."""
    cell, full_scale = chip.cell, float((1 << chip.array.bits_per_cell) - 1)
    passes = physics.calibration(chip).refine_passes
    noisy = physics.has("programming_noise")
    if cell.law is not None:
        held = _by_law(value, draws, cell, noisy=noisy, plane=plane, age=age, full_scale=full_scale)
    elif noisy:
        held = program(value, draws("programming_noise", plane), cell, refine_passes=passes, full_scale=full_scale)
    else:
        held = value
    sign = np.where(value < 0, -1.0, 1.0)  # a signed cell is a level and a sign
    if physics.has("stuck_cells") and cell.stuck is not None:
        share = normal_share(draws("stuck_cells", plane))
        held = sign * stick(sign * held, share, cell.stuck, full_scale=full_scale)
    if age > 0 and cell.drift is not None and cell.law is None:
        nu = np.maximum(cell.drift.nu + cell.drift.nu_sd * draws("drift", plane), 0.0)
        change = partial(drift, t=age, nu=nu, t0=cell.drift.t0)
        held = sign * _of_conductance(sign * held, cell.off_ratio, full_scale, change)
    return held


def through_wires(level: Floats, chip: MacroChip) -> Floats:
    """Levels as the feet of the columns see them, drivers and sense nodes at the edges of the tile.

    Each leg of a pair is an array of its own; a network is linear, so its effect on inputs is an effect on weights.
    """
    spec, conductance = chip.physics.wires, chip.cell.conductance
    assert spec is not None
    assert conductance is not None
    off, on = conductance
    step = (on - off) / float((1 << chip.array.bits_per_cell) - 1)
    wires = Wires(spec.row, spec.column)
    sign = np.where(level < 0, -1.0, 1.0)
    seen = (transfer if spec.exact else approximate)(off + abs(level) * step, wires)
    return np.asarray(sign * (seen - off) / step, np.float64)


def _by_law(
    value: Floats, draws: Callable[[str, int], Floats], cell: CellSpec, *, noisy: bool, plane: int, age: float,
    full_scale: float,
) -> Floats:  # fmt: skip
    """Levels by the cell's published law, whose range of conductances stands for 0 .. full scale."""
    law = law_of(cell.law or "")
    step = (law.g_max - law.g_min) / full_scale
    sign = np.where(value < 0, -1.0, 1.0)
    wanted = law.g_min + abs(value) * step
    g = law.program(wanted, draws("programming_noise", plane)) if noisy else wanted
    if age > 0:
        g = law.at(g, wanted, age, draws("drift", plane))
    held = np.asarray(sign * (g - law.g_min) / step, np.float64)
    return np.where(value != 0, held, 0.0) if cell.erased_exact else held


def _of_conductance(held: Floats, off: float, full_scale: float, change: Callable[[Floats], Floats]) -> Floats:
    """A change of relative conductance, seen in levels: level 0 conducts `off` of what full scale does."""
    step = (1.0 - off) / full_scale
    return np.asarray((change(off + held * step) - off) / step, np.float64)


def normal_share(normal: Floats) -> Floats:
    """Uniform draws from normal ones, so that faults use the streams of cells."""
    from scipy.special import ndtr

    return np.asarray(ndtr(normal), np.float64)


def cell_normals(
    shape: tuple[int, ...], *, chip: MacroChip, seed: int, instance: int, macro: int, y0: int, x0: int, plane: int = 0,
    effect: str = "programming_noise",
) -> Floats:  # fmt: skip
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
            seed, effect, (rows, BLOCK), instance=instance, macro=macro, offset=start
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


def read_noise_sd(x_squares: Any, *, chip: MacroChip, physics: Physics, step: Any = 1.0, reads: int = 0) -> Any:
    """Standard deviation of the noise on a column sum, averaged over `reads` (0: the chip's), in units of the sum.

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
    return xp.sqrt(variance / (reads or physics.calibration(chip).reads))


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
