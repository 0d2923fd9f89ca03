"""Numbers to codes and back where the scale is a value of the run: what DQ, Q and QDYN compute, in float32.

As ONNX's QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear, of which the last covers unsigned codes only;
signed codes are symmetric, so that a row of int8 needs no zero point.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.numeric.vector import convert

Array = npt.NDArray[Any]


def to_codes(x: Array, scale: Array, zero: Array, dtype: npt.DTypeLike) -> Array:
    """clip(half_even(x / scale) + zero) to the range of `dtype`; scale and zero broadcast against x."""
    limits = np.iinfo(np.dtype(dtype))  # type: ignore[type-var]
    with np.errstate(all="ignore"):
        code = np.rint(x / scale) + zero.astype(np.float32)
    return convert(np.clip(code, np.float32(limits.min), np.float32(limits.max)), dtype)


def to_numbers(codes: Array, scale: Array, zero: Array) -> Array:
    """(codes - zero) * scale."""
    with np.errstate(all="ignore"):
        return (codes.astype(np.int32) - zero.astype(np.int32)).astype(np.float32) * scale


def dynamic_range(x: Array, dtype: npt.DTypeLike) -> tuple[Array, Array]:
    """(scale, zero) of float32 data [.., n], one of each per row, for codes of `dtype`; scale 1 where all is 0."""
    limits = np.iinfo(np.dtype(dtype))  # type: ignore[type-var]
    with np.errstate(all="ignore"):
        if limits.min < 0:
            top = np.abs(x).max(axis=-1)
            scale = np.where(top == 0, np.float32(1), top / np.float32(limits.max))
            return scale, np.zeros(scale.shape, dtype)
        low, high = np.minimum(x.min(axis=-1), np.float32(0)), np.maximum(x.max(axis=-1), np.float32(0))
        scale = np.where(high == low, np.float32(1), (high - low) / np.float32(limits.max))
        return scale, convert(np.rint(np.clip(-low / scale, np.float32(0), np.float32(limits.max))), dtype)
