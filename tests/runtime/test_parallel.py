"""Blocks on threads: fixed cuts, results in order, one error ends all."""

from __future__ import annotations

import threading

import pytest

from insitu.runtime.parallel import ranges, spread, threads


def test_ranges_cover_everything_once():
    assert ranges(7, 3) == [(0, 3), (3, 6), (6, 7)]
    assert ranges(0, 3) == []


@pytest.mark.parametrize("count", ["1", "2", "5"])
def test_results_come_in_order(monkeypatch, count):
    monkeypatch.setenv("INSITU_THREADS", count)
    assert threads() == int(count)
    told = []
    assert spread(lambda n: n * n, list(range(20)), done=told.append) == [n * n for n in range(20)]
    assert told == list(range(1, 21))


def test_the_environment_is_read_in_order(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("INSITU_THREADS", raising=False)
    assert threads() == 3
    monkeypatch.setenv("INSITU_THREADS", "many")
    assert threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads() >= 1


@pytest.mark.parametrize("count", ["1", "2"])
def test_an_error_ends_all(monkeypatch, count):
    monkeypatch.setenv("INSITU_THREADS", count)
    ran, lock = [], threading.Lock()

    def work(n):
        with lock:
            ran.append(n)
        if n == 1:
            raise ValueError("one")
        return n

    with pytest.raises(ValueError, match="one"):
        spread(work, list(range(1000)))
    assert len(ran) < 1000
