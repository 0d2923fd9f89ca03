"""The instruction table is sound, and words, text and commands are the same thing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isa_strategies import commands, sections, size_names

from insitu.base.errors import ProgramError
from insitu.isa.assembler import parse_command, parse_section, print_command, print_section
from insitu.isa.encoding import decode, encode
from insitu.isa.program import Command
from insitu.isa.table import table


def test_fields_do_not_overlap_and_opcodes_are_distinct() -> None:
    assert len(table().by_opcode()) == len(table().instructions)
    for row in table().instructions.values():
        used = ((1 << table().opcode_bits) - 1) << table().opcode_at
        for operand in row.operands:
            mask = ((1 << operand.bits) - 1) << operand.at
            assert not used & mask, f"{row.mnemonic} {operand.name}"
            assert mask < 1 << 64
            assert operand.kind in table().kinds
            assert (operand.role != "") == (operand.kind == "descriptor")
            used |= mask
        assert set(row.constraints) <= set(table().constraints)


@given(st.lists(commands(), max_size=8))
def test_commands_survive_words(code: list[Command]) -> None:
    words = encode(code, sizes=size_names)
    assert words.dtype == np.dtype("<u8")
    assert decode(words, sizes=size_names) == tuple(code)


@given(st.integers(0, (1 << 64) - 1))
def test_a_word_decodes_to_a_command_that_encodes_to_it_or_is_refused(word: int) -> None:
    try:
        code = decode(np.array([word], np.uint64), sizes=size_names)
    except ProgramError:
        return
    assert encode(code, sizes=size_names).tolist() == [word]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Command("MVN", (1, 2, 3)), "mnemonic 'MVN'"),
        (Command("MVM", (1, 2)), "MVM out, in, binding"),
        (Command("MVM", (1, 1 << 14, 3)), "0 to 16383"),
        (Command("FILL", (1, 40000)), "-32768 to 32767"),
        (Command("LOOP", ("T",)), "named size"),
        (Command("MVM", ("L", 1, 1)), "named size"),
    ],
)
def test_what_does_not_fit_a_word_is_refused(command: Command, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        encode((command,), sizes=size_names)


@pytest.mark.parametrize("word", [0, 0x10 << 56 | 1, (0x60 << 56) | (1 << 32) | 3, 0xFF << 56])
def test_words_that_mean_nothing_are_refused(word: int) -> None:
    with pytest.raises(ProgramError):
        decode(np.array([word], np.uint64), sizes=size_names)


@given(commands())
def test_commands_survive_text(command: Command) -> None:
    assert parse_command(print_command(command)) == command


@given(sections)
def test_sections_survive_text(section) -> None:
    assert parse_section(print_section(section)) == section


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("code\nMVN d0, d1, b0", "assembly:2: MVN; needs an instruction. Try: MVM"),
        ("code\nMVM d0, v1, b0", "assembly:2: v1; needs a descriptor, such as d0"),
        ("code\nMVM d0, d1", "assembly:2: the end of the line; needs ,"),
        ("code\nHALT 3", "assembly:2: 3; needs the end of the line"),
        ("d1 = x +0 []\ncode", "assembly:1: d1; needs d0, the next of its kind"),
        ("d0 = x +0 [3]\ncode", "assembly:1: \\]; needs :"),
        ("v0 = vector zero=3\ncode", "a field of Vector, once"),
        ("v0 = vector zero_a=x\ncode", "zero_a: 'x'; needs an integer"),
        ("v0 = vector\n  tile macro=0\ncode", "belongs to this vector"),
        ("b0 = binding label=x\ncode", "needs weight="),
        ("d0 = x +0 []", "no line `code`"),
        ("hello\ncode", "assembly:1: hello"),
        ('d0 = "x +0 []\ncode', "assembly:1"),
    ],
)
def test_a_fault_in_assembly_names_its_line(text: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        parse_section(text)
