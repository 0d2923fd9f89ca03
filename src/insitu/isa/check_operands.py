"""Static check of operands: that sizes agree and results fit their elements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from insitu.isa.elements import Element, element
from insitu.isa.fault import Fault, command_name, core_name
from insitu.isa.program import Binding, Command, Descriptor, Post, Program, Section, Size, Symbol, Vector
from insitu.isa.walk import nest, operands
from insitu.numeric.vector import BINARY, FOLD, UNARY, result_dtype

Sizes = tuple[Size, ...]


@dataclass(frozen=True)
class _Use:
    """A command with its operands looked up by name."""

    where: str
    command: Command
    sizes: Mapping[str, Sizes]
    elements: Mapping[str, Element]
    vector: Vector
    binding: Binding | None
    tables: Mapping[str, Sizes]


def operand_faults(program: Program) -> Iterator[Fault]:
    """Faults of sizes and element types (V, X) and of vector settings (B7)."""
    symbols = {s.name: s for s in program.symbols}
    for section in program.sections:
        yield from _vector_faults(program, section)
        seen: set[Command] = set()
        for index, command, trips in nest(section.code):
            if command.op == "HOST":
                yield from _host_faults(section, index, command, symbols, trips)
            check = _CHECKS.get(command.op)
            if check and command not in seen:
                seen.add(command)
                yield from check(_use(section, index, command, symbols))


def _use(section: Section, index: int, command: Command, symbols: Mapping[str, Symbol]) -> _Use:
    named = dict(zip(operands(command.op), command.args, strict=True))
    found = {o.name: section.descriptors[int(v)] for o, v in named.items() if o.kind == "descriptor"}
    vector = next((section.vectors[int(v)] for o, v in named.items() if o.kind == "vector"), Vector())
    tables = {"multipliers": vector.multiplier, "shifts": vector.shift}
    return _Use(
        where=command_name(section, index, command),
        command=command,
        sizes={name: d.sizes for name, d in found.items()},
        elements={name: _element(d, symbols) for name, d in found.items()},
        vector=vector,
        binding=next((section.bindings[int(v)] for o, v in named.items() if o.kind == "binding"), None),
        tables={name: section.descriptors[d].sizes for name, d in tables.items() if d is not None},
    )


def _element(descriptor: Descriptor, symbols: Mapping[str, Symbol]) -> Element:
    """The element type of an operand; an unknown one (a fault M1 elsewhere) holds nothing."""
    return element(symbols[descriptor.symbol].dtype) or Element("unknown", 1)


def _vector_faults(program: Program, section: Section) -> Iterator[Fault]:
    for i, vector in enumerate(section.vectors):
        where = f"{core_name(section)} v{i} ({vector.label})"
        if vector.post.lo > vector.post.hi:
            yield Fault("B7", where, f"lo {vector.post.lo}, hi {vector.post.hi}")
        if isinstance(vector.post.multiplier, str) or isinstance(vector.post.shift, str):
            yield Fault("B7", where, "a multiplier or shift per column outside MVM")
        elif not 0 <= vector.post.shift <= 62:
            yield Fault("B7", where, f"shift {vector.post.shift}")
        if vector.lut and prod(program.weights[vector.lut].shape) < 1:
            yield Fault("B7", where, f"table {vector.lut} without entries")


# one function per shape rule


def _mvm(use: _Use) -> Iterator[Fault]:
    assert use.binding is not None, "structure checked"
    out, source = use.sizes["out"], use.sizes["in"]
    positions = len(out) - 1
    if not out or source[:positions] != out[:-1]:
        yield Fault("X1", use.where, f"in {_show(source)}, out {_show(out)}")
    elif prod(int(n) for n in source[positions:]) != use.binding.rows or out[-1] != use.binding.cols:
        need = f"binding {use.binding.rows} x {use.binding.cols}"
        yield Fault("X2", use.where, f"in {_show(source)}, out {_show(out)}, {need}")
    yield from _holds(use, use.binding.post.lo, use.binding.post.hi)


def _mma(use: _Use) -> Iterator[Fault]:
    out, a, b = use.sizes["out"], use.sizes["a"], use.sizes["b"]
    fits = len(out) == len(a) == len(b) >= 2 and out[:-2] == a[:-2] == b[:-2]
    if not fits or (a[-2], b[-1]) != out[-2:] or a[-1] != b[-2]:
        yield Fault("X3", use.where, f"a {_show(a)}, b {_show(b)}, out {_show(out)}")
    yield from _holds(use, use.vector.post.lo, use.vector.post.hi)


def _host_faults(
    section: Section, index: int, command: Command, symbols: Mapping[str, Symbol], trips: tuple[Size, ...]
) -> Iterator[Fault]:
    host, where = section.hosts[int(command.args[0])], command_name(section, index, command)
    if trips:
        yield Fault("H1", where, f"a host operator in {len(trips)} loops")
    for value in (v for v in (*host.inputs, *host.outputs) if v.descriptor >= 0):
        descriptor = section.descriptors[value.descriptor]
        kind = _element(descriptor, symbols)
        count = prod(int(n) for n in descriptor.sizes)
        if kind != element(value.dtype) or count != prod(value.shape):
            got = f"{value.name} as {value.dtype} {_show(value.shape)} in {count} elements of {kind.name}"
            yield Fault("H1", where, got)


def _function(use: _Use) -> Iterator[Fault]:
    """V1, V2 and RED: a known function, and the element type it gives."""
    fn, source = use.vector.fn, use.elements.get("in") or use.elements["a"]
    known = {"V1": UNARY, "V2": BINARY, "RED": FOLD}[use.command.op]
    if fn not in known:
        yield Fault("V6", use.where, f"function {fn!r}")
    elif use.elements["out"].name != result_dtype(fn, source.name):
        yield Fault("V6", use.where, f"{fn} of {source.name} in {use.elements['out'].name}")
    if use.command.op == "RED":
        if use.sizes["in"][: len(use.sizes["out"])] != use.sizes["out"]:
            yield Fault("V4", use.where, f"in {_show(use.sizes['in'])}, out {_show(use.sizes['out'])}")
    else:
        yield from _same_sizes(use)
    if "b" in use.elements and use.elements["a"] != use.elements["b"] and fn != "pow":
        yield Fault("V7", use.where, f"a {use.elements['a'].name}, b {use.elements['b'].name}")


def _choice(use: _Use) -> Iterator[Fault]:
    yield from _same_sizes(use)
    kinds = {use.elements[n].name for n in ("a", "b", "out")}
    if len(kinds) > 1 or use.elements["choice"].name != "bool":
        yield Fault("V7", use.where, f"choice {use.elements['choice'].name}, others {', '.join(sorted(kinds))}")


def _picked(use: _Use) -> Iterator[Fault]:
    out, source, index = use.sizes["out"], use.sizes["in"], use.sizes["index"]
    if len(source) != 3 or len(index) != 1 or out != (source[0], index[0], source[2]):
        yield Fault("X4", use.where, f"in {_show(source)}, index {_show(index)}, out {_show(out)}")
    if use.elements["index"].name not in ("i32", "i64"):
        yield Fault("X4", use.where, f"index of {use.elements['index'].name}")
    if use.elements["in"] != use.elements["out"]:
        yield Fault("V7", use.where, f"in {use.elements['in'].name}, out {use.elements['out'].name}")


def _placed(use: _Use) -> Iterator[Fault]:
    """SCATTER: the roles of in and out are those of a GATHER turned around."""
    out, source, index = use.sizes["out"], use.sizes["in"], use.sizes["index"]
    if len(out) != 3 or len(index) != 1 or source != (out[0], index[0], out[2]):
        yield Fault("X5", use.where, f"in {_show(source)}, index {_show(index)}, out {_show(out)}")
    if use.elements["index"].name not in ("i32", "i64"):
        yield Fault("X5", use.where, f"index of {use.elements['index'].name}")
    if use.elements["in"] != use.elements["out"] and not _packs(use.elements["in"], use.elements["out"]):
        yield Fault("V7", use.where, f"in {use.elements['in'].name}, out {use.elements['out'].name}")


def _packs(source: Element, out: Element) -> bool:
    """Whether bytes become elements that share bytes, of the same sign."""
    return (
        out.share > 1 and source.integer and (source.width, source.share) == (1, 1) and (source.lo < 0) == (out.lo < 0)
    )


def _scaled(use: _Use) -> Iterator[Fault]:
    """DQ, Q and QDYN."""
    codes, numbers = ("in", "out") if use.command.op == "DQ" else ("out", "in")
    kinds = {name: kind.name for name, kind in use.elements.items()}
    lead = use.sizes["scale"]
    if use.sizes["in"] != use.sizes["out"] or use.sizes["zero"] != lead or use.sizes["in"][: len(lead)] != lead:
        yield Fault("X6", use.where, ", ".join(f"{name} {_show(sizes)}" for name, sizes in use.sizes.items()))
    right = kinds[codes] in ("i8", "u8", "i16", "u16") and kinds["zero"] == kinds[codes]
    if not right or kinds[numbers] != "f32" or kinds["scale"] != "f32":
        yield Fault("X6", use.where, ", ".join(f"{name} {kind}" for name, kind in kinds.items()))


def _elementwise(use: _Use) -> Iterator[Fault]:
    yield from _same_sizes(use)
    yield from _posted(use)


def _windowed(use: _Use) -> Iterator[Fault]:
    out, source = use.sizes["out"], use.sizes["in"]
    if source[: len(out)] != out:
        yield Fault("V4", use.where, f"in {_show(source)}, out {_show(out)}")
    yield from _posted(use)


def _softmax(use: _Use) -> Iterator[Fault]:
    yield from _same_sizes(use)
    if not use.sizes["out"]:
        yield Fault("V1", use.where, "no last dimension")
    if not use.vector.lut:
        yield Fault("B7", use.where, "no table")
    yield from _holds(use, use.vector.post.lo, use.vector.post.hi)


def _lut(use: _Use) -> Iterator[Fault]:
    yield from _same_sizes(use)
    if not use.vector.lut:
        yield Fault("B7", use.where, "no table")
    yield from _holds(use, use.vector.post.lo, use.vector.post.hi)


def _fill(use: _Use) -> Iterator[Fault]:
    value = int(use.command.args[-1])
    yield from _holds(use, value, value)


def _copy(use: _Use) -> Iterator[Fault]:
    yield from _same_sizes(use)
    source, out = use.elements["in"], use.elements["out"]
    if source != out and not (source.integer and out.holds(source.lo, source.hi)):
        yield Fault("V2", use.where, f"in {source.name}, out {out.name}")


def _accumulate(use: _Use) -> Iterator[Fault]:
    yield from _same_sizes(use)
    if use.elements["out"].name != "i32" or not use.elements["in"].integer:
        yield Fault("V5", use.where, f"in {use.elements['in'].name}, out {use.elements['out'].name}")


_CHECKS: Mapping[str, Callable[[_Use], Iterator[Fault]]] = {
    "MVM": _mvm,
    "GEMV": _mvm,
    "MMA": _mma,
    "AMM": _mma,
    "REQ": _elementwise,
    "ADD": _elementwise,
    "MUL": _elementwise,
    "MAX": _windowed,
    "SUM": _windowed,
    "SOFTMAX": _softmax,
    "LUT": _lut,
    "FILL": _fill,
    "DMA": _copy,
    "V1": _function,
    "V2": _function,
    "RED": _function,
    "SEL": _choice,
    "CVT": lambda use: _same_sizes(use),
    "GATHER": _picked,
    "SCATTER": _placed,
    **dict.fromkeys(("DQ", "Q", "QDYN"), _scaled),
    "ACC": _accumulate,
}


# what they share


def _same_sizes(use: _Use) -> Iterator[Fault]:
    if len(set(use.sizes.values())) > 1:
        yield Fault("V1", use.where, ", ".join(f"{name} {_show(sizes)}" for name, sizes in use.sizes.items()))


def _posted(use: _Use) -> Iterator[Fault]:
    """Per-element multipliers and shifts of the right sizes, and results that fit."""
    out = use.sizes["out"]
    for name, sizes in use.tables.items():
        aligned = zip(reversed(sizes), reversed(out), strict=False)
        if len(sizes) > len(out) or any(n not in (1, size) for n, size in aligned):
            yield Fault("V3", use.where, f"{name} {_show(sizes)}, out {_show(out)}")
    lo, hi = use.vector.post.lo, use.vector.post.hi
    source = use.elements.get("in")
    if use.command.op == "MAX" and source and _plain(use.vector.post) and not use.tables:
        lo, hi = max(lo, source.lo), min(hi, source.hi)
    yield from _holds(use, lo, hi)


def _plain(post: Post) -> bool:
    return (post.multiplier, post.shift, post.zero_point) == (1, 0, 0)


def _holds(use: _Use, lo: int, hi: int) -> Iterator[Fault]:
    kinds = set(use.elements.values())
    if use.command.op in ("MVM", "MMA") and len(kinds) == 1 and not use.elements["out"].integer:
        return  # sums of float products, rounded to their type
    if use.command.op == "MMA" and [use.elements[n].name for n in ("a", "b", "out")] == ["f16", "f16", "f32"]:
        return  # halves multiplied, sums kept wide
    if not use.elements["out"].holds(lo, hi):
        yield Fault("V2", use.where, f"results {lo}..{hi} in {use.elements['out'].name}")
    floats = [name for name, kind in use.elements.items() if not kind.integer]
    if floats:
        yield Fault("V2", use.where, f"{floats[0]} of type {use.elements[floats[0]].name}, which holds no integers")


def _show(sizes: Sizes) -> str:
    return f"[{', '.join(map(str, sizes))}]"
