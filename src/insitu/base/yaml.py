"""YAML to plain data and back: 1.2 scalars, no aliases, no tags, no duplicate keys, and every value's line kept."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from insitu.base.errors import ConfigError

Key = str | int
MAX_BYTES = 4 << 20
MAX_DEPTH = 64

_INTEGER = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_CONSTANTS: Mapping[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_PLAIN = re.compile(r"[A-Za-z0-9_./](?:[A-Za-z0-9_./+%@-]| (?=[A-Za-z0-9_./+%@-]))*")
_FLOW_WIDTH = 100


@dataclass(frozen=True)
class Document:
    """Plain data with the place ("chip.yaml:14") of every key and item, for messages."""

    data: Any
    places: Mapping[tuple[Key, ...], str]
    label: str

    def place(self, path: Sequence[Key]) -> str:
        """Where the value at `path` stands, or else the nearest mapping or list around it."""
        keys = tuple(path)
        while keys and keys not in self.places:
            keys = keys[:-1]
        return self.places.get(keys, self.label)

    def at(self, path: Sequence[Key]) -> Any:
        """The value at `path`; None if there is none."""
        value = self.data
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return None
        return value


def load_yaml(path: str | Path, *, text: str | None = None, max_bytes: int = MAX_BYTES) -> Document:
    """Read one YAML document from a file, or from `text` with `path` as its label."""
    label = str(path)
    if text is None:
        text = _read(Path(path), label, max_bytes)
    elif len(text) > max_bytes:
        raise ConfigError(label, f"{len(text):,} characters", f"at most {max_bytes:,}")
    return parse_yaml(text, label=label)


def _read(path: Path, label: str, max_bytes: int) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(label, reason.lower(), "a YAML file that can be read") from None
    if len(content) > max_bytes:
        raise ConfigError(label, f"more than {max_bytes:,} bytes", "a smaller file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{label}:{line}", "bytes that are not UTF-8", "a YAML text file") from None


def parse_yaml(text: str, *, label: str = "<text>") -> Document:
    """YAML text as plain data; faults are ConfigErrors with `label` and line."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    reader = _Reader(label)
    try:
        for event in yaml.parse(text, Loader=loader):
            reader.take(event)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{label}:{mark.line + 1}" if mark else label
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise ConfigError(where, str(problem), "YAML", try_=_syntax_hints(text, mark)) from None
    return Document(reader.root, reader.places, label)


def _syntax_hints(text: str, mark: Any) -> tuple[str, ...]:
    lines = text.splitlines()
    if mark is not None and mark.line < len(lines) and "\t" in lines[mark.line]:
        return ("spaces instead of tabs",)
    return ()


@dataclass
class _Level:
    """One open mapping or list."""

    value: dict[str, Any] | list[Any]
    path: tuple[Key, ...]
    key: str | None = None  # the key whose value comes next


