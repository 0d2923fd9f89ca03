"""Files that are no model, graphs that cannot run, operators used wrongly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tests.frontend.hostile_base import (
    case,
    fast,
    model,
    node,
    saved,
    sound,
    value,
    weight,
)

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
