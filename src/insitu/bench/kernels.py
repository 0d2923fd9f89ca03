"""numba kernels at the borders of a layer: reals to codes and back, symmetric scales."""

# pyright: basic, reportMissingImports=false
# numba infers the types of its kernels from the arrays they are called with.

from __future__ import annotations

import numba as nb
import numpy as np

from insitu.runtime.kernels import together
from insitu.sim.kernels import noisy_rows


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
def noisy_layer(board, bounds, x, inverse, lo, hi, stream, drive, reads, post, scale, out):
    """From reals to reals through a noisy product: `to_codes`, insitu.sim.kernels.noisy_rows, `to_reals`.

    Blocks of vectors with those bounds are dealt out among the threads at the board (insitu.runtime.kernels).
    """
    given = (bounds, x, inverse, lo, hi, stream, drive, reads, post, scale, out)
    together(board, _noisy_block, given, bounds.shape[0] - 1)


@nb.njit(cache=True)
def _noisy_block(given, index):
    bounds, x, inverse, lo, hi, stream, drive, reads, post, scale, out = given
    first, end = bounds[index], bounds[index + 1]
    codes, found = np.empty((end - first, x.shape[1]), np.int8), np.empty((end - first, out.shape[1]), np.int32)
    own = stream.copy()
    own[0] += first
    to_codes(x[first:end], inverse, lo, hi, codes)
    noisy_rows(codes, found, own, drive, reads, post)
    to_reals(found, scale, out[first:end])
