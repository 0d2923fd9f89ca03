"""A binding's arrays on a device: what its products take with them, carried there once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from insitu.circuit.panels import Variances
from insitu.sim.bound import Analog, BoundMatrix
from insitu.sim.drive import line_of_drive

AS_THEY_ARE = (1.0, 0.0, -float("inf"), float("inf"))  # a line of drive for rows that are driven already


@dataclass(frozen=True)
class Stream:
    """Where reads draw from: chip instance, binding and trip, and the number of the first vector."""

    seed: int
    instance: int
    time: int
    first: int


@dataclass(frozen=True)
class Launch:
    """What insitu.sim.gpu.kernels.product takes with it, for all reads of a binding or those of one row part."""

    kind: int
    cells: int  # how read noise depends on cells: kernels.QUIET, ALIKE or EACH
    noisy: bool
    requantize: bool
    ends: tuple[int, int]  # of a converter's codes
    weights: Tensor  # [slices, rows, columns] float32
    spread: Tensor  # the same; of no elements unless EACH
    tables: Tensor  # [reads, lines, columns]
    reads: Tensor  # [reads, kernels.FIELDS] int64
    slopes: Tensor  # [reads] float32


@dataclass(frozen=True)
class HeldArray:
    """One separately read array under physics: as insitu.sim.bound.Analog, in float64."""

    weights: Tensor  # [rows, columns]
    gain: Tensor
    offset: Tensor
    step: Tensor
    floor: Tensor
    slope: float
    macro: int
    spread: Tensor | None
    bend: Tensor | None


@dataclass(frozen=True)
class TensorMatrix(BoundMatrix):
    """A bound binding whose products run on `device`.

    `signed`: the top input plane carries a sign.  `bow` are the arguments of insitu.circuit.converter.drive_levels
    where drivers are not straight.  `launches` are the fused kernel's, one that requantizes or one a row part; none
    where only torch's own operations do.
    """

    device: str = "cpu"
    signed: bool = True
    bow: tuple[float, int, int] | None = None
    launches: tuple[Launch, ...] = ()

    @cached_property
    def line(self) -> tuple[float, ...]:
        """(scale, add, lo, hi) that make driven rows of what is carried over, clip(q * scale + add, lo, hi)."""
        return AS_THEY_ARE if self.binding.negated else tuple(float(v) for v in line_of_drive(self.binding))

    @cached_property
    def drive(self) -> Tensor:
        """The same, float32."""
        return self.carried(self.line, np.float32)

    @cached_property
    def held(self) -> tuple[tuple[tuple[int, HeldArray], ...], ...]:
        """Per row part: (slice shift, array)."""
        return tuple(tuple((up, self._array(analog)) for up, analog in part) for part in self.analog)

    @cached_property
    def whole(self) -> tuple[Tensor, ...]:
        """The exact weights of every row part, float64."""
        return tuple(self.carried(matrix.data) for matrix in self.ideal)

    @cached_property
    def digits(self) -> tuple[tuple[tuple[int, Tensor], ...], ...]:
        """Per row part: (slice shift, exact digits of the weights in float64)."""
        return tuple(tuple((up, self.carried(matrix.data)) for up, matrix in part) for part in self.slices)

    @cached_property
    def post(self) -> tuple[Tensor, Tensor]:
        """(bias, multiplier / 2**shift) by column, float64; zeros where `exact_scale` has none."""
        tables = self.exact_scale or (np.zeros(self.binding.cols), np.zeros(self.binding.cols))
        return self.carried(tables[0]), self.carried(tables[1])

    def carried(self, array: Any, dtype: Any = np.float64) -> Tensor:
        """An array on the device."""
        return torch.from_numpy(np.array(array, dtype)).to(self.device)

    def _array(self, analog: Analog) -> HeldArray:
        noise = spread_of(analog)
        spread, bend = (None if a is None else self.carried(a) for a in (noise, analog.bend))
        floor = np.broadcast_to(analog.floor, analog.step.shape)
        gain, offset, step = (self.carried(t) for t in (analog.gain, analog.offset, analog.step))
        return HeldArray(
            self.carried(analog.cells), gain, offset, step, self.carried(floor), float(analog.slope), analog.macro,
            spread, bend,
        )  # fmt: skip


def spread_of(analog: Analog) -> npt.NDArray[np.float32] | None:
    """Read noise of each cell [rows, columns] in units of slope, as the processor has it; none: all alike."""
    spread = analog.spread
    return spread.dense(len(analog.cells)) if isinstance(spread, Variances) else spread


def on_device(bound: BoundMatrix, device: str, *, signed: bool, bow: tuple[float, int, int] | None) -> TensorMatrix:
    """The same binding for products on `device`."""
    same = {f.name: getattr(bound, f.name) for f in fields(BoundMatrix)}
    return TensorMatrix(**same, device=device, signed=signed, bow=bow)
