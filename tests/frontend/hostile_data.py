"""Inputs, tensors and external data that are not what they say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.frontend.hostile_base import (
    FLOAT,
    case,
    model,
    node,
    saved,
    value,
    weight,
)

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
