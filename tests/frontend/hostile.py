"""Broken and hostile ONNX files, each written by a function: what the commands must answer with one message.

`CASES[name](folder)` writes the file and returns its path.  Cases in SOUND hold odd networks that mean something and
may run; those in LARGE take long to write.
"""

from __future__ import annotations

import struct
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
LARGE = {
    "cycle_of_many",
    "hundred_thousand_inputs",
    "hundred_thousand_outputs",
    "hundred_thousand_tensors",
    "doubling_constants",
    "fifty_thousand_nodes",
    "million_nodes",
    "million_unknown_nodes",
    "million_vendor_nodes",
    "million_dead_nodes",
    "million_readers",
    "backwards",
}  # which take a second or more to write or to refuse


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


# bytes


@case
def empty_file(folder: Path) -> Path:
    return saved(folder, b"")


@case
def zeros(folder: Path) -> Path:
    return saved(folder, bytes(4096))


@case
def noise(folder: Path) -> Path:
    return saved(folder, np.random.default_rng(0).bytes(4096))


@case
def text_file(folder: Path) -> Path:
    return saved(folder, b"this is no network\n" * 40)


@case
def zip_file(folder: Path) -> Path:
    return saved(folder, b"PK\x03\x04" + bytes(200))


@case
def hdf_file(folder: Path) -> Path:
    return saved(folder, b"\x89HDF\r\n\x1a\n" + bytes(200))


