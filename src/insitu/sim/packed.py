"""Elements that share bytes: codes of 2 or 4 bits one by one, and back.

A command opens the symbols it touches as arrays of bytes, one code each, and what it wrote is packed when it ends: the
program's memory holds two or four codes a byte at any time between commands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ProgramError
from insitu.isa.elements import Element, element
from insitu.isa.program import Symbol

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


def _kind(symbol: Symbol) -> Element:
    kind = element(symbol.dtype)
    if kind is None:
        raise ProgramError(f"symbol {symbol.name}", f"element type {symbol.dtype!r}", "a known element type")
    return kind


def byte_size(symbol: Symbol) -> int:
    """Bytes of a symbol in memory."""
    return _kind(symbol).bytes(symbol.count)


def unpacked(memory: Bytes, symbol: Symbol) -> Array:
    """The codes of a symbol, (samples, count rounded up to whole bytes), a byte each; `memory` is (samples, bytes)."""
    kind = _kind(symbol)
    held = memory[:, symbol.address : symbol.address + kind.bytes(symbol.count)]
    parts = held[:, :, None] >> np.arange(0, 8, kind.bits, dtype=np.uint8) & np.uint8((1 << kind.bits) - 1)
    codes = parts.reshape(len(memory), -1)
    if kind.lo == 0:
        return codes
    return (codes ^ np.uint8(-kind.lo)).astype(np.int8) + np.int8(kind.lo)


def store_packed(memory: Bytes, symbol: Symbol, codes: Array) -> None:
    """Codes as `unpacked` gives them into memory; ProgramError where one does not fit."""
    kind = _kind(symbol)
    wrong = codes[(codes < kind.lo) | (codes > kind.hi)]
    if wrong.size:
        raise ProgramError(f"symbol {symbol.name}", f"value {wrong.flat[0]}", f"{kind.lo} to {kind.hi}")
    parts = codes.astype(np.uint8).reshape(len(memory), -1, kind.share) & np.uint8((1 << kind.bits) - 1)
    shifted = parts << np.arange(0, 8, kind.bits, dtype=np.uint8)
    memory[:, symbol.address : symbol.address + kind.bytes(symbol.count)] = np.bitwise_or.reduce(shifted, axis=2)
