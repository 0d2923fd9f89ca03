"""What each command computes, one element after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ProgramError
from insitu.isa.host import run_host
from insitu.isa.program import Binding, Command, Post, Readout, Vector
from insitu.isa.semantics_machine import Index, Machine, Named, Operand, operand_of, positions
from insitu.isa.semantics_numbers import NUMBERS
from insitu.isa.semantics_setup import SET_UP
from insitu.numeric import vector
from insitu.numeric.affine import requantize
from insitu.numeric.functions import softmax_codes
from insitu.numeric.readout import adc_code, finer_step, wtm2101_code, wtm2101_join


def finish(acc: int, post: Post, *, multiplier: int, shift: int) -> int:
    """A wide result as a code: post with its multiplier and shift looked up."""
    if abs(acc * multiplier) >= 1 << 63:
        raise ProgramError("post", f"{acc} * {multiplier}", "a product below 2**63")
    code = requantize(
        np.array(acc, np.int64),
        multiplier,
        shift,
        zero_point=post.zero_point,
        lo=post.lo,
        hi=post.hi,
        rounding=post.rounding,
    )
    return int(code)


# MVM


def _mvm(machine: Machine, command: Command, named: Named) -> None:
    out, source, binding = named["out"], named["in"], machine.binding(command)
    machine.need_weights(operand_of(command, "binding"))
    if np.dtype(out.dtype).kind == "f":
        _float_mvm(machine, binding, out, source)
        return
    weights = machine.weight(binding.weight)
    _every_position(machine, binding, out, source, weights)


def _gemv(machine: Machine, command: Command, named: Named) -> None:
    """As MVM, with the weights that memory holds."""
    binding, held = machine.binding(command), named["weights"]
    weights = [[held[(r, c)] for c in range(held.sizes[1])] for r in range(held.sizes[0])]
    _every_position(machine, binding, named["out"], named["in"], weights)


def _every_position(
    machine: Machine, binding: Binding, out: Operand, source: Operand, weights: Sequence[Sequence[int]]
) -> None:
    where = out.sizes[:-1]
    for position in positions(where):
        window = positions(source.sizes[len(where) :])
        x = [_driven(machine, binding, source[position + w], row) for row, w in enumerate(window)]
        for column in range(binding.cols):
            w = [row[column] for row in weights]
            out[(*position, column)] = column_code(machine, binding, x, w, column)


def _float_mvm(machine: Machine, binding: Binding, out: Operand, source: Operand) -> None:
    """Numbers in floating point: sums exact and rounded once, then the bias."""
    weights = np.array(machine.weight(binding.weight), source.dtype)
    bias = np.array(machine.weight(binding.bias), source.dtype) if binding.bias else None
    x = source.array().reshape(*out.sizes[:-1], binding.rows)
    for index in out.indices():
        value = _exact_dot(x[index[:-1]], weights[:, index[-1]])
        with np.errstate(all="ignore"):
            out[index] = value if bias is None else value + bias[index[-1]]


def _exact_dot(a: npt.NDArray[Any], b: npt.NDArray[Any], to: str = "") -> Any:
    """sum(a * b), exact, rounded once to their type or to `to`."""
    with np.errstate(all="ignore"):
        found = vector.terms(a, b)
        return np.asarray(vector.exact_sum(found) if np.isfinite(found).all() else found.sum(), to or a.dtype)[()]


def _driven(machine: Machine, binding: Binding, q: int, row: int) -> int:
    """The code on a row, zero point removed."""
    if binding.drive:
        turned = any(a <= row < b for a, b in zip(binding.negated[::2], binding.negated[1::2], strict=True))
        code = (q << binding.input_shift) + binding.input_offset
        return min(max(-code if turned else code, binding.drive[0]), binding.drive[1]) - binding.zero_in
    if machine.unsigned_bits:
        q = min(max((q << binding.input_shift) + binding.input_offset, 0), (1 << machine.unsigned_bits) - 1)
    return q - binding.zero_in


def column_code(machine: Machine, binding: Binding, x: Sequence[int], w: Sequence[int], column: int) -> int:
    """The code of one output column for driven inputs x and its weights w, by the binding's readout."""
    bias = machine.setting(binding.bias, column) if binding.bias else 0
    if len(w) != len(x):
        raise ProgramError(binding.label, f"{len(x)} inputs", f"{len(w)}, the rows of the binding")
    if binding.readout.kind == "wtm2101":
        return _wtm2101(machine, binding, x, w, bias, column)
    if binding.readout.kind == "adc":
        acc = _converted(machine, binding, x, w, column) + bias
    else:
        acc = _narrow(_dot(x, w) + bias)
    post = binding.post
    multiplier, shift = machine.setting(post.multiplier, column), machine.setting(post.shift, column)
    return finish(acc, post, multiplier=multiplier, shift=shift)


