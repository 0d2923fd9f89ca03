"""Range of a general ADC: the step whose rounding, clipping and noise, over all planes and slices, cost least."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from insitu.algo.vectors import evenly, in_groups, vectors_of
from insitu.arch.spec import Chip
from insitu.circuit.effects import Physics
from insitu.circuit.tile import read_noise_sd
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
SAMPLES = 128  # calibration samples whose column sums set a range
VECTORS, MOST_VECTORS = 256, 4096  # input vectors looked at, at least and at most
LOOKED_AT = 1 << 19  # numbers that these have together: shorter ones are more
KEPT, LEAST = 1 << 16, 64  # sums kept of each plane, slice and part; vectors of which all are
MOST_COLUMNS = 1024  # looked at, of a layer that is not in groups
MOST_PLACES = 7  # of steps below 1
BETWEEN = 129  # places between two codes of which errors are tabled
CONVERTER = Physics(("adc_noise",))


def seen_vectors(graph: Graph, data: Mapping[str, Array]) -> dict[str, Array]:
    """Some real vectors [vectors, channels, *kernel] that every weight layer multiplies.

    They are of samples from all over `data`, which may lie in some order of their own, such as one class after another.
    """
    few = {k: evenly(v, SAMPLES) for k, v in data.items()}
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
    """Vectors of some samples, every so many of those of all: the shorter they are, the more are kept in the end."""
    vectors = vectors_of(value, node, kernel=np.shape(graph.constants[node.inputs[1]])[2:], pad=0.0)
    each = len(vectors) // len(value)
    wanted = min(MOST_VECTORS, max(VECTORS, LOOKED_AT // max(vectors.rows, 1)))
    step = max(1, each * samples // wanted)
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
    parts = bounds if len(bounds) > 2 else ()
    weight = np.broadcast_to(np.square(np.asarray(scales) / max(scales)), (len(q),))
    if x.shape[1] == 1:
        q, weight = evenly(q, MOST_COLUMNS), evenly(weight, MOST_COLUMNS)
    return LayerPlan(weight_scale=scales, parts=parts, adc=_settings(_sums(x, q, bounds, chip), weight, chip))


def _sums(x: Ints, q: Ints, bounds: tuple[int, ...], chip: Chip) -> list[tuple[int, Array]]:
    """(binary weight, a sample of column sums [vectors, columns]) for every part, plane and slice."""
    macro, groups = chip.macro, x.shape[1]
    x = x[:: max(1, len(x) // max(LEAST, KEPT // len(q)))]
    each, out = len(q) // groups, list[tuple[int, Array]]()
    bits, step = macro.input.bits, macro.input.bits_per_pass
    for a, b in pairwise(bounds):
        planes = input_planes(x[..., a:b], bits=bits, step=step, signed=macro.input.signed)
        slices = sliced_codes(q[:, a:b], chip)
        for up_x, plane in planes:
            for up_w, digits in slices:
                columns = digits.reshape(groups, each, -1).transpose(0, 2, 1).astype(np.float64)
                acc = plane.transpose(1, 0, 2).astype(np.float64) @ columns
                out.append((up_x + up_w, acc.transpose(1, 0, 2).reshape(len(x), -1)))
    return out


def _settings(sums: list[tuple[int, Array]], weight: Array, chip: Chip) -> tuple[int, int]:
    """(M, S) of least expected error: of rounding, clipping and the converter's own noise.

    `weight` [columns] is what a squared error counts: sums of a column are in steps of its own.  Sums are whole
    numbers, which steps of 1, 1/2, 1/4 ... leave as they are: where sums do not fill a converter, whose noise is of
    codes, such steps make it matter less.  Of equals, 1 / 1 where every sum fits.
    """
    ends = adc_range(chip.macro.readout.bits, signed=bool(chip.macro.readout.signed))
    peak = max(float(np.abs(s).max(initial=1.0)) for _, s in sums)
    reach = [peak * share / ends[1] for share in SHRINK]
    whole = [2.0**-places for places in range(MOST_PLACES + 1) if 2.0**-places >= reach[-1]]
    inside = _squared_errors(float(read_noise_sd(0.0, chip=chip, physics=CONVERTER)))
    options: list[tuple[float, tuple[int, int]]] = []
    for step in (*whole, *(share for share in reach if share > 1.0)):
        multiplier, shift = _setting(step)
        real = 2.0**shift / multiplier
        cost = _expected([(up, s / real) for up, s in sums], inside, *ends) * real**2
        options.append((float(cost.mean(axis=0) @ weight), (multiplier, shift)))
    return min(options, key=lambda o: o[0])[1]


def _expected(sums: list[tuple[int, Array]], inside: Callable[[Array], Array], lo: int, hi: int) -> Array:
    """Expected square of the error of each output [vectors, columns], for sums in steps of the converter, in steps.

    What is clipped adds up, for an output that is large is so in all its planes and slices; the rest is noise to it.
    """
    missing, spread = np.zeros(sums[0][1].shape), np.zeros(sums[0][1].shape)
    for up, own in sums:
        clipped = np.clip(own, lo - 0.5, hi + 0.5)
        missing += 2.0**up * (clipped - own)
        spread += 4.0**up * inside(clipped)
    return missing**2 + spread


def _setting(step: float) -> tuple[int, int]:
    """(M, S) of a step, 2**S / M: as it is where it is a power of two, else M of 7 bits."""
    if step <= 1.0:
        return (round(1.0 / step), 0)
    shift = 7 + int(np.floor(np.log2(step)))
    return (max(1, int(np.rint(2.0**shift / step))), shift)


def _squared_errors(sd: float) -> Callable[[Array], Array]:
    """What a converter of noise `sd` makes of exact sums within its range, all in codes: the expected squared error.

    It depends on where between two codes a sum lies, by which it is tabled.
    """
    between = np.linspace(-0.5, 0.5, BETWEEN)
    codes = np.arange(-int(6 * sd) - 1, int(6 * sd) + 2)[:, None]
    below, above = ((codes - between + side) / max(sd, 1e-9) for side in (-0.5, 0.5))
    table = ((codes - between) ** 2 * (ndtr(above) - ndtr(below))).sum(axis=0)
    return lambda sums: np.interp(sums - np.rint(sums), between, table)
