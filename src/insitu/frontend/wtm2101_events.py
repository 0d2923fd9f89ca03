"""Operators of the vendor dialect that its processor computes between two values of the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from insitu.frontend.wtm2101_draft import Call, Draft, Value, rounding, spec_of
from insitu.graph.graph import Attr
from insitu.numeric.affine import QuantSpec

MOST = 1 << 15  # products of one step
WIDE = (-(1 << 31), (1 << 31) - 1)
NORM_BITS = 12  # of SumNorm's table: what the element beyond adds to the sum changes no quotient, it settles ties


def product(draft: Draft, call: Call) -> Value:
    """MatMul of two values: sums in 32 bits, then the shift of shift_bit or of the Scale behind it."""
    pair = [draft.values[v] for v in call.node.inputs[:2] if v in draft.values]
    if len(pair) != 2:
        raise call.fault("a constant first input", "a value of the network first; transpose the product otherwise")
    a, b = draft.aligned(pair, name=call.name)
    left, right = draft.shape(a), draft.shape(b)
    if len(left) != len(right) or len(left) < 2 or left[:-2] != right[:-2] or left[-1] != right[-2]:
        raise call.fault(f"a product of {left} and {right}", "[.., M, K] times [.., K, N] with equal leading sizes")
    shift = call.integer("shift_bit", 0) - max(call.gain.bit_length() - 1, 0)
    if abs(shift) > 14:
        raise call.fault(f"a shift of {shift} places", "at most 14")
    peak = max(abs(x * y) for x in (a.lo, a.hi) for y in (b.lo, b.hi))
    if peak * left[-1] << max(shift, 0) >= 1 << 31:
        raise call.fault(f"sums of {left[-1]} products of up to {peak}", "sums below 2^31")
    rows = _step(left, right)
    parts = [_rows(draft, call, (a, b), i, min(i + rows, left[-2]), peak, shift) for i in range(0, left[-2], rows)]
    axis = len(left) - 2
    joined = draft.joined(parts, axis, name=f"{call.name}.joined") if len(parts) > 1 else parts[0]
    return draft.move("Reshape", joined, name=call.name, output=call.output, attrs={"shape": (*left[:-1], right[-1])})


def _step(left: Sequence[int], right: Sequence[int]) -> int:
    """Rows of the first matrix whose products with the second are held at once."""
    each = int(np.prod(left[:-2])) * left[-1] * right[-1]
    return max(1, min(left[-2], MOST // max(each, 1)))


def _rows(draft: Draft, call: Call, pair: tuple[Value, Value], first: int, last: int, peak: int, shift: int) -> Value:
    """Rows first..last of the product: every product of an element, then their sums."""
    (a, b), name = pair, f"{call.name}.{first}"
    (*lead, rows, inner), cols = draft.shape(a), draft.shape(b)[-1]
    axis = len(lead)
    if (first, last) != (0, rows):
        a = draft.cut(a, axis, first, last, name=f"{name}.rows")
    column = draft.move("Reshape", a, name=f"{name}.a", attrs={"shape": (*lead, last - first, inner, 1)})
    table = draft.move("Reshape", b, name=f"{name}.b", attrs={"shape": (*lead, 1, inner, cols)})
    span = QuantSpec(max(peak.bit_length() + 1, 8), signed=True, scale=(1.0,))
    each = draft.arithmetic("Mul", [column, table], -peak, peak, name=f"{name}.products", spec=span)
    attrs: dict[str, Attr] = {
        "axes": (axis + 1,), "keepdims": 0, "multiplier": 1 << max(shift, 0), "shift": max(-shift, 0),
        "rounding": rounding("MatMul"), "lo": call.low, "hi": 127,
    }  # fmt: skip
    return draft.put("ReduceMean", [each], call.low, 127, name=f"{name}.sums", attrs=attrs)


def sum_norm(draft: Draft, call: Call) -> Value:
    """X over the sum of x along an axis, in units of 1/256 as Softmax has it; 0 where the sum is 0.

    It is a Softmax whose table is linear, table[largest - x] = x: an element beyond all codes is the largest one, and
    takes next to nothing off the sum, so that exact halves go up and a sum of 0 divides nothing.
    """
    x, out = draft.values[call.node.inputs[0]], call.number("scale_out", 1 / 256)
    shape, axis = draft.shape(x), call.integer("axis", -1)
    if x.lo < 0 or not 1 / 257 < out < 1 / 254 or call.number("scale_in", 1.0) <= 0:
        got = f"inputs of {x.lo} to {x.hi}, scale_out = {out:g}"
        raise call.fault(got, "inputs of at least 0 (a Relu before it), and 1/255 or 1/256")
    if not -len(shape) <= axis < len(shape):
        raise call.fault(f"axis {axis} of {len(shape)} dimensions", "one of its dimensions")
    axis, beyond = axis % len(shape), x.hi + 1
    one = tuple(1 if i == axis else d for i, d in enumerate(shape))
    wide = spec_of(-(1 << 15), (1 << 15) - 1)
    shifted = draft.arithmetic("Requantize", [x], x.lo, x.hi, name=f"{call.name}.wide", spec=wide)
    first = draft.cut(shifted, axis, 0, 1, name=f"{call.name}.one")
    zeros: dict[str, Attr] = {"scale_a": 0, "scale_b": beyond}
    unit = draft.constant(f"{call.name}.unit", np.ones((1,) * len(one), np.int8), spec=spec_of(-128, 127))
    end = draft.arithmetic("Add", [first, unit], beyond, beyond, name=f"{call.name}.end", attrs=zeros, spec=wide)
    whole = draft.joined([shifted, end], axis, name=f"{call.name}.whole")
    table = (beyond - np.arange(beyond + 1)) << NORM_BITS
    table[0] = -1
    constant = draft.constant(f"{call.name}.table", table.astype(np.int64))
    attrs: dict[str, Attr] = {"axis": axis, "lo": 0, "hi": 255}
    y = draft.put("Softmax", [whole, constant], 0, 255, name=f"{call.name}.shares", attrs=attrs)
    return draft.cut(y, axis, 0, shape[axis], name=call.name, output=call.output)
