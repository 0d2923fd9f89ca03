"""What every array layer of a graph reads and gives, in files under stable names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.flow.check import reference, start_states
from insitu.graph.graph import Graph
from insitu.runtime.weights import array_layers, write_layers

Array = npt.NDArray[Any]


def dump_layers(graph: Graph, codes: Mapping[str, Array], folder: str | Path, *, stream: bool = False) -> list[Path]:
    """Write `net0/<i>_<layer>/round<i-1>/input0.txt` and `output0.txt` for input codes (samples, *shape); the files.

    `stream`: the samples are steps, states go on from one to the next.  The codes are those of the ideal chip.
    """
    wanted = {v for n in array_layers(graph) for v in (n.inputs[0], n.output)}
    if not stream:
        return write_layers(graph, {**codes, **_values(graph, codes, start_states(graph, _count(codes)))}, folder)
    states = start_states(graph, 1)
    rows: list[dict[str, Array]] = []
    for t in range(_count(codes)):
        values = _values(graph, {n: c[t : t + 1] for n, c in codes.items()}, states)
        states = {s.input: values[s.output] for s in graph.states}
        rows.append({n: v for n, v in values.items() if n in wanted})
    return write_layers(graph, {n: np.concatenate([r[n] for r in rows]) for n in rows[0]}, folder)


def _count(codes: Mapping[str, Array]) -> int:
    return len(next(iter(codes.values())))


def _values(graph: Graph, codes: Mapping[str, Array], states: Mapping[str, Array]) -> dict[str, Array]:
    """Every value of the graph: inputs, states, and what nodes compute."""
    return {**codes, **states, **reference(graph, codes, states=states)}
