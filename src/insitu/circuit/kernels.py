"""numba kernels of a macro's readout: analog column sums to codes with noise, shift and add in one pass over memory."""

# pyright: basic, reportMissingImports=false
# numba infers the types of its kernels from the arrays they are called with.

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from insitu.base.kernels import fill_normals
from insitu.circuit.panels import WIDE
from insitu.circuit.panels.kernels import product, square_product, squares_of

F = np.float32
CHUNK = 512  # blocks of four normals at a time: they and their words stay in the first-level cache
BLOCK = (
    96  # vectors whose inputs and sums of CHUNK columns stay in the second-level cache: whole tiles and groups of runs
)
ADC, WTM2101 = 0, 1


def convert(acc, squares, scale, offset, inverse, slope, floor, stream, kind, lo, hi, up, total):
    """total[v, c] += code << up, code = readout(acc * scale[c] + noise * inverse[c] + offset[c]).

    acc [vectors, columns] float32; noise has the variance slope * squares[v, 0 or c] + floor[c] in units of the column
    sum; inverse is one over the step, scale the column's gain over the step.  Readout ADC rounds half to even, WTM2101
    keeps two fractional bits toward zero, then half up; both clip to lo .. hi.  stream = (number of the first vector,
    time, macro, instance, seed, effect); vectors' normals are insitu.base.random.read_normals, whose rows are runs of
    `together` vectors.  All arrays are contiguous.
    """
    call_convert(
        converter(total.dtype), acc, squares, scale, offset, inverse, slope, floor, stream, 0, kind, lo, hi, up, total
    )


