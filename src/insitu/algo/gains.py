"""Gains of the wtm2101 readout and ranges of a general ADC, chosen by error on calibration data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.calibrate import Calibration
from insitu.arch.spec import Chip
from insitu.compiler.plan import LayerPlan
from insitu.compiler.quantize import effective_weight, out_axis, slice_bits, weight_magnitude_bits
from insitu.compiler.tile import balanced
from insitu.graph.graph import Graph, Node
from insitu.graph.ops.mvm import patches
from insitu.numeric.affine import Ints, QuantSpec, quantize
from insitu.numeric.readout import WTM_BIAS_UNIT, wtm2101_code
from insitu.numeric.slicing import input_planes, slice_weights

Array = npt.NDArray[Any]
CLIPPED = 1e-4  # share of partial codes that may clip (DESIGN 2)


def wtm_layer(graph: Graph, chip: Chip, node: Node, values: Mapping[str, QuantSpec], seen: Calibration) -> LayerPlan:
    """Input shift and gain with the least weight error, then row parts where the layer is taller than a region."""
    source, out = values[node.inputs[0]], values[node.output]
    offset = 128 if source.signed and seen.ranges[node.inputs[0]].low < 0 else 0
    shifts = (1, 0) if source.signed and offset == 0 else (0,)
    w = np.asarray(graph.constants[node.inputs[1]], np.float64)
    bias = np.asarray(graph.constants[node.inputs[2]], np.float64)
    real, sx = effective_weight(w, source, node)
    rows = np.moveaxis(real, out_axis(node), 0).reshape(w.shape[out_axis(node)], -1)
    trials = [_gains(rows, bias, chip, sx=sx / 2**k, zero=(source.zero_point << k) + offset, out=out) + (k,) for k in shifts]
    cost, gain, k = min(trials, key=lambda t: t[0])
    del cost
    plan = LayerPlan(gain=tuple(int(g) for g in gain), input_shift=k, input_offset=offset)
    tall = rows.shape[1] > chip.array.rows
    return _with_parts(graph, chip, node, values, seen, plan) if tall else plan


def _gains(rows: Array, bias: Array, chip: Chip, *, sx: float, zero: int, out: QuantSpec) -> tuple[float, Ints]:
    """(weight error, one gain for the layer): the largest gain uses most of the cells' range but clips the largest."""
    lo, hi = chip.macro.readout.gain or (256, 8192)
    cell_lo, cell_hi = chip.array.cell_range
    limit = chip.macro.bias_rows * cell_hi * WTM_BIAS_UNIT
    sy = np.broadcast_to(np.asarray(out.scale), (len(rows),))
    gains = [lo << i for i in range((hi // lo).bit_length())]
    best: tuple[float, Ints] = (np.inf, np.full(len(rows), lo, np.int64))
    for g in gains:
        sw = (sy / (g * sx))[:, None]
        q = np.clip(np.rint(rows / sw), cell_lo, cell_hi)
        total = bias / (sx * sw[:, 0]) - zero * q.sum(axis=1)
        lost = np.maximum(np.abs(total) - limit, 0) * sx * sw[:, 0]
        cost = float(((q * sw - rows) ** 2).sum() + (lost**2).sum())
        if cost < best[0]:
            best = (cost, np.full(len(rows), g, np.int64))
    return best


def _driven(graph: Graph, node: Node, values: Mapping[str, QuantSpec], seen: Calibration, plan: LayerPlan, *, unsigned: bool) -> Ints:
    """Input codes of the layer's vectors [vectors, groups, rows] on the samples kept in full."""
    spec = values[node.inputs[0]]
    q = quantize(seen.inputs[node.inputs[0]], spec)
    if unsigned:
        q = np.clip((q << plan.input_shift) + plan.input_offset, 0, 255)
    if node.op == "MatMul":
        return q.reshape(-1, 1, q.shape[-1])
    w = graph.constants[node.inputs[1]]
    zero = (spec.zero_point << plan.input_shift) + plan.input_offset if unsigned else spec.zero_point
    windows = patches(q, node, kernel=w.shape[2:], pad_value=zero)
    groups = int(node.attr("group", 1))
    lead = windows.ndim - (w.ndim - 1)
    return windows.reshape(int(np.prod(windows.shape[:lead])), groups, -1)


def _with_parts(graph: Graph, chip: Chip, node: Node, values: Mapping[str, QuantSpec], seen: Calibration, plan: LayerPlan) -> LayerPlan:
    """Row parts and the largest k for which fewer than 0.01 % of the partial codes clip."""
    from dataclasses import replace

    x = _driven(graph, node, values, seen, plan, unsigned=True)[:, 0]
    bounds = balanced(x.shape[1], chip.array.rows)
    w = np.asarray(graph.constants[node.inputs[1]], np.float64)
    real, sx = effective_weight(w, values[node.inputs[0]], node)
    rows = np.moveaxis(real, out_axis(node), 0).reshape(w.shape[out_axis(node)], -1)
    gain = np.asarray(plan.gain, np.int64)
    sw = np.broadcast_to(np.asarray(values[node.output].scale), gain.shape) / (gain * sx / 2**plan.input_shift)
    q = np.clip(np.rint(rows / sw[:, None]), *chip.array.cell_range).astype(np.int64)
    zero = (values[node.inputs[0]].zero_point << plan.input_shift) + plan.input_offset
    bias = np.asarray(graph.constants[node.inputs[2]], np.float64) / (sx / 2**plan.input_shift * sw) - zero * q.sum(axis=1)
    x = x[:: max(1, len(x) // 4096)]
    chosen = 0
    for k in (3, 2, 1, 0):
        if int(gain.min()) >> k < 256:
            continue
        clipped = total = 0
        for i, (a, b) in enumerate(zip(bounds, bounds[1:], strict=False)):
            acc = x[:, a:b] @ q[:, a:b].T + (np.rint(bias).astype(np.int64) if i == 0 else 0)
            codes = wtm2101_code(acc, gain >> k, lo=-(1 << 30), hi=1 << 30)
            clipped += int(((codes < -128) | (codes > 127)).sum())
            total += codes.size
        if clipped < CLIPPED * total:
            chosen = k
            break
    return replace(plan, parts=bounds, k=chosen)


def adc_range_of(
    graph: Graph, chip: Chip, node: Node, values: Mapping[str, QuantSpec], seen: Calibration, scales: tuple[float, ...]
) -> LayerPlan:
    """The converter's range: the largest sum any part, plane and slice shows on calibration vectors, rounded up."""
    x = _driven(graph, node, values, seen, LayerPlan(), unsigned=False)
    w = np.asarray(graph.constants[node.inputs[1]], np.float64)
    axis = out_axis(node)
    rows = np.moveaxis(effective_weight(w, values[node.inputs[0]], node)[0], axis, 0).reshape(w.shape[axis], -1)
    q = np.rint(rows / np.asarray(scales)[:, None]).astype(np.int64)
    bounds = balanced(x.shape[2], chip.array.rows)
    peak = _peak_sum(x[:: max(1, len(x) // 1024)], q, bounds, chip)
    high = (1 << (chip.macro.readout.bits - (1 if chip.macro.readout.signed else 0))) - 1
    parts = bounds if len(bounds) > 2 else ()
    if peak <= high:
        return LayerPlan(weight_scale=scales, parts=parts)
    shift = int(np.floor(np.log2(255 * peak / high)))
    return LayerPlan(weight_scale=scales, parts=parts, adc=(max(1, int((1 << shift) * high / peak)), shift))


def _peak_sum(x: Ints, q: Ints, bounds: tuple[int, ...], chip: Chip) -> int:
    groups = x.shape[1]
    each = len(q) // groups
    peak = 1
    for a, b in zip(bounds, bounds[1:], strict=False):
        planes = input_planes(x[..., a:b], bits=chip.macro.input.bits, step=chip.macro.input.bits_per_pass, signed=chip.macro.input.signed)
        slices = slice_weights(q[:, a:b], bits=weight_magnitude_bits(chip), step=slice_bits(chip))
        for _, plane in planes:
            for _, digits in slices:
                for g in range(groups):
                    acc = plane[:, g].astype(np.float64) @ digits[g * each : (g + 1) * each].T.astype(np.float64)
                    peak = max(peak, int(np.abs(acc).max(initial=0)))
    return peak
