"""P1: interpreter and functional simulator give the same integers, value by value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.graph.graph import Graph
from insitu.graph.interpret import interpret
from insitu.graph.ops.float import needed
from insitu.report.result import BitExact
from insitu.runtime.session import Session

Array = npt.NDArray[Any]
ENOUGH = 100_000
BLOCK = 4  # samples at once, at least; of small networks as many as make AT_ONCE values, at most MOST
AT_ONCE, MOST = 20_000, 1024
LARGE = 1 << 21  # values of a sample of which one runs at once
STEPS = 8  # of a network with state, at least
LEAST_STEPS = 64  # of each of several streams


def values_per_sample(graph: Graph) -> int:
    """Elements of every quantized tensor the program writes, each once."""
    return sum(graph.type(v).count() for n in graph.nodes if n.op != "Host" for v in n.outputs if v)


def samples_at_once(graph: Graph) -> int:
    """Samples whose values are held together while they are compared."""
    values = values_per_sample(graph)
    return 1 if values > LARGE else min(max(BLOCK, AT_ONCE // max(1, values)), MOST)


def samples_needed(graph: Graph, *, least: int = 1) -> int:
    """Samples whose values make up at least 10**5."""
    return max(least, STEPS if graph.states else 1, -(-ENOUGH // max(1, values_per_sample(graph))))


def compare(session: Session, codes: Mapping[str, Array], *, done: Callable[[int], None] | None = None) -> BitExact:
    """Every value the program writes against the interpreter, on all samples of `codes`.

    The samples of a network with state are steps: each starts from the state that the last one left.  Many steps are
    several streams side by side, of LEAST_STEPS or more.
    """
    total, mismatches, excluded, first = 0, 0, 0, None
    graph = session.graph
    hosted = hosted_values(graph)
    states: dict[str, Array] = {}
    for taken in _blocks(graph, len(next(iter(codes.values())))):
        if taken.begins:
            session.reset()
            states = start_states(graph, len(taken.rows))
        block = {n: c[taken.rows] for n, c in codes.items()}
        wanted = reference(graph, block, states=states or None)
        got = observed(session, block)
        states = {s.input: wanted[s.output] for s in graph.states if s.output in wanted}
        excluded += sum(np.size(wanted[v]) for v in hosted if v in wanted)
        for node, value in ((n, v) for n in graph.nodes for v in n.outputs if v and v not in hosted):
            mine = got.get(value, wanted[value] if _is_view_of_input(graph, value) else None)
            bad = wanted[value] != mine if mine is not None else np.ones(wanted[value].shape, bool)
            mask = needed(node, {**block, **wanted})
            if mask is not None:  # of a branch that these samples took
                bad = bad & mask.reshape(-1, *(1,) * (bad.ndim - 1))
            total += bad.size if mask is None else bad[mask].size
            if bad.any():
                mismatches += int(bad.sum())
                first = first or _first(value, bad, wanted[value], mine, taken.rows)
        if done is not None:
            done(taken.done)
    session.reset()
    return BitExact(total, mismatches, excluded, first)


@dataclass(frozen=True)
class _Block:
    """Samples that are run at once; `done` counts them and those before."""

    rows: npt.NDArray[np.int64]
    done: int
    begins: bool  # from the states of a first step


def _blocks(graph: Graph, samples: int) -> Iterator[_Block]:
    """All samples, in order; those of a network with state step by step, in streams side by side, then the rest."""
    if not graph.states:
        size = samples_at_once(graph)
        for start in range(0, samples, size):
            end = min(samples, start + size)
            yield _Block(np.arange(start, end), end, start == 0)
        return
    streams = max(1, min(MOST, samples // LEAST_STEPS, AT_ONCE // max(1, values_per_sample(graph))))
    steps = samples // streams
    for step in range(steps):
        yield _Block(np.arange(streams) * steps + step, (step + 1) * streams, step == 0)
    for at in range(streams * steps, samples):
        yield _Block(np.arange(at, at + 1), at + 1, at == streams * steps)


def hosted_values(graph: Graph) -> frozenset[str]:
    """Values that the host's operators write: counted, not compared."""
    return frozenset(v for n in graph.nodes if n.op == "Host" for v in n.outputs if v)


def observed(session: Session, codes: Mapping[str, Array]) -> dict[str, Array]:
    """Every value the program writes, by the functional simulator."""
    values: dict[str, Array] = {}

    def keep(name: str, value: Array) -> None:
        values[name] = value.copy()

    if session.graph.states:
        session.step_codes(codes, observe=keep)
    else:
        session.run_codes(codes, observe=keep)
    return values


def start_states(graph: Graph, samples: int) -> dict[str, Array]:
    """The states of a first step: their zero points."""
    return {s.input: np.full((samples, *graph.type(s.input).sizes()), _zero(graph, s.input)) for s in graph.states}


def reference(
    graph: Graph, codes: Mapping[str, Array], *, states: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """Every computed value by the interpreter; without `states` it is a first step."""
    samples = len(next(iter(codes.values())))
    start = start_states(graph, samples) if states is None else states
    values: dict[str, Array] = {}
    ends = interpret(graph, {**start, **codes}, observe=lambda name, value: values.__setitem__(name, value))
    return {**ends, **values}


def _zero(graph: Graph, value: str) -> int:
    quant = graph.type(value).quant
    return quant.zero_point if quant else 0


def _is_view_of_input(graph: Graph, value: str) -> bool:
    """Whether a value is an input seen through moves that need no command."""
    node = graph.producer(value)
    while node is not None and node.op in ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice"):
        value = node.inputs[0]
        node = graph.producer(value)
    return node is None


def _first(value: str, bad: Array, wanted: Array, mine: Array | None, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    at = {"layer": value, "index": [int(rows[index[0]]), *index[1:]], "interpreter": int(wanted[index])}
    return {**at, "simulator": int(mine[index]) if mine is not None else None}
