"""Weights beyond a cell in the vendor's mixed and digital modes: what the array cannot hold is summed by the processor.

MIX: W = L + 256 H with L in -128..127.  The array reads x.L + b at G, the processor adds round(256 x.H / G).
DIG: all of x.W + b, divided by G as the array would.
"""

from __future__ import annotations

import numpy as np

from insitu.frontend.wtm2101_draft import Call, Draft, Value, spec_of
from insitu.graph.graph import Attr
from insitu.numeric.affine import Ints, QuantSpec

HALF = 1 << 7
MOST = 1 << 16  # products that the processor may hold at once
WIDE = (-(1 << 31), (1 << 31) - 1)


def high_part(weights: Ints) -> tuple[Ints, Ints]:
    """(L, H) with weights = L + 256 H and L in -128..127."""
    low = (weights + HALF) % (2 * HALF) - HALF
    return low, (weights - low) // (2 * HALF)


def products(draft: Draft, call: Call, x: Value, weights: Ints, *, name: str, factor: int, shift: int, mode: str,
             bias: Ints | None = None) -> Value:  # fmt: skip
    """(x.W * factor + bias) / 2**shift by the processor, over the rows of W that hold anything."""
    rows = np.flatnonzero(weights.any(axis=1))
    rows = rows if rows.size else np.array([0])
    largest = (max(abs(x.lo), x.hi) * int(np.abs(weights).max(initial=1))).bit_length()
    if rows.size * weights.shape[1] > MOST or rows.size << largest >= 1 << 31:
        got = f"{rows.size} rows of {weights.shape[1]} with weights that need the processor"
        raise call.fault(got, f"at most {MOST:,} products: fewer such rows (most of the high part 0), or SIM_MODE")
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    axis = draft.frame_axis(x)
    cuts = [draft.cut(x, axis, int(r[0]), int(r[-1]) + 1, name=f"{name}.rows{i}") for i, r in enumerate(runs)]
    picked = cuts[0] if len(cuts) == 1 else draft.joined(cuts, axis, name=f"{name}.rows")
    column = draft.move("Reshape", picked, name=f"{name}.column", attrs={"shape": (1, int(rows.size), 1)})
    wide = spec_of(*WIDE)
    table = draft.constant(f"{name}.table", weights[rows][None].astype(np.int32), spec=wide)
    peak = (1 << largest) - 1
    span = QuantSpec(largest + 1, signed=True, scale=(1.0,))
    each = draft.arithmetic("Mul", [column, table], -peak, peak, name=f"{name}.products", spec=span)
    attrs: dict[str, Attr] = {"axes": (1,), "keepdims": 0, "multiplier": 1, "shift": 0, "rounding": "floor"}
    total = draft.put("ReduceMean", [each], *WIDE, name=f"{name}.sums", attrs=attrs | {"lo": WIDE[0], "hi": WIDE[1]})
    scale: dict[str, Attr] = {"scale_a": factor, "scale_b": 1}
    added = np.zeros((1, weights.shape[1]), np.int32) if bias is None else bias[None].astype(np.int32)
    constant = draft.constant(f"{name}.bias", added, spec=wide)
    return draft.arithmetic(
        "Add", [total, constant], -(1 << 15), (1 << 15) - 1, name=f"{name}.digital", rounding=mode, shift=shift,
        attrs=scale,
    )  # fmt: skip
