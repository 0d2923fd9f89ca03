"""How close codes come to the float network: accuracy, SQNR and cosine, over the network and layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.compiler.adapt import BYTES
from insitu.graph.export import float_session
from insitu.graph.graph import Graph, Node
from insitu.graph.interpret import node_results
from insitu.numeric.affine import QuantSpec, quantize
from insitu.runtime.session import Session

Array = npt.NDArray[Any]
LAYER_SAMPLES = 8
LAYER_VALUES = 1 << 24  # values of all layers, of which fewer samples are looked at where these are more


def accuracy(scores: Array, labels: Array) -> float:
    """Share of samples whose largest score is the label's."""
    return hits(scores, labels) / len(labels)


def hits(scores: Array, labels: Array) -> int:
    """How many samples have their largest score at the label."""
    return int((scores.reshape(len(scores), -1).argmax(axis=1) == labels).sum())


@dataclass
class Closeness:
    """Sums for SQNR and cosine of y against the reference r."""

    signal: float = 0.0
    noise: float = 0.0
    own: float = 0.0
    both: float = 0.0

    def add(self, r: Array, y: Array) -> None:
        """Count one pair of arrays."""
        r, y = np.asarray(r, np.float64).reshape(-1), np.asarray(y, np.float64).reshape(-1)
        self.signal += float(r @ r)
        self.noise += float(((r - y) ** 2).sum())
        self.own += float(y @ y)
        self.both += float(r @ y)

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(sum r^2 / sum (r - y)^2); None where it is not finite."""
        return 10 * float(np.log10(self.signal / self.noise)) if self.signal > 0 and self.noise > 0 else None

    @property
    def cosine(self) -> float | None:
        """Cosine between r and y."""
        return self.both / float(np.sqrt(self.signal * self.own)) if self.signal > 0 and self.own > 0 else None


@dataclass(frozen=True)
class LayerQuality:
    """A layer's output against float: cumulative, and alone on the quantized float input.

    `range_ratio` is what its codes can express over what the float layer does: near 1 for a right output scale.
    """

    sqnr_db: float | None
    sqnr_local_db: float | None
    cosine: float | None
    range_ratio: float | None = None


def layer_quality(
    captured: Graph, session: Session, inputs: Mapping[str, Array], *, done: Callable[[int], None] | None = None
) -> dict[str, LayerQuality]:
    """Each layer's closeness on a few samples, cumulative and local, both ideal."""
    graph = session.graph
    few = {n: a[: layer_samples(captured)] for n, a in inputs.items()}
    made = [v for n in captured.nodes for v in n.outputs if v and captured.type(v).dtype == "f32"]
    floats = {**few, **float_session(captured, expose=made)(few)}
    copies = [v for n in graph.nodes for v in n.outputs if v.endswith(BYTES) and v not in floats]
    floats |= {v: floats[own] for v in copies if (own := v.removesuffix(BYTES)) in floats}
    cumulative: dict[str, Closeness] = {}

    def observe(name: str, value: Array) -> None:
        if name in floats:
            cumulative.setdefault(name, Closeness()).add(floats[name], session.real(name, value))

    session.run_codes(session.codes(few), observe=observe)
    result: dict[str, LayerQuality] = {}
    for index, node in enumerate(graph.nodes):
        if node.output in floats:
            total = cumulative.get(node.output, Closeness())
            coded = graph.type(node.output).quant is not None
            ratio = range_ratio(floats[node.output], session.spec(node.output), node) if coded else None
            local = _local(graph, node, floats, session)
            result[node.name] = LayerQuality(total.sqnr_db, local, total.cosine, ratio)
        if done is not None:
            done(index + 1)
    return result


def layer_samples(captured: Graph) -> int:
    """How many samples layers are compared on."""
    values = sum(captured.type(v).count() for n in captured.nodes for v in n.outputs if v)
    return int(np.clip(LAYER_VALUES // max(values, 1), 1, LAYER_SAMPLES))


def range_ratio(real: Array, spec: QuantSpec, node: Node) -> float | None:
    """Width of the reals that a node's codes stand for over the width of `real` (samples, *shape), 0 in both.

    The median over channels where each has a scale; None for values that are all zero.
    """
    codes = max(int(node.attr("hi", spec.hi)), spec.zero_point) - min(int(node.attr("lo", spec.lo)), spec.zero_point)
    lead = 0 if spec.axis is None else spec.axis + 1
    rows = np.moveaxis(real, lead, 0).reshape(len(spec.scale) if spec.axis is not None else 1, -1)
    width = np.maximum(rows.max(axis=1), 0) - np.minimum(rows.min(axis=1), 0)
    used = width > 0
    if not used.any():
        return None
    return float(np.median(codes * np.broadcast_to(spec.scale, width.shape)[used] / width[used]))


def _local(graph: Graph, node: Node, floats: Mapping[str, Array], session: Session) -> float | None:
    """SQNR of one node fed with the quantized float values of its inputs."""
    values: dict[str, Array] = {}
    for name in node.inputs:
        if not name or name in graph.constants:
            continue
        if name not in floats:
            return None
        coded = graph.type(name).quant is not None
        values[name] = quantize(floats[name], session.spec(name)) if coded else floats[name]
    closeness = Closeness()
    closeness.add(floats[node.output], session.real(node.output, node_results(graph, node, values)[0][1]))
    return closeness.sqnr_db
