"""The table of instructions, read from instructions.yaml: the one place that says what a chip can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from insitu.base.yaml import load_yaml

Kind = Literal[
    "descriptor", "binding", "vector", "host", "token", "count", "signed", "flag", "routine", "macro",
    "place", "register", "size",
]  # fmt: skip
Role = Literal["", "read", "write", "update"]
WORD_BITS = 64


@dataclass(frozen=True)
class Operand:
    """A field of the word: `bits` bits from bit `at`; `role` says what is done to the memory behind a descriptor."""

    name: str
    kind: Kind
    bits: int
    at: int
    role: Role = ""

    @property
    def lo(self) -> int:
        """The smallest number that fits."""
        return -(1 << (self.bits - 1)) if self.kind == "signed" else 0

    @property
    def hi(self) -> int:
        """The largest number that fits; the top bit of a size says whether it is a name."""
        return (1 << (self.bits - (self.kind in ("signed", "size")))) - 1


@dataclass(frozen=True)
class Instruction:
    """One row of the table; `constraints` are ids of Table.constraints."""

    mnemonic: str
    group: str
    opcode: int
    operands: tuple[Operand, ...]
    meaning: str
    units: tuple[str, ...]
    constraints: tuple[str, ...]

    @property
    def signature(self) -> str:
        """The instruction as one writes it: "MVM out, in, binding"."""
        return f"{self.mnemonic} {', '.join(o.name for o in self.operands)}".rstrip()


@dataclass(frozen=True)
class Coverage:
    """An item of the design, and the instructions or record fields that serve it (none: it is not served)."""

    item: str
    by: tuple[str, ...]
    how: str


@dataclass(frozen=True)
class Table:
    """All instructions by mnemonic, the constraints by id, and what the kinds of operand mean."""

    version: int
    opcode_at: int
    opcode_bits: int
    instructions: Mapping[str, Instruction]
    constraints: Mapping[str, str]
    kinds: Mapping[str, str]
    coverage: tuple[Coverage, ...] = ()

    def by_opcode(self) -> dict[int, Instruction]:
        """Opcode -> instruction."""
        return {i.opcode: i for i in self.instructions.values()}


@cache
def table() -> Table:
    """The instruction table of this release."""
    data = cast(dict[str, Any], load_yaml(Path(__file__).with_name("instructions.yaml")).data)
    return Table(
        version=data["version"],
        opcode_at=data["opcode"]["at"],
        opcode_bits=data["opcode"]["bits"],
        instructions={row["mnemonic"]: _instruction(row) for row in data["instructions"]},
        constraints=data["constraints"],
        kinds=data["kinds"],
        coverage=tuple(Coverage(row["item"], tuple(row["by"]), row["how"]) for row in data["coverage"]),
    )


def _instruction(row: dict[str, Any]) -> Instruction:
    return Instruction(
        mnemonic=row["mnemonic"],
        group=row["group"],
        opcode=row["opcode"],
        operands=tuple(Operand(**operand) for operand in row["operands"]),
        meaning=row["meaning"],
        units=tuple(row["units"]),
        constraints=tuple(row["constraints"]),
    )


def instruction(mnemonic: str) -> Instruction | None:
    """The row of a mnemonic; none where there is no such instruction."""
    return table().instructions.get(mnemonic)
