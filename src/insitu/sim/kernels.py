"""numba kernels of the functional simulator: wide results to codes in one pass over memory."""

# pyright: basic, reportMissingImports=false
# numba infers the types of its kernels from the arrays they are called with.

from __future__ import annotations

import numba as nb
import numpy as np
from numba.extending import overload

from insitu.circuit.kernels import WTM2101, read

F = np.float32
TOGETHER = 192  # vectors of a noisy read at a time: sums and codes stay in the cache
FLOOR, TRUNC, HALF_UP, HALF_AWAY, HALF_EVEN, TRUNC_Q2 = range(6)
MODES = {
    "floor": FLOOR, "trunc": TRUNC, "half_up": HALF_UP, "half_away": HALF_AWAY, "half_even": HALF_EVEN,
    "trunc_q2": TRUNC_Q2,
}  # fmt: skip


@nb.njit(cache=True, inline="always")
def _round_shift(value, shift, mode):
    if shift == 0:
        return value
    quotient = value >> shift
    rest = value - (quotient << shift)
    if mode == FLOOR or rest == 0:
        return quotient
    if mode == TRUNC:
        return quotient + 1 if value < 0 else quotient
    half = 1 << (shift - 1)
    if mode == TRUNC_Q2:  # half up, of a value cut to two fractional bits toward zero
        quarter = rest >> (shift - 2) if shift > 1 else rest << (2 - shift)
        if value < 0 and shift > 1 and rest & ((1 << (shift - 2)) - 1):
            quarter += 1
        return quotient + (quarter >= 2)
    if rest > half:
        return quotient + 1
    if rest < half:
        return quotient
    if mode == HALF_UP or (mode == HALF_AWAY and value > 0) or (mode == HALF_EVEN and quotient & 1):
        return quotient + 1
    return quotient


@nb.njit(cache=True, nogil=True)
def narrow(acc, bias, multiplier, shift, mode, zero, lo, hi, out):
    """out[i, c] = clip(round((acc[i, c] + bias[c]) * multiplier[c] / 2**shift[c]) + zero, lo, hi)."""
    for i in range(acc.shape[0]):
        for c in range(acc.shape[1]):
            value = (nb.int64(acc[i, c]) + bias[c]) * multiplier[c]
            code = _round_shift(value, shift[c], mode) + zero
            out[i, c] = min(max(code, lo), hi)


@nb.njit(cache=True, nogil=True)
def narrow_exact(acc, bias, scale, zero, lo, hi, out):
    """As `narrow` to the nearest even, where float64 holds (acc + bias) * multiplier; scale = multiplier / 2**shift."""
    for i in range(acc.shape[0]):
        _narrow_row(acc[i], bias, scale, zero, lo, hi, out[i])


@nb.njit(cache=True, inline="always")
def _narrow_row(acc, bias, scale, zero, lo, hi, out):
    for c in range(acc.shape[0]):
        out[c] = nb.int32(min(max(np.rint((nb.float64(acc[c]) + bias[c]) * scale[c]) + zero, lo), hi))


@nb.njit(cache=True, nogil=True)
def trunc_q2(acc, bias, shift, lo, hi, out):
    """out[i, c] = clip((trunc(4 (acc + bias) / 2**shift) + 2) >> 2, lo, hi): the wtm2101 readout, shift >= 2."""
    for i in range(acc.shape[0]):
        for c in range(acc.shape[1]):
            fine = _round_shift(nb.int64(acc[i, c]) + bias[c], shift[c] - 2, TRUNC)
            out[i, c] = min(max((fine + 2) >> 2, lo), hi)


@nb.njit(cache=True, nogil=True)
def add_codes(acc, multiplier, shift, lo, hi, up, total):
    """total[i, c] += clip(half_even(acc[i, c] * multiplier / 2**shift), lo, hi) << up: an ideal converter's codes."""
    for i in range(acc.shape[0]):
        for c in range(acc.shape[1]):
            code = _round_shift(nb.int64(acc[i, c]) * multiplier, shift, HALF_EVEN)
            total[i, c] += min(max(code, lo), hi) << up


