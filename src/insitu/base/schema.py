"""Configurations: a strict pydantic base, quantities with units, YAML in with file:line kept for errors, YAML out."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError
from pydantic.fields import FieldInfo

from insitu.base.errors import ConfigError, did_you_mean
from insitu.base.units import format_quantity, parse_quantity
from insitu.base.yaml import Document, Key, load_yaml, write_yaml

M = TypeVar("M", bound=BaseModel)
Resolver = Callable[[str], tuple[str, str]]  # a name after `extends:` -> (YAML text, label for messages)

__all__ = [
    "Amperes", "Bits", "Bytes", "BytesPerSecond", "Config", "Document", "Farads", "Fraction", "Hertz", "Joules",
    "Kelvin", "Metres", "Ohms", "Seconds", "Siemens", "SquareMetres", "Volts", "Watts", "dump_yaml", "load_config",
    "load_yaml", "validate",
]  # fmt: skip


class Config(BaseModel):
    """Base of every configuration: frozen, no unknown keys, numbers are never read from text or from booleans."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _read(unit: str, value: object) -> object:
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        raise ValueError(f"a quantity in {unit}")
    try:
        return parse_quantity(value, unit, where="quantity")
    except ConfigError as fault:
        raise ValueError(fault.need + "".join(f"\t{way}" for way in fault.try_)) from None


def _read_whole(unit: str, value: object) -> object:
    number = cast(float, _read(unit, value))
    if number != int(number):
        raise ValueError(f"a whole number of {unit}")
    return int(number)


def _shown(unit: str, value: float) -> str | float:
    """With its unit, if that reads back as exactly the same number."""
    for digits in (3, 6, 12):
        text = format_quantity(value, unit, digits=digits).replace(",", "")
        if value and parse_quantity(text, unit) == value:
            return text
    return value


def _quantity(unit: str, *, whole: bool = False) -> tuple[BeforeValidator, PlainSerializer]:
    reader = partial(_read_whole if whole else _read, unit)
    return (
        BeforeValidator(reader, json_schema_input_type=float | str),
        PlainSerializer(partial(_shown, unit), return_type=Any, when_used="json"),
    )


Seconds = Annotated[float, *_quantity("s")]
Hertz = Annotated[float, *_quantity("Hz")]
Joules = Annotated[float, *_quantity("J")]
Watts = Annotated[float, *_quantity("W")]
Volts = Annotated[float, *_quantity("V")]
Amperes = Annotated[float, *_quantity("A")]
Metres = Annotated[float, *_quantity("m")]
SquareMetres = Annotated[float, *_quantity("m2")]
Kelvin = Annotated[float, *_quantity("K")]
Siemens = Annotated[float, *_quantity("S")]
Ohms = Annotated[float, *_quantity("Ohm")]
Farads = Annotated[float, *_quantity("F")]
BytesPerSecond = Annotated[float, *_quantity("B/s")]
Fraction = Annotated[float, *_quantity("1")]
Bytes = Annotated[int, *_quantity("B", whole=True)]
Bits = Annotated[int, *_quantity("bit", whole=True)]


def load_config(
    source: str | Path,
    model: type[M],
    *,
    text: str | None = None,
    overrides: Sequence[str] = (),
    extends_resolver: Resolver | None = None,
    named: Mapping[str, Callable[[str, str], Any]] | None = None,
) -> M:
    """Read a YAML file (or YAML text) into `model`; every fault of the file is in one ConfigError.

    `source` is a Path, or a str: YAML text if it holds a newline, ": " or "{", else a path.  With `text`, `source` is
    only the label.  `overrides` are "dotted.path=value", the value in YAML.  With a resolver, a top-level
    `extends: name` starts from that text: mappings merge key by key, all else is replaced; a mapping whose `kind`
    differs from what it replaces does not merge.  `named`: top-level keys whose value may be a name, with what gives
    the data that it stands for, from name and place; an override that goes into such a value changes that data.
    """
    if text is None and isinstance(source, str) and re.search(r"\n|: |\{", source):
        source, text = "<text>", source
    document = _extended(load_yaml(source, text=text), extends_resolver, seen=())
    for override in overrides:
        document = _override(_spelled_out(document, override, named or {}), override)
    return validate(document, model)


def validate(document: Document, model: type[M]) -> M:
    """Check plain data against `model`; errors carry the document's file and lines."""
    if not isinstance(document.data, dict):
        got = "an empty file" if document.data is None else _brief(document.data)
        raise ConfigError(document.label, got, "a mapping, `key: value` on each line")
    try:
        # As JSON, because lists stand for tuples there while numbers stay strict.
        # files that a value names lie beside the file that names them
        return model.model_validate_json(json.dumps(document.data), context={"place": document.place})
    except ValidationError as error:
        raise ConfigError.collect(list(_faults(error, document, model))) from None


def dump_yaml(model: BaseModel) -> str:
    """YAML that `load_config` reads back to an equal model."""
    return write_yaml(model.model_dump(mode="json", by_alias=True))


