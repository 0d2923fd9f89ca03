"""Commands to 64-bit words and back, by the instruction table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ProgramError
from insitu.isa.program import Command, Size
from insitu.isa.table import Instruction, Operand, instruction, table

Words = npt.NDArray[np.uint64]


def encode(code: Sequence[Command], *, sizes: Sequence[str] = (), where: str = "code") -> Words:
    """One little-endian word per command; `sizes` are the program's named sizes, indexed in sorted order."""
    names = {name: index for index, name in enumerate(sorted(sizes))}
    words = [encode_command(c, names, where=f"{where}, command {i}") for i, c in enumerate(code)]
    return np.array(words, dtype="<u8")


def decode(words: Words, *, sizes: Sequence[str] = (), where: str = "code") -> tuple[Command, ...]:
    """The commands of `words`; a word that encodes none is a ProgramError."""
    names = sorted(sizes)
    return tuple(decode_command(w, names, where=f"{where}, command {i}") for i, w in enumerate(words.tolist()))


def encode_command(command: Command, names: dict[str, int], *, where: str = "command") -> int:
    """The word of one command; `names` maps a named size to its index."""
    row = instruction(command.op)
    if row is None:
        raise ProgramError(where, f"mnemonic {command.op!r}", f"one of {', '.join(table().instructions)}")
    if len(command.args) != len(row.operands):
        raise ProgramError(where, f"{command.op} with {len(command.args)} operands", f"{row.signature}")
    word = row.opcode << table().opcode_at
    for operand, value in zip(row.operands, command.args, strict=True):
        word |= _field(operand, value, names, f"{where}: {command.op} {operand.name}") << operand.at
    return word


def decode_command(word: int, names: Sequence[str], *, where: str = "command") -> Command:
    """The command of one word; bits outside the instruction's fields must be 0."""
    row = _opcodes().get(word >> table().opcode_at)
    if row is None:
        raise ProgramError(where, f"opcode {word >> table().opcode_at:#x}", "an opcode of the instruction table")
    if word & ~_mask(row.mnemonic):
        raise ProgramError(where, f"{row.mnemonic} as {word:#018x}", "0 in all bits outside its fields")
    args = tuple(
        _value(o, word >> o.at & (1 << o.bits) - 1, names, f"{where}: {row.mnemonic} {o.name}") for o in row.operands
    )
    return Command(row.mnemonic, args)


def _field(operand: Operand, value: Size, names: dict[str, int], where: str) -> int:
    if isinstance(value, str):
        if operand.kind != "size" or value not in names:
            raise ProgramError(where, repr(value), "a number, or a named size of the program in a LOOP")
        return names[value] | 1 << (operand.bits - 1)
    if not operand.lo <= value <= operand.hi:
        raise ProgramError(where, str(value), f"{operand.lo} to {operand.hi}")
    return int(value) & (1 << operand.bits) - 1


def _value(operand: Operand, field: int, names: Sequence[str], where: str) -> Size:
    top = field >> (operand.bits - 1)
    if operand.kind == "signed" and top:
        return field - (1 << operand.bits)
    if operand.kind == "size" and top:
        index = field - (1 << (operand.bits - 1))
        if index >= len(names):
            raise ProgramError(where, f"named size {index}", f"an index below {len(names)}")
        return names[index]
    return field


@cache
def _opcodes() -> dict[int, Instruction]:
    return table().by_opcode()


@cache
def _mask(mnemonic: str) -> int:
    """The bits of a word that an instruction uses."""
    row = table().instructions[mnemonic]
    mask = (1 << table().opcode_bits) - 1 << table().opcode_at
    for operand in row.operands:
        mask |= (1 << operand.bits) - 1 << operand.at
    return mask
