"""Reads of analog arrays: product, noise, conversion, shift and add, a block of vectors at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from insitu.base.random import effect_key, read_normals
from insitu.circuit.converter import drive_levels
from insitu.circuit.macro import read_codes
from insitu.circuit.panels import Variances
from insitu.isa.program import Binding, Readout
from insitu.numeric.readout import adc_range, finer_step, wtm2101_join
from insitu.numeric.slicing import digit_shifts
from insitu.sim.bound import Analog, BoundMatrix
from insitu.sim.products import FLOAT32_EXACT, FLOAT64_EXACT, Matrix

if TYPE_CHECKING:
    from insitu.sim.macro import MacroModel

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
ADC, WTM2101 = 0, 1  # readouts of circuit.kernels.convert
TOGETHER = 256  # vectors at a time


@dataclass(frozen=True)
class Reads:
    """Numbers of the reads: of the first vector, and of the trip through loops that are walked."""

    first: int
    sequence: int

    def after(self, vectors: int) -> Reads:
        """Those of later vectors."""
        return Reads(self.first + vectors, self.sequence)


def noisy_codes(model: MacroModel, bound: BoundMatrix, x: Floats, reads: Reads, *, signed: bool) -> Array:
    """What a binding's digital side gets for driven rows x [vectors, rows], of any layout: [vectors, columns].

    wtm2101: output codes.  adc: the sum of all codes, to be requantized.  `signed`: whether the top plane carries a
    sign.
    """
    if bound.binding.readout.kind == "wtm2101":
        return _wtm2101(model, bound, x, reads)
    total = np.zeros((len(x), bound.binding.cols), bound.total_type)
    readout = bound.binding.readout
    lo, hi = adc_range(readout.bits, signed=readout.signed)
    steps = readout.finer or (0,) * len(bound.parts)
    for number, (up_x, plane) in enumerate(planes_of(x, readout, signed=signed)):
        for index, part in enumerate(bound.parts):
            rows = plane[:, part]
            for up_w, analog in bound.analog[index]:
                name, up = index << 8 | number << 4 | up_w, up_x + up_w + readout.finest - steps[index]
                _add(model, bound, analog, rows, reads, total, plane=name, kind=ADC, lo=lo, hi=hi, up=up)
    return total


def ideal_total(bound: BoundMatrix, x: Floats, *, signed: bool, across: bool) -> Array:
    """Sum of an ideal converter's codes of driven rows; float32 must hold the products of planes and slices.

    `across`: x is [rows, vectors] and the sum [columns, vectors], else [vectors, rows] and [vectors, columns].  Where
    no code can be rounded or clipped a part is one product; else planes are multiplied two at a time where float32
    has room for both sums.
    """
    readout, cols = bound.binding.readout, bound.binding.cols
    total = np.zeros((cols, x.shape[1]) if across else (len(x), cols), bound.total_type)
    steps = readout.finer or (0,) * len(bound.parts)
    lossy = [i for i, factor in enumerate(bound.lossless) if factor is None]
    for index, factor in enumerate(bound.lossless):
        if factor is not None:
            acc = _times(x, bound.parts[index], bound.ideal[index].data, across=across)
            total += (acc.astype(total.dtype) * total.dtype.type(factor)) << (readout.finest - steps[index])
    planes = list(planes_of(x, readout, signed=signed)) if lossy else []
    for index in lossy:
        for up_w, matrix in bound.slices[index]:
            up = up_w + readout.finest - steps[index]
            for (low, plane), (high, other), width in _paired(planes, bound.digit_bound(matrix)):
                both = plane if other is None else np.asarray(plane + other * np.float32(1 << width), np.float32)
                acc = _times(both, bound.parts[index], matrix.data, across=across)
                _add_ideal(acc, bound, matrix, steps[index], width, (up + low, up + high), total)
    return total


def _times(x: Floats, part: slice, weights: Array, *, across: bool) -> Array:
    """The product of rows `part`, in the weights' type."""
    x = np.asarray(x[part] if across else x[:, part], weights.dtype)
    return weights.T @ x if across else x @ weights


_Plane = tuple[int, Floats]


def _paired(
    planes: list[_Plane], bound: int
) -> Iterator[tuple[_Plane, tuple[int, Floats | None], int]]:  # fmt: skip
    """(plane, another or None, bits between their sums): two where float32 holds both sums of magnitude `bound`."""
    width = (2 * bound + 1).bit_length()
    two = bound * (1 + (1 << width)) < FLOAT32_EXACT
    for at in range(0, len(planes), 2 if two else 1):
        pair = planes[at : at + 2] if two else planes[at : at + 1]
        if len(pair) == 2:
            yield pair[0], pair[1], width
        else:
            yield pair[0], (0, None), 0


def _add_ideal(
    acc: Array, bound: BoundMatrix, matrix: Matrix, finer: int, width: int, ups: tuple[int, int], total: Array
) -> None:  # fmt: skip
    """Add the codes of one or two planes' sums."""
    from insitu.sim.kernels import add_codes, add_pair

    readout = bound.binding.readout
    lo, hi = adc_range(readout.bits, signed=readout.signed)
    multiplier, shift = finer_step(int(readout.multiplier), int(readout.shift), finer)
    if matrix.bound * multiplier >= FLOAT64_EXACT:  # an odd pair is split in integers
        for sums, up in zip(_apart(acc, width), ups, strict=False):
            add_codes(sums, multiplier, shift, lo, hi, up, total)
        return
    scale = float(multiplier) * 2.0**-shift
    add_pair(acc.reshape(-1), width, scale, float(lo), float(hi), *ups, total.reshape(-1))