class _Reader:
    """Builds plain data from the parser's events, without recursion and without resolving anything."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.root: Any = None
        self.places: dict[tuple[Key, ...], str] = {}
        self._open: list[_Level] = []
        self._documents = 0

    def take(self, event: Any) -> None:
        kind = type(event).__name__
        where = f"{self.label}:{event.start_mark.line + 1}"
        if kind == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                raise ConfigError(where, "a second document", "one document in a file")
        elif kind == "AliasEvent" or getattr(event, "anchor", None):
            sign = "*" if kind == "AliasEvent" else "&"
            raise ConfigError(where, f"{sign}{event.anchor}", "the value written out; aliases are not read")
        elif getattr(event, "tag", None):
            raise ConfigError(where, f"the tag {event.tag}", "a plain value; tags are not read")
        elif kind == "ScalarEvent":
            self._scalar(event, where)
        elif kind == "MappingStartEvent":
            self._start({}, where)
        elif kind == "SequenceStartEvent":
            self._start([], where)
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._open.pop()

    def _scalar(self, event: Any, where: str) -> None:
        level = self._open[-1] if self._open else None
        if level is None or level.key is not None or isinstance(level.value, list):
            self._add(read_scalar(event.value, where) if event.implicit[0] else event.value, where)
            return
        key, line = event.value, event.start_mark.line + 1
        if key in level.value:
            first = self.places[(*level.path, key)].rpartition(":")[2]
            raise ConfigError(where, f"{key}: a duplicate key", f"one `{key}`; the first is on line {first}")
        level.key = key
        self.places[(*level.path, key)] = f"{self.label}:{line}"

    def _start(self, value: dict[str, Any] | list[Any], where: str) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise ConfigError(where, f"more than {MAX_DEPTH} levels", "a flatter file")
        path = self._add(value, where)
        self._open.append(_Level(value, path))

    def _add(self, value: Any, where: str) -> tuple[Key, ...]:
        if not self._open:
            self.root = value
            self.places[()] = where
            return ()
        level = self._open[-1]
        if isinstance(level.value, list):
            level.value.append(value)
            path = (*level.path, len(level.value) - 1)
            self.places[path] = where
            return path
        if level.key is None:
            raise ConfigError(where, "a mapping or list as a key", "a word as a key")
        level.value[level.key] = value
        path = (*level.path, level.key)
        level.key = None
        return path


def read_scalar(text: str, where: str = "<text>") -> str | int | float | bool | None:
    """A plain scalar by YAML 1.2: 1e-9 is a number; only true and false are booleans; on, no and 12:30 are text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) <= 300:  # longer ones are text, and then of the wrong type
        if _INTEGER.fullmatch(text):
            return int(text)
        if _OTHER_BASE.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if math.isfinite(number):
                return number
            raise ConfigError(where, text, "a number below 1.8e308")
    if _NOT_FINITE.fullmatch(text):
        raise ConfigError(where, text, "a finite number")
    return text


def write_yaml(data: Any) -> str:
    """Plain data as YAML that `parse_yaml` reads back to equal data; short leaves stand on one line."""
    if isinstance(data, dict) and data:
        return "".join(_block(cast(dict[str, Any], data), 0))
    return f"{_flow(data)}\n"


def _block(data: Mapping[str, Any], indent: int) -> list[str]:
    pad = "  " * indent
    lines: list[str] = []
    for key, value in data.items():
        name = f"{pad}{_flow(str(key))}:"
        if not isinstance(value, dict | list | tuple) or _is_short(value):
            lines.append(f"{name} {_flow(value)}\n")
        elif isinstance(value, dict):
            lines += [f"{name}\n", *_block(cast(dict[str, Any], value), indent + 1)]
        else:
            lines += [f"{name}\n", *(f"{pad}  - {_flow(item)}\n" for item in cast(Sequence[Any], value))]
    return lines


def _is_short(value: Any) -> bool:
    items = cast(Any, value.values() if isinstance(value, dict) else value)
    nested = isinstance(value, dict) and any(isinstance(item, dict) and item for item in items)
    return not items or (not nested and len(_flow(value)) <= _FLOW_WIDTH)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        pairs = cast(dict[str, Any], value).items()
        return "{" + ", ".join(f"{_flow(str(key))}: {_flow(item)}" for key, item in pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in cast(Sequence[Any], value)) + "]"
    if isinstance(value, str):
        return value if _is_plain(value) else _quoted(value)
    assert value is None or isinstance(value, int | float), f"not plain data: {value!r}"
    return json.dumps(value, allow_nan=False)


def _is_plain(text: str) -> bool:
    if not _PLAIN.fullmatch(text) or _NOT_FINITE.fullmatch(text) or text.startswith("..."):
        return False
    return text not in _CONSTANTS and not _FLOAT.fullmatch(text) and not _OTHER_BASE.fullmatch(text)


def _quoted(text: str) -> str:
    """JSON's quotes, and the characters that JSON leaves alone but YAML does not take as they are."""
    escaped = json.dumps(text, ensure_ascii=False)
    return re.sub(
        r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]", lambda match: f"\\u{ord(match.group()):04x}", escaped
    )
