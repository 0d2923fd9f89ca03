"""Weight layers in integers: patches, column sums, readout, requantize (DESIGN 2).  int64 throughout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.graph.graph import Node
from insitu.numeric.affine import Ints, requantize
from insitu.numeric.readout import adc_code, finer_step, wtm2101_code, wtm2101_join
from insitu.numeric.slicing import input_planes, slice_weights

Array = npt.NDArray[Any]
Cut = tuple[slice, ...]
EXACT = 2**53  # whole numbers below are float64 numbers


def spatial_pads(pads: tuple[int, ...]) -> list[tuple[int, int]]:
    """ONNX pads (begins then ends) as one (before, after) pair per axis."""
    half = len(pads) // 2
    return [(pads[i], pads[i + half]) for i in range(half)]


def patches(x: Array, node: Node, *, kernel: tuple[int, ...], pad_value: float) -> Array:
    """Windows of x [S, N, C, *space] as [S, N, *out, C, *kernel], padded with `pad_value`."""
    rank = len(kernel)
    pads = spatial_pads(tuple(node.attr("pads", (0,) * (2 * rank))))
    strides = tuple(node.attr("strides", (1,) * rank))
    dilations = tuple(node.attr("dilations", (1,) * rank))
    padded = np.pad(x, [(0, 0)] * 3 + pads, constant_values=pad_value)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    axes = tuple(range(3, 3 + rank))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
    pick = (slice(None),) * 3 + tuple(slice(None, None, s) for s in strides)
    windows = windows[pick + tuple(slice(None, None, d) for d in dilations)]
    return np.moveaxis(windows, 2, 2 + rank)


def cuts(shape: tuple[int, ...], most: int) -> Iterator[Cut]:
    """Boxes that fill an array of a shape in C order, of at most `most` elements (one, where that is less)."""
    if prod(shape) <= most or not shape:
        yield (slice(None),) * len(shape)
        return
    inner = prod(shape[1:])
    if inner <= most:
        step = max(1, most // max(inner, 1))
        for start in range(0, shape[0], step):
            yield (slice(start, start + step), *(slice(None),) * (len(shape) - 1))
        return
    for index in range(shape[0]):
        for rest in cuts(shape[1:], most):
            yield (slice(index, index + 1), *rest)


def drive_range(node: Node) -> tuple[int, int] | None:
    """The codes rows can be driven with, where codes are transformed on their way to them."""
    if node.attr("readout") == "wtm2101":
        return 0, 255
    given = tuple(node.attr("drive", ()))
    return (int(given[0]), int(given[1])) if given else None


def input_codes(q: Ints, node: Node, *, sign: int = 1) -> Ints:
    """The codes a macro is driven with: clip(sign * ((q << input_shift) + input_offset)) to `drive_range`, else q."""
    bounds = drive_range(node)
    if bounds is None:
        return q
    return np.clip(sign * ((q << node.attr("input_shift", 0)) + node.attr("input_offset", 0)), *bounds)


def block_signs(node: Node) -> tuple[int, ...]:
    """Sign of every block of rows: all the layer's rows again, with input and weight negated where it is -1."""
    return tuple(int(s) for s in node.attr("blocks", ())) or (1,)


def driven_rows(q: Ints, node: Node) -> Ints:
    """Codes q [..., rows] of a layer's inputs as codes [..., blocks * rows] of the rows it takes."""
    signs = block_signs(node)
    return input_codes(q, node) if signs == (1,) else np.concatenate([input_codes(q, node, sign=s) for s in signs], -1)


def programmed_rows(w: Ints, node: Node) -> Ints:
    """Weights [rows, cols] as those of all blocks, [blocks * rows, cols]."""
    signs = block_signs(node)
    return w if signs == (1,) else np.concatenate([s * w for s in signs])


def finer(node: Node, count: int) -> tuple[int, ...]:
    """How many powers of two finer than the layer's step each of `count` row parts is read."""
    return tuple(int(r) for r in node.attr("finer", ())) or (0,) * count


def bias_parts(node: Node, rows: int) -> tuple[int, ...]:
    """Row parts that hold the bias where it lies in the array: the first of every copy that is read on its own."""
    each = rows // max(int(node.attr("apart", 1)), 1)
    return tuple(i for i, part in enumerate(parts_of(node, rows)) if part.start % each == 0)


