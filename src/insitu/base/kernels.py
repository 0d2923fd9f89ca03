"""numba kernels of the random streams: Philox words and standard normals in float32, many at a time.

They are written so that LLVM turns each loop into vector instructions: no branches, 32 x 32 -> 64-bit products, and
polynomials instead of library calls.  Words are those of insitu.base.random bit for bit; normals differ from its
float64 ones by less than 1e-6 (tests/base/test_kernels.py).
"""

# pyright: basic, reportMissingImports=false
# numba infers the types of its kernels from the arrays they are called with.

from __future__ import annotations

import math
from typing import Any

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic

F = np.float32
TURN = F(2.0**-32)  # one step of a word, as a share of its range
HALF, ONE, QUARTER, LN2 = F(0.5), F(1.0), F(0.25), F(0.6931471805599453)
SQRT_HALF = F(0.70710677)
RUN = 512  # blocks of four normals at a time
# log(1 + f) for sqrt(1/2) <= 1 + f < sqrt(2): the coefficients of logf in Moshier's Cephes library (netlib)
L0, L1, L2, L3, L4, L5, L6, L7, L8 = (
    F(c) for c in (
        7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
        2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )
)  # fmt: skip
# sin(2 pi y) / y in powers of y**2 for |y| <= 1/4: least squares at Chebyshev points, error below 3e-11
S0, S1, S2, S3, S4, S5 = (F(c) for c in (
    6.283185307072585, -41.34170211699627, 81.60522620629897, -76.70428132109757, 42.00980571825849, -14.39413530687116,
))  # fmt: skip


def _to_int(typing_context, value):
    """The bits of a float32 as an int32."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(types.int32))

    return types.int32(types.float32), generate


def _to_float(typing_context, value):
    """The float32 of an int32's bits."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


_as_int: Any = intrinsic(_to_int)
_as_float: Any = intrinsic(_to_float)


@nb.njit(cache=True, inline="always")
def _philox(c0, c1, c2, c3, k0, k1):
    """Philox 4x32-10, as insitu.base.random.philox; words in the low halves of 64 bits, anything in the high ones.

    Only factors are masked: the machine's product of two low halves ignores the high ones, so that costs nothing.
    """
    mask = nb.uint64(0xFFFFFFFF)
    shift = nb.uint64(32)
    for _ in range(10):
        p0 = (c0 & mask) * nb.uint64(0xD2511F53)
        p1 = (c2 & mask) * nb.uint64(0xCD9E8D57)
        c0 = (p1 >> shift) ^ c1 ^ k0
        c1 = p1
        c2 = (p0 >> shift) ^ c3 ^ k1
        c3 = p0
        k0 = (k0 + nb.uint64(0x9E3779B9)) & mask
        k1 = (k1 + nb.uint64(0xBB67AE85)) & mask
    return c0, c1, c2, c3


@nb.njit(cache=True, inline="always", fastmath={"contract"})
def _radius(word):
    """sqrt(-2 log u) for u = (word + 1/2) / 2**32; near u = 1 the distance from 1 is taken from the word itself."""
    u = (nb.float32(word) + HALF) * TURN
    left = (nb.float32(nb.uint32(~word)) + HALF) * TURN
    bits = _as_int(u) + nb.int32(0x3F800000 - 0x3F3504F3)
    exponent = nb.float32((bits >> nb.int32(23)) - nb.int32(127))
    mantissa = _as_float((bits & nb.int32(0x7FFFFF)) + nb.int32(0x3F3504F3))
    f = mantissa - ONE if u < SQRT_HALF else -left
    z = f * f
    p = ((((((((L0 * f + L1) * f + L2) * f + L3) * f + L4) * f + L5) * f + L6) * f + L7) * f) + L8
    log = f + (f * z * p - HALF * z) + exponent * LN2
    return math.sqrt(max(F(-2.0) * log, F(0.0)))


@nb.njit(cache=True, inline="always", fastmath={"contract"})
def _sine(y):
    """sin(2 pi y) for |y| <= 1/4."""
    z = y * y
    return (((((S5 * z + S4) * z + S3) * z + S2) * z + S1) * z + S0) * y


@nb.njit(cache=True, inline="always", fastmath={"contract"})
def _circle(word):
    """(cos, sin) of the word's share of a full turn; the half step of 2**-33 turns is below float32."""
    turn = nb.float32(nb.int32(word)) * TURN
    size = abs(turn)
    sine = _sine(HALF - size if size > QUARTER else size)
    return _sine(QUARTER - size), (-sine if turn < F(0.0) else sine)


@nb.njit(cache=True, nogil=True)
def fill_words(out0, out1, out2, out3, first, time, macro, instance, seed, effect):
    """out_k[i] = word k of block first + i of the stream that insitu.base.random draws from; uint32, contiguous."""
    mask = nb.uint64(0xFFFFFFFF)
    for i in range(out0.shape[0]):
        block = nb.uint64(first) + nb.uint64(i)
        high = (block >> nb.uint64(32)) | (nb.uint64(instance) << nb.uint64(16))
        w0, w1, w2, w3 = _philox(
            block & mask, nb.uint64(time), nb.uint64(macro), high, nb.uint64(seed), nb.uint64(effect)
        )
        out0[i], out1[i] = nb.uint32(w0), nb.uint32(w1)
        out2[i], out3[i] = nb.uint32(w2), nb.uint32(w3)


@nb.njit(cache=True, nogil=True, fastmath={"contract"})
def to_normals(radii, turns, cosines, sines):
    """Two standard normals of each pair of words by Box and Muller; uint32 in, float32 out, contiguous."""
    for i in range(radii.shape[0]):
        radius = _radius(radii[i])
        cosine, sine = _circle(turns[i])
        cosines[i] = radius * cosine
        sines[i] = radius * sine


@nb.njit(cache=True, nogil=True)
def fill_normals(words, normals, count, first, time, macro, instance, seed, effect):
    """normals[k, :count] = the normals of words k of blocks first ..; words and normals are [4, at least count]."""
    w0, w1, w2, w3 = words[0, :count], words[1, :count], words[2, :count], words[3, :count]
    fill_words(w0, w1, w2, w3, first, time, macro, instance, seed, effect)
    to_normals(w0, w1, normals[0, :count], normals[1, :count])
    to_normals(w2, w3, normals[2, :count], normals[3, :count])


@nb.njit(cache=True, nogil=True)
def standard_normals(out, seed, key):
    """Fill flat float32 `out` with standard normals of a stream of its own, in an order of its own."""
    words = np.empty((4, RUN), np.uint32)
    whole = out.size // (4 * RUN)
    for i in range(whole):
        fill_normals(words, out[4 * RUN * i : 4 * RUN * (i + 1)].reshape(4, RUN), RUN, i * RUN, 0, 0, 0, seed, key)
    rest = np.empty((4, RUN), np.float32)
    fill_normals(words, rest, RUN, whole * RUN, 0, 0, 0, seed, key)
    out[4 * RUN * whole :] = rest.reshape(4 * RUN)[: out.size - 4 * RUN * whole]
