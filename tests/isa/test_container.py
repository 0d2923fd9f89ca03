"""A program file is read back as it was written, or refused; nothing in between."""

from __future__ import annotations

import json
import os
import random
import struct
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from isa_strategies import programs

from insitu.base.errors import OutputError, ProgramError
from insitu.isa import container
from insitu.isa.program import (
    Binding,
    Command,
    Descriptor,
    Location,
    Program,
    Section,
    Symbol,
    Tile,
    load_program,
    save_program,
    weight_ref,
)


def small() -> Program:
    w = weight_ref(np.arange(6, dtype=np.int8).reshape(3, 2))
    section = Section(
        chip=0,
        core=0,
        descriptors=(Descriptor("x", 0, ("T", 3), (3, 1)), Descriptor("y", 0, ("T", 2), (2, 1))),
        bindings=(Binding("fc", "w", "", 3, 2, 0, (Tile(0, 0, 3, 0, 2, 0, 0),)),),
        vectors=(),
        code=(Command("MVM", (1, 0, 0)), Command("HALT")),
    )
    return Program(
        name="small",
        chip={"name": "chip", "array": {"rows": 4, "cols": 4}},
        graph="graph small {}\n",
        symbols=(Symbol("x", "input", "ram", "i8", 12, 0), Symbol("y", "output", "ram", "i32", 8, 12)),
        sections=(section,),
        weights={"w": w, "absent": replace(w, data=None)},
        values={"x": Location("x", 0, ("T", 3), (3, 1))},
        sizes={"T": 4},
        spaces={"ram": 44},
        meta={"insitu": "0.1"},
    )


def same(a: Program, b: Program) -> bool:
    """Equality, weight data included."""
    pairs = [(a.weights[n].data, b.weights[n].data) for n in a.weights]
    return a == b and all((x is None) == (y is None) and (x is None or np.array_equal(x, y)) for x, y in pairs)


@given(programs())
@settings(max_examples=40)
def test_programs_survive_the_file(program: Program) -> None:
    data = container.program_bytes(program)
    again = container.program_from_bytes(data)
    assert same(again, program)
    assert container.program_bytes(again) == data


def test_save_and_load(tmp_path: Path) -> None:
    path = save_program(small(), tmp_path / "p.insitu")
    assert same(load_program(path), small())
    assert os.listdir(tmp_path) == ["p.insitu"]


def test_equal_programs_give_equal_bytes() -> None:
    program = small()
    turned = replace(
        program, weights=dict(reversed(program.weights.items())), chip=dict(reversed(program.chip.items()))
    )
    assert container.program_bytes(turned) == container.program_bytes(program)


def test_any_truncation_is_refused() -> None:
    data = container.program_bytes(small())
    for length in range(len(data)):
        with pytest.raises(ProgramError):
            container.program_from_bytes(data[:length])


def test_any_changed_byte_is_refused() -> None:
    data = container.program_bytes(small())
    draw = random.Random(0)
    cases = [(at, draw.randrange(1, 256)) for at in range(len(data)) for _ in range(2)]
    assert len(cases) >= 2000
    for at, flip in cases:
        altered = bytearray(data)
        altered[at] ^= flip
        with pytest.raises(ProgramError):
            container.program_from_bytes(bytes(altered))


def test_inserted_removed_and_trailing_bytes_are_refused() -> None:
    data = container.program_bytes(small())
    draw = random.Random(1)
    for _ in range(500):
        at = draw.randrange(len(data) + 1)
        for altered in (data[:at] + b"\0" + data[at:], data[: at - 1] + data[at:], data + draw.randbytes(at % 9 + 1)):
            if altered != data:
                with pytest.raises(ProgramError):
                    container.program_from_bytes(altered)


def forged(change: dict[str, bytes | None], *, twice: str = "") -> bytes:
    """A file with honest hashes over blocks that somebody replaced."""
    blocks = list(({**container._blocks(small()), **change}).items())
    blocks = [(name, data) for name, data in blocks if data is not None]
    blocks += [(name, data) for name, data in blocks if name == twice]
    head = struct.pack("<8sII", container.MAGIC, container.VERSION, len(blocks))
    for name, data in blocks:
        head += struct.pack("<40sQ32s", name.encode(), len(data), blake2b(data, digest_size=32).digest())
    return head + blake2b(head, digest_size=32).digest() + b"".join(data for _, data in blocks)


