"""How signed codes reach the unsigned rows of an array: x + 128, two rows x and -x, or both side by side.

All give the same integers.  What a region can hold in none of these ways becomes several layers whose codes are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import numpy as np

from insitu.frontend.wtm2101_draft import Call, Draft, Value, limit, spec_of
from insitu.frontend.wtm2101_options import ArrayOptions
from insitu.graph.graph import Attr
from insitu.numeric.affine import Ints

OFFSET = 128
MOST_BLOCKS = 64
Span = tuple[int, int, int]  # sign, first input, end


@dataclass(frozen=True)
class Matrix:
    """Weights of one array: [rows, cols], or [O, I / group, *kernel] with the attributes of a convolution."""

    weights: Ints
    bias: Ints
    gain: int
    conv: Mapping[str, Attr] | None = None

    @property
    def inputs(self) -> int:
        """The axis that counts inputs."""
        return 0 if self.conv is None else 1

    @property
    def group(self) -> int:
        """Groups of a convolution."""
        return 1 if self.conv is None else int(self.conv.get("group", 1))  # pyright: ignore[reportArgumentType]

    @property
    def rows(self) -> int:
        """Rows of the array that one matrix takes."""
        return self.weights.shape[0] if self.conv is None else prod(self.weights.shape[1:])

    def sums(self) -> Ints:
        """Sum of the weights of each output."""
        return self.weights.sum(axis=0 if self.conv is None else tuple(range(1, self.weights.ndim)))

    def part(self, first: int, end: int) -> Matrix:
        """The inputs first..end; the bias stays with the first of all."""
        cells = np.take(self.weights, range(first, end), axis=self.inputs)
        return replace(self, weights=cells, bias=self.bias if first == 0 else np.zeros_like(self.bias))


@dataclass(frozen=True)
class Drive:
    """What drives the rows: the value, which inputs its rows stand for, bias, and attributes of the layer."""

    x: Value
    spans: tuple[Span, ...]
    bias: Ints
    attrs: dict[str, Attr]

    def cells(self, weights: Ints, axis: int) -> Ints:
        """The rows of cells for weights."""
        parts = [sign * np.take(weights, range(first, end), axis=axis) for sign, first, end in self.spans]
        return np.concatenate(parts, axis=axis)


def driven(
    draft: Draft, call: Call, x: Value, matrix: Matrix, options: ArrayOptions, *, name: str, pieces: int
) -> Drive:
    """The value that drives the rows of a layer; each of `pieces` matrices is driven alike."""
    attrs: dict[str, Attr] = {"input_shift": options.input_shift} if options.input_shift else {}
    axis = draft.frame_axis(x) if matrix.conv is None else 1
    size = matrix.weights.shape[matrix.inputs]
    both = (_both(call, x, matrix, options, pieces) if x.lo < 0 else None) or (0, 0)
    if x.lo >= 0:
        return Drive(_repeated(draft, [x], pieces, axis, name), ((1, 0, size),), matrix.bias, attrs)
    if both == (0, 0):
        bias = matrix.bias - OFFSET * matrix.sums()
        attrs["input_offset"] = OFFSET
        return Drive(_repeated(draft, [x], pieces, axis, name), ((1, 0, size),), bias, attrs)
    if both == (0, size):
        pair = halves(draft, x, name)
        return Drive(_repeated(draft, pair, pieces, axis, name), ((1, 0, size), (-1, 0, size)), matrix.bias, attrs)
    return _mixed(draft, x, matrix, both, axis=axis, name=name, pieces=pieces)


def _mixed(
    draft: Draft, x: Value, matrix: Matrix, both: tuple[int, int], *, axis: int, name: str, pieces: int
) -> Drive:
    """Two rows for the inputs `both`, x + 128 for those before and behind."""
    (first, end), size = both, draft.shape(x)[axis]
    spec = spec_of(0, 255)
    unit = draft.constant(f"{name}.unit", np.ones((1,), np.int8), spec=spec_of(-128, 127))
    scales: dict[str, Attr] = {"scale_a": 1, "scale_b": OFFSET}
    parts: list[Value] = []
    spans: list[Span] = []
    for a, b in ((0, first), (end, size)):
        if a < b:
            cut = draft.cut(x, axis, a, b, name=f"{name}.shifted{a}")
            shifted = draft.arithmetic(
                "Add", [cut, unit], x.lo + OFFSET, x.hi + OFFSET, name=f"{name}.bytes{a}", attrs=scales, spec=spec
            )
            parts.append(_padded(draft, shifted, matrix, OFFSET, name=f"{name}.padded{a}"))
            spans.append((1, a, b))
    pair = halves(draft, draft.cut(x, axis, first, end, name=f"{name}.both"), name)
    parts += [_padded(draft, h, matrix, 0, name=f"{name}.padded_{i}") for i, h in enumerate(pair)]
    spans += [(1, first, end), (-1, first, end)]
    bias = matrix.bias - OFFSET * (matrix.sums() - _each(matrix)[first:end].sum(axis=0))
    attrs: dict[str, Attr] = {} if matrix.conv is None else {"pads": (0,) * len(_pads(matrix))}
    return Drive(_repeated(draft, parts, pieces, axis, name), tuple(spans), bias, attrs)


def _pads(matrix: Matrix) -> tuple[int, ...]:
    return () if matrix.conv is None else tuple(matrix.conv.get("pads", ()))  # pyright: ignore[reportArgumentType]


def _padded(draft: Draft, x: Value, matrix: Matrix, code: int, *, name: str) -> Value:
    """A map with the convolution's own padding around it, in the codes that a zero has become."""
    pads = _pads(matrix)
    if not any(pads):
        return x
    half = len(pads) // 2
    attrs: dict[str, Attr] = {"pads": (0, 0, *pads[:half], 0, 0, *pads[half:]), "code": code, "value": 0.0}
    return draft.move("Pad", x, name=name, attrs=attrs)


