"""Triton kernels: a binding's noisy or ideal product, from stored codes to output codes, in one launch.

A program takes a tile of vectors and columns through every read of the binding (row parts, input planes, weight
slices): product, variance, draw, conversion, shift and add stay in registers; only codes go out.  Formulas, constants
and order are those of insitu.base.kernels and insitu.circuit.kernels; tests hold them against both.
"""

# pyright: basic, reportMissingImports=false
# Triton compiles these functions; their arguments are its tensors and pointers.

from __future__ import annotations

import triton
import triton.language as tl

FIELDS = tl.constexpr(
    8
)  # of a read: first row, end row, shift and mask of its plane, weights, tables, name, power of two
ADC, WTM2101, SUM, IDEAL_ADC, IDEAL_WTM2101 = (tl.constexpr(i) for i in range(5))  # what becomes of a column sum
CHANGING = [
    "vectors",
    "least",
    "most",
    "zero",
    "lo",
    "hi",
    "first",
    "time",
    "instance",
    "seed",
    "effect",
    "together",
]  # arguments that no kernel is compiled anew for
QUIET, ALIKE, EACH = (tl.constexpr(i) for i in range(3))  # read noise: none from cells, of all alike, of each its own


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Philox 4x32-10 of uint32 tensors, as insitu.base.random.philox."""
    for _ in tl.static_range(10):  # pyright: ignore
        high0, low0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        high1, low1 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def sine(y):
    """sin(2 pi y) for |y| <= 1/4; coefficients of insitu.base.kernels."""
    z = y * y
    p = ((-14.39413530687116 * z + 42.00980571825849) * z - 76.70428132109757) * z + 81.60522620629897
    return ((p * z - 41.34170211699627) * z + 6.283185307072585) * y


@triton.jit
def radius(word):
    """sqrt(-2 log u) for u = (word + 1/2) / 2**32; coefficients of insitu.base.kernels."""
    u = (word.to(tl.float32) + 0.5) * 2.3283064365386963e-10
    left = ((word ^ 0xFFFFFFFF).to(tl.float32) + 0.5) * 2.3283064365386963e-10  # from 1, where u is near it
    bits = u.to(tl.int32, bitcast=True) + (0x3F800000 - 0x3F3504F3)
    exponent = ((bits >> 23) - 127).to(tl.float32)
    mantissa = ((bits & 0x7FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True)
    f = tl.where(u < 0.70710677, mantissa - 1.0, -left)
    z = f * f
    p = ((7.0376836292e-2 * f - 1.1514610310e-1) * f + 1.1676998740e-1) * f - 1.2420140846e-1
    p = (((p * f + 1.4249322787e-1) * f - 1.6668057665e-1) * f + 2.0000714765e-1) * f - 2.4999993993e-1
    p = (p * f + 3.3333331174e-1) * f
    log = f + (z * p - 0.5 * z) + exponent * 0.6931471805599453
    return tl.sqrt(tl.maximum(-2.0 * log, 0.0))


@triton.jit
def normal(w0, w1, w2, w3, word):
    """The standard normal of element `word` of four random words."""
    odd = (word & 1) == 1
    turn = tl.where(word < 2, w1, w3).to(tl.int32, bitcast=True).to(tl.float32) * 2.3283064365386963e-10
    size = tl.abs(turn)
    folded = tl.where(size > 0.25, 0.5 - size, size)
    place = tl.where(odd, tl.where(turn < 0.0, -folded, folded), 0.25 - size)
    return radius(tl.where(word < 2, w0, w2)) * sine(place)


@triton.jit
def read_normals(vector, column, columns, together, time, name, instance, seed, effect):
    """insitu.base.random.read_normals of vectors (counted over all reads) and columns, int64 tensors that broadcast."""
    run = vector // together
    block = (run // 4) * (together * columns) + (vector % together) * columns + column
    word = (run % 4 + column * 0).to(tl.int32)
    c0 = block.to(tl.uint32)
    none = c0 & 0
    c3 = ((block >> 32) | (instance.to(tl.int64) << 16)).to(tl.uint32)
    k0, k1 = none + seed.to(tl.uint32), none + effect.to(tl.uint32)
    words = philox(c0, none + time.to(tl.uint32), none + name.to(tl.uint32), c3, k0, k1)
    w0, w1, w2, w3 = words  # pyright: ignore
    return normal(w0, w1, w2, w3, word)


@triton.jit
def half_even(value):
    """The nearest whole number, of two the even one."""
    down = tl.floor(value)
    rest = value - down
    odd = down - 2.0 * tl.floor(down * 0.5)
    return down + tl.where((rest > 0.5) | ((rest == 0.5) & (odd == 1.0)), 1.0, 0.0).to(value.dtype)


@triton.jit
def trunc_q2(value):
    """Half up, of a value cut to two fractional bits toward zero."""
    fine = 4.0 * value
    fine = tl.where(fine < 0.0, -tl.floor(-fine), tl.floor(fine))
    return tl.floor((fine + 2.0) * 0.25)


@triton.jit
def driven(codes, row, end, drive, shift, mask, there):
    """Rows of a plane as they are driven, float32 [vectors, rows]; zero beyond the read's rows."""
    x = tl.load(codes, mask=there, other=0).to(tl.float32)
    x = tl.minimum(tl.maximum(x * tl.load(drive) + tl.load(drive + 1), tl.load(drive + 2)), tl.load(drive + 3))
    if mask != 0:
        x = ((x.to(tl.int32) >> shift) & mask).to(tl.float32)
    return tl.where(row < end, x, 0.0)


