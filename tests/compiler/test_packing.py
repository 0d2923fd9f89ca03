"""Packing rules of an array with two regions, shared bias rows and reserved columns, on blocks of any size."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insitu.algo import ptq
from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import InfeasibleError
from insitu.compiler.mapping import Mapping
from insitu.compiler.place import empty_shelf, place, place_on
from insitu.compiler.quantize import quantize
from insitu.compiler.tile import Piece, Rect
from insitu.graph.graph import Graph
from tests.compiler.test_place import legal_on
from tests.flow.line import captured, inputs_of
from tests.graph.networks import model, node


@cache
def wtm(reserved: int) -> Chip:
    return load_chip("wtm2101", overrides=(f"macro.reserved_columns={reserved}",))


def block(index: int, rows: int, cols: int, bias_rows: int) -> Rect:
    return Rect(Piece("l", index, 0, 1, rows, cols), 0, rows, 0, cols, bias_rows)


def packed(rects, chip):
    shelf = empty_shelf(chip)
    placed = place_on(rects, "l", [m for core in shelf for m in core])
    return placed, shelf


def test_48_blocks_of_235_rows_and_123_columns_fit_one_array():
    """Three blocks high in each region, eight wide: 1,387,440 of 1,835,008 cells."""
    placed, shelf = packed([block(i, 235, 123, 2) for i in range(48)], wtm(0))
    assert placed is not None
    legal_on(placed, wtm(0))
    assert shelf[0][0].used == 48 * 235 * 123


def test_beside_128_reserved_columns_there_is_room_for_42_of_them():
    assert packed([block(i, 235, 123, 2) for i in range(48)], wtm(128))[0] is None
    placed, _ = packed([block(i, 235, 123, 2) for i in range(42)], wtm(128))
    assert placed is not None
    legal_on(placed, wtm(128))


def test_bias_rows_are_shared_by_both_regions():
    """Six blocks of a column stack 235 rows each; with three bias rows each they want 18 of 16."""
    tall = [block(i, 448, 1024, 4) for i in range(4)]
    assert packed(tall, wtm(0))[0] is not None
    assert packed([*tall[:3], block(3, 448, 1024, 5)], wtm(0))[0] is None


@cache
def layers(reserved: int) -> Graph:
    rng = np.random.default_rng(0)
    tensors = {f"w{i}": rng.standard_normal((235, 123)).astype(np.float32) / 15 for i in range(48)}
    nodes = [node("MatMul", ["x", f"w{i}"], [f"y{i}"]) for i in range(48)]
    graph = captured(model(nodes, inputs={"x": ["N", 235]}, outputs=[f"y{i}" for i in range(48)], tensors=tensors))
    few = replace(graph, nodes=graph.nodes[:1], outputs=graph.outputs[:1])  # a plan takes time, and one is as good
    one = ptq.plan(few, wtm(reserved), data=inputs_of(few, 4))
    spec, layer = one.values[few.outputs[0]], replace(one.layers[few.nodes[0].name], bias_rows=2)
    values = {**one.values, **dict.fromkeys(graph.outputs, spec)}
    plan = replace(one, values=values, layers={n.name: layer for n in graph.nodes})
    return quantize(graph, wtm(reserved), plan=plan)


def test_48_layers_fit_and_beside_reserved_columns_the_answer_says_why_not():
    mapping: Mapping = place(layers(0), wtm(0))
    legal_on([p for places in mapping.layers.values() for p in places], wtm(0))
    assert mapping.utilization == pytest.approx(48 * 235 * 123 / (1792 * 1024))
    with pytest.raises(InfeasibleError) as caught:
        place(layers(128), wtm(128))
    (item,) = caught.value.items
    assert item.resource == "array space in one rectangle beside 128 reserved columns"
    assert "macro.reserved_columns=0" in item.ways_out[0]


BLOCKS = st.lists(st.tuples(st.integers(1, 896), st.integers(1, 700), st.integers(0, 6)), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None)
@given(BLOCKS, st.sampled_from([0, 128, 300]))
def test_any_blocks_are_packed_legally_or_not_at_all(sizes, reserved):
    chip = wtm(reserved)
    rects = [block(i, rows, min(cols, 1024 - reserved), bias) for i, (rows, cols, bias) in enumerate(sizes)]
    placed, shelf = packed(rects, chip)
    area = sum(r.rows * r.cols for r in rects)
    if placed is None:
        assert shelf[0][0].used == 0  # nothing is left behind
        assert area > chip.capacity / 4 or sum(r.bias_rows * r.cols for r in rects) > chip.macro.bias_rows * 200
        return
    legal_on(placed, chip)
    assert shelf[0][0].used == area <= chip.capacity
