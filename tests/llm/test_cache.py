"""Caches of few bits: the float model stays what it is, steps have the text's integers, and what few bits cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.base.errors import ProgramError
from insitu.cli.main import main
from insitu.compiler.pipeline import compile_graph
from insitu.flow.check import compare
from insitu.flow.language import LanguageOptions, cache_bytes, deploy_language
from insitu.frontend.huggingface import read_language_model
from insitu.frontend.language_graph import text_graph
from insitu.graph.export import float_session
from insitu.isa.check import check_program
from insitu.isa.program import Symbol
from insitu.isa.semantics import run
from insitu.llm.build import prepare
from insitu.llm.generate import fed
from insitu.llm.smooth import smoothed
from insitu.llm.tokens import text_tokens
from insitu.runtime.session import Session
from insitu.sim.counts import count
from insitu.sim.packed import store_packed, unpacked
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


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [(4, "i4"), (16, "f16"), *(pytest.param(b, d, marks=pytest.mark.slow) for b, d in ((3, "i4"), (2, "i2")))],
)
def test_steps_are_the_text(bits: int, dtype: str, tmp_path: Path) -> None:
    model, chip = read_language_model(write_folder(tmp_path / "m", "llama")), load_chip("dcim-28nm-fp16")
    ids = np.random.default_rng(1).integers(0, WORDS, (6, TOKENS))
    prepared = prepare(model, chip, ids, cache_bits=bits)
    step, text = prepared.step(TOKENS), prepared.text(TOKENS)
    program = compile_graph(step, chip)
    check_program(program)
    held = [s for s in program.symbols if s.kind == "state"]
    assert {s.dtype for s in held} == {dtype}
    assert cache_bytes(program) * 8 == sum(s.count for s in held) * int(dtype[1:])
    tokens, whole = Session(program, graph=step), Session(compile_graph(text, chip), graph=text)
    given = {"ids": ids[0][:, None, None], "position": np.arange(TOKENS)[:, None]}
    found = compare(tokens, {n: given[n] for n in tokens.inputs})
    assert (found.mismatches, found.first) == (0, None)
    name = text.outputs[0]
    rows = whole.real(name, whole.run_codes({"ids": ids[:1, None]})[name])[0, 0]
    tokens.reset()
    for at in range(TOKENS):
        assert np.array_equal(fed(tokens, [int(ids[0, at])], at)[0], rows[at])


def test_packed_caches_save_what_they_say(tmp_path: Path) -> None:
    """Of two programs with caches of 8 and 4 bits, the second reads half the bytes of the first one's caches less."""
    model, chip = read_language_model(write_folder(tmp_path / "m", "llama")), load_chip("dcim-28nm")
    ids = np.random.default_rng(1).integers(0, WORDS, (6, TOKENS))
    read: dict[int, tuple[int, float]] = {}
    for bits in (5, 4):  # both hold keys and values less their middle: the same commands
        program = compile_graph(prepare(model, chip, ids, cache_bits=bits).step(TOKENS), chip)
        found = count(program, chip)
        read[bits] = int(str(found.total["ram_read_bytes"])), cache_bytes(program)
    assert read[5][1] == 2 * read[4][1]
    assert read[5][0] - read[4][0] == read[4][1]  # attention reads every element once


def test_the_reference_semantics_agree(tmp_path: Path) -> None:
    """Nibbles of the slow reference are those of the simulator, memory byte by byte behind it."""
    model, chip = read_language_model(write_folder(tmp_path / "m", "llama")), load_chip("dcim-28nm")
    ids = np.random.default_rng(1).integers(0, WORDS, (4, 4))
    step = prepare(model, chip, ids, cache_bits=4).step(4)
    program = compile_graph(step, chip)
    session, states = Session(program, graph=step), [s.input for s in step.states]
    held: dict[str, np.ndarray] = {}
    for at in range(2):
        given = {"ids": ids[0, at : at + 1].reshape(1, 1), "position": np.array([at])}
        slow = run(program, given, states=held, observe=states)
        fast = session.step_codes({n: c[None] for n, c in given.items()})
        held = {n: slow[n] for n in states}
        assert all(np.array_equal(slow[n], fast[n][0]) for n in (*step.outputs, *states))


def test_codes_that_do_not_fit_are_refused() -> None:
    symbol = Symbol("s", "state", "ram", "i4", 5, 2)
    memory = np.full((1, 8), 0xA5, np.uint8)
    codes = unpacked(memory, symbol).copy()
    codes[0, :5] = [-8, 7, 0, -1, 3]
    store_packed(memory, symbol, codes)
    assert memory[0].tolist() == [0xA5, 0xA5, 0x78, 0xF0, 0xA3, 0xA5, 0xA5, 0xA5]  # nobody else's bytes
    assert unpacked(memory, symbol)[0, :5].tolist() == [-8, 7, 0, -1, 3]
    codes[0, 0] = 8
    with pytest.raises(ProgramError, match="value 8"):
        store_packed(memory, symbol, codes)


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
    for given, where in (("fp16", "--kv fp16"), ("9", "--kv"), ("int1", "--kv"), ("half", "--kv half")):
        assert main(["run", str(folder), "--chip", "dcim-28nm", "--prompt", "ids:1", "--kv", given, "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["error"]["where"] == where
