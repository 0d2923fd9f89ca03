"""Damage done to a compiled program, one record at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from insitu.isa.program import Command, Program, Section, weight_ref


def in_section(program: Program, number: int, change: Callable[[Section], Section]) -> Program:
    """The program with one section changed."""
    sections = list(program.sections)
    sections[number] = change(sections[number])
    return replace(program, sections=tuple(sections))


def coded(program: Program, number: int, change: Callable[[list[Command]], list[Command]]) -> Program:
    """The program with the code of one section changed."""
    return in_section(program, number, lambda s: replace(s, code=tuple(change(list(s.code)))))


def without(program: Program, *, section: int, index: int) -> Program:
    """The program without one command."""
    return coded(program, section, lambda code: code[:index] + code[index + 1 :])


def moved(program: Program, *, section: int, index: int, to: int) -> Program:
    """The program with one command elsewhere in its section."""

    def change(code: list[Command]) -> list[Command]:
        code.insert(to, code.pop(index))
        return code

    return coded(program, section, change)


def tables(program: Program, number: int, kind: str, index: int, **fields: Any) -> Program:
    """The program with fields of one descriptor, binding or vector setting changed."""

    def change(section: Section) -> Section:
        rows = list(getattr(section, kind))
        rows[index] = replace(rows[index], **fields)
        return replace(section, **{kind: tuple(rows)})

    return in_section(program, number, change)


def reweighted(program: Program, name: str, change: Callable[[Any], None]) -> Program:
    """The program with a weight's data changed (and its hash made right again)."""
    data = np.array(program.weight(name))
    change(data)
    return replace(program, weights={**program.weights, name: weight_ref(data)})


def find(program: Program, op: str) -> list[tuple[int, int]]:
    """(section, index) of every command of one mnemonic."""
    return [(s, i) for s, part in enumerate(program.sections) for i, c in enumerate(part.code) if c.op == op]
