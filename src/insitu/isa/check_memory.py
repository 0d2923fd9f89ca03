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
from insitu.isa.program import Program, Section, Symbol
from insitu.isa.walk import accesses, nest, reach

Mask = npt.NDArray[np.bool_]


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
    end = symbol.address + symbol.count * kind.width
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
        if memories and space not in memories:
            yield Fault("M3", f"space {space}", f"no memory of this name on {program.chip.get('name', 'the chip')}")
        elif memories and used > (size := _bytes(memories[space])):
            yield Fault("M3", f"space {space}", f"{used} bytes of {size}")


def _bytes(memory: Mapping[str, Any]) -> float:
    """The size of a memory as written ("320 KiB" or a number); unbounded where it is not."""
    try:
        return parse_quantity(memory["size"], "B")
    except (KeyError, ConfigError):
        return float("inf")


def _value_faults(program: Program) -> Iterator[Fault]:
    counts = {s.name: s.count for s in program.symbols}
    for value, at in program.values.items():
        sizes = [int(n) for n in at.shape]
        moves = [(n - 1) * stride for n, stride in zip(sizes, at.strides, strict=False)]
        low, high = at.offset + sum(min(0, m) for m in moves), at.offset + sum(max(0, m) for m in moves)
        if len(at.shape) != len(at.strides) or low < 0 or high >= counts[at.symbol]:
            yield Fault("M4", f"value {value}", f"elements {low}..{high} of {at.symbol}, which has {counts[at.symbol]}")


def _held(program: Program, symbol: Symbol) -> Mask:
    """Which elements of a symbol hold graph values; the rest is padding that a program may fill."""
    held = np.zeros(max(symbol.count, 0), bool)
    for at in (at for at in program.values.values() if at.symbol == symbol.name and len(at.shape) == len(at.strides)):
        elements = _elements(at.offset, [int(n) for n in at.shape], at.strides)
        held[elements[(elements >= 0) & (elements < symbol.count)]] = True
    return held


def _elements(offset: int, sizes: Sequence[int], strides: Sequence[int]) -> npt.NDArray[np.int64]:
    """Every element address of an array, as one list."""
    elements = np.array([offset], np.int64)
    for size, stride in zip(sizes, strides, strict=False):
        elements = (elements[:, None] + np.arange(size) * stride).ravel()
    return elements


def _address_faults(section: Section, symbols: Mapping[str, Symbol], inputs: Mapping[str, Mask]) -> Iterator[Fault]:
    for index, command, trips in nest(section.code):
        for access in accesses(section, command):
            descriptor = section.descriptors[access.descriptor]
            symbol = symbols[descriptor.symbol]
            where = f"{command_name(section, index, command)} {access.operand} d{access.descriptor}"
            if len(descriptor.steps) > len(trips):
                yield Fault("D2", where, f"{len(descriptor.steps)} steps in {len(trips)} loops")
            low, high = reach(descriptor, [int(n) for n in trips])
            if low < 0 or high >= symbol.count:
                yield Fault("D3", where, f"elements {low}..{high} of {symbol.name}, which has {symbol.count}")
            elif access.role != "read" and symbol.kind == "weight":
                yield Fault("D4", where, f"writes weight {symbol.name}")
            elif access.role != "read" and symbol.name in inputs:
                sizes = [int(n) for n in (*trips, *descriptor.sizes)]
                steps = (*descriptor.steps, *(0,) * (len(trips) - len(descriptor.steps)), *descriptor.strides)
                if inputs[symbol.name][_elements(descriptor.offset, sizes, steps)].any():
                    yield Fault("D4", where, f"writes input {symbol.name}")
