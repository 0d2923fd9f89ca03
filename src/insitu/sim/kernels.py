"""numba kernels of the functional simulator: wide results to codes in one pass over memory."""

# pyright: basic, reportMissingImports=false
# numba infers the types of its kernels from the arrays they are called with.

from __future__ import annotations

import math

import numba as nb
import numpy as np

FLOOR, TRUNC, HALF_UP, HALF_AWAY, HALF_EVEN, TRUNC_Q2 = range(6)
MODES = {
    "floor": FLOOR, "trunc": TRUNC, "half_up": HALF_UP, "half_away": HALF_AWAY, "half_even": HALF_EVEN,
    "trunc_q2": TRUNC_Q2,
}  # fmt: skip


@nb.njit(cache=True, inline="always")
def _round_shift(value, shift, mode):
    if shift == 0:
        return value
    quotient = value >> shift
    rest = value - (quotient << shift)
    if mode == FLOOR or rest == 0:
        return quotient
    if mode == TRUNC:
        return quotient + 1 if value < 0 else quotient
    half = 1 << (shift - 1)
    if mode == TRUNC_Q2:  # half up, of a value cut to two fractional bits toward zero
        quarter = rest >> (shift - 2) if shift > 1 else rest << (2 - shift)
        if value < 0 and shift > 1 and rest & ((1 << (shift - 2)) - 1):
            quarter += 1
        return quotient + (quarter >= 2)
    if rest > half:
        return quotient + 1
    if rest < half:
        return quotient
    if mode == HALF_UP or (mode == HALF_AWAY and value > 0) or (mode == HALF_EVEN and quotient & 1):
        return quotient + 1
    return quotient


@nb.njit(cache=True, nogil=True)
def narrow(acc, bias, multiplier, shift, mode, zero, lo, hi, out):
    """out[i, c] = clip(round((acc[i, c] + bias[c]) * multiplier[c] / 2**shift[c]) + zero, lo, hi)."""
    for i in range(acc.shape[0]):
        for c in range(acc.shape[1]):
            value = (nb.int64(acc[i, c]) + bias[c]) * multiplier[c]
            code = _round_shift(value, shift[c], mode) + zero
            out[i, c] = min(max(code, lo), hi)


@nb.njit(cache=True, nogil=True)
def trunc_q2(acc, bias, shift, lo, hi, out):
    """out[i, c] = clip((trunc(4 (acc + bias) / 2**shift) + 2) >> 2, lo, hi): the wtm2101 readout, shift >= 2."""
    for i in range(acc.shape[0]):
        for c in range(acc.shape[1]):
            fine = _round_shift(nb.int64(acc[i, c]) + bias[c], shift[c] - 2, TRUNC)
            out[i, c] = min(max((fine + 2) >> 2, lo), hi)


@nb.njit(cache=True, nogil=True)
def add_codes(acc, multiplier, shift, lo, hi, up, total):
    """total[i, c] += clip(half_even(acc[i, c] * multiplier / 2**shift), lo, hi) << up: an ideal converter's codes."""
    for i in range(acc.shape[0]):
        for c in range(acc.shape[1]):
            code = _round_shift(nb.int64(acc[i, c]) * multiplier, shift, HALF_EVEN)
            total[i, c] += min(max(code, lo), hi) << up


@nb.njit(cache=True, inline="always")
def _philox(c0, c1, c2, c3, k0, k1):
    """Philox 4x32-10, as insitu.base.random.philox."""
    mask = nb.uint64(0xFFFFFFFF)
    shift = nb.uint64(32)
    for _ in range(10):
        p0 = c0 * nb.uint64(0xD2511F53)
        p1 = c2 * nb.uint64(0xCD9E8D57)
        c0 = (p1 >> shift) ^ c1 ^ k0
        c1 = p1 & mask
        c2 = (p0 >> shift) ^ c3 ^ k1
        c3 = p0 & mask
        k0 = (k0 + nb.uint64(0x9E3779B9)) & mask
        k1 = (k1 + nb.uint64(0xBB67AE85)) & mask
    return c0, c1, c2, c3


@nb.njit(cache=True, inline="always")
def _pair(a, b):
    """Two normals of two words by Box-Muller, as insitu.base.random."""
    radius = math.sqrt(-2.0 * math.log((nb.float64(a) + 0.5) * 2.0**-32))
    angle = 2.0 * math.pi * ((nb.float64(b) + 0.5) * 2.0**-32)
    return radius * math.cos(angle), radius * math.sin(angle)


@nb.njit(cache=True, nogil=True)
def fill_normals(out, first, time, macro, instance, seed, effect):
    """out[i] = element first + i of the stream insitu.base.random.normal draws from."""
    count = out.shape[0]
    mask = nb.uint64(0xFFFFFFFF)
    block = first // 4
    done = nb.int64(4 * block - first)
    while done < count:
        high = (nb.uint64(block) >> nb.uint64(32)) | (nb.uint64(instance) << nb.uint64(16))
        w0, w1, w2, w3 = _philox(
            nb.uint64(block) & mask, nb.uint64(time), nb.uint64(macro), high, nb.uint64(seed), nb.uint64(effect)
        )
        n0, n1 = _pair(w0, w1)
        n2, n3 = _pair(w2, w3)
        for k in range(4):
            i = done + k
            if 0 <= i < count:
                out[i] = n0 if k == 0 else n1 if k == 1 else n2 if k == 2 else n3
        done += 4
        block += 1


@nb.njit(cache=True, nogil=True)
def noisy_codes(acc, squares, gain, offset, step, slope, floor, stream, kind, lo, hi, out):
    """Codes of analog column sums: gain, read noise of variance slope*squares + floor, offset, readout `kind`.

    kind 0 rounds half to even (adc), 1 keeps two fractional bits toward zero, then half up (wtm2101).
    stream = (first element, time, macro, instance, seed, effect); element n * columns + c belongs to vector n.
    """
    rows, cols = acc.shape
    chunk = 256
    noisy = slope > 0.0 or floor.max() > 0.0
    wide = squares.shape[1] > 1
    for part in range((rows + chunk - 1) // chunk):
        begin, end = part * chunk, min(rows, (part + 1) * chunk)
        normals = np.empty((end - begin) * cols, np.float32)
        if noisy:
            fill_normals(normals, stream[0] + begin * cols, stream[1], stream[2], stream[3], stream[4], stream[5])
        for i in range(begin, end):
            for c in range(cols):
                signal = nb.float64(acc[i, c]) * gain[c]
                if noisy:
                    signal += (
                        math.sqrt(slope * squares[i, c if wide else 0] + floor[c]) * normals[(i - begin) * cols + c]
                    )
                value = signal / step[c] + offset[c]
                if kind == 1:
                    code = math.floor((math.trunc(4.0 * value) + 2.0) / 4.0)
                else:
                    code = np.rint(value)
                out[i, c] = min(max(code, lo), hi)
