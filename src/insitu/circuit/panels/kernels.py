"""numba kernels of products with packed weights: a tile of sums stays in registers while the rows go by.

Sums are taken row after row, one rounding a row where the machine multiplies and adds in one instruction, so that an
element does not depend on which vectors it is computed beside.
"""

# pyright: basic, reportMissingImports=false
# numba infers the types of its kernels from the arrays they are called with.

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from insitu.circuit.panels import WIDE

F = np.float32
LANES = 8
TINY, HALF = F(1e-30), F(0.5)
MOST = 6  # vectors of a tile: with WIDE columns 12 sums, which fill the registers
SOME = 3
PAIRS = 64  # of rows whose products of 12 bits add up within int32
SQUARE = F(4095.0)  # the largest square
WORD, WHOLE, BYTE = ir.IntType(32), ir.IntType(64), ir.IntType(8).as_pointer()


def _tile(vectors: int, *, squares: bool = False) -> Any:
    """The intrinsic of a tile of that many vectors."""
    lane = WORD if squares else ir.FloatType()
    vector, floats = ir.VectorType(lane, LANES), ir.VectorType(ir.FloatType(), LANES)
    add = _add_pairs if squares else _add_row
    tiles = [(v, h * LANES) for v in range(vectors) for h in range(WIDE // LANES)]

    def tile(typing_context, x, at, apart, step, panels, panel, rows, out, here, pitch):
        """out[here + v * pitch + i] = sum over r of x[at + v * apart + r * step] * panels[panel + r * WIDE + i].

        In squares x is int32, panels int16: two rows in int16 beside each other.
        """

        def generate(context, builder, signature, args):
            def memory(place):
                return cgutils.create_struct_proxy(signature.args[place])(context, builder, args[place]).data

            def vector_at(base, index, kind=vector):
                return builder.bitcast(builder.gep(base, [index]), kind.as_pointer())

            x, out = memory(0), memory(7)
            panels = builder.bitcast(memory(4), lane.as_pointer())
            at, apart, step, panel, rows, here, pitch = (args[i] for i in (1, 2, 3, 5, 6, 8, 9))
            if signature.args[0].layout == "C":
                step = WHOLE(1)
            elif signature.args[0].layout == "F":
                apart = WHOLE(1)
            sums = [cgutils.alloca_once_value(builder, vector(None)) for _ in tiles]
            starts = [builder.add(at, builder.mul(apart, WHOLE(v))) for v in range(vectors)]

            def add_row(index):
                row = builder.add(panel, builder.mul(index, WHOLE(WIDE)))
                halves = range(0, WIDE, LANES)
                weights = [builder.load(vector_at(panels, builder.add(row, WHOLE(h))), align=4) for h in halves]
                along = builder.mul(index, step)
                for v, start in enumerate(starts):
                    value = builder.load(builder.gep(x, [builder.add(start, along)]))
                    one = builder.insert_element(vector(ir.Undefined), value, WORD(0))
                    wide = builder.shuffle_vector(one, vector(ir.Undefined), ir.VectorType(WORD, LANES)(None))
                    for place, weight in zip(sums[2 * v : 2 * v + 2], weights, strict=True):
                        builder.store(add(builder, builder.load(place), wide, weight), place)

            if squares:
                totals = [cgutils.alloca_once_value(builder, floats(None)) for _ in tiles]
                blocks = builder.sdiv(builder.add(rows, WHOLE(PAIRS - 1)), WHOLE(PAIRS))
                with cgutils.for_range(builder, blocks) as block:
                    first = builder.mul(block.index, WHOLE(PAIRS))
                    left = builder.sub(rows, first)
                    count = builder.select(builder.icmp_signed("<", left, WHOLE(PAIRS)), left, WHOLE(PAIRS))
                    with cgutils.for_range(builder, count) as loop:
                        add_row(builder.add(first, loop.index))
                    for total, place in zip(totals, sums, strict=True):
                        more = builder.sitofp(builder.load(place), floats)
                        builder.store(builder.fadd(builder.load(total), more), total)
                        builder.store(vector(None), place)
            else:
                totals = sums
                with cgutils.for_range(builder, rows) as loop:
                    add_row(loop.index)
            for (v, h), total in zip(tiles, totals, strict=True):
                target = builder.add(builder.add(here, builder.mul(pitch, WHOLE(v))), WHOLE(h))
                builder.store(builder.load(total), vector_at(out, target, floats), align=4)
            return context.get_dummy_value()

        return types.void(x, at, apart, step, panels, panel, rows, out, here, pitch), generate

    return intrinsic(tile)


def _fetched(typing_context, memory, at):
    """Element `at` on its way to the second-level cache."""

    def generate(context, builder, signature, args):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), BYTE)
        kind = ir.FunctionType(ir.VoidType(), [BYTE, WORD, WORD, WORD])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(call, [pointer, WORD(0), WORD(2), WORD(1)])
        return context.get_dummy_value()

    return types.void(memory, at), generate


