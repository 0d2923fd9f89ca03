"""ONNX files: what is taken over, and one clear message for every broken one."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from insitu.base.errors import ModelError
from insitu.frontend.onnx import import_model, import_onnx
from insitu.frontend.onnx_file import parse_model
from insitu.graph.verify import verify
from tests.graph.networks import model, node, random_model

ROW = {"x": ["N", 4]}
RELU = [node("Relu", ["x"], ["y"])]


def fails(proto: onnx.ModelProto, **given_: object) -> str:
    with pytest.raises(ModelError) as caught:
        import_model(proto, where="net.onnx", **given_)  # type: ignore[arg-type]
    error = caught.value
    assert error.where.startswith("net.onnx")
    assert error.got
    assert error.need
    return str(error)


def dense(w: object = None) -> onnx.ModelProto:
    w = np.ones((4, 2), np.float32) if w is None else w
    return model([node("MatMul", ["x", "w"], ["y"])], inputs=ROW, outputs=["y"], tensors={"w": np.asarray(w)})


# what is taken over


def test_names_meta_and_batch() -> None:
    proto = dense()
    proto.producer_name, proto.producer_version = "exporter", "1.2"
    graph = import_model(proto, name="net")
    assert (graph.name, graph.level, graph.inputs, graph.outputs) == ("net", "captured", ("x",), ("y",))
    assert graph.types["x"].shape == (1, 4)
    assert graph.meta == {
        "opset": 17, "producer": "exporter 1.2", "parameters": 8, "batch_inputs": ("x",), "input_dtypes": ("f32",),
    }  # fmt: skip


def test_odd_names_become_plain_and_unique() -> None:
    nodes = [node("Relu", ["in put"], ["a b"]), node("Relu", ["a b"], ["a_b"]), node("Relu", ["a_b"], ['"y"'])]
    nodes[0].name, nodes[1].name, nodes[2].name = "n", "n", ""
    graph = import_model(model(nodes, inputs={"in put": ["N", 4]}, outputs=['"y"']))
    assert graph.inputs == ("in_put",)
    assert graph.outputs == ("_y_",)
    assert [n.output for n in graph.nodes] == ["a_b", "a_b_2", "_y_"]
    assert [n.name for n in graph.nodes] == ["n", "n_2", "Relu_2"]
    assert graph.meta["original_names"] == ("in put", '"y"')


def test_chained_names_of_converters_keep_their_last_link() -> None:
    chain = ";".join(["model/batch_normalization/FusedBatchNormV3"] * 3 + ["model/conv2d/Conv2D"])
    graph = import_model(model([node("Relu", ["x"], [chain]), node("Relu", [chain], ["y"])], inputs=ROW, outputs=["y"]))
    assert graph.nodes[0].output == "model/conv2d/Conv2D"


def test_constants_fold_and_dead_nodes_go() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["b"]),
        node("Unsqueeze", ["b", "axes"], ["b1"]),
        node("Constant", [], ["rest"], value_ints=[-1]),
        node("Concat", ["b1", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
        node("LSTM", ["x"], ["nobody"]),
        node("Sqrt", ["v"], ["root"]),
        node("Mul", ["y", "root"], ["z"]),
    ]
    tensors = {"zero": np.int64(0), "axes": np.array([0]), "v": np.array([4.0], np.float32)}
    graph = verify(import_model(model(nodes, inputs={"x": ["N", 2, 3]}, outputs=["z"], tensors=tensors)))
    assert [(n.op, n.attrs.get("shape")) for n in graph.nodes] == [("Reshape", (1, 6)), ("Mul", None)]
    assert graph.constants[graph.nodes[1].inputs[1]].tolist() == [2.0]


def test_nodes_in_any_order() -> None:
    nodes = [node("Relu", ["a"], ["y"]), node("Relu", ["x"], ["a"])]
    assert [n.output for n in import_model(model(nodes, inputs=ROW, outputs=["y"])).nodes] == ["a", "y"]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, "bfloat16"])
def test_floats_of_any_width_become_float32(dtype: object) -> None:
    import ml_dtypes

    w = np.full((4, 2), 0.5).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)  # type: ignore[arg-type]
    graph = import_model(dense(w))
    assert graph.constants["w"].dtype == np.float32
    assert np.all(graph.constants["w"] == 0.5)


def test_integer_inputs_are_computed_in_float() -> None:
    proto = model(RELU, inputs=ROW, outputs=["y"])
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    graph = import_model(proto)
    assert (graph.types["x"].dtype, graph.meta["input_dtypes"]) == ("f32", ("u8",))


def test_initializer_that_is_also_an_input_is_a_weight() -> None:
    proto = dense()
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 2]))
    assert import_model(proto).inputs == ("x",)


def test_sparse_weights_are_written_out() -> None:
    proto = dense()
    del proto.graph.initializer[:]
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [3.0, 4.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [1, 6])
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 2]))
    assert import_model(proto).constants["w"].reshape(-1).tolist() == [0, 3, 0, 0, 0, 0, 4, 0]


def test_old_opsets() -> None:
    nodes = [
        node("Clip", ["x"], ["a"], min=0.0, max=6.0),
        node("Slice", ["a"], ["b"], starts=[0], ends=[2], axes=[1]),
        node("Pad", ["b"], ["c"], pads=[0, 0, 0, 1], value=2.0),
        node("Unsqueeze", ["c"], ["d"], axes=[1]),
        node("Dropout", ["d"], ["e"]),
        node("Squeeze", ["e"], ["y"], axes=[1]),
    ]
    graph = verify(import_model(model(nodes, inputs=ROW, outputs=["y"], opset=8)))
    assert [n.op for n in graph.nodes] == ["Clip", "Slice", "Pad", "Unsqueeze", "Squeeze"]
    assert graph.nodes[2].attrs == {"pads": (0, 0, 0, 1), "value": 2.0}


def test_new_opsets() -> None:
    nodes = [node("ReduceMean", ["x", "axes"], ["a"], keepdims=0), node("Pad", ["a", "pads", "", "ax"], ["y"])]
    tensors = {"axes": np.array([2, 3]), "pads": np.array([1, 2]), "ax": np.array([-1])}
    proto = model(nodes, inputs={"x": ["N", 3, 4, 4]}, outputs=["y"], tensors=tensors, opset=20)
    graph = verify(import_model(proto))
    assert graph.types["y"].shape == (1, 6)


def test_external_data(tmp_path: Path) -> None:
    proto = dense(np.arange(8, dtype=np.float32).reshape(4, 2))
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    assert import_onnx(tmp_path / "net.onnx").constants["w"].reshape(-1).tolist() == list(range(8))


# sizes


def test_sizes_that_nobody_gave() -> None:
    proto = model(RELU, inputs={"x": ["N", 3, "H", "W"], "z": [1, None]}, outputs=["y"])
    proto.graph.node.append(node("Relu", ["z"], ["q"]))
    text = fails(proto)
    assert "H, W of input 'x'" in text
    assert "--shape x=1,3,H,W" in text
    graph = import_model(proto, shapes={"x": (1, 3, 8, 9), "z": (1, 2)})
    assert graph.types["x"].shape == (1, 3, 8, 9)


def test_one_name_is_one_size() -> None:
    nodes = [node("Add", ["x", "s"], ["y"])]
    proto = model(nodes, inputs={"x": ["batch", "T"], "s": [1, "T"]}, outputs=["y"])
    graph = import_model(proto, shapes={"s": (1, 5)})
    assert (graph.types["x"].shape, graph.meta["batch_inputs"]) == ((1, 5), ("x",))
    assert "one size for 'T'" in fails(proto, shapes={"s": (1, 5), "x": (1, 6)})


def test_a_size_may_stay_open() -> None:
    proto = model(RELU, inputs={"x": ["N", "T"]}, outputs=["y"])
    assert import_model(proto, shapes={"x": (1, "T")}).types["y"].shape == (1, "T")
    assert import_model(proto, shapes={"x": ("N", 7)}).types["y"].shape == ("N", 7)


def test_wrong_shapes_given() -> None:
    proto = model(RELU, inputs={"x": ["N", 3]}, outputs=["y"])
    assert "did" not in fails(proto, shapes={"x": (1, 4)})
    assert "2 sizes" in fails(proto, shapes={"x": (1, 3, 1)})
    assert "at least 1" in fails(proto, shapes={"x": (0, 3)})
    assert "Try: x" in fails(proto, shapes={"xx": (1, 3)})


def test_size_of_an_open_dimension_asked_for() -> None:
    nodes = [node("Shape", ["x"], ["s"]), node("Reshape", ["x", "s"], ["y"])]
    proto = model(nodes, inputs={"x": ["N", "T"]}, outputs=["y"])
    assert "the size 'T', which is not known" in fails(proto, shapes={"x": (1, "T")})


# broken files


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"hello, this is no model\n", "text file"),
        (b"PK\x03\x04" + bytes(40), "zip archive"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(40), "TensorFlow Lite"),
        (bytes(range(256)) * 4, "not an ONNX model"),
        (b"\x08\x08", "no network"),
    ],
)
def test_not_an_onnx_file(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=word) as caught:
        import_onnx(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ModelError, match="cannot be read"):
            import_onnx(path)


def test_truncated_and_altered_files_never_crash() -> None:
    data = random_model(3)[0].SerializeToString()
    rng = np.random.default_rng(0)
    changed = [data[:n] for n in range(0, len(data), 7)]
    for _ in range(400):
        copy = bytearray(data)
        copy[int(rng.integers(len(copy)))] = int(rng.integers(256))
        changed.append(bytes(copy))
    for content in changed:
        try:
            verify(import_model(parse_model(content, "m"), where="m"))
        except ModelError as error:
            assert str(error).startswith("m"), error  # noqa: PT017


def test_operators_that_nobody_can_run_are_named_all_at_once() -> None:
    nodes = [
        node("Tanh", ["x"], ["a"]),
        helper.make_node("Magic", ["a"], ["b"], name="b_node", domain="com.example"),
        node("NonZero", ["a"], ["c"]),
        helper.make_node("Magic", ["b"], ["d"], name="d_node", domain="com.example"),
        node("Relu", ["d"], ["e"]),
        node("Cast", ["c"], ["f"], to=TensorProto.FLOAT),
        node("ReduceSum", ["f"], ["g"]),
        node("Add", ["e", "g"], ["z"]),
        node("Softsign", ["a"], ["s"]),
    ]
    with pytest.raises(ModelError) as caught:
        import_model(model(nodes, inputs=ROW, outputs=["z", "s"]))
    assert caught.value.code == "unsupported_operator"
    for word in ("3 nodes", "com.example::Magic (no such operator)", "b_node", "d_node", "NonZero", "c_node",
                 "depends on data", "2 nodes as vector commands"):  # fmt: skip
        assert word in caught.value.got
    assert caught.value.try_


def test_local_functions_are_taken_apart() -> None:
    proto = model([helper.make_node("Twice", ["x"], ["y"], name="t", domain="local")], inputs=ROW, outputs=["y"])
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    assert [n.op for n in import_model(proto).nodes] == ["Add"]


def test_weights_that_are_not_numbers() -> None:
    w = np.ones((4, 2), np.float32)
    w[1, 1] = np.nan
    assert "NaN values in 'w'" in fails(dense(w))
    w[1, 1] = np.inf
    assert "infinite values in 'w'" in fails(dense(w))
    assert "infinite values in 'w'" in fails(dense(np.full((4, 2), 1e300)))


def test_values_nobody_defines() -> None:
    proto = dense()
    del proto.graph.initializer[:]
    assert "node 'y_node' (MatMul) reads 'w'" in fails(proto)
    assert "the network reads 'q'" in fails(model(RELU, inputs=ROW, outputs=["q"]))


def test_cycle_names_its_nodes() -> None:
    nodes = [node("Add", ["x", "c"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["c"]), *RELU]
    text = fails(model(nodes, inputs=ROW, outputs=["y"]))
    assert "cycle" in text
    assert all(f"'{n}_node'" in text for n in "abc")
    assert "'y_node'" not in text


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda m: m.graph.node.append(node("Relu", ["x"], ["y"])), "writes 'y'"),
        (lambda m: m.graph.node.append(node("Relu", ["x"], ["x"])), "writes 'x', which an input is already"),
        (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "two tensors"),
        (lambda m: m.graph.input.append(m.graph.input[0]), "two inputs are called 'x'"),
        (lambda m: m.graph.ClearField("input"), "no input"),
        (lambda m: m.graph.ClearField("output"), "no output"),
        (lambda m: m.ClearField("opset_import"), "opset"),
        (lambda m: setattr(m.opset_import[0], "version", 3), "opset 3"),
        (lambda m: m.graph.input[0].ClearField("type"), "no type"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 8), "element type STRING"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99), "element type 99"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", -4), "a size of -4"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 2**40), "at most"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 5), "equal inner sizes"),
        (lambda m: m.graph.input[0].type.tensor_type.shape.dim.pop(), "product of"),
        (lambda m: m.graph.initializer[0].dims.append(-1), "the shape [4, 2, -1]"),
        (lambda m: m.graph.initializer[0].dims.append(2**50), "elements in all"),
        (lambda m: m.graph.initializer[0].dims.append(3), "does not match"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 0), "does not match"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 77), "does not match"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 7), "does not match"),
        (lambda m: setattr(m.graph.initializer[0], "name", ""), "without a name"),
        (lambda m: m.graph.output.append(helper.make_tensor_value_info("w", 1, None)), "output 'w' is constant"),
        (lambda m: m.graph.output.append(helper.make_tensor_value_info("x", 1, None)), "output 'x' is an input"),
        (lambda m: m.graph.node[0].input.pop(), "1 inputs"),
    ],
)  # fmt: skip
def test_broken_structure(change: Callable[[onnx.ModelProto], object], word: str) -> None:
    proto = dense()
    change(proto)
    assert word in fails(proto)


def test_wrong_ranks_name_the_node() -> None:
    w = np.ones((2, 4, 3, 3), np.float32)
    assert "'y_node' (Conv)" in fails(
        model([node("Conv", ["x", "w"], ["y"])], inputs=ROW, outputs=["y"], tensors={"w": w})
    )
    assert "5 x 1" not in fails(
        model([node("Conv", ["x", "w"], ["y"])], inputs={"x": ["N", 5, 8, 8]}, outputs=["y"], tensors={"w": w})
    )


def test_huge_constants_are_refused_before_they_are_made() -> None:
    nodes = [node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])]
    proto = model(nodes, inputs=ROW, outputs=["y"], tensors={"s": np.array([1 << 20, 1 << 20])})
    assert "at most" in fails(proto)
    doubling = [node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=0) for i in range(40)]
    proto = model(
        [*doubling, node("Add", ["x", "c40"], ["y"])], inputs=ROW, outputs=["y"], tensors={"c0": np.ones(4, np.float32)}
    )
    started = time.perf_counter()
    assert "at most" in fails(proto)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/passwd", "", "missing.bin", "a\0b", "sub/../../secret.bin"]
)
def test_external_data_stays_in_its_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(32))
    folder = tmp_path / "model"
    folder.mkdir()
    proto = dense()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"outside the model's folder|missing"):
        import_onnx(folder / "net.onnx")


def test_external_data_that_is_too_short(tmp_path: Path) -> None:
    onnx.save(dense(), tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    (tmp_path / "net.data").write_bytes(bytes(5))
    with pytest.raises(ModelError, match=r"net\.data, which has 5"):
        import_onnx(tmp_path / "net.onnx")


def test_external_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(32))
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(dense(), folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    (folder / "net.data").unlink()
    (folder / "net.data").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match="outside"):
        import_onnx(folder / "net.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("names", ["own", *(pytest.param(n, marks=pytest.mark.long) for n in ("same", "none"))])
def test_fifty_thousand_nodes_in_seconds(names: str) -> None:
    count = 50_000
    graph = model([], inputs=ROW, outputs=[f"v{count}"])
    for i in range(count):
        name = {"same": "n", "none": "", "own": f"n{i}"}[names]
        graph.graph.node.add(op_type="Relu", input=["x" if i == 0 else f"v{i}"], output=[f"v{i + 1}"], name=name)
    started = time.perf_counter()
    assert len(import_model(graph).nodes) == count
    assert time.perf_counter() - started < 30


def test_sparse_weights_out_of_bounds() -> None:
    proto = dense()
    del proto.graph.initializer[:]
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [3.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [99])
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 2]))
    assert "indices" in fails(proto)
    proto.graph.sparse_initializer[0].dims[0] = 1 << 40
    assert "tensor 'w'" in fails(proto)


@given(data=st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    try:
        import_model(parse_model(data, "m"), where="m")
    except ModelError as error:
        assert str(error)  # noqa: PT017


def test_division_by_zero() -> None:
    proto = model([node("Div", ["x", "w"], ["y"])], inputs=ROW, outputs=["y"], tensors={"w": np.zeros(4, np.float32)})
    assert "division by zero" in fails(proto)


def test_raw_data_of_another_length() -> None:
    proto = dense()
    proto.graph.initializer[0].raw_data = struct.pack("<3f", 1, 2, 3)
    assert "tensor 'w'" in fails(proto)


def test_all_values_are_checked_as_they_are_declared() -> None:
    proto = dense()
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([["a", "b"]] * 4, object), "w"))
    assert "numbers" in fails(proto)
