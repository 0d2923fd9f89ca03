"""Which samples are run at once: every one is, once; steps of a stream follow each other."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.flow import check
from insitu.graph.graph import Graph, Node, State
from insitu.graph.types import TensorType
from tests.flow.line import captured
from tests.graph.networks import model, node


def plain() -> Graph:
    return captured(model([node("Relu", ["x"], ["y"])], inputs={"x": (1, 3)}, outputs=["y"], tensors={}))


def stateful() -> Graph:
    kind = TensorType((1, 4), "f32")
    nodes = (Node("n", "Add", ("x", "s"), ("t",)),)
    return Graph("g", "captured", ("x",), ("t",), nodes, dict.fromkeys("xst", kind), states=(State("s", "t"),))


@pytest.mark.parametrize("samples", [1, 4, 63, 64, 129, 1000, 5003])
@pytest.mark.parametrize("graph", [plain, stateful])
def test_every_sample_runs_once(graph, samples: int) -> None:
    blocks = list(check._blocks(graph(), samples))
    assert sorted(np.concatenate([b.rows for b in blocks]).tolist()) == list(range(samples))
    assert [b.done for b in blocks] == np.cumsum([len(b.rows) for b in blocks]).tolist()
    assert blocks[0].begins


@pytest.mark.parametrize("samples", [63, 129, 5003])
def test_steps_follow_each_other(samples: int) -> None:
    before = np.empty(0, np.int64)
    for block in check._blocks(stateful(), samples):
        assert block.begins or (block.rows == before + 1).all()
        before = block.rows
