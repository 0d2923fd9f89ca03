"""The .insitu file: a Program as bytes that are accepted whole or not at all.

Layout, little-endian: magic, version, number of blocks; for each block its name (40 bytes), length (8) and hash (32);
a hash of everything so far; then the blocks, one after the other, and nothing else.  Blocks: `meta` (JSON), `graph`
(text), per section `tables:i` (JSON) and `code:i` (words), `weights` (safetensors).  Equal programs give equal bytes.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ProgramError
from insitu.base.store import write_bytes
from insitu.isa.encoding import decode, encode
from insitu.isa.program import (
    Binding,
    Descriptor,
    Host,
    Location,
    Program,
    Section,
    Symbol,
    Vector,
    WeightRef,
    weight_ref,
)
from insitu.isa.records import dump_json, from_plain, load_json, to_plain

MAGIC = b"\x89INSITU\n"
VERSION = 3
HASH_BYTES = 32
MAX_BLOCKS = 1 << 16
MAX_JSON = 1 << 30
SUFFIX = ".insitu"
_HEAD = struct.Struct("<8sII")
_ENTRY = struct.Struct("<40sQ32s")
_TRY = ("compile the model again", "copy the file again")


def save_program(program: Program, path: str | Path) -> Path:
    """Write a program as one file that appears whole or not at all."""
    return write_bytes(path, program_bytes(program))


def load_program(path: str | Path) -> Program:
    """Read a program; a file that is truncated, altered, or no program is a ProgramError."""
    label = str(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ProgramError(label, "not a file", "a program file", try_=("name the .insitu file",))
        with Path(path).open("rb") as file:
            start = file.read(len(MAGIC))
            data = start + (file.read() if start == MAGIC else b"")  # what is no program is not read
        return program_from_bytes(data, where=label)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ProgramError(label, reason.lower(), "a program file that can be read") from None


def program_bytes(program: Program) -> bytes:
    """The file of a program, deterministic."""
    blocks = _blocks(program)
    head = _HEAD.pack(MAGIC, VERSION, len(blocks))
    head += b"".join(_ENTRY.pack(name.encode(), len(data), _hash(data)) for name, data in blocks.items())
    return b"".join((head, _hash(head), *blocks.values()))


def program_from_bytes(data: bytes, *, where: str = "program") -> Program:
    """The program of a file's bytes."""
    return _program(_split(memoryview(data), where), where)


# bytes and blocks


def _hash(data: bytes | memoryview) -> bytes:
    return blake2b(data, digest_size=HASH_BYTES).digest()


def _split(data: memoryview, where: str) -> dict[str, bytes]:
    """The blocks by name, every byte of the file checked."""
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise ProgramError(where, "not an Insitu program", "a file that `insitu compile` wrote")
    if len(data) < _HEAD.size:
        raise _refused(where, f"{len(data)} bytes")
    _, version, count = cast(tuple[bytes, int, int], _HEAD.unpack_from(data))
    if version != VERSION:
        raise ProgramError(where, f"format version {version}", f"version {VERSION}", try_=_TRY[:1])
    start = _HEAD.size + count * _ENTRY.size
    if (
        count > MAX_BLOCKS
        or len(data) < start + HASH_BYTES
        or _hash(data[:start]) != bytes(data[start : start + HASH_BYTES])
    ):
        raise _refused(where, "a damaged header")
    return _checked(data, count, start + HASH_BYTES, where)


def _checked(data: memoryview, count: int, start: int, where: str) -> dict[str, bytes]:
    entries = [_ENTRY.unpack_from(data, _HEAD.size + i * _ENTRY.size) for i in range(count)]
    if start + sum(length for _, length, _ in entries) != len(data):
        raise _refused(where, f"{len(data)} bytes where the header says {start + sum(e[1] for e in entries)}")
    blocks: dict[str, bytes] = {}
    for raw, length, digest in entries:
        name = raw.rstrip(b"\0").decode("ascii", "replace")
        if _hash(data[start : start + length]) != digest:
            raise _refused(where, f"block {name} is altered")
        if name in blocks:
            raise _refused(where, f"block {name} stands twice")
        blocks[name] = bytes(data[start : start + length])
        start += length
    return blocks


