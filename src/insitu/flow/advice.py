"""How a chip could be made otherwise so that physics costs a network less, where that is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from insitu.algo.cells import better_slices, gained
from insitu.algo.spare import copies_that_fit
from insitu.arch.spec import Chip
from insitu.base.metrics import Metric
from insitu.circuit.effects import Physics
from insitu.circuit.held import ahead_of_drift
from insitu.compiler.draft import is_weight_layer
from insitu.compiler.quantize_layers import weight_rows
from insitu.flow.optimize import with_procedures
from insitu.graph.graph import Graph

LOST, LOST_DB = 0.02, 6.0  # of accuracy, of closeness where no labels are: from there on a change is looked for
WORTH = 1.0  # decibels


def advice(
    graph: Graph, chip: Chip, physics: Physics, metrics: Mapping[str, Metric], *, plan: bool = False
) -> dict[str, str]:
    """A change for a quantized graph that physics costs much: {"accuracy_change": text}, or nothing.

    `physics` is at the time that the metrics are of, a run's first.  `plan`: a precision plan may still be searched;
    where no change of the chip is known to help, that is said, else training.
    """
    if physics.ideal or not (cost := _cost(metrics)):
        return {}
    tried = (way(graph, chip, physics) for way in (_slices, _spare, _ahead))
    gain, what = max((way for way in tried if way is not None), default=(0.0, ""))
    if gain >= WORTH:
        return {"accuracy_change": f"{what}: cells err {gain:.1f} dB less; physics costs {cost}"}
    way = "search a precision plan (--optimize accuracy)" if plan else "train with the chip's noise (insitu.nn.convert)"
    return {"accuracy_change": f"{way}: physics costs {cost}"}


def _slices(graph: Graph, chip: Chip, physics: Physics) -> tuple[float, str] | None:
    """(decibels, words) of slices of weights that lie closer, or further apart."""
    found = better_slices(chip, physics, [*_shares(graph).values()])
    if found is None:
        return None
    other, gain = found
    low, high = other.array.cell_range
    how = f"--set macro.weights.slice_shift={other.macro.weights.slice_shift} --set 'array.cell_range=[{low}, {high}]'"
    way = "closer" if high < chip.array.cell_range[1] else "further apart"
    return gain, f"lay slices of weights {way} ({how})"


def _spare(graph: Graph, chip: Chip, physics: Physics) -> tuple[float, str] | None:
    """(decibels, words) of copies in rows that layers leave empty."""
    if chip.calibration.spare_rows or chip.macro.readout.kind != "adc":
        return None
    layers, copies = _shares(graph), copies_that_fit(graph, chip)
    gain = gained(chip, chip, physics, [*layers.values()], [copies[name] for name in layers])
    return gain, "fill empty rows with copies (--set calibration.spare_rows=true)"


def _ahead(graph: Graph, chip: Chip, physics: Physics) -> tuple[float, str] | None:
    """(decibels, words) of levels programmed ahead of their drift."""
    other = with_procedures(chip, ("drift_ahead",))
    if chip.calibration.drift_ahead or not physics.time or not ahead_of_drift(other, physics):
        return None
    gain = gained(chip, other, physics, [*_shares(graph).values()])
    days = f"{other.calibration.drift_ahead / 86400.0:g}d"
    return gain, f"program levels ahead of their drift (--set calibration.drift_ahead={days})"


def _cost(metrics: Mapping[str, Metric]) -> str:
    """What physics costs in words; nothing where that is little, or not known."""
    known = {name: metric.value for name, metric in metrics.items()}
    before, after = known.get("accuracy_quantized"), known.get("accuracy_chip_mean")
    if before is not None and after is not None:
        return f"{100 * (before - after):.1f} points of accuracy" if before - after >= LOST else ""
    before, after = known.get("sqnr_db"), known.get("sqnr_chip_mean_db")
    if before is None or after is None or not before - after >= LOST_DB:
        return ""
    return f"{min(before, 99.0) - after:.1f} dB"


def _shares(graph: Graph) -> dict[str, np.ndarray]:
    """Weights of every layer [outputs, rows] as shares of their column's largest."""
    found: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        if is_weight_layer(graph, node):
            rows = np.abs(weight_rows(np.asarray(graph.constants[node.inputs[1]], np.float64), node))
            peak = rows.max(axis=1, keepdims=True, initial=0.0)
            if peak.any():
                found[node.name] = rows / np.where(peak > 0, peak, 1.0)
    return found
