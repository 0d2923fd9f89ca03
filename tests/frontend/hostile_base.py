"""How the broken files are made: a registry of cases, and small networks as protos or as bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Case = Callable[[Path], Path]
FLOAT = TensorProto.FLOAT
CASES: dict[str, Case] = {}
SOUND: set[str] = set()


def case(maker: Case) -> Case:
    """Adds a case under its function's name."""
    CASES[maker.__name__] = maker
    return maker


def sound(maker: Case) -> Case:
    """A case whose network means something."""
    SOUND.add(maker.__name__)
    return case(maker)


def weight(name: str = "w", shape: Sequence[int] = (4, 4)) -> onnx.TensorProto:
    """A tensor of small numbers."""
    count = int(np.prod(shape))
    return numpy_helper.from_array((np.arange(count, dtype=np.float32) % 7 - 3).reshape(shape), name)


def value(name: str, shape: Any = (1, 4), kind: int = FLOAT) -> onnx.ValueInfoProto:
    """An input or an output."""
    return helper.make_tensor_value_info(name, kind, shape)


def node(op: str, inputs: Iterable[str] = ("x", "w"), outputs: Iterable[str] = ("y",), **attrs: Any) -> onnx.NodeProto:
    """A node."""
    return helper.make_node(op, list(inputs), list(outputs), **attrs)


def model(
    nodes: Sequence[onnx.NodeProto] | None = None, *, inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None, tensors: Sequence[onnx.TensorProto] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:  # fmt: skip
    """A network of one MatMul, with what is given in place of its parts."""
    graph = helper.make_graph(
        [node("MatMul")] if nodes is None else list(nodes), "net",
        [value("x")] if inputs is None else list(inputs), [value("y")] if outputs is None else list(outputs),
        initializer=[weight()] if tensors is None else list(tensors),
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(folder: Path, proto: onnx.ModelProto | bytes) -> Path:
    """The file."""
    path = folder / "net.onnx"
    path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
    return path


# very many nodes, their bytes written directly


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def wrapped(graph: bytes) -> bytes:
    """A model around the bytes of a graph."""
    return b"\x08\x08" + b"\x3a" + varint(len(graph)) + graph + b"\x42\x04\x0a\x00\x10\x11"


def fast(nodes: Iterable[tuple[bytes, Sequence[bytes], Sequence[bytes]]]) -> bytes:
    """A model of very many nodes (operator, inputs, outputs), its bytes written directly; reads x, gives y."""
    parts: list[bytes] = []
    for op, inputs, outputs in nodes:
        data = b"".join(b"\x0a%c%s" % (len(v), v) for v in inputs) + b"".join(
            b"\x12%c%s" % (len(v), v) for v in outputs
        )
        data += b"\x22%c%s" % (len(op), op)
        parts.append(b"\x0a%c%s" % (len(data), data))
    ends = ((b"\x5a", value("x").SerializeToString()), (b"\x62", value("y").SerializeToString()))
    parts += [tag + varint(len(data)) + data for tag, data in ends]
    return wrapped(b"".join(parts))


def chain(op: bytes, count: int) -> bytes:
    """x -> op -> op ... -> y."""
    names = [b"x", *(b"v%d" % i for i in range(count - 1)), b"y"]
    return fast((op, [names[i]], [names[i + 1]]) for i in range(count))
