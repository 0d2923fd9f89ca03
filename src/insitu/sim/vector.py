"""The vector unit's commands on numbers, and the host's: batched over samples and loop trips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ProgramError
from insitu.isa.host import run_host
from insitu.isa.program import Binding, Command, Host, Program, Section
from insitu.numeric import vector
from insitu.numeric.dynamic import dynamic_range, to_codes, to_numbers

Array = npt.NDArray[Any]
BLOCK = 1 << 22  # elements of a matrix that are widened at a time
View = Callable[[int], Array]  # operand number -> (samples, *trips, *sizes) elements


@dataclass(frozen=True)
class Numbers:
    """One command: its section, its operands as views, and how many axes lead (samples and trips)."""

    section: Section
    command: Command
    view: View
    lead: int


def _fn(use: Numbers) -> str:
    return use.section.vectors[int(use.command.args[-1])].fn


def _unary(use: Numbers) -> None:
    use.view(0)[...] = vector.unary(_fn(use), use.view(1))


def _binary(use: Numbers) -> None:
    use.view(0)[...] = vector.binary(_fn(use), use.view(1), use.view(2))


def _select(use: Numbers) -> None:
    use.view(0)[...] = np.where(use.view(1), use.view(2), use.view(3))


def _reduce(use: Numbers) -> None:
    out, source = use.view(0), use.view(1)
    out[...] = vector.fold(_fn(use), source, source.ndim - out.ndim)


def _convert(use: Numbers) -> None:
    out = use.view(0)
    out[...] = vector.convert(use.view(1), out.dtype)


def _gather(use: Numbers) -> None:
    out, source, index = (use.view(i) for i in range(3))
    lead = out.shape[: use.lead]
    for at in np.ndindex(lead):
        out[at] = source[at][:, _places(index[at], source.shape[-2])]


def _scatter(use: Numbers) -> None:
    out, source, index = (use.view(i) for i in range(3))
    values = source.copy()  # what is read is read before anything is written
    places = index.copy()
    for at in np.ndindex(out.shape[: use.lead]):
        for c, place in enumerate(_places(places[at], out.shape[-2]).tolist()):  # in order: the last of equals stays
            out[at][:, place] = values[at][:, c]


def _places(index: Array, count: int) -> npt.NDArray[np.int64]:
    """Indices from the front; ProgramError where one is outside."""
    wrong = index[(index < -count) | (index >= count)]
    if wrong.size:
        raise ProgramError("index", str(wrong.flat[0]), f"{-count} to {count - 1}")
    return np.where(index < 0, index + count, index).astype(np.int64)


def _to_codes(use: Numbers) -> None:
    out, x = use.view(0), use.view(1)
    out[...] = to_codes(x, *_beside(use, x), out.dtype)


def _to_numbers(use: Numbers) -> None:
    x = use.view(1)
    use.view(0)[...] = to_numbers(x, *_beside(use, x))


def _beside(use: Numbers, x: Array) -> tuple[Array, Array]:
    """Scale and zero with the dimensions they lack."""
    scale, zero = use.view(2), use.view(3)
    shape = (*scale.shape, *(1,) * (x.ndim - scale.ndim))
    return scale.reshape(shape), zero.reshape(shape)


def _dynamic(use: Numbers) -> None:
    out, scale, zero, x = (use.view(i) for i in range(4))
    found, offset = dynamic_range(x.reshape(*scale.shape, -1), out.dtype)
    shape = (*scale.shape, *(1,) * (x.ndim - scale.ndim))
    codes = to_codes(x, found.reshape(shape), offset.reshape(shape), out.dtype)
    out[...], scale[...], zero[...] = codes, found, offset


NUMBERS: Mapping[str, Callable[[Numbers], None]] = {
    "V1": _unary, "V2": _binary, "SEL": _select, "RED": _reduce, "CVT": _convert, "GATHER": _gather,
    "SCATTER": _scatter, "Q": _to_codes, "DQ": _to_numbers, "QDYN": _dynamic,
}  # fmt: skip


def float_product(a: Array, b: Array, to: npt.DTypeLike | None = None) -> Array:
    """Two matrices of numbers, or stacks of them: sums exact, rounded once to `to` (their own type without it)."""
    return vector.dot(a, b, to)


def bound_product(program: Program, binding: Binding, x: Array) -> Array:
    """Vectors [n, rows] of numbers through a binding of numbers: exact sums rounded once, then the bias."""
    weights = np.asarray(program.weight(binding.weight), x.dtype)
    out = np.empty((len(x), binding.cols), x.dtype)
    step = max(1, BLOCK // max(binding.rows, binding.cols))
    for start in range(0, len(x), step):
        out[start : start + step] = vector.dot(x[start : start + step], weights)
    if binding.bias:
        with np.errstate(all="ignore"):
            out += np.asarray(program.weight(binding.bias), x.dtype)
    return out


def run_host_command(host: Host, held: dict[str, list[Any]], view: View, samples: int) -> None:
    """One operator on the host, sample by sample; `view` gives the operands by descriptor."""
    reads = [None if v.descriptor < 0 else view(v.descriptor) for v in host.inputs]
    results: list[Sequence[Any]] = []
    for sample in range(samples):
        feeds = [
            held[v.name][sample] if read is None else read[sample].reshape(v.shape)
            for v, read in zip(host.inputs, reads, strict=True)
        ]
        results.append(run_host(host.model, feeds))
    for value, found in zip(host.outputs, zip(*results, strict=True), strict=True):
        if value.descriptor < 0:
            held[value.name] = list(found)
            continue
        out = view(value.descriptor)
        for sample, one in enumerate(found):
            out[sample] = np.asarray(one, out.dtype).reshape(out.shape[1:])
