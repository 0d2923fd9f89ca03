"""Caches in pages: each sequence says what it says alone, pages come back, a pool that is too small says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.base.errors import DataError
from insitu.cli.main import main
from insitu.compiler.pipeline import compile_graph
from insitu.flow.check import compare
from insitu.flow.language import cache_bytes
from insitu.frontend.huggingface import read_language_model
from insitu.frontend.language_graph import Paging
from insitu.isa.check import check_program
from insitu.llm.build import Prepared, prepare
from insitu.llm.generate import Sampling, Token, generate
from insitu.llm.pages import Pool, forced_steps, generate_paged
from insitu.runtime.session import Session
from tests.llm.folders import WORDS, write_folder

CONTEXT, PAGE = 12, 4
PROMPTS = [[3, 5], [7, 8, 9, 10, 11], [1], [4, 4, 4]]


def _prepared(folder: Path, family: str, bits: int) -> Prepared:
    model, chip = read_language_model(write_folder(folder, family)), load_chip("dcim-28nm-fp16")
    return prepare(model, chip, np.random.default_rng(1).integers(0, WORDS, (4, CONTEXT)), cache_bits=bits)


def _paged(prepared: Prepared, paging: Paging) -> Session:
    graph = prepared.step(CONTEXT, paging)
    program = compile_graph(graph, prepared.chip)
    check_program(program)
    return Session(program, graph=graph)


SLOW = [
    pytest.param(f, b, marks=pytest.mark.slow) for f, b in (("llama", 8), ("gpt2", 8), ("llama", 16), ("gemma2", 8))
]


@pytest.mark.parametrize(("family", "bits"), [("llama", 4), *SLOW])
def test_lanes_say_what_each_says_alone(family: str, bits: int, tmp_path: Path) -> None:
    """Two lanes and a pool of five pages for four prompts: two have to wait, pages are used again."""
    prepared = _prepared(tmp_path / "m", family, bits)
    session, plain = _paged(prepared, Paging(PAGE, 6, 2)), prepared.step(CONTEXT)
    alone = Session(compile_graph(plain, prepared.chip), graph=plain)
    pool, found = Pool.of(session.graph), dict[int, list[Token]]()
    for number, token in generate_paged(session, PROMPTS, count=6, pool=pool):
        found.setdefault(number, []).append(token)
    assert [found[n] for n in range(4)] == [list(generate(alone, p, count=6)) for p in PROMPTS]
    assert (pool.used, sorted(pool.free)) == (0, [1, 2, 3, 4, 5])
    assert 3 <= pool.peak <= 5
    assert cache_bytes(session.program) == cache_bytes(alone.program) * 6 * PAGE // CONTEXT
    steps = forced_steps(session.graph, list(range(1, 20)), 16)
    result = compare(session, steps)
    assert (result.mismatches, result.first) == (0, None)
    assert list(generate(session, PROMPTS[1], count=6)) == found[1]  # one stream in the first lane


def test_drawn_tokens_are_those_of_the_seed(tmp_path: Path) -> None:
    prepared = _prepared(tmp_path / "m", "llama", 8)
    session, sampling = _paged(prepared, Paging(PAGE, 7, 2)), Sampling(0.9, 0.9, seed=3)
    pairs = list(generate_paged(session, PROMPTS[:2], count=5, sampling=sampling))
    for n in range(2):
        assert [t for m, t in pairs if m == n] == list(generate(session, PROMPTS[n], count=5, sampling=sampling))


def test_a_prompt_larger_than_the_pool(tmp_path: Path) -> None:
    session = _paged(_prepared(tmp_path / "m", "llama", 8), Paging(PAGE, 3, 2))
    with pytest.raises(DataError, match="at most 2 pages") as caught:
        list(generate_paged(session, PROMPTS, count=6))
    assert caught.value.where == "prompt 2 with its answer"
    with pytest.raises(DataError, match="pool of 2 pages"):
        list(generate(session, PROMPTS[1], count=6))


def test_the_pool_gives_what_it_was_given() -> None:
    pool = Pool(4, 6, np.zeros((2, 3), np.int64), [5, 4, 3, 2, 1])
    assert pool.takes(20)
    assert not pool.takes(21)
    pool.begin(0, 9)
    assert [pool.slot(0, at) for at in range(5)] == [4, 5, 6, 7, 8]
    assert not pool.takes(9)  # two pages are held, three are promised
    pool.begin(1, 8)
    assert pool.slot(1, 0) == 12
    pool.end(0)
    assert (pool.used, pool.tables.tolist()) == (1, [[0, 0, 0], [3, 0, 0]])
    assert sorted(pool.free) == [1, 2, 4, 5]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "m", "llama")
    words = ["run", str(folder), "--chip", "dcim-28nm", "--tokens", "4", "--context", "8", "--page-tokens", "2",
             "--prompt", "ids:3,5,7", "--prompt", "ids:4", "--json"]  # fmt: skip
    assert main([*words, "--out", str(tmp_path / "a"), "--pool-pages", "5"]) == 0
    shown = json.loads(capsys.readouterr().out)
    pages = shown["generated"]["pages"]
    assert (pages["pool_pages"], pages["lanes"], [len(s) for s in shown["generated"]["sequences"]]) == (5, 2, [4, 4])
    assert shown["bit_exact"]["mismatches"] == 0
    assert shown["metrics"]["kv_cache_bytes"]["value"] == pages["pool_bytes"]
    assert 0 < pages["peak_bytes"] < pages["pool_bytes"]
    assert main([*words, "--out", str(tmp_path / "b"), "--pool-pages", "2"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["where"] == "prompt 1 with its answer"
