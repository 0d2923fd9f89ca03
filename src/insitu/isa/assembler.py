"""Assembly: a section as text that a person reads and that parses back to the same section.

section chip 0 core 1
d0 = act +12 [OW:8, 3:24, 8:1] step (32, 0)          an operand: symbol, offset, size:stride per dimension, loop steps
b0 = binding label=conv weight=w bias=b rows=72 cols=16 zero_in=-3
  readout kind=adc bits=8                            fields with their default are left out
  post multiplier=m shift=20
  tile macro=0 row0=0 rows=72 col0=0 cols=16 x=0 y=0
v0 = vector zero_a=3
h0 = host label=top operator=TopK model="..."         one operator for the host
  input name=x dtype=f32 shape=(2, 3) descriptor=0     descriptor=-1: only the host holds it
code
  LOOP 16
    MVM d1, d0, b0                                   # a comment runs to the end of the line
  ENDL
  HALT
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, cast, get_type_hints

from insitu.base.errors import ProgramError, did_you_mean
from insitu.isa.program import (
    Binding,
    Command,
    Descriptor,
    Host,
    HostValue,
    Post,
    Program,
    Readout,
    Section,
    Size,
    Tile,
    Vector,
)
from insitu.isa.records import from_plain
from insitu.isa.table import Operand, instruction, table

_PREFIX = {"descriptor": "d", "binding": "b", "vector": "v", "host": "h", "token": "t", "register": "d"}
_TOKEN = re.compile(r'\s*(?:(#.*$)|("(?:[^"\\]|\\.)*")|([A-Za-z_][\w./-]*)|([+-]?\d+)|(.))')
_NAME = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
_WORDS = {"true": True, "false": False, "none": None}


# printing


def print_section(section: Section) -> str:
    """The text of a section."""
    lines = [f"section chip {section.chip} core {section.core}"]
    lines += [f"d{i} = {_descriptor(d)}" for i, d in enumerate(section.descriptors)]
    for i, binding in enumerate(section.bindings):
        lines += [f"b{i} = binding{_fields(binding)}", *_nested(binding)]
    for i, vector in enumerate(section.vectors):
        lines += [f"v{i} = vector{_fields(vector)}", *_nested(vector)]
    for i, host in enumerate(section.hosts):
        lines += [f"h{i} = host{_fields(host)}", *_nested(host)]
    return "\n".join([*lines, "code", *_code(section)]) + "\n"


def print_program(program: Program) -> str:
    """A program for a person: its memory map, its weights, and every section."""
    lines = [f"program {_text(program.name)}"]
    lines += [f"size {_text(name)} <= {size}" for name, size in sorted(program.sizes.items())]
    lines += [f"space {_text(name)} {size} B" for name, size in sorted(program.spaces.items())]
    lines += [
        f"symbol {_text(s.name)} {s.kind} {s.space}[{s.address}] {s.dtype} x {s.count}"
        + (f" = {_text(s.weight)}" if s.weight else "")
        for s in program.symbols
    ]
    lines += [f"weight {_text(n)} {w.dtype} {list(w.shape)} {w.hash}" for n, w in sorted(program.weights.items())]
    return "\n".join(lines) + "\n\n" + "\n".join(print_section(s) for s in program.sections)


def _descriptor(d: Descriptor) -> str:
    if len(d.sizes) != len(d.strides):
        raise ProgramError(
            f"descriptor of {d.symbol}", f"{len(d.sizes)} sizes, {len(d.strides)} strides", "equally many"
        )
    dims = ", ".join(f"{_value(n)}:{stride}" for n, stride in zip(d.sizes, d.strides, strict=True))
    return f"{_text(d.symbol)} {d.offset:+d} [{dims}]" + (f" step {_value(d.steps)}" if d.steps else "")


def _fields(record: Any) -> str:
    """The text `key=value` for each plain field that is not at its default."""
    shown = ((f, getattr(record, f.name)) for f in fields(record) if f.name not in _NESTED)
    return "".join(f" {f.name}={_value(v)}" for f, v in shown if f.default is MISSING or f.default != v)


def _nested(record: Binding | Vector | Host) -> Iterator[str]:
    if isinstance(record, Host):
        yield from (f"  input{_fields(value)}" for value in record.inputs)
        yield from (f"  output{_fields(value)}" for value in record.outputs)
        return
    if isinstance(record, Binding) and record.readout != Readout():
        yield f"  readout{_fields(record.readout)}"
    if record.post != Post():
        yield f"  post{_fields(record.post)}"
    if isinstance(record, Binding):
        yield from (f"  tile{_fields(tile)}" for tile in record.tiles)


_NESTED = ("readout", "post", "tiles", "inputs", "outputs")


def _value(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, cast(tuple[object, ...], value)))})"
    return _text(value) if isinstance(value, str) else str(value)


def _text(value: str) -> str:
    return value if _NAME.fullmatch(value) and value not in _WORDS else json.dumps(value)


def _code(section: Section) -> Iterator[str]:
    depth = 1
    for command in section.code:
        depth -= command.op in ("ENDL", "ENDP")
        yield f"{'  ' * max(depth, 1)}{print_command(command)}{_comment(section, command)}"
        depth += command.op in ("LOOP", "PRED")


def print_command(command: Command) -> str:
    """One command, such as "MVM d1, d0, b0"."""
    row = instruction(command.op)
    if row is None or len(row.operands) != len(command.args):
        raise ProgramError(f"command {command.op}", f"{len(command.args)} operands", "a row of the instruction table")
    shown = (_PREFIX.get(o.kind, "") + _value(a) for o, a in zip(row.operands, command.args, strict=True))
    return f"{command.op} {', '.join(shown)}".rstrip()


def _comment(section: Section, command: Command) -> str:
    """The label of the layer a command serves."""
    row = instruction(command.op)
    kind = row.operands[-1].kind if row and row.operands else ""
    records = {"binding": section.bindings, "vector": section.vectors, "host": section.hosts}.get(kind, ())
    index = command.args[-1] if command.args else 0
    label = records[index].label if isinstance(index, int) and 0 <= index < len(records) else ""
    return f"  # {json.dumps(label)[1:-1]}" if label else ""


# parsing


def parse_section(text: str, *, where: str = "assembly") -> Section:
    """The section that `print_section` wrote, or a person; a fault names its line."""
    parsed = _Parsed()
    for number, raw in enumerate(text.splitlines(), 1):
        line = _Line(raw, f"{where}:{number}")
        if line.done:
            continue
        if parsed.in_code:
            parsed.code.append(_command(line))
        else:
            _declaration(parsed, line)
    if not parsed.in_code:
        raise ProgramError(where, "no line `code`", "tables, then `code` and commands")
    return parsed.section()


def parse_command(text: str, *, where: str = "command") -> Command:
    """One command, such as "MVM d1, d0, b0"."""
    return _command(_Line(text, where))


@dataclass
class _Parsed:
    """What has been read so far; records are kept as field mappings until they are complete."""

    place: tuple[int, int] | None = None
    descriptors: list[Descriptor] = field(default_factory=list[Descriptor])
    records: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"binding": [], "vector": [], "host": []})
    last: str = ""
    code: list[Command] = field(default_factory=list[Command])
    in_code: bool = False

    def section(self) -> Section:
        bindings = tuple(Binding(**row) for row in self.records["binding"])
        vectors = tuple(Vector(**row) for row in self.records["vector"])
        hosts = tuple(Host(**row) for row in self.records["host"])
        return Section(*(self.place or (0, 0)), tuple(self.descriptors), bindings, vectors, tuple(self.code), hosts)


def _declaration(parsed: _Parsed, line: _Line) -> None:
    word = line.name()
    if word == "code":
        parsed.in_code = True
    elif word == "section" and parsed.place is None:
        line.expect("chip")
        chip = line.number()
        line.expect("core")
        parsed.place = (chip, line.number())
    elif word in NESTS and parsed.last:
        _nest(parsed, word, line)
    elif word[0] in "dbvh" and word[1:].isdigit():
        _definition(parsed, word, line)
    else:
        raise line.fault(word, "section, d0 =, b0 =, v0 =, h0 =, readout, post, tile, input, output or code")
    line.end()


def _definition(parsed: _Parsed, word: str, line: _Line) -> None:
    line.expect("=")
    kind = {"d": "descriptor", "b": "binding", "v": "vector", "h": "host"}[word[0]]
    rows = parsed.descriptors if kind == "descriptor" else parsed.records[kind]
    if int(word[1:]) != len(rows):
        raise line.fault(word, f"{word[0]}{len(rows)}, the next of its kind")
    if kind == "descriptor":
        parsed.descriptors.append(_read_descriptor(line))
        parsed.last = ""
        return
    line.expect(kind)
    row = _read_fields({"binding": Binding, "vector": Vector, "host": Host}[kind], line)
    parsed.records[kind].append(row | dict.fromkeys(LISTS.get(kind, ()), ()))
    parsed.last = kind


NESTS: dict[str, tuple[type, tuple[str, ...]]] = {
    "readout": (Readout, ("binding",)), "post": (Post, ("binding", "vector")), "tile": (Tile, ("binding",)),
    "input": (HostValue, ("host",)), "output": (HostValue, ("host",)),
}  # fmt: skip
LISTS = {"binding": ("tiles",), "host": ("inputs", "outputs")}


def _nest(parsed: _Parsed, word: str, line: _Line) -> None:
    record, (kind, owners) = parsed.records[parsed.last][-1], NESTS[word]
    if word in record or parsed.last not in owners:
        raise line.fault(word, f"one that belongs to this {parsed.last}, once")
    nested = kind(**_read_fields(kind, line))
    if f"{word}s" in record:
        record[f"{word}s"] = (*record[f"{word}s"], nested)
    else:
        record[word] = nested


def _read_descriptor(line: _Line) -> Descriptor:
    symbol, offset = line.text(), line.number()
    sizes: list[Size] = []
    strides: list[int] = []
    line.expect("[")
    while not line.take("]"):
        if sizes:
            line.expect(",")
        sizes.append(line.size())
        line.expect(":")
        strides.append(line.number())
    steps = line.value() if line.take("step") else ()
    return Descriptor(
        symbol, offset, tuple(sizes), tuple(strides), from_plain(tuple[int, ...], _listed(steps), where=line.where)
    )


def _read_fields(kind: type, line: _Line) -> dict[str, Any]:
    """The "key=value" pairs up to the end of the line, each of its field's type."""
    hints = {f.name: f for f in fields(kind) if f.name not in _NESTED}
    types = get_type_hints(kind)
    row: dict[str, Any] = {}
    while not line.done:
        name = line.name()
        if name not in hints or name in row:
            raise line.fault(name, f"a field of {kind.__name__}, once", did_you_mean(name, hints))
        line.expect("=")
        row[name] = from_plain(types[name], _listed(line.value()), where=f"{line.where}: {name}")
    missing = [n for n, f in hints.items() if f.default is MISSING and n not in row]
    if missing:
        raise line.fault("the end of the line", f"{missing[0]}=...")
    return row


