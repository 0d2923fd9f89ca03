"""Random networks of the dialect against the reference written apart from the package: every integer equal."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.compiler.pipeline import compile_graph
from insitu.frontend.onnx import import_model
from insitu.graph.verify import verify
from insitu.isa.check import check_program
from insitu.runtime.session import Session
from tests.frontend.test_wtm2101 import stepped
from tests.frontend.vendor import biases, layer, network, weights
from tests.frontend.vendor_networks import BEYOND, KINDS, STREAMS, drawn
from tests.frontend.vendor_reference import Reference, joined

QUICK, SEEDS = 2, 12


@pytest.mark.parametrize("seed", [s if s < QUICK else pytest.param(s, marks=pytest.mark.slow) for s in range(SEEDS)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_integer_is_the_references(kind: str, seed: int) -> None:
    proto, inputs = drawn(kind, seed)
    wanted = Reference(proto, inputs).outputs
    got = stepped(verify(import_model(proto)), inputs)
    for name, array in wanted.items():
        few = min(2, array.shape[-1])  # of one column two values say something
        assert len(np.unique(array)) > few, "a network that says something"
        assert np.array_equal(got[name].reshape(array.shape), array)


@pytest.mark.parametrize("kind", KINDS)
def test_the_compiled_program_gives_the_same_integers(kind: str) -> None:
    proto, inputs = drawn(kind, 20)
    graph, chip = verify(import_model(proto)), load_chip("wtm2101")
    program = compile_graph(graph, chip)
    check_program(program)
    session = Session(program, graph=graph)
    got = session.stream(inputs) if kind in STREAMS else session.run_codes(inputs)
    for name, array in Reference(proto, inputs).outputs.items():
        assert np.array_equal(got[name].reshape(array.shape), array)


@pytest.mark.parametrize("kind", ["u_net", "tdnn", "denoiser", "attention"])
def test_weights_beyond_a_cell_are_exact_where_a_region_holds_their_rows(kind: str) -> None:
    proto, inputs = drawn(kind, 1, peaks=BEYOND)
    got = stepped(verify(import_model(proto)), inputs)
    for name, array in Reference(proto, inputs).outputs.items():
        assert np.array_equal(got[name].reshape(array.shape), array)


@pytest.mark.parametrize(("rows", "peak"), [(449, 127), (700, 127), (850, 127), (500, 275), (880, 60)])
def test_signed_inputs_of_many_rows_are_exact(rows: int, peak: int) -> None:
    """One region holds them: x + 128 where the bias rows can make up for it, two rows for some inputs where not."""
    rng = np.random.default_rng(rows)
    tensors = {"h.w": weights(rng, 6, rows), "y.w": weights(rng, rows, 40, peak=peak), "y.b": biases(rng, 40)}
    nodes = [*layer("Gemm", "x", "h", gain=512), *layer("Gemm", "h", "y", gain=8192)]
    proto = network(nodes, inputs={"x": [1, 6]}, outputs=["y"], tensors=tensors | {"h.b": biases(rng, rows)})
    x = {"x": rng.integers(0, 256, (9, 1, 6))}
    graph = verify(import_model(proto))
    assert np.array_equal(stepped(graph, x)["y"], Reference(proto, x).outputs["y"])
    assert graph.nodes[-1].op == "MatMul"


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 2, 0, 1]])
def test_signed_maps_of_many_rows_are_exact(pads: list[int]) -> None:
    rng = np.random.default_rng(3)
    tensors = {"h.w": weights(rng, 70, 2, 1, 1), "h.b": biases(rng, 70)}
    tensors |= {"y.w": 8 + weights(rng, 9, 70, 3, 3, peak=30), "y.b": biases(rng, 9)}
    nodes = [*layer("Conv", "x", "h", gain=512), *layer("Conv", "h", "y", gain=8192, pads=pads)]
    proto = network(nodes, inputs={"x": [1, 2, 5, 6]}, outputs=["y"], tensors=tensors)
    x = {"x": rng.integers(0, 256, (4, 1, 2, 5, 6))}
    graph = verify(import_model(proto))
    assert np.array_equal(stepped(graph, x)["y"], Reference(proto, x).outputs["y"])


def test_signed_inputs_beyond_a_region_are_read_in_parts_that_each_are_exact() -> None:
    rng = np.random.default_rng(5)
    tensors = {"h.w": weights(rng, 6, 1500), "h.b": biases(rng, 1500), "y.w": weights(rng, 1500, 20)}
    tensors["y.b"] = biases(rng, 20)
    nodes = [*layer("Gemm", "x", "h", gain=512), *layer("Gemm", "h", "y", gain=4096)]
    proto = network(nodes, inputs={"x": [1, 6]}, outputs=["y"], tensors=tensors)
    x = {"x": rng.integers(0, 256, (9, 1, 6))}
    graph = verify(import_model(proto))
    parts = [graph.type(n.inputs[0]).sizes()[-1] for n in graph.nodes if n.op == "MatMul" and ".part" in n.name]
    assert len(parts) >= 2
    assert max(parts) <= 896
    h = stepped(verify(import_model(network(nodes[:2], inputs={"x": [1, 6]}, outputs=["h"], tensors=tensors))), x)["h"]
    codes = np.array_split(h, len(parts), axis=-1), np.array_split(tensors["y.w"].astype(int), len(parts))
    reads = [a @ b + (tensors["y.b"].astype(int) if i == 0 else 0) for i, (a, b) in enumerate(zip(*codes, strict=True))]
    assert np.array_equal(stepped(graph, x)["y"], joined(reads, 4096))
