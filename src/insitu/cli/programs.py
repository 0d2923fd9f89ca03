"""Programs from files: loaded, checked and tied to the graph they carry, since nothing in a file is trusted."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from insitu.arch.load import chip_from_json
from insitu.base.errors import InsituError, ProgramError
from insitu.circuit.effects import Physics
from insitu.compiler.partition import Objective
from insitu.compiler.pipeline import compilations
from insitu.graph.graph import Graph
from insitu.graph.text import parse_graph
from insitu.graph.verify import verify
from insitu.isa.check import check_program
from insitu.isa.container import load_program, program_bytes
from insitu.isa.program import Program
from insitu.runtime.session import Session

BROKEN = (KeyError, IndexError, ValueError, TypeError, AttributeError, AssertionError, ArithmeticError, StopIteration)
FACTS = ("cells_used", "cells")


def load_checked(path: str) -> tuple[Program, Graph]:
    """A program that breaks no rule of the instruction set, and its verified graph; else ProgramError."""
    program = load_program(path)
    with blamed(program, path):
        check_program(program)
        graph = parse_graph(program.graph, where=f"{path}: graph")
        for value in graph.types.values():  # a graph of named sizes is verified at its largest
            assert all(s in program.sizes for s in value.symbols), "a size that the program does not name"
        verify(graph.bind(program.sizes) if program.sizes else graph, where=f"{path}: graph")
        _check_ties(program, graph, path)
    return program, graph


def _check_ties(program: Program, graph: Graph, path: str) -> None:
    """The program keeps the inputs and outputs of its graph, in their shapes."""
    if graph.level != "quantized" or list(program.meta.get("outputs", ())) != list(graph.outputs):
        raise ProgramError(path, "a graph that is not the program's own", "the quantized graph it was compiled from")
    if not all(isinstance(program.meta.get(name), int) for name in FACTS):
        raise ProgramError(path, "facts that are missing", f"{' and '.join(FACTS)}")
    for value in (*graph.inputs, *graph.outputs):
        at = program.values.get(value)
        if at is None or tuple(at.shape) != tuple(graph.type(value).shape):
            raise ProgramError(f"{path}: value {value}", "not in memory as the graph has it", "its place and shape")


def session_of(
    program: Program,
    graph: Graph,
    *,
    physics: str | Physics = "ideal",
    instance: int = 0,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    backend: str = "cpu",
) -> Session:
    """The program loaded onto a chip instance."""
    return Session(program, physics=physics, instance=instance, seed=seed, sizes=sizes, graph=graph, backend=backend)


@contextmanager
def blamed(program: Program, path: str) -> Generator[None]:
    """What fails inside is the file's fault, unless our compiler makes the very same program."""
    try:
        yield
    except BROKEN as error:
        if reproduced(program):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise ProgramError(
            path, f"it contradicts itself ({reason})", "a program as it was compiled", try_=("compile the model again",)
        ) from None


def reproduced(program: Program) -> bool:
    """Whether compiling the program's own graph for its own chip gives the same bytes."""
    try:
        objective: Objective = program.meta.get("objective", "latency")
        graph, chip = verify(parse_graph(program.graph)), chip_from_json(program.chip)
        made = compilations(graph, chip, sizes=program.sizes, objective=objective)
        return any(program_bytes(again) == program_bytes(program) for again in made)
    except (InsituError, *BROKEN):
        return False
