"""From the analog column sum to the code a macro puts out; without physics, bit for bit insitu.numeric.readout."""

from __future__ import annotations

from typing import Any, Protocol

from insitu.base.arrays import namespace
from insitu.circuit.converter import bend
from insitu.numeric.readout import adc_range

WTM_RANGE = (-128, 127)


class ReadoutLike(Protocol):
    """What a readout needs to say; a chip's Readout and a Program's Readout both do."""

    @property
    def kind(self) -> str: ...
    @property
    def bits(self) -> int: ...
    @property
    def signed(self) -> bool: ...


def read_codes(
    acc: Any, readout: ReadoutLike, *, multiplier: Any = 1, shift: Any = 0, gain: Any = 1, lo: int | None = None,
    column_gain: Any = 1.0, column_offset: Any = 0.0, read_noise: Any = 0.0, bend_table: Any = None,
) -> Any:  # fmt: skip
    """Codes of column sums `acc` [..., columns], integers or floats, after the physics of their columns.

    The signal is (acc * column_gain + read_noise) / step + column_offset, with column_offset in codes and step G
    (wtm2101, `gain`), 2**shift / multiplier (adc) or 1 (exact); an exact readout is not rounded, so that sums of
    integers stay what they are. `bend_table` [columns, codes] is what converters add at each code. Returns floats
    holding integers (tensors should come as floats: torch turns integers into float32). Without physics and in
    float64 the result is that of numeric.readout as long as |acc| * multiplier is below 2**53.
    """
    xp = namespace(acc, column_gain, column_offset, read_noise)
    signal = xp.asarray(acc) * column_gain + read_noise
    if readout.kind == "exact":
        return signal + column_offset
    if readout.kind == "adc":
        low, high = adc_range(readout.bits, signed=readout.signed)
        value = signal * multiplier / 2.0**shift + column_offset
        codes = xp.round(value if bend_table is None else bend(value, bend_table, low))
        return xp.clip(codes, low if lo is None else lo, high)
    value = signal / gain + column_offset
    fine = xp.trunc(4.0 * (value if bend_table is None else bend(value, bend_table, WTM_RANGE[0])))
    return xp.clip(xp.floor((fine + 2.0) / 4.0), WTM_RANGE[0] if lo is None else lo, WTM_RANGE[1])


def step_of(readout: ReadoutLike, *, multiplier: Any = 1, shift: Any = 0, gain: Any = 1) -> Any:
    """How many units of the column sum one output code is."""
    if readout.kind == "wtm2101":
        return gain
    return 2.0**shift / multiplier if readout.kind == "adc" else 1.0
