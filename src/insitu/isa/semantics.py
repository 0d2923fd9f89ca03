"""What a Program means: every command executed element by element on real bytes, one sample, nothing clever.

This is the definition that the simulators are tested against; it shares only numeric/ with them.  Integers are
Python's, so nothing overflows unseen: a result that its element cannot hold is a ProgramError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import DataError, ProgramError
from insitu.isa.calls import split_code
from insitu.isa.elements import Element, element
from insitu.isa.fault import command_name, core_name
from insitu.isa.program import Descriptor, Location, Program, Section, Symbol
from insitu.isa.semantics_machine import Machine, Operand
from insitu.isa.semantics_ops import EXECUTE
from insitu.isa.walk import blocks

Arrays = Mapping[str, npt.NDArray[Any]]


def run(
    program: Program,
    inputs: Arrays,
    *,
    states: Arrays | None = None,
    observe: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    order: Sequence[int] = (),
) -> dict[str, npt.NDArray[Any]]:
    """The program's outputs, value name -> codes, for one sample.

    `inputs` and `states` hold codes by value (or symbol) name; a state that is not given starts as its symbol says.
    `observe` adds values or symbols, as last written through their symbol (their bytes may be used again later);
    observing a state gives what the next step starts from.  `order` is the order in which sections are tried; it
    changes nothing in a program that `check_program` accepts.
    """
    program = program.bind(sizes or {}) if program.sizes else program
    memory = Memory(program)
    for name, codes in {**inputs, **(states or {})}.items():
        memory.put(name, codes)
    _interleave(program, memory, order)
    outputs = {name: memory.get(name) for name in _outputs(program)}
    return outputs | {name: memory.seen(name) for name in observe}


def _outputs(program: Program) -> list[str]:
    """The values of the graph's outputs: those the program names, else all that lie in output symbols."""
    named = program.meta.get("outputs")
    if named is not None:
        return [str(name) for name in named]
    return [name for name, at in program.values.items() if program.symbol(at.symbol).kind == "output"]


