"""Tokenizers read without a package: ids that the `tokenizers` package gives for the same files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from insitu.base.errors import ModelError, UsageError
from insitu.llm.merging import merged
from insitu.llm.pieces import read_sentencepiece
from insitu.llm.pretokens import byte_letters
from insitu.llm.tokens import Numbers, prompt_tokens, read_tokenizer

TEXT = "Hello  hello'll 1234 h\u00e9llo \u4e2d!\n\n l<|end|> x"
GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
OPT = {**GPT2, "add_prefix_space": True}
CUT = r"(?i:'s|'t|'ll)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": CUT}, "behavior": "Isolated", "invert": False},
    {**GPT2, "use_regex": False}]}  # fmt: skip
LEVELS: dict[str, Any] = {"gpt2": GPT2, "opt": OPT, "llama3": LLAMA3}
SPACES = {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": "\u2581"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}  # fmt: skip
MERGES = ["l l", "h e", "he ll", "hell o", "\u0120 hell", "1 2", "12 3", "' ll", "\u0120 l", "\u0120 \u0120"]
MARKED = ["l l", "h e", "he ll", "hell o", "\u2581 hello", "1 2", "\u2581 l", "\u2581 \u2581"]
KINDS = ("gpt2", "opt", "llama3", "llama")
#: from the tokenizers package 0.23
EXPECTED: dict[str, tuple[list[int], str]] = {
    "gpt2": (
        [
            73,
            102,
            257,
            112,
            33,
            33,
            260,
            264,
            33,
            263,
            53,
            33,
            105,
            196,
            170,
            257,
            112,
            33,
            229,
            185,
            174,
            34,
            11,
            11,
            265,
            0,
            33,
            121,
        ],
        "Hello  hello'll 1234 h\xe9llo \u4e2d!\n\n l x",
    ),
    "opt": (
        [
            0,
            33,
            73,
            102,
            257,
            112,
            33,
            33,
            260,
            264,
            33,
            263,
            53,
            33,
            105,
            196,
            170,
            257,
            112,
            33,
            229,
            185,
            174,
            34,
            11,
            11,
            265,
            0,
            33,
            121,
        ],
        " Hello  hello'll 1234 h\xe9llo \u4e2d!\n\n l x",
    ),
    "llama3": (
        [
            0,
            73,
            102,
            257,
            112,
            33,
            33,
            260,
            264,
            33,
            263,
            53,
            33,
            105,
            196,
            170,
            257,
            112,
            33,
            229,
            185,
            174,
            34,
            11,
            11,
            265,
            0,
            33,
            121,
        ],
        "Hello  hello'll 1234 h\xe9llo \u4e2d!\n\n l x",
    ),
    "llama": (
        [
            0,
            258,
            265,
            260,
            269,
            262,
            258,
            273,
            268,
            269,
            258,
            274,
            53,
            54,
            258,
            259,
            197,
            171,
            269,
            262,
            258,
            230,
            186,
            175,
            266,
            12,
            12,
            275,
            0,
            276,
            267,
        ],
        "Hello  hello'll 1234 h\xe9llo \u4e2d!\n\n l  x",
    ),
}


def tokenizer_json(kind: str) -> dict[str, Any]:
    """A tokenizer.json with a few merges."""
    level = kind in LEVELS
    merges = MERGES if level else MARKED
    letters = (
        list(byte_letters()) if level else ["<unk>", *(f"<0x{b:02X}>" for b in range(256)), "\u2581", *"helo12H!x'"]
    )
    words = ["<|end|>", *letters, *(m.replace(" ", "") for m in merges)]
    after = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}},
             {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}},
             {"Sequence": {"id": "B", "type_id": 1}}],
             "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [0], "tokens": ["<|end|>"]}}}  # fmt: skip
    spoken = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    marked = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": 0, "content": "<|end|>", "special": True, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False}],
        "normalizer": None if level else SPACES, "pre_tokenizer": LEVELS.get(kind),
        "post_processor": None if kind == "gpt2" else after, "decoder": spoken if level else marked,
        "model": {"type": "BPE", "dropout": None, "unk_token": None if level else "<unk>", "fuse_unk": not level,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "byte_fallback": not level,
                  "ignore_merges": kind == "llama3", "vocab": {w: i for i, w in enumerate(words)}, "merges": merges},
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_byte_pairs(kind: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json(kind)))
    tokenizer = read_tokenizer(tmp_path, 400)
    ids, text = EXPECTED[kind]
    assert tokenizer.encode(TEXT) == ids
    assert tokenizer.text(ids) == text


def test_letters_of_several_tokens_come_whole(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json("gpt2")))
    tokenizer = read_tokenizer(tmp_path, 400)
    assert tokenizer.text(tokenizer.encode("\u4e2d")) == "\u4e2d"
    assert tokenizer.text(tokenizer.encode("\u4e2d")[:1]) == "\ufffd"


def test_vocabulary_and_merges(tmp_path: Path) -> None:
    model = tokenizer_json("gpt2")["model"]
    words = {("<|endoftext|>" if w == "<|end|>" else w): i for w, i in model["vocab"].items()}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    tokenizer = read_tokenizer(tmp_path, 400)
    assert tokenizer.encode("Hello  hello'll<|endoftext|>") == [*EXPECTED["gpt2"][0][:8], 0]


def test_an_unknown_kind_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tokenizers", None)
    data = {**tokenizer_json("gpt2"), "model": {"type": "Unigram", "vocab": []}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    tokenizer = read_tokenizer(tmp_path, 400)
    assert isinstance(tokenizer, Numbers)
    with pytest.raises(UsageError, match=r"kind Unigram.*needs the package tokenizers.*pip install"):
        prompt_tokens(tokenizer, "hello", 400)
    assert prompt_tokens(tokenizer, "ids:1,2", 400) == [1, 2]


@pytest.mark.parametrize("text", ["[]", "{", '{"model": {"type": "BPE", "vocab": 3, "merges": [1]}}'])
def test_broken_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match="tokenizer"):
        read_tokenizer(tmp_path, 400)


def _field(number: int, value: bytes | int | float) -> bytes:
    if isinstance(value, bytes):
        return bytes([number << 3 | 2, len(value)]) + value
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    return bytes([number << 3, value])


def _piece(word: str, score: float, kind: int = 1) -> bytes:
    return _field(1, _field(1, word.encode()) + _field(2, score) + (_field(3, kind) if kind != 1 else b""))


def test_sentencepiece(tmp_path: Path) -> None:
    rows = [_piece("<unk>", 0.0, 2), _piece("<s>", 0.0, 3), _piece("</s>", 0.0, 3)]
    rows += [_piece(f"<0x{b:02X}>", 0.0, 6) for b in range(256)]
    rows += [_piece(w, -float(i)) for i, w in enumerate(["ab", "\u2581ab", "\u2581", "a", "b"])]
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"".join(rows) + _field(2, _field(3, 2)))
    tokenizer = read_tokenizer(tmp_path, 300)
    assert tokenizer.encode("ab ba\u00e9") == [1, 260, 261, 263, 262, 3 + 0xC3, 3 + 0xA9]
    assert tokenizer.text([1, 260, 261, 263, 262, 3 + 0xC3, 3 + 0xA9, 2]) == "ab ba\u00e9"
    path.write_bytes(b"".join(rows) + _field(2, _field(3, 1)))
    with pytest.raises(ModelError, match="does not merge pairs"):
        read_sentencepiece(path)
    path.write_bytes(b"\xff\xff\xff")
    with pytest.raises(ModelError, match="SentencePiece"):
        read_sentencepiece(path)


def test_a_binary_vocabulary(tmp_path: Path) -> None:
    words = ["<unk>", "<s>", "</s>", " ", "a", " a", "aa"]
    body = b"".join(struct.pack("<fi", float(i), len(w.encode())) + w.encode() for i, w in enumerate(words))
    (tmp_path / "tokenizer.bin").write_bytes(struct.pack("<i", 5) + body)
    tokenizer = read_tokenizer(tmp_path / "model.bin", 7)
    assert tokenizer.encode("aa") == [1, 3, 6]
    with pytest.raises(ModelError, match="7 words, then"):
        read_tokenizer(tmp_path / "model.bin", 9)


def test_long_texts_merge_quickly() -> None:
    text = "ab" * 20_000
    assert merged(list(text), lambda a, b: 0.0 if a + b == "ab" else None) == ["ab"] * 20_000
