"""What the commands on numbers compute, one element after the other: functions, choices, moves by index, and codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np

from insitu.base.errors import ProgramError
from insitu.isa.program import Command
from insitu.isa.semantics_machine import Machine, Named, Operand
from insitu.numeric import vector
from insitu.numeric.dynamic import dynamic_range, to_codes, to_numbers


def _function(machine: Machine, command: Command, named: Named) -> None:
    """V1 and V2, one element after the other."""
    out, fn = named["out"], machine.vector(command).fn
    sources = [named[n] for n in ("in", "a", "b") if n in named]
    for index in out.indices():
        values = [np.array([s[index]], s.dtype) for s in sources]
        result = vector.unary(fn, *values) if len(values) == 1 else vector.binary(fn, *values)
        out[index] = result[0].item()


def _select(_: Machine, command: Command, named: Named) -> None:
    for index in named["out"].indices():
        named["out"][index] = named["a" if named["choice"][index] else "b"][index]


def _reduced(machine: Machine, command: Command, named: Named) -> None:
    out, source, fn = named["out"], named["in"], machine.vector(command).fn
    for index in out.indices():
        window = [source[index + w] for w in product(*map(range, source.sizes[len(index) :]))]
        out[index] = vector.fold(fn, np.array([window], source.dtype), 1)[0].item()


def _convert(_: Machine, command: Command, named: Named) -> None:
    out, source = named["out"], named["in"]
    for index in out.indices():
        out[index] = vector.convert(np.array([source[index]], source.dtype), out.dtype)[0].item()


def _pick(_: Machine, command: Command, named: Named) -> None:
    out, source, places = named["out"], named["in"], named["index"]
    for o, c, i in out.indices():
        out[(o, c, i)] = source[(o, _place(places, c, source.sizes[1]), i)]


def _put(_: Machine, command: Command, named: Named) -> None:
    out, source, places = named["out"], named["in"], named["index"]
    for c in range(source.sizes[1]):
        at = _place(places, c, out.sizes[1])
        for o, i in product(range(source.sizes[0]), range(source.sizes[2])):
            out[(o, at, i)] = source[(o, c, i)]


def _place(places: Operand, c: int, count: int) -> int:
    """The c-th index, from the front."""
    at = int(places[(c,)])
    if not -count <= at < count:
        raise ProgramError("index", str(at), f"{-count} to {count - 1}")
    return at + count if at < 0 else at


# numbers and codes


def _to_codes(_: Machine, command: Command, named: Named) -> None:
    out, source = named["out"], named["in"]
    for index in out.indices():
        x, scale, zero = (np.array([v], t) for v, t in _scaled(named, index, source))
        out[index] = int(to_codes(x, scale, zero, out.dtype)[0])


def _to_numbers(_: Machine, command: Command, named: Named) -> None:
    out, source = named["out"], named["in"]
    for index in out.indices():
        code, scale, zero = (np.array([v], t) for v, t in _scaled(named, index, source))
        out[index] = float(to_numbers(code, scale, zero)[0])


def _scaled(named: Named, index: tuple[int, ...], source: Operand) -> list[tuple[float, str]]:
    """The element of `in`, its scale and its zero, each with its type."""
    scale, zero = named["scale"], named["zero"]
    lead = index[: len(scale.sizes)]
    return [(source[index], source.dtype), (scale[lead], scale.dtype), (zero[lead], zero.dtype)]


def _dynamic(_: Machine, command: Command, named: Named) -> None:
    out, scale, zero, source = (named[n] for n in ("out", "scale", "zero", "in"))
    for lead in scale.indices():
        rest = list(product(*map(range, source.sizes[len(lead) :])))
        x = np.array([source[(*lead, *r)] for r in rest], np.float32)
        found, offset = dynamic_range(x[None], out.dtype)
        scale[lead], zero[lead] = float(found[0]), int(offset[0])
        for r, code in zip(rest, to_codes(x, found, offset, out.dtype).tolist(), strict=True):
            out[(*lead, *r)] = code


NUMBERS: Mapping[str, Callable[[Machine, Command, Named], None]] = {
    "V1": _function,
    "V2": _function,
    "SEL": _select,
    "RED": _reduced,
    "CVT": _convert,
    "GATHER": _pick,
    "SCATTER": _put,
    "Q": _to_codes,
    "DQ": _to_numbers,
    "QDYN": _dynamic,
}
