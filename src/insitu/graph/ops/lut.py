"""Look-up tables of codes: one entry for every code, indexed in two's complement (ActLut, FloatScale, gates)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.graph.graph import Node
from insitu.numeric.affine import Ints, QuantSpec
from insitu.numeric.functions import lut_codes


def looked_up(node: Node, x: Ints, table: npt.NDArray[Any]) -> Ints:
    """table[(x << input_shift) mod entries]."""
    return lut_codes(x << int(node.attr("input_shift", 0)), table)


def lut_faults(node: Node, table: npt.NDArray[Any] | None, out: QuantSpec) -> Iterator[str]:
    """What is wrong with a Lut's table."""
    if table is None or table.ndim != 1 or table.dtype.kind not in "iu":
        yield "needs a constant table of integers in one dimension"
    elif table.size & (table.size - 1) or table.size == 0:
        yield f"a table of {table.size} entries; needs a power of two"
    elif int(table.min()) < out.lo or int(table.max()) > out.hi:
        yield f"entries {table.min()} to {table.max()}; needs {out.lo} to {out.hi}"


def byte_table(function: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """A table of 256 entries from the results for codes -128..127, in order."""
    return np.roll(function, -128).astype(np.int32)


def full_table(spec: QuantSpec) -> Ints:
    """The code that each entry of a table stands for: 0 and up, then the negative ones."""
    codes = np.arange(1 << spec.bits, dtype=np.int64)
    return np.where(codes > spec.hi, codes - (1 << spec.bits), codes)
