"""`insitu compile`: a model or a graph to the program, or to the graph of a stage."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from insitu.algo import ptq
from insitu.algo.needs import needed
from insitu.arch.spec import Chip
from insitu.base.errors import ModelError, UsageError
from insitu.base.registry import resolve
from insitu.circuit.effects import Physics
from insitu.cli import console
from insitu.cli.inputs import Loaded, ModelInputs, load
from insitu.compiler import adapt, given
from insitu.compiler.mapping import Mapping, Placed
from insitu.compiler.partition import Objective, allot
from insitu.compiler.pipeline import emit
from insitu.compiler.placement_file import fixed_mapping, read_placement
from insitu.compiler.precision import apply_plan
from insitu.flow.chain import check_readouts
from insitu.flow.data import prepare
from insitu.flow.precision import requested
from insitu.graph.graph import LEVELS, Graph
from insitu.graph.text import save_graph
from insitu.graph.verify import verify
from insitu.isa.check import check_program
from insitu.isa.container import SUFFIX, save_program
from insitu.isa.program import Program
from insitu.report.text import count
from insitu.runtime.memory import check_room
from insitu.runtime.objective import best_program, objective_of
from insitu.runtime.weights import write_map

GRAPH = ".graph"


@dataclass(frozen=True)
class Places:
    """How weights are placed: chips at most, what for, seconds of search, or a file that says where."""

    max_chips: int
    objective: Objective
    search: float
    layers: str | None


@dataclass(frozen=True)
class _Work:
    """A compilation under way: the graph at its level, and where the ranges came from."""

    loaded: Loaded
    graph: Graph
    calibration: str = ""

    @property
    def chip(self) -> Chip:
        """The chip; a stage that needs one has checked that it was given."""
        assert self.loaded.chip is not None
        return self.loaded.chip


def run(
    inputs: ModelInputs,
    output: str,
    *,
    stop_after: str | None,
    json: bool,
    max_chips: int = 1,
    objective: str = "latency",
    search: float = 0.0,
    layers: str | None = None,
    map_: str | None = None,
    observer: str = "mse",
    rounding: str = "second-order",
    ranges: str = "codes",
) -> int:
    """Compile and write one file; returns the exit code.

    `layers` is a file that fixes the placement, `map_` a folder for the cells to program.
    """
    stage = resolve(stop_after, {level: level for level in LEVELS}, "--stop-after") if stop_after else "program"
    _check_names(output, stage)
    if inputs.chip is None and stage != "captured":
        raise UsageError("insitu compile: --chip", "not given", "a preset (`insitu chips` lists them) or a YAML file")
    choices = ptq.Choices(observer, rounding, ranges=ranges)
    loaded = load(inputs)
    if loaded.chip is not None:
        choices = replace(choices, effects=Physics.parse("full", loaded.chip))
    work = _quantized(_entered(loaded, stage), stage, seed=inputs.seed, choices=choices)
    if stage != "program" and (layers is not None or map_ is not None):
        option = "--layers" if layers is not None else "--map"
        raise UsageError(f"insitu compile: {option}", f"with --stop-after {stage}", "a compilation to the program")
    places = Places(max_chips, objective_of(objective), search, layers)
    facts = _written(work, output, stage, places, map_=map_)
    text = f"{loaded.name}: {facts['text']}, {output}"
    chip = loaded.chip.name if loaded.chip is not None else None
    shown = {"schema": 1, "model": loaded.name, "chip": chip, "stage": stage, "calibration": work.calibration or None}
    console.put_json({**shown, **facts, "path": output}) if json else console.put(text)
    return 0


def _check_names(output: str, stage: str) -> None:
    """The suffix of the file says what it will hold."""
    suffix, wanted = Path(output).suffix, SUFFIX if stage == "program" else GRAPH
    if suffix in (SUFFIX, GRAPH) and suffix != wanted:
        ways = (f"-o {Path(output).with_suffix(wanted)}",) + (("--stop-after quantized",) if suffix == GRAPH else ())
        raise UsageError(f"-o {output}", f"a {suffix} file for the {stage}", f"a file ending in {wanted}", try_=ways)


def _entered(loaded: Loaded, stage: str) -> _Work:
    """Refuse what cannot go from the graph's level to the stage."""
    level = loaded.graph.level
    if level == "placed" or (level == "quantized" and stage == "captured"):
        raise ModelError(loaded.name, f"a graph at level {level}", f"one at an earlier level than {stage}")
    if level == "quantized" and loaded.chip is not None:
        check_readouts(loaded.graph, loaded.chip)
        return _Work(loaded, loaded.graph, "model")
    return _Work(loaded, loaded.graph)


