"""`insitu show`: anything as text."""

from __future__ import annotations

import json as json_
from collections import Counter
from pathlib import Path
from typing import Any, cast

from insitu.arch.cells import describe_cell
from insitu.arch.describe import describe, schema_text
from insitu.arch.floorplan import plan_json, plan_svg, plan_text
from insitu.arch.load import SUFFIXES, chip_json, load_chip, presets
from insitu.base.errors import OutputError, UsageError, did_you_mean
from insitu.base.store import MARKER, write_text
from insitu.cli import console
from insitu.cli.programs import load_checked
from insitu.device.cell import cells, load_cell
from insitu.flow.chain import capture
from insitu.flow.folder import read_summary
from insitu.graph.graph import Graph
from insitu.graph.text import load_graph, print_graph
from insitu.isa.assembler import print_program
from insitu.isa.container import SUFFIX
from insitu.isa.program import Program
from insitu.isa.reference import reference_page
from insitu.report.text import count
from insitu.tasks.registry import find_task, tasks

GAPS = {
    "cells_gap": "cells above the weights", "latency_gap": "time above the least with any copies",
    "stage_gap": "longest stage above an even share", "search_gap": "above the solver's bound",
}  # fmt: skip
Shown = tuple[str, Any]  # the text, and the same as JSON


def run(thing: list[str], *, asm: bool, json: bool, out: str | None = None) -> int:
    """Print a thing, and write a chip's floorplan where `out` says; returns the exit code."""
    text, value = look(thing, asm=asm)
    if out is not None:
        if "floorplan" not in value:
            raise UsageError(f"--out {out}", "only a chip has a floorplan to draw", "a preset or a chip's YAML file")
        write_text(out, plan_svg(load_chip(thing[0])))
    console.put_json({"schema": 1, **value}) if json else console.put(text)
    return 0


def look(thing: list[str], *, asm: bool = False) -> Shown:
    """What `insitu show THING` prints, as text and as JSON."""
    if thing in (["schema", "chip"], ["schema"]):
        return schema_text(), {"schema_of": "chip", "json_schema": json_.loads(schema_text())}
    if len(thing) != 1:
        raise UsageError(f"insitu show {' '.join(thing)}", f"{len(thing)} words", "one thing, or `schema chip`")
    name = thing[0]
    if name == "isa":
        return reference_page(), {"isa": reference_page()}
    path = Path(name)
    if name in presets() or path.suffix in SUFFIXES:
        chip = load_chip(name)
        return f"{describe(chip)}\n{plan_text(chip)}", {"chip": chip_json(chip), "floorplan": plan_json(chip)}
    if name in cells():
        cell = load_cell(name)
        return describe_cell(cell), {"cell": cell.model_dump(mode="json", exclude_none=True)}
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _file(path, asm=asm)
    if name.removeprefix("task:") in tasks():
        return _task(name)
    raise _unknown(name)


def _file(path: Path, *, asm: bool) -> Shown:
    if path.suffix == SUFFIX:
        program, graph = load_checked(str(path))
        facts = program_facts(program, graph)
        return (print_program(program) if asm else program_text(program, facts)), facts
    graph = load_graph(path) if path.suffix == ".graph" else capture(path)
    return print_graph(graph, weights=False), graph_facts(graph)


def _folder(path: Path) -> Shown:
    if not (path / MARKER).is_file():
        raise OutputError(str(path), "not a run folder", "a folder that `insitu run` wrote")
    try:
        text, result = read_summary(path)
    except (OSError, ValueError) as error:
        raise OutputError(str(path), f"a run folder with a broken file ({error})", "a complete run folder") from None
    return f"{text.rstrip()}\nReport        {path / 'report.html'}\n", result


def _task(name: str) -> Shown:
    task = find_task(name)
    return task.card, {"task": task.facts.model_dump(mode="json")}


def _unknown(name: str) -> UsageError:
    known = [*presets(), *cells(), *(f"task:{t}" for t in tasks()), "isa", "schema chip"]
    folder = Path(name).parent
    near = [str(folder / p.name) for p in folder.iterdir()] if folder.is_dir() else []
    need = f"a file, a run folder, a preset ({', '.join(presets())}), a task, `isa` or `schema chip`"
    return UsageError(f"insitu show {name}", "nothing is called so", need, try_=did_you_mean(name, [*known, *near]))


def graph_facts(graph: Graph) -> dict[str, Any]:
    """A graph in a few numbers."""
    ops = Counter(node.op for node in graph.nodes)
    values = {v: [graph.type(v).dtype, list(graph.type(v).shape)] for v in (*graph.inputs, *graph.outputs)}
    weights = sum(int(a.size) for a in graph.constants.values())
    return {
        "model": graph.name,
        "level": graph.level,
        "nodes": dict(ops.most_common()),
        "values": values,
        "constants": weights,
    }


def program_facts(program: Program, graph: Graph) -> dict[str, Any]:
    """A program in a few numbers."""
    ops = Counter(c.op for s in program.sections for c in s.code)
    layers = list(dict.fromkeys(b.label for s in program.sections for b in s.bindings))
    return {
        "program": program.name,
        "chip": program.chip.get("name"),
        "inputs": {v: list(graph.type(v).shape) for v in graph.inputs},
        "outputs": {v: list(graph.type(v).shape) for v in graph.outputs},
        "states": len(graph.states),
        "sections": [[s.chip, s.core, len(s.code)] for s in program.sections],
        "commands": dict(ops.most_common()),
        "layers": layers,
        "weights": sum(w.data.size for w in program.weights.values() if w.data is not None),
        "memory_bytes": dict(program.spaces),
        "cells_used": program.meta["cells_used"],
        "cells": program.meta["cells"],
        "objective": program.meta.get("objective"),
        "replicas": program.meta.get("replicas", {}),
        **{name: program.meta[name] for name in GAPS if isinstance(program.meta.get(name), float)},
    }


def _copies(replicas: Any) -> str:
    """Layers that are held more than once, and how often."""
    if not isinstance(replicas, dict) or not replicas:
        return "none"
    return ", ".join(f"{name} x {n}" for name, n in cast(dict[str, Any], replicas).items())


def program_text(program: Program, facts: dict[str, Any]) -> str:
    """The summary that `insitu show P.insitu` prints."""
    used = 100 * facts["cells_used"] / facts["cells"] if facts["cells"] else 0.0
    rows = [
        ("program", f"{facts['program']} for {facts['chip']}"),
        ("inputs", ", ".join(f"{n} {shape}" for n, shape in facts["inputs"].items())),
        ("outputs", ", ".join(f"{n} {shape}" for n, shape in facts["outputs"].items())),
        ("states", str(facts["states"])),
        ("sections", ", ".join(f"core {core}: {n} commands" for _, core, n in facts["sections"])),
        ("commands", ", ".join(f"{op} {n}" for op, n in facts["commands"].items())),
        ("layers", f"{len(facts['layers'])} on arrays: {', '.join(facts['layers'])}"),
        ("numbers", f"{count(facts['weights'])} in {len(program.weights)} tables"),
        ("memory", ", ".join(f"{space} {size:,} B" for space, size in facts["memory_bytes"].items())),
        ("cells", f"{facts['cells_used']:,} of {facts['cells']:,} ({used:.1f} %)"),
        ("copies", _copies(facts["replicas"])),
        ("gaps", ", ".join(f"{GAPS[name]} {100 * facts[name]:.1f} %" for name in GAPS if name in facts)),
    ]
    return "\n".join(f"{name:<12}{text}" for name, text in rows) + "\n"
