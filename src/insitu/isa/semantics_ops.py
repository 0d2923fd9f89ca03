"""What each command computes, one element after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ProgramError
from insitu.isa.elements import element
from insitu.isa.host import run_host
from insitu.isa.loads import Loads
from insitu.isa.program import Binding, Command, Descriptor, Post, Program, Section, Symbol, Vector
from insitu.isa.semantics_numbers import NUMBERS
from insitu.isa.walk import accesses, operands
from insitu.numeric import vector
from insitu.numeric.affine import requantize
from insitu.numeric.functions import softmax_codes
from insitu.numeric.readout import adc_code, finer_step, wtm2101_code, wtm2101_join

Index = tuple[int, ...]


class Bytes(Protocol):
    """Memory by symbol and element."""

    def symbol(self, name: str) -> Symbol: ...
    def load(self, symbol: Symbol, index: int) -> Any: ...
    def store(self, symbol: Symbol, index: int, value: Any) -> None: ...


class Operand:
    """The memory behind a descriptor in one trip of its loops, addressed by index."""

    def __init__(self, memory: Bytes, descriptor: Descriptor, counters: Sequence[int]) -> None:
        self._memory = memory
        self._symbol = memory.symbol(descriptor.symbol)
        self._strides = descriptor.strides
        self._base = descriptor.offset + sum(c * s for c, s in zip(counters, descriptor.steps, strict=False))
        self._results: list[tuple[int, Any]] = []
        self.sizes: Index = tuple(int(n) for n in descriptor.sizes)

    def _at(self, index: Index) -> int:
        return self._base + sum(i * stride for i, stride in zip(index, self._strides, strict=True))

    def __getitem__(self, index: Index) -> Any:
        return self._memory.load(self._symbol, self._at(index))

    def __setitem__(self, index: Index, value: Any) -> None:
        self._results.append((self._at(index), value))

    @property
    def dtype(self) -> str:
        """NumPy's type of its elements."""
        kind = element(self._symbol.dtype)
        assert kind is not None, "memory is checked first"
        return kind.numpy

    def array(self) -> npt.NDArray[Any]:
        """All elements, in the shape of the descriptor."""
        values = [self[index] for index in self.indices()]
        return np.array(values, self.dtype).reshape(self.sizes)

    def write(self) -> None:
        """Put the results into memory, which happens after a command has read everything."""
        for at, value in self._results:
            self._memory.store(self._symbol, at, value)

    def indices(self) -> Iterator[Index]:
        """All indices, the last dimension fastest."""
        return positions(self.sizes)


class Machine:
    """A section with its weights as lists of integers."""

    def __init__(self, program: Program, section: Section, held: dict[str, Any]) -> None:
        self.section = section
        self.held = held  # values that only the host holds
        self._program = program
        self._lists: dict[str, list[Any]] = {}
        self.loads = Loads.of(section)
        macro: Mapping[str, Any] = program.chip.get("macro", {})
        drivers: Mapping[str, Any] = macro.get("input", {})
        self.moved: dict[int, int] = {}  # descriptor -> what SETD adds to its offset
        self.unsigned_bits = 0 if drivers.get("signed", True) else int(drivers.get("bits", 8))

    def descriptors(self, command: Command) -> Iterator[tuple[str, Descriptor]]:
        """The memory operands of a command by name."""
        for access in accesses(self.section, command):
            found = self.section.descriptors[access.descriptor]
            yield access.operand, replace(found, offset=found.offset + self.moved.get(access.descriptor, 0))

    def weight(self, name: str) -> list[Any]:
        """A weight as (nested) lists."""
        if name not in self._lists:
            self._lists[name] = self._program.weight(name).tolist()
        return self._lists[name]

    def setting(self, value: int | str, column: int) -> int:
        """A number, or the entry of a weight for a column."""
        if not isinstance(value, str):
            return int(value)
        entries = self._program.weight(value).ravel()
        return int(entries[column if len(entries) > 1 else 0])

    def binding(self, command: Command) -> Binding:
        """The binding a command names."""
        return self.section.bindings[_last(command, "binding")]

    def vector(self, command: Command) -> Vector:
        """The vector settings a command names."""
        return self.section.vectors[_last(command, "vector")]


def _last(command: Command, kind: str) -> int:
    return next(int(v) for o, v in zip(operands(command.op), command.args, strict=True) if o.kind == kind)


Named = Mapping[str, Operand]


def positions(sizes: Sequence[int]) -> Iterator[Index]:
    """All indices of an array of these sizes, the last dimension fastest."""
    return product(*(range(n) for n in sizes))


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
    if not machine.loads.readable(number := _last(command, "binding")):
        raise ProgramError(binding.label, f"binding {number} not loaded, or written over", "a WLOAD before the MVM")
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


def _exact_dot(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Any:
    """sum(a * b), exact, rounded once to their type."""
    with np.errstate(all="ignore"):
        found = vector.terms(a, b)
        return np.asarray(vector.exact_sum(found) if np.isfinite(found).all() else found.sum(), a.dtype)[()]


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
        for w_shift, digits in _digits(w[a:b], readout.slice_bits, _magnitude_digit):
            for x_shift, plane in _digits(x[a:b], readout.plane_bits, _twos_complement_digit):
                acc = np.array(_narrow(_dot(plane, digits)), np.int64)
                code = adc_code(acc, m, s, bits=readout.bits, signed=readout.signed)
                total += int(code) << (w_shift + x_shift + readout.finest - up)
    return total


Digit = Callable[[int, int, int, bool], int]


def _digits(values: Sequence[int], cut: Sequence[int], digit: Digit) -> list[tuple[int, list[int]]]:
    """[(shift, digits)], least significant first, for `cut` (bits, bits of a digit); no cut: the values themselves."""
    if not cut:
        return [(0, list(values))]
    bits, step = cut
    return [(at, [digit(v, at, step, at + step >= bits) for v in values]) for at in range(0, bits, step)]


def _magnitude_digit(value: int, at: int, width: int, top: bool) -> int:
    """Sign and magnitude, as a signed cell or a differential pair stores weights; the top digit takes what is left."""
    left = abs(value) >> at
    digit = left if top else left & (1 << width) - 1
    return -digit if value < 0 else digit


def _twos_complement_digit(value: int, at: int, width: int, top: bool) -> int:
    """Two's complement, as input planes are applied; the top digit carries the sign."""
    return value >> at if top else value >> at & (1 << width) - 1


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
            out[index] = _exact_dot(left[index[:-1]], right[(*index[:-2], slice(None), index[-1])])
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
    lut = np.array(machine.weight(settings.lut), np.int64).ravel()
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
    table = machine.weight(settings.lut)
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


def _load(machine: Machine, command: Command, named: Named) -> None:
    machine.loads.load(_last(command, "binding"))


EXECUTE: Mapping[str, Callable[[Machine, Command, Named], None]] = {
    "WLOAD": _load,
    "MVM": _mvm,
    "GEMV": _gemv,
    "MMA": _mma,
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