class Memory:
    """The bytes of every space, and beside them what was written through each symbol."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._symbols = {s.name: s for s in program.symbols}
        ends = {s.space: 0 for s in program.symbols}
        for s in program.symbols:
            ends[s.space] = max(ends[s.space], s.address + kind_of(s).bytes(s.count))
        self._spaces = {space: bytearray(max(end, program.spaces.get(space, 0))) for space, end in ends.items()}
        self.held: dict[str, Any] = {}  # values that only the host holds
        self._written: dict[str, dict[int, Any]] = {s.name: {} for s in program.symbols}
        for s in program.symbols:
            if s.kind in ("weight", "state"):
                self._fill(s)

    def _fill(self, symbol: Symbol) -> None:
        data = (
            self._program.weight(symbol.weight).ravel().tolist() if symbol.weight else [symbol.initial] * symbol.count
        )
        for index, value in enumerate(data):
            self._store(symbol, index, value)

    def symbol(self, name: str) -> Symbol:
        """The symbol of a name."""
        return self._symbols[name]

    def load(self, symbol: Symbol, index: int) -> Any:
        """The element `index` of a symbol."""
        kind = self._element(symbol, index)
        at = symbol.address + index * kind.width // kind.share
        if kind.share > 1:
            code = self._spaces[symbol.space][at] >> index % kind.share * kind.bits & (1 << kind.bits) - 1
            return code - (1 << kind.bits) if code > kind.hi else code
        if not kind.integer:
            return float(np.frombuffer(self._spaces[symbol.space], kind.numpy, 1, at)[0])
        return int.from_bytes(self._spaces[symbol.space][at : at + kind.width], "little", signed=kind.lo < 0)

    def store(self, symbol: Symbol, index: int, value: Any) -> None:
        """Write the element `index` of a symbol."""
        if symbol.kind == "weight":
            raise ProgramError(f"symbol {symbol.name}", "a write", "no writes to weight symbols")
        self._store(symbol, index, value)

    def _store(self, symbol: Symbol, index: int, value: Any) -> None:
        kind = self._element(symbol, index)
        at = symbol.address + index * kind.width // kind.share
        if kind.integer and not kind.holds(int(value), int(value)):
            raise ProgramError(f"symbol {symbol.name}", f"value {value}", f"{kind.lo} to {kind.hi}")
        if kind.share > 1:
            low, mask = index % kind.share * kind.bits, (1 << kind.bits) - 1
            data = bytes([self._spaces[symbol.space][at] & ~(mask << low) & 0xFF | (int(value) & mask) << low])
        elif kind.integer:
            data = int(value).to_bytes(kind.width, "little", signed=kind.lo < 0)
        else:
            with np.errstate(all="ignore"):
                data = np.array(value, kind.numpy).tobytes()
        self._spaces[symbol.space][at : at + kind.width] = data
        self._written[symbol.name][index] = value

    def _element(self, symbol: Symbol, index: int) -> Element:
        if not 0 <= index < symbol.count:
            raise ProgramError(f"symbol {symbol.name}", f"element {index}", f"0 to {symbol.count - 1}")
        return kind_of(symbol)

    def put(self, name: str, codes: npt.NDArray[Any]) -> None:
        """Place the codes of an input or state, or what only the host holds."""
        if name in self._program.meta.get("host_values", ()):
            self.held[name] = codes
            return
        at = self._location(name)
        shape = tuple(int(n) for n in at.shape)
        kind = kind_of(self._symbols[at.symbol])
        if codes.shape != shape or codes.dtype.kind not in ("iub" if kind.integer else "f"):
            need = f"{'integers' if kind.integer else kind.name} {list(shape)}"
            raise DataError(f"value {name}", f"{codes.dtype} {list(codes.shape)}", need)
        for index in np.ndindex(shape):
            self._store(self._symbols[at.symbol], _address(at, index), codes[index].item())

    def get(self, name: str) -> Any:
        """The codes of a value as memory (or the host) holds them now."""
        if name in self.held:
            return self.held[name]
        at = self._location(name)
        symbol = self._symbols[at.symbol]
        return _gather(at, lambda index: self.load(symbol, index), kind_of(symbol))

    def seen(self, name: str) -> npt.NDArray[Any]:
        """The codes of a value as last written through its symbol."""
        at = self._location(name)
        symbol = self._symbols[at.symbol]
        written = self._written[at.symbol]
        kind = kind_of(symbol)
        return _gather(at, lambda index: written[index] if index in written else self.load(symbol, index), kind)

    def _location(self, name: str) -> Location:
        if name in self._program.values:
            return self._program.values[name]
        if name in self._symbols:
            return Location(name, 0, (self._symbols[name].count,), (1,))
        raise DataError(f"value {name}", "no such value or symbol", f"one of {', '.join(self._program.values)}")


def kind_of(symbol: Symbol) -> Element:
    """The element type of a symbol."""
    kind = element(symbol.dtype)
    if kind is None:
        raise ProgramError(f"symbol {symbol.name}", f"element type {symbol.dtype!r}", "a known element type")
    return kind


def _gather(at: Location, load: Any, kind: Element) -> npt.NDArray[Any]:
    plain = kind.integer and kind.name != "bool" and kind.hi < 1 << 63
    values = np.zeros(tuple(int(n) for n in at.shape), np.int64 if plain else kind.numpy)
    for index in np.ndindex(values.shape):
        values[index] = load(_address(at, index))
    return values


def _address(at: Location, index: Sequence[int]) -> int:
    return at.offset + sum(i * stride for i, stride in zip(index, at.strides, strict=True))


# sections, one beside the other


@dataclass
class _Core:
    section: Section
    steps: Iterator[str]
    waits: str = ""


@dataclass
class _Sync:
    """Tokens, how often the barrier has opened, and how many commands have run."""

    tokens: dict[int, int] = field(default_factory=dict[int, int])
    moves: int = 0
    opened: int = 0


def _interleave(program: Program, memory: Memory, order: Sequence[int]) -> None:
    """Run all sections, each until it has to wait; when none can go on and not all have ended, that is a deadlock."""
    sync = _Sync()
    cores = [_Core(s, _execute(program, s, memory, sync)) for s in program.sections]
    running = [cores[i] for i in order] if order else list(cores)
    while running:
        moves = sync.moves
        for core in running:
            core.waits = next(core.steps, "")
        running = [core for core in running if core.waits]
        if len(running) == len(cores) and all(core.waits.endswith("BAR") for core in running):
            sync.opened += 1
        elif sync.moves == moves:
            stuck = "; ".join(f"{core_name(core.section)} at {core.waits}" for core in running)
            raise ProgramError(f"program {program.name}", f"deadlock: {stuck}", "signals for every wait")


def _execute(program: Program, section: Section, memory: Memory, sync: _Sync) -> Iterator[str]:
    """Run one section; yields what it waits for."""
    machine = Machine(program, section, memory.held)
    at, loops = 0, list[tuple[int, int]]()  # (index of LOOP, trips done)
    calls: list[int] = []  # where to go on
    while at < len(section.code):
        command = section.code[at]
        match command.op:
            case "LOOP":
                loops.append((at, 0))
            case "ENDL":
                start, done = loops.pop()
                if done + 1 < int(section.code[start].args[0]):
                    loops.append((start, done + 1))
                    at = start
            case "SIG":
                token = int(command.args[0])
                sync.tokens[token] = sync.tokens.get(token, 0) + 1
            case "AWAIT":
                token, count = int(command.args[0]), int(command.args[1])
                while sync.tokens.get(token, 0) < count:
                    yield f"command {at}, AWAIT t{token}"
                sync.tokens[token] -= count
            case "BAR":
                opened = sync.opened
                while sync.opened == opened:
                    yield f"command {at}, BAR"
            case "PRED":
                [cond] = (_first(memory, d, [done for _, done in loops]) for _, d in machine.descriptors(command))
                if bool(cond) != bool(command.args[1]):
                    at = blocks(section.code)[at]
            case "ENDP":
                pass
            case "CALL":
                calls.append(at)
                at = split_code(section.code)[1][int(command.args[0])][0] - 1
            case "RET":
                at = calls.pop()
            case "SETD":
                [value] = (_first(memory, d, [done for _, done in loops]) for _, d in machine.descriptors(command))
                target, _, dim, most = (int(a) for a in command.args)
                if not 0 <= value <= most:
                    raise ProgramError(command_name(section, at, command), f"value {value}", f"0 to {most}")
                machine.moved[target] = value * section.descriptors[target].strides[dim]
            case "HALT":
                sync.moves += 1
                return
            case _:
                counters = [done for _, done in loops]
                named = {name: Operand(memory, d, counters) for name, d in machine.descriptors(command)}
                try:
                    EXECUTE[command.op](machine, command, named)
                    for operand in named.values():
                        operand.write()
                except ProgramError as error:
                    where = f"{command_name(section, at, command)}, trips {counters}: {error.where}"
                    raise ProgramError(where, error.got, error.need) from None
        at += 1
        sync.moves += 1
    raise ProgramError(core_name(section), "the end of the code", "HALT")


def _first(memory: Memory, descriptor: Descriptor, counters: Sequence[int]) -> int:
    """The only element of an operand."""
    return int(Operand(memory, descriptor, counters)[(0,) * len(descriptor.sizes)])