def meta(**change: object) -> bytes:
    return json.dumps({**json.loads(container._blocks(small())["meta"]), **change}).encode()


TABLES = json.loads(container._blocks(small())["tables:0"])
HOSTILE: dict[str, bytes] = {
    "a block twice": forged({}, twice="graph"),
    "a block missing": forged({"graph": None}),
    "a block more": forged({"tables:1": b"{}"}),
    "an unknown block": forged({"extra": b""}),
    "no meta": forged({"meta": None}),
    "deep JSON": forged({"meta": b"[" * 100_000}),
    "deep chip": forged({"meta": meta(chip={"a": eval("[" * 70 + "]" * 70)})}),
    "a key twice": forged({"meta": meta()[:-1] + b',"name":"x"}'}),
    "NaN": forged({"meta": meta(chip={"a": float("nan")})}),
    "infinite": forged({"meta": meta().replace(b'"T": 4', b'"T": 1e999')}),
    "a huge integer": forged({"meta": meta(sizes={"T": 1 << 64})}),
    "a very long integer": forged({"meta": meta().replace(b'"T": 4', b'"T": ' + b"9" * 5000)}),
    "a boolean for a number": forged({"meta": meta(sizes={"T": True})}),
    "a list for a mapping": forged({"meta": meta(chip=[])}),
    "a symbol of no kind": forged({"meta": meta(symbols=[["x", "stuff", "ram", "i8", 1, 0]])}),
    "a field too many": forged({"meta": meta(symbols=[["x", "input", "ram", "i8", 1, 0, "", 0, 1]])}),
    "a section more": forged({"meta": meta(sections=[[0, 0], [0, 1]])}),
    "a section of three": forged({"meta": meta(sections=[[0, 0, 0]])}),
    "not UTF-8": forged({"graph": b"\xff\xfe"}),
    "half a word": forged({"code:0": b"\0" * 12}),
    "no opcode": forged({"code:0": b"\0" * 8}),
    "descriptor of no symbol": forged({"tables:0": json.dumps({**TABLES, "descriptors": [[9, 0, [], []]]}).encode()}),
    "descriptor of symbol -1": forged({"tables:0": json.dumps({**TABLES, "descriptors": [[-1, 0, [], []]]}).encode()}),
    "descriptors that are a text": forged({"tables:0": json.dumps({**TABLES, "descriptors": "x"}).encode()}),
    "weights that are no safetensors": forged({"weights": b"\xff" * 40}),
    "weights without data": forged({"weights": b""}),
    "another weight": forged(
        {"weights": container._weights_bytes({"w": weight_ref(np.zeros((3, 2), np.int8))})}
    ),
    "an unlisted weight": forged(
        {"weights": container._weights_bytes({**small().weights, "z": weight_ref(np.zeros(2, np.int8))})}
    ),
    "pickle": b"\x80\x04\x95" + bytes(100),
    "empty": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str) -> None:
    with pytest.raises(ProgramError):
        container.program_from_bytes(HOSTILE[name])


def test_a_file_that_claims_more_blocks_than_it_has_allocates_nothing() -> None:
    head = struct.pack("<8sII", container.MAGIC, container.VERSION, 0xFFFFFFFF)
    with pytest.raises(ProgramError, match="damaged header"):
        container.program_from_bytes(head + bytes(200))


def test_another_version_says_so() -> None:
    data = bytearray(container.program_bytes(small()))
    data[8] = 9
    with pytest.raises(ProgramError, match="format version 9; needs version 3"):
        container.program_from_bytes(bytes(data))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="no such file"):
        load_program(tmp_path / "absent.insitu")
    with pytest.raises(ProgramError, match="not a file"):
        load_program(tmp_path)
    with pytest.raises(ProgramError):
        load_program("\0")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ProgramError, match="not an Insitu program"):
        load_program(tmp_path / "text")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        save_program(small(), tmp_path / "absent" / "p.insitu")
    with pytest.raises(ProgramError, match="plain JSON"):
        save_program(replace(small(), meta={"x": object()}), tmp_path / "p.insitu")
    with pytest.raises(ProgramError, match="plain JSON"):
        save_program(replace(small(), meta={"x": float("nan")}), tmp_path / "p.insitu")
    lying = replace(small().weights["w"], data=np.ones((3, 2), np.int8))
    with pytest.raises(ProgramError, match="weight w"):
        save_program(replace(small(), weights={"w": lying}), tmp_path / "p.insitu")
    assert not os.listdir(tmp_path)
