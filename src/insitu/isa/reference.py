"""The reference page of the instruction set: `python -m insitu.isa.reference docs/reference/isa.md` writes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from insitu.isa.table import WORD_BITS, Instruction, Operand, table

_HEAD = """# The instruction set

Generated from `src/insitu/isa/instructions.yaml` by `python -m insitu.isa.reference`; do not edit.

A section is what one core runs: tables of descriptors, weight bindings and vector settings, and code.  A command is one
64-bit little-endian word: the opcode in bits {low}..{high}, operands where the rows below say, all other bits 0.

A descriptor names an operand of up to 4 dimensions: the elements `offset + sum(index * stride) + sum(loop counter *
step)` of a symbol.  Commands run in order within a section; sections run at the same time.  A command reads all its
operands before it writes.  `post(acc)` is `clip(round(acc * multiplier / 2**shift) + zero_point, lo, hi)`.

The executable definition is `insitu.isa.semantics`; `insitu.isa.check` refuses a program that breaks a constraint.
"""


def reference_page() -> str:
    """The page as Markdown."""
    low = table().opcode_at
    head = _HEAD.format(low=low, high=low + table().opcode_bits - 1)
    return "\n".join([head, *_kinds(), *_overview(), *_details(), *_constraints(), *_coverage()]) + "\n"


def _kinds() -> Iterator[str]:
    yield "## Kinds of operand\n\n| kind | meaning |\n| --- | --- |"
    yield from (f"| {kind} | {meaning} |" for kind, meaning in table().kinds.items())
    yield ""


def _overview() -> Iterator[str]:
    yield "## Instructions\n\n| group | opcode | command | units |\n| --- | --- | --- | --- |"
    for row in table().instructions.values():
        yield f"| {row.group} | `{row.opcode:#04x}` | `{row.signature}` | {', '.join(row.units) or '-'} |"
    yield ""


def _details() -> Iterator[str]:
    for row in table().instructions.values():
        yield f"### {row.mnemonic}\n\n`{row.signature}`\n\n{row.meaning}.\n"
        yield from _operands(row)
        yield f"Constraints: {', '.join(row.constraints)}.\n"


def _operands(row: Instruction) -> Iterator[str]:
    if row.operands:
        yield "| operand | kind | bits | range | memory |\n| --- | --- | --- | --- | --- |"
        yield from (
            f"| {o.name} | {o.kind} | {_bits(o)} | {o.lo}..{o.hi} | {o.role or '-'} |"
            for o in sorted(row.operands, key=lambda o: -o.at)
        )
        yield ""


def _bits(operand: Operand) -> str:
    assert operand.at + operand.bits <= WORD_BITS, operand.name
    return f"{operand.at}..{operand.at + operand.bits - 1}"


def _constraints() -> Iterator[str]:
    yield "## Constraints\n"
    yield (
        "S sections, C calls, D descriptors, M memory, B bindings, G memory banks, T tokens and order, P commands that "
        "follow data, W weights loaded while the program runs, U what sets a core up and its tables, V and X "
        "operands of commands, L chips, H the host.\n"
    )
    yield "| id | what must hold |\n| --- | --- |"
    yield from (f"| {rule} | {text} |" for rule, text in table().constraints.items())
    yield ""


def _coverage() -> Iterator[str]:
    yield "## What the design asks for, and what serves it\n\n| asked | served by | how |\n| --- | --- | --- |"
    yield from (f"| {c.item} | {', '.join(f'`{b}`' for b in c.by) or '-'} | {c.how} |" for c in table().coverage)


if __name__ == "__main__":
    from insitu.base.store import write_text

    write_text(sys.argv[1], reference_page())
