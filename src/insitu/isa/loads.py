"""What macros hold while a section runs: bindings that WLOAD brought, until others are written over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from insitu.isa.program import Binding, Section, Tile


def loaded(section: Section) -> frozenset[int]:
    """Bindings that the section loads; the others are programmed before it starts."""
    return frozenset(int(c.args[0]) for c in section.code if c.op == "WLOAD")


def overlaps(bindings: Sequence[Binding], chosen: frozenset[int]) -> dict[int, frozenset[int]]:
    """For each of the chosen bindings, the others of them that share a cell with it."""
    by_macro: dict[int, list[tuple[int, Tile]]] = {}
    for index in sorted(chosen):
        for tile in bindings[index].tiles:
            by_macro.setdefault(tile.macro, []).append((index, tile))
    found: dict[int, set[int]] = {index: set() for index in chosen}
    for held in by_macro.values():
        for i, (index, tile) in enumerate(held):
            for other, second in held[i + 1 :]:
                if other != index and other not in found[index] and meet(tile, second):
                    found[index].add(other)
                    found[other].add(index)
    return {index: frozenset(others) for index, others in found.items()}


def meet(a: Tile, b: Tile) -> bool:
    """Whether two tiles of one macro share a cell."""
    return a.x < b.x + b.cols and b.x < a.x + a.cols and a.y < b.y + b.rows and b.y < a.y + a.rows


@dataclass
class Loads:
    """The bindings that may be read now."""

    chosen: frozenset[int]
    over: Mapping[int, frozenset[int]]
    verifies: bool = False  # a loaded binding is read only once it is verified
    ready: set[int] = field(default_factory=set[int])
    written: set[int] = field(default_factory=set[int])

    @classmethod
    def of(cls, section: Section, *, verifies: bool = False) -> Loads:
        """At the start of a section: nothing is loaded."""
        chosen = loaded(section)
        return cls(chosen, overlaps(section.bindings, chosen), verifies)

    def load(self, index: int) -> None:
        """A WLOAD of binding `index`."""
        self.written -= self.over[index]
        self.written.add(index)
        self.ready -= {index, *self.over[index]}
        if not self.verifies:
            self.ready.add(index)

    def verify(self, index: int) -> bool:
        """A WVERIFY of binding `index`; whether its weights have been written."""
        self.ready |= {index} & self.written
        return index in self.written

    def readable(self, index: int) -> bool:
        """Whether an MVM of binding `index` reads its own weights."""
        return index not in self.chosen or index in self.ready
