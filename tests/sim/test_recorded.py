"""Recorded steps give what the functional simulator gives, ideal and under physics."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.bench.llm_tokens import random_model
from insitu.compiler.pipeline import compile_graph
from insitu.llm.build import prepare
from insitu.runtime.session import Session


@pytest.mark.parametrize(("chip", "physics"), [("dcim-28nm", "ideal"), ("parametric-sonos-adc12", "full")])
def test_steps_are_the_simulators(chip: str, physics: str) -> None:
    rng = np.random.default_rng(0)
    ready = prepare(random_model(), load_chip(chip), rng.integers(0, 512, (4, 16)))
    graph = ready.step(16)
    program = compile_graph(graph, ready.chip)
    quick, slow = (Session(program, graph=graph, physics=physics, seed=3) for _ in range(2))
    for at in range(4):
        codes = {"ids": rng.integers(0, 512, (3, 1, 1)), "position": np.full((3, 1), at)}
        mine = quick.step_codes(codes)
        seen: list[str] = []
        wanted = slow.step_codes(codes, observe=lambda name, value, seen=seen: seen.append(name))
        assert seen
        assert mine.keys() == wanted.keys()
        assert all(np.array_equal(mine[n], wanted[n]) for n in wanted)


def test_noise_of_each_step_is_its_own() -> None:
    rng = np.random.default_rng(0)
    ready = prepare(random_model(), load_chip("parametric-sonos-adc12"), rng.integers(0, 512, (4, 16)))
    graph = ready.step(4)
    session = Session(compile_graph(graph, ready.chip), graph=graph, physics="read_noise")
    codes = {"ids": np.full((1, 1, 1), 7), "position": np.zeros((1, 1), np.int64)}
    first, second = (session.step_codes(codes)["logits"] for _ in range(2))
    session.reset()
    assert not np.array_equal(first, second)
    assert np.array_equal(session.step_codes(codes)["logits"], first)
