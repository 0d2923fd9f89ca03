"""Vendor networks through the whole line: imported, placed, compiled, 0 integers differ between all witnesses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import insitu
from insitu.arch.load import load_chip
from insitu.base.errors import DataError, ModelError
from insitu.compiler.pipeline import compile_graph
from insitu.flow.check import compare
from insitu.frontend.onnx import import_model
from insitu.frontend.wtm2101 import Reading
from insitu.graph.graph import Graph
from insitu.graph.text import parse_graph, print_graph, same_graph
from insitu.graph.verify import verify
from insitu.isa.check import check_program
from insitu.isa.program import load_program
from insitu.runtime.session import Session
from tests.flow.line import check_semantics
from tests.frontend.vendor import (
    SAMPLES,
    Array,
    biases,
    layer,
    network,
    read,
    sigmoid_table,
    tanh_table,
    tensor,
    weights,
)

CHIP = load_chip("wtm2101")


def session_of(graph: Graph) -> Session:
    """The compiled and checked program of a graph, loaded."""
    program = compile_graph(verify(graph), CHIP)
    check_program(program)
    return Session(program, graph=graph)


def holds(graph: Graph, *, samples: int = 12) -> Session:
    """Interpreter, simulator and the graph's text agree on random inputs."""
    assert same_graph(parse_graph(print_graph(graph, weights=True)), graph)
    session = session_of(graph)
    rng = np.random.default_rng(5)
    codes: dict[str, Array] = {}
    for name in graph.inputs:
        spec = session.spec(name)
        codes[name] = rng.integers(spec.lo, spec.hi + 1, (samples, *graph.type(name).sizes()))
    exact = compare(session, codes)
    assert exact.mismatches == 0, exact.first
    assert exact.checked_values > 0
    return session


def lstm(rng: np.random.Generator, inputs: int, size: int) -> tuple[Any, dict[str, Array]]:
    """An Lstm node that reads "line", with its tensors."""
    tables = [tensor(f"t{i}", t[None]) for i, t in enumerate((sigmoid_table(), tanh_table(), tanh_table(256)))]
    node = helper.make_node(
        "Lstm", ["line", "wi", "wc", "bi", "bc"], ["state"], name="cell", scale_ioft=2048, scale_ct=1024,
        activate_type=["sigmoid", "tanh", "tanh"], activate_table=tables, shift_bits=[-7, -7],
    )  # fmt: skip
    shapes = {"wi": (inputs + size, 3 * size), "wc": (inputs + size, size)}
    tensors = {n: weights(rng, *s) for n, s in shapes.items()}
    return node, tensors | {"bi": biases(rng, 3 * size, 20), "bc": biases(rng, size, 20)}


def denoiser(frames: int) -> Graph:
    """Convolutions over time, a recurrent cell, a transposed convolution back: as the vendor's denoising networks."""
    rng = np.random.default_rng(11)
    cell, tensors = lstm(rng, 24, 8)
    nodes = [
        *layer("Conv", "x", "a", relu=True, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 0, 0]),
        helper.make_node("Reshape", ["a", "flat"], ["line"]),
        cell,
        *layer("Gemm", "state", "b"),
        helper.make_node("Reshape", ["b", "map"], ["c"]),
        helper.make_node("Concat", ["c", "a"], ["d"], axis=1),
        *layer("ConvTranspose", "d", "y", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0],
               output_padding=[1, 0, 1, 0]),
    ]  # fmt: skip
    tensors |= {"a.w": weights(rng, 6, 2, 3, 2), "a.b": biases(rng, 6), "b.w": weights(rng, 8, 24)}
    tensors |= {"b.b": biases(rng, 24, 30), "y.w": weights(rng, 12, 2, 3, 2), "y.b": biases(rng, 2)}
    tensors |= {"flat": np.array([frames, 24]), "map": np.array([1, 6, 4, frames])}
    proto = network(nodes, inputs={"x": [1, 2, 8, frames]}, outputs=["y"], tensors=tensors)
    return import_model(proto, reading=Reading(signed_inputs=("x",)))


def test_a_denoising_network_is_a_stream_of_frames() -> None:
    graph = denoiser(40)
    assert graph.type("x").shape == (1, 2, 8, 1)
    assert graph.type("y").shape == (1, 2, 8, 1)
    assert graph.meta["frames"] == 1
    holds(graph, samples=20)


def test_frames_may_come_as_one_record() -> None:
    graph, rng = denoiser(40), np.random.default_rng(2)
    record = rng.integers(-128, 128, (1, 2, 8, 9))
    rows = np.moveaxis(record, -1, 0)[..., None]
    one, other = (insitu.deploy(graph, CHIP, data={"x": x}, physics="ideal") for x in (record, rows))
    assert one.result.bit_exact == other.result.bit_exact
    assert one.result.bit_exact is not None
    assert one.result.bit_exact.mismatches == 0
    assert one.result.calibration == "model"
    assert one.metrics.get("accuracy_float") is None