@triton.jit(do_not_specialize=CHANGING)
def product(
    codes, weights, spread, tables, reads, slopes, drive, bias, factor, out,
    rows, columns, count, vectors, least, most, zero, lo, hi, first, time, instance, seed, effect, together,
    KIND: tl.constexpr, CELLS: tl.constexpr, NOISY: tl.constexpr, REQUANTIZE: tl.constexpr,
    VECTORS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[v, c] = code of stored codes [vectors, rows], through all reads of a binding.

    reads [count, FIELDS] int64, slopes [count]; drive = (scale, add, lo, hi) of stored codes; tables hold four lines of
    `columns` a read: KIND ADC and WTM2101 (gain over step, offset, one over step, variance without inputs), IDEAL_ADC
    (scale of the sum in the first) and IDEAL_WTM2101 (scale and bias in the first two), float64 where ideal.  Codes of
    a converter end at least .. most.  REQUANTIZE: clip(half_even((total + bias[c]) * factor[c]) + zero, lo, hi).
    """
    v = tl.program_id(0).to(tl.int64) * VECTORS + tl.arange(0, VECTORS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    own = c < columns
    there = (v < vectors)[:, None] & own[None, :]
    total = tl.zeros((VECTORS, COLUMNS), tl.int32)
    for number in range(count):
        read = reads + number * FIELDS
        begin, end = tl.load(read).to(tl.int32), tl.load(read + 1).to(tl.int32)
        shift, mask = tl.load(read + 2).to(tl.int32), tl.load(read + 3).to(tl.int32)
        cells, table = tl.load(read + 4), tables + tl.load(read + 5)
        acc = tl.zeros((VECTORS, COLUMNS), tl.float32)
        squares = tl.zeros((VECTORS, COLUMNS), tl.float32)
        even = tl.zeros((VECTORS,), tl.float32)
        for start in range(begin, end, ROWS):
            r = start + tl.arange(0, ROWS)
            held = (v < vectors)[:, None] & (r < end)[None, :]
            x = driven(codes + v[:, None] * rows + r[None, :], r[None, :], end, drive, shift, mask, held)
            at = cells + r[:, None].to(tl.int64) * columns + c[None, :]
            inside = (r < end)[:, None] & own[None, :]
            acc = tl.dot(x, tl.load(weights + at, mask=inside, other=0.0), acc, input_precision="ieee")
            if CELLS == ALIKE:
                even += tl.sum(x * x, axis=1)
            if CELLS == EACH:
                uneven = tl.load(spread + at, mask=inside, other=0.0)
                squares = tl.dot(x * x, uneven, squares, input_precision="ieee")
        if KIND == SUM:
            code = acc.to(tl.int32) * tl.load(read + 6).to(tl.int32)
        elif KIND == IDEAL_ADC:
            scaled = half_even(acc.to(tl.float64) * tl.load(table))
            code = tl.minimum(tl.maximum(scaled, least.to(tl.float64)), most.to(tl.float64)).to(tl.int32)
        elif KIND == IDEAL_WTM2101:
            scale = tl.load(table + c, mask=own, other=0.0)[None, :]
            more = tl.load(table + columns + c, mask=own, other=0.0)[None, :]
            fine = trunc_q2((acc.to(tl.float64) + more) * scale)
            code = tl.minimum(tl.maximum(fine, least.to(tl.float64)), most.to(tl.float64)).to(tl.int32)
        else:
            scale = tl.load(table + c, mask=own, other=0.0)[None, :]
            value = acc * scale + tl.load(table + columns + c, mask=own, other=0.0)[None, :]
            if NOISY:
                inverse = tl.load(table + 2 * columns + c, mask=own, other=0.0)[None, :]
                variance = tl.load(table + 3 * columns + c, mask=own, other=0.0)[None, :]
                variance += tl.load(slopes + number) * (squares + even[:, None])
                name = tl.load(read + 6)
                place, column = (first + v)[:, None], c[None, :].to(tl.int64)
                drawn = read_normals(place, column, columns, together, time, name, instance, seed, effect)
                value += tl.sqrt(variance) * drawn * inverse
            value = half_even(value) if KIND == ADC else trunc_q2(value)
            code = tl.minimum(tl.maximum(value, least.to(tl.float32)), most.to(tl.float32)).to(tl.int32)
        total += code << tl.load(read + 7).to(tl.int32)
    if REQUANTIZE:
        more, scale = tl.load(bias + c, mask=own, other=0.0), tl.load(factor + c, mask=own, other=0.0)
        wide = half_even((total.to(tl.float64) + more[None, :]) * scale[None, :]) + zero.to(tl.float64)
        total = tl.minimum(tl.maximum(wide, lo.to(tl.float64)), hi.to(tl.float64)).to(tl.int32)
    tl.store(out + v[:, None] * columns + c[None, :], total, mask=there)
