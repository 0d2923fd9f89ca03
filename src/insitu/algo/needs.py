"""What quantizing a network takes at most beside what is loaded: bytes, known before it begins.

Counted bytes and factors: of values that go through the float network together, of what is kept of them, of the largest
layer while its codes are chosen, and of the samples that a replay takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.calibrate import KEPT
from insitu.algo.refine import SAMPLES, replayed_samples
from insitu.algo.replay import AT_ONCE
from insitu.algo.rounding import MOST_VECTORS, MOST_WORK
from insitu.arch.spec import Chip
from insitu.compiler.draft import is_weight_layer
from insitu.compiler.quantize_layers import out_axis
from insitu.graph.graph import Graph, Node
from insitu.graph.passes import Passes, made_bytes, value_bytes

Array = npt.NDArray[Any]
RUN = 4  # of a value: ONNX Runtime's own, its copy in another order of channels, ours, one more at work
PLAYED = 6  # of a value one sample: as codes, driven, with borders
WEIGHT = 24  # bytes of every weight: in ONNX's form twice, as codes, in the plan
LAYER = 80  # of a weight of the largest layer: float64 and errors of trials
WORKED = 80  # of an element that an operator writes in a replay: int64 between, before it is narrow again
DRIVEN, SUMMED = 32, 48  # of an input and output of a layer that is: codes, their copies; sums, reals and codes twice
BASE = 96 << 20  # libraries that are loaded on the way, placing and emitting, and what is small


def needed(graph: Graph, chip: Chip, data: Mapping[str, Array]) -> int:
    """Bytes that choosing a plan for a captured graph takes, with calibration inputs `data` (samples, *shape)."""
    samples = len(next(iter(data.values())))
    made = [v for n in graph.nodes for v in n.outputs if v and graph.type(v).dtype == "f32"]
    kept = sum(min(value_bytes(graph, v) * samples, 5 * KEPT) for v in (*graph.inputs, *made))
    layers = [n for n in graph.nodes if is_weight_layer(graph, n)]
    sizes = [graph.constants[n.inputs[1]].size for n in layers]
    weights = WEIGHT * sum(sizes) + LAYER * max(sizes, default=0)
    values = max((value_bytes(graph, v) for v in made), default=0) * PLAYED
    own = max(_replay(graph, chip, layers, samples), _passes(graph, made) + values)
    return BASE + kept + weights + own


def _passes(graph: Graph, made: list[str]) -> int:
    """Bytes of the values that go through the float network together."""
    passes = Passes(graph, made)
    if not passes.cut:
        return RUN * passes.rows * sum(value_bytes(graph, v) for v in made)
    size = {v: value_bytes(graph, v) for v in (*graph.inputs, *made)}
    parts, peak = passes.parts, 0
    for index, part in enumerate(parts):
        later = {v for other in parts[index:] for v in other.reads}
        held = {v for other in parts[:index] for v in other.writes} & later
        peak = max(peak, sum(size[v] for v in {*held, *part.reads}) + RUN * sum(size[v] for v in part.writes))
        peak = max(peak, sum(size[v] for v in held) + RUN * sum(size[v] for v in part.reads))
    return peak


def _replay(graph: Graph, chip: Chip, layers: list[Node], samples: int) -> int:
    """Bytes of the samples that are replayed through the integers, and of rounding."""
    if graph.states or graph.symbols() or not layers:
        return 0
    count = replayed_samples(graph, samples, slow=chip.macro.readout.kind == "adc")
    if not count:
        return 0
    held = max(_alive(graph)) * count * 12  # codes and real numbers
    cut = 12 * 8 * min(AT_ONCE, count * max(_multiplied(graph, n) for n in layers))
    worked = count * max(_worked(graph, n) for n in graph.nodes)
    return held + worked + cut + max(_rounding(graph, n) for n in layers)


def _worked(graph: Graph, node: Node) -> int:
    """Bytes of a sample while a node is replayed."""
    read = max((value_bytes(graph, v) // 4 for v in node.inputs if v and v not in graph.constants), default=0)
    made = made_bytes(graph, node) // 4
    if is_weight_layer(graph, node):
        return DRIVEN * read + SUMMED * made
    window = prod(node.attr("kernel_shape", ())) if node.op == "AveragePool" else 0
    return 24 * read + (WORKED + 8 * window) * made


def _alive(graph: Graph) -> list[int]:
    """Elements of the values that are still to be read, after each node."""
    last = {v: i for i, n in enumerate(graph.nodes) for v in n.inputs if v not in graph.constants}
    alive = sum(value_bytes(graph, v) // 4 for v in graph.inputs)
    found: list[int] = []
    for index, node in enumerate(graph.nodes):
        alive += sum(value_bytes(graph, v) // 4 for v in node.outputs if v)
        found.append(alive)
        ended = {v for v in (*node.inputs, *node.outputs) if v and v not in graph.constants and last.get(v, 0) <= index}
        alive -= sum(value_bytes(graph, v) // 4 for v in ended)
    return found


def _sizes(graph: Graph, node: Node) -> tuple[int, int, int, int]:
    """(vectors of a sample, groups, rows, columns) of a weight layer."""
    shape = np.shape(graph.constants[node.inputs[1]])
    columns = shape[out_axis(node)]
    return graph.type(node.output).count() // columns, int(node.attr("group", 1)), prod(shape) // columns, columns


def _multiplied(graph: Graph, node: Node) -> int:
    """Numbers of all vectors of a sample."""
    vectors, groups, rows, _ = _sizes(graph, node)
    return vectors * groups * rows


def _rounding(graph: Graph, node: Node) -> int:
    """Bytes that rounding a layer's weights against each other takes."""
    vectors, groups, rows, columns = _sizes(graph, node)
    if rows**2 * (columns + groups * rows) > MOST_WORK:
        return 0
    return 8 * (3 * min(vectors * SAMPLES, 2 * MOST_VECTORS) * rows * groups + 8 * rows**2)
