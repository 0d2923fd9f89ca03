"""`insitu verify`: a program against the graph it carries, value by value."""

from __future__ import annotations

from insitu.base.errors import InternalError, ProgramError
from insitu.cli import console
from insitu.cli.programs import blamed, load_checked, reproduced, session_of
from insitu.flow.check import compare, samples_needed
from insitu.flow.data import random_inputs
from insitu.isa.walk import executed
from insitu.report.result import BitExact


def run(path: str, *, samples: int, seed: int, json: bool) -> int:
    """Check a program file; returns the exit code, 0 where nothing differs."""
    program, graph = load_checked(path)
    progress = console.Progress()
    with blamed(program, path):
        session = session_of(program, graph, sizes=program.sizes)
        count = samples or samples_needed(session.graph)
        codes = session.codes(random_inputs(session.graph, count, seed=seed))
        exact = compare(session, codes, done=lambda n: progress("check bit by bit", n, count))
    progress.end()
    if exact.mismatches:
        raise _fault(path, exact, ours=reproduced(program))
    commands = sum(executed(s.code) for s in program.bind(program.sizes).sections)
    facts = {"model": program.name, "chip": program.chip.get("name"), "samples": count, "bit_exact": vars(exact)}
    text = f"{path}: sound; {exact.checked_values:,} values of {count:,} random samples equal its graph's, 0 differ"
    console.put_json({"schema": 1, **facts, "commands": commands}) if json else console.put(text)
    return 0


def _fault(path: str, exact: BitExact, *, ours: bool) -> InternalError | ProgramError:
    """Mismatches: ours where the compiler makes this very program, else the file was altered."""
    first = ", ".join(f"{key} {value}" for key, value in (exact.first or {}).items())
    got = f"{exact.mismatches:,} of {exact.checked_values:,} values differ from its graph's; first: {first}"
    if ours:
        return InternalError(path, got, "0 mismatches: a fault of ours", code="mismatch")
    return ProgramError(
        path, got, "0 mismatches; the file was altered", try_=("compile the model again",), code="mismatch"
    )
