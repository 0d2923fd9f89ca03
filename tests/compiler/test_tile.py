"""Cutting weight layers: every cell of a layer in exactly one rectangle that fits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.compiler.emit_layers import boxes
from insitu.compiler.tile import balanced, piece_columns, pieces, rectangles, usable_columns, weight_nodes
from insitu.graph.graph import Graph, Node, const_type
from insitu.graph.types import TensorType
from tests.flow.line import CHIPS, chip_of


def layer(groups=1, each_in=3, each_out=4, kernel=(3, 3), **attrs) -> tuple[Graph, Node]:
    """A convolution alone."""
    w = np.ones((groups * each_out, each_in, *kernel), np.int8)
    bias = np.full(groups * each_out, 128 * 300)
    gain = np.repeat([256, 1024], [groups * each_out // 2, groups * each_out - groups * each_out // 2])
    node = Node("c", "Conv", ("x", "w", "b", "", "", "g"), ("y",), {"group": groups, "readout": "wtm2101", **attrs})
    types = {"x": TensorType((1, groups * each_in, 8, 8), "i8"), "y": TensorType((1, groups * each_out, 8, 8), "i8")}
    types |= {"w": const_type(w), "b": const_type(bias), "g": const_type(gain)}
    return Graph("g", "quantized", ("x",), ("y",), (node,), types, {"w": w, "b": bias, "g": gain}), node


@given(total=st.integers(1, 5000), most=st.integers(1, 900))
def test_parts_are_few_even_and_falling(total, most):
    bounds = balanced(total, most)
    sizes = [b - a for a, b in pairwise(bounds)]
    assert bounds[0] == 0
    assert sum(sizes) == total
    assert len(sizes) == -(-total // most)
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple), ends=st.tuples(*[st.floats(0, 1)] * 2))
def test_boxes_make_up_a_range(shape, ends):
    total = int(np.prod(shape))
    start, end = sorted(round(e * total) for e in ends)
    index = np.arange(total).reshape(shape)
    covered: list[int] = []
    for first, sizes in boxes(shape, start, end):
        corner = np.unravel_index(first, shape)
        covered += index[tuple(slice(c, c + n) for c, n in zip(corner, sizes, strict=True))].reshape(-1).tolist()
    assert covered == list(range(start, end))


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    "sizes", [{}, {"each_in": 40, "each_out": 70}, {"groups": 12}, {"groups": 7, "each_in": 1, "each_out": 2}]
)
def test_rectangles_cover_a_layer_once_and_fit(chip, apart, sizes):
    graph, node = layer(**sizes)
    spec = chip_of(chip)
    assert weight_nodes(graph) == [node]
    for pack in (1, 4, 100):
        done = 0
        for piece in pieces(graph, node, spec, pack=pack):
            held = np.zeros((piece.rows, piece.cols), int)
            for rect in rectangles(graph, node, piece, spec, apart=apart):
                assert rect.rows <= spec.array.rows
                assert rect.cols <= usable_columns(spec)
                first = piece_columns(graph, node, piece).start + rect.col0
                assert len(set(graph.constants["g"][first : first + rect.cols])) == 1  # one gain to a read
                held[rect.row0 : rect.row0 + rect.rows, rect.col0 : rect.col0 + rect.cols] += 1
                assert rect.bias_rows == (2 if rect.row0 == 0 and spec.array.cell_range[1] == 275 else rect.bias_rows)
                assert rect.bias_rows >= 0
                assert rect.row0 == 0 or rect.bias_rows == 0
            assert (held == 1).all()
            assert piece.group0 == done
            done += piece.groups
        assert done == node.attr("group")


def test_parts_on_several_cores_end_with_a_channel():
    graph, node = layer(each_in=30, readout="exact")
    spec = chip_of("exact-small")  # 16 rows
    (piece,) = pieces(graph, node, spec, pack=1)
    assert any(r.row0 % 9 for r in rectangles(graph, node, piece, spec))
    assert all(r.row0 % 9 == 0 for r in rectangles(graph, node, piece, spec, apart=True))


def test_fixed_parts_stay():
    graph, node = layer(parts=(0, 9, 27))
    (piece,) = pieces(graph, node, chip_of("wtm2101"), pack=1)
    assert {r.row0 for r in rectangles(graph, node, piece, chip_of("wtm2101"))} == {0, 9}
