"""Weights beyond a cell in the vendor's mixed and digital modes: what the array cannot hold is summed by the processor.

MIX: W = L + 256 H with L in -128..127.  The array reads x.L + b at G, the processor adds round(256 x.H / G).
DIG: all of x.W + b, divided by G as the array would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product as every
from math import prod

import numpy as np

from insitu.frontend.wtm2101_draft import Call, Draft, Value, spec_of
from insitu.frontend.wtm2101_drive import Matrix
from insitu.graph.graph import Attr
from insitu.numeric.affine import Ints, QuantSpec

HALF = 1 << 7
MOST = 1 << 16  # products that the processor may hold at once
MOST_MAPS = 1 << 20  # and of a whole convolution, output after output
WIDE = (-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True)
class Digital:
    """What becomes of the sums: (sums * factor + bias) / 2**shift, rounded."""

    factor: int
    shift: int
    rounding: str
    bias: Ints | None = None


def high_part(weights: Ints) -> tuple[Ints, Ints]:
    """(L, H) with weights = L + 256 H and L in -128..127."""
    low = (weights + HALF) % (2 * HALF) - HALF
    return low, (weights - low) // (2 * HALF)


def products(draft: Draft, call: Call, x: Value, matrix: Matrix, *, name: str, after: Digital) -> Value:
    """Sums by the processor over the rows of a matrix, or the taps of a kernel, that hold anything."""
    if matrix.conv is not None:
        return _convolved(draft, call, x, matrix, matrix.conv, name=name, after=after)
    weights = matrix.weights
    rows = np.flatnonzero(weights.any(axis=1))
    rows = rows if rows.size else np.array([0])
    _check(call, x, weights[rows], positions=1, most=MOST)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    axis = draft.frame_axis(x)
    cuts = [draft.cut(x, axis, int(r[0]), int(r[-1]) + 1, name=f"{name}.rows{i}") for i, r in enumerate(runs)]
    picked = cuts[0] if len(cuts) == 1 else draft.joined(cuts, axis, name=f"{name}.rows")
    column = draft.move("Reshape", picked, name=f"{name}.column", attrs={"shape": (1, int(rows.size), 1)})
    total = _sums(draft, column, weights[rows][None], axis=1, name=name)
    return _divided(draft, total, weights.shape[1], name=name, after=after)


def _check(call: Call, x: Value, weights: Ints, *, positions: int, most: int) -> None:
    rows, cols = weights.shape
    if rows * cols * positions > most or rows << _bits(x, weights) >= 1 << 31:
        got = f"{rows} rows of {cols} at {positions} positions with weights that need the processor"
        raise call.fault(got, f"at most {most:,} products: fewer such rows (most of the high part 0), or SIM_MODE")


def _bits(x: Value, weights: Ints) -> int:
    return (max(abs(x.lo), x.hi) * int(np.abs(weights).max(initial=1))).bit_length()


def _sums(draft: Draft, x: Value, weights: Ints, *, axis: int, name: str) -> Value:
    """The products of x and weights, which broadcast, summed along an axis that goes away."""
    bits = _bits(x, weights)
    table = draft.constant(f"{name}.table", weights.astype(np.int32), spec=spec_of(*WIDE))
    peak, span = (1 << bits) - 1, QuantSpec(bits + 1, signed=True, scale=(1.0,))
    each = draft.arithmetic("Mul", [x, table], -peak, peak, name=f"{name}.products", spec=span)
    attrs: dict[str, Attr] = {"axes": (axis,), "keepdims": 0, "multiplier": 1, "shift": 0, "rounding": "floor"}
    return draft.put("ReduceMean", [each], *WIDE, name=f"{name}.sums", attrs=attrs | {"lo": WIDE[0], "hi": WIDE[1]})


def _divided(draft: Draft, total: Value, cols: int, *, name: str, after: Digital) -> Value:
    """What the array would have read of the sums [1, cols, ..]."""
    scale: dict[str, Attr] = {"scale_a": after.factor, "scale_b": 1}
    added = np.zeros(cols, np.int32) if after.bias is None else after.bias.astype(np.int32)
    shape = (1, cols, *(1 for _ in draft.shape(total)[2:]))
    constant = draft.constant(f"{name}.bias", added.reshape(shape), spec=spec_of(*WIDE))
    return draft.arithmetic(
        "Add", [total, constant], -(1 << 15), (1 << 15) - 1, name=f"{name}.digital", rounding=after.rounding,
        shift=after.shift, attrs=scale,
    )  # fmt: skip


# convolutions


def _convolved(
    draft: Draft, call: Call, x: Value, matrix: Matrix, conv: Mapping[str, Attr], *, name: str, after: Digital
) -> Value:
    """A convolution's sums, output after output: inputs of every tap that holds anything, times its weight."""
    padded, space = _padded(draft, x, matrix, conv, name)
    outputs, inputs = matrix.weights.shape[:2]
    flat = matrix.weights.reshape(outputs, -1).T
    _check(call, x, flat, positions=prod(space), most=MOST_MAPS)
    each = outputs // matrix.group
    parts: list[Value] = []
    for group in range(matrix.group):
        weights = matrix.weights[group * each : (group + 1) * each]
        column, rows = _taps(draft, padded, weights, conv, space, first=group * inputs, name=f"{name}.{group}")
        step = max(1, MOST // max(rows.shape[1] * prod(space), 1))
        for at in range(0, each, step):
            part = rows[at : at + step]
            own = f"{name}.{group}.{at}"
            parts.append(_sums(draft, column, part[None, :, :, None], axis=2, name=own))
    total = draft.joined(parts, 1, name=f"{name}.outputs") if len(parts) > 1 else parts[0]
    return _divided(
        draft, draft.move("Reshape", total, name=f"{name}.map", attrs={"shape": (1, outputs, *space)}), outputs,
        name=name, after=after,
    )  # fmt: skip


def _padded(
    draft: Draft, x: Value, matrix: Matrix, conv: Mapping[str, Attr], name: str
) -> tuple[Value, tuple[int, ...]]:
    """The input with zeros around it, and the sizes of the output."""
    pads, strides, dilations = (_numbers(conv, n) for n in ("pads", "strides", "dilations"))
    rank = len(strides)
    if any(pads):
        attrs: dict[str, Attr] = {"pads": (0, 0, *pads[:rank], 0, 0, *pads[rank:]), "code": 0}
        x = draft.move("Pad", x, name=f"{name}.padded", attrs=attrs)
    kernel = matrix.weights.shape[2:]
    return x, tuple(
        (n - (k - 1) * d - 1) // s + 1
        for n, k, d, s in zip(draft.shape(x)[2:], kernel, dilations, strides, strict=True)
    )


def _taps(
    draft: Draft, x: Value, weights: Ints, conv: Mapping[str, Attr], space: tuple[int, ...], *, first: int, name: str
) -> tuple[Value, Ints]:
    """Inputs [1, 1, rows, positions] of the taps that hold anything, and their weights [outputs, rows]."""
    strides, dilations, rank = _numbers(conv, "strides"), _numbers(conv, "dilations"), len(space)
    columns, rows = list[Value](), list[Ints]()
    for tap in every(*(range(k) for k in weights.shape[2:])):
        held = weights[(slice(None), slice(None), *tap)]
        used = np.flatnonzero(held.any(axis=0))
        if not used.size and (columns or any(t < k - 1 for t, k in zip(tap, weights.shape[2:], strict=True))):
            continue  # the last tap stays where there is no other
        low, high = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
        starts = [t * d for t, d in zip(tap, dilations, strict=True)]
        attrs: dict[str, Attr] = {
            "axes": tuple(range(1, rank + 2)), "starts": (first + low, *starts), "steps": (1, *strides),
            "ends": (first + high, *(a + (n - 1) * s + 1 for a, n, s in zip(starts, space, strides, strict=True))),
        }  # fmt: skip
        own = f"{name}.tap{'_'.join(map(str, tap))}"
        cut = draft.move("Slice", x, name=own, attrs=attrs)
        columns.append(draft.move("Reshape", cut, name=f"{own}.row", attrs={"shape": (1, 1, high - low, prod(space))}))
        rows.append(held[:, low:high])
    return draft.joined(columns, 2, name=f"{name}.taps"), np.concatenate(rows, axis=1)


def _numbers(conv: Mapping[str, Attr], name: str) -> tuple[int, ...]:
    found = conv[name]
    assert isinstance(found, tuple)
    return tuple(int(n) for n in found)
