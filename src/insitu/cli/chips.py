"""`insitu chips`: the presets, and a copy of one to start from."""

from __future__ import annotations

import os

from insitu.arch.describe import ORIGINS, capacity_text
from insitu.arch.load import SUFFIXES, load_chip, preset_text, presets
from insitu.base.errors import OutputError, UsageError
from insitu.base.store import write_text
from insitu.cli import console
from insitu.llm.systems import ChipSystem, load_chip_system, system_names


def run(copy: tuple[str, str] | None, *, json: bool) -> int:
    """List or copy; returns the exit code."""
    if copy is not None:
        return _copy(*copy, json=json)
    chips = [load_chip(name) for name in presets()]
    if json:
        rows = [{"name": c.name, "origin": c.origin, "weights": c.capacity, "cores": c.cores} for c in chips]
        systems = [{"name": s.name, "title": s.title, "chip": s.chip, "chips": s.chips} for s in _systems()]
        console.put_json({"schema": 1, "chips": rows, "systems": systems})
    else:
        width = max(len(c.name) for c in chips) + 2
        console.put("\n".join(f"{c.name:<{width}}{capacity_text(c)}; {ORIGINS[c.origin]}" for c in chips))
        console.put("\nSystems, for language models without weights (insitu run shape:NAME --chip SYSTEM):")
        console.put("\n".join(f"{s.name:<{width}}{s.title}" for s in _systems()))
    return 0


def _systems() -> list[ChipSystem]:
    return [load_chip_system(name) for name in system_names()]


def _copy(name: str, file: str, *, json: bool) -> int:
    text = preset_text(name)
    if not file.endswith(SUFFIXES):
        raise UsageError(f"--copy {name} {file}", "not the name of a YAML file", "a name ending in .yaml")
    if os.path.lexists(file):
        raise OutputError(file, "it exists, and may hold your changes", "a new file name")
    write_text(file, text)
    said = f"{file}: a copy of {name}; `insitu check {file}` checks it, `insitu run MODEL --chip {file}` uses it"
    console.put_json({"schema": 1, "file": file, "copy_of": name}) if json else console.put(said)
    return 0