@nb.njit(cache=True, nogil=True)
def read(
    convert, x, weights, spread, places, uneven, grain, scale, offset, inverse, slope, floor, stream, kind, lo, hi, up,
    total,
):  # fmt: skip
    """The function of that name, of x [vectors, rows] times the weights, a block of vectors at a time.

    `convert` is the address that `converter` gives.  Weights and `spread`, the read noise of each cell in units of
    slope and of grain, are packed as insitu.circuit.panels has them, from places (row, pair of rows) on.  Where they
    are not `uneven` all cells are alike.
    """
    vectors, columns = total.shape
    together = BLOCK if columns >= 64 else vectors
    wide = CHUNK // 2 if uneven else CHUNK  # variances take as much room as sums
    own = stream.copy()
    for at in range(0, vectors, together):
        end = min(at + together, vectors)
        own[0] = stream[0] + at
        words, steps = squares_of(x, at, end - at if uneven else 0)
        alike = np.zeros((end - at, 1), np.float32) if uneven or slope == F(0.0) else _squares(x, at, end)
        for left in range(0, columns, wide):
            right = min(left + wide, columns)
            acc = np.empty((end - at, right - left), np.float32)
            panels = weights[left // WIDE : (right + WIDE - 1) // WIDE]
            product(x, at, panels, places[0], acc)
            squares = alike
            if uneven:
                squares = np.empty(acc.shape, np.float32)
                panels = spread[left // WIDE : (right + WIDE - 1) // WIDE]
                square_product(words, steps, panels, places[1], grain[left:right], squares)
            tables = (scale[left:right], offset[left:right], inverse[left:right], slope, floor[left:right])
            _call(convert, (acc, squares, *tables, own, left, kind, lo, hi, up, total[at:end]))


@cache
def converter(dtype: Any) -> int:
    """Address of `convert`, compiled for sums `total` of that type."""
    return _compiled(np.dtype(dtype)).address


@cache
def _compiled(dtype: np.dtype[Any]) -> Any:
    return nb.cfunc(types.void(*_arguments(nb.from_dtype(dtype))), cache=True, fastmath={"contract"})(_convert)


def _arguments(total: Any) -> tuple[Any, ...]:
    """Types of the arguments of `convert`."""
    vector, matrix = (types.Array(types.float32, n, "C") for n in (1, 2))
    whole = types.int64
    tables = (vector, vector, vector, types.float32, vector)
    stream, sums = types.Array(whole, 1, "C"), types.Array(total, 2, "C")
    return (matrix, matrix, *tables, stream, whole, whole, whole, whole, whole, sums)


def _call_at(typing_context, address, given):
    """Call the function `convert` at an address with a tuple of its arguments."""
    arguments = _arguments(given.types[-1].dtype)

    def generate(context, builder, signature, args):
        parts = zip(cgutils.unpack_tuple(builder, args[1], len(arguments)), given.types, arguments, strict=True)
        values = [context.cast(builder, value, kind, wanted) for value, kind, wanted in parts]
        function = ir.FunctionType(ir.VoidType(), [context.get_value_type(kind) for kind in arguments])
        builder.call(builder.inttoptr(args[0], function.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.int64, given), generate


_call: Any = intrinsic(_call_at)


@nb.njit(cache=True, nogil=True)
def call_convert(
    convert, acc, squares, scale, offset, inverse, slope, floor, stream, left, kind, lo, hi, up, total
):  # fmt: skip
    """`convert` at an address, from Python."""
    _call(convert, (acc, squares, scale, offset, inverse, slope, floor, stream, left, kind, lo, hi, up, total))


@nb.njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _squares(x, first, end):
    """[vectors, 1], the sum of x ** 2 of rows first .. end, along whichever axis lies together in memory."""
    out = np.zeros((end - first, 1), np.float32)
    if x.flags.c_contiguous:
        for v in range(out.shape[0]):
            row, total = x[first + v], F(0.0)
            for r in range(row.shape[0]):
                total += row[r] * row[r]
            out[v, 0] = total
    else:
        across, sums = x.T, out[:, 0]
        for r in range(across.shape[0]):
            row = across[r, first:end]
            for v in range(row.shape[0]):
                sums[v] += row[v] * row[v]
    return out


def _convert(acc, squares, scale, offset, inverse, slope, floor, stream, left, kind, lo, hi, up, total):
    """`convert`, compiled once: functions that contain it call it by its address.

    Of more than CHUNK columns acc, squares and the tables may be of some, from column `left` on.
    """
    vectors, columns = total.shape
    here = acc.shape[1]
    together = rows_together(columns)
    span = together * columns
    scales, offsets = _repeated(scale, together), _repeated(offset, together)
    inverses, floors = _repeated(inverse, together), _repeated(floor, together)
    least, most = _range(floor)
    part = min(span, CHUNK)  # of a run; shorter than it only where a run is one vector
    values, variance = np.empty(part, np.float32), np.empty(part, np.float32)
    sums, out = acc.reshape(vectors * here), total.reshape(vectors * columns)
    noisy = slope > F(0.0) or most > F(0.0)
    even = squares.shape[1] == 1 and together == 1 and most == least  # one variance for a vector
    ahead = max(1, CHUNK // span)  # groups of four runs whose normals are drawn in one go
    words, normals = np.empty((4, ahead * part), np.uint32), np.empty((4, ahead * part), np.float32)
    first = stream[0]
    last_group = (first + vectors - 1) // (4 * together)
    for group in range(first // (4 * together), last_group + 1, ahead):
        groups = min(ahead, last_group + 1 - group)
        end_of_row = left + here if here < columns else span
        for place in range(left, end_of_row, part):
            wide = min(part, end_of_row - place)
            if noisy:
                fill_normals(
                    words, normals, groups * wide, group * span + place,
                    stream[1], stream[2], stream[3], stream[4], stream[5],
                )  # fmt: skip
            for run in range(4 * groups):
                start = (4 * group + run) * together
                begin, end = max(start, first), min(start + together, first + vectors)
                if begin >= end:
                    continue
                if together > 1:
                    skip, size, col = (begin - start) * columns, (end - begin) * columns, 0
                else:
                    skip, size, col = 0, wide, place - left
                at, own_at = (begin - first) * columns + left + col, (begin - first) * here + col
                sheet = values[:size]
                _signal(sums[own_at : own_at + size], scales[col:], offsets[col:], sheet)
                if noisy and even:
                    spread = math.sqrt(slope * squares[begin - first, 0] + floor[0])
                    own = (run // 4) * wide
                    _add_even_noise(sheet, spread, inverses[col:], normals[run % 4, own : own + size])
                elif noisy:
                    some = squares[begin - first : end - first]
                    _variance(some, slope, floors, columns, col, wide, variance)
                    own = (run // 4) * wide + skip
                    _add_noise(sheet, variance, inverses[col:], normals[run % 4, own : own + size])
                if kind == ADC:
                    _add_adc(sheet, F(lo), F(hi), up, out[at : at + size])
                else:
                    _add_wtm2101(sheet, F(lo), F(hi), up, out[at : at + size])


@nb.njit(cache=True)
def rows_together(columns):
    """Vectors whose normals lie side by side in a stream; as insitu.base.random.rows_together."""
    return max(1, 64 // columns)


@nb.njit(cache=True)
def _range(values):
    """(the least, the largest) of some values."""
    least = most = values[0]
    for value in values:
        least, most = min(least, value), max(most, value)
    return least, most


@nb.njit(cache=True)
def _repeated(table, times):
    """A table per column, once for each vector of a run."""
    if times == 1:
        return table
    out = np.empty(times * table.shape[0], np.float32)
    for i in range(times):
        out[i * table.shape[0] : (i + 1) * table.shape[0]] = table
    return out


@nb.njit(cache=True, inline="always", fastmath={"contract"})
def _signal(acc, scale, offset, values):
    for c in range(acc.shape[0]):
        values[c] = acc[c] * scale[c] + offset[c]


@nb.njit(cache=True, inline="always", fastmath={"contract"})
def _variance(squares, slope, floor, columns, col, wide, variance):
    """Variances of a run: of `wide` columns from `col` on of one vector, or of all of several."""
    each = min(columns, wide)
    for i in range(squares.shape[0]):
        if squares.shape[1] == 1:
            own = slope * squares[i, 0]
            for c in range(each):
                variance[i * each + c] = own + floor[col + c]
        else:
            for c in range(each):
                variance[i * each + c] = slope * squares[i, col + c] + floor[col + c]


@nb.njit(cache=True, inline="always", fastmath={"contract"})
def _add_noise(values, variance, inverse, draws):
    for c in range(values.shape[0]):
        values[c] += math.sqrt(variance[c]) * draws[c] * inverse[c]


@nb.njit(cache=True, inline="always", fastmath={"contract"})
def _add_even_noise(values, spread, inverse, draws):
    for c in range(values.shape[0]):
        values[c] += spread * draws[c] * inverse[c]


@nb.njit(cache=True, inline="always")
def _add_adc(values, low, high, up, total):
    for c in range(total.shape[0]):
        total[c] += nb.int32(min(max(np.rint(values[c]), low), high)) << up


@nb.njit(cache=True, inline="always")
def _add_wtm2101(values, low, high, up, total):
    for c in range(total.shape[0]):
        code = np.floor((np.trunc(F(4.0) * values[c]) + F(2.0)) * F(0.25))
        total[c] += nb.int32(min(max(code, low), high)) << up
