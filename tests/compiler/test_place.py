"""Placement: nothing overlaps, bias rows are apart, and what does not fit says why."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np
import pytest

from insitu.arch.spec import Chip
from insitu.base.errors import InfeasibleError
from insitu.compiler.mapping import Mapping, Placed
from insitu.compiler.place import place
from insitu.graph.graph import Graph
from tests.flow.line import CHIPS, build, captured, chip_of
from tests.flow.test_operators import NETS
from tests.flow.test_sections import residual
from tests.graph.networks import model, node


@cache
def quantized(name: str, chip: str) -> Graph:
    graph = residual(np.random.default_rng(0)) if name == "stages" else captured(NETS[name](np.random.default_rng(0)))
    return build(graph, chip_of(chip))[0]


def check(mapping: Mapping, chip: str) -> None:
    legal([p for layer in mapping.layers.values() for p in layer], mapping, chip)
    assert mapping.cells_used == sum(p.rect.rows * p.rect.cols for layer in mapping.layers.values() for p in layer)
    assert 0 < mapping.utilization <= 1


def legal(placed: list[Placed], mapping: Mapping, chip: str) -> None:
    """These rectangles and all copies lie inside the arrays and apart."""
    legal_on([*placed, *(p for copies in mapping.copies.values() for c in copies for p in c.places)], chip_of(chip))


def legal_on(places: Sequence[Placed], spec: Chip) -> None:
    """Inside one array, right of reserved columns; no cell twice, no bias row of a column twice."""
    held: dict[tuple[int, int], list] = {}
    for placed in places:
        held.setdefault((placed.core, placed.macro), []).append(placed)
        assert 0 <= placed.core < spec.cores
        assert 0 <= placed.macro < spec.core.macros
        assert spec.macro.reserved_columns <= placed.x <= spec.array.cols - placed.rect.cols
        assert placed.y // spec.array.rows == (placed.y + placed.rect.rows - 1) // spec.array.rows < spec.macro.arrays
        assert placed.bias0 + placed.rect.bias_rows <= spec.macro.bias_rows
    for there in held.values():
        for a, b in combinations(there, 2):
            beside = a.x + a.rect.cols <= b.x or b.x + b.rect.cols <= a.x
            below = a.y + a.rect.rows <= b.y or b.y + b.rect.rows <= a.y
            assert beside or below
            apart = a.bias0 + a.rect.bias_rows <= b.bias0 or b.bias0 + b.rect.bias_rows <= a.bias0
            assert beside or apart or not (a.rect.bias_rows and b.rect.bias_rows)


@pytest.mark.parametrize("chip", [c for c in CHIPS if not chip_of(c).capabilities.gemv])
@pytest.mark.parametrize("name", ["stages", "conv_depthwise", "gemm_tall_and_wide"])
def test_places_are_legal_and_the_same_every_time(name, chip):
    graph = quantized(name, chip)
    mapping = place(graph, chip_of(chip))
    check(mapping, chip)
    assert place(graph, chip_of(chip)) == mapping


def test_a_layer_stays_on_one_core_where_one_has_room():
    mapping = place(quantized("stages", "exact"), chip_of("exact"))
    assert all(len(mapping.cores(layer)) == 1 for layer in mapping.layers)
    assert len({mapping.cores(layer) for layer in mapping.layers}) > 1  # and the least filled core is next


def test_columns_part_before_rows_do():
    mapping = place(quantized("gemm_tall_and_wide", "exact-small"), chip_of("exact-small"))
    (layer,) = mapping.layers.values()
    columns = {p.rect.col0: set() for p in layer}
    for placed in layer:
        columns[placed.rect.col0].add(placed.core)
    assert all(len(cores) == 1 for cores in columns.values())
    assert len(mapping.cores("y_node")) > 1


def test_a_network_that_is_too_large_says_what_is_short():
    w = np.ones((90, 90), np.float32) + np.eye(90, dtype=np.float32)
    graph = captured(
        model([node("MatMul", ["x", "w"], ["y"])], inputs={"x": ["N", 90]}, outputs=["y"], tensors={"w": w})
    )
    quantized = build(graph, chip_of("exact"))[0]
    with pytest.raises(InfeasibleError) as caught:
        place(quantized, chip_of("exact-small"))
    (item,) = caught.value.items
    assert item.resource == "cells"
    assert item.demand == 8100
    assert item.bound == 4 * 10 * 16 * 6
    assert item.filled_by == ("y_node",)
    assert len(item.ways_out) == 3