@case
def truncated_by_half(folder: Path) -> Path:
    data = model().SerializeToString()
    return saved(folder, data[: len(data) // 2])


@case
def truncated_by_one(folder: Path) -> Path:
    return saved(folder, model().SerializeToString()[:-1])


@case
def truncated_to_one(folder: Path) -> Path:
    return saved(folder, model().SerializeToString()[:1])


@case
def endless_varint(folder: Path) -> Path:
    return saved(folder, b"\x08" + b"\xff" * 64)


@case
def no_graph(folder: Path) -> Path:
    return saved(folder, onnx.ModelProto(ir_version=8, producer_name="x"))


@case
def no_nodes(folder: Path) -> Path:
    return saved(folder, model([]))


@case
def a_folder(folder: Path) -> Path:
    (folder / "net.onnx").mkdir()
    return folder / "net.onnx"


@case
def missing_file(folder: Path) -> Path:
    return folder / "net.onnx"


@case
def link_to_itself(folder: Path) -> Path:
    (folder / "net.onnx").symlink_to(folder / "net.onnx")
    return folder / "net.onnx"


# structure


@case
def cycle(folder: Path) -> Path:
    return saved(folder, model([node("Add", ("x", "b"), ("a",)), node("Relu", ("a",), ("b",)),
                                node("Relu", ("b",), ("y",))]))  # fmt: skip


@case
def cycle_of_one(folder: Path) -> Path:
    return saved(folder, model([node("Add", ("x", "y"), ("y",))]))


@case
def cycle_of_many(folder: Path) -> Path:
    count = 40_000
    nodes = [(b"Relu", [b"v%d" % ((i - 1) % count)], [b"v%d" % i]) for i in range(count)]
    return saved(folder, fast([*nodes, (b"Add", [b"x", b"v0"], [b"y"])]))


@case
def undefined_value(folder: Path) -> Path:
    return saved(folder, model([node("Add", ("x", "nobody"), ("y",))]))


@case
def undefined_output(folder: Path) -> Path:
    return saved(folder, model(outputs=[value("z")]))


@case
def two_writers(folder: Path) -> Path:
    return saved(folder, model([node("Relu", ("x",), ("y",)), node("Relu", ("x",), ("y",))]))


@case
def two_inputs_of_a_name(folder: Path) -> Path:
    return saved(folder, model(inputs=[value("x"), value("x")]))


@case
def two_outputs_of_a_name(folder: Path) -> Path:
    return saved(folder, model(outputs=[value("y"), value("y")]))


@case
def two_tensors_of_a_name(folder: Path) -> Path:
    return saved(folder, model(tensors=[weight(), weight()]))


@case
def tensor_without_a_name(folder: Path) -> Path:
    return saved(folder, model(tensors=[weight(), weight("")]))


@case
def node_writes_an_input(folder: Path) -> Path:
    return saved(folder, model([node("Relu", ("x",), ("x",)), node("MatMul")]))


@case
def no_inputs(folder: Path) -> Path:
    return saved(folder, model([node("Relu", ("w",), ("y",))], inputs=[]))


@case
def no_outputs(folder: Path) -> Path:
    return saved(folder, model(outputs=[]))


@case
def node_without_operator(folder: Path) -> Path:
    return saved(folder, model([onnx.NodeProto(input=["x"], output=["y"])]))


@case
def node_without_inputs(folder: Path) -> Path:
    return saved(folder, model([node("Relu", (), ("y",))]))


@sound
def node_without_outputs(folder: Path) -> Path:
    return saved(folder, model([node("MatMul"), node("Relu", ("x",), ())]))


@case
def output_is_input(folder: Path) -> Path:
    return saved(folder, model(outputs=[value("x")]))


@case
def output_is_constant(folder: Path) -> Path:
    return saved(folder, model(outputs=[value("w")]))


@case
def too_many_inputs(folder: Path) -> Path:
    return saved(folder, model([node("MatMul", ("x", "w", "w", "w"), ("y",))]))


# operators


@case
def unknown_operator(folder: Path) -> Path:
    return saved(folder, model([node("FluxCapacitor", ("x",))]))


@case
def unknown_domain(folder: Path) -> Path:
    return saved(folder, model([node("MatMul", domain="org.example")]))


@case
def old_opset(folder: Path) -> Path:
    return saved(folder, model(opset=1))


@case
def no_opset(folder: Path) -> Path:
    proto = model()
    del proto.opset_import[:]
    return saved(folder, proto)


@sound
def future_opset(folder: Path) -> Path:
    return saved(folder, model(opset=9999))


@case
def negative_opset(folder: Path) -> Path:
    return saved(folder, model(opset=-5))


@sound
def future_ir_version(folder: Path) -> Path:
    proto = model()
    proto.ir_version = 1 << 40
    return saved(folder, proto)


@case
def attributes_of_the_wrong_type(folder: Path) -> Path:
    return saved(folder, model([node("Conv", strides="two")], inputs=[value("x", (1, 1, 4, 4))],
                               tensors=[weight(shape=(1, 1, 2, 2))]))  # fmt: skip


@case
def attribute_without_a_type(folder: Path) -> Path:
    proto = model()
    proto.graph.node[0].attribute.add(name="alpha")
    proto.graph.node[0].op_type = "Gemm"
    return saved(folder, proto)


@case
def convolution_of_zero_stride(folder: Path) -> Path:
    return saved(folder, model([node("Conv", strides=[0, 0])], inputs=[value("x", (1, 1, 4, 4))],
                               tensors=[weight(shape=(1, 1, 2, 2))]))  # fmt: skip


@case
def convolution_of_huge_pads(folder: Path) -> Path:
    return saved(folder, model([node("Conv", pads=[1 << 40] * 4)], inputs=[value("x", (1, 1, 4, 4))],
                               tensors=[weight(shape=(1, 1, 2, 2))]))  # fmt: skip


@case
def convolution_of_huge_dilation(folder: Path) -> Path:
    return saved(folder, model([node("Conv", dilations=[1 << 62, 1])], inputs=[value("x", (1, 1, 4, 4))],
                               tensors=[weight(shape=(1, 1, 2, 2))]))  # fmt: skip


@case
def convolution_of_no_groups(folder: Path) -> Path:
    return saved(folder, model([node("Conv", group=0)], inputs=[value("x", (1, 1, 4, 4))],
                               tensors=[weight(shape=(1, 1, 2, 2))]))  # fmt: skip


@case
def wrong_rank(folder: Path) -> Path:
    return saved(folder, model([node("Conv")]))


@case
def sizes_that_do_not_meet(folder: Path) -> Path:
    return saved(folder, model(tensors=[weight(shape=(5, 4))]))


@case
def reshape_to_nonsense(folder: Path) -> Path:
    shape = numpy_helper.from_array(np.array([-1, -1, 1 << 60]), "w")
    return saved(folder, model([node("Reshape")], tensors=[shape]))


@case
def expand_to_a_huge_size(folder: Path) -> Path:
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20, 1, 4]), "w")
    return saved(
        folder,
        model(
            [
                node("Expand"),
            ],
            tensors=[shape],
        ),
    )


