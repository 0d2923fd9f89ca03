"""Every family of Hugging Face folders: read, compiled, every integer compared, a token as its row of the text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.base.errors import ModelError
from insitu.compiler.pipeline import compile_graph
from insitu.flow.check import compare
from insitu.frontend.huggingface import read_language_model
from insitu.frontend.language_graph import text_graph
from insitu.graph.export import float_session
from insitu.graph.interpret import interpret
from insitu.isa.check import check_program
from insitu.llm.build import prepare
from insitu.llm.generate import fed
from insitu.runtime.session import Session
from tests.llm.folders import FAMILIES, WORDS, write_folder

TOKENS = 12


@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=[] if f in ("llama", "gpt2") else [pytest.mark.slow]) for f in FAMILIES]
)
def test_family(family: str, tmp_path: Path) -> None:
    model = read_language_model(write_folder(tmp_path / family, family))
    chip = load_chip("dcim-28nm")
    ids = np.random.default_rng(1).integers(0, WORDS, (8, TOKENS))
    prepared = prepare(model, chip, ids)
    quantized = prepared.text(TOKENS)
    name = quantized.outputs[0]
    codes = interpret(quantized, {"ids": ids[:2, None]})[name]
    near = float_session(text_graph(model, TOKENS))({"ids": ids[:2, None]})
    real = next(iter(near.values()))
    program = compile_graph(quantized, chip)
    check_program(program)
    session = Session(program, graph=quantized)
    error = np.sqrt(np.mean((session.real(name, codes) - real) ** 2) / np.mean(real**2))
    assert error < 0.25, f"the quantized model is {error:.2f} of its values off the float one"
    if not model.arch.causal:
        result = compare(session, {"ids": ids[:1, None]})
        assert (result.mismatches, result.first) == (0, None)
        return
    assert np.array_equal(session.run_codes({"ids": ids[:2, None]})[name], codes)
    step = prepared.step(TOKENS)
    tokens = Session(compile_graph(step, chip), graph=step)
    given = {"ids": ids[0][:, None, None], "position": np.arange(TOKENS)[:, None]}
    result = compare(tokens, {n: given[n] for n in tokens.inputs})
    assert (result.mismatches, result.first) == (0, None)
    tokens.reset()
    for at in range(TOKENS):
        logits = fed(tokens, [int(t) for t in ids[:2, at]], at)
        assert np.array_equal(logits, session.real(name, codes)[:, 0, at])


def test_shards_are_one_model(tmp_path: Path) -> None:
    whole, cut = (read_language_model(write_folder(tmp_path / str(n), "llama", shards=n)) for n in (1, 3))
    assert whole.weights.keys() == cut.weights.keys()
    assert all(np.array_equal(whole.weights[n], cut.weights[n]) for n in whole.weights)


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "llama", shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00003\.safetensors"):
        read_language_model(folder)


def test_a_wrong_shape_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "llama")
    _edit(folder, intermediate_size=40)
    with pytest.raises(ModelError, match=r"gate_proj.weight: shape 48x32; needs 40x32"):
        read_language_model(folder)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "llama")
    _edit(folder, model_type="lama")
    with pytest.raises(ModelError, match=r"model_type 'lama'.*Try: llama"):
        read_language_model(folder)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "llama")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(ModelError, match="a pickle"):
        read_language_model(folder)


def test_broken_files_are_one_message(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "llama")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="whole safetensors file"):
        read_language_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json"):
        read_language_model(folder)


def test_tokens_that_begin_and_end_texts(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "llama", changes={"bos_token_id": 4, "eos_token_id": [7, 60, 9]})
    model = read_language_model(folder)
    assert (model.begin, model.ends) == (4, (7, 9))  # the vocabulary has 60 words
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 8}))
    assert read_language_model(folder).ends == (8,)
    _edit(folder, bos_token_id=None)
    assert read_language_model(folder).begin == 8
    assert read_language_model(write_folder(tmp_path / "n", "llama")).begin == 1


def test_a_head_that_is_neither_there_nor_tied(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "qwen2")
    assert read_language_model(folder).arch.tied
    _edit(folder, tie_word_embeddings=False)
    with pytest.raises(ModelError, match=r"no tensor 'lm_head\.weight' and no tied embeddings"):
        read_language_model(folder)


def test_weights_that_are_quantized_already(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "llama", changes={"quantization_config": {"quant_method": "gptq"}})
    with pytest.raises(ModelError, match="quantized already"):
        read_language_model(folder)


@pytest.mark.parametrize(
    ("rope", "message"),
    [({"rope_type": "spiral"}, "type 'spiral'; needs one of default"),
     ({"rope_type": "yarn"}, "all of yarn's settings"),
     ({"rope_type": "longrope", "short_factor": [1.0]}, "1 short factors for 4 pairs")],
)  # fmt: skip
def test_positions_that_are_not_known(rope: dict[str, object], message: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "llama", changes={"rope_scaling": rope})
    with pytest.raises(ModelError, match=message):
        read_language_model(folder)


def test_windows_by_layer(tmp_path: Path) -> None:
    kinds = ["full_attention", "sliding_attention"]
    folder = write_folder(tmp_path / "m", "mistral", changes={"layer_types": kinds})
    assert read_language_model(folder).arch.windows == (0, 8)
    _edit(folder, layer_types=["full_attention"])
    with pytest.raises(ModelError, match="layer_types: 1 kinds; needs 2"):
        read_language_model(folder)
