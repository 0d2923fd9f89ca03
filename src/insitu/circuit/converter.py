"""What drivers and converters do to a straight line: bows, steps of unequal width; NumPy arrays or torch tensors."""

from __future__ import annotations

from typing import Any

from insitu.base.arrays import namespace


def drive_levels(x: Any, *, bow: float, bits: int, step: int) -> Any:
    """What rows really see of input codes `x`, applied `step` bits at a time; in codes.

    A driver's level u (0..1 of its full scale) comes out as u + 4 bow u (1 - u): right at both ends, `bow` of full
    scale off in the middle, odd in the sign.  One-bit drivers have only ends, so nothing changes.
    """
    if step <= 1 or bow == 0.0:
        return x
    xp = namespace(x)
    base, rest, total = float(1 << step), abs(x), 0.0 * x
    full = base - 1.0
    for at in range(0, bits, step):
        left = xp.floor(rest / base)
        digit = rest if at + step >= bits else rest - base * left
        u = xp.clip(digit / full, 0.0, 1.0)
        total, rest = total + 2.0**at * (digit + full * 4.0 * bow * u * (1.0 - u)), left
    return xp.where(x < 0, -total, total)


def inl_table(bow: Any, widths: Any, *, inl: float, dnl: float) -> Any:
    """Error in codes of converters at each of their codes, [converters, codes].

    `bow` [converters, 1] and `widths` [converters, codes] are standard normal draws: a parabola through both ends whose
    peak has standard deviation `inl`, and steps whose widths differ by `dnl`, straightened so that the ends are right.
    """
    xp = namespace(bow, widths)
    count = widths.shape[-1]
    ramp = xp.arange(1, count + 1) / count
    walk = xp.cumsum(widths, -1)
    return inl * bow * 4.0 * ramp * (1.0 - ramp) + dnl * (walk - walk[..., -1:] * ramp)


def bend(value: Any, table: Any, lo: int) -> Any:
    """Values in codes [..., columns] after the converters' nonlinearity; `table` [columns, codes], first code `lo`."""
    xp = namespace(value, table)
    at = xp.clip(xp.round(value), lo, lo + table.shape[-1] - 1) - lo
    columns = xp.arange(table.shape[0])
    return value + table[columns, xp.asarray(at, dtype=xp.int64)]