@case
def constant_of_a_huge_shape(folder: Path) -> Path:
    shape = numpy_helper.from_array(np.array([1 << 31, 1 << 31]), "w")
    return saved(folder, model([node("ConstantOfShape", ("w",), ("c",)), node("MatMul", ("x", "c"), ("y",))],
                               tensors=[shape]))  # fmt: skip


@case
def range_without_end(folder: Path) -> Path:
    ends = [numpy_helper.from_array(np.array(v), n) for n, v in (("a", 0), ("b", 1 << 62), ("c", 1))]
    return saved(folder, model([node("Range", ("a", "b", "c"), ("r",)), node("Add", ("x", "r"), ("y",))],
                               tensors=ends))  # fmt: skip


@case
def doubling_constants(folder: Path) -> Path:
    nodes = [node("Concat", (f"c{i}", f"c{i}"), (f"c{i + 1}",), axis=0) for i in range(60)]
    return saved(folder, model([*nodes, node("MatMul", ("x", "c60"), ("y",))], tensors=[weight("c0")]))


@case
def concat_without_axis(folder: Path) -> Path:
    return saved(folder, model([node("Concat", ("x", "x"), ("y",), axis=77)]))


@case
def transpose_twice_the_same(folder: Path) -> Path:
    return saved(folder, model([node("Transpose", ("x",), perm=[0, 0])]))


@case
def slice_of_step_zero(folder: Path) -> Path:
    parts = [numpy_helper.from_array(np.array([v]), n) for n, v in (("s", 0), ("e", 2), ("a", 1), ("t", 0))]
    return saved(folder, model([node("Slice", ("x", "s", "e", "a", "t"))], tensors=parts))


# shapes and types of inputs


@case
def negative_size(folder: Path) -> Path:
    return saved(folder, model(inputs=[value("x", (1, -4))]))


@case
def zero_size(folder: Path) -> Path:
    return saved(folder, model(inputs=[value("x", (1, 0))], tensors=[weight(shape=(0, 4))]))


@case
def huge_size(folder: Path) -> Path:
    return saved(folder, model([node("Relu", ("x",))], inputs=[value("x", (1 << 62, 4))]))


@case
def overflowing_size(folder: Path) -> Path:
    return saved(folder, model([node("Relu", ("x",))], inputs=[value("x", (1 << 32, 1 << 32))]))


@case
def huge_symbolic_network(folder: Path) -> Path:
    return saved(folder, model([node("Relu", ("x",))], inputs=[value("x", ("a", "b", "a", "c"))]))


@case
def symbols_in_a_loop(folder: Path) -> Path:
    inputs = [value("x", ("x.1", "x.0")), value("z", ("x.0", "z.0"))]
    return saved(folder, model([node("Add", ("x", "z"))], inputs=inputs))


@case
def thousand_dimensions(folder: Path) -> Path:
    return saved(folder, model([node("Relu", ("x",))], inputs=[value("x", (1,) * 1000)]))


@case
def input_without_a_type(folder: Path) -> Path:
    return saved(folder, model(inputs=[onnx.ValueInfoProto(name="x")]))


@case
def input_of_an_unknown_type(folder: Path) -> Path:
    return saved(folder, model(inputs=[value("x", kind=99)]))


@case
def input_of_strings(folder: Path) -> Path:
    return saved(folder, model(inputs=[value("x", kind=TensorProto.STRING)]))


@case
def input_of_sequences(folder: Path) -> Path:
    return saved(folder, model(inputs=[helper.make_tensor_sequence_value_info("x", FLOAT, (1, 4))]))


@case
def input_of_complex_numbers(folder: Path) -> Path:
    return saved(folder, model(inputs=[value("x", kind=TensorProto.COMPLEX64)]))


@case
def input_without_a_shape(folder: Path) -> Path:
    return saved(folder, model([node("Conv")], inputs=[value("x", None)], tensors=[weight(shape=(1, 1, 2, 2))]))


@case
def hundred_thousand_inputs(folder: Path) -> Path:
    inputs = [value("x"), *(value(f"i{i}") for i in range(100_000))]
    return saved(folder, model(inputs=inputs))


@case
def hundred_thousand_outputs(folder: Path) -> Path:
    outputs = [value("y"), *(value(f"o{i}") for i in range(100_000))]
    return saved(folder, model(outputs=outputs))