def _dot(x: Sequence[int], w: Sequence[int]) -> int:
    return sum(a * b for a, b in zip(x, w, strict=True))


def _narrow(acc: int) -> int:
    """A column sum, which must fit int32."""
    if not -(1 << 31) <= acc < 1 << 31:
        raise ProgramError("column sum", str(acc), "32 bits")
    return acc


def _bounds(binding: Binding) -> list[tuple[int, int]]:
    parts = binding.readout.parts or (0, binding.rows)
    return list(pairwise(parts))


def _wtm2101(machine: Machine, binding: Binding, x: Sequence[int], w: Sequence[int], bias: int, column: int) -> int:
    """One read, or several signed partial reads at gain / 2**k that are joined; the bias lies in the first part."""
    gain, k, post = machine.setting(binding.readout.gain, column), binding.readout.k, binding.post
    bounds = _bounds(binding)
    held, steps = binding.readout.biased or (0,), binding.readout.finer or (0,) * len(bounds)
    sums = [_narrow(_dot(x[a:b], w[a:b]) + (bias if i in held else 0)) for i, (a, b) in enumerate(bounds)]
    if len(bounds) == 1:
        return int(wtm2101_code(np.array(sums[0], np.int64), gain, lo=post.lo, hi=post.hi))
    total = 0
    for acc, up in zip(sums, steps, strict=True):
        total += int(wtm2101_code(np.array(acc, np.int64), gain >> (k + up))) << (binding.readout.finest - up)
    return int(wtm2101_join(np.array([total], np.int64), k + binding.readout.finest, lo=post.lo, hi=post.hi))


def _converted(machine: Machine, binding: Binding, x: Sequence[int], w: Sequence[int], column: int) -> int:
    """Codes of every part, slice and plane, added with their weights."""
    readout = binding.readout
    multiplier, shift = machine.setting(readout.multiplier, column), machine.setting(readout.shift, column)
    total, bounds = 0, _bounds(binding)
    steps = readout.finer or (0,) * len(bounds)
    for (a, b), up in zip(bounds, steps, strict=True):
        m, s = finer_step(multiplier, shift, up)
        for w_shift, digits in _slices(w[a:b], readout):
            for x_shift, plane in _planes(x[a:b], readout.plane_bits):
                acc = np.array(_narrow(_dot(plane, digits)), np.int64)
                code = adc_code(acc, m, s, bits=readout.bits, signed=readout.signed)
                total += int(code) << (w_shift + x_shift + readout.finest - up)
    return total


