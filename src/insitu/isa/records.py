"""Frozen records to plain JSON and back: each is the list of its fields in order, without trailing defaults."""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from insitu.base.errors import ProgramError

MAX_DEPTH = 64
MAX_INTEGER = 1 << 63
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def to_plain(value: Any) -> Any:
    """A record, or tuple of records, as JSON values."""
    if is_dataclass(value):
        items = [(to_plain(getattr(value, f.name)), f) for f in fields(value)]
        while items and _is_default(*items[-1]):
            items.pop()
        return [item for item, _ in items]
    if isinstance(value, tuple):
        return [to_plain(item) for item in cast(tuple[Any, ...], value)]
    if isinstance(value, np.integer):
        return int(cast(Any, value))
    return value


def from_plain(kind: Any, value: Any, *, where: str) -> Any:
    """The value of type `kind` that `to_plain` wrote; anything else is a ProgramError."""
    try:
        return _reader(kind)(value)
    except _UnfitError as fault:
        raise ProgramError(where, fault.got, fault.need) from None


def dump_json(value: Any) -> bytes:
    """Compact JSON with sorted keys; NaN, infinity and values JSON does not know are a ProgramError."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ProgramError("program", str(error), "plain JSON values: mappings, lists, text, finite numbers") from None


def load_json(data: bytes, *, where: str) -> Any:
    """Strict JSON: bounded depth and integers, no duplicate keys, no NaN."""
    if _depth(data) > MAX_DEPTH:
        raise ProgramError(where, f"JSON nested deeper than {MAX_DEPTH}", "a program written by Insitu")
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite, parse_int=_integer
        )
    except (ValueError, RecursionError) as error:
        raise ProgramError(where, f"not readable as JSON: {error}", "a program written by Insitu") from None


def _depth(data: bytes) -> int:
    """The deepest nesting of brackets outside texts."""
    marks = np.frombuffer(_TEXT.sub(b"", data), np.uint8)
    steps = np.isin(marks, list(b"[{")).astype(np.int64) - np.isin(marks, list(b"]}"))
    return int(np.cumsum(steps).max(initial=0))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key stands twice")
    return mapping


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return number


def _integer(text: str) -> int:
    if len(text) > 20 or not -MAX_INTEGER <= (number := int(text)) < MAX_INTEGER:
        raise ValueError(f"{text[:30]} needs more than 64 bits")
    return number


class _UnfitError(Exception):
    def __init__(self, value: object, need: str) -> None:
        super().__init__()
        self.got, self.need = repr(value)[:60], need


Reader = Callable[[Any], Any]


@cache
def _reader(kind: Any) -> Reader:
    """What reads a value of a type: a record, tuple, union, literal, text, number or boolean."""
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _record_reader(cast(type, kind))
    if origin is tuple:
        return _tuple_reader(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return _union_reader(get_args(kind))
    if origin is Literal:
        return _literal_reader(get_args(kind))
    return _exact_reader(kind)


def _exact_reader(kind: type) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise _UnfitError(value, {int: "an integer", str: "text", bool: "true or false"}.get(kind, kind.__name__))
        return value

    return read


def _literal_reader(known: tuple[Any, ...]) -> Reader:
    def read(value: Any) -> Any:
        if value not in known:
            raise _UnfitError(value, f"one of {', '.join(map(str, known))}")
        return value

    return read


def _union_reader(members: tuple[Any, ...]) -> Reader:
    def read(value: Any) -> Any:
        if type(value) not in members:
            raise _UnfitError(value, " or ".join(member.__name__ for member in members))
        return value

    return read


def _tuple_reader(member: Any) -> Reader:
    read_member = _reader(member)

    def read(value: Any) -> Any:
        if type(value) is not list:
            raise _UnfitError(value, "a list")
        return tuple([read_member(item) for item in cast(list[Any], value)])

    return read


def _record_reader(kind: type) -> Reader:
    hints = get_type_hints(kind)
    readers = [_reader(hints[f.name]) for f in fields(kind)]
    required = sum(f.default is MISSING and f.default_factory is MISSING for f in fields(kind))

    def read(value: Any) -> Any:
        if type(value) is not list or not required <= len(cast(list[Any], value)) <= len(readers):
            raise _UnfitError(value, f"a list of {required} to {len(readers)} fields for {kind.__name__}")
        return kind(*[reader(item) for reader, item in zip(readers, cast(list[Any], value), strict=False)])

    return read


def _is_default(item: Any, field: Any) -> bool:
    return field.default is not MISSING and item == to_plain(field.default)