def _listed(value: Any) -> Any:
    return [_listed(item) for item in cast(tuple[Any, ...], value)] if isinstance(value, tuple) else value


def _command(line: _Line) -> Command:
    mnemonic = line.name()
    row = instruction(mnemonic)
    if row is None:
        raise line.fault(mnemonic, "an instruction", did_you_mean(mnemonic, table().instructions))
    args: list[Size] = []
    for operand in row.operands:
        if args:
            line.expect(",")
        args.append(_argument(operand, line))
    line.end()
    return Command(mnemonic, tuple(args))


def _argument(operand: Operand, line: _Line) -> Size:
    prefix = _PREFIX.get(operand.kind, "")
    if not prefix:
        return line.size() if operand.kind == "size" else line.number()
    word = line.name()
    if word[0] != prefix or not word[1:].isdigit():
        raise line.fault(word, f"a {operand.kind}, such as {prefix}0")
    return int(word[1:])


class _Line:
    """The tokens of one line, read from left to right."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self._tokens = [m.groups() for m in _TOKEN.finditer(text.rstrip()) if m.group(1) is None]
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._tokens)

    def fault(self, got: str, need: str, ways: tuple[str, ...] = ()) -> ProgramError:
        return ProgramError(self.where, got, need, try_=ways)

    def _next(self, need: str) -> tuple[str, str, str, str]:
        if self.done:
            raise self.fault("the end of the line", need)
        self._at += 1
        _, *found = self._tokens[self._at - 1]
        quoted, name, number, other = (part or "" for part in found)
        return quoted, name, number, other

    def take(self, word: str) -> bool:
        """Skip `word` if it comes next."""
        found = not self.done and word in self._tokens[self._at][2:]
        self._at += found
        return found

    def expect(self, word: str) -> None:
        if not self.take(word):
            raise self.fault("".join(self._next(word)), word)

    def name(self) -> str:
        quoted, name, number, other = self._next("a name")
        if not name:
            raise self.fault(quoted or number or other, "a name")
        return name

    def text(self) -> str:
        quoted, name, number, other = self._next("a name")
        if number or other:
            raise self.fault(number or other, 'a name, or one in "quotes"')
        return name or self._unquoted(quoted)

    def number(self) -> int:
        found = self._next("a number")
        if not found[2]:
            raise self.fault("".join(found), "a number")
        return int(found[2])

    def size(self) -> Size:
        value = self.value()
        if type(value) not in (int, str):
            raise self.fault(str(value), "a number or a name")
        return value

    def value(self) -> Any:
        """A number, a text, true, false, none, or a list in parentheses."""
        quoted, name, number, other = self._next("a value")
        if other == "(":
            return self._list()
        if other:
            raise self.fault(other, "a value")
        if number:
            return int(number)
        return self._unquoted(quoted) if quoted else _WORDS.get(name, name)

    def _list(self) -> tuple[Any, ...]:
        items: list[Any] = []
        while not self.take(")"):
            if items:
                self.expect(",")
            items.append(self.value())
        return tuple(items)

    def _unquoted(self, text: str) -> str:
        try:
            return json.loads(text)
        except ValueError:
            raise self.fault(text, "a text in JSON quotes") from None

    def end(self) -> None:
        if not self.done:
            raise self.fault("".join(self._next("")), "the end of the line")
