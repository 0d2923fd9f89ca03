"""numba kernels at the borders of a layer: reals to codes and back, symmetric scales."""

# pyright: basic, reportMissingImports=false
# numba infers the types of its kernels from the arrays they are called with.

from __future__ import annotations

import numba as nb
import numpy as np

from insitu.sim.kernels import add_part


@nb.njit(cache=True, nogil=True)
def to_codes(x, inverse, lo, hi, codes):
    """codes[v, r] = clip(half_even(x[v, r] * inverse), lo, hi); float32 in, int8 out."""
    for v in range(x.shape[0]):
        for r in range(x.shape[1]):
            codes[v, r] = nb.int8(nb.int32(min(max(np.rint(x[v, r] * inverse), lo), hi)))


@nb.njit(cache=True, nogil=True)
def to_reals(codes, scale, out):
    """out[v, c] = codes[v, c] * scale in float32."""
    for v in range(codes.shape[0]):
        for c in range(codes.shape[1]):
            out[v, c] = nb.float32(codes[v, c]) * scale


@nb.njit(cache=True, nogil=True)
def noisy_layer(x, inverse, lo, hi, stream, drive, reads, post, scale, out):
    """From reals to reals through a noisy product: `to_codes`, insitu.sim.kernels.noisy_rows, `to_reals` in one."""
    bounds = reads[0]
    total = np.zeros(out.shape, np.int32)
    for index in range(bounds.shape[0] - 1):
        part = np.empty((x.shape[0], bounds[index + 1] - bounds[index]), np.float32)
        _driven(x[:, bounds[index] : bounds[index + 1]], inverse, lo, hi, drive, part)
        add_part(part, index, stream.copy(), reads, total)
    bias, factor, zero, least, most = post
    for v in range(out.shape[0]):
        _real(total[v], bias, factor, zero, least, most, scale, out[v])


@nb.njit(cache=True, inline="always")
def _driven(x, inverse, lo, hi, drive, out):
    factor, add, least, most = drive
    for v in range(x.shape[0]):
        for r in range(x.shape[1]):
            code = min(max(np.rint(x[v, r] * inverse), lo), hi)
            out[v, r] = min(max(code * factor + add, least), most)


@nb.njit(cache=True, inline="always")
def _real(total, bias, factor, zero, least, most, scale, out):
    for c in range(total.shape[0]):
        code = min(max(np.rint((nb.float64(total[c]) + bias[c]) * factor[c]) + zero, least), most)
        out[c] = nb.float32(code) * scale
