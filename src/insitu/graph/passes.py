"""The float network on many samples within little memory: a few samples at once, large networks stretch by stretch.

How many samples go together and where a network is cut follow from the network alone, never from how much memory there
is, so that what is made of the values keeps every bit (decision 0024).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.heap import give_back
from insitu.graph.export import BLOCK, Run, float_session
from insitu.graph.graph import Graph, Node
from insitu.graph.parts import Part, cut_parts, stretch

Array = npt.NDArray[Any]
PIECE = 32 << 20  # bytes of values of the samples that go together


class Passes:
    """Float values of a graph by name, for samples that come a few at a time."""

    def __init__(self, graph: Graph, names: Sequence[str]) -> None:
        self.graph, self.names = graph, tuple(dict.fromkeys(names))
        fits = PIECE // max(1, sum(made_bytes(graph, n) for n in graph.nodes))
        self.rows = min(BLOCK, 1 << max(0, fits.bit_length() - 1))  # a power of two: pieces fill blocks
        self.cut = fits < 1 and not graph.states and not any(n.op == "Host" for n in graph.nodes)

    @cached_property
    def _whole(self) -> Run:
        return float_session(self.graph, expose=self.names, block=self.rows)

    @cached_property
    def parts(self) -> list[Part]:
        """What a network that is cut consists of."""
        return cut_parts(self.graph, (*self.names, *self.graph.outputs), starts(self.graph))

    @cached_property
    def _runs(self) -> list[Run]:
        return [float_session(stretch(self.graph, p), block=1, arena=False) for p in self.parts]

    def pieces(self, samples: int) -> Iterator[slice]:
        """Samples that go together."""
        for start in range(0, samples, self.rows):
            yield slice(start, min(start + self.rows, samples))

    def values(self, inputs: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """(name, values (samples, *shape)) in the order of execution for inputs (samples, *shape).

        Of a network that is cut, a value is dropped once the last operator that reads it has run, so the caller keeps
        what it needs longer.  The names are those asked for, and state outputs.
        """
        if not self.names and not self.graph.states:
            return
        if not self.cut:
            found = self._whole(inputs)
            wanted = dict.fromkeys((*self.names, *(s.output for s in self.graph.states)))
            yield from ((name, found.pop(name)) for name in wanted)
            return
        held = {v: np.asarray(inputs[v]) for v in self.graph.inputs}
        for index, part in enumerate(self.parts):
            made = self._runs[index]({v: held[v] for v in part.reads}) if part.writes else {}
            later = {v for other in self.parts[index + 1 :] for v in other.reads}
            held = {v: a for v, a in (held | made).items() if v in later}
            for name in part.writes:
                value = made.pop(name)
                if name in self.names:
                    yield name, value
                del value
            give_back()


def value_bytes(graph: Graph, value: str) -> int:
    """Bytes of one sample of a float value; named sizes count as 1."""
    return 4 * prod(d for d in graph.type(value).shape if isinstance(d, int))


def made_bytes(graph: Graph, node: Node) -> int:
    """Bytes of one sample of all that a node writes."""
    return sum(value_bytes(graph, v) for v in node.outputs if v)


def starts(graph: Graph) -> frozenset[int]:
    """Indices of nodes before which a large network is cut: what a stretch writes stays within PIECE, if it can."""
    found: set[int] = set()
    total = 0
    for index, node in enumerate(graph.nodes):
        own = made_bytes(graph, node)
        if total and total + own > PIECE:
            found.add(index)
            total = 0
        total += own
    return frozenset(found)
