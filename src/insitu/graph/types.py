"""Tensor types: shape (integers or symbols), element type, and what the integers stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from insitu.numeric.affine import QuantSpec

Dim = int | str  # a name stands for a size that is bound at run time
DTYPES = ("f32", "f16", "f64", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "bool")
HOST = "host"  # no element type: what only the host holds (text, sequences, sizes that depend on data)


@dataclass(frozen=True)
class TensorType:
    """Shape and element type of a value; `quant` says what its integers stand for."""

    shape: tuple[Dim, ...]
    dtype: str
    quant: QuantSpec | None = None

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the sizes that are not known yet."""
        return tuple(d for d in self.shape if isinstance(d, str))

    def sizes(self) -> tuple[int, ...]:
        """The shape as integers; call it only where `bind` has been applied."""
        assert not self.symbols, f"unbound sizes {self.symbols}"
        return tuple(int(d) for d in self.shape)

    def count(self) -> int:
        """Number of elements."""
        return prod(self.sizes())

    def bind(self, sizes: dict[str, int]) -> TensorType:
        """The same type with every named size that `sizes` knows replaced."""
        return replace(self, shape=tuple(sizes.get(d, d) if isinstance(d, str) else d for d in self.shape))


def integer_dtype(bits: int, *, signed: bool) -> str:
    """The narrowest storage type that holds codes of `bits` bits."""
    width = next(w for w in (8, 16, 32) if bits <= w)
    return f"{'i' if signed or width == 32 else 'u'}{width}"
