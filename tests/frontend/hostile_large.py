"""Names, nesting and numbers beyond all measure, and faults of the vendor's dialect."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.frontend.hostile_base import (
    FLOAT,
    case,
    chain,
    fast,
    model,
    node,
    saved,
    sound,
    value,
    varint,
    weight,
    wrapped,
)

# names


@sound
def long_names(folder: Path) -> Path:
    long = "n" * 1_000_000
    return saved(folder, model([node("MatMul", ("x", long), ("y",), name=long)], tensors=[weight(long)]))


@sound
def names_of_the_world(folder: Path) -> Path:
    name = "Ünïcödé 漢字 \u202e🙂"
    return saved(folder, model([node("MatMul", (name, "w"), ("y\n\r\t",), name="../../etc")],
                               inputs=[value(name)], outputs=[value("y\n\r\t")]))  # fmt: skip


@sound
def names_with_escapes(folder: Path) -> Path:
    name = "\x1b[31mred\x07\x00\x7f"
    return saved(folder, model([node("MatMul", (name, "w"), ("y",), name=name)], inputs=[value(name)]))


@case
def unknown_operators_with_escapes(folder: Path) -> Path:
    return saved(folder, model([node("\x1b[2J\nOp", ("x",), name="\x1b[31m\n")]))


@case
def names_that_are_no_text(folder: Path) -> Path:
    data = model([node("Nonsense", ("x",), name="QQQQ")]).SerializeToString()
    return saved(folder, data.replace(b"QQQQ", b"\xff\xfe\xc3\x28").replace(b"Nonsense", b"Non\xffense"))


@case
def long_operator_name(folder: Path) -> Path:
    return saved(folder, model([node("O" * 1_000_000, ("x",))]))


# nesting


def nested_if(depth: int) -> bytes:
    """A chain of If nodes, each in a branch of the one before, written from the inside out."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2]) + varint(len(data)) + data

    graph = field(1, node("Relu", ("x",), ("y",)).SerializeToString()) + field(12, value("y").SerializeToString())
    for _ in range(depth):
        branch = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        other = field(1, b"else_branch") + field(6, field(2, b"e")) + b"\xa0\x01\x05"
        deep = field(1, b"x") + field(2, b"y") + field(4, b"If") + field(5, branch) + field(5, other)
        graph = field(1, deep) + field(12, value("y").SerializeToString())
    return graph


def _if_file(folder: Path, depth: int) -> Path:
    inputs = value("x").SerializeToString()
    return saved(folder, wrapped(nested_if(depth) + b"\x5a" + varint(len(inputs)) + inputs))


@case
def thirty_nested_ifs(folder: Path) -> Path:
    return _if_file(folder, 30)


@case
def thousand_nested_ifs(folder: Path) -> Path:
    return _if_file(folder, 1000)


@case
def hundred_thousand_nested_groups(folder: Path) -> Path:
    return saved(folder, b"\x08\x08" + b"\x0b" * 100_000)


def _functions(calls: Sequence[tuple[str, Sequence[str]]], *, top: str) -> onnx.ModelProto:
    """A model whose node `top` is a function; a function is its name and the functions it calls in a row."""
    proto = model([node(top, ("x",), ("y",), domain="f")])
    proto.opset_import.append(helper.make_opsetid("f", 1))
    opsets = list(proto.opset_import)
    for name, body in calls:
        names = ["a", *(f"v{i}" for i in range(len(body) - 1)), "b"]
        nodes = [node(op, (names[i],), (names[i + 1],), domain="" if op == "Relu" else "f")
                 for i, op in enumerate(body)]  # fmt: skip
        proto.functions.append(helper.make_function("f", name, ["a"], ["b"], nodes, opsets))
    return proto


@case
def function_of_itself(folder: Path) -> Path:
    return saved(folder, _functions([("F", ["F"])], top="F"))


@case
def functions_of_each_other(folder: Path) -> Path:
    return saved(folder, _functions([("F", ["G"]), ("G", ["H"]), ("H", ["F"])], top="F"))


@case
def functions_that_double(folder: Path) -> Path:
    calls = [(f"F{i}", [f"F{i + 1}"] * 2) for i in range(40)]
    return saved(folder, _functions([*calls, ("F40", ["Relu"])], top="F0"))


@case
def function_that_is_not_there(folder: Path) -> Path:
    return saved(folder, _functions([("F", ["Nowhere"])], top="F"))


# numbers


