"""Cells of a program: every weight and bias is found where the placement says, and gives the layer's sums back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.base.errors import UsageError
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.placement_file import blocks_of
from insitu.flow.check import observed
from insitu.frontend.onnx import import_model
from insitu.graph.graph import Graph
from insitu.graph.verify import verify
from insitu.isa.program import Program
from insitu.runtime.session import Session
from insitu.runtime.weights import cells_of, conductances, map_text, spread_bias, write_layers, write_map
from tests.frontend.vendor import biases, layer, network, read, weights

CHIP = load_chip("wtm2101")


def two_layers() -> tuple[Graph, Program]:
    rng = np.random.default_rng(3)
    nodes = [*layer("Gemm", "x", "h", relu=True), *layer("Gemm", "h", "y", gain=512)]
    tensors = {
        "h.w": weights(rng, 30, 20),
        "h.b": biases(rng, 20, 900),
        "y.w": weights(rng, 20, 6),
        "y.b": biases(rng, 6, 5),
    }
    graph = verify(import_model(network(nodes, inputs={"x": [1, 30]}, outputs=["y"], tensors=tensors)))
    return graph, compile_graph(graph, CHIP)


@pytest.mark.parametrize(
    ("total", "rows", "shares"), [(-56, 16, [-4] * 15 + [4]), (-122, 16, [-8] * 15 + [-2]), (5, 1, [5])]
)
def test_a_bias_is_spread_as_the_vendor_spreads_it(total: int, rows: int, shares: list[int]) -> None:
    assert spread_bias(np.array([128 * total]), rows)[:, 0].tolist() == shares


def test_the_table_computes_what_the_layer_computes() -> None:
    graph, program = two_layers()
    cells = cells_of(program)
    table = {(x, y): v for x, y, v in zip(cells.x.tolist(), cells.y.tolist(), cells.value.tolist(), strict=True)}
    x = np.random.default_rng(0).integers(0, 256, 30)
    for name, block in blocks_of(program):
        columns = range(block.x0, block.x1 + 1)
        acc = [
            sum(int(q) * table[c, block.y0 + r] for r, q in enumerate(x))
            + 128 * sum(table[c, 2049 + 2 * b] for b in range(block.bias0, block.bias1 + 1))
            for c in columns
        ]
        x = read(np.array(acc), block.gain, 0 if name == "h" else -128)
    assert (
        x.tolist()
        == Session(program, graph=graph)
        .run_codes({"x": np.random.default_rng(0).integers(0, 256, (1, 1, 30))})["y"]
        .ravel()
        .tolist()
    )
    assert np.abs(cells.value).max() <= 275
    assert map_text(cells).splitlines()[0] == f"{cells.x[0]},{cells.y[0]},{cells.value[0]}"


def test_conductances_are_linear_and_on_one_side() -> None:
    cells = cells_of(two_layers()[1])
    held = conductances(cells, CHIP)
    full = 195e-9 / 1.2
    assert np.allclose(held[:, 0] - held[:, 1], cells.value / 255 * full, rtol=1e-9, atol=0)
    assert (held.min(axis=1) == 0).all()


def test_files(tmp_path: Path) -> None:
    graph, program = two_layers()
    folder = write_map(program, tmp_path / "map")
    assert len((folder / "map.csv").read_text().splitlines()) == len(cells_of(program))
    assert len((folder / "layers.txt").read_text().splitlines()) == 2
    session = Session(program, graph=graph)
    codes = {"x": np.random.default_rng(0).integers(0, 256, (3, 1, 30))}
    values = {**codes, **observed(session, codes)}
    files = write_layers(graph, values, tmp_path / "layer_debug")
    assert [str(f.relative_to(tmp_path)) for f in files] == [
        "layer_debug/net0/1_h/round0/input0.txt", "layer_debug/net0/1_h/round0/output0.txt",
        "layer_debug/net0/2_y/round1/input0.txt", "layer_debug/net0/2_y/round1/output0.txt",
    ]  # fmt: skip
    assert np.array_equal(np.loadtxt(files[1]), np.loadtxt(files[2]))
    assert np.array_equal(np.loadtxt(files[0]), codes["x"][:, 0])


def test_a_program_over_several_macros_has_no_single_table() -> None:
    graph, _ = two_layers()
    chip = load_chip("wtm2101", overrides=("core.macros=2",))
    with pytest.raises(UsageError, match="several macros"):
        cells_of(compile_graph(graph, chip))