@nb.njit(cache=True, nogil=True)
def drive_rows(codes, scale, add, lo, hi, out):
    """out[v, r] = clip(codes[v, r] * scale + add, lo, hi) in float32."""
    for v in range(codes.shape[0]):
        for r in range(codes.shape[1]):
            out[v, r] = min(max(nb.float32(codes[v, r]) * scale + add, lo), hi)


@nb.njit(cache=True, nogil=True)
def noisy_rows(codes, out, stream, drive, reads, post):
    """Output codes [vectors, columns] of stored codes [vectors, rows]: insitu.sim.noisy, a block of vectors at a time.

    stream[0] numbers the first vector.  Readout WTM2101 gives output codes as they are, ADC sums to be requantized:
    post is what `narrow_exact` takes, then what `narrow` takes; a scale of no columns asks for the latter.
    """
    bounds, own = reads[0], stream.copy()
    widest = np.diff(bounds).max()
    scratch = np.empty(min(TOGETHER, codes.shape[0]) * widest, np.float32)
    for at in range(0, codes.shape[0], TOGETHER):
        end = min(at + TOGETHER, codes.shape[0])
        total = np.zeros((end - at, out.shape[1]), np.int32)
        own[0] = stream[0] + at
        for index in range(bounds.shape[0] - 1):
            rows = bounds[index + 1] - bounds[index]
            part = scratch[: (end - at) * rows].reshape(end - at, rows)
            drive_rows(codes[at:end, bounds[index] : bounds[index + 1]], drive[0], drive[1], drive[2], drive[3], part)
            _add_part(part, index, own, reads, total)
        _finish(total, reads, post, out[at:end])


@nb.njit(cache=True, nogil=True)
def noisy_across(patches, out, stream, reads, post):
    """`noisy_rows` of driven rows patches [rows, vectors], all at once."""
    bounds = reads[0]
    total = np.zeros((patches.shape[1], out.shape[1]), np.int32)
    for index in range(bounds.shape[0] - 1):
        _add_part(patches[bounds[index] : bounds[index + 1]].T, index, stream.copy(), reads, total)
    _finish(total, reads, post, out)


@nb.njit(cache=True, nogil=True)
def _finish(total, reads, post, out):
    if reads[11] == WTM2101:
        out[:] = total
    elif post[1].shape[0] > 0:
        narrow_exact(total, post[0], post[1], post[2], post[3], post[4], out)
    else:
        narrow(total, post[5], post[6], post[7], post[8], post[9], post[10], post[11], out)


def _flat(x):
    """All elements of a contiguous array in the order of memory."""
    return x.ravel(order="K")


@overload(_flat)
def _flat_compiled(x):
    return (lambda x: x.reshape(x.size)) if x.layout == "C" else (lambda x: x.T.reshape(x.size))


