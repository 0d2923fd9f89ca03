"""The benchmarks' layer: the simulator's numbers, whatever threads and blocks there are."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.bench.layer import TOGETHER, bench_chip, blocks, layer
from insitu.bench.mvm_statedep import CHIP


@pytest.mark.parametrize("count", ["1", "2", "3"])
@pytest.mark.parametrize("vectors", [0, 1, 5, 32, 96, 200, 512, 1000])
def test_blocks_cover_every_vector_once_in_groups_of_four(monkeypatch, vectors, count):
    monkeypatch.setenv("INSITU_THREADS", count)
    bounds = blocks(vectors)
    assert bounds[0] == 0
    assert bounds[-1] == vectors
    sizes = np.diff(bounds)
    assert (sizes <= TOGETHER).all()
    assert (sizes[:-1] > 0).all()
    assert (bounds[:-1] % 4 == 0).all()


@pytest.mark.long  # compiles the whole layer
@pytest.mark.parametrize("overrides", [(), CHIP], ids=["alike", "by cell"])
def test_threads_and_blocks_change_no_byte(monkeypatch, overrides):
    """Also as the simulator's own read has it."""
    rng = np.random.default_rng(3)
    w = (rng.standard_normal((600, 70)) / 24).astype(np.float32)
    x = rng.standard_normal((230, 600)).astype(np.float32)
    own = layer(w, bench_chip(*overrides), physics="full", inputs=x[:16])
    found = []
    for count in ("1", "2"):
        monkeypatch.setenv("INSITU_THREADS", count)
        out = np.empty((230, 70), np.float32)
        own(x, out)
        found.append(out)
    assert np.array_equal(*found)
    codes = np.clip(np.rint(x * np.float32(1 / own.source.scale[0])), own.source.lo, own.source.hi).astype(np.int8)
    read = own.model.read(own.matrix, codes, first_vector=0)
    assert np.array_equal(found[0], read.astype(np.float32) * np.float32(own.target.scale[0]))
