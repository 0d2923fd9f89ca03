"""The vector unit's commands on numbers, and the host's: batched over samples and loop trips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.isa.host import run_host
from insitu.isa.program import Binding, Command, Host, Program, Section
from insitu.numeric import vector

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
        out[at] = source[at][:, index[at].astype(np.int64)]


NUMBERS: Mapping[str, Callable[[Numbers], None]] = {
    "V1": _unary, "V2": _binary, "SEL": _select, "RED": _reduce, "CVT": _convert, "GATHER": _gather,
}  # fmt: skip


def float_product(a: Array, b: Array) -> Array:
    """Two matrices of numbers, or stacks of them: sums exact, rounded once."""
    return vector.dot(a, b)


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
