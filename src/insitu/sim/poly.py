"""Numbers that may hold named sizes: counts of a program whose sizes are bound at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from insitu.base.errors import ProgramError
from insitu.isa.program import Size


@dataclass(frozen=True)
class Poly:
    """An integer polynomial in named sizes: {names of a monomial, sorted: coefficient}."""

    terms: Mapping[tuple[str, ...], int]

    def at(self, sizes: Mapping[str, int]) -> int:
        """The value where every name is bound."""
        return sum(k * prod(sizes[name] for name in names) for names, k in self.terms.items())

    def __add__(self, other: Number) -> Number:
        return _sum_terms(self, other)

    def __mul__(self, other: Number) -> Number:
        return _multiply_terms(self, other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        return " + ".join("*".join((str(k), *names)) for names, k in sorted(self.terms.items()))


Number = int | Poly


def number(size: Size) -> Number:
    """A size as a number to calculate with."""
    return Poly({(size,): 1}) if isinstance(size, str) else size


def evaluate(value: Number, sizes: Mapping[str, int]) -> int:
    """The value of a number where the names in it are bound."""
    return value.at(sizes) if isinstance(value, Poly) else value


def whole(value: Number) -> int:
    """A number without names in it; ProgramError otherwise."""
    if isinstance(value, Poly):
        names = ", ".join(sorted({name for term in value.terms for name in term}))
        raise ProgramError("program", f"size {names} is not bound", "numbers", try_=("Program.bind(sizes)",))
    return value


def _terms(value: Number) -> Mapping[tuple[str, ...], int]:
    return value.terms if isinstance(value, Poly) else {(): value}


def _reduced(terms: Mapping[tuple[str, ...], int]) -> Number:
    kept = {names: k for names, k in terms.items() if k}
    return Poly(kept) if any(kept) else kept.get((), 0)


def _sum_terms(a: Number, b: Number) -> Number:
    terms = dict(_terms(a))
    for names, k in _terms(b).items():
        terms[names] = terms.get(names, 0) + k
    return _reduced(terms)


def _multiply_terms(a: Number, b: Number) -> Number:
    terms: dict[tuple[str, ...], int] = {}
    for left, k in _terms(a).items():
        for right, j in _terms(b).items():
            names = tuple(sorted(left + right))
            terms[names] = terms.get(names, 0) + k * j
    return _reduced(terms)


def product(sizes: Sequence[Size]) -> Number:
    """The product of sizes, some of which may be names."""
    result: Number = 1
    for size in sizes:
        result = result * number(size)
    return result