def _refused(where: str, got: str) -> ProgramError:
    return ProgramError(where, got, "the whole file as it was written", try_=_TRY)


# program to blocks


def _blocks(program: Program) -> dict[str, bytes]:
    names = [s.name for s in program.symbols]
    index = {name: i for i, name in enumerate(names)}
    blocks = {"meta": dump_json(_meta(program)), "graph": program.graph.encode()}
    for i, section in enumerate(program.sections):
        blocks[f"tables:{i}"] = dump_json(_tables(section, index))
        blocks[f"code:{i}"] = encode(section.code, sizes=tuple(program.sizes), where=f"section {i}").tobytes()
    blocks["weights"] = _weights_bytes(program.weights)
    return blocks


def _meta(program: Program) -> dict[str, Any]:
    return {
        "name": program.name,
        "chip": program.chip,
        "meta": program.meta,
        "sizes": {name: int(size) for name, size in program.sizes.items()},
        "spaces": {name: int(size) for name, size in program.spaces.items()},
        "symbols": to_plain(program.symbols),
        "values": {name: to_plain(at) for name, at in program.values.items()},
        "weights": {name: [list(w.shape), w.dtype, w.hash, w.data is not None] for name, w in program.weights.items()},
        "sections": [[s.chip, s.core] for s in program.sections],
    }


def _tables(section: Section, index: Mapping[str, int]) -> dict[str, Any]:
    """The tables of a section; descriptors name their symbol by number, since there are many."""
    rows: list[Any] = []
    for descriptor in section.descriptors:
        if descriptor.symbol not in index:
            raise ProgramError(f"core {section.core}", f"symbol {descriptor.symbol!r}", "a symbol of the program")
        rows.append([index[descriptor.symbol], *to_plain(descriptor)[1:]])
    return {"descriptors": rows, "bindings": to_plain(section.bindings), "vectors": to_plain(section.vectors),
            "hosts": to_plain(section.hosts)}  # fmt: skip


def _weights_bytes(weights: Mapping[str, WeightRef]) -> bytes:
    from safetensors.numpy import save

    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in sorted(weights):
        ref = weights[name]
        if ref.data is None:
            continue
        if name == "__metadata__" or weight_ref(ref.data) != ref:
            raise ProgramError(f"weight {name}", "data that is not what its hash says", "a WeightRef from weight_ref()")
        arrays[name] = np.ascontiguousarray(ref.data)
    return save(arrays) if arrays else b""


# blocks to program


def _program(blocks: dict[str, bytes], where: str) -> Program:
    meta = _mapping(_json(blocks, "meta", where), _META, f"{where}: meta")
    pairs = from_plain(tuple[tuple[int, ...], ...], meta["sections"], where=f"{where}: sections")
    expected = {"meta", "graph", "weights", *(f"{kind}:{i}" for kind in ("tables", "code") for i in range(len(pairs)))}
    if set(blocks) != expected or any(len(pair) != 2 for pair in pairs):
        raise _refused(where, f"blocks {', '.join(sorted(set(blocks) ^ expected))[:80] or 'of odd shape'}")
    sizes = _numbers(meta["sizes"], f"{where}: sizes")
    program = Program(
        name=from_plain(str, meta["name"], where=f"{where}: name"),
        chip=_mapping(meta["chip"], None, f"{where}: chip"),
        graph=_text(blocks["graph"], where),
        symbols=from_plain(tuple[Symbol, ...], meta["symbols"], where=f"{where}: symbols"),
        sections=(),
        weights=_weights(meta["weights"], blocks["weights"], where),
        values=_locations(meta["values"], where),
        sizes=sizes,
        spaces=_numbers(meta["spaces"], f"{where}: spaces"),
        meta=_mapping(meta["meta"], None, f"{where}: meta"),
    )
    names = [s.name for s in program.symbols]
    sections = [_section(blocks, i, pair, names, tuple(sizes), where) for i, pair in enumerate(pairs)]
    return replace(program, sections=tuple(sections))


