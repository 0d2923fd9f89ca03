"""The physics of one tile of weights on one macro: what its cells hold, its columns' errors, the noise of a read.

Every static draw belongs to a place on the chip (instance, macro, row, column, slice), so that any split of a matrix
into tiles finds the same cells and columns there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base import random
from insitu.base.arrays import namespace
from insitu.circuit.converter import inl_table
from insitu.circuit.effects import CELL_EFFECTS, Physics
from insitu.circuit.held import Draws, ahead_of_drift, held_levels, level_noise, noise_variance, through_wires
from insitu.circuit.kept import kept
from insitu.circuit.spec import AdcNoise, ColumnGain, ColumnOffset, DacErrors, MacroChip, full_level
from insitu.device.laws import compensation, restoring
from insitu.device.noise import read_variance

Floats = npt.NDArray[np.float64]
BLOCK = 64  # columns whose cells are neighbours in the random stream


def effective_weights(
    weights: npt.NDArray[Any], *, chip: MacroChip, physics: Physics, seed: int, instance: int, macro: int,
    y0: int, x0: int, slice_index: int = 0, levels: tuple[npt.NDArray[Any], int] | None = None,
) -> Floats:  # fmt: skip
    """What the cells at rows y0.. and columns x0.. of a macro hold after they were asked for `weights` [rows, cols].

    `weights` are the integers of one slice (of the whole weight where there is one slice), signed if the encoding's
    cells or pairs are; the result is in the same units.  A differential pair programs max(w, 0) and max(-w, 0); an
    offset encoding programs `levels` (what the cells of this slice hold, and what its reference column does; by
    default w + 2**(bits - 1)) and subtracts the reference.
    """
    return tile_cells(
        weights, chip=chip, physics=physics, seed=seed, instance=instance, macro=macro, y0=y0, x0=x0,
        slice_index=slice_index, levels=levels,
    ).weights  # fmt: skip


@dataclass(frozen=True)
class Cells:
    """One tile's weights as the feet of its columns see them, in weight steps, and how noisy a read of each is.

    `variance` is that of one read, in steps squared; None where every cell has the same (`read_noise_sd` has it).
    """

    weights: Any
    variance: Any = None


def tile_cells(
    weights: npt.NDArray[Any], *, chip: MacroChip, physics: Physics, seed: int, instance: int, macro: int,
    y0: int, x0: int, slice_index: int = 0, levels: tuple[npt.NDArray[Any], int] | None = None,
) -> Cells:  # fmt: skip
    """`effective_weights`, and the read noise of each cell where it depends on the level."""
    target = np.asarray(weights, np.float64)
    noisy = level_noise(chip, physics)
    if not noisy and not any(physics.has(name) for name in CELL_EFFECTS):
        return Cells(target)

    def draws(effect: str, plane: int) -> Floats:
        where = {"seed": seed, "instance": instance, "macro": macro, "y0": y0, "x0": x0, "plane": plane}
        return cell_normals(target.shape, chip=chip, effect=effect, **where)

    def beside(effect: str, plane: int) -> Floats:
        """The same with the reference column, whose cells come from the second plane."""
        where = {"seed": seed, "instance": instance, "macro": macro, "y0": y0, "x0": 0, "plane": plane + 1}
        reference = cell_normals((len(target), 1), chip=chip, effect=effect, **where)
        return np.hstack([draws(effect, plane), reference])

    now = drawn_cells(
        target, lambda reference: beside if reference else draws, chip=chip, physics=physics, slice_index=slice_index,
        levels=levels,
    )  # fmt: skip
    rows = _row_gain(len(target), chip, physics, seed=seed, instance=instance, macro=macro, y0=y0)
    return now if rows is None else Cells(now.weights * rows, now.variance)


def drawn_cells(
    target: Any, drawn: Callable[[bool], Draws], *, chip: MacroChip, physics: Physics, slice_index: int = 0,
    levels: tuple[Any, int] | None = None,
) -> Cells:  # fmt: skip
    """What cells asked for `target` [rows, cols] hold for given draws; NumPy arrays, or tensors with their gradients.

    `drawn` gives the standard normals of the cells, with those of a reference column on the right where it is told so.
    Row drivers are not in it.  Normals [copies, rows, cols] are so many tiles of the same target, without wires.
    """
    legs, noisy = _legs(target, chip, levels), level_noise(chip, physics)
    normals = drawn(legs.reference)

    def cells(age: float, time: float) -> Cells:
        parts: list[Cells] = []
        for number, value in enumerate(legs.values):
            plane = 2 * slice_index + number
            level = held_levels(value, normals, chip=chip, physics=physics, plane=plane, age=age)
            seen = through_wires(level, chip) if physics.has("ir_drop") else level
            if not noisy:
                parts.append(Cells(seen))
                continue
            first = held_levels(value, normals, chip=chip, physics=physics, plane=plane, age=0.0) if age > 0 else level
            spread = noise_variance(level, first, normals, chip=chip, physics=physics, plane=plane, time=time)
            parts.append(Cells(seen, spread))
        return legs.joined(target, parts)

    age, ahead = physics.age(chip), ahead_of_drift(chip, physics) > 0
    now = cells(age, physics.time)
    if (age > 0 or ahead) and physics.calibration(chip).drift_compensation:  # levels ahead of drift never were right
        before = target if ahead else cells(0.0, 0.0).weights
        factor = _each(restoring if ahead else compensation, before, now.weights)
        now = Cells(now.weights * factor, None if now.variance is None else now.variance * factor**2)
    return now


def _each(factor: Callable[[Any, Any], Any], before: Any, now: Any) -> Any:
    """A factor of one tile, or those of several [copies, 1, 1]."""
    if now.ndim == 2:
        return factor(before, now)
    pairs = ((before if before.ndim == 2 else before[i], own) for i, own in enumerate(now))
    return namespace(now).stack([0.0 * own[:1, :1] + factor(b, own) for b, own in pairs])


@dataclass(frozen=True)
class _Legs:
    """What the arrays behind a tile are asked for: one matrix, two of a pair, or one with its reference column."""

    values: tuple[Any, ...]
    reference: bool = False

    def joined(self, target: Any, parts: list[Cells]) -> Cells:
        """The weights that the legs stand for; the noise of independent cells adds."""
        if self.reference:
            error, spread = parts[0].weights - self.values[0], parts[0].variance
            both = None if spread is None else spread[..., :-1] + spread[..., -1:]
            return Cells(target + error[..., :-1] - error[..., -1:], both)
        if len(parts) == 1:
            return parts[0]
        plus, minus = parts
        both = None if plus.variance is None or minus.variance is None else plus.variance + minus.variance
        return Cells(plus.weights - minus.weights, both)


def _legs(target: Any, chip: MacroChip, levels: tuple[Any, int] | None) -> _Legs:
    encoding, xp = chip.macro.weights.encoding, namespace(target)
    if encoding == "differential_pair":
        return _Legs((xp.clip(target, 0.0, None), xp.clip(-target, 0.0, None)))
    if encoding != "offset_column":
        return _Legs((target,))
    middle = 1 << (chip.array.bits_per_cell - 1)
    cells, reference = levels if levels is not None else (target + middle, middle)
    if xp is np:
        cells = np.asarray(cells, np.float64)
    column = 0.0 * cells[:, :1] + float(reference)
    return _Legs((xp.hstack([cells, column]),), reference=True)


def _row_gain(
    rows: int, chip: MacroChip, physics: Physics, *, seed: int, instance: int, macro: int, y0: int
) -> Floats | None:  # fmt: skip
    """Gain of each row's driver [rows, 1]; a driver's gain is as good as one of all cells of its row."""
    spec = chip.physics.dac
    if spec is None or not physics.has("dac_nonlinearity") or spec.row_sd == 0:
        return None
    own = random.normal(seed, "dac_nonlinearity", rows, instance=instance, macro=macro, offset=y0)
    return np.asarray(driver_gain(own, spec), np.float64)[:, None]


def driver_gain(normal: Any, spec: DacErrors) -> Any:
    """Gains of row drivers for standard normal draws, one a row."""
    return 1.0 + spec.row_sd * normal


def cell_normals(
    shape: tuple[int, ...], *, chip: MacroChip, seed: int, instance: int, macro: int, y0: int, x0: int, plane: int = 0,
    effect: str = "programming_noise",
) -> Floats:  # fmt: skip
    """Standard normals of the cells at rows y0.. and columns x0.., the same whichever rectangle asks for them.

    The stream is laid out plane by plane, then blocks of 64 columns, then rows, then the columns of the block, so that
    a rectangle is a few contiguous runs.
    """
    sizes = (chip.array.rows * chip.macro.arrays, -(-chip.array.cols // BLOCK))
    where = (seed, effect, instance, macro, y0, x0, plane)
    return kept(("cells", shape, sizes, where), lambda: _cell_normals(shape, sizes, where))


def _cell_normals(
    shape: tuple[int, ...], sizes: tuple[int, int], where: tuple[int, str, int, int, int, int, int]
) -> Floats:
    (rows, cols), (height, blocks) = shape, sizes
    seed, effect, instance, macro, y0, x0, plane = where
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
    offset = offset * (_code_scale(spec, step) if spec else 1.0)
    return gain * _adc_gain(cols, chip, physics, first=first, **where), offset + _adc_offset(
        cols, chip, physics, first=first, **where
    )


def adc_bend(
    cols: int, codes: int, *, chip: MacroChip, physics: Physics, seed: int, instance: int, macro: int, x0: int,
    slice_index: int = 0,
) -> Floats | None:  # fmt: skip
    """Error of the converters of `cols` columns at each of their codes [cols, codes]; None for straight ones."""
    spec = chip.physics.adc
    if spec is None or not physics.has("adc_inl"):
        return None
    converter = _converters(cols, chip, slice_index * chip.array.cols + x0)
    bow = random.normal_at(seed, "adc_inl", converter, instance=instance, macro=macro)
    at = converter[:, None] * codes + np.arange(codes)
    widths = random.normal_at(seed, "adc_dnl", at, instance=instance, macro=macro)
    return np.asarray(inl_table(bow[:, None], widths, inl=spec.inl, dnl=spec.dnl), np.float64)


def read_noise_sd(x_squares: Any, *, chip: MacroChip, physics: Physics, step: Any = 1.0, reads: int = 0) -> Any:
    """Standard deviation of the noise on a column sum, averaged over `reads` (0: the chip's), in units of the sum.

    `x_squares` is sum(x**2) over the tile's rows for each vector (or input plane), shaped to broadcast with `step`,
    which is as in `column_error`.  Noise that depends on a cell's level is not in it: `tile_cells` has that.
    """
    xp = namespace(x_squares, step)
    variance = 0.0 * x_squares * step
    if physics.has("read_noise") and not chip.cell.noisy_law:
        full_scale = full_level(chip)
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
    place = (seed, instance, macro, first, cols)
    bank = kept(
        ("bank", spec.bank_columns, spec.bank_shape, *place),
        lambda: _banks(cols, spec, first=first, seed=seed, instance=instance, macro=macro),
    )
    own = kept(
        ("column_gain", *place),
        lambda: random.normal(seed, "column_gain", cols, instance=instance, macro=macro, offset=first),
    )
    raw = spec.mean + spec.bank_sd * bank + spec.sd * own
    return 1.0 + (raw - 1.0) * spec.refine ** physics.calibration(chip).refine_passes


def _banks(cols: int, spec: ColumnGain, *, first: int, seed: int, instance: int, macro: int) -> Floats:
    """The draw of each column's bank, of mean 0 and variance 1."""
    number, of = np.unique(np.arange(first, first + cols) // spec.bank_columns, return_inverse=True)
    drawn = random.normal_at(seed, "column_gain_bank", number, instance=instance, macro=macro)
    if spec.bank_shape == "uniform":
        drawn = np.array([math.sqrt(3.0) * math.erf(z / math.sqrt(2.0)) for z in drawn])
    return drawn[of]


def _offset(
    cols: int, chip: MacroChip, physics: Physics, *, first: int, seed: int, instance: int, macro: int
) -> Floats:  # fmt: skip
    spec = chip.physics.column_offset
    if spec is None or not physics.has("column_offset"):
        return np.zeros(cols)
    calibration = physics.calibration(chip)
    left = spec.refine**calibration.refine_passes * (spec.compensated if calibration.column_offset else 1.0)
    place = (seed, instance, macro, first, cols)
    own = kept(
        ("column_offset", *place),
        lambda: random.normal(seed, "column_offset", cols, instance=instance, macro=macro, offset=first),
    )
    return np.asarray(spec.sd * left * own, np.float64)


def _adc_gain(
    cols: int, chip: MacroChip, physics: Physics, *, first: int, seed: int, instance: int, macro: int
) -> Floats:  # fmt: skip
    """Gains of the converters that columns use."""
    spec = chip.physics.adc
    if spec is None or not physics.has("adc_gain"):
        return np.ones(cols)
    own = random.normal_at(seed, "adc_gain", _converters(cols, chip, first), instance=instance, macro=macro)
    return np.asarray(1.0 + spec.gain * own, np.float64)


def _adc_offset(
    cols: int, chip: MacroChip, physics: Physics, *, first: int, seed: int, instance: int, macro: int
) -> Floats:  # fmt: skip
    """Offsets of the converters that columns use, in codes; offset compensation takes its share of them too."""
    spec, known = chip.physics.adc, chip.physics.column_offset
    if spec is None or not physics.has("adc_offset"):
        return np.zeros(cols)
    left = (known.compensated if known else 0.0) if physics.calibration(chip).column_offset else 1.0
    own = random.normal_at(seed, "adc_offset", _converters(cols, chip, first), instance=instance, macro=macro)
    return np.asarray(spec.offset * left * own, np.float64)


def _converters(cols: int, chip: MacroChip, first: int) -> npt.NDArray[np.int64]:
    """Number of the converter of each column of a macro."""
    return np.arange(first, first + cols) // chip.macro.columns_per_adc


def _code_scale(spec: ColumnOffset | AdcNoise, step: Any) -> Any:
    """Codes at this step per code where the constant was measured."""
    return 1.0 if spec.referred == "adc" else spec.step / step
