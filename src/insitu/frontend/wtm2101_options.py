"""The vendor's optimisation side file (protobuf text): read as data; what keeps the integers as they are is applied."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from insitu.base.errors import ModelError, did_you_mean

FIELDS: Mapping[str, tuple[str, ...]] = {
    "inputOpti": ("shift", "num", "front_scale", "signed_input"),
    "weightOpti": ("shift", "num", "region"),
    "doubleWeightOpti": ("multiple",),
    "sparseMatrixOpti": ("sp_mode", "shift", "enable"),
    "arrayOutputOpti": ("magnify", "repeat"),
    "convOpti": ("multi_point", "tdnn_mode", "conv2DToConv1D_enable", "conver_to_1d", "fout_burst_point"),
}
REGIONS = ("ANY_REGION", "UP_REGION", "DOWN_REGION")
MODES = ("SIM_MODE", "MIX_MODE", "DIG_MODE")
HINTS = ("convOpti",)  # how the vendor's firmware runs a layer; its integers are the same
REPEATS = (1, 2, 4)
MOST_PLACES = 5  # gains lie between 2**8 and 2**13
MAX_BYTES, MAX_DEPTH = 1 << 22, 8


@dataclass(frozen=True)
class ArrayOptions:
    """Settings of one array of a layer (a recurrent cell has two)."""

    input_shift: int = 0
    signed_input: int | None = None
    weight_shift: int = 0
    region: str = "ANY_REGION"
    copies: int = 0  # 2**copies times the rows
    mode: str = ""
    front: int = 0  # of the input's doublings, those that the layer before makes by its gain
    magnify: int = 0  # the gain is lower by 2**magnify, outputs larger by it
    repeat: int = 1  # copies of the outputs whose mean is taken


@dataclass(frozen=True)
class LayerOptions:
    """Settings of one layer; `arrays` in the order of the file."""

    name: str = ""
    arrays: tuple[ArrayOptions, ...] = ()
    hints: tuple[str, ...] = ()
    streamed: bool = False  # frames along the last axis, one a step (tdnn_mode)

    def array(self, index: int = 0) -> ArrayOptions:
        """The settings of the array `index`; the last ones given where there are fewer."""
        return self.arrays[min(index, len(self.arrays) - 1)] if self.arrays else ArrayOptions()


@dataclass(frozen=True)
class _Message:
    """A protobuf text message: fields in order; a field may come again."""

    fields: tuple[tuple[str, Any], ...] = ()

    def all(self, name: str) -> list[Any]:
        return [value for key, value in self.fields if key == name]

    def one(self, name: str, default: Any) -> Any:
        found = self.all(name)
        return found[-1] if found else default


def read_options(path: str | Path) -> dict[str, LayerOptions]:
    """Layer name -> its options; ModelError for a file that is not such a side file."""
    where = str(path)
    try:
        size = Path(path).stat().st_size
        text = Path(path).read_text("utf-8") if size <= MAX_BYTES else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not text"
        raise ModelError(where, reason.lower(), "an optimisation file in protobuf text") from None
    if size > MAX_BYTES:
        raise ModelError(where, f"{size:,} bytes", f"at most {MAX_BYTES:,}")
    return parse_options(text, where=where)


def parse_options(text: str, *, where: str = "options") -> dict[str, LayerOptions]:
    """Layer name -> its options, from protobuf text."""
    message = _Parser(text, where).message(0)
    found: dict[str, LayerOptions] = {}
    for key, value in message.fields:
        if key != "layerOptiConfig" or not isinstance(value, _Message):
            close = did_you_mean(key, ("layerOptiConfig",))
            raise ModelError(where, f"the field {key!r}", "layerOptiConfig { name: ... }", try_=close)
        layer = _layer(value, where)
        if layer.name in found and found[layer.name] != layer:
            raise ModelError(where, f"two entries for the layer {layer.name!r} that differ", "one each")
        found[layer.name] = layer
    return found


def _layer(message: _Message, where: str) -> LayerOptions:
    name = str(message.one("name", ""))
    place = f"{where}: layer {name!r}"
    if not name:
        raise ModelError(where, "a layerOptiConfig without a name", "the name of a node")
    for key, value in message.fields:
        if key != "name" and (key not in FIELDS or not isinstance(value, _Message)):
            raise ModelError(place, f"the field {key!r}", f"one of {', '.join(FIELDS)}", try_=did_you_mean(key, FIELDS))
        for inner, _ in value.fields if isinstance(value, _Message) else ():
            if inner not in FIELDS[key]:
                known = FIELDS[key]
                raise ModelError(
                    f"{place}: {key}",
                    f"the field {inner!r}",
                    f"one of {', '.join(known)}",
                    try_=did_you_mean(inner, known),
                )
    count = max((len(message.all(k)) for k in FIELDS), default=0)
    arrays = tuple(_array(message, i, place) for i in range(max(count, 1)))
    hints = tuple(f"{k}.{f}" for k in HINTS for m in message.all(k) for f, _ in m.fields if f != "tdnn_mode")
    streamed = any(m.one("tdnn_mode", 0) for m in message.all("convOpti"))
    return LayerOptions(name, arrays, tuple(dict.fromkeys(hints)), bool(streamed))


def _array(message: _Message, index: int, place: str) -> ArrayOptions:
    def part(key: str) -> _Message:
        every = message.all(key)
        return every[min(index, len(every) - 1)] if every else _Message()

    weights, inputs, outputs = part("weightOpti"), part("inputOpti"), part("arrayOutputOpti")
    total, front = _shift(inputs, f"{place}: inputOpti"), _places(inputs, "front_scale", f"{place}: inputOpti")
    if front > total > 0:
        raise ModelError(f"{place}: inputOpti", f"front_scale = {front} with num = {total}", "at most num")
    repeat = max(_integer(outputs.one("repeat", 0), f"{place}: arrayOutputOpti.repeat"), 1)
    if repeat not in REPEATS:
        raise ModelError(f"{place}: arrayOutputOpti", f"repeat = {repeat}", "0 or 1 for one output, or 2 or 4 copies")
    region = _word(weights.one("region", 0), REGIONS, f"{place}: weightOpti.region")
    given = part("sparseMatrixOpti").one("sp_mode", "")
    mode = _word(given, MODES, f"{place}: sparseMatrixOpti.sp_mode") if given != "" else ""
    signed = inputs.one("signed_input", None)
    return ArrayOptions(
        input_shift=total - front if total else 0,
        signed_input=None if signed is None else _integer(signed, f"{place}: inputOpti.signed_input"),
        weight_shift=_shift(weights, f"{place}: weightOpti"),
        region=region,
        copies=_integer(part("doubleWeightOpti").one("multiple", 0), f"{place}: doubleWeightOpti.multiple"),
        mode=mode,
        front=front if total else 0,
        magnify=_places(outputs, "magnify", f"{place}: arrayOutputOpti"),
        repeat=repeat,
    )


def _places(message: _Message, name: str, place: str) -> int:
    """A number of places to shift by."""
    value = _integer(message.one(name, 0), f"{place}.{name}")
    if not 0 <= value <= MOST_PLACES:
        raise ModelError(place, f"{name} = {value}", f"0 to {MOST_PLACES}")
    return value


def _shift(message: _Message, place: str) -> int:
    """The number of places, where the option is switched on."""
    on, places = _integer(message.one("shift", 0), place), _integer(message.one("num", 0), place)
    if on and not 0 <= places <= 7:
        raise ModelError(place, f"num = {places}", "0 to 7 places to the left")
    return places if on else 0


def _word(value: Any, known: Sequence[str], place: str) -> str:
    if isinstance(value, int) and 0 <= value < len(known):
        return known[value]
    if isinstance(value, str) and value in known:
        return value
    raise ModelError(place, str(value), f"one of {', '.join(known)}", try_=did_you_mean(str(value), known))


def _integer(value: Any, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 1 << 31:
        raise ModelError(place, str(value), "a whole number")
    return value


# protobuf text

_TOKEN = re.compile(
    r"""\s+|(?:\#|//)[^\n]*|(?P<token>[{}:;,<>\[\]]|"[^"\n]*"|'[^'\n]*'|[A-Za-z_][A-Za-z0-9_]*|[-+]?[0-9][0-9A-Za-z.+-]*)"""
)