# extends and overrides


def _extended(document: Document, resolver: Resolver | None, *, seen: tuple[str, ...]) -> Document:
    if resolver is None or not isinstance(document.data, dict) or "extends" not in document.data:
        return document
    name = document.data["extends"]
    place = document.place(("extends",))
    if not isinstance(name, str):
        raise ConfigError(place, f"extends = {_brief(name)}", "the name of what to start from")
    if name in seen:
        raise ConfigError(place, f"extends = {name}, already extended: {' -> '.join(seen)}", "a chain without a loop")
    text, label = resolver(name)
    base = _extended(load_yaml(label, text=text), resolver, seen=(*seen, name))
    if not isinstance(base.data, dict):
        raise ConfigError(label, _brief(base.data), "a mapping, `key: value` on each line")
    data = {key: value for key, value in document.data.items() if key != "extends"}
    return Document(_merged(base.data, data), {**base.places, **document.places}, document.label)


def _merged(base: Any, top: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(top, dict):
        return top
    base, top = cast(dict[str, Any], base), cast(dict[str, Any], top)
    if "kind" in base and "kind" in top and base["kind"] != top["kind"]:
        return top
    return {**base, **{key: _merged(base.get(key), value) for key, value in top.items()}}


def _spelled_out(document: Document, override: str, named: Mapping[str, Callable[[str, str], Any]]) -> Document:
    """The document with data for the name that an override goes into."""
    key, *rest = override.partition("=")[0].strip().split(".")
    data = document.data
    if not rest or key not in named or not isinstance(data, dict) or not isinstance(data.get(key), str):
        return document
    found = named[key](data[key], document.place((key,)))
    return Document({**cast(dict[str, Any], data), key: found}, document.places, document.label)


def _override(document: Document, override: str) -> Document:
    """The document with one "dotted.path=value" applied."""
    dotted, equals, value_text = override.partition("=")
    label = f"--set {override}"
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(label, "", "path=value, such as macro.readout.bits=6")
    value = load_yaml(label, text=value_text).data
    path: tuple[Key, ...] = ()
    at = document.data
    places = dict(document.places)
    for key in keys:
        path += (_index(cast(list[Any], at), key, label) if isinstance(at, list) else key,)
        if _has(at, path[-1]):
            at = cast(Any, at)[path[-1]]
        else:
            at, places[path] = None, label
    places[path] = label
    return Document(_put(document.data, path, value), places, document.label)


def _index(items: list[Any], key: str, label: str) -> int:
    if not key.isdigit() or int(key) >= len(items):
        raise ConfigError(label, f"item {key!r} of a list of {len(items)}", f"a number from 0 to {len(items) - 1}")
    return int(key)


def _put(data: Any, path: tuple[Key, ...], value: Any) -> Any:
    if not path:
        return _merged(data, value)
    key, rest = path[0], path[1:]
    if isinstance(data, list):
        items = list(cast(list[Any], data))
        items[cast(int, key)] = _put(items[cast(int, key)], rest, value)
        return items
    mapping = cast(dict[str, Any], data) if isinstance(data, dict) else {}
    return {**mapping, cast(str, key): _put(mapping.get(cast(str, key)), rest, value)}


# pydantic's errors, in our words


def _faults(error: ValidationError, document: Document, model: type[BaseModel]) -> Iterator[ConfigError]:
    """One fault per place; the branches of a union that failed at one place are one fault."""
    by_path: dict[tuple[Key, ...], list[Any]] = {}
    for item in error.errors(include_url=False):
        by_path.setdefault(_path(item["loc"], document.data, item["type"]), []).append(item)
    faults = [_fault(path, items, document, model) for path, items in by_path.items()]
    yield from sorted(faults, key=_line)


def _line(fault: ConfigError) -> int:
    """The line a fault is on; 0 for what stands in no file, such as --set."""
    match = re.search(r":(\d+)$", fault.where)
    return int(match.group(1)) if match else 0


def _path(loc: Sequence[Key], data: Any, kind: str) -> tuple[Key, ...]:
    """The location pydantic gives, without the union tags, which are not keys of the file."""
    path: tuple[Key, ...] = ()
    for place, key in enumerate(loc):
        if _has(data, key):
            path, data = (*path, key), data[key]
        elif kind == "missing" and place == len(loc) - 1:
            path = (*path, key)
    return path


def _fault(path: tuple[Key, ...], items: list[Any], document: Document, model: type[BaseModel]) -> ConfigError:
    where, dotted = document.place(path), _dotted(path)
    kind = items[0]["type"]
    owners = list(_models_at(model, path[:-1]))
    names = sorted({name for owner in owners for name in _field_names(owner)})
    if kind == "extra_forbidden":
        inside = _dotted(path[:-1]) or "the file"
        need = f"one of the keys of {inside}: {', '.join(names)}"
        return ConfigError(where, f"{dotted}: unknown key", need, try_=did_you_mean(str(path[-1]), names))
    field = next((field for owner in owners if (field := _field(owner, path[-1])) is not None), None) if path else None
    if kind == "missing":
        need = (field and field.description) or (_bounded(field) if field else "") or "a value"
        return ConfigError(where, f"{dotted} is missing", need)
    value = document.at(path)
    got = f"{dotted} = {_brief(value)}" if dotted else _brief(value)
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        tag = str(items[0]["ctx"]["discriminator"]).strip("'")
        branches = (_field(branch, tag) for branch in _models_at(model, path))
        tags = [str(name) for branch in branches if branch is not None for name in get_args(branch.annotation)]
        given = document.at((*path, tag))
        got = f"{_dotted((*path, tag))} is missing" if given is None else f"{_dotted((*path, tag))} = {_brief(given)}"
        need = f"one of {', '.join(tags)}"
        return ConfigError(document.place((*path, tag)), got, need, try_=did_you_mean(str(given), tags))
    needs = list(dict.fromkeys(_need(item, field) for item in items))
    need, *hints = " or ".join(needs).split("\t")
    if not hints and isinstance(value, str):
        hints = list(did_you_mean(value, _choices(items)))
    return ConfigError(where, got, need, try_=hints)


def _need(item: Any, field: FieldInfo | None) -> str:
    """What one pydantic error asks for."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind in ("literal_error", "enum"):
        return f"one of {', '.join(_choices([item]))}"
    if field is not None and kind in _NUMERIC and (bounded := _bounded(field)):
        return bounded
    if kind in _PLAIN_NEEDS:
        return _PLAIN_NEEDS[kind]
    if kind == "string_pattern_mismatch" and field is not None and field.description:
        return field.description
    if kind.endswith("_type") or kind.startswith("is_instance"):
        return re.sub(r"^Input should be ", "", item["msg"])
    return re.sub(r"^Input should be |^Value error, ", "", item["msg"])


_NUMERIC = frozenset(
    ("int_type", "int_from_float", "float_type", "greater_than", "greater_than_equal", "less_than", "less_than_equal")
)
_PLAIN_NEEDS = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "model_attributes_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "none_required": "null",
}


def _choices(items: list[Any]) -> list[str]:
    expected = " ".join(str(item.get("ctx", {}).get("expected", "")) for item in items)
    return re.findall(r"'([^']*)'", expected) or [word for word in re.split(r", | or ", expected) if word]


def _bounded(field: FieldInfo) -> str:
    """What a number field takes ("an integer from 1 to 14"), from its type and bounds; "" for other fields."""
    annotation = field.annotation
    members = [member for member in get_args(annotation) if member is not type(None)]
    if get_origin(annotation) in (Union, types.UnionType) and len(members) == 1:
        annotation = members[0]
    metadata = list(field.metadata)
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        metadata += [m for given in more for m in (given.metadata if isinstance(given, FieldInfo) else [given])]
    noun = {int: "an integer", float: "a number"}.get(cast(type, annotation))
    if noun is None:
        return ""
    readers = [m.func for m in metadata if isinstance(m, BeforeValidator) and isinstance(m.func, partial)]
    unit = readers[0].args[0] if readers else ""
    noun = f"a quantity in {unit}" if unit else noun
    bounds = {name: getattr(m, name) for m in metadata for name in ("ge", "gt", "le", "lt") if hasattr(m, name)}
    if "ge" in bounds and "le" in bounds:
        return f"{noun} from {bounds['ge']} to {bounds['le']}"
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    return noun + " and".join(f" {words[name]} {bound}" for name, bound in bounds.items())


# the model's own shape, to know the keys that belong at a place


def _models_at(annotation: Any, path: Sequence[Key]) -> Iterator[type[BaseModel]]:
    """The models that may stand at `path`, all branches of unions taken."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _models_at(get_args(annotation)[0], path)
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _models_at(member, path)
    elif isinstance(annotation, type) and origin is None and issubclass(annotation, BaseModel):
        if not path:
            yield annotation
        elif (field := _field(annotation, path[0])) is not None:
            yield from _models_at(field.annotation, path[1:])
    elif origin is not None and origin is not Literal and path:
        arguments = [argument for argument in get_args(annotation) if argument is not Ellipsis]
        for argument in arguments[1:] if len(arguments) == 2 and isinstance(path[0], str) else arguments:
            yield from _models_at(argument, path[1:])


def _field(owner: type[BaseModel], key: Key) -> FieldInfo | None:
    return next((field for name, field in owner.model_fields.items() if key in (name, field.alias)), None)


def _field_names(owner: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in owner.model_fields.items()]


def _has(data: Any, key: Key) -> bool:
    if isinstance(data, dict):
        return key in data
    return isinstance(data, list) and isinstance(key, int) and 0 <= key < len(cast(list[Any], data))


def _dotted(path: Sequence[Key]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        return f"a mapping with the keys {', '.join(map(str, cast(dict[Any, Any], value))) or '(none)'}"
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value or '""'
    return text if len(text) <= 60 else f"{text[:57]}..."
