"""How a chip could be made otherwise so that physics costs a network less, where that is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from insitu.algo.cells import closer_slices
from insitu.arch.spec import Chip
from insitu.base.metrics import Metric
from insitu.circuit.effects import Physics
from insitu.compiler.draft import is_weight_layer
from insitu.compiler.quantize_layers import weight_rows
from insitu.graph.graph import Graph

LOST = 0.02  # of accuracy, from which on a change is looked for
WORTH = 1.0  # decibels


def advice(graph: Graph, chip: Chip, physics: Physics, metrics: Mapping[str, Metric]) -> dict[str, str]:
    """A change for a quantized graph whose accuracy physics costs much: {"accuracy_change": text}, or nothing."""
    before, after = (metrics[n].value if n in metrics else None for n in ("accuracy_quantized", "accuracy_chip_mean"))
    if before is None or after is None or physics.ideal:
        return {}
    lost = before - after
    found = closer_slices(chip, physics, _shares(graph)) if lost >= LOST else None
    if found is None or found[1] < WORTH:
        return {}
    other, gain = found
    low, high = other.array.cell_range
    shift = other.macro.weights.slice_shift
    how = f"--set macro.weights.slice_shift={shift} --set 'array.cell_range=[{low}, {high}]'"
    text = f"lay slices of weights closer ({how}): cells err {gain:.1f} dB less; physics costs {100 * lost:.1f} points"
    return {"accuracy_change": f"{text} of accuracy"}


def _shares(graph: Graph) -> list[np.ndarray]:
    """Weights of every layer [outputs, rows] as shares of their column's largest."""
    found: list[np.ndarray] = []
    for node in graph.nodes:
        if is_weight_layer(graph, node):
            rows = np.abs(weight_rows(np.asarray(graph.constants[node.inputs[1]], np.float64), node))
            peak = rows.max(axis=1, keepdims=True, initial=0.0)
            if peak.any():
                found.append(rows / np.where(peak > 0, peak, 1.0))
    return found