@dataclass
class _Parser:
    """Tokens of a protobuf text file, read one after the other."""

    text: str
    where: str
    tokens: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    at: int = 0

    def __post_init__(self) -> None:
        position = 0
        while position < len(self.text):
            found = _TOKEN.match(self.text, position)
            if found is None:
                raise self.fault(f"the character {self.text[position]!r}", position)
            if found.group("token"):
                self.tokens.append((found.group("token"), position))
            position = found.end()

    def fault(self, got: str, position: int | None = None) -> ModelError:
        if position is None:
            position = self.tokens[self.at][1] if self.at < len(self.tokens) else len(self.text)
        line = self.text.count("\n", 0, position) + 1
        return ModelError(f"{self.where}:{line}", got, 'protobuf text such as layerOptiConfig { name: "conv1" }')

    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise self.fault("the end of the file")
        self.at += 1
        return token

    def message(self, depth: int) -> _Message:
        """Fields up to a closing bracket, or the end."""
        if depth > MAX_DEPTH:
            raise self.fault("messages nested too deep")
        fields: list[tuple[str, Any]] = []
        while self.peek() not in ("", "}"):
            name = self.take()
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                self.at -= 1
                raise self.fault(f"{name!r} where a field's name should be")
            colon = self.peek() == ":"
            self.at += colon
            if self.peek() == "{":
                self.take()
                fields.append((name, self.message(depth + 1)))
                if self.take() != "}":
                    raise self.fault("a message that does not end")
            elif colon:
                fields.append((name, self.scalar()))
            else:
                raise self.fault(f"{self.peek()!r} behind the field {name}")
            if self.peek() in (",", ";"):
                self.take()
        if depth == 0 and self.peek():
            raise self.fault("a closing bracket too many")
        return _Message(tuple(fields))

    def scalar(self) -> Any:
        token = self.take()
        if token[0] in "\"'":
            return token[1:-1]
        if re.fullmatch(r"[-+]?[0-9]{1,18}", token):
            return int(token)
        words = {"true": 1, "false": 0}
        if re.fullmatch(r"[A-Za-z_]\w*", token):
            return words.get(token, token)
        raise self.fault(f"the value {token!r}")