def _quantized(work: _Work, stage: str, *, seed: int, choices: ptq.Choices) -> _Work:
    if stage == "captured" or work.graph.level != "captured":
        return work
    loaded = work.loaded
    work = replace(work, graph=given.run(work.graph, work.chip))
    prepared = prepare(work.graph, data=loaded.data, calib=loaded.calib, samples=None, seed=seed)
    if loaded.plan is None:
        check_room(
            None, needed(work.graph, work.chip, prepared.calibration), what="its weights and calibration samples"
        )
    work = replace(work, graph=verify(adapt.run(work.graph, work.chip)))
    plan = loaded.plan or ptq.plan(work.graph, work.chip, data=prepared.calibration, seed=seed, choices=choices)
    if loaded.precision is not None:
        plan = requested(plan, work.graph, work.chip, wanted=loaded.precision)
    source = "model" if given.given(work.graph) else prepared.source
    if source == "random" and loaded.plan is None:
        console.note("No --calib or --data: the ranges come from seeded random inputs.")
    quantized = verify(apply_plan(work.graph, work.chip, plan=plan))
    return replace(work, graph=quantized, calibration="file" if loaded.plan else source)


def _written(work: _Work, output: str, stage: str, places: Places, *, map_: str | None = None) -> dict[str, Any]:
    """Write the file of a stage; what it holds, for people and as JSON."""
    graph = work.graph
    if stage == "program":
        program = _compiled(graph, work.chip, places)
        check_program(program)
        if map_ is not None:
            write_map(program, map_)
        path = save_program(program, output)
        commands, cores, size = sum(len(s.code) for s in program.sections), len(program.sections), path.stat().st_size
        chips = f" of {program.chips} chips" if program.chips > 1 else ""
        text = f"{count(commands)} commands on {cores} core{'s' if cores > 1 else ''}{chips}, {size:,} bytes"
        return {
            "text": text, "commands": commands, "sections": cores, "chips": program.chips, "program_bytes": size
        }  # fmt: skip
    if stage == "placed":
        graph = placed_graph(graph, _mapped(graph, work.chip, places))
    save_graph(graph, output)
    return {"text": f"{len(graph.nodes)} nodes, {stage}", "nodes": len(graph.nodes)}


def _mapped(graph: Graph, chip: Chip, places: Places) -> Mapping:
    return allot(graph, chip, max_chips=places.max_chips, objective=places.objective, search=places.search)[1]


def _compiled(graph: Graph, chip: Chip, places: Places) -> Program:
    """The program, placed as a file says where one is given."""
    if places.layers is None:
        return best_program(graph, chip, max_chips=places.max_chips, objective=places.objective, search=places.search)
    mapping = fixed_mapping(graph, chip, read_placement(places.layers), where=f"--layers {places.layers}")
    return emit(graph, chip, mapping=mapping, sizes={}, expected={})


def placed_graph(graph: Graph, mapping: Mapping) -> Graph:
    """The quantized graph with the place of every weight rectangle among its facts."""
    used = {"cells_used": mapping.cells_used, "cells": mapping.cells}
    return verify(
        replace(graph, level="placed", meta={**graph.meta, **used, **_places(mapping.layers), **_copies(mapping)})
    )


def _places(layers: Dict[str, tuple[Placed, ...]]) -> dict[str, tuple[str, ...]]:
    return {f"place {name}": tuple(_place(p) for p in rects) for name, rects in layers.items()}


def _copies(mapping: Mapping) -> dict[str, tuple[str, ...]]:
    return {
        f"copy {number} {name}": tuple(_place(p) for p in copy.places)
        for name, copies in mapping.copies.items()
        for number, copy in enumerate(copies, 1)
    }


def _place(placed: Placed) -> str:
    rect = placed.rect
    rows, cols = f"rows {rect.row0}+{rect.rows}", f"columns {rect.col0}+{rect.cols}"
    turn = f"load {placed.segment} " if placed.segment >= 0 else ""
    return f"{turn}core {placed.core} macro {placed.macro} x {placed.x} y {placed.y}: {rows}, {cols}"
