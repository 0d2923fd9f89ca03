"""What cells hold at the time they are read, and how noisy a read of each is: one cell a weight, in hook order.

Levels and draws are NumPy arrays or torch tensors; gradients pass through everything but the exact wire network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from insitu.base.arrays import namespace, stop_gradient
from insitu.circuit.effects import LEVEL_NOISE, Physics
from insitu.circuit.spec import MacroChip, full_level
from insitu.circuit.wires import Wires, approximate, transfer
from insitu.device.cell import CellSpec
from insitu.device.faults import stick
from insitu.device.laws import asked, drift, law_of
from insitu.device.noise import flicker_sd, rtn_sd, shot_sd, thermal_sd
from insitu.device.programming import program
from insitu.device.retention import retain

Draws = Callable[[str, int], Any]  # (effect, plane) -> standard normals of the cells


def held_levels(value: Any, draws: Draws, *, chip: MacroChip, physics: Physics, plane: int, age: float) -> Any:
    """What one cell a weight holds `age` seconds after it was asked for `value` (0 .. full scale), in hook order."""
    cell, full_scale, xp = chip.cell, full_level(chip), namespace(value)
    passes = physics.calibration(chip).refine_passes
    noisy = physics.has("programming_noise")
    if cell.law is not None:
        moved = age if physics.has("drift") else 0.0
        wanted = _wanted(value, chip, physics)
        held = _by_law(value, wanted, draws, cell, noisy=noisy, plane=plane, age=moved, full_scale=full_scale)
    elif noisy:
        held = program(value, draws("programming_noise", plane), cell, refine_passes=passes, full_scale=full_scale)
    else:
        held = value

    def signed(change: Callable[[Any], Any], level: Any) -> Any:
        """A change of the level of cells that are a level and a sign."""
        sign = xp.where(value < 0, -1.0, 1.0)
        return sign * change(sign * level)

    if physics.has("stuck_cells") and cell.stuck is not None:
        share, faults = normal_share(draws("stuck_cells", plane)), cell.stuck
        law = law_of(cell.law) if cell.law is not None else None
        off = law.g_min / law.g_max if law is not None else cell.off_ratio
        held = signed(lambda level: stick(level, share, faults, full_scale=full_scale, off_ratio=off), held)
    if age > 0 and physics.has("drift") and cell.drift is not None and cell.law is None:
        nu = xp.clip(cell.drift.nu + cell.drift.nu_sd * draws("drift", plane), 0.0, None)
        change = partial(drift, t=age, nu=nu, t0=cell.drift.t0)
        held = signed(lambda level: _of_conductance(level, cell.off_ratio, full_scale, change), held)
    if age > 0 and physics.has("retention") and cell.retention is not None:
        retention, normal = cell.retention, draws("retention", plane)
        held = signed(lambda level: retain(level, normal, age, retention), held)
    return held


def level_noise(chip: MacroChip, physics: Physics) -> bool:
    """Whether the noise of a read depends on what a cell holds."""
    by_law = chip.cell.noisy_law and physics.has("read_noise")
    return by_law or any(physics.has(name) for name in LEVEL_NOISE)


def noise_variance(
    level: Any, programmed: Any, draws: Draws, *, chip: MacroChip, physics: Physics, plane: int, time: float
) -> Any:
    """Variance of one read of cells that hold `level` and held `programmed` at first, in weight steps squared.

    Independent parts add.  `time` is in seconds after programming; wires are taken as ideal here.
    """
    cell, full_scale, xp = chip.cell, full_level(chip), namespace(level)
    total = xp.zeros_like(level)
    if cell.noisy_law and physics.has("read_noise"):
        law = law_of(cell.law or "")
        step = (law.g_max - law.g_min) / full_scale
        g, first = (law.g_min + abs(held) * step for held in (level, programmed))
        total = total + (law.read_sd(g, first, time) / step) ** 2
        if cell.erased_exact:
            total = xp.where(programmed != 0, total, 0.0)
    return total + _from_first_principles(level, draws, chip, physics, plane=plane, time=time)


def _from_first_principles(
    level: Any, draws: Draws, chip: MacroChip, physics: Physics, *, plane: int, time: float
) -> Any:
    """Thermal, shot, 1/f and telegraph noise of the currents behind levels, in weight steps squared."""
    cell, noise = chip.cell, chip.cell.noise
    if noise is None or not cell.conducts:
        return namespace(level).zeros_like(level)
    volts = cell.read_voltage or chip.technology.supply
    off, on = (g * volts for g in cell.conductance) if cell.conductance else (0.0, cell.read_current or 0.0)
    step = (on - off) / full_level(chip)
    current, t_read = off + abs(level) * step, cell.read_pulse or chip.macro.t_read
    total = namespace(level).zeros_like(level)
    if physics.has("thermal_noise"):
        total = total + thermal_sd(current / volts, temperature=physics.kelvin(chip), t_read=t_read) ** 2
    if physics.has("shot_noise"):
        total = total + shot_sd(current, t_read=t_read) ** 2
    if physics.has("flicker_noise"):
        total = total + flicker_sd(current, noise.flicker, time, t0=noise.flicker_t0, t_read=t_read) ** 2
    if physics.has("telegraph_noise") and noise.telegraph is not None:
        trap = normal_share(draws("telegraph_noise", plane))
        at = noise.telegraph
        total = total + rtn_sd(current, trap, amplitude=at.amplitude, share=at.share, duty=at.duty) ** 2
    return total / step**2


def through_wires(level: Any, chip: MacroChip) -> Any:
    """Levels as the feet of the columns see them, drivers and sense nodes at the edges of the tile.

    Each leg of a pair is an array of its own; a network is linear, so its effect on inputs is an effect on weights.
    """
    spec, conductance = chip.physics.wires, chip.cell.conductance
    assert spec is not None
    assert conductance is not None
    off, on = conductance
    step = (on - off) / full_level(chip)
    wires = Wires(spec.row, spec.column)
    xp = namespace(level)
    signed = chip.macro.weights.encoding in ("signed_cell", "twos_complement")  # else below 0 is below level 0
    sign = xp.where(level < 0, -1.0, 1.0) if signed else 1.0
    g = xp.clip(off + sign * level * step, 0.0, None)
    if not spec.exact:
        seen = approximate(g, wires)
    elif xp is np:
        seen = transfer(g, wires)
    else:  # the network is solved in NumPy; what it takes away counts as a constant
        known = np.asarray(stop_gradient(g).cpu(), np.float64)
        seen = g + xp.asarray(transfer(known, wires) - known, dtype=g.dtype, device=g.device)
    return sign * (seen - off) / step


def ahead_of_drift(chip: MacroChip, physics: Physics) -> float:
    """Seconds that levels are programmed ahead of drift; 0 where the chip does not, or all levels drift alike."""
    law = law_of(chip.cell.law) if chip.cell.law is not None else None
    return physics.calibration(chip).drift_ahead if physics.has("drift") and law is not None and law.exponent else 0.0


def _wanted(value: Any, chip: MacroChip, physics: Physics) -> Any:
    """Conductances that cells of a published law are asked for; its range stands for levels 0 .. full scale."""
    name = chip.cell.law or ""
    law, full_scale = law_of(name), full_level(chip)
    wanted = law.g_min + abs(value) * ((law.g_max - law.g_min) / full_scale)
    ahead = ahead_of_drift(chip, physics)
    return asked(name, wanted, ahead) if ahead > 0 else wanted


def _by_law(
    value: Any, wanted: Any, draws: Draws, cell: CellSpec, *, noisy: bool, plane: int, age: float, full_scale: float
) -> Any:  # fmt: skip
    """Levels by the cell's published law, for conductances that were asked for."""
    law = law_of(cell.law or "")
    step = (law.g_max - law.g_min) / full_scale
    xp = namespace(value)
    sign = xp.where(value < 0, -1.0, 1.0)
    g = law.program(wanted, draws("programming_noise", plane)) if noisy else wanted
    if age > 0:
        g = law.at(g, wanted, age, draws("drift", plane))
    held = sign * (g - law.g_min) / step
    # A cell asked for nothing stays erased: programming it to zero would only add the mean of a clipped error, which
    # makes every output of a pair smaller.
    return xp.where(value != 0, held, 0.0) if cell.erased_exact or law.g_min == 0 else held


def _of_conductance(held: Any, off: float, full_scale: float, change: Callable[[Any], Any]) -> Any:
    """A change of relative conductance, seen in levels: level 0 conducts `off` of what full scale does."""
    step = (1.0 - off) / full_scale
    return (change(off + held * step) - off) / step


def normal_share(normal: Any) -> Any:
    """Uniform draws from normal ones, so that faults use the streams of cells."""
    if namespace(normal) is np:
        from scipy.special import ndtr

        return np.asarray(ndtr(normal), np.float64)
    return namespace(normal).special.ndtr(normal)
