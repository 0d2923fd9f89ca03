"""The stories260K checkpoint: its float text, its integers, its tokens, its perplexity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from insitu.cli.main import main
from insitu.flow.language import LanguageDeployment, LanguageOptions, deploy_language
from insitu.frontend.huggingface import read_language_model
from insitu.frontend.language_graph import text_graph
from insitu.frontend.llama2c import read_llama2c_file
from insitu.graph.export import float_session
from insitu.llm.tokens import prompt_tokens, read_tokenizer, text_tokens
from tests.llm.folders import write_folder

FIRST = "Once upon a time, there was a little girl named Lily."


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "stories260k"


@pytest.fixture(scope="module")
def deployed(folder: Path) -> LanguageDeployment:
    return deploy_language(folder, "dcim-28nm", options=LanguageOptions(context=64, tokens=24))


def test_the_float_front_end_writes_the_reference(folder: Path) -> None:
    model = read_language_model(folder)
    ids = np.load(folder / "greedy.npz")["ids"].astype(np.int64)
    logits = float_session(text_graph(model, len(ids)))({"ids": ids[None, None]})["logits"][0, 0]
    assert model.parameters == 260_032
    assert np.array_equal(logits.argmax(axis=-1)[:-1], ids[1:])


def test_the_tokenizer_reads_its_own_texts(folder: Path) -> None:
    tokenizer = read_tokenizer(folder, 512)
    ids = np.load(folder / "greedy.npz")["ids"]
    text = tokenizer.text([int(i) for i in ids])
    assert text.startswith(FIRST)
    assert prompt_tokens(tokenizer, "Once upon a time", 512) == [int(i) for i in ids[:5]]


def test_a_binary_checkpoint_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    head = [config[n] for n in ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")]
    order = ["tok_embeddings", "attn_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w2", "w3", "norm"]
    spare = np.zeros(2 * config["max_seq_len"] * 4, "<f4")
    parts = [np.asarray(head, "<i4").tobytes(), *(tensors[n].astype("<f4").tobytes() for n in order), spare.tobytes()]
    path = tmp_path / "stories.bin"
    path.write_bytes(b"".join(parts))
    ours, theirs = read_llama2c_file(path), read_language_model(folder)
    assert ours.arch == theirs.arch
    assert all(np.array_equal(ours.weights[n], theirs.weights[n]) for n in theirs.weights)


@pytest.mark.slow
def test_tokens_of_the_chip(deployed: LanguageDeployment) -> None:
    ids = prompt_tokens(deployed.tokenizer, "Once upon a time", 512)
    tokens = [t.id for t in deployed.generate(ids)]
    text = deployed.tokenizer.text([*ids, *tokens])
    assert text.startswith(FIRST)
    rows = list(deployed.generate_batch([ids, ids], count=8))
    assert [[t.id for t in row] for row in rows] == [[t, t] for t in tokens[:8]]
    result = deployed.check(ids)
    assert (result.mismatches, result.first) == (0, None)


@pytest.mark.long
def test_near_the_float_model(deployed: LanguageDeployment, folder: Path) -> None:
    texts = text_tokens(deployed.tokenizer, folder / "tokens.npz", 512)
    found = deployed.score(texts[:30])
    assert found.tokens > 5000
    assert found.agreement >= 0.94
    assert found.divergence <= 0.015
    assert found.worse <= 0.015


@pytest.mark.long
def test_near_it_under_physics(folder: Path) -> None:
    chip = deploy_language(folder, "parametric-sonos-adc12", options=LanguageOptions(context=32))
    texts = text_tokens(chip.tokenizer, folder / "tokens.npz", 512)
    for instance in range(3):
        assert chip.score(texts[:30], physics="full", instance=instance).worse <= 0.08


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "model", "llama")
    argv = ["run", str(folder), "--chip", "dcim-28nm", "--prompt", "ids:3,5", "--tokens", "4", "--context", "16",
            "--out", str(tmp_path / "run"), "--json"]  # fmt: skip
    assert main(argv) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bit_exact"]["mismatches"] == 0
    assert shown["coverage"]["array_macs_fraction"] == 1.0
    assert {"tokens_per_s", "energy_per_token_j", "ttft_s"} <= shown["metrics"].keys()
    assert len(shown["generated"]["tokens"]) == 4
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "model", "llama")
    (folder / "model.safetensors").unlink()
    assert main(["run", str(folder), "--chip", "dcim-28nm", "--prompt", "ids:1", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["got"] == "no weights"
    assert main(["run", "task:kws", "--chip", "wtm2101", "--prompt", "hello", "--json"]) == 1
    assert "no language model" in json.loads(capsys.readouterr().out)["error"]["got"]
