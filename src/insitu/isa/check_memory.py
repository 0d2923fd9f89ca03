"""Static check of memory: symbols in their spaces, values and operands in their symbols, who may write what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ConfigError
from insitu.base.units import parse_quantity
from insitu.isa.elements import element
from insitu.isa.fault import Fault, command_name
from insitu.isa.program import HOME, Location, Program, Section, Symbol, chip_of_space
from insitu.isa.setup import macro_bytes, memory_macros
from insitu.isa.walk import accesses, covered, nest, reach, runs

Mask = npt.NDArray[np.bool_]
MAX_MASK = 1 << 28  # elements of an input; in a larger one nothing may be written


def memory_faults(program: Program) -> Iterator[Fault]:
    """Faults of the memory map (M) and of operand addresses (D)."""
    for symbol in program.symbols:
        yield from _symbol_faults(program, symbol)
    yield from _space_faults(program)
    yield from _value_faults(program)
    symbols = {s.name: s for s in program.symbols}
    inputs = {s.name: _held(program, s) for s in program.symbols if s.kind == "input"}
    for section in program.sections:
        yield from _address_faults(section, symbols, inputs)


def _symbol_faults(program: Program, symbol: Symbol) -> Iterator[Fault]:
    where = f"symbol {symbol.name}"
    kind = element(symbol.dtype)
    if kind is None:
        yield Fault("M1", where, f"element type {symbol.dtype!r}")
        return
    end = symbol.address + kind.bytes(symbol.count)
    space = program.spaces.get(symbol.space, 0)
    if symbol.address < 0 or symbol.count < 0 or end > space or symbol.address % kind.width:
        yield Fault("M1", where, f"bytes {symbol.address}..{end} of {symbol.space}, which has {space}")
    if (symbol.kind == "weight") != bool(symbol.weight):
        yield Fault("M2", where, f"kind {symbol.kind}, weight {symbol.weight!r}")
    elif symbol.weight:
        ref = program.weights[symbol.weight]
        if prod(ref.shape) != symbol.count or element(ref.dtype) != kind:
            yield Fault("M2", where, f"{symbol.count} x {symbol.dtype} for {list(ref.shape)} x {ref.dtype}")
    if kind.integer and not kind.holds(symbol.initial, symbol.initial):
        yield Fault("M2", where, f"initial {symbol.initial} as {symbol.dtype}")


def _space_faults(program: Program) -> Iterator[Fault]:
    memories: Mapping[str, Any] = program.chip.get("memories", {})
    for space, used in program.spaces.items():
        memory, _ = chip_of_space(space)
        if memories and memory not in memories:
            yield Fault("M3", f"space {space}", f"no memory of this name on {program.chip.get('name', 'the chip')}")
        elif memories and used > (size := _bytes(memories[memory]) + _arrays(program, space)):
            yield Fault("M3", f"space {space}", f"{used} bytes of {size}")


def _arrays(program: Program, space: str) -> int:
    """Bytes of arrays that lengthen a space: those of the chip's ram, where WMODE makes memory of them."""
    memory, chip = chip_of_space(space)
    macros = sum(len(memory_macros(s)) for s in program.sections if s.chip == chip) if memory == HOME else 0
    return macros * macro_bytes(program.chip)


def _bytes(memory: Mapping[str, Any]) -> float:
    """The size of a memory as written ("320 KiB" or a number); unbounded where it is not."""
    try:
        return parse_quantity(memory["size"], "B")
    except (KeyError, ConfigError):
        return float("inf")


def _value_faults(program: Program) -> Iterator[Fault]:
    counts = {s.name: s.count for s in program.symbols}
    for value, at in program.values.items():
        low, high = _span(at)
        if len(at.shape) != len(at.strides) or low < 0 or high >= counts[at.symbol]:
            yield Fault("M4", f"value {value}", f"elements {low}..{high} of {at.symbol}, which has {counts[at.symbol]}")


def _span(at: Location) -> tuple[int, int]:
    """The smallest and largest element of a value."""
    moves = [(int(n) - 1) * stride for n, stride in zip(at.shape, at.strides, strict=False)]
    return at.offset + sum(min(0, m) for m in moves), at.offset + sum(max(0, m) for m in moves)


def _held(program: Program, symbol: Symbol) -> Mask | None:
    """Which elements of a symbol hold graph values, the rest being padding; none: too many to tell, so all."""
    if symbol.count > MAX_MASK:
        return None
    held = np.zeros(max(symbol.count, 0), bool)
    for at in (at for at in program.values.values() if at.symbol == symbol.name):
        low, high = _span(at)
        if low >= 0 and high < symbol.count:
            held[_elements(at.offset, [(int(n), s) for n, s in zip(at.shape, at.strides, strict=False)])] = True
    return held


def _elements(offset: int, dims: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """Every element of an array of (size, stride) dims."""
    starts, run = runs(offset, dims)
    return np.unique(starts[:, None] + np.arange(run))


def _address_faults(
    section: Section, symbols: Mapping[str, Symbol], inputs: Mapping[str, Mask | None]
) -> Iterator[Fault]:
    table = covered(section)
    for index, command, trips in nest(section.code):
        for access in accesses(section, command):
            descriptor = table[access.descriptor]
            symbol = symbols[descriptor.symbol]
            where = f"{command_name(section, index, command)} {access.operand} d{access.descriptor}"
            if len(descriptor.steps) > len(trips):
                yield Fault("D2", where, f"{len(descriptor.steps)} steps in {len(trips)} loops")
            low, high = reach(descriptor, [int(n) for n in trips])
            away = chip_of_space(symbol.space)[1] != section.chip
            if away and (command.op != "DMA" or access.role != "read"):
                yield Fault("L1", where, f"{symbol.name} in {symbol.space}")
            if low < 0 or high >= symbol.count:
                yield Fault("D3", where, f"elements {low}..{high} of {symbol.name}, which has {symbol.count}")
            elif access.role != "read" and symbol.kind == "weight":
                yield Fault("D4", where, f"writes weight {symbol.name}")
            elif access.role != "read" and symbol.name in inputs:
                sizes = (*trips[: len(descriptor.steps)], *descriptor.sizes)
                strides = (*descriptor.steps, *descriptor.strides)
                dims = [(int(n), stride) for n, stride in zip(sizes, strides, strict=False)]
                held = inputs[symbol.name]
                if held is None or held[_elements(descriptor.offset, dims)].any():
                    yield Fault("D4", where, f"writes input {symbol.name}")
