"""`insitu check`: a file of yours, with every fault named."""

from __future__ import annotations

from pathlib import Path

from insitu.arch.describe import capacity_text
from insitu.arch.load import SUFFIXES, load_chip, presets
from insitu.base.errors import UsageError
from insitu.cli import console
from insitu.cli.programs import load_checked
from insitu.flow.chain import capture
from insitu.graph.text import load_graph
from insitu.isa.container import SUFFIX


def run(file: str, *, json: bool) -> int:
    """Check a file; raises what is wrong with it, returns 0 where nothing is."""
    kind, text = _checked(file)
    console.put_json({"schema": 1, "file": file, "kind": kind, "sound": True}) if json else console.put(text)
    return 0


def _checked(file: str) -> tuple[str, str]:
    suffix = Path(file).suffix
    if suffix in SUFFIXES or file in presets():
        chip = load_chip(file)
        return "chip", f"{file}: a sound chip, {chip.name}; {capacity_text(chip)}"
    if suffix.lower() == ".onnx":
        graph = capture(file)
        return "model", f"{file}: a sound model, {graph.name}, {len(graph.nodes)} nodes"
    if suffix == ".graph":
        graph = load_graph(file)
        return "graph", f"{file}: a sound graph, {graph.name}, level {graph.level}, {len(graph.nodes)} nodes"
    if suffix == SUFFIX:
        program, _ = load_checked(file)
        return "program", f"{file}: a sound program, {program.name}; `insitu verify` also runs it"
    raise UsageError(
        file, f"a file ending in {suffix or 'nothing'}", f"a file ending in .yaml, .onnx, .graph or {SUFFIX}"
    )
