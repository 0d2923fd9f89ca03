"""What rows of an array are driven with: stored codes to driven levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.isa.program import Binding

Array = npt.NDArray[Any]


def drive_floats(binding: Binding, codes: Array) -> tuple[npt.NDArray[np.float32], bool]:
    """`drive` in float32, and whether its codes are signed."""
    from insitu.sim.kernels import drive_rows

    signed = drive_signed(binding, codes.dtype)
    if binding.negated or codes.dtype.itemsize > 2:
        return np.asarray(drive(binding, codes), np.float32), signed
    out = np.empty(codes.shape, np.float32)
    drive_rows(np.ascontiguousarray(codes), *line_of_drive(binding), out)
    return out, signed


def drive_signed(binding: Binding, dtype: npt.DTypeLike) -> bool:
    """Whether rows are driven with signed codes, so that the top plane carries a sign."""
    if binding.zero_in:
        return True
    if binding.drive:
        return not (binding.drive[0] >= 0 and binding.drive[1] <= 255)
    return bool(np.issubdtype(dtype, np.signedinteger))


def line_of_drive(binding: Binding) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """(scale, add, lo, hi) that make driven rows of stored codes, clip(q * scale + add, lo, hi), none negated."""
    zero = np.float32(binding.zero_in)
    scale, add = np.float32(1 << binding.input_shift), np.float32(binding.input_offset)
    if binding.drive:
        return scale, add - zero, np.float32(binding.drive[0]) - zero, np.float32(binding.drive[1]) - zero
    if binding.readout.kind == "wtm2101":
        return scale, add - zero, -zero, np.float32(255) - zero
    return np.float32(1), -zero, np.float32(-np.inf), np.float32(np.inf)


def drive(binding: Binding, codes: Array) -> Array:
    """Codes of the rows: clip(+-((q << shift) + offset)) to the drivers' range where they transform, else q itself.

    Both less the zero point.
    """
    x = codes
    if binding.drive:
        x = _driven(binding, codes)
    elif binding.readout.kind == "wtm2101" and (binding.input_shift or binding.input_offset or codes.dtype != np.uint8):
        x = np.clip((codes.astype(np.int16) << binding.input_shift) + np.int16(binding.input_offset), 0, 255)
    return x if binding.zero_in == 0 else x.astype(np.int32) - binding.zero_in


def _driven(binding: Binding, codes: Array) -> Array:
    """Codes of rows by the binding's own range, some of them negated; in 16 bits unless the codes need more."""
    wide = np.int16 if codes.dtype.itemsize == 1 and binding.input_shift < 7 else np.int32
    x = (codes.astype(wide) << binding.input_shift) + wide(binding.input_offset)
    for a, b in zip(binding.negated[::2], binding.negated[1::2], strict=True):
        np.negative(x[:, a:b], out=x[:, a:b])
    x = np.clip(x, binding.drive[0], binding.drive[1])
    return x.astype(np.uint8) if binding.drive[0] >= 0 and binding.drive[1] <= 255 else x


def peak_of(binding: Binding, dtype: npt.DTypeLike) -> int:
    """Largest magnitude a row can be driven with."""
    if binding.drive:
        return max(abs(end - binding.zero_in) for end in binding.drive)
    info = np.iinfo(np.dtype(dtype))  # type: ignore[type-var]
    lo, hi = (0, 255) if binding.readout.kind == "wtm2101" else (int(info.min), int(info.max))
    return max(abs(lo - binding.zero_in), abs(hi - binding.zero_in))
