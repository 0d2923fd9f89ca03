"""numba kernels of products whose vectors lie side by side in memory: windows are read where they are.

A tile of columns and vectors is held in registers while the rows go by; the map was made float once.  Values are whole
numbers that float32 holds, so the order of additions changes nothing.
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
from numba.extending import intrinsic

from insitu.sim.kernels import store_ideal

LANES, COLUMNS, VECTORS = 8, 6, 2  # of a tile: elements of a vector, columns, vectors; 12 sums fill the registers


def _tile_of(typing_context, weights, at, plane, rows, left, right, out, here, there, pitch):
    """out[m * pitch + here + i] = sum over k of weights[at + k, m] * plane[rows[k] + left + i]; there and right too."""

    def generate(context, builder, signature, args):
        kinds = dict(zip(("weights", "plane", "rows", "out"), (signature.args[i] for i in (0, 2, 3, 6)), strict=True))
        values = dict(zip(kinds, (args[i] for i in (0, 2, 3, 6)), strict=True))
        held = {n: cgutils.create_struct_proxy(kinds[n])(context, builder, values[n]) for n in kinds}
        at, (left, right), (here, there), pitch = args[1], args[4:6], args[7:9], args[9]
        vector = ir.VectorType(ir.FloatType(), LANES)

        def vector_at(base, index):
            return builder.bitcast(builder.gep(base, [index]), vector.as_pointer())

        sums = [[cgutils.alloca_once_value(builder, vector(None)) for _ in range(VECTORS)] for _ in range(COLUMNS)]
        count = builder.extract_value(held["rows"].shape, 0)
        with cgutils.for_range(builder, count) as loop:
            row = builder.load(builder.gep(held["rows"].data, [loop.index]))
            x = [builder.load(vector_at(held["plane"].data, builder.add(row, b)), align=4) for b in (left, right)]
            panel = builder.add(at, builder.mul(loop.index, loop.index.type(COLUMNS)))
            for m, pair in enumerate(sums):
                w = builder.load(builder.gep(held["weights"].data, [builder.add(panel, panel.type(m))]))
                one = builder.insert_element(vector(ir.Undefined), w, ir.IntType(32)(0))
                wide = builder.shuffle_vector(one, vector(ir.Undefined), ir.VectorType(ir.IntType(32), LANES)(None))
                for place, lane in zip(pair, x, strict=True):
                    product = builder.fmul(wide, lane, flags=("contract",))
                    builder.store(builder.fadd(builder.load(place), product, flags=("contract",)), place)
        for m, pair in enumerate(sums):
            for place, start in zip(pair, (here, there), strict=True):
                index = builder.add(start, builder.mul(pitch, pitch.type(m)))
                builder.store(builder.load(place), vector_at(held["out"].data, index), align=4)
        return context.get_dummy_value()

    return types.void(weights, at, plane, rows, left, right, out, here, there, pitch), generate


_tile: Any = intrinsic(_tile_of)


@nb.njit(cache=True)
def _made_float(memory, flip, start, drive, plane):
    scale, add, lo, hi = drive
    words = memory[start : start + plane.shape[0]]
    for i in range(words.shape[0]):
        code = nb.float32((nb.int32(words[i]) ^ flip) - flip)
        plane[i] = min(max(code * scale + add, lo), hi)


@nb.njit(cache=True, nogil=True)
def direct_lines(blocks, source, low, high, drive, panels, converter, post, target):
    """insitu.sim.kernels.ideal_lines of lines without steps, at least LANES long.

    Elements of a sample lie at low .. high from its start; panels [columns up to a multiple of COLUMNS / COLUMNS, rows,
    COLUMNS] are the weights, zero where there is no column.
    """
    memory, flip, start, pitch, rows, runs, length, _ = source
    vectors = (blocks[:, 1] * (blocks[:, 3] - blocks[:, 2])).max()
    plane, flat = np.empty(high - low, np.float32), panels.reshape(panels.size)
    groups, span = panels.shape[0], rows.shape[0] * COLUMNS
    sums = np.empty(groups * COLUMNS * vectors, np.float32)
    columns = target[4].shape[0]
    offsets = rows - low
    held = -1
    for i in range(blocks.shape[0]):
        first, samples, begin, end = blocks[i]
        each = end - begin
        count = samples * each
        for s in range(samples):
            if held != first + s:
                held = first + s
                _made_float(memory, flip, start + held * pitch + low, drive, plane)
            for j in range(begin // length, end // length):
                place = s * each + j * length - begin
                for v in range(0, length, 2 * LANES):
                    left = min(v, length - LANES)
                    right = min(v + LANES, length - LANES)
                    for g in range(groups):
                        here = g * COLUMNS * count + place
                        _tile(
                            flat, g * span, plane, offsets, runs[j] + left, runs[j] + right, sums, here + left,
                            here + right, count,
                        )  # fmt: skip
        acc = sums[: columns * count].reshape(columns, count)
        store_ideal(acc, converter, post, target, first, samples, begin, end)
