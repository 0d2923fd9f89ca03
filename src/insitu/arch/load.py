"""Chips by preset name or YAML path, with `extends:` and overrides; the plain form that programs embed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from insitu.arch.check import faults
from insitu.arch.spec import Chip
from insitu.base.errors import ChipError, ConfigError, did_you_mean
from insitu.base.schema import load_config, load_yaml, validate
from insitu.base.yaml import Document, Key
from insitu.device.cell import cell_data

SUFFIXES = (".yaml", ".yml")


def presets() -> tuple[str, ...]:
    """The names of the chips that ship."""
    return tuple(sorted(f.name.removesuffix(".yaml") for f in _folder().iterdir() if f.name.endswith(".yaml")))


def preset_text(name: str) -> str:
    """The YAML of a preset, with its comments."""
    if name not in presets():
        raise _unknown(name)
    return str((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))


def load_chip(name_or_path: str | Path, *, overrides: Sequence[str] = ()) -> Chip:
    """The chip of that preset name or YAML file, checked; `overrides` are "dotted.path=value".

    An unknown name raises ChipError; a file's faults, schema and physics alike, are in one ConfigError.
    """
    text, label = _find(name_or_path, Path())
    chip = load_config(
        label, Chip, text=text, overrides=overrides, extends_resolver=_resolver(label), named={"cell": cell_data}
    )
    found = faults(chip)
    if found:
        place = _places(load_yaml(label, text=text), overrides, _resolver(label))
        raise ConfigError.collect([fault.at(place(fault.path)) for fault in found])
    return chip


def chip_json(chip: Chip) -> dict[str, Any]:
    """The chip as plain JSON data, its cell included, quantities with their units."""
    return chip.model_dump(mode="json", exclude_none=True)


def chip_from_json(data: Mapping[str, Any]) -> Chip:
    """The chip that `chip_json` described; a description that is not a sound chip raises ConfigError."""
    plain = json.loads(json.dumps(dict(data)))
    label = "the program's chip"
    chip = validate(Document(plain, {}, label), Chip)
    if found := faults(chip):
        raise ConfigError.collect([fault.at(label) for fault in found])
    return chip


def chip_schema() -> dict[str, Any]:
    """The JSON schema of a chip file, for editors and `show schema chip`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Chip.model_json_schema(mode="validation")}


def _folder() -> Any:
    return files("insitu.arch") / "presets"


def _unknown(name: str) -> ChipError:
    need = f"a preset ({', '.join(presets())}) or the path of a YAML file"
    return ChipError(f"chip {name!r}", "unknown", need, try_=did_you_mean(name, presets()))


def _find(name_or_path: str | Path, folder: Path) -> tuple[str, str]:
    """(YAML text, label) of a preset or a file; a preset's name wins over a file called the same."""
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in presets():
        return preset_text(name), name
    path = folder / name
    if not path.is_file():
        raise _missing(path, name)
    if path.suffix not in SUFFIXES:
        raise ChipError(f"chip {name!r}", f"a file ending in {path.suffix or 'nothing'}", "a .yaml file or a preset")
    try:
        return path.read_text(encoding="utf-8-sig"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = "bytes that are not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error.strerror).lower()
        raise ConfigError(str(path), reason, "a YAML text file that can be read") from None


def _missing(path: Path, name: str) -> ChipError:
    if path.suffix in SUFFIXES or isinstance(name, Path) or "/" in name:
        return ChipError(f"chip {name!r}", "no such file", f"a YAML file, or a preset ({', '.join(presets())})")
    return _unknown(name)


def _resolver(label: str) -> Callable[[str], tuple[str, str]]:
    """Finds what each file of a chain extends: a preset, or a path from the folder of the file that names it."""
    folder = Path(label).parent

    def resolve(name: str) -> tuple[str, str]:
        nonlocal folder
        text, found = _find(name, folder)
        folder = Path(found).parent
        return text, found

    return resolve


def _places(
    document: Document, overrides: Sequence[str], resolve: Callable[[str], tuple[str, str]]
) -> Callable[[Sequence[Key]], str]:
    """Where a value was written: the last override of it, the file, or the file that this one extends."""
    documents = [document]
    while isinstance(documents[-1].data, dict) and "extends" in documents[-1].data:
        text, label = resolve(documents[-1].data["extends"])
        documents.append(load_yaml(label, text=text))

    def place(path: Sequence[Key]) -> str:
        keys = tuple(map(str, path))
        for override in reversed(overrides):
            given = tuple(override.partition("=")[0].strip().split("."))
            if given == keys[: len(given)] or keys == given[: len(keys)]:
                return f"--set {override}"
        holder = next((d for d in documents if d.at(path) is not None), document)
        return holder.place(path)

    return place