def column_codes(
    x: Ints, w: Ints, node: Node, *, bias: Ints, gain: Ints | None, post: tuple[Ints, Ints] | None, zero_point: int
) -> Ints:
    """Output codes of x [..., rows] times w [rows, cols]: readout and requantize as the node says.

    `gain` holds G by column (wtm2101), or how many powers of two finer than the layer's step a column is converted.
    """
    lo, hi, kind = int(node.attr("lo")), int(node.attr("hi")), node.attr("readout")
    if kind == "wtm2101":
        assert gain is not None
        return _wtm2101(x, w, node, bias=bias, gain=gain, lo=lo, hi=hi)
    assert post is not None
    acc = (product(x, w) if kind == "exact" else adc_sum(x, w, node, gain)) + bias
    return requantize(
        acc, post[0], post[1], zero_point=zero_point, lo=lo, hi=hi, rounding=node.attr("rounding", "half_even")
    )


def product(x: Ints, w: Ints) -> Ints:
    """Integers x [..., rows] times w [rows, cols]; in float64 where that holds every sum exactly.

    NumPy multiplies integers without BLAS, many times slower.
    """
    most = int(np.abs(x).max(initial=0)) * int(np.abs(w).sum(axis=-2).max(initial=0))
    if most >= EXACT:
        return x @ w
    return (x.astype(np.float64) @ w.astype(np.float64)).astype(np.int64)


def parts_of(node: Node, rows: int) -> list[slice]:
    """Row ranges whose column sums are read separately."""
    bounds = tuple(node.attr("parts", ())) or (0, rows)
    return [slice(a, b) for a, b in pairwise(bounds)]


def _wtm2101(x: Ints, w: Ints, node: Node, *, bias: Ints, gain: Ints, lo: int, hi: int) -> Ints:
    sums = [product(x[..., part], w[part]) for part in parts_of(node, w.shape[0])]
    return wtm2101_codes(sums, node, rows=w.shape[0], bias=bias, gain=gain, lo=lo, hi=hi)


def wtm2101_codes(
    sums: Sequence[Ints], node: Node, *, rows: int, bias: Ints, gain: Ints, lo: int, hi: int
) -> Ints:  # fmt: skip
    """Codes of the column sums of every row part, without bias, of a layer of `rows` rows."""
    if len(sums) == 1:
        return wtm2101_code(sums[0] + bias, gain, lo=lo, hi=hi)
    k, held, steps = int(node.attr("k", 0)), bias_parts(node, rows), finer(node, len(sums))
    whole = [s + (bias if i in held else 0) for i, s in enumerate(sums)]
    partials = np.stack([wtm2101_code(s, gain >> (k + up)) for s, up in zip(whole, steps, strict=True)])
    return wtm2101_join(partials, k, lo=lo, hi=hi, finer=steps)


def adc_sum(x: Ints, w: Ints, node: Node, finer_columns: Ints | None) -> Ints:
    """Sum of the converter's codes over row parts, input planes and weight slices."""
    if finer_columns is not None and np.unique(finer_columns).size > 1:
        total = np.zeros((*x.shape[:-1], w.shape[1]), np.int64)
        for up in np.unique(finer_columns):
            own = np.flatnonzero(finer_columns == up)
            total[..., own] = adc_sum(x, w[:, own], node, np.full(1, up))
        return total
    more = 0 if finer_columns is None else int(finer_columns.flat[0])
    total = np.zeros((*x.shape[:-1], w.shape[1]), np.int64)
    bits, signed = int(node.attr("adc_bits")), bool(node.attr("adc_signed"))
    parts = parts_of(node, w.shape[0])
    steps = finer(node, len(parts))
    for part, up in zip(parts, steps, strict=True):
        multiplier, shift = finer_step(int(node.attr("adc_m", 1)), int(node.attr("adc_s", 0)), up + more)
        planes = input_planes(
            x[..., part],
            bits=int(node.attr("input_bits", 8)),
            step=int(node.attr("plane_bits", 8)),
            signed=bool(node.attr("input_signed", True)),
        )
        slices = slice_weights(
            w[part], bits=int(node.attr("weight_bits", 7)), step=int(node.attr("slice_bits", 8)),
            shift=int(node.attr("slice_shift", 0)), offset=bool(node.attr("slice_offset", 0)),
        )  # fmt: skip
        for up_x, plane in planes:
            for up_w, digits in slices:
                code = adc_code(product(plane, digits), multiplier, shift, bits=bits, signed=signed)
                total += code << (up_x + up_w + max(steps) - up)
    return total
