"""`insitu verify`: a program against the graph it carries, value by value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import InternalError, ProgramError
from insitu.cli import console
from insitu.cli.programs import blamed, load_checked, reproduced, session_of
from insitu.flow.check import compare, samples_needed
from insitu.flow.data import random_inputs
from insitu.graph.interpret import interpret
from insitu.isa.walk import executed
from insitu.numeric.affine import quantize
from insitu.report.result import BitExact
from insitu.runtime.session import Session

Array = npt.NDArray[Any]
STEPS, SAMPLES = 3, 16  # of a program with state


def run(path: str, *, samples: int, seed: int, json: bool) -> int:
    """Check a program file; returns the exit code, 0 where nothing differs."""
    program, graph = load_checked(path)
    progress = console.Progress()
    with blamed(program, path):
        session = session_of(program, graph, sizes=program.sizes)
        count = samples or samples_needed(session.graph)
        codes = session.codes(random_inputs(session.graph, count, seed=seed))
        exact = compare(session, codes, done=lambda n: progress("check bit by bit", n, count))
        if session.graph.states:
            exact = _joined(exact, stream(session, {n: c[:SAMPLES] for n, c in codes.items()}))
    progress.end()
    if exact.mismatches:
        raise _fault(path, exact, ours=reproduced(program))
    commands = sum(executed(s.code) for s in program.bind(program.sizes).sections)
    facts = {"model": program.name, "chip": program.chip.get("name"), "samples": count, "bit_exact": vars(exact)}
    text = f"{path}: sound; {exact.checked_values:,} values of {count:,} random samples equal its graph's, 0 differ"
    console.put_json({"schema": 1, **facts, "commands": commands}) if json else console.put(text)
    return 0


def stream(session: Session, codes: Mapping[str, Array]) -> BitExact:
    """Outputs and states of a program with state over some steps on the same inputs, against the interpreter."""
    graph, total, wrong = session.graph, 0, 0
    first: dict[str, Any] | None = None
    count = len(next(iter(codes.values())))
    states = {
        s.input: np.full((count, *graph.type(s.input).sizes()), session.spec(s.input).zero_point) for s in graph.states
    }
    session.reset()
    for step in range(STEPS):
        outputs = session.step(codes)
        values = interpret(graph, {**states, **codes})
        states = {s.input: values[s.output] for s in graph.states}
        got = {n: quantize(outputs[n], session.spec(n)) for n in graph.outputs} | session.states
        for name, wanted in ({n: values[n] for n in graph.outputs} | states).items():
            bad = wanted != got[name]
            total, wrong = total + bad.size, wrong + int(bad.sum())
            first = first or ({"layer": name, "step": step} if bad.any() else None)
    session.reset()
    return BitExact(total, wrong, 0, first)


def _joined(one: BitExact, two: BitExact) -> BitExact:
    return BitExact(one.checked_values + two.checked_values, one.mismatches + two.mismatches, 0, one.first or two.first)


def _fault(path: str, exact: BitExact, *, ours: bool) -> InternalError | ProgramError:
    """Mismatches: ours where the compiler makes this very program, else the file was altered."""
    first = ", ".join(f"{key} {value}" for key, value in (exact.first or {}).items())
    got = f"{exact.mismatches:,} of {exact.checked_values:,} values differ from its graph's; first: {first}"
    if ours:
        return InternalError(path, got, "0 mismatches: a fault of ours", code="mismatch")
    return ProgramError(
        path, got, "0 mismatches; the file was altered", try_=("compile the model again",), code="mismatch"
    )