def _apart(acc: Array, width: int) -> tuple[Array, ...]:
    """The sums of one plane, or of two that were multiplied together."""
    if not width:
        return (acc,)
    whole = acc.astype(np.int64)
    high = (whole + (1 << (width - 1))) >> width
    return whole - (high << width), high


def _wtm2101(model: MacroModel, bound: BoundMatrix, x: Floats, reads: Reads) -> Array:
    post, readout = bound.binding.post, bound.binding.readout
    whole = len(bound.parts) == 1
    lo, hi = (post.lo, post.hi) if whole else (-128, 127)
    codes = np.zeros((len(bound.parts), len(x), bound.binding.cols), np.int32)
    for index, part in enumerate(bound.parts):
        analog = bound.analog[index][0][1]
        _add(model, bound, analog, x[:, part], reads, codes[index], plane=index, kind=WTM2101, lo=lo, hi=hi, up=0)
    if whole:
        return codes[0]
    steps = readout.finer or (0,) * len(bound.parts)
    return wtm2101_join(codes.astype(np.int64), readout.k, lo=post.lo, hi=post.hi, finer=steps)


def planes_of(x: Floats, readout: Readout, *, signed: bool) -> Iterator[tuple[int, Floats]]:
    """(shift, digits) of driven rows that hold whole numbers, as numeric.slicing.input_planes, in the layout of x."""
    from insitu.sim.kernels import digits

    bits, step = readout.plane_bits
    if step >= bits:
        yield 0, x
        return
    shifts = digit_shifts(bits, step)
    for shift in shifts:
        mask = -1 if signed and shift == shifts[-1] else (1 << step) - 1
        out = np.empty_like(x)
        digits(x.ravel(order="K"), shift, mask, out.ravel(order="K"))
        yield shift, out


def _add(
    model: MacroModel, bound: BoundMatrix, analog: Analog, x: Floats, reads: Reads, total: Array, *,
    plane: int, kind: int, lo: int, hi: int, up: int,
) -> None:  # fmt: skip
    """Add the codes of one noisy read of x [vectors, rows], times 2**up, to `total` [vectors, columns]."""
    driven = driven_levels(model, x, bound.binding)
    time = (bound.stream << 12 | (reads.sequence & 0xFFF)) & 0xFFFFFFFF
    macro = analog.macro << 16 | plane
    if analog.bend is not None:
        place = {"instance": model.instance, "macro": macro, "time": time}
        z = read_normals(model.seed, "read_noise", len(x), total.shape[1], first=reads.first, **place)
        codes = bent_codes(
            driven @ analog.weights, squares_of(driven, analog), analog, z, bound.binding.readout, lo, hi
        )
        total += codes.astype(total.dtype) << up
        return
    stream = np.array([reads.first, time, macro, model.instance, model.seed, effect_key("read_noise")], np.int64)
    read_once(driven, analog, stream, kind, lo, hi, up, total)


def read_once(
    driven: Floats, analog: Analog, stream: Array, kind: int, lo: int, hi: int, up: int, total: Array
) -> None:
    """Add the codes of one read of straight converters, times 2**up, to `total`."""
    from insitu.circuit.kernels import convert

    scale, offset, inverse, floor = analog.tables
    acc, squares = driven @ analog.weights, squares_of(driven, analog)
    slope = np.float32(analog.slope)
    convert(acc, squares, scale, offset, inverse, slope, floor, stream, kind, lo, hi, up, total)


def driven_levels(model: MacroModel, x: Floats, binding: Binding) -> Floats:
    """What rows see of codes after their drivers."""
    spec = getattr(getattr(model.chip, "physics", None), "dac", None)
    if spec is None or not model.physics.has("dac_nonlinearity") or model.chip is None:
        return x
    given = model.chip.macro.input
    whole = binding.readout.kind == "wtm2101" or binding.readout.plane_bits[1] >= binding.readout.plane_bits[0]
    bits = given.bits if whole else binding.readout.plane_bits[1]
    return np.asarray(drive_levels(x, bow=spec.bow, bits=bits, step=given.bits_per_pass), np.float32)


def squares_of(driven: Floats, analog: Analog) -> Floats:
    """sum(x**2 * spread), [vectors, columns]; one column for all where every cell has the same."""
    if isinstance(analog.spread, Variances):
        return analog.spread.under(driven)
    if analog.spread is not None:
        return np.asarray((driven * driven) @ analog.spread, np.float32)
    return np.square(driven).sum(axis=1, keepdims=True, dtype=np.float32)


def bent_codes(
    acc: Array, squares: Array, analog: Analog, normals: Array, readout: Readout, lo: int, hi: int
) -> Array:  # fmt: skip
    """The kernel's `convert` by circuit.macro.read_codes, which knows converters that are not straight."""
    sd = np.sqrt(analog.slope * squares.astype(np.float64) + analog.floor)
    kind: dict[str, Any] = {"gain": analog.step}
    if readout.kind == "adc":
        kind = {"multiplier": 1.0 / analog.step, "shift": 0}
    codes = read_codes(
        acc.astype(np.float64), readout, lo=lo, column_gain=analog.gain, column_offset=analog.offset,
        read_noise=sd * normals, bend_table=analog.bend, **kind,
    )  # fmt: skip
    return np.minimum(codes, hi).astype(np.int32)
