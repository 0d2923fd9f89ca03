"""Gains of the wtm2101 readout, with the output scales they go with, chosen by error on calibration data.

The weight step of a column is sy / (G * sx): the output's scale and the gain decide how fine the cells resolve its
weights.  Three errors are weighed per column: rounding and clipping of the output, rounding and clipping of the cells
(against the variance of the inputs; their mean is left to bias correction), and what the bias rows cannot hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.calibrate import Calibration, Range
from insitu.algo.equalize import OWN, Channels, behind
from insitu.algo.search import Steps, channel_steps
from insitu.arch.spec import Chip
from insitu.compiler.plan import LayerPlan
from insitu.compiler.quantize_layers import effective_weight, out_axis, weight_rows
from insitu.compiler.tile import balanced
from insitu.graph.graph import Graph, Node
from insitu.numeric.affine import Ints, QuantSpec
from insitu.numeric.readout import WTM_BIAS_UNIT

Floats = npt.NDArray[np.float64]
FEWEST = 2  # bias rows a layer may always take
BLOCKS = 4  # most column blocks with gains of their own
WORTH = 2.0  # a block more costs an array read for each vector, so it must halve the error
SCALES = tuple(2.0 ** (i / 4) for i in range(-8, 13))  # output scales tried, of the one that clips nothing
CELLS = 200  # steps to the largest cell of a layer whose gain is not known yet (they lie between 137 and 275)
JOIN_SHIFT = 2  # assumed shift k of joined row parts; the real one is chosen by clipping afterwards


@dataclass(frozen=True)
class Columns:
    """A weight layer as its columns see it: real weights [columns, rows], bias, driven inputs."""

    weights: Floats
    bias: Floats
    sx: float  # real size of one driven code
    zero: int  # driven code of real 0
    variance: Floats  # of each row's driven codes, [columns or 1, rows]
    shift: int
    offset: int
    parts: tuple[int, ...]
    gains: tuple[int, ...]
    cells: tuple[int, int]
    bias_rows: int
    live: npt.NDArray[np.bool_]  # rows whose input was ever other than 0, [columns or 1, rows]

    @property
    def bias_limit(self) -> int:
        """Largest bias the layer's bias rows hold."""
        return self.bias_rows * self.cells[1] * WTM_BIAS_UNIT

    @property
    def spread(self) -> Floats:
        """Variance of all driven codes of a column together."""
        return np.broadcast_to(self.variance.sum(axis=1), (len(self.weights),))

    @property
    def fixed(self) -> Floats:
        """What the bias rows must hold, in real numbers."""
        return self.bias - self.zero * self.sx * self.weights.sum(axis=1)

    def rounding(self, gain: int) -> float:
        """Variance of bias rounding and of joined parts, in squared output codes."""
        joined = (len(self.parts) - 1) / 12 / 4 ** min(JOIN_SHIFT, (gain // self.gains[0]).bit_length() - 1)
        return (WTM_BIAS_UNIT / gain) ** 2 / 12 + (joined if self.parts else 0.0)

    def error(self, sy: Floats, gain: int) -> Floats:
        """Mean square error per column from cells and bias rows at output scales `sy`."""
        sw = np.maximum(sy, 1e-300) / (gain * self.sx)
        q = np.clip(np.rint(self.weights / sw[:, None]), *self.cells)
        lost = (((q * sw[:, None] - self.weights) * self.sx) ** 2 * self.variance).sum(axis=1)
        total = self.bias / (self.sx * sw) - self.zero * q.sum(axis=1)
        over = np.maximum(np.abs(total) - self.bias_limit, 0) * self.sx * sw
        return lost + over**2 + self.rounding(gain) * sy**2

    def least_scale(self, gain: int) -> Floats:
        """The smallest output scale at which no cell and no bias row clips."""
        cells = np.where(self.live, np.abs(self.weights), 0.0).max(axis=1) * self.sx / self.cells[1]
        return gain * np.maximum(cells, np.abs(self.fixed) / self.bias_limit)

    def need(self, sy: Floats, gain: Ints) -> int:
        """Bias rows that hold every column's bias, as far as the layer may take them."""
        most = float((np.abs(self.fixed) * gain / sy).max()) / (self.cells[1] * WTM_BIAS_UNIT)
        return int(np.clip(np.ceil(most), 1, self.bias_rows))


def columns_of(
    graph: Graph, chip: Chip, node: Node, *, source: QuantSpec, seen: Calibration, bias_rows: int
) -> Columns:
    """A layer's columns for an input spec; codes of a ReLU are doubled, signed ones moved up by 128."""
    w = np.asarray(graph.constants[node.inputs[1]], np.float64)
    stats = seen.ranges[node.inputs[0]]
    offset = 128 if source.signed and stats.low < 0 else 0
    shift = 1 if source.signed and not offset else 0
    real, sx = effective_weight(w, source, node)
    rows = weight_rows(real, node)
    variance = _per_row(stats.var_of / np.asarray(source.scale) ** 2, node, w) * 4.0**shift
    lo, hi = chip.macro.readout.gain or (256, 8192)
    gains = tuple(lo << i for i in range((hi // lo).bit_length()))
    tall = rows.shape[1] > chip.array.rows
    return Columns(
        rows,
        np.asarray(graph.constants[node.inputs[2]], np.float64),
        sx / 2**shift,
        (source.zero_point << shift) + offset,
        variance,
        shift,
        offset,
        balanced(rows.shape[1], chip.array.rows) if tall else (),
        gains,
        chip.array.cell_range,
        bias_rows,
        _per_row(np.maximum(np.abs(stats.low_of), np.abs(stats.high_of)) > 0, node, w),
    )


def affordable(graph: Graph, chip: Chip, layers: Mapping[str, LayerPlan]) -> int:
    """Bias rows one layer may take so that all layers fit.

    The columns of an array share them, and where layers overlap about half can be used.  What is there is filled from
    below: layers that need few rows keep them.
    """
    sizes = {n.name: graph.constants[n.inputs[1]].shape[out_axis(n)] for n in graph.nodes if n.name in layers}
    room = chip.macro.bias_rows * chip.array.cols * chip.macros // 2
    for rows in range(chip.macro.bias_rows, FEWEST, -1):
        if sum(size * min(rows, layers[name].bias_rows) for name, size in sizes.items()) <= room:
            return rows
    return FEWEST


def _per_row(channels: npt.NDArray[Any], node: Node, w: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A number per input channel as one per row that a column multiplies, [columns or 1, rows]."""
    if node.op == "MatMul":
        return np.broadcast_to(channels, (w.shape[0],))[None]
    groups, (out, each), window = int(node.attr("group", 1)), w.shape[:2], int(np.prod(w.shape[2:]))
    rows = np.repeat(np.broadcast_to(channels, (groups * each,)).reshape(groups, each), window, axis=1)
    return rows if groups == 1 else rows[np.arange(out) // (out // groups)]


def free_scales(columns: Columns, channels: Channels) -> tuple[Floats, LayerPlan]:
    """Output scales per channel and one gain: errors here, and of the weights of the layers behind."""
    options: list[tuple[float, Floats, int]] = []
    for gain in columns.gains:
        least = columns.least_scale(gain)
        inner = columns.spread / gain**2 / 12 + columns.rounding(gain)
        trials = [np.maximum(channels.blend(share), least) for share in OWN]
        for sy in (*trials, np.full(len(least), trials[0].max())):
            cost = channels.cost(sy, inner=inner) + behind(channels, sy, limit=CELLS)
            options.append((cost, sy, gain))
    _, sy, gain = min(options, key=lambda o: o[0])
    return sy, _plan(columns, sy, np.full(len(sy), gain, np.int64))


def one_scale(columns: Columns, seen: Range, *, relu: bool) -> tuple[float, LayerPlan]:
    """One output scale for all columns, and gains by column block."""
    steps = channel_steps(seen, below=0 if relu else 128, above=127)
    natural, options = float(steps.natural.max()), list[tuple[float, float, Ints]]()
    for factor in SCALES:
        sy = natural * factor
        error, gain = _blocks(_errors(columns, np.full(len(columns.weights), sy), steps), columns.gains)
        options.append((error, sy, gain))
    _, sy, gain = min(options, key=lambda o: o[0])
    return sy, _plan(columns, np.full(len(gain), sy), gain)


def given_scale(columns: Columns, sy: float) -> LayerPlan:
    """Gains by column block for an output scale that other values decide."""
    flat = np.full(len(columns.weights), sy)
    _, gain = _blocks(_errors(columns, flat, None), columns.gains)
    return _plan(columns, flat, gain)


def _plan(columns: Columns, sy: Floats, gain: Ints) -> LayerPlan:
    plan = LayerPlan(gain=tuple(int(g) for g in gain), input_shift=columns.shift, input_offset=columns.offset)
    return replace(plan, parts=columns.parts, bias_rows=columns.need(sy, gain))


def _errors(columns: Columns, sy: Floats, steps: Steps | None) -> Floats:
    """Error of every gain and column, [gains, columns]."""
    own = sy**2 / 12 if steps is None else _stepped(steps, sy)
    return np.stack([columns.error(sy, g) for g in columns.gains]) + own


def _stepped(steps: Steps, sy: Floats) -> Floats:
    """What the output's own step costs each column; the mean where its channels are not the columns."""
    if len(steps.natural) == len(sy):
        return steps.cost(sy)
    return np.full(len(sy), steps.cost(np.full(len(steps.natural), sy.max())).mean())


def _blocks(errors: Floats, gains: tuple[int, ...]) -> tuple[float, Ints]:
    """(error, gain per column): as few contiguous blocks as come close to the best; dynamic program over columns."""
    best, chosen = _segments(errors, 1)
    for count in range(2, min(BLOCKS, errors.shape[1]) + 1):
        total, segments = _segments(errors, count)
        if total * WORTH >= best:
            break
        best, chosen = total, segments
    return best, np.asarray(gains, np.int64)[chosen]


def _one_or_two(errors: Floats, count: int) -> tuple[float, Ints]:
    """As `_segments`: the best gain before and after every column."""
    columns = errors.shape[1]
    before = np.zeros((errors.shape[0], columns + 1))
    np.cumsum(errors, axis=1, out=before[:, 1:])
    after = before[:, -1:] - before
    at = int(np.argmin(before.min(axis=0) + after.min(axis=0))) if count == 2 else 0
    first, second = int(np.argmin(before[:, at])), int(np.argmin(after[:, at]))
    return float(before[first, at] + after[second, at]), np.where(np.arange(columns) < at, first, second)


def _segments(errors: Floats, count: int) -> tuple[float, Ints]:
    """(error, gain index per column) with at most `count` blocks."""
    if count <= 2:  # nearly always where the search ends, and there sums up to a column say all
        return _one_or_two(errors, count)
    kinds, columns = errors.shape
    cost = np.full((count, kinds), np.inf)  # of the columns so far, by blocks used and gain of the last
    came: list[Ints] = []
    cost[0] = 0.0
    for column in range(columns):
        before, source = cost.copy(), np.tile(np.arange(kinds), (count, 1))
        if column:
            other = np.argmin(cost[:-1], axis=1)
            cheaper = cost[:-1].min(axis=1)[:, None] < before[1:]
            source[1:] = np.where(cheaper, other[:, None] - kinds, source[1:])  # below 0: from one block fewer
            before[1:] = np.where(cheaper, cost[:-1].min(axis=1)[:, None], before[1:])
        came.append(source)
        cost = before + errors[:, column]
    block, kind = np.unravel_index(int(np.argmin(cost)), cost.shape)
    total, out = float(cost[block, kind]), np.empty(columns, np.int64)
    for column in range(columns - 1, -1, -1):
        out[column] = kind
        step = int(came[column][block, kind])
        block, kind = (block - 1, step + kinds) if step < 0 else (block, step)
    return total, out
