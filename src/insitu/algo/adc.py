"""Range of a general ADC: the step whose rounding and clipping, over all planes and slices, cost least."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.algo.vectors import in_groups, vectors_of
from insitu.arch.spec import Chip
from insitu.compiler.draft import is_weight_layer
from insitu.compiler.plan import LayerPlan
from insitu.compiler.quantize_layers import effective_weight, sliced_codes, weight_limit, weight_rows
from insitu.compiler.tile import balanced
from insitu.graph.graph import Graph, Node
from insitu.graph.passes import Passes
from insitu.numeric.affine import Ints, QuantSpec, quantize
from insitu.numeric.readout import adc_range
from insitu.numeric.slicing import input_planes

Array = npt.NDArray[Any]
SHRINK = tuple(2.0 ** (-i / 4) for i in range(13))  # ranges tried, of the largest sum
SAMPLES = 8  # calibration samples whose column sums set a range
VECTORS = 256  # input vectors looked at
KEPT = 4096  # sums kept of each plane, slice and part


def seen_vectors(graph: Graph, data: Mapping[str, Array]) -> dict[str, Array]:
    """Some real vectors [vectors, channels, *kernel] that every weight layer multiplies, on a few samples of `data`."""
    few = {k: v[:SAMPLES] for k, v in data.items()}
    readers: dict[str, list[Node]] = {}
    for node in (n for n in graph.nodes if is_weight_layer(graph, n)):
        readers.setdefault(node.inputs[0], []).append(node)
    passes = Passes(graph, [v for v in readers if v not in graph.inputs])
    samples, found = len(next(iter(few.values()))), dict[str, list[Array]]()
    for piece in passes.pieces(samples):
        block = {k: v[piece] for k, v in few.items()}
        for name, value in (*block.items(), *passes.values(block)):
            for node in readers.get(name, ()):
                found.setdefault(node.name, []).append(_some(graph, node, value, samples, piece.start))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _some(graph: Graph, node: Node, value: Array, samples: int, first: int) -> Array:
    """Vectors of some samples, every so many of those of all, so that VECTORS or a few more are kept in the end."""
    vectors = vectors_of(value, node, kernel=np.shape(graph.constants[node.inputs[1]])[2:], pad=0.0)
    each = len(vectors) // len(value)
    step = max(1, each * samples // VECTORS)
    return vectors.at(np.arange(-(first * each) % step, len(vectors), step))


def adc_layer(
    graph: Graph, chip: Chip, node: Node, *, source: QuantSpec, real: Array, scales: tuple[float, ...]
) -> LayerPlan:
    """The converter's settings for a layer that multiplies real vectors `real` [vectors, channels, *kernel]."""
    w = np.asarray(graph.constants[node.inputs[1]], np.float64)
    rows = weight_rows(effective_weight(w, source, node)[0], node)
    limit = weight_limit(chip)
    q = np.clip(np.rint(rows / np.asarray(scales)[:, None]), -limit, limit).astype(np.int64)
    x = in_groups(quantize(real, source), 1, 1 if node.op == "MatMul" else int(node.attr("group", 1)))
    bounds = balanced(x.shape[2], chip.array.rows)
    sums = _sums(x, q, bounds, chip)
    parts = bounds if len(bounds) > 2 else ()
    return LayerPlan(weight_scale=scales, parts=parts, adc=_settings(sums, chip))


def _sums(x: Ints, q: Ints, bounds: tuple[int, ...], chip: Chip) -> list[tuple[int, Array]]:
    """(binary weight, a sample of column sums) for every part, plane and slice."""
    macro, groups = chip.macro, x.shape[1]
    each, out = len(q) // groups, list[tuple[int, Array]]()
    bits, step = macro.input.bits, macro.input.bits_per_pass
    for a, b in pairwise(bounds):
        planes = input_planes(x[..., a:b], bits=bits, step=step, signed=macro.input.signed)
        slices = sliced_codes(q[:, a:b], chip)
        for up_x, plane in planes:
            for up_w, digits in slices:
                columns = digits.reshape(groups, each, -1).transpose(0, 2, 1).astype(np.float64)
                acc = (plane.transpose(1, 0, 2).astype(np.float64) @ columns).reshape(-1)
                extremes = np.array([acc.min(initial=0.0), acc.max(initial=0.0)])
                out.append((up_x + up_w, np.concatenate([extremes, acc[:: max(1, len(acc) // KEPT)]])))
    return out


def _settings(sums: list[tuple[int, Array]], chip: Chip) -> tuple[int, int]:
    """(M, S) of least error; 1 / 1 where every sum fits the converter."""
    lo, hi = adc_range(chip.macro.readout.bits, signed=bool(chip.macro.readout.signed))
    peak = max(float(np.abs(s).max(initial=1.0)) for _, s in sums)
    if peak <= hi:
        return (1, 0)
    options: list[tuple[float, tuple[int, int]]] = []
    for share in SHRINK:
        step = max(peak * share / hi, 1.0)
        shift = 7 + int(np.floor(np.log2(step)))
        multiplier = max(1, int(np.rint(2.0**shift / step)))
        real = 2.0**shift / multiplier
        cost = sum(4.0**up * float(np.mean((np.clip(np.rint(s / real), lo, hi) * real - s) ** 2)) for up, s in sums)
        options.append((cost, (multiplier, shift)))
    return min(options, key=lambda o: o[0])[1]