@case
def hundred_thousand_tensors(folder: Path) -> Path:
    tensors = [weight(), *(weight(f"t{i}", (1,)) for i in range(100_000))]
    return saved(folder, model([node("Add", ("x", "nobody"), ("y",))], tensors=tensors))


# tensors


def _tensor(dims: Sequence[int], raw: bytes, kind: int = FLOAT) -> onnx.TensorProto:
    return onnx.TensorProto(name="w", dims=dims, data_type=kind, raw_data=raw)


@case
def data_too_short(folder: Path) -> Path:
    return saved(folder, model(tensors=[_tensor((4, 4), bytes(60))]))


@case
def data_too_long(folder: Path) -> Path:
    return saved(folder, model(tensors=[_tensor((4, 4), bytes(68))]))


@case
def data_missing(folder: Path) -> Path:
    return saved(folder, model(tensors=[_tensor((4, 4), b"")]))


@case
def data_of_a_huge_shape(folder: Path) -> Path:
    return saved(folder, model(tensors=[_tensor((1 << 33, 1 << 33), bytes(64))]))


@case
def data_of_an_overflowing_shape(folder: Path) -> Path:
    return saved(folder, model(tensors=[_tensor((1 << 62, 4), bytes(64))]))


@case
def data_of_a_negative_shape(folder: Path) -> Path:
    return saved(folder, model(tensors=[_tensor((-4, -4), bytes(64))]))


@case
def data_of_an_unknown_type(folder: Path) -> Path:
    return saved(folder, model(tensors=[_tensor((4, 4), bytes(64), 1234)]))


@case
def data_of_no_type(folder: Path) -> Path:
    return saved(folder, model(tensors=[_tensor((4, 4), bytes(64), 0)]))


@case
def strings_as_weights(folder: Path) -> Path:
    return saved(folder, model(tensors=[numpy_helper.from_array(np.full((4, 4), "one", object), "w")]))


@case
def complex_weights(folder: Path) -> Path:
    return saved(folder, model(tensors=[numpy_helper.from_array(np.ones((4, 4), np.complex64), "w")]))


@case
def nan_weights(folder: Path) -> Path:
    array = np.ones((4, 4), np.float32)
    array[1, 2] = np.nan
    return saved(folder, model(tensors=[numpy_helper.from_array(array, "w")]))


@case
def infinite_weights(folder: Path) -> Path:
    array = np.ones((4, 4), np.float32)
    array[3, 3] = -np.inf
    return saved(folder, model(tensors=[numpy_helper.from_array(array, "w")]))


@case
def double_weights_beyond_float(folder: Path) -> Path:
    return saved(folder, model(tensors=[numpy_helper.from_array(np.full((4, 4), 1e300), "w")]))


@case
def segment_of_a_tensor(folder: Path) -> Path:
    tensor = weight()
    tensor.segment.begin, tensor.segment.end = 0, 1 << 62
    return saved(folder, model([node("Add", ("x", "w"), ("y",))], tensors=[tensor, weight("w")]))


# external data


def _outside(folder: Path, location: str, **entries: str) -> Path:
    tensor = onnx.TensorProto(name="w", dims=(4, 4), data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    for key, text in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=text)
    return saved(folder, model(tensors=[tensor]))


@case
def external_absolute(folder: Path) -> Path:
    return _outside(folder, "/etc/passwd")


@case
def external_above(folder: Path) -> Path:
    (folder.parent / "above.bin").write_bytes(bytes(64))
    return _outside(folder, "../above.bin")


@case
def external_around(folder: Path) -> Path:
    (folder.parent / "above.bin").write_bytes(bytes(64))
    (folder / "sub").mkdir()
    return _outside(folder, "sub/../../above.bin")


@case
def external_link(folder: Path) -> Path:
    (folder.parent / "above.bin").write_bytes(bytes(64))
    (folder / "w.bin").symlink_to(folder.parent / "above.bin")
    return _outside(folder, "w.bin")


@case
def external_link_of_a_folder(folder: Path) -> Path:
    (folder.parent / "above.bin").write_bytes(bytes(64))
    (folder / "sub").symlink_to(folder.parent, target_is_directory=True)
    return _outside(folder, "sub/above.bin")


