"""The reader of graph text: one line at a time, every fault with its line number, nothing executed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ModelError, RangeError, did_you_mean
from insitu.graph.graph import Attr, Graph, Level, Node, Scalar, State
from insitu.graph.types import DTYPES, HOST, Dim, TensorType
from insitu.numeric.affine import QuantSpec

Array = npt.NDArray[Any]
HASH_DIGITS = 32
MAX_ELEMENTS = 1 << 31
PLAIN = re.compile(r"[A-Za-z0-9_./:;+\-#@%$|~^&*<>?!']+")
RESERVED = frozenset(
    ("_", ":", "as", "from", "graph", "meta", "input", "const", "state", "output", "data", "end", "true", "false")
)
TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[()\[\]{},=]|[^\s()\[\]{},="]+)')
DIGEST = re.compile(rf"sha256:[0-9a-f]{{{HASH_DIGITS}}}")
NUMPY_TYPES: dict[str, Any] = {
    "f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "f64": np.dtype(np.float64),
    "i8": np.dtype(np.int8), "u8": np.dtype(np.uint8), "i16": np.dtype(np.int16), "u16": np.dtype(np.uint16),
    "i32": np.dtype(np.int32), "u32": np.dtype(np.uint32), "i64": np.dtype(np.int64), "u64": np.dtype(np.uint64),
    "bool": np.dtype(np.bool_),
}  # fmt: skip


def parse_graph(text: str, *, where: str = "graph text") -> Graph:
    """The graph that `print_graph` wrote; ModelError with the line number where the text is something else."""
    draft = _Draft(where, text.split("\n"))
    draft.head()
    while not draft.done:
        draft.line()
    return draft.graph()


class _Tokens:
    """The words of one line, read from left to right."""

    def __init__(self, line: str, fail: Callable[[str, str], ModelError]) -> None:
        self.fail, self.words, place = fail, list[str](), 0
        line = line.rstrip()
        while place < len(line):
            match = TOKEN.match(line, place)
            if match is None:
                raise fail(f"unreadable from {line[place : place + 20].strip()!r} on", "names, numbers and brackets")
            self.words.append(match[1])
            place = match.end()
        self.at = 0

    @property
    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def next(self, what: str) -> str:
        if self.at >= len(self.words):
            raise self.fail("the line ends too early", what)
        self.at += 1
        return self.words[self.at - 1]

    def want(self, *words: str) -> None:
        for word in words:
            got = self.next(f"{word!r}")
            if got != word:
                raise self.fail(f"{got!r}", f"{word!r}")

    def take(self, word: str) -> bool:
        """True, and past it, where `word` comes next."""
        if self.peek != word:
            return False
        self.at += 1
        return True

    def end(self) -> None:
        if self.at < len(self.words):
            raise self.fail(f"{self.peek!r}", "the end of the line")

    def name(self) -> str:
        word = self.next("a name")
        if word.startswith('"'):
            return self.string(word)
        if not PLAIN.fullmatch(word) or word in RESERVED:
            raise self.fail(f"{word!r}", 'a name (or a string in "")')
        return word

    def string(self, word: str) -> str:
        try:
            return str(json.loads(word))
        except ValueError:
            raise self.fail(f"{word[:30]}", "a JSON string") from None

    def integer(self, what: str = "an integer") -> int:
        word = self.next(what)
        if not re.fullmatch(r"-?\d{1,20}", word) or abs(int(word)) >= 1 << 64:
            raise self.fail(f"{word[:30]!r}", what)
        return int(word)

    def real(self) -> float:
        word = self.next("a number")
        try:
            return float(word)
        except ValueError:
            raise self.fail(f"{word[:30]!r}", "a number") from None

    def number(self) -> float | int:
        return self.integer() if re.fullmatch(r"-?\d+", self.peek) else self.real()

    def scalar(self) -> Scalar:
        word = self.peek
        if word in ("true", "false"):
            self.at += 1
            return word == "true"
        if word.startswith('"'):
            return self.string(self.next("a value"))
        return self.number()

    def items(self, close: str) -> Iterator[None]:
        """Yields once per item of a list up to `close`; the caller reads the item."""
        if self.take(close):
            return
        while True:
            yield
            if self.take(close):
                return
            self.want(",")

    def attr(self) -> Attr:
        if not self.take("["):
            return self.scalar()
        return tuple(self.scalar() for _ in self.items("]"))


@dataclass(frozen=True)
class _Table:
    """A constant by hash, until its bytes are there."""

    digest: str
    line: int


@dataclass
class _Draft:
    """The graph as far as it is read."""

    where: str
    lines: list[str]
    at: int = 0
    done: bool = False
    name: str = ""
    level: Level = "captured"
    inputs: list[str] = field(default_factory=list[str])
    outputs: list[str] = field(default_factory=list[str])
    states: list[State] = field(default_factory=list[State])
    nodes: list[Node] = field(default_factory=list[Node])
    types: dict[str, TensorType] = field(default_factory=dict[str, TensorType])
    scales: dict[str, tuple[TensorType, _Table]] = field(default_factory=dict[str, tuple[TensorType, _Table]])
    constants: dict[str, Array | _Table] = field(default_factory=dict[str, "Array | _Table"])
    meta: dict[str, Attr] = field(default_factory=dict[str, Attr])
    data: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def fail(self, got: str, need: str) -> ModelError:
        return ModelError(f"{self.where}:{self.at}", got, need)

    def tokens(self) -> _Tokens:
        """The words of the next line that has any."""
        while self.at < len(self.lines):
            self.at += 1
            words = _Tokens(self.lines[self.at - 1], self.fail)
            if words.words:
                return words
        raise self.fail("the text ends too early", "all of the graph, up to its `end`")

    def head(self) -> None:
        words = self.tokens()
        if not words.take("graph"):
            raise self.fail("this is not graph text", "a first line such as `graph NAME level=captured`")
        self.name = words.name()
        words.want("level", "=")
        level = words.next("a level")
        if level not in get_args(Level):
            raise self.fail(f"level {level!r}", f"one of {', '.join(get_args(Level))}")
        self.level = level  # pyright: ignore[reportAttributeAccessIssue]
        words.end()

    def line(self) -> None:
        words = self.tokens()
        reader = LINES.get(words.peek)
        if reader is None:
            self.node(words)
        else:
            words.at += 1
            reader(self, words)
        words.end()

    def read_meta(self, words: _Tokens) -> None:
        key = words.name()
        words.want("=")
        self.meta[key] = words.attr()

    def read_input(self, words: _Tokens) -> None:
        self.inputs.append(self.value(words))

    def read_state(self, words: _Tokens) -> None:
        name = self.value(words)
        words.want("from")
        self.states.append(State(name, words.name()))

    def read_output(self, words: _Tokens) -> None:
        self.outputs.append(words.name())

    def read_end(self, words: _Tokens) -> None:
        self.done = True

    def value(self, words: _Tokens) -> str:
        """A name with its type, which is noted."""
        name = words.name()
        if name in self.types:
            raise self.fail(f"{name!r} is there already", "a name of its own")
        words.want(":")
        dtype = words.next("an element type")
        if dtype not in (*DTYPES, HOST):
            raise ModelError(
                f"{self.where}:{self.at}", f"the type {dtype!r}", f"one of {', '.join(DTYPES)}",
                try_=did_you_mean(dtype, DTYPES),
            )  # fmt: skip
        words.want("[")
        shape = tuple(self.dim(words) for _ in words.items("]"))
        if prod(d for d in shape if isinstance(d, int)) > MAX_ELEMENTS:
            raise self.fail(f"the shape {list(shape)}", f"at most {MAX_ELEMENTS:,} elements")
        self.types[name] = TensorType(shape, dtype)
        if words.take("quant"):
            self.quant(words, name)
        return name

    def dim(self, words: _Tokens) -> Dim:
        if not words.peek.lstrip("-").isdigit():
            return words.name()
        size = words.integer("a size")
        if size < 0:
            raise self.fail(f"a size of {size}", "at least 0")
        return size

    def quant(self, words: _Tokens, name: str) -> None:
        words.want("(")
        bits = words.integer("a number of bits")
        words.want(",")
        sign = words.next("signed or unsigned")
        if sign not in ("signed", "unsigned"):
            raise self.fail(f"{sign!r}", "signed or unsigned")
        words.want(",", "scale", "=")
        scale = self.scale(words)
        zero = words.integer() if words.peek == "," and self.key(words, "zero") else 0
        axis = words.integer() if words.peek == "," and self.key(words, "axis") else None
        words.want(")")
        known = (1.0,) if isinstance(scale, _Table) else scale
        spec = self.spec(bits, sign == "signed", known, zero, axis)
        self.types[name] = TensorType(self.types[name].shape, self.types[name].dtype, spec)
        if isinstance(scale, _Table):
            self.scales[name] = self.types[name], scale

    def key(self, words: _Tokens, key: str) -> bool:
        """True, and past it, where `, key=` comes next."""
        if words.words[words.at : words.at + 3] != [",", key, "="]:
            return False
        words.at += 3
        return True

    def scale(self, words: _Tokens) -> tuple[float, ...] | _Table:
        if DIGEST.fullmatch(words.peek):
            return _Table(words.next("a hash"), self.at)
        if words.take("["):
            return tuple(words.real() for _ in words.items("]"))
        return (words.real(),)

    def spec(self, bits: int, signed: bool, scale: tuple[float, ...], zero: int, axis: int | None) -> QuantSpec:
        try:
            return QuantSpec(bits, signed, scale, zero, axis)
        except RangeError as error:
            raise self.fail(f"{error.where} = {error.got}", error.need) from None

    def read_const(self, words: _Tokens) -> None:
        name = self.value(words)
        words.want("=")
        if DIGEST.fullmatch(words.peek):
            self.constants[name] = _Table(words.next("a hash"), self.at)
            return
        words.want("[")
        self.constants[name] = self.array(self.types[name], [words.number() for _ in words.items("]")])

    def array(self, kind: TensorType, values: list[float | int]) -> Array:
        dtype = NUMPY_TYPES[kind.dtype]
        if kind.symbols or len(values) != kind.count():
            raise self.fail(f"{len(values)} numbers", f"the {list(kind.shape)} of its type")
        if dtype.kind != "f" and not all(isinstance(v, int) for v in values):
            raise self.fail("numbers with fractions", f"integers of {kind.dtype}")
        try:
            with np.errstate(over="ignore"):
                return np.asarray(values, dtype).reshape(kind.sizes())
        except (OverflowError, ValueError):
            raise self.fail("numbers out of range", f"integers of {kind.dtype}") from None

    def node(self, words: _Tokens) -> None:
        outputs: list[str] = []
        while not words.take("="):
            if outputs:
                words.want(",")
            outputs.append("" if words.take("_") else self.value(words))
        op = words.name()
        words.want("(")
        inputs = tuple("" if words.take("_") else words.name() for _ in words.items(")"))
        attrs: dict[str, Attr] = {}
        if words.take("{"):
            for _ in words.items("}"):
                key = words.name()
                words.want("=")
                attrs[key] = words.attr()
        name = words.name() if words.take("as") else (outputs or [""])[0]
        self.nodes.append(Node(name, op, inputs, tuple(outputs), attrs))

    def read_data(self, words: _Tokens) -> None:
        digest, size = words.next("a hash"), words.integer("a number of bytes")
        start, parts = self.at, list[str]()
        while self.at < len(self.lines) and self.lines[self.at].startswith("  "):
            parts.append(self.lines[self.at].strip())
            self.at += 1
        try:
            content = base64.b64decode("".join(parts), validate=True)
        except (binascii.Error, ValueError):
            content = b""
        if len(content) != size or f"sha256:{hashlib.sha256(content).hexdigest()[:HASH_DIGITS]}" != digest:
            self.at = start
            raise self.fail("the data does not match its size and hash", "the data as it was written")
        self.data[digest] = content

    def content(self, table: _Table, dtype: Any) -> Array:
        content = self.data.get(table.digest)
        if content is None:
            self.at = table.line
            raise self.fail(f"the data of {table.digest} is missing", "text printed with its weights")
        if len(content) % dtype.itemsize:
            self.at = table.line
            raise self.fail(f"{len(content)} bytes", f"elements of {dtype.itemsize} bytes")
        return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype)

    def graph(self) -> Graph:
        """The whole graph, hashes replaced by what they stand for."""
        for name, (kind, table) in self.scales.items():
            assert kind.quant is not None
            scale = tuple(float(s) for s in self.content(table, np.dtype(np.float64)))
            spec = self.spec(kind.quant.bits, kind.quant.signed, scale, kind.quant.zero_point, kind.quant.axis)
            self.types[name] = TensorType(kind.shape, kind.dtype, spec)
        constants = {name: self.table(name, value) for name, value in self.constants.items()}
        inputs, outputs, nodes = tuple(self.inputs), tuple(self.outputs), tuple(self.nodes)
        return Graph(
            self.name, self.level, inputs, outputs, nodes, self.types, constants, tuple(self.states), self.meta
        )

    def table(self, name: str, value: Array | _Table) -> Array:
        if not isinstance(value, _Table):
            return value
        kind = self.types[name]
        array = self.content(value, NUMPY_TYPES[kind.dtype])
        if kind.symbols or array.size != kind.count():
            self.at = value.line
            raise self.fail(f"{array.size} elements for {name!r}", f"the {list(kind.shape)} of its type")
        return array.reshape(kind.sizes())


LINES: dict[str, Callable[[_Draft, _Tokens], None]] = {
    "meta": _Draft.read_meta, "input": _Draft.read_input, "const": _Draft.read_const, "state": _Draft.read_state,
    "output": _Draft.read_output, "data": _Draft.read_data, "end": _Draft.read_end,
}  # fmt: skip