@nb.njit(cache=True, nogil=True)
def _add_part(x, index, stream, reads, total):
    """Add the codes of one row part, x [vectors, rows] of either layout."""
    bounds, planes, masks, weights, spread, grain, alike, tables, slope, names, shifts, kind, lo, hi, convert = reads
    places = (bounds[index], (bounds[index] + index + 1) // 2)  # as insitu.sim.bound packs them
    plane = x if masks[0] == 0 else np.empty_like(x)
    for number in range(planes.shape[0]):
        if masks[0] != 0:
            digits(_flat(x), planes[number], masks[number], _flat(plane))
        for k in range(weights.shape[0]):
            stream[2] = names[index, k] | number << 4
            up, table = planes[number] + shifts[index, k], tables[index, k]
            noise = (not alike[index, k], grain[index, k], table[0], table[1], table[2], slope[index, k], table[3])
            read(convert, plane, weights[k], spread[k], places, *noise, stream, kind, lo, hi, up, total)


@nb.njit(cache=True, nogil=True)
def add_pair(acc, width, scale, lo, hi, up_low, up_high, total):
    """As `add_codes` of flat sums, where float64 holds sum * multiplier; scale = multiplier / 2**shift.

    Where width > 0 an element is low + high * 2**width, |low| < 2**(width - 1): the sums of two planes.
    """
    half = nb.int32(1) << nb.int32(width - 1) if width > 0 else nb.int32(0)
    for i in range(acc.shape[0]):
        both = nb.int32(acc[i])
        low = both
        if width > 0:
            high = (both + half) >> nb.int32(width)
            low = both - (high << nb.int32(width))
            code = min(max(np.rint(nb.float64(high) * scale), lo), hi)
            total[i] += nb.int32(code) << up_high
        code = min(max(np.rint(nb.float64(low) * scale), lo), hi)
        total[i] += nb.int32(code) << up_low


@nb.njit(cache=True, nogil=True)
def digits(x, shift, mask, out):
    """out[i] = (x[i] >> shift) & mask for whole numbers in float32; mask -1 keeps the sign.  Flat arrays."""
    for i in range(x.shape[0]):
        out[i] = nb.float32((nb.int32(x[i]) >> nb.int32(shift)) & nb.int32(mask))


# commands on lines of memory (insitu.sim.lines)
#
# Memory comes as unsigned words; flip is the sign bit of a signed type, else 0: code = (word ^ flip) - flip.


@nb.njit(cache=True, nogil=True)
def gather(memory, flip, start, pitch, rows, runs, length, step, first, samples, scale, add, lo, hi, out):
    """out[r, v] = clip(code * scale + add, lo, hi) in float32.

    Vectors v count samples first .. first + samples, then runs, then elements of a run.
    """
    plain = step == 1 and scale == F(1.0) and lo < F(-1e30) and hi > F(1e30)
    for r in range(rows.shape[0]):
        at = 0
        for s in range(first, first + samples):
            base = start + s * pitch + rows[r]
            for j in range(runs.shape[0]):
                line = out[r, at : at + length]
                here = base + runs[j]
                if plain:
                    _cast(memory[here : here + length], flip, add - nb.float32(flip), line)
                else:
                    for i in range(length):
                        code = (nb.int32(memory[here + i * step]) ^ flip) - flip
                        line[i] = min(max(nb.float32(code) * scale + add, lo), hi)
                at += length


@nb.njit(cache=True, inline="always")
def _cast(words, flip, add, line):
    for i in range(line.shape[0]):
        line[i] = nb.float32(nb.int32(words[i]) ^ flip) + add


@nb.njit(cache=True, nogil=True)
def store_lines(
    acc, bias, multiplier, shift, kind, zero, lo, hi, memory, start, pitch, columns, runs, length, step, first, samples
):
    """Column sums acc [columns, vectors], exact integers, to codes in memory: the inverse walk of `gather`.

    kind 0: clip(half_even((acc + bias) * multiplier / 2**shift) + zero, lo, hi); the product is below 2**53, so that
    float64 holds it.  kind 1: the wtm2101 readout with gain 2**shift.
    """
    values = np.empty(length, np.int32)
    for c in range(columns.shape[0]):
        add = nb.float64(bias[c])
        scale = nb.float64(multiplier[c]) * 2.0 ** -nb.float64(shift[c])
        at = 0
        for s in range(first, first + samples):
            base = start + s * pitch + columns[c]
            for j in range(runs.shape[0]):
                here = base + runs[j]
                if kind == 0:
                    _requantized(acc[c, at : at + length], add, scale, zero, lo, hi, values)
                else:
                    _truncated(acc[c, at : at + length], add, scale, lo, hi, values)
                if step == 1:
                    _write(values, memory[here : here + length])
                else:
                    for i in range(length):
                        memory[here + i * step] = values[i]
                at += length


@nb.njit(cache=True, nogil=True)
def ideal_lines(blocks, source, drive, weights, converter, post, target):
    """Products of whole numbers that float32 holds, from lines to lines: `gather`, product, codes, `store_lines`.

    blocks [n, 4]: first sample, samples, first vector, end of vectors; weights [columns, rows].  source and target are
    the fields of Lines.  converter (kind, codes per unit of the sum or 0, scale, lo, hi, shift): kinds of
    `store_lines`, and 2 for the codes of a converter, requantized as kind 0.
    """
    memory, flip, start, pitch, rows, runs, length, step = source
    scale, add, low, high = drive
    columns = target[4].shape[0]
    vectors = (blocks[:, 1] * (blocks[:, 3] - blocks[:, 2])).max()
    patches, sums = np.empty(rows.shape[0] * vectors, np.float32), np.empty(columns * vectors, np.float32)
    for i in range(blocks.shape[0]):
        first, samples, begin, end = blocks[i]
        count = samples * (end - begin)
        x = patches[: rows.shape[0] * count].reshape(rows.shape[0], count)
        acc = sums[: columns * count].reshape(columns, count)
        here = runs[begin // length : end // length]
        gather(memory, flip, start, pitch, rows, here, length, step, first, samples, scale, add, low, high, x)
        np.dot(weights, x, acc)
        store_ideal(acc, converter, post, target, first, samples, begin, end)


@nb.njit(cache=True, nogil=True)
def store_ideal(acc, converter, post, target, first, samples, begin, end):
    """Sums [columns, vectors] of whole numbers through a converter to output codes: the end of `ideal_lines`."""
    out, _, start, pitch, columns, runs, length, step = target
    kind, factor, scale, lo, hi, up = converter
    bias, multiplier, shift, zero, least, most = post
    there = runs[begin // length : end // length]
    if kind < 2:
        store_lines(
            acc, bias, multiplier, shift, kind, zero, least, most, out, start, pitch, columns, there, length, step,
            first, samples,
        )  # fmt: skip
        return
    total, sums = np.empty(acc.shape, np.int32), acc.reshape(acc.size)
    codes = total.reshape(acc.size)
    if factor > 0:
        for v in range(sums.shape[0]):
            codes[v] = (nb.int32(sums[v]) * factor) << up
    else:
        for v in range(sums.shape[0]):
            codes[v] = nb.int32(min(max(np.rint(nb.float64(sums[v]) * scale), lo), hi)) << up
    store_lines(
        total, bias, multiplier, shift, 0, zero, least, most, out, start, pitch, columns, there, length, step, first,
        samples,
    )  # fmt: skip


@nb.njit(cache=True, nogil=True)
def scatter(codes, memory, start, pitch, columns, runs, length, step, first, samples):
    """Codes [vectors, columns] to their places in memory, vectors as `gather` counts them."""
    at = 0
    for s in range(first, first + samples):
        base = start + s * pitch
        for j in range(runs.shape[0]):
            for c in range(columns.shape[0]):
                here = base + columns[c] + runs[j]
                for i in range(length):
                    memory[here + i * step] = codes[at + i, c]
            at += length


@nb.njit(cache=True, inline="always")
def _requantized(acc, add, scale, zero, lo, hi, values):
    for i in range(acc.shape[0]):
        values[i] = nb.int32(min(max(np.rint((nb.float64(acc[i]) + add) * scale) + zero, lo), hi))


@nb.njit(cache=True, inline="always")
def _truncated(acc, add, scale, lo, hi, values):
    for i in range(acc.shape[0]):
        fine = np.trunc((nb.float64(acc[i]) + add) * (4.0 * scale))
        values[i] = nb.int32(min(max(np.floor((fine + 2.0) * 0.25), lo), hi))


@nb.njit(cache=True, inline="always")
def _write(values, memory):
    for i in range(memory.shape[0]):
        memory[i] = values[i]


@nb.njit(cache=True, inline="always")
def _joined(left, right, product, scale_a, scale_b):
    """The product of two codes, or their weighed sum, in float64."""
    if product:
        return nb.float64(left) * nb.float64(right)
    return nb.float64(left) * scale_a + nb.float64(right) * scale_b


@nb.njit(cache=True, nogil=True)
def combine(
    a, flip_a, start_a, pitch_a, runs_a, step_a, zero_a, scale_a,
    b, flip_b, start_b, pitch_b, runs_b, step_b, zero_b, scale_b,
    product, scale, zero, lo, hi, out, start, pitch, runs, step, length, samples,
):  # fmt: skip
    """Codes clip(half_even(x * scale) + zero, lo, hi); x = a' * scale_a + b' * scale_b, or a' * b' where `product`.

    a', b' are codes less their zero points.  scale is multiplier / 2**shift; x times the multiplier is below 2**53.
    """
    values = np.empty(length, np.int32)
    for s in range(samples):
        for j in range(runs.shape[0]):
            at_a, at_b = start_a + s * pitch_a + runs_a[j], start_b + s * pitch_b + runs_b[j]
            here = start + s * pitch + runs[j]
            for i in range(length):
                left = (nb.int32(a[at_a + i * step_a]) ^ flip_a) - flip_a - zero_a
                right = (nb.int32(b[at_b + i * step_b]) ^ flip_b) - flip_b - zero_b
                x = _joined(left, right, product, scale_a, scale_b)
                values[i] = nb.int32(min(max(np.rint(x * scale) + zero, lo), hi))
            if step == 1:
                _write(values, out[here : here + length])
            else:
                for i in range(length):
                    out[here + i * step] = values[i]


@nb.njit(cache=True, nogil=True)
def combine_each(
    a, flip_a, start_a, pitch_a, runs_a, step_a, zero_a, scale_a,
    b, flip_b, start_b, pitch_b, runs_b, step_b, zero_b, scale_b,
    product, scales, zero, lo, hi, out, start, pitch, runs, step, length, samples,
):  # fmt: skip
    """As `combine`, with a scale of its own for each element of a sample: scales[run, element]."""
    for s in range(samples):
        for j in range(runs.shape[0]):
            at_a, at_b = start_a + s * pitch_a + runs_a[j], start_b + s * pitch_b + runs_b[j]
            here = start + s * pitch + runs[j]
            for i in range(length):
                left = (nb.int32(a[at_a + i * step_a]) ^ flip_a) - flip_a - zero_a
                right = (nb.int32(b[at_b + i * step_b]) ^ flip_b) - flip_b - zero_b
                x = _joined(left, right, product, scale_a, scale_b)
                out[here + i * step] = nb.int32(min(max(np.rint(x * scales[j, i]) + zero, lo), hi))


@nb.njit(cache=True, nogil=True)
def combine_whole(
    a, flip_a, start_a, pitch_a, runs_a, step_a, zero_a, scale_a,
    b, flip_b, start_b, pitch_b, runs_b, step_b, zero_b, scale_b,
    product, multiplier, shift, zero, lo, hi, out, start, pitch, runs, step, length, samples,
):  # fmt: skip
    """As `combine`, in whole numbers: for products that float64 would round."""
    for s in range(samples):
        for j in range(runs.shape[0]):
            at_a, at_b = start_a + s * pitch_a + runs_a[j], start_b + s * pitch_b + runs_b[j]
            here = start + s * pitch + runs[j]
            for i in range(length):
                left = (nb.int64(a[at_a + i * step_a]) ^ flip_a) - flip_a - zero_a
                right = (nb.int64(b[at_b + i * step_b]) ^ flip_b) - flip_b - zero_b
                x = left * right if product else left * scale_a + right * scale_b
                code = _round_shift(x * multiplier, shift, HALF_EVEN) + zero
                out[here + i * step] = min(max(code, lo), hi)


@nb.njit(cache=True, nogil=True)
def softmax_rows(x, table, zero, lo, hi, multiplier, shift, out):
    """insitu.numeric.functions.softmax_codes of rows x [rows, n] of codes."""
    last = table.shape[0] - 1
    for r in range(x.shape[0]):
        top = nb.int64(x[r, 0])
        for i in range(x.shape[1]):
            top = max(top, nb.int64(x[r, i]))
        total = nb.int64(0)
        for i in range(x.shape[1]):
            total += table[min(top - nb.int64(x[r, i]), last)]
        whole = total << shift
        for i in range(x.shape[1]):
            e = table[min(top - nb.int64(x[r, i]), last)]
            code = ((e << 9) * multiplier + whole) // (2 * whole) + zero
            out[r, i] = min(max(code, lo), hi)
