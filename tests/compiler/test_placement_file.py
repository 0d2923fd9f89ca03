"""Placement files: what a compiled program writes fixes the same placement again; faults are named by line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import ConfigError, InfeasibleError
from insitu.compiler.pipeline import emit
from insitu.compiler.place import place
from insitu.compiler.placement_file import (
    Block,
    blocks_of,
    fixed_mapping,
    parse_placement,
    placement_text,
    read_placement,
)
from insitu.frontend.onnx import import_model
from insitu.frontend.wtm2101 import Reading
from insitu.frontend.wtm2101_options import parse_options
from insitu.graph.graph import Graph
from insitu.graph.verify import verify
from insitu.isa.check import check_program
from insitu.isa.program import Program
from tests.frontend.vendor import biases, layer, network, weights

CHIP = load_chip("wtm2101")


def gemms(count: int, rows: int, cols: int, *, options: str = "") -> Graph:
    """Layers side by side on one input."""
    rng = np.random.default_rng(1)
    names = [f"y{i}" for i in range(count)]
    nodes = [n for name in names for n in layer("Gemm", "x", name)]
    tensors = {f"{n}.w": weights(rng, rows, cols) for n in names} | {f"{n}.b": biases(rng, cols) for n in names}
    proto = network(nodes, inputs={"x": [1, rows]}, outputs=names, tensors=tensors)
    return verify(import_model(proto, reading=Reading(parse_options(options))))


def compiled(graph: Graph, chip: Chip = CHIP, *, blocks: list[Block] | None = None) -> Program:
    mapping = place(graph, chip) if blocks is None else fixed_mapping(graph, chip, blocks)
    program = emit(graph, chip, mapping=mapping, sizes={}, expected={})
    check_program(program)
    return program


def test_48_blocks_fill_the_array() -> None:
    program = compiled(gemms(48, 235, 123))
    blocks = [b for _, b in blocks_of(program)]
    assert len(blocks) == 48
    assert {(b.rows, b.cols) for b in blocks} == {(235, 123)}
    assert all(b.y0 // 896 == b.y1 // 896 for b in blocks)


def test_with_reserved_columns_they_do_not_and_the_reason_is_said() -> None:
    chip = load_chip("wtm2101", overrides=("macro.reserved_columns=128",))
    with pytest.raises(InfeasibleError) as error:
        place(gemms(48, 235, 123), chip)
    [item] = error.value.items
    assert item.resource == "array space in one rectangle beside 128 reserved columns"
    assert "macro.reserved_columns=0" in item.ways_out[0]


def test_layers_are_split_where_that_makes_room() -> None:
    chip = load_chip("wtm2101", overrides=("array.cols=128", "macro.reserved_columns=28", "macro.bias_rows=64"))
    graph = gemms(3, 700, 60)
    mapping = place(graph, chip)
    assert sum(len(rects) for rects in mapping.layers.values()) > 3
    check_program(emit(graph, chip, mapping=mapping, sizes={}, expected={}))


def test_what_is_written_fixes_the_same_placement() -> None:
    graph = gemms(6, 300, 200)
    program = compiled(graph)
    text = placement_text(program)
    assert text.splitlines()[0].count(",") == 6
    assert placement_text(compiled(graph, blocks=parse_placement(text))) == text


def test_another_legal_placement_is_followed(tmp_path: Path) -> None:
    graph = gemms(2, 300, 200)
    file = tmp_path / "layers.txt"
    file.write_text("700, 799, 896, 1195, 0, 3, 1024\n5, 104, 100, 399, 4, 9, 1024\n\n300, 499, 11, 310, 0, 3, 1024\n")
    program = compiled(graph, blocks=read_placement(file))
    assert [(n, b.x0, b.cols) for n, b in blocks_of(program)] == [("y0", 700, 100), ("y0", 5, 100), ("y1", 300, 200)]
    assert placement_text(program) == file.read_text().replace("\n\n", "\n")


def test_a_region_is_kept() -> None:
    options = 'layerOptiConfig { name: "y1" weightOpti { region: DOWN_REGION } }'
    blocks = dict(blocks_of(compiled(gemms(3, 100, 50, options=options))))
    assert blocks["y1"].y0 >= 896
    options = 'layerOptiConfig { name: "y1" weightOpti { region: UP_REGION } }'
    assert dict(blocks_of(compiled(gemms(3, 100, 50, options=options))))["y1"].y1 < 896


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["0, 49, 0, 99, 0, 3, 1024", "40, 89, 50, 149, 4, 7, 1024"], "lines 1 and 2 overlap"),
        (["0, 49, 0, 99, 0, 3, 1024", "40, 89, 200, 299, 3, 7, 1024"], "lines 1 and 2 share bias rows"),
        (["0, 49, 850, 949, 0, 3, 1024", "60, 109, 0, 99, 0, 3, 1024"], "do not lie in one region"),
        (["0, 49, 0, 99, 0, 3, 1024", "1000, 1049, 0, 99, 0, 3, 1024"], "not on the array"),
        (["0, 49, 0, 99, 14, 17, 1024", "60, 109, 0, 99, 0, 3, 1024"], "bias rows 14..17, of 16"),
        (["0, 49, 0, 99, 0, 3, 100", "60, 109, 0, 99, 0, 3, 1024"], "G = 100"),
        (["0, 49, 0, 99, 0, 3, 2048", "60, 109, 0, 99, 0, 3, 1024"], "G = 2048; layer 'y0' needs"),
        (["0, 49, 0, 99, 0, -1, 1024", "60, 109, 0, 99, 0, 3, 1024"], "has 0 bias rows"),
        (["0, 48, 0, 99, 0, 3, 1024", "60, 109, 0, 99, 0, 3, 1024"], "line 2 is 100 x 50; layer 'y0' wants 100 x 1"),
        (["0, 49, 0, 99, 0, 3, 1024"], "no block for rows 0..100, columns 0..50 of layer 'y1'"),
        (["0, 49, 0, 99, 0, 3, 1024", "60, 109, 0, 99, 0, 3, 1024", "200, 209, 0, 9, 0, 1, 1024"], "1 blocks more"),
        (["0, 49, 0, 99, 0, 3"], "seven integers"),
        (["a, 49, 0, 99, 0, 3, 1024"], "placement:1"),
    ],
)
def test_faults(lines: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        fixed_mapping(gemms(2, 100, 50), CHIP, parse_placement("\n".join(lines)))
    assert said in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_placement(tmp_path / "layers.txt")