_META = frozenset(("name", "chip", "meta", "sizes", "spaces", "symbols", "values", "weights", "sections"))
_TABLES = frozenset(("descriptors", "bindings", "vectors", "hosts"))


def _section(
    blocks: dict[str, bytes], i: int, pair: tuple[int, ...], names: list[str], sizes: tuple[str, ...], where: str
) -> Section:
    at = f"{where}: section {i}"
    tables = _mapping(_json(blocks, f"tables:{i}", where), _TABLES, at)
    code = blocks[f"code:{i}"]
    if len(code) % 8:
        raise _refused(at, f"{len(code)} bytes of code")
    return Section(
        chip=pair[0],
        core=pair[1],
        descriptors=_descriptors(tables["descriptors"], names, at),
        bindings=from_plain(tuple[Binding, ...], tables["bindings"], where=f"{at}: bindings"),
        vectors=from_plain(tuple[Vector, ...], tables["vectors"], where=f"{at}: vectors"),
        code=decode(np.frombuffer(code, "<u8"), sizes=sizes, where=at),
        hosts=from_plain(tuple[Host, ...], tables["hosts"], where=f"{at}: hosts"),
    )


def _descriptors(rows: Any, names: list[str], where: str) -> tuple[Descriptor, ...]:
    known = range(len(names))
    if type(rows) is not list:
        raise _refused(where, "descriptors that are no list")
    for row in cast(list[Any], rows):
        if type(row) is not list or not row or type(row[0]) is not int or row[0] not in known:
            raise _refused(where, f"descriptor {row!r:.60}")
        row[0] = names[row[0]]
    return from_plain(tuple[Descriptor, ...], rows, where=f"{where}: descriptors")


def _weights(table: Any, blob: bytes, where: str) -> dict[str, WeightRef]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(blob) if blob else {}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _refused(f"{where}: weights", str(error)[:80]) from None
    refs: dict[str, WeightRef] = {}
    for name, row in _mapping(table, None, f"{where}: weights").items():
        if type(row) is not list or len(cast(list[Any], row)) != 4 or type(row[3]) is not bool:
            raise _refused(f"{where}: weight {name}", f"{row!r:.60}")
        ref = from_plain(WeightRef, row[:3], where=f"{where}: weight {name}")
        refs[name] = _with_data(ref, arrays.pop(name, None), needed=row[3], where=f"{where}: weight {name}")
    if arrays:
        raise _refused(f"{where}: weights", f"a tensor that is not listed: {min(arrays)}")
    return refs


def _with_data(ref: WeightRef, data: npt.NDArray[Any] | None, *, needed: bool, where: str) -> WeightRef:
    if needed != (data is not None):
        raise _refused(where, "data that is missing or not announced")
    if data is not None and weight_ref(data) != ref:
        raise _refused(where, "data that is not what its hash says")
    return replace(ref, data=data)


def _locations(values: Any, where: str) -> dict[str, Location]:
    items = _mapping(values, None, f"{where}: values").items()
    return {name: from_plain(Location, at, where=f"{where}: value {name}") for name, at in items}


def _json(blocks: dict[str, bytes], name: str, where: str) -> Any:
    if name not in blocks or len(blocks[name]) > MAX_JSON:
        raise _refused(where, f"block {name} is missing or too large")
    return load_json(blocks[name], where=f"{where}: {name}")


def _mapping(value: Any, keys: frozenset[str] | None, where: str) -> dict[str, Any]:
    if type(value) is not dict or (keys is not None and keys != cast(dict[str, Any], value).keys()):
        raise _refused(where, f"{value!r:.60}")
    return cast(dict[str, Any], value)


def _numbers(value: Any, where: str) -> dict[str, int]:
    return {name: from_plain(int, n, where=f"{where}.{name}") for name, n in _mapping(value, None, where).items()}


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _refused(where, "a graph that is not UTF-8") from None
