"""What a chip's cells err by for every weight code, so that ranges of weights can weigh it against clipping.

Where cells err much, fewer and larger codes hold more of a weight: clipping some of them costs less than it gains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.spec import Chip
from insitu.base.random import effect_key
from insitu.circuit.effects import CELL_EFFECTS, LEVEL_NOISE, Physics
from insitu.circuit.tile import drawn_cells
from insitu.compiler.quantize_layers import slice_bits, stored_bits, weight_limit
from insitu.numeric.slicing import offset_slices, slice_weights

Floats = npt.NDArray[np.float64]
DRAWS = 256  # of every code: their mean square is known to a tenth
OF_CELLS = frozenset((*CELL_EFFECTS, *LEVEL_NOISE, "read_noise")) - {"ir_drop", "dac_nonlinearity"}


def cell_errors(chip: Chip, physics: Physics) -> Floats | None:
    """Mean square error of what cells hold and are read as, in weight codes squared, for the codes 0 .. limit.

    Errors of cells alone, those of a read among them: not of columns, converters or wires.  None where there are none.
    """
    own = replace(physics, effects=tuple(e for e in physics.effects if e in OF_CELLS))
    if own.ideal:
        return None
    codes = np.arange(weight_limit(chip) + 1)
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
    found = ((held - asked) ** 2 + noise).reshape(len(codes), DRAWS).mean(axis=1)
    return found if found.any() else None


def _slices(chip: Chip, codes: npt.NDArray[np.int64]) -> list[tuple[int, Any, Any]]:
    """(shift, digits, what cells and reference column hold) of weight codes, as the macro has them."""
    bits, step = stored_bits(chip), slice_bits(chip)
    digits = slice_weights(codes, bits=bits, step=step)
    if chip.macro.weights.encoding != "offset_column":
        return [(shift, q, None) for shift, q in digits]
    levels = offset_slices(codes, bits=bits, step=step)
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