def test_the_reference_semantics_agree_with_the_simulator() -> None:
    rng = np.random.default_rng(4)
    nodes = [
        *layer("Gemm", "x", "h"),
        helper.make_node("ActLut", ["h"], ["y"], table_params=tensor("t", tanh_table(256))),
    ]
    tensors = {"h.w": weights(rng, 9, 4), "h.b": biases(rng, 4)}
    graph = import_model(network(nodes, inputs={"x": [1, 9]}, outputs=["y"], tensors=tensors))
    session = holds(graph)
    check_semantics(session.program, graph, {"x": rng.integers(0, 256, (1, 9))})


def test_data_say_whether_inputs_are_signed(tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    cell, tensors = lstm(rng, 6, 4)
    path = tmp_path / "cell.onnx"
    path.write_bytes(network([cell], inputs={"line": [1, 6]}, outputs=["state"], tensors=tensors).SerializeToString())
    for low, high, dtype in ((-128, 127, "i8"), (0, 255, "u8")):
        x = rng.integers(low, high + 1, (20, 6)).astype(np.float32)
        done = insitu.deploy(path, CHIP, data={"line": x}, physics="ideal")
        assert done.captured.type("line").dtype == dtype
        assert done.result.bit_exact is not None
        assert done.result.bit_exact.mismatches == 0


def test_outputs_far_wider_than_the_array() -> None:
    rng = np.random.default_rng(6)
    w, b = weights(rng, 40, 4300), biases(rng, 4300)
    graph = import_model(
        network(layer("Gemm", "x", "y"), inputs={"x": [1, 40]}, outputs=["y"], tensors={"y.w": w, "y.b": b})
    )
    session = holds(graph, samples=4)
    x = rng.integers(0, 256, (3, 1, 40))
    assert np.array_equal(session.run_codes({"x": x})["y"][:, 0], read(x[:, 0] @ w.astype(int) + b.astype(int), 1024))
    tiles = [t for s in session.program.sections for binding in s.bindings for t in binding.tiles]
    assert max(t.cols for t in tiles) <= 1024


def test_more_rows_than_a_region() -> None:
    rng = np.random.default_rng(6)
    tensors = {"y.w": weights(rng, 2000, 12), "y.b": biases(rng, 12)}
    graph = import_model(
        network(layer("Gemm", "x", "y", gain=4096), inputs={"x": [1, 2000]}, outputs=["y"], tensors=tensors)
    )
    assert graph.nodes[-1].attr("parts") == (0, 667, 1334, 2000)
    holds(graph)


def test_labels_give_the_accuracy_of_the_integers() -> None:
    rng = np.random.default_rng(8)
    tensors = {"y.w": weights(rng, 20, 3), "y.b": biases(rng, 3, 10)}
    graph = import_model(network(layer("Gemm", "x", "y"), inputs={"x": [1, 20]}, outputs=["y"], tensors=tensors))
    x = rng.integers(0, 256, (64, 20))
    y = read(x @ tensors["y.w"].astype(int) + tensors["y.b"].astype(int), 1024).argmax(axis=1)
    done = insitu.deploy(graph, CHIP, data={"x": x.astype(np.float32), "y": y}, instances=2)
    assert done.metrics["accuracy_quantized"].value == 1.0
    assert done.metrics["accuracy_float"].value is None
    assert done.metrics["accuracy_chip_mean"].value is not None


def test_inputs_that_are_no_codes_of_the_network() -> None:
    rng = np.random.default_rng(8)
    tensors = {"y.w": weights(rng, 20, 3), "y.b": biases(rng, 3, 10)}
    graph = import_model(network(layer("Gemm", "x", "y"), inputs={"x": [1, 20]}, outputs=["y"], tensors=tensors))
    with pytest.raises(DataError, match="codes -3 to"):
        insitu.deploy(graph, CHIP, data={"x": np.full((2, 20), -3.0)})
    with pytest.raises(DataError, match="no integers"):
        insitu.deploy(graph, CHIP, data={"x": np.full((2, 20), 0.5)})
    with pytest.raises(ModelError, match="readout of kind wtm2101"):
        insitu.deploy(graph, "dcim-28nm", data={"x": np.full((2, 20), 5)})


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the vendor's samples are not here")
@pytest.mark.parametrize("path", sorted(SAMPLES.rglob("*.onnx")), ids=lambda p: p.stem)
def test_samples_of_the_vendor_verify(path: Path) -> None:
    from insitu.frontend.load import load_model

    holds(load_model(path))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the vendor's samples are not here")
def test_the_keyword_network_equals_every_dump_on_the_chip() -> None:
    from insitu.flow.check import observed
    from insitu.frontend.load import load_model

    folder = SAMPLES / "A1_kws_dnn5"
    session = session_of(load_model(folder / "input" / "bestModel.onnx"))
    x = np.load(folder / "input" / "test_data_0_100.npy")
    seen = observed(session, session.codes(x.astype(np.int32)))
    dumps = folder / "output_DNN_yxt" / "layer_debug" / "net0"
    for i, node in enumerate(session.graph.nodes):
        file = dumps / f"{i + 1}_linear_{i + 1}" / f"round{i}" / "output0.txt"
        assert np.array_equal(seen[node.output][:, 0], np.loadtxt(file).reshape(len(x), -1)), node.name


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the vendor's samples are not here")
def test_the_vendors_side_file_changes_no_integer() -> None:
    from insitu.frontend.load import load_model
    from insitu.frontend.wtm2101_options import read_options

    folder = SAMPLES / "B1_tdnn_kws" / "tdnn_mdoel"
    plain = session_of(load_model(folder / "tdnn.onnx"))
    tuned = session_of(load_model(folder / "tdnn.onnx", reading=Reading(read_options(folder / "opt.protobuf"))))
    x = {"in_kws": np.loadtxt(folder / "tmp_cal.txt", max_rows=40).astype(np.int64)[:, None]}
    assert np.array_equal(plain.stream(x)["out_kws"], tuned.stream(x)["out_kws"])


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from insitu.cli import compile as compile_
    from insitu.cli.inputs import ModelInputs

    rng = np.random.default_rng(8)
    for name in ("left", "right"):
        tensors = {"y.w": weights(rng, 20, 30), "y.b": biases(rng, 30, 100)}
        proto = network(layer("Gemm", "x", "y"), inputs={"x": [1, 20]}, outputs=["y"], tensors=tensors)
        (tmp_path / f"{name}.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "opt.protobuf").write_text('layerOptiConfig { name: "right.y" weightOpti { shift: 1 num: 1 } }')
    (tmp_path / "one.protobuf").write_text('layerOptiConfig { name: "y" weightOpti { region: DOWN_REGION } }')
    both = ",".join(str(tmp_path / f"{n}.onnx") for n in ("left", "right"))
    out, again = (str(tmp_path / f"{n}.insitu") for n in ("out", "again"))
    assert compile_.run(ModelInputs(both, "wtm2101"), out, stop_after=None, json=False, map_=str(tmp_path / "map")) == 0
    layers = str(tmp_path / "map" / "layers.txt")
    assert compile_.run(ModelInputs(both, "wtm2101"), again, stop_after=None, json=False, layers=layers) == 0
    one, two = load_program(out), load_program(again)  # the estimates beside the code are of the placement's making
    assert replace(one, meta={}) == replace(two, meta={})
    single = ModelInputs(str(tmp_path / "left.onnx"), "wtm2101", plan=str(tmp_path / "one.protobuf"))
    assert compile_.run(single, out, stop_after=None, json=True, map_=str(tmp_path / "map")) == 0
    assert '"calibration": "model"' in capsys.readouterr().out
    assert int((tmp_path / "map" / "layers.txt").read_text().split(",")[2]) >= 896
    with pytest.raises(ModelError, match=r"'right.y'.*no node has this name"):
        compile_.run(
            ModelInputs(str(tmp_path / "left.onnx"), "wtm2101", plan=str(tmp_path / "opt.protobuf")),
            out, stop_after=None, json=False,
        )  # fmt: skip


@pytest.mark.parametrize("mode", ["MIX_MODE", "DIG_MODE", "SIM_MODE"])
def test_weights_far_beyond_a_cell(mode: str) -> None:
    from insitu.frontend.wtm2101_options import parse_options

    rng = np.random.default_rng(9)
    w = weights(rng, 60, 12)
    w[[0, 7, 8, 41]] = weights(rng, 4, 12, peak=12000)
    proto = network(layer("Gemm", "x", "y", gain=8192, relu=True), inputs={"x": [1, 60]}, outputs=["y"],
                    tensors={"y.w": w, "y.b": biases(rng, 12)})  # fmt: skip
    text = f'layerOptiConfig {{ name: "y" sparseMatrixOpti {{ sp_mode: {mode} }} }}'
    holds(import_model(proto, reading=Reading(parse_options(text))))


@pytest.mark.parametrize("mode", ["MIX_MODE", "DIG_MODE"])
def test_kernels_far_beyond_a_cell(mode: str) -> None:
    from insitu.frontend.wtm2101_options import parse_options

    rng = np.random.default_rng(9)
    w = weights(rng, 6, 2, 3, 3)
    w[[0, 5], 1] = weights(rng, 2, 3, 3, peak=12000)
    proto = network(layer("Conv", "x", "y", gain=8192, relu=True, kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=2),
                    inputs={"x": [1, 4, 6, 5]}, outputs=["y"], tensors={"y.w": w, "y.b": biases(rng, 6)})  # fmt: skip
    text = f'layerOptiConfig {{ name: "y" sparseMatrixOpti {{ sp_mode: {mode} }} }}'
    holds(import_model(proto, reading=Reading(parse_options(text))))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the vendor's samples are not here")
def test_the_keyword_network_gives_the_expected_outputs_of_the_programming_tool() -> None:
    """expected_out.bin: each layer's array outputs before its Relu, 100 frames in the order of random_idx.txt."""
    from insitu.flow.check import observed
    from insitu.frontend.load import load_model

    folder = SAMPLES / "A1_kws_dnn5"
    tool = folder / "output_DNN_yxt" / "map"
    lines = (tool / "random_idx.txt").read_text().splitlines()
    start = int(lines[0].split("=")[1])
    order = [[int(v) for v in line.strip(",").split(",")] for line in lines[1:] if line[:1].isdigit()]
    session = session_of(load_model(folder / "input" / "bestModel.onnx"))
    x = np.load(folder / "input" / "test_data_0_100.npy").astype(np.int32)
    seen, wanted = observed(session, session.codes(x)), np.fromfile(tool / "expected_out.bin", np.int16)
    for node, frames in zip(session.graph.nodes, order, strict=True):
        rows = seen[node.output][:, 0][(np.array(frames) + start) % len(x)]
        mine, wanted = wanted[: rows.size].reshape(rows.shape), wanted[rows.size :]
        assert np.array_equal(rows, np.maximum(mine, int(node.attr("lo")))), node.name
    assert wanted.size == 0


@pytest.mark.parametrize("kind", ["u_net", "denoiser"])
def test_layers_dump_under_stable_names(kind: str, tmp_path: Path) -> None:
    from insitu.flow.dump import dump_layers
    from tests.frontend.vendor_networks import drawn

    proto, inputs = drawn(kind, 2)
    graph = verify(import_model(proto))
    files = dump_layers(graph, inputs, tmp_path, stream=bool(graph.states))
    layers = [n for n in graph.nodes if n.op in ("Conv", "MatMul")]
    assert len(files) == 2 * len(layers)
    assert files[1] == tmp_path / "net0" / f"1_{layers[0].name}" / "round0" / "output0.txt"
    for node, file in zip(layers, files[1::2], strict=True):
        assert np.loadtxt(file, ndmin=2).shape == (12, graph.type(node.output).count())
    session = Session(compile_graph(graph, CHIP), graph=graph)
    last = session.stream(inputs) if graph.states else session.run_codes(inputs)
    if layers[-1].output in last:
        order = (0, 1, *range(last[layers[-1].output].ndim - 1, 1, -1))
        assert np.array_equal(
            np.loadtxt(files[-1]).reshape(12, -1), last[layers[-1].output].transpose(order).reshape(12, -1)
        )


def test_names_of_layers_lead_no_dump_out_of_its_folder(tmp_path: Path) -> None:
    from insitu.flow.dump import dump_layers

    rng = np.random.default_rng(1)
    tensors = {"y.w": weights(rng, 5, 3), "y.b": biases(rng, 3)}
    proto = network(layer("Gemm", "x", "y", name="../../up"), inputs={"x": [1, 5]}, outputs=["y"], tensors=tensors)
    files = dump_layers(import_model(proto), {"x": rng.integers(0, 256, (2, 1, 5))}, tmp_path / "dump")
    assert all(f.resolve().is_relative_to(tmp_path / "dump") for f in files)


def test_forty_eight_blocks_on_one_array() -> None:
    """48 Gemms of 235 x 123 fill the array; beside 128 reserved columns only 42 of them find room, whole."""
    from insitu.base.errors import InfeasibleError

    rng = np.random.default_rng(0)
    names = [f"y{i}" for i in range(48)]
    tensors = {f"{n}.w": weights(rng, 235, 123) for n in names} | {f"{n}.b": biases(rng, 123, 100) for n in names}
    nodes = [node for n in names for node in layer("Gemm", f"x.{n}", n, gain=2048)]
    graph = import_model(network(nodes, inputs={f"x.{n}": [1, 235] for n in names}, outputs=names, tensors=tensors))
    program = compile_graph(graph, CHIP)
    check_program(program)
    tiles = [t for s in program.sections for b in s.bindings for t in b.tiles]
    assert [(t.rows, t.cols) for t in tiles] == [(235, 123)] * 48
    with pytest.raises(InfeasibleError, match="beside 128 reserved columns"):
        compile_graph(graph, load_chip("wtm2101", overrides=["macro.reserved_columns=128"]))
