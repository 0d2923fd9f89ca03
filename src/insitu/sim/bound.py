"""A binding ready to multiply, and the arrays behind it under physics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.circuit.panels import WIDE, Panels, Variances, packed, packed_variances
from insitu.isa.program import Binding
from insitu.numeric.readout import adc_range, finer_step
from insitu.numeric.slicing import digit_shifts
from insitu.sim.products import FLOAT64_EXACT, Matrix

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Analog:
    """One separately read part of a matrix under physics: conductances as seen by its columns, and their errors."""

    weights: npt.NDArray[np.float32] | Panels
    gain: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    step: npt.NDArray[np.float64]
    slope: float
    floor: npt.NDArray[np.float64]
    macro: int
    spread: npt.NDArray[np.float32] | Variances | None = None  # noise of each cell in units of slope; None: all alike
    bend: npt.NDArray[np.float64] | None = None  # [columns, codes], errors of the converters; None: straight ones
    after: npt.NDArray[np.float64] | None = None  # codes that trims take from the sum over planes

    @property
    def cells(self) -> npt.NDArray[np.float32]:
        """The weights as [rows, columns], packed or not."""
        return self.weights.dense if isinstance(self.weights, Panels) else self.weights

    @cached_property
    def tables(self) -> tuple[npt.NDArray[np.float32], ...]:
        """Gain over step, offset, one over step, and variance that does not depend on inputs, as kernels take them."""
        tables = (self.gain / self.step, self.offset, 1.0 / self.step, np.broadcast_to(self.floor, self.step.shape))
        return tuple(np.ascontiguousarray(t, np.float32) for t in tables)


Arrays = tuple[tuple[tuple[int, Analog], ...], ...]  # per row part: (slice shift, array)


@dataclass(frozen=True)
class Stack:
    """All arrays of a binding as kernels walk them: row parts one after another, slices outside."""

    weights: npt.NDArray[np.float32]  # [slices, ...]: circuit.panels of all rows
    spread: npt.NDArray[np.int16]  # the same of variances, a part from pair (row + part + 1) // 2 on; empty where alike
    grain: npt.NDArray[np.float32]  # [parts, slices, columns], what their steps are worth
    alike: npt.NDArray[np.bool_]  # [parts, slices]: read noise of all cells of the array alike
    tables: npt.NDArray[np.float32]  # [parts, slices, 4, columns]: Analog.tables
    slope: npt.NDArray[np.float32]  # [parts, slices]


def stacked(analog: Arrays) -> tuple[Arrays, Stack]:
    """The arrays, what their cells hold packed and views of the stack's, and the stack."""
    kinds, columns = range(len(analog[0])), len(analog[0][0][1].gain)
    alike = np.array([[a.spread is None for _, a in part] for part in analog])
    cells = np.stack([packed(np.concatenate([part[k][1].cells for part in analog])).data for k in kinds])
    bounds = [0, *np.cumsum([len(part[0][1].cells) for part in analog]).tolist()]
    tables = np.array([[a.tables for _, a in part] for part in analog], np.float32)
    slope = np.array([[a.slope for _, a in part] for part in analog], np.float32)
    places = [(bound + index + 1) // 2 for index, bound in enumerate(bounds)]
    spread = np.zeros((len(kinds), -(-columns // WIDE), 0 if alike.all() else places[-1], 2 * WIDE), np.int16)
    grain = np.zeros((len(analog), len(kinds), columns), np.float32)
    views: list[tuple[tuple[int, Analog], ...]] = []
    for index, part in enumerate(analog):
        view: list[tuple[int, Analog]] = []
        for k, (up, array) in enumerate(part):
            held = Panels(cells[k], columns, bounds[index], bounds[index + 1])
            noise = None
            if array.spread is not None:
                own = packed_variances(np.asarray(array.spread))
                spread[k, :, places[index] : places[index] + own.data.shape[1]] = own.data
                grain[index, k] = own.grain
                noise = replace(own, data=spread[k], begin=places[index])
            view.append((up, replace(array, weights=held, spread=noise)))
        views.append(tuple(view))
    return tuple(views), Stack(cells, spread, grain, alike, tables, slope)


@dataclass(frozen=True)
class BoundMatrix:
    """A binding ready to multiply: its parts, per-column tables, and its number for the noise stream."""

    binding: Binding
    bias: Array
    parts: tuple[slice, ...]
    ideal: tuple[Matrix, ...]
    multiplier: Array
    shift: Array
    stream: int
    slices: tuple[tuple[tuple[int, Matrix], ...], ...] = ()  # per part, adc only: (slice shift, digits)
    analog: Arrays = ()
    stack: Stack | None = None  # the same arrays, where there are any

    @cached_property
    def most(self) -> int:
        """Above the magnitude of any number that is requantized, the bias included."""
        if self.binding.readout.kind != "adc":
            return self.ideal[0].bound
        return self.reach + 1 + int(np.abs(self.bias).max(initial=0))

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """(stack, names of the reads' draws, powers of two of their codes) as kernels take them, per part and slice."""
        wtm2101, finest = self.binding.readout.kind == "wtm2101", self.binding.readout.finest
        steps = self.binding.readout.finer or (0,) * len(self.parts)
        names, shifts = np.zeros((2, len(self.parts), len(self.analog[0])), np.int64)
        for index, slices in enumerate(self.analog):
            for number, (up_w, analog) in enumerate(slices):
                names[index, number] = analog.macro << 16 | (0 if wtm2101 else index << 8 | up_w)
                shifts[index, number] = 0 if wtm2101 else up_w + finest - steps[index]
        stack = self.stack
        assert stack is not None
        return stack.weights, stack.spread, stack.grain, stack.alike, stack.tables, stack.slope, names, shifts

    @cached_property
    def narrow(self) -> bool:
        """Whether float32 holds the products of all slices of a converter, and codes reach its sums as they are."""
        narrow = all(matrix.data.dtype == np.float32 for part in self.slices for _, matrix in part)
        return self.binding.readout.kind == "adc" and not self.analog and narrow

    def digit_bound(self, matrix: Matrix) -> int:
        """Above the magnitude of a sum of one plane with a slice; a digit is below 2**step, its sign included."""
        bits, step = self.binding.readout.plane_bits
        return matrix.bound if step >= bits else (matrix.bound >> step) * ((1 << step) - 1)

    @cached_property
    def lossless(self) -> tuple[int | None, ...]:
        """By row part: codes per unit of the sum, a whole number, where no code of the part can be clipped; else None.

        Then the codes of all planes and slices add up to that many times the product.
        """
        readout = self.binding.readout
        lo, hi = adc_range(readout.bits, signed=readout.signed)
        found: list[int | None] = []
        for index, slices in enumerate(self.slices):
            finer = readout.finer[index] if readout.finer else 0
            multiplier, shift = finer_step(int(readout.multiplier), int(readout.shift), finer)
            factor = multiplier >> shift
            reach = factor * max((self.digit_bound(matrix) for _, matrix in slices), default=0)
            whole = factor << shift == multiplier and factor > 0
            found.append(factor if whole and reach <= hi and -reach >= lo else None)
        return tuple(found)

    @cached_property
    def reach(self) -> int:
        """The largest magnitude of the sum of all codes of a converter: all planes, slices and row parts."""
        readout = self.binding.readout
        digits = sum(1 << shift for shift in digit_shifts(*readout.plane_bits))
        slices = sum(1 << shift for shift in readout.slice_shifts)
        parts = sum(1 << (readout.finest - finer) for finer in readout.finer or (0,) * len(self.parts))
        return max(map(abs, adc_range(readout.bits, signed=readout.signed))) * digits * slices * parts

    @property
    def total_type(self) -> npt.DTypeLike:
        """The narrow type that holds the sum of all codes of a converter, or int64."""
        return np.int32 if self.reach < 1 << 31 else np.int64

    @cached_property
    def exact_scale(self) -> tuple[Array, Array] | None:
        """(bias, multiplier / 2**shift) in float64 where that requantizes without rounding before the one asked for."""
        wide = self.most * int(self.multiplier.max(initial=1))
        if self.binding.post.rounding != "half_even" or wide >= FLOAT64_EXACT:
            return None
        scale = np.ldexp(self.multiplier.astype(np.float64), -self.shift.astype(np.int64))
        return self.bias.astype(np.float64), scale
