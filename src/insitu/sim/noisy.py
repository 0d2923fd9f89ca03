"""Noisy products in one call of a kernel: all planes, slices and row parts of a binding, from codes to codes.

Threads that run such products side by side meet at Python's lock once a product instead of once a read.  What the
kernels do not take (converters or drivers that are not straight, sums beyond int32, parts that are joined digitally)
goes the general way, insitu.sim.reads, with the same draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from insitu.base.random import effect_key
from insitu.numeric.readout import adc_range
from insitu.numeric.slicing import digit_shifts
from insitu.sim.bound import BoundMatrix
from insitu.sim.drive import drive_signed, line_of_drive
from insitu.sim.reads import ADC, WTM2101

if TYPE_CHECKING:
    from insitu.sim.macro import MacroModel

Array = npt.NDArray[Any]
Settings = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]  # (drive, reads, post) of kernels.noisy_rows


def settings(model: MacroModel, bound: BoundMatrix, *, signed: bool) -> Settings | None:
    """(drive, reads, post) as insitu.sim.kernels.noisy_rows takes them; none where the general way must be gone.

    `signed`: whether the top plane of inputs carries a sign.
    """
    binding, readout = bound.binding, bound.binding.readout
    if not bound.analog or binding.negated or not _straight(model, bound):
        return None
    post, exact = binding.post, bound.exact_scale or (np.zeros(0), np.zeros(0))
    if readout.kind == "wtm2101" and len(bound.parts) == 1:
        kind, lo, hi = WTM2101, post.lo, post.hi
    elif readout.kind == "adc" and bound.total_type == np.int32:
        (lo, hi), kind = adc_range(readout.bits, signed=readout.signed), ADC
    else:
        return None
    from insitu.circuit.kernels import converter
    from insitu.sim.kernels import MODES

    bounds = np.array([p.start for p in bound.parts] + [bound.parts[-1].stop], np.int64)
    reads = (bounds, *_planes(bound, signed=signed), *bound.arrays, kind, lo, hi, converter(np.int32))
    whole = (bound.bias, bound.multiplier, bound.shift, MODES[post.rounding], post.zero_point, post.lo, post.hi)
    return line_of_drive(binding), reads, (*exact, float(post.zero_point), float(post.lo), float(post.hi), *whole)


def stream(model: MacroModel, bound: BoundMatrix, first: int, sequence: int) -> Array:
    """Place of the draws of reads from vector `first` on, in the trip `sequence` of loops that are walked."""
    time = (bound.stream << 12 | (sequence & 0xFFF)) & 0xFFFFFFFF
    return np.array([first, time, 0, model.instance, model.seed, effect_key("read_noise")], np.int64)


def reader(model: MacroModel, bound: BoundMatrix, dtype: npt.DTypeLike) -> Callable[[Array, int, int], Array] | None:
    """Output codes of (stored codes, first vector, sequence), everything else prepared; none as `settings`."""
    from insitu.sim.kernels import noisy_rows

    given = settings(model, bound, signed=drive_signed(bound.binding, dtype))
    if given is None:
        return None
    columns = bound.binding.cols

    def read(codes: Array, first: int, sequence: int) -> Array:
        out = np.empty((len(codes), columns), np.int32)
        noisy_rows(np.ascontiguousarray(codes), out, stream(model, bound, first, sequence), *given)
        return out

    return read


def _straight(model: MacroModel, bound: BoundMatrix) -> bool:
    """Whether drivers and converters have no bow."""
    dac = getattr(getattr(model.chip, "physics", None), "dac", None)
    if dac is not None and model.physics.has("dac_nonlinearity"):
        return False
    return all(analog.bend is None for part in bound.analog for _, analog in part)


def _planes(bound: BoundMatrix, *, signed: bool) -> tuple[Array, Array]:
    """(shift, mask) of every plane of inputs; one of mask 0: the input as it is."""
    if bound.binding.readout.kind == "wtm2101":
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    bits, step = bound.binding.readout.plane_bits
    if step >= bits:
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    shifts = np.array(digit_shifts(bits, step), np.int64)
    masks = np.full(len(shifts), (1 << step) - 1, np.int64)
    if signed:
        masks[-1] = -1
    return shifts, masks
