"""What each layer's rows are driven with on average: the frames a chip's own calibration plays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.vectors import evenly, in_groups, vectors_of
from insitu.graph.graph import Graph, Node
from insitu.graph.interpret import interpret
from insitu.graph.ops import mvm
from insitu.graph.passes import Passes
from insitu.numeric.affine import Ints, QuantSpec, quantize

Array = npt.NDArray[Any]
FRAMES = 16
SLAB = 1 << 20  # numbers turned into codes at once


def expected_inputs(captured: Graph, quantized: Graph, data: Mapping[str, Array], known: int = 0) -> dict[str, Array]:
    """Mean driven code per row of every weight layer, [blocks * groups, rows], over up to 16 calibration samples.

    With `known` inputs to play, up to as many samples are looked at, and behind the mean lie that many rows as the
    layer sees them, [1 + known, blocks * groups, rows]: evenly spread over samples and positions.
    """
    few = {n: np.asarray(evenly(a, max(FRAMES, known)), np.float32) for n, a in data.items()}
    there, samples = {*captured.inputs, *(n.output for n in captured.nodes)}, len(next(iter(few.values())))
    players = [_Player(quantized, n, samples, known) for n in layers_of(quantized) if n.inputs[0] in there]
    passes = Passes(captured, [p.source for p in players if p.source not in captured.inputs])
    for piece in passes.pieces(samples):
        block = {n: a[piece] for n, a in few.items()}
        for name, value in (*block.items(), *passes.values(block)):
            for player in (p for p in players if p.source == name):
                player.see_real(value, piece.start)
    return {p.node.name: p.played() for p in players}


def narrow_codes(value: Array, spec: QuantSpec) -> Array:
    """Codes of real numbers in 32 bits, made a slab at a time."""
    codes = np.empty(value.shape, np.int32)
    own = None if spec.axis is None else spec.axis % value.ndim
    axis = max((a for a in range(value.ndim) if a != own), key=lambda a: value.shape[a])
    step = max(1, SLAB * value.shape[axis] // max(value.size, 1))
    for start in range(0, value.shape[axis], step):
        part = (slice(None),) * axis + (slice(start, start + step),)
        codes[part] = quantize(value[part], spec)
    return codes


def layers_of(graph: Graph) -> list[Node]:
    """Weight layers of a quantized graph."""
    return [n for n in graph.nodes if n.op in ("Conv", "MatMul") and n.inputs[1] in graph.constants]


def expected_codes(graph: Graph, data: Mapping[str, Array], known: int = 0) -> dict[str, Array]:
    """The same for a network that came quantized; samples of one with state are steps of one stream."""
    rows = min(max(FRAMES, known), len(next(iter(data.values()))))
    players = [_Player(graph, n, rows, known) for n in layers_of(graph)]
    states = {s.input: np.zeros((1, *graph.type(s.input).sizes()), np.int64) for s in graph.states}
    for row in range(rows):
        step = {n: np.rint(np.asarray(a[row : row + 1], np.float64)).astype(np.int64) for n, a in data.items()}

        def see(name: str, value: Array, row: int = row) -> None:
            for player in (p for p in players if p.source == name):
                player.see(value, row)

        for name, value in (*states.items(), *step.items()):
            see(name, value)
        ends = interpret(graph, {**states, **step}, observe=see)
        states = {s.input: ends[s.output] for s in graph.states}
    return {p.node.name: p.played() for p in players}


class _Player:
    """What a layer's rows are driven with, summed up as samples come."""

    def __init__(self, graph: Graph, node: Node, samples: int, known: int) -> None:
        self.node, self.source, self.known, self.samples = node, node.inputs[0], known, samples
        self.kernel, self.signs = np.shape(graph.constants[node.inputs[1]])[2:], mvm.block_signs(node)
        self._graph = graph
        self._of_mean = range(0, samples, max(1, samples // FRAMES))[:FRAMES]  # samples whose mean is taken
        self._sums: list[Ints] = []
        self._count = 0
        self._rows: list[Array] = []

    @property
    def spec(self) -> QuantSpec:
        """What the codes of the layer's inputs stand for."""
        quant = self._graph.type(self.source).quant
        assert quant is not None
        return quant

    def see_real(self, value: Array, first: int) -> None:
        """Count some samples of real numbers (samples, *shape), numbered from `first`."""
        for i in range(first, first + len(value)):
            if self.known or i in self._of_mean:
                self.see(narrow_codes(value[i - first : i - first + 1], self.spec), i)

    def see(self, codes: Array, number: int) -> None:
        """Count the sample (1, *shape) of a number."""
        if number in self._of_mean:
            self._add(codes)
        if self.known:
            self._rows.append(self._some(codes, number))

    def _add(self, codes: Array) -> None:
        """One sample's sums by row of every block, [blocks * groups, rows]."""
        found = [self._summed(codes, sign) for sign in self.signs]
        sums = np.concatenate([s for s, _ in found])
        self._sums = [sums + self._sums[0]] if self._sums else [sums]
        self._count += found[0][1]

    def _summed(self, codes: Array, sign: int) -> tuple[Ints, int]:
        """(sums of driven codes [groups, rows], vectors) of one block of rows, window place by window place."""
        zero, groups = np.asarray(self.spec.zero_point), int(self.node.attr("group", 1))
        driven = mvm.input_codes(codes, self.node, sign=sign)
        pad = int(mvm.input_codes(zero, self.node, sign=sign))
        vectors = vectors_of(driven, self.node, kernel=self.kernel, pad=pad)
        lead = tuple(range(len(vectors.places)))
        sums = np.empty(vectors.windows.shape[len(lead) :], np.int64)
        for place in np.ndindex(*self.kernel):
            sums[(slice(None), *place)] = vectors.windows[(..., *place)].sum(axis=lead, dtype=np.int64)
        return sums.reshape(groups if self.kernel else 1, -1), len(vectors)

    def _some(self, codes: Array, number: int) -> Array:
        """Of the vectors chosen of all samples those of this one, [vectors, groups, rows]."""
        vectors = vectors_of(codes, self.node, kernel=self.kernel, pad=self.spec.zero_point)
        each = len(vectors)
        at = np.unique(np.linspace(0, each * self.samples - 1, self.known).astype(np.int64)) - each * number
        return in_groups(vectors.at(at[(at >= 0) & (at < len(vectors))]), 1, vectors.groups)

    def played(self) -> Array:
        """The mean driven codes of the rows, [blocks * groups, rows], and behind them `known` rows as they come."""
        mean = np.rint(self._sums[0] / self._count).astype(np.int16)
        if not self.known:
            return mean
        rows = np.concatenate(self._rows).astype(np.int64)
        blocks = [mvm.input_codes(rows, self.node, sign=sign).astype(np.int16) for sign in self.signs]
        return np.concatenate([mean[None], np.concatenate(blocks, axis=1)])
