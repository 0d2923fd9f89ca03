"""Caches of few bits: the float model stays what it is, steps have the text's integers, and what few bits cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.cli.main import main
from insitu.compiler.pipeline import compile_graph
from insitu.flow.check import compare
from insitu.flow.language import LanguageOptions, deploy_language
from insitu.frontend.huggingface import read_language_model
from insitu.frontend.language_graph import text_graph
from insitu.graph.export import float_session
from insitu.llm.build import prepare
from insitu.llm.generate import fed
from insitu.llm.smooth import smoothed
from insitu.llm.tokens import text_tokens
from insitu.runtime.session import Session
from tests.llm.folders import WORDS, write_folder

TOKENS = 10


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "phi", "gpt2", "gemma2"])
def test_centers_change_nothing(family: str, tmp_path: Path) -> None:
    model = read_language_model(write_folder(tmp_path / family, family))
    ids = np.random.default_rng(2).integers(0, WORDS, (4, TOKENS))
    even = smoothed(model, ids, centered=True)
    assert "0.k_center" in even.weights
    plain, moved = (next(iter(float_session(text_graph(m, TOKENS))({"ids": ids[:, None]}).values()))
                    for m in (model, even))  # fmt: skip
    np.testing.assert_allclose(moved, plain, rtol=1e-3, atol=1e-3)


def test_steps_are_the_text(tmp_path: Path) -> None:
    model, chip = read_language_model(write_folder(tmp_path / "m", "llama")), load_chip("dcim-28nm")
    ids = np.random.default_rng(1).integers(0, WORDS, (6, TOKENS))
    prepared = prepare(model, chip, ids, cache_bits=4)
    step, text = prepared.step(TOKENS), prepared.text(TOKENS)
    for state in step.states:
        spec = step.type(state.input).quant
        assert spec is not None
        assert spec.bits == 4
    tokens, whole = (Session(compile_graph(g, chip), graph=g) for g in (step, text))
    given = {"ids": ids[0][:, None, None], "position": np.arange(TOKENS)[:, None]}
    found = compare(tokens, {n: given[n] for n in tokens.inputs})
    assert (found.mismatches, found.first) == (0, None)
    name = text.outputs[0]
    rows = whole.real(name, whole.run_codes({"ids": ids[:1, None]})[name])[0, 0]
    tokens.reset()
    for at in range(TOKENS):
        assert np.array_equal(fed(tokens, [int(ids[0, at])], at)[0], rows[at])


@pytest.mark.long
def test_what_few_bits_cost(shared_data: Path) -> None:
    folder, worse = shared_data / "stories260k", dict[int, float]()
    for bits in (6, 4):
        made = deploy_language(folder, "dcim-28nm", options=LanguageOptions(context=32, cache_bits=bits))
        worse[bits] = made.score(text_tokens(made.tokenizer, folder / "tokens.npz", 512)[:4]).worse
    assert worse[6] < 0.05
    assert worse[6] < worse[4] < 0.5


def test_widths_that_no_program_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "m", "llama")
    assert main(["run", str(folder), "--chip", "dcim-28nm", "--prompt", "ids:1", "--kv-bits", "16", "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["where"], error["got"]) == ("--cache-bits", "16 in a compiled program")
