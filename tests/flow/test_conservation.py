"""What a compiled program asks of the hardware is what its network needs: MACs, conversions, bytes in closed form."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from insitu.base.errors import InfeasibleError
from insitu.flow.chain import capture
from insitu.graph.graph import Graph
from insitu.graph.ops.macs import macs
from insitu.isa.program import Program
from insitu.sim.counts import count
from insitu.sim.timing import check_trace, simulate_time
from tests.flow.line import FULL, SMALL, build, captured, chip_of
from tests.flow.test_operators import NETS
from tests.flow.test_sections import residual
from tests.graph.networks import model, node

BYTES = {"i8": 1, "u8": 1, "i16": 2, "u16": 2, "i32": 4}


def weighted(graph: Graph):
    return [n for n in graph.nodes if n.op in ("Conv", "MatMul") and n.inputs[1] in graph.constants]


def bytes_of(graph: Graph, value: str) -> int:
    kind = graph.type(value)
    return kind.count() * BYTES[kind.dtype]


def positions(graph: Graph, layer) -> int:
    sizes = graph.type(layer.output).sizes()
    return sizes[0] * prod(sizes[2:]) if layer.op == "Conv" else prod(sizes[:-1])


def row_parts(program: Program, label: str) -> int:
    """Row tiles that the columns of a layer lie on (the same for all of them)."""
    found = [b for s in program.sections for b in s.bindings if b.label == label]
    per_column = {sum(t.col0 <= c < t.col0 + t.cols for t in b.tiles) for b in found for c in range(b.cols)}
    assert len(per_column) == 1
    return per_column.pop()


def plain_net(rng):
    """No padding, so that no halo is written: convs, a residual sum, a mean, a classifier."""
    shapes = {"a": (9, 4, 3, 3), "b": (9, 9, 1, 1), "c": (20, 9, 3, 3), "f": (11, 20)}
    tensors = {n: (rng.standard_normal(s) / np.sqrt(prod(s[1:]))).astype(np.float32) for n, s in shapes.items()}
    nodes = [
        node("Conv", ["x", "a"], ["h0"]),
        node("Relu", ["h0"], ["h1"]),
        node("Conv", ["h1", "b"], ["h2"]),
        node("Add", ["h1", "h2"], ["h3"]),
        node("MaxPool", ["h3"], ["h4"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["h4", "c"], ["h5"]),
        node("GlobalAveragePool", ["h5"], ["h6"]),
        node("Flatten", ["h6"], ["h7"]),
        node("Gemm", ["h7", "f"], ["y"], transB=1),
    ]
    return captured(model(nodes, inputs={"x": ["N", 4, 12, 12]}, outputs=["y"], tensors=tensors))


@pytest.mark.parametrize("chip", [*FULL, *SMALL])
@pytest.mark.parametrize("name", ["plain", "residual", "conv_grouped", "conv_depthwise", "gemm_tall_and_wide"])
def test_macs_are_those_of_the_network(name, chip):
    rng = np.random.default_rng(0)
    graph = {"plain": plain_net, "residual": residual}.get(name, lambda r: captured(NETS[name](r)))(rng)
    try:
        quantized, program = build(graph, chip_of(chip))
    except InfeasibleError:
        assert chip in SMALL
        return
    total = count(program, chip_of(chip)).total
    assert total["macs"] == sum(macs(quantized, n) for n in weighted(quantized))
    assert total["mma_macs"] == 0
    assert total["vectors"] >= sum(positions(quantized, n) for n in weighted(quantized))


def test_macs_of_two_run_time_operands():
    nodes = [node("MatMul", ["x", "z"], ["y"])]
    proto = model(nodes, inputs={"x": ["N", 3, 5, 7], "z": ["N", 3, 7, 4]}, outputs=["y"])
    quantized, program = build(captured(proto), chip_of("exact"))
    assert count(program, chip_of("exact")).total["mma_macs"] == 3 * 5 * 7 * 4 == macs(quantized, quantized.nodes[0])


@pytest.mark.parametrize("chip", ["adc", "adc-small", "wtm2101", "wtm2101-small", "exact"])
def test_conversions_are_vectors_times_columns_parts_slices_and_passes(chip):
    spec = chip_of(chip)
    quantized, program = build(plain_net(np.random.default_rng(0)), spec)
    per_column = spec.macro.passes * spec.macro.weights.slices * spec.calibration.reads
    wanted = 0
    for layer in weighted(quantized):
        columns = quantized.constants[layer.inputs[1]].shape[0 if layer.op == "Conv" else 1]
        wanted += positions(quantized, layer) * columns * row_parts(program, layer.name) * per_column
    total = count(program, spec).total
    assert total["adc_conversions"] == (0 if chip == "exact" else wanted)
    if "small" in chip:
        assert any(row_parts(program, n.name) > 1 for n in weighted(quantized))


@pytest.mark.parametrize("chip", FULL)
def test_bytes_written_are_the_values_each_once(chip):
    quantized, program = build(plain_net(np.random.default_rng(0)), chip_of(chip))
    written = sum(bytes_of(quantized, n.output) for n in quantized.nodes if n.op != "Reshape")
    assert count(program, chip_of(chip)).total["ram_write_bytes"] == written


@pytest.mark.parametrize("chip", FULL)
def test_bytes_read_are_inputs_once_per_command_that_reads_them(chip):
    """A layer whose columns fit one binding reads every vector once; the core keeps what two vectors share."""
    rng = np.random.default_rng(1)
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "v"], ["c"]),
        node("Add", ["c", "x"], ["y"]),
    ]
    tensors = {n: (rng.standard_normal(s) / 4).astype(np.float32) for n, s in {"w": (16, 8), "v": (8, 16)}.items()}
    graph = captured(model(nodes, inputs={"x": ["N", 10, 16]}, outputs=["y"], tensors=tensors))
    quantized, program = build(graph, chip_of(chip))
    read = sum(bytes_of(quantized, v) for n in quantized.nodes for v in n.inputs if v and v not in quantized.constants)
    assert count(program, chip_of(chip)).total["ram_read_bytes"] == read


@pytest.mark.parametrize("chip", [*FULL, "exact-joined", "wtm2101-small"])
def test_time_respects_every_unit(chip):
    spec = chip_of(chip)
    _, program = build(residual(np.random.default_rng(0)), spec)
    check_time(program, chip)


def check_time(program: Program, chip: str, *, trace: bool = True) -> None:
    """Executed counts are the closed ones, no unit is asked for more than it can do, none does two things at once."""
    spec = chip_of(chip)
    timing = simulate_time(program, spec, trace=trace)
    counts = count(program, spec)
    assert timing.counts == counts
    assert timing.latency_ps >= timing.lower_bound_ps > 0
    total, latency = counts.total, timing.latency
    memory = spec.memories["ram"]
    floor = {
        "memory": (total["ram_read_bytes"] + total["ram_write_bytes"]) / memory.bandwidth,
        "vector units": total["vector_operations"] / (spec.core.vector.lanes * spec.chip.clock * spec.cores),
        "busiest array": max(counts.tiles.values()) * spec.macro.t_read,
    }
    assert all(latency >= 0.999999 * least for least in floor.values()), (latency, floor)
    if trace:
        assert len(timing.spans)
        assert check_trace(timing.spans) == []


@pytest.mark.parametrize("chip", ["exact", "wtm2101"])
@pytest.mark.parametrize("name", ["mlperf_tiny/kws_dscnn.onnx", "cifar_resnet/resnet20.onnx"])
def test_real_networks_are_conserved(name, chip, shared_data):
    path = shared_data / name
    if not path.exists():
        pytest.skip(f"needs {path}")
    quantized, program = build(capture(path), chip_of(chip))
    assert count(program, chip_of(chip)).total["macs"] == sum(macs(quantized, n) for n in weighted(quantized))
    check_time(program, chip, trace="kws" in name)
