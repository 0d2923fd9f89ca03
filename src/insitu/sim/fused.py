"""Matrix and elementwise commands straight from memory to memory, a few samples at a time, so that caches hold them.

Each function answers whether it did the command; what it does not take (other roundings, wide products, several row
parts, vectors that lie contiguous) goes the general way in insitu.sim.functional, with the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import lcm

import numpy as np

from insitu.isa.program import Post, Vector
from insitu.numeric.readout import adc_range, finer_step
from insitu.sim.bound import BoundMatrix
from insitu.sim.drive import drive_signed, line_of_drive
from insitu.sim.lines import Array, Ints, Lines, across, disjoint, gathers, same
from insitu.sim.macro import MacroModel
from insitu.sim.narrow import finish
from insitu.sim.noisy import Settings, settings, stream
from insitu.sim.products import FLOAT64_EXACT
from insitu.sim.reads import Reads, ideal_total, noisy_codes

Drive = tuple[np.float32, np.float32, np.float32, np.float32]  # of line_of_drive
PATCHES = 1 << 19  # elements of gathered rows at a time
IDEAL_PATCHES = 1 << 16  # the same where one kernel takes them through all steps: they stay in the second-level cache
PANELS = 1 << 16  # weights that the second-level cache holds beside a map
WHOLE = 1 << 62  # products that int64 holds


def ideal_product(bound: BoundMatrix, source: Lines, target: Lines, samples: int) -> bool:
    """Exact sums of a binding, or the codes of one ideal read, from lines to lines in one call of a kernel."""
    from insitu.sim.direct.kernels import LANES, direct_lines
    from insitu.sim.kernels import ideal_lines

    converter = None if bound.analog or bound.binding.negated else _converter(bound)
    if converter is None or not (across(source) if converter[0] < 2 else gathers(source)):
        return False
    if not disjoint(source, target) or source.vectors != target.vectors:
        return False
    post = bound.binding.post
    matrix = bound.ideal[0] if converter[0] < 2 or converter[1] else next(iter(bound.slices[0]))[1]
    blocks = np.array(_blocks(source, target, len(source.rows), samples, IDEAL_PATCHES), np.int64)
    given = (bound.bias, bound.multiplier, bound.shift, float(post.zero_point), float(post.lo), float(post.hi))
    drive, (low, high) = line_of_drive(bound.binding), source.reach()
    dense = high - low <= len(source.rows) * source.vectors and matrix.data.size <= PANELS
    if source.step == 1 and source.length >= LANES and dense:
        direct_lines(blocks, source.fields, low, high, drive, matrix.panels, converter, given, target.fields)
    else:
        ideal_lines(blocks, source.fields, drive, matrix.data.T, converter, given, target.fields)
    return True


Converter = tuple[int, int, float, float, float, int]


def _converter(bound: BoundMatrix) -> Converter | None:
    """(kind, factor, scale, lo, hi, shift) of kernels.ideal_lines where one product in float32 is all it takes."""
    post, readout = bound.binding.post, bound.binding.readout
    if len(bound.parts) > 1 or bound.ideal[0].data.dtype != np.float32:
        return None
    if readout.kind == "wtm2101":
        return 1, 0, 0.0, 0.0, 0.0, 0
    if readout.kind == "exact":
        exact = _exact_post(post, bound.ideal[0].bound, int(bound.multiplier.max(initial=1)))
        return (0, 0, 0.0, 0.0, 0.0, 0) if exact else None
    if not bound.narrow or bound.exact_scale is None or bound.total_type != np.int32:
        return None
    (factor,), finer = bound.lossless, sum(readout.finer)  # of the one part
    up = readout.finest - finer
    if factor is not None:
        return 2, factor, 0.0, 0.0, 0.0, up
    bits, step = readout.plane_bits
    multiplier, shift = finer_step(int(readout.multiplier), int(readout.shift), finer)
    for up_w, matrix in bound.slices[0]:
        if step < bits or len(bound.slices[0]) > 1 or matrix.bound * multiplier >= FLOAT64_EXACT:
            return None
        lo, hi = adc_range(readout.bits, signed=readout.signed)
        return 2, 0, float(multiplier) * 2.0**-shift, float(lo), float(hi), up_w + up
    return None


def _blocks(
    source: Lines, target: Lines, rows: int, samples: int, patches: int = PATCHES
) -> list[tuple[int, int, int, int]]:  # fmt: skip
    """(first sample, samples, first vector, end of vectors): as many samples as fit, else parts of one sample."""
    vectors = source.vectors
    together = max(1, patches // (rows * vectors))
    if together > 1 or rows * vectors <= 2 * patches:
        return [(i, min(together, samples - i), 0, vectors) for i in range(0, samples, together)]
    whole = lcm(source.length, target.length)
    size = max(whole, patches // rows // whole * whole)
    return [(i, 1, at, min(at + size, vectors)) for i in range(samples) for at in range(0, vectors, size)]


def _patches(
    source: Lines,
    drive: tuple[np.float32, np.float32, np.float32, np.float32],
    first: int,
    count: int,
    begin: int,
    end: int,
) -> Array:
    """Driven rows [rows, samples * vectors] of `count` samples from `first` on, vectors begin .. end of each."""
    from insitu.sim.kernels import gather

    runs = source.runs[begin // source.length : end // source.length]
    patches = np.empty((len(source.rows), count * (end - begin)), np.float32)
    gather(
        source.memory, source.flip, source.start, source.pitch, source.rows, runs, source.length, source.step,
        first, count, *drive, patches,
    )  # fmt: skip
    return patches


def converted_product(
    model: MacroModel, bound: BoundMatrix, source: Lines, target: Lines, samples: int, reads: Reads
) -> bool:
    """Reads of a converter, ideal ones and those under physics, from lines to lines; also noisy ones of `wtm2101`."""
    binding = bound.binding
    if binding.readout.kind == "exact" or binding.negated or not (bound.analog or (bound.narrow and bound.exact_scale)):
        return False
    if not gathers(source) or not disjoint(source, target) or source.vectors != target.vectors:
        return False
    drive = line_of_drive(binding)
    signed = drive_signed(binding, np.int8 if source.flip else np.uint8)
    given = settings(model, bound, signed=signed)
    for first, count, begin, end in _blocks(source, target, len(source.rows), samples):
        patches = _patches(source, drive, first, count, begin, end)
        out = target.runs[begin // target.length : end // target.length]
        if bound.analog:
            now = reads.after(first * source.vectors + begin)
            _store_noisy(_noisy(model, bound, patches, now, given, signed=signed), target, out, first, count)
        else:
            _store_sums(ideal_total(bound, patches, signed=signed, across=True), bound, target, out, first, count)
    return True


def _noisy(
    model: MacroModel, bound: BoundMatrix, patches: Array, reads: Reads, given: Settings | None, *, signed: bool
) -> Array:  # fmt: skip
    """Output codes [vectors, columns] of driven rows [rows, vectors]; `given` as insitu.sim.noisy has it."""
    from insitu.sim.kernels import noisy_across

    out = np.empty((patches.shape[1], bound.binding.cols), np.int32)
    if given is not None:
        noisy_across(patches, out, stream(model, bound, reads.first, reads.sequence), *given[1:])
        return out
    codes = noisy_codes(model, bound, patches.T, reads, signed=signed)
    return finish(bound, codes, out) if bound.binding.readout.kind == "adc" else codes


def _store_noisy(codes: Array, target: Lines, runs: Ints, first: int, count: int) -> None:
    """Output codes [vectors, columns] to their place."""
    from insitu.sim.kernels import scatter

    scatter(
        np.ascontiguousarray(codes, np.int32), target.memory, target.start, target.pitch, target.rows, runs,
        target.length, target.step, first, count,
    )  # fmt: skip


def _store_sums(total: Array, bound: BoundMatrix, target: Lines, runs: Ints, first: int, count: int) -> None:
    """Sums of codes [columns, vectors], requantized, to their place."""
    from insitu.sim.kernels import store_lines

    post = bound.binding.post
    store_lines(
        total, bound.bias, bound.multiplier, bound.shift, 0, float(post.zero_point), float(post.lo), float(post.hi),
        target.memory, target.start, target.pitch, target.rows, runs, target.length, target.step, first, count,
    )  # fmt: skip


def _exact_post(post: Post, bound: int, multiplier: int) -> bool:
    """Whether float64 requantizes sums below `bound` without rounding before the one that is asked for."""
    return post.rounding == "half_even" and bound * multiplier < FLOAT64_EXACT


def elementwise(
    op: str, settings: Vector, a: Lines, b: Lines, out: Lines, samples: int, *, table: Array | None = None
) -> bool:
    """ADD, MUL or (b of no weight) REQ of codes, from lines to lines.

    `table` holds the multipliers of one sample's elements where the settings have a descriptor of them.
    """
    ready = combined(op, settings, a, b, out, samples, table=table)
    if ready is not None:
        ready()
    return ready is not None


def combined(
    op: str, settings: Vector, a: Lines, b: Lines, out: Lines, samples: int, *, table: Array | None = None
) -> Callable[[], None] | None:  # fmt: skip
    """`elementwise` as a function to be called again and again; none where it cannot do the command."""
    from insitu.sim.kernels import combine, combine_each, combine_whole

    post = settings.post
    if not all(disjoint(line, out) or same(line, out) for line in (a, b)):
        return None
    if (settings.multiplier is None) != (table is None) or settings.shift is not None:
        return None
    if not isinstance(post.multiplier, int) or not isinstance(post.shift, int):
        return None
    largest = post.multiplier if table is None else int(table.max(initial=0))
    reach = [(2 if line.flip == 0 else 1) * (line.flip or 1 << (8 * line.memory.itemsize - 1)) for line in (a, b)]
    reach = [r + abs(z) for r, z in zip(reach, (settings.zero_a, settings.zero_b), strict=True)]
    product = op == "MUL"
    most = reach[0] * reach[1] if product else reach[0] * abs(settings.scale_a) + reach[1] * abs(settings.scale_b)
    if not _exact_post(post, most, largest):
        if table is not None or post.rounding != "half_even" or most * post.multiplier >= WHOLE:
            return None
        whole = (
            a.memory, a.flip, a.start, a.pitch, a.runs, a.step, settings.zero_a, int(settings.scale_a),
            b.memory, b.flip, b.start, b.pitch, b.runs, b.step, settings.zero_b, int(settings.scale_b),
            product, post.multiplier, post.shift, post.zero_point, post.lo, post.hi,
            out.memory, out.start, out.pitch, out.runs, out.step, out.length, samples,
        )  # fmt: skip
        return lambda: combine_whole(*whole)
    scale = 2.0**-post.shift * (post.multiplier if table is None else table.reshape(len(out.runs), out.length))
    given = (
        a.memory, a.flip, a.start, a.pitch, a.runs, a.step, settings.zero_a, float(settings.scale_a),
        b.memory, b.flip, b.start, b.pitch, b.runs, b.step, settings.zero_b, float(settings.scale_b),
        product, scale, float(post.zero_point), float(post.lo), float(post.hi),
        out.memory, out.start, out.pitch, out.runs, out.step, out.length, samples,
    )  # fmt: skip
    return (lambda: combine(*given)) if table is None else (lambda: combine_each(*given))
