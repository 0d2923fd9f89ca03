"""Matrix and elementwise commands straight from memory to memory, a few samples at a time, so that caches hold them.

Each function answers whether it did the command; what it does not take (other roundings, wide products, several row
parts, vectors that lie contiguous) goes the general way in insitu.sim.functional, with the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import lcm

import numpy as np

from insitu.isa.program import Post, Vector
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
WHOLE = 1 << 62  # products that int64 holds


def ideal_product(bound: BoundMatrix, source: Lines, target: Lines, samples: int) -> bool:
    """Exact sums of a binding read by an ideal `exact` or `wtm2101` readout, from lines to lines."""
    from insitu.sim.kernels import store_lines

    binding, matrix = bound.binding, bound.ideal[0]
    post, kind = binding.post, binding.readout.kind
    if (
        kind == "adc"
        or len(bound.parts) > 1
        or binding.negated
        or matrix.data.dtype != np.float32
        or bound.analog
        or not across(source)
    ):
        return False
    if kind == "exact" and not _exact_post(post, matrix.bound, int(bound.multiplier.max(initial=1))):
        return False
    if not disjoint(source, target) or source.vectors != target.vectors:
        return False
    drive = line_of_drive(bound.binding)
    weights = matrix.data.T
    for first, count, begin, end in _blocks(source, target, len(source.rows), samples):
        patches = _patches(source, drive, first, count, begin, end)
        acc = weights @ patches
        out = target.runs[begin // target.length : end // target.length]
        store_lines(
            acc, bound.bias, bound.multiplier, bound.shift, int(kind == "wtm2101"), float(post.zero_point),
            float(post.lo), float(post.hi), target.memory, target.start, target.pitch, target.rows, out,
            target.length, target.step, first, count,
        )  # fmt: skip
    return True


def _blocks(source: Lines, target: Lines, rows: int, samples: int) -> list[tuple[int, int, int, int]]:
    """(first sample, samples, first vector, end of vectors): as many samples as fit, else parts of one sample."""
    vectors = source.vectors
    together = max(1, PATCHES // (rows * vectors))
    if together > 1 or rows * vectors <= 2 * PATCHES:
        return [(i, min(together, samples - i), 0, vectors) for i in range(0, samples, together)]
    whole = lcm(source.length, target.length)
    size = max(whole, PATCHES // rows // whole * whole)
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


def elementwise(op: str, settings: Vector, a: Lines, b: Lines, out: Lines, samples: int) -> bool:
    """ADD, MUL or (b of no weight) REQ of codes, from lines to lines."""
    ready = combined(op, settings, a, b, out, samples)
    if ready is not None:
        ready()
    return ready is not None


def combined(
    op: str, settings: Vector, a: Lines, b: Lines, out: Lines, samples: int
) -> Callable[[], None] | None:  # fmt: skip
    """`elementwise` as a function to be called again and again; none where it cannot do the command."""
    from insitu.sim.kernels import combine, combine_whole

    post = settings.post
    if not all(disjoint(line, out) or same(line, out) for line in (a, b)):
        return None
    if settings.multiplier is not None or settings.shift is not None or not isinstance(post.multiplier, int):
        return None
    if not isinstance(post.shift, int):
        return None
    reach = [(2 if line.flip == 0 else 1) * (line.flip or 1 << (8 * line.memory.itemsize - 1)) for line in (a, b)]
    reach = [r + abs(z) for r, z in zip(reach, (settings.zero_a, settings.zero_b), strict=True)]
    product = op == "MUL"
    most = reach[0] * reach[1] if product else reach[0] * abs(settings.scale_a) + reach[1] * abs(settings.scale_b)
    if not _exact_post(post, most, post.multiplier):
        if post.rounding != "half_even" or most * post.multiplier >= WHOLE:
            return None
        whole = (
            a.memory, a.flip, a.start, a.pitch, a.runs, a.step, settings.zero_a, int(settings.scale_a),
            b.memory, b.flip, b.start, b.pitch, b.runs, b.step, settings.zero_b, int(settings.scale_b),
            product, post.multiplier, post.shift, post.zero_point, post.lo, post.hi,
            out.memory, out.start, out.pitch, out.runs, out.step, out.length, samples,
        )  # fmt: skip
        return lambda: combine_whole(*whole)
    given = (
        a.memory, a.flip, a.start, a.pitch, a.runs, a.step, settings.zero_a, float(settings.scale_a),
        b.memory, b.flip, b.start, b.pitch, b.runs, b.step, settings.zero_b, float(settings.scale_b),
        product, float(post.multiplier) * 2.0**-post.shift, float(post.zero_point), float(post.lo), float(post.hi),
        out.memory, out.start, out.pitch, out.runs, out.step, out.length, samples,
    )  # fmt: skip
    return lambda: combine(*given)
