"""The whole line on small networks, and what must hold of every one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from insitu.algo import ptq
from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.compiler import adapt
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.quantize import quantize
from insitu.flow.chain import capture
from insitu.flow.check import compare, reference
from insitu.frontend.onnx import import_model
from insitu.graph.graph import Graph
from insitu.graph.text import parse_graph, print_graph, same_graph
from insitu.graph.verify import verify
from insitu.isa import semantics
from insitu.isa.check import check_program
from insitu.isa.program import Program, load_program, save_program
from insitu.runtime.session import Session

Array = np.ndarray[Any, Any]
FULL: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "exact": ("dcim-28nm", ()), "adc": ("parametric-reram-adc8", ()), "wtm2101": ("wtm2101", ()),
}  # fmt: skip
SMALL: Mapping[str, tuple[str, tuple[str, ...]]] = {  # layers split over row parts, columns, macros and cores
    "exact-small": ("dcim-28nm", ("array.rows=16", "array.cols=6", "core.macros=10")),
    "exact-joined": ("dcim-28nm", ("array.rows=16", "array.cols=6", "core.macros=4", "chip.tiles=14")),
    "exact-large-core": ("dcim-28nm", ("array.rows=32", "array.cols=24", "core.macros=40", "chip.tiles=1")),
    "exact-unsigned": ("dcim-28nm", ("array.rows=16", "array.cols=6", "core.macros=40", "macro.input.signed=false")),
    "adc-small": (
        "parametric-reram-adc8",
        ("array.rows=14", "array.cols=6", "macro.columns_per_adc=24", "core.macros=40", "macro.readout.bits=6"),
    ),
    "adc-joined": (
        "parametric-reram-adc8",
        ("array.rows=18", "array.cols=6", "macro.columns_per_adc=24", "core.macros=4", "chip.tiles=14"),
    ),
    "banks": ("aim-gddr6", ("core.macros=4",)),
    "wtm2101-small": ("wtm2101", ("array.rows=48", "array.cols=160", "macro.bias_rows=64")),
}
CHIPS = {**FULL, **SMALL}
BARE = ("calibration.column_drift=false", "calibration.spare_rows=false")  # the converter chip without its procedures


@cache
def chip_of(name: str) -> Chip:
    """A preset, or one with small arrays."""
    preset, overrides = CHIPS[name]
    return load_chip(preset, overrides=overrides)


def captured(proto: onnx.ModelProto) -> Graph:
    """The canonical captured graph of a model in memory."""
    return capture(import_model(proto, name="net"))


def inputs_of(graph: Graph, samples: int, *, seed: int = 0) -> dict[str, Array]:
    """Standard normal inputs."""
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal((samples, *graph.type(n).sizes()), dtype=np.float32) for n in graph.inputs}


def build(graph: Graph, chip: Chip, *, seed: int = 0) -> tuple[Graph, Program]:
    """(quantized graph, program), verified and statically checked."""
    graph = adapt.run(graph, chip)
    plan = ptq.plan(graph, chip, data=inputs_of(graph, 8, seed=seed), seed=seed)
    quantized = verify(quantize(graph, chip, plan=plan))
    program = compile_graph(quantized, chip)
    check_program(program)
    return quantized, program


def check_network(graph: Graph, chip: Chip, folder: Path, *, seed: int = 0, slow: bool = True) -> Program:
    """Build a network and hold all its witnesses against each other; graph and program go through their files."""
    quantized, program = build(graph, chip, seed=seed)
    again = parse_graph(print_graph(quantized, weights=True))
    assert same_graph(again, quantized)
    loaded = load_program(save_program(program, folder / "net.insitu"))
    assert loaded == program
    session = Session(loaded)
    codes = session.codes(inputs_of(graph, 3, seed=seed + 1))
    exact = compare(session, codes)
    assert exact.mismatches == 0, exact.first
    assert exact.checked_values == 3 * sum(quantized.type(n.output).count() for n in quantized.nodes)
    if slow:
        check_semantics(loaded, quantized, {n: c[0] for n, c in codes.items()})
    return program


def check_semantics(program: Program, graph: Graph, codes: Mapping[str, Array]) -> None:
    """One sample through the instruction set's own reference, every value against the interpreter."""
    wanted = reference(graph, {n: c[None] for n, c in codes.items()})
    seen = semantics.run(program, codes, observe=[n.output for n in graph.nodes])
    for node in graph.nodes:
        assert np.array_equal(seen[node.output], wanted[node.output][0]), node.output


def ops_of(program: Program) -> set[str]:
    """Mnemonics a program uses."""
    return {c.op for s in program.sections for c in s.code}


def cores_of(program: Program) -> Sequence[int]:
    """Cores that run a section."""
    return [s.core for s in program.sections]
