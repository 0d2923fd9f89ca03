"""Kernels that deal out blocks among threads: everything once, whoever helps."""

from __future__ import annotations

import multiprocessing
import threading
import time

import numba as nb
import numpy as np
import pytest

from insitu.runtime.kernels import AWAKE, INSIDE, MOST, NEXT, OPEN, TAKEN, load, new_board, serve, together
from insitu.runtime.parallel import company, spread


@nb.njit
def one(given, index):
    """Count the block, and take some time."""
    done, board, turns = given
    for _ in range(turns):
        load(board, MOST)
    done[index] += 1


@nb.njit(nogil=True)
def all_of(board, done, turns):
    """Every block once."""
    together(board, one, (done, board, turns), done.shape[0])


def ran(board, blocks: int, turns: int = 1):
    """How often each block was done."""
    done = np.zeros(blocks, np.int64)
    all_of(board, done, turns)
    return done


def test_every_block_is_done_once_without_company():
    assert (ran(new_board(), 100) == 1).all()
    assert ran(new_board(), 0).size == 0


@pytest.fixture
def board():
    """A board with two helpers awake."""
    made, word = new_board(), np.zeros(1, np.int64)
    made[MOST] = 2
    helpers = [threading.Thread(target=serve, args=(made, word, 0, 10**12)) for _ in range(2)]
    for helper in helpers:
        helper.start()
    while made[AWAKE] < 2:
        time.sleep(0.001)
    yield made
    word[0] = 1
    for helper in helpers:
        helper.join()


@pytest.mark.parametrize("blocks", [1, 2, 7, 1000])
def test_every_block_is_done_once_with_helpers(board, blocks):
    for _ in range(200):
        assert (ran(board, blocks) == 1).all()
        assert board[OPEN] == board[INSIDE] == board[TAKEN] == 0


def test_helpers_come_where_they_may(board):
    def came() -> int:
        assert (ran(board, 50, 10**6) == 1).all()
        return int(board[NEXT]) - 50 - 1  # each looks once more than there are blocks

    assert any(0 < came() <= 2 for _ in range(100))  # a busy machine may keep them away for a while
    board[MOST] = 0
    assert came() == 0


def test_a_caller_who_finds_the_board_taken_works_alone(board):
    counts = []

    def call():
        counts.extend((ran(board, 40, 1000) == 1).all() for _ in range(50))

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert counts == [True] * 150


def test_the_process_has_one_board_and_helpers_that_sleep_come_back(monkeypatch):
    monkeypatch.setenv("INSITU_THREADS", "2")
    mine = company()
    assert company() is mine
    assert spread(lambda n: n, [1, 2, 3]) == [1, 2, 3]  # the same helpers
    assert (ran(company(), 30, 10**5) == 1).all()
    monkeypatch.setenv("INSITU_THREADS", "1")
    assert company()[MOST] == 0


def forked(_: int) -> bool:
    """In a fork, whose parent's helpers are not there."""
    return bool((ran(company(), 30) == 1).all())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_has_a_board_of_its_own(monkeypatch):
    monkeypatch.setenv("INSITU_THREADS", "2")
    ran(company(), 30)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(forked, [0]) == [True]
