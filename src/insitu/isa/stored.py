"""What an AMM multiplies: matrices written into cells, and the vectors that go through each."""

from __future__ import annotations

from math import prod

from insitu.arch.stored import Product
from insitu.isa.program import Descriptor, Vector


def stored_product(a: Descriptor, b: Descriptor, settings: Vector) -> Product:
    """The product of one command; a second operand that leading dimensions repeat (stride 0) is written once.

    Sizes are bound.
    """
    lead, (vectors, _), (rows, cols) = [int(n) for n in a.sizes[:-2]], a.sizes[-2:], b.sizes[-2:]
    repeats = prod(n for n, stride in zip(lead, b.strides[:-2], strict=True) if not stride)
    ones = settings.zero_a != 0, settings.zero_b != 0
    return Product(prod(lead) // repeats, repeats * int(vectors), int(rows), int(cols), settings.bits, *ones)