@sound
def fifty_thousand_nodes(folder: Path) -> Path:
    return saved(folder, chain(b"Relu", 50_000))


@case
def million_nodes(folder: Path) -> Path:
    return saved(folder, chain(b"Relu", 1_000_000))


@case
def million_unknown_nodes(folder: Path) -> Path:
    return saved(folder, chain(b"Nonsense", 1_000_000))


@case
def million_vendor_nodes(folder: Path) -> Path:
    return saved(folder, chain(b"ClearLowBits", 1_000_000))


@case
def million_dead_nodes(folder: Path) -> Path:
    return saved(folder, fast((b"Relu", [b"x"], [b"d%d" % i if i else b"y"]) for i in range(1_000_000)))


@case
def million_readers(folder: Path) -> Path:
    nodes = [(b"Relu", [b"x"], [b"r%d" % i]) for i in range(49_000)]
    wide = b"".join(b"\x0a%c%s" % (len(o[0]), o[0]) for _, _, o in nodes) + b"\x12\x01y\x22\x03Sum"
    data = fast(nodes)
    graph = data[data.index(b"\x3a") + 1 :]
    length, shift = 0, 0
    while True:  # the length of the graph, as a varint
        byte, graph = graph[0], graph[1:]
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    return saved(folder, wrapped(b"\x0a" + varint(len(wide)) + wide + graph[:length]))


@case
def backwards(folder: Path) -> Path:
    names = [b"x", *(b"v%d" % i for i in range(39_999)), b"y"]
    nodes = [(b"Nonsense" if i == 5 else b"Relu", [names[i]], [names[i + 1]]) for i in range(40_000)]
    return saved(folder, fast(reversed(nodes)))


# the vendor's dialect


def _vendor(folder: Path, nodes: Sequence[onnx.NodeProto], **parts: Any) -> Path:
    return saved(folder, model([*nodes, node("Scale", ("h",), ("y",), scale=1 / 1024)], **parts))


@case
def vendor_cycle(folder: Path) -> Path:
    return _vendor(folder, [node("Add", ("x", "y"), ("h",))])


@case
def vendor_unknown(folder: Path) -> Path:
    return _vendor(folder, [node("Nonsense", ("x",), ("h",))])


@case
def vendor_weights_that_are_no_integers(folder: Path) -> Path:
    halves = numpy_helper.from_array(np.full((4, 4), 0.5, np.float32), "w")
    return _vendor(folder, [node("Gemm", ("x", "w"), ("h",))], tensors=[halves])


@case
def vendor_nan_weights(folder: Path) -> Path:
    bad = numpy_helper.from_array(np.full((4, 4), np.nan, np.float32), "w")
    return _vendor(folder, [node("Gemm", ("x", "w"), ("h",))], tensors=[bad])


@case
def vendor_infinite_weights(folder: Path) -> Path:
    bad = numpy_helper.from_array(np.full((4, 4), np.inf, np.float32), "w")
    return _vendor(folder, [node("Gemm", ("x", "w"), ("h",))], tensors=[bad])


@case
def vendor_tables_of_nothing(folder: Path) -> Path:
    empty = helper.make_tensor("t", FLOAT, (0,), [])
    return _vendor(folder, [node("ActLut", ("x",), ("h",), table_params=empty)])


@case
def vendor_offsets_far_apart(folder: Path) -> Path:
    offsets = numpy_helper.from_array(np.array([0, 1 << 30], np.int64), "o")
    return _vendor(folder, [node("Tdnn", ("x", "w"), ("h",), time_offsets=offsets)], tensors=[weight(shape=(8, 4))])


@case
def vendor_many_chained_cells(folder: Path) -> Path:
    return _vendor(folder, [node("Lstm", ("x",), ("h",), shift_bits=[1 << 40] * 9)])


@sound
def vendor_huge_input(folder: Path) -> Path:
    return _vendor(folder, [node("Relu", ("x",), ("h",))], inputs=[value("x", (1, 1 << 30))])


@case
def vendor_infinite_scale(folder: Path) -> Path:
    return saved(folder, model([node("Scale", ("x",), ("y",), scale=float("inf"))]))


@case
def vendor_denormal_scale(folder: Path) -> Path:
    scale = struct.unpack("<f", b"\x01\0\0\0")[0]
    return saved(folder, model([node("Gemm", ("x", "w"), ("h",)), node("Scale", ("h",), ("y",), scale=scale)]))
