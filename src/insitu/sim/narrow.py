"""Column sums to output codes: bias, multiplier and shift per column, rounding, clipping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.isa.program import Post
from insitu.sim.bound import BoundMatrix
from insitu.sim.products import FLOAT64_EXACT

Array = npt.NDArray[Any]
INT64 = np.int64


def finish(bound: BoundMatrix, acc: Array, out: Array) -> Array:
    """`narrow` of a binding's sums [vectors, columns] into `out`, by its own tables."""
    from insitu.sim.kernels import narrow_exact

    post, tables = bound.binding.post, bound.exact_scale
    if tables is None:
        out[...] = narrow(acc, bound.bias, bound.multiplier, bound.shift, post, bound=bound.most)
    else:
        narrow_exact(np.ascontiguousarray(acc), *tables, float(post.zero_point), float(post.lo), float(post.hi), out)
    return out


def narrow(
    acc: Array, bias: Array, multiplier: Array, shift: Array, post: Post, *, bound: int = FLOAT64_EXACT
) -> Array:
    """Requantize column sums [vectors, columns] with a bias, multiplier and shift per column; |acc + bias| < bound."""
    from insitu.sim.kernels import MODES, narrow_exact
    from insitu.sim.kernels import narrow as kernel

    out = np.empty(acc.shape, np.int32)
    if post.rounding == "half_even" and bound * int(multiplier.max(initial=1)) < FLOAT64_EXACT:
        scale = np.ldexp(multiplier.astype(np.float64), -shift.astype(np.int64))
        narrow_exact(
            np.ascontiguousarray(acc), bias.astype(np.float64), scale, float(post.zero_point), float(post.lo),
            float(post.hi), out,
        )  # fmt: skip
        return out
    kernel(
        np.ascontiguousarray(acc), bias, multiplier, shift, MODES[post.rounding], post.zero_point, post.lo, post.hi, out
    )
    return out


def narrower(
    bias: Array, multiplier: Array, shift: Array, post: Post, *, bound: int
) -> Callable[[Array], Array]:  # fmt: skip
    """`narrow` with its tables made once."""
    from insitu.sim.kernels import narrow_exact

    if post.rounding != "half_even" or bound * int(multiplier.max(initial=1)) >= FLOAT64_EXACT:
        return lambda acc: narrow(acc, bias, multiplier, shift, post, bound=bound)
    scale = np.ldexp(multiplier.astype(np.float64), -shift.astype(np.int64))
    given = (bias.astype(np.float64), scale, float(post.zero_point), float(post.lo), float(post.hi))

    def run(acc: Array) -> Array:
        out = np.empty(acc.shape, np.int32)
        narrow_exact(np.ascontiguousarray(acc), *given, out)
        return out

    return run


def narrow_scalar(acc: Array, post: Post) -> Array:
    """Requantize an array with one multiplier and shift."""
    assert isinstance(post.multiplier, int)
    assert isinstance(post.shift, int)
    one = np.array([post.multiplier], INT64)
    flat = np.ascontiguousarray(acc).reshape(-1, 1)
    return narrow(flat, np.zeros(1, INT64), one, np.array([post.shift], INT64), post).reshape(acc.shape)


def trunc_q2(acc: Array, bias: Array, shift: Array, lo: int, hi: int) -> Array:
    """The wtm2101 readout of column sums [vectors, columns]."""
    from insitu.sim.kernels import trunc_q2 as kernel

    out = np.empty(acc.shape, np.int32)
    kernel(np.ascontiguousarray(acc), bias, shift, lo, hi, out)
    return out
