"""Search with CP-SAT: never worse than greedy, the same every time, its gap proven; without the solver it says so."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from insitu.base.errors import UsageError
from insitu.compiler.partition import allot
from insitu.compiler.search import pack_rectangles
from tests.compiler.test_packing import block, wtm
from tests.compiler.test_place import legal, legal_on
from tests.compiler.test_replicate import deep
from tests.flow.line import build, chip_of


def test_without_the_solver_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ortools.sat.python", None)
    graph = build(deep(np.random.default_rng(0)), chip_of("exact"))[0]
    with pytest.raises(UsageError, match=r"insitu\[solver\]"):
        allot(graph, chip_of("exact"), search=1.0)


@pytest.mark.parametrize(("objective", "value"), [("latency", "layers_s"), ("throughput", "stage_s")])
def test_a_searched_placement_is_never_worse_and_above_its_bound(objective, value):
    pytest.importorskip("ortools", reason='needs pip install "insitu[solver]"')
    graph = build(deep(np.random.default_rng(0)), chip_of("exact"))[0]
    greedy = allot(graph, chip_of("exact"), objective=objective)[1]
    found = allot(graph, chip_of("exact"), objective=objective, search=2.0)[1]
    legal([p for places in found.layers.values() for p in places], found, "exact")
    if value in greedy.facts and value in found.facts:
        assert found.facts[value] <= greedy.facts[value]
        assert found.facts[value] >= found.facts["search_bound_s"] * (1 - 1e-6)
    assert allot(graph, chip_of("exact"), objective=objective, search=2.0)[1] == found


def test_the_solver_packs_both_regions_and_their_bias_rows():
    pytest.importorskip("ortools", reason='needs pip install "insitu[solver]"')
    rects = [block(i, 448, 512, 8) for i in range(8)]
    found = pack_rectangles(rects, wtm(0), seconds=5.0)
    assert found is None  # four blocks stand in each column: 32 bias rows of 16
    found = pack_rectangles([block(i, 448, 512, 4) for i in range(8)], wtm(0), seconds=5.0)
    assert found is not None
    legal_on(found, wtm(0))
