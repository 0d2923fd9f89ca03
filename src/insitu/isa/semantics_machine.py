"""What the commands of a section work on: operands in memory, weights, tables, and what the section has set up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ProgramError
from insitu.isa.elements import element
from insitu.isa.loads import Loads
from insitu.isa.program import Binding, Command, Descriptor, Program, Section, Symbol, Vector
from insitu.isa.setup import table_places, verified
from insitu.isa.walk import accesses, operands

Index = tuple[int, ...]


class Bytes(Protocol):
    """Memory by symbol and element."""

    def symbol(self, name: str) -> Symbol: ...
    def load(self, symbol: Symbol, index: int) -> Any: ...
    def store(self, symbol: Symbol, index: int, value: Any) -> None: ...


class Operand:
    """The memory behind a descriptor in one trip of its loops, addressed by index."""

    def __init__(self, memory: Bytes, descriptor: Descriptor, counters: Sequence[int]) -> None:
        self._memory = memory
        self._symbol = memory.symbol(descriptor.symbol)
        self._strides = descriptor.strides
        self._base = descriptor.offset + sum(c * s for c, s in zip(counters, descriptor.steps, strict=False))
        self._results: list[tuple[int, Any]] = []
        self.sizes: Index = tuple(int(n) for n in descriptor.sizes)

    def _at(self, index: Index) -> int:
        return self._base + sum(i * stride for i, stride in zip(index, self._strides, strict=True))

    def __getitem__(self, index: Index) -> Any:
        return self._memory.load(self._symbol, self._at(index))

    def __setitem__(self, index: Index, value: Any) -> None:
        self._results.append((self._at(index), value))

    @property
    def dtype(self) -> str:
        """NumPy's type of its elements."""
        kind = element(self._symbol.dtype)
        assert kind is not None, "memory is checked first"
        return kind.numpy

    def array(self) -> npt.NDArray[Any]:
        """All elements, in the shape of the descriptor."""
        values = [self[index] for index in self.indices()]
        return np.array(values, self.dtype).reshape(self.sizes)

    def write(self) -> None:
        """Put the results into memory, which happens after a command has read everything."""
        for at, value in self._results:
            self._memory.store(self._symbol, at, value)

    def indices(self) -> Iterator[Index]:
        """All indices, the last dimension fastest."""
        return positions(self.sizes)


class Machine:
    """A section with its weights as lists of integers."""

    def __init__(self, program: Program, section: Section, held: dict[str, Any]) -> None:
        self.section = section
        self.held = held  # values that only the host holds
        self._program = program
        self._lists: dict[str, list[Any]] = {}
        self.loads = Loads.of(section, verifies=verified(program.chip))
        self.places = table_places(program.chip)
        self.tables: dict[int, str] = {}  # place of the vector unit -> the table in it
        macro: Mapping[str, Any] = program.chip.get("macro", {})
        drivers: Mapping[str, Any] = macro.get("input", {})
        self.moved: dict[int, int] = {}  # descriptor -> what SETD adds to its offset
        self.unsigned_bits = 0 if drivers.get("signed", True) else int(drivers.get("bits", 8))

    def descriptors(self, command: Command) -> Iterator[tuple[str, Descriptor]]:
        """The memory operands of a command by name."""
        for access in accesses(self.section, command):
            found = self.section.descriptors[access.descriptor]
            yield access.operand, replace(found, offset=found.offset + self.moved.get(access.descriptor, 0))

    def weight(self, name: str) -> list[Any]:
        """A weight as (nested) lists."""
        if name not in self._lists:
            self._lists[name] = self._program.weight(name).tolist()
        return self._lists[name]

    def setting(self, value: int | str, column: int) -> int:
        """A number, or the entry of a weight for a column."""
        if not isinstance(value, str):
            return int(value)
        entries = self._program.weight(value).ravel()
        return int(entries[column if len(entries) > 1 else 0])

    def binding(self, command: Command) -> Binding:
        """The binding a command names."""
        return self.section.bindings[operand_of(command, "binding")]

    def vector(self, command: Command) -> Vector:
        """The vector settings a command names."""
        return self.section.vectors[operand_of(command, "vector")]

    def need_weights(self, binding: int) -> None:
        """Refuse to read a binding whose weights are not in its cells."""
        if not self.loads.readable(binding):
            got = f"binding {binding} not loaded, not verified, or written over"
            raise ProgramError(self.section.bindings[binding].label, got, "a WLOAD (and WVERIFY) before it is read")

    def table(self, settings: Vector) -> list[Any]:
        """The table that settings name, which is in the vector unit where the chip says how many that holds."""
        if self.places and settings.lut not in self.tables.values():
            raise ProgramError(settings.label, f"table {settings.lut!r} is not there", "a LUTLD before its use")
        return self.weight(settings.lut)


def operand_of(command: Command, kind: str) -> int:
    """The operand of a kind: the index of the binding or settings that a command names."""
    return next(int(v) for o, v in zip(operands(command.op), command.args, strict=True) if o.kind == kind)


Named = Mapping[str, Operand]


def positions(sizes: Sequence[int]) -> Iterator[Index]:
    """All indices of an array of these sizes, the last dimension fastest."""
    return product(*(range(n) for n in sizes))