@case
def external_device(folder: Path) -> Path:
    (folder / "w.bin").symlink_to("/dev/zero")
    return _outside(folder, "w.bin", length="64")


@case
def external_pipe(folder: Path) -> Path:
    import os

    os.mkfifo(folder / "w.bin")
    return _outside(folder, "w.bin", length="64")


@case
def external_missing(folder: Path) -> Path:
    return _outside(folder, "w.bin")


@case
def external_nameless(folder: Path) -> Path:
    return _outside(folder, "")


@case
def external_folder(folder: Path) -> Path:
    return _outside(folder, ".")


@case
def external_with_a_nul(folder: Path) -> Path:
    return _outside(folder, "w\0.bin")


@case
def external_of_a_long_name(folder: Path) -> Path:
    return _outside(folder, "w" * 100_000)


@case
def external_short(folder: Path) -> Path:
    (folder / "w.bin").write_bytes(bytes(63))
    return _outside(folder, "w.bin")


@case
def external_behind_the_end(folder: Path) -> Path:
    (folder / "w.bin").write_bytes(bytes(64))
    return _outside(folder, "w.bin", offset=str(1 << 62))


@case
def external_before_the_start(folder: Path) -> Path:
    (folder / "w.bin").write_bytes(bytes(64))
    return _outside(folder, "w.bin", offset="-64")


@case
def external_offset_of_words(folder: Path) -> Path:
    (folder / "w.bin").write_bytes(bytes(64))
    return _outside(folder, "w.bin", offset="here", length="there")


@case
def external_url(folder: Path) -> Path:
    return _outside(folder, "https://example.org/w.bin")


# sparse tensors


def _sparse(folder: Path, indices: Any, values: int = 2, dims: Sequence[int] = (4, 4)) -> Path:
    proto = model(tensors=[])
    sparse = proto.graph.sparse_initializer.add(dims=dims)
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(values, np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.asarray(indices, np.int64), "i"))
    return saved(folder, proto)


@case
def sparse_beyond_the_end(folder: Path) -> Path:
    return _sparse(folder, [0, 16])


@case
def sparse_before_the_start(folder: Path) -> Path:
    return _sparse(folder, [-1, 3])


@case
def sparse_of_another_count(folder: Path) -> Path:
    return _sparse(folder, [0, 1, 2])


@case
def sparse_pairs_outside(folder: Path) -> Path:
    return _sparse(folder, [[0, 0], [4, 0]])


@case
def sparse_triples(folder: Path) -> Path:
    return _sparse(folder, [[0, 0, 0], [1, 1, 1]])


@case
def sparse_of_a_huge_shape(folder: Path) -> Path:
    return _sparse(folder, [0, 1], dims=(1 << 31, 1 << 31))


@case
def sparse_of_a_negative_shape(folder: Path) -> Path:
    return _sparse(folder, [0, 1], dims=(-4, 4))


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
        return bytes([number << 3 | 2]) + _varint(len(data)) + data

    graph = field(1, node("Relu", ("x",), ("y",)).SerializeToString()) + field(12, value("y").SerializeToString())
    for _ in range(depth):
        branch = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        other = field(1, b"else_branch") + field(6, field(2, b"e")) + b"\xa0\x01\x05"
        deep = field(1, b"x") + field(2, b"y") + field(4, b"If") + field(5, branch) + field(5, other)
        graph = field(1, deep) + field(12, value("y").SerializeToString())
    return graph


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _wrapped(graph: bytes) -> bytes:
    """A model around the bytes of a graph."""
    return b"\x08\x08" + b"\x3a" + _varint(len(graph)) + graph + b"\x42\x04\x0a\x00\x10\x11"


def _if_file(folder: Path, depth: int) -> Path:
    inputs = value("x").SerializeToString()
    return saved(folder, _wrapped(nested_if(depth) + b"\x5a" + _varint(len(inputs)) + inputs))


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
    parts += [tag + _varint(len(data)) + data for tag, data in ends]
    return _wrapped(b"".join(parts))


def chain(op: bytes, count: int) -> bytes:
    """x -> op -> op ... -> y."""
    names = [b"x", *(b"v%d" % i for i in range(count - 1)), b"y"]
    return fast((op, [names[i]], [names[i + 1]]) for i in range(count))


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
    return saved(folder, _wrapped(b"\x0a" + _varint(len(wide)) + wide + graph[:length]))


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