def _slices(weights: Sequence[int], readout: Readout) -> list[tuple[int, list[int]]]:
    """[(shift, digits)], least significant first, for slices of (bits, bits of a slice); none: the weights themselves.

    Sign and magnitude, as a differential pair stores them; with an offset column what a cell of w + 2**(bits - 1) holds
    less what that column's does.  Slices are full from the top down: the least takes what is left of the bits.  Slices
    `slice_shift` bits apart overlap: from the top down each takes the least that lets those below hold the rest.
    """
    if not readout.slice_bits:
        return [(0, list(weights))]
    (bits, step), apart = readout.slice_bits, readout.slice_shift
    middle = 1 << (bits - 1)
    offset = readout.encoding == "offset_column" and step < bits
    if apart and step < bits:
        return _overlapping(weights, count=-(-bits // step), most=(1 << step) - 1, apart=apart)
    found: list[tuple[int, list[int]]] = []
    end = bits
    while end > 0:
        at = max(end - step, 0)
        mask = (1 << end) - 1
        if offset:
            digits = [((w + middle & mask) >> at) - ((middle & mask) >> at) for w in weights]
        else:
            digits = [(-1 if w < 0 else 1) * ((abs(w) & mask) >> at) for w in weights]
        found.insert(0, (at, digits))
        end = at
    return found


def _overlapping(weights: Sequence[int], *, count: int, most: int, apart: int) -> list[tuple[int, list[int]]]:
    found: list[tuple[int, list[int]]] = []
    rest = [abs(w) for w in weights]
    for at in range(apart * (count - 1), -1, -apart):
        below = sum(most << lower for lower in range(0, at, apart))
        digits = [max(0, -((below - r) // (1 << at))) for r in rest]  # division rounds down, so this rounds up
        rest = [r - (d << at) for r, d in zip(rest, digits, strict=True)]
        found.insert(0, (at, [-d if w < 0 else d for d, w in zip(digits, weights, strict=True)]))
    return found


def _planes(inputs: Sequence[int], cut: Sequence[int]) -> list[tuple[int, list[int]]]:
    """[(shift, digits)] for `cut` (bits, bits of a plane): two's complement from the bottom up, the sign in the top."""
    if not cut:
        return [(0, list(inputs))]
    bits, step = cut
    mask = (1 << step) - 1
    return [(at, [x >> at if at + step >= bits else x >> at & mask for x in inputs]) for at in range(0, bits, step)]


# vector unit


def _finish_vector(settings: Vector, acc: int, named: Named, index: Index) -> int:
    post, multiplier, shift = settings.post, settings.post.multiplier, settings.post.shift
    if isinstance(multiplier, str) or isinstance(shift, str):
        raise ProgramError(settings.label, "a multiplier per column", "a number, outside MVM")
    if "multiplier" in named:
        multiplier = named["multiplier"][_broadcast(index, named["multiplier"].sizes)]
    if "shift" in named:
        shift = named["shift"][_broadcast(index, named["shift"].sizes)]
    return finish(acc, post, multiplier=multiplier, shift=shift)


def _broadcast(index: Index, sizes: Index) -> Index:
    """The index into an operand that repeats along dimensions of size 1, aligned at the last dimension."""
    tail = index[len(index) - len(sizes) :]
    return tuple(0 if n == 1 else i for i, n in zip(tail, sizes, strict=True))


def _same(named: Named, *names: str) -> None:
    sizes = [named[n].sizes for n in names]
    if len(set(sizes)) > 1:
        raise ProgramError(", ".join(names), f"sizes {sizes}", "equal sizes")


def _mma(machine: Machine, command: Command, named: Named) -> None:
    out, a, b, settings = named["out"], named["a"], named["b"], machine.vector(command)
    if np.dtype(out.dtype).kind == "f":
        left, right = a.array(), b.array()
        for index in out.indices():
            out[index] = _exact_dot(left[index[:-1]], right[(*index[:-2], slice(None), index[-1])], out.dtype)
        return
    for index in out.indices():
        *lead, m, n = index
        inner = range(a.sizes[-1])
        acc = sum((a[(*lead, m, k)] - settings.zero_a) * (b[(*lead, k, n)] - settings.zero_b) for k in inner)
        out[index] = _finish_vector(settings, _narrow(acc), named, index)


def _requantize(machine: Machine, command: Command, named: Named) -> None:
    out, source, settings = named["out"], named["in"], machine.vector(command)
    _same(named, "out", "in")
    for index in out.indices():
        out[index] = _finish_vector(settings, (source[index] - settings.zero_a) * settings.scale_a, named, index)


def _add(machine: Machine, command: Command, named: Named) -> None:
    out, a, b, settings = named["out"], named["a"], named["b"], machine.vector(command)
    _same(named, "out", "a", "b")
    for index in out.indices():
        acc = (a[index] - settings.zero_a) * settings.scale_a + (b[index] - settings.zero_b) * settings.scale_b
        out[index] = _finish_vector(settings, acc, named, index)


def _mul(machine: Machine, command: Command, named: Named) -> None:
    out, a, b, settings = named["out"], named["a"], named["b"], machine.vector(command)
    _same(named, "out", "a", "b")
    for index in out.indices():
        out[index] = _finish_vector(settings, (a[index] - settings.zero_a) * (b[index] - settings.zero_b), named, index)


def _max(machine: Machine, command: Command, named: Named) -> None:
    out, source, settings = named["out"], named["in"], machine.vector(command)
    for index in out.indices():
        window = positions(source.sizes[len(index) :])
        out[index] = _finish_vector(settings, max(source[index + w] for w in window), named, index)


def _sum(machine: Machine, command: Command, named: Named) -> None:
    out, source, settings = named["out"], named["in"], machine.vector(command)
    for index in out.indices():
        window = positions(source.sizes[len(index) :])
        acc = sum((source[index + w] - settings.zero_a) * settings.scale_a for w in window)
        out[index] = _finish_vector(settings, acc, named, index)


def _softmax(machine: Machine, command: Command, named: Named) -> None:
    out, source, settings = named["out"], named["in"], machine.vector(command)
    _same(named, "out", "in")
    lut = np.array(machine.table(settings), np.int64).ravel()
    post = settings.post
    for row in positions(out.sizes[:-1]):
        codes = np.array([source[(*row, i)] for i in range(out.sizes[-1])], np.int64)
        shares = softmax_codes(
            codes,
            lut,
            zero_point=post.zero_point,
            lo=post.lo,
            hi=post.hi,
            multiplier=int(post.multiplier),
            shift=int(post.shift),
        )
        for i, share in enumerate(shares.tolist()):
            out[(*row, i)] = share


def _lut(machine: Machine, command: Command, named: Named) -> None:
    out, source, settings = named["out"], named["in"], machine.vector(command)
    _same(named, "out", "in")
    table = machine.table(settings)
    for index in out.indices():
        entry = int(table[(source[index] - settings.zero_a) * settings.scale_a % len(table)])
        out[index] = min(max(entry, settings.post.lo), settings.post.hi)


# the host, and memory


def _host(machine: Machine, command: Command, named: Named) -> None:
    host = machine.section.hosts[int(command.args[0])]
    feeds: list[Any] = []
    for v in host.inputs:
        feeds.append(machine.held[v.name] if v.descriptor < 0 else named[v.name].array().reshape(v.shape))
    for value, found in zip(host.outputs, run_host(host.model, feeds), strict=True):
        if value.descriptor < 0:
            machine.held[value.name] = found
            continue
        out = named[value.name]
        flat = np.asarray(found, out.dtype).reshape(out.sizes)
        for index in out.indices():
            out[index] = flat[index].item()


def _fill(_: Machine, command: Command, named: Named) -> None:
    for index in named["out"].indices():
        named["out"][index] = int(command.args[-1])


def _copy(_: Machine, command: Command, named: Named) -> None:
    _same(named, "out", "in")
    for index in named["out"].indices():
        named["out"][index] = named["in"][index]


def _accumulate(_: Machine, command: Command, named: Named) -> None:
    _same(named, "out", "in")
    for index in named["out"].indices():
        named["out"][index] = named["out"][index] + named["in"][index]


EXECUTE: Mapping[str, Callable[[Machine, Command, Named], None]] = {
    **SET_UP,
    "MVM": _mvm,
    "GEMV": _gemv,
    "MMA": _mma,
    "AMM": _mma,
    "REQ": _requantize,
    "ADD": _add,
    "MUL": _mul,
    "MAX": _max,
    "SUM": _sum,
    "SOFTMAX": _softmax,
    "LUT": _lut,
    "FILL": _fill,
    "DMA": _copy,
    "HOST": _host,
    "ACC": _accumulate,
    **NUMBERS,
}