_fetch: Any = intrinsic(_fetched)


def _add_row(builder, total, x, weights):
    """Total + x * weights in float32, rounded once where the machine can."""
    return builder.fadd(total, builder.fmul(x, weights, flags=("contract",)), flags=("contract",))


def _add_pairs(builder, total, x, weights):
    """Total + low * low + high * high of int16 halves: one instruction and an addition on common machines."""
    short, double = ir.VectorType(ir.IntType(16), 2 * LANES), ir.VectorType(WORD, 2 * LANES)
    both = [builder.sext(builder.bitcast(v, short), double) for v in (x, weights)]
    product = builder.mul(*both)
    parts = []
    for odd in (0, 1):
        lanes = ir.Constant(ir.VectorType(WORD, LANES), [WORD(2 * i + odd) for i in range(LANES)])
        parts.append(builder.shuffle_vector(product, double(ir.Undefined), lanes))
    return builder.add(total, builder.add(*parts))


_most, _some, _one = _tile(MOST), _tile(SOME), _tile(1)
_most_squares, _some_squares, _one_square = (_tile(n, squares=True) for n in (MOST, SOME, 1))


@nb.njit(cache=True, nogil=True)
def product(x, first, panels, begin, out):
    """out[v, c] = sum over r of x[first + v, r] * panels[c // WIDE, begin + r, c % WIDE].

    x [vectors, rows] lies together along either axis; out [some vectors, columns] is contiguous.
    """
    vectors, columns = out.shape
    place = (x.strides[0] // x.itemsize, x.strides[1] // x.itemsize, x.shape[1], panels.shape[1] * WIDE)
    flat, sums = panels.reshape(panels.size), out.reshape(out.size)
    held = np.empty(MOST * WIDE, np.float32)  # of the last panel, where it is not full
    size = _size(vectors)
    share = (x.shape[1] * size + vectors - 1) // vectors  # rows of the next panel that are fetched ahead with a tile
    for group in range(panels.shape[0]):
        panel = (group * panels.shape[1] + begin) * WIDE
        wide, ahead = min(WIDE, columns - group * WIDE), panel + place[3]
        for v in range(0, vectors, size):
            some = min(v, vectors - size)
            _fetch_rows(flat, ahead + v // size * share * WIDE, WIDE, share)
            if wide == WIDE:
                _put(size, x, first + some, place, flat, panel, sums, some * columns + group * WIDE, columns)
            else:
                _put(size, x, first + some, place, flat, panel, held, 0, WIDE)
                for i in range(size):
                    for c in range(wide):
                        out[some + i, group * WIDE + c] = held[i * WIDE + c]


@nb.njit(cache=True, inline="always")
def _fetch_rows(panels, at, apart, rows):
    """So many rows from element `at` on; all of a panel at once would hold up what is read meanwhile."""
    for r in range(rows):
        _fetch(panels, at + r * apart)


@nb.njit(cache=True)
def _size(vectors):
    """Vectors of the tiles that so many are cut into, the last one over others again."""
    return MOST if vectors >= MOST else SOME if vectors >= SOME else 1


@nb.njit(cache=True)
def _put(size, x, first, place, panels, panel, out, here, pitch):
    """A tile of `size` vectors from `first` on with one panel.

    place = (apart, step, rows) of the vectors in memory, and how far ahead the next panel lies.
    """
    at = first * place[0]
    if size == MOST:
        _most(x, at, place[0], place[1], panels, panel, place[2], out, here, pitch)
    elif size == SOME:
        _some(x, at, place[0], place[1], panels, panel, place[2], out, here, pitch)
    else:
        _one(x, at, place[0], place[1], panels, panel, place[2], out, here, pitch)


@nb.njit(cache=True, nogil=True)
def square_product(words, steps, panels, begin, grain, out):
    """out[v, c] = sum over r of squares[v, r] * grain[c] * the element of row begin + r, column c of packed variances.

    `words` and `steps` are what `squares_of` gives; `begin` counts pairs of rows.
    """
    vectors, pairs = words.shape
    place = (words.strides[0] // words.itemsize, words.strides[1] // words.itemsize, pairs, panels.shape[1] * WIDE)
    flat, held = panels.reshape(panels.size), np.empty(MOST * WIDE, np.float32)
    size = _size(vectors)
    share = (pairs * size + vectors - 1) // vectors
    for group in range(panels.shape[0]):
        panel = (group * panels.shape[1] + begin) * WIDE
        some_grain, ahead = grain[group * WIDE : (group + 1) * WIDE], panel + place[3]
        for v in range(0, vectors, size):
            some = min(v, vectors - size)
            _fetch_rows(flat, 2 * (ahead + v // size * share * WIDE), 2 * WIDE, share)
            _put_squares(size, words, some, place, flat, panel, held)
            for i in range(size):
                line, row = held[i * WIDE : i * WIDE + some_grain.shape[0]], out[some + i, group * WIDE :]
                step = steps[some + i]
                for c in range(some_grain.shape[0]):
                    row[c] = line[c] * step * some_grain[c]


@nb.njit(cache=True)
def _put_squares(size, words, first, place, panels, panel, out):
    at = first * place[0]
    if size == MOST:
        _most_squares(words, at, place[0], place[1], panels, panel, place[2], out, 0, WIDE)
    elif size == SOME:
        _some_squares(words, at, place[0], place[1], panels, panel, place[2], out, 0, WIDE)
    else:
        _one_square(words, at, place[0], place[1], panels, panel, place[2], out, 0, WIDE)


def _squares(x, first, vectors) -> Any:
    raise NotImplementedError("compiled only")


@nb.njit(cache=True, nogil=True)
def squares_of(x, first, vectors):
    """(Words of two int16 squares of x [vectors, pairs of rows], what a step of each vector's is worth).

    The vectors are those from `first` on; squares are rounded to SQUARE steps of a vector's largest and lie as x does.
    """
    return _squares(x, first, vectors)


@overload(_squares)
def _squares_compiled(x, first, vectors):
    return _squares_of_lines if x.layout == "C" else _squares_across


def _squares_of_lines(x, first, vectors):
    rows, pairs = x.shape[1], (x.shape[1] + 1) // 2
    squares, steps = np.zeros((vectors, 2 * pairs), np.int16), np.empty(vectors, np.float32)
    for v in range(vectors):
        line, row = x[first + v], squares[v]
        peak = F(0.0)
        for r in range(rows):
            peak = max(peak, abs(line[r]))
        steps[v] = peak * peak / SQUARE
        scale = F(1.0) / max(steps[v], TINY)
        for r in range(rows):
            row[r] = nb.int16(nb.int32(line[r] * line[r] * scale + HALF))
    return squares.view(np.int32), steps


def _squares_across(x, first, vectors):
    rows, pairs, across = x.shape[1], (x.shape[1] + 1) // 2, x.T
    words, steps = np.zeros((pairs, vectors), np.int32), np.zeros(vectors, np.float32)
    for r in range(rows):
        line = across[r, first : first + vectors]
        for v in range(vectors):
            steps[v] = max(steps[v], abs(line[v]))
    steps = steps * steps / SQUARE
    scales = F(1.0) / np.maximum(steps, TINY)
    for r in range(rows):
        line, word, up = across[r, first : first + vectors], words[r // 2], nb.int32(16 * (r % 2))
        for v in range(vectors):
            word[v] |= nb.int32(line[v] * line[v] * scales[v] + HALF) << up
    return words.T, steps
