"""The float network a few samples at once and stretch by stretch: the same values, each held as long as it is read."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from insitu.compiler import canonicalize, fuse
from insitu.frontend.onnx import import_model
from insitu.graph import passes
from insitu.graph.export import float_session
from insitu.graph.passes import Passes, starts, value_bytes
from tests.graph.networks import random_model


@pytest.mark.parametrize("seed", range(12))
def test_a_cut_network_gives_what_the_whole_gives(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    proto, shape = random_model(seed)
    graph = fuse.run(canonicalize.run(import_model(proto)))
    names = [n.output for n in graph.nodes]
    x = np.random.default_rng(seed).normal(size=(3, 1, *shape)).astype(np.float32)
    whole = float_session(graph, names)({"x": x})
    monkeypatch.setattr(passes, "PIECE", max(value_bytes(graph, v) for v in names))
    cut = Passes(graph, names)
    found = dict(cut.values({"x": x}))
    assert cut.cut == (len(names) > 1)
    assert len(starts(graph)) + 1 == len(cut.parts)
    assert set(found) == set(names)
    for name, value in found.items():
        assert value.shape == whole[name].shape
        assert np.allclose(value, whole[name], atol=1e-4 * max(1.0, float(np.abs(whole[name]).max()))), (seed, name)


def test_a_value_is_dropped_after_its_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    from insitu.bench.networks import Network

    net = Network("skip", (1, 4, 8, 8))
    first = net.conv("x", 4, 3)
    graph = fuse.run(canonicalize.run(import_model(net.model(net.add(net.conv(net.conv(first, 4, 3), 4, 3), first)))))
    monkeypatch.setattr(passes, "PIECE", 1)
    held: dict[str, Any] = {}
    alive: list[int] = []
    for name, value in Passes(graph, [n.output for n in graph.nodes]).values({"x": np.ones((2, 1, 4, 8, 8), "f4")}):
        held[name] = weakref.ref(value)
        del value
        alive.append(sum(ref() is not None for ref in held.values()))
    assert len(alive) == 4
    assert alive == [1, 2, 2, 1]  # the first until it is added, the second until it is read
    assert all(ref() is None for ref in held.values())


def test_samples_that_go_together_follow_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    proto, _ = random_model(1)
    graph = fuse.run(canonicalize.run(import_model(proto)))
    names = [n.output for n in graph.nodes]
    each = sum(value_bytes(graph, v) for v in names)
    for room, rows in ((each * 1000, 32), (each * 7, 4), (each, 1)):
        monkeypatch.setattr(passes, "PIECE", room)
        found = Passes(graph, names)
        assert found.rows == rows
        assert not found.cut
        assert [s.stop - s.start for s in found.pieces(6)] == {32: [6], 4: [4, 2], 1: [1] * 6}[rows]
