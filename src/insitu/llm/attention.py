"""Where a shape's attention goes: vector units, or arrays without weights that keys and values are written into.

The formulas are those of compiled programs (arch/stored.py).  In decoding a written key serves one token's heads of a
group; in a prompt all its tokens', so that writing pays there first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from insitu.arch.spec import Chip
from insitu.arch.stored import Product, Way, able, in_arrays, on_vector_unit, pays
from insitu.llm.shapes import Shape

QUERY_BITS = 16  # of queries and shares in programs of 16-bit vector units
CELL_BITS = 8


@dataclass(frozen=True)
class Units:
    """What multiplies one layer's attention: lanes, arrays that hold no weights, chips that leak meanwhile."""

    chip: Chip
    lanes: int
    macros: int
    chips: float


@dataclass(frozen=True)
class Choice:
    """One of the two products of attention, of all layers: what both ways take for one token."""

    product: Product
    vector_unit: Way
    arrays: Way | None
    tokens: int
    layers: int

    @property
    def stored(self) -> bool:
        """Whether arrays do it."""
        return self.arrays is not None and pays(self.vector_unit, self.arrays)

    @property
    def way(self) -> Way:
        """The cheaper way, of one layer and all tokens."""
        return self.arrays if self.arrays is not None and self.stored else self.vector_unit

    @property
    def seconds(self) -> float:
        """Seconds of a token over all layers."""
        return self.way.seconds * self.layers / self.tokens

    @property
    def joules(self) -> float:
        """Joules of a token over all layers, leakage left to who counts it for all."""
        return self.way.dynamic * self.layers / self.tokens

    def to_json(self) -> dict[str, Any]:
        """Both figures of one token, and how often a written code is used."""
        times = self.layers / self.tokens
        return {
            "where": "arrays" if self.stored else "vector units", "uses": self.product.vectors,
            "vector_units": self.vector_unit.to_json(times), "arrays": self.arrays and self.arrays.to_json(times),
        }  # fmt: skip


def choices(shape: Shape, units: Units, *, keys: float, queries: int, cache_bits: float) -> Mapping[str, Choice]:
    """Scores and mixed values of `queries` tokens of one sequence; lanes leave out half of a prompt's pairs."""
    kv, groups, size = shape.kv_heads, shape.heads // max(shape.kv_heads, 1), shape.head_size
    pairs = ceil(keys / 2) if queries > 1 else ceil(keys)
    found: dict[str, Choice] = {}
    for name, (rows, cols), lane_shape in (("scores", (size, ceil(keys)), (size, pairs)),
                                           ("mixed", (ceil(keys), size), (pairs, size))):  # fmt: skip
        whole = Product(kv, groups * queries, rows, cols, QUERY_BITS)
        some = Product(kv, groups * queries, *lane_shape, QUERY_BITS)
        fits = able(units.chip) and units.macros > 0 and cache_bits <= CELL_BITS and shape.mla is None
        arrays = in_arrays(whole, units.chip, units.macros, lanes=units.lanes, chips=units.chips) if fits else None
        lanes = on_vector_unit(some, units.chip, lanes=units.lanes, chips=units.chips)
        found[name] = Choice(whole, lanes, arrays, queries, shape.layers)
    return found