def _each(matrix: Matrix) -> Ints:
    """Sums of the weights of every input [inputs, outputs]."""
    return matrix.weights if matrix.conv is None else matrix.weights.sum(axis=tuple(range(2, matrix.weights.ndim))).T


def halves(draft: Draft, x: Value, name: str) -> list[Value]:
    """A signed value as two that are not: max(x, 0) and max(-x, 0)."""
    spec = spec_of(0, 255)
    turned: dict[str, Attr] = {"scale_a": -1, "scale_b": 0}
    return [
        draft.arithmetic("Requantize", [x], 0, x.hi, name=f"{name}.positive", spec=spec),
        draft.arithmetic("Add", [x, x], 0, -x.lo, name=f"{name}.negative", attrs=turned, spec=spec),
    ]


def _repeated(draft: Draft, parts: list[Value], count: int, axis: int, name: str) -> Value:
    every = parts * count
    return every[0] if len(every) == 1 else draft.joined(every, axis, name=f"{name}.rows")


# which way


def blocks(call: Call, x: Value, matrix: Matrix, options: ArrayOptions, pieces: int) -> tuple[int, ...]:
    """Bounds of the fewest equal parts of signed inputs each of which a region holds; () where it holds all at once."""
    size = matrix.weights.shape[matrix.inputs]
    if matrix.group > 1:
        return ()
    for count in range(1, min(size, MOST_BLOCKS) + 1):
        bounds = tuple(i * (size // count) + min(i, size % count) for i in range(count + 1))
        parts = (matrix.part(a, b) for a, b in pairwise(bounds))
        if all(_both(call, x, part, options, pieces) is not None for part in parts):
            return bounds if count > 1 else ()
    got = f"{matrix.rows:,} rows of signed inputs whose weights do not add up to what bias rows can make good"
    raise call.fault(got, "smaller weights, inputs of at least 0, or less bias")


def _both(call: Call, x: Value, matrix: Matrix, options: ArrayOptions, pieces: int) -> tuple[int, int] | None:
    """The inputs that take two rows, x and -x, while the others are x + 128: whatever needs less of the array.

    None where a region can hold it in no way.
    """
    reach, rows = limit("bias_unit") * limit("cell"), matrix.rows * pieces
    need = int(np.abs(matrix.bias - OFFSET * matrix.sums()).max(initial=0))
    plain = int(np.abs(matrix.bias).max(initial=0))
    span = (x.lo << options.input_shift, x.hi << options.input_shift)
    within = span[0] >= -OFFSET and span[1] < OFFSET
    possible = within and need <= reach * limit("bias_rows")
    if matrix.group > 1 and not possible:
        raise call.fault(f"a grouped convolution of inputs {x.lo} to {x.hi}", "inputs of -128 to 127")
    possible = possible and (rows <= limit("rows") or matrix.group > 1)
    size = matrix.weights.shape[matrix.inputs]
    if matrix.group > 1 or (options.signed_input == -1 and possible):
        return (0, 0)
    if 2 * rows <= limit("rows"):
        asked = options.signed_input is not None and options.signed_input > 0
        cheaper = _share(2 * rows, -(-plain // reach)) < _share(rows, -(-need // reach))
        return (0, size) if asked or not possible or cheaper else (0, 0)
    if possible:
        return (0, 0)
    return _window(matrix, pieces) if within and not options.input_shift else None


def _window(matrix: Matrix, pieces: int) -> tuple[int, int] | None:
    """The shortest run of inputs with two rows each that leaves a bias which the bias rows hold for the others."""
    each, most = _each(matrix), limit("bias_unit") * limit("cell") * limit("bias_rows")
    sums = np.concatenate([np.zeros((1, each.shape[1]), np.int64), np.cumsum(each, axis=0)])
    length, rows = 1, matrix.rows // len(each) * pieces
    while (len(each) + length) * rows <= limit("rows"):
        rest = sums[-1] - (sums[length:] - sums[:-length])
        fits = (np.abs(matrix.bias - OFFSET * rest) <= most).all(axis=1)
        if fits.any():
            first = int(np.argmax(fits))
            return (first, first + length)
        length += max(1, length // 4)
    return None


def _share(rows: int, bias_rows: int) -> int:
    """Rows of the column that a block takes away from others: its own, or those that lose their bias rows."""
    return max(rows, bias_rows * 2 * limit("rows") // limit("bias_rows"))
