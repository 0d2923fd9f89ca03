"""Text to tokens and back: the vocabulary a model folder brings.

A tokenizer.json with `vocab` and `scores` is llama2.c's (SentencePiece BPE: the best-scored neighbours merge first);
one of Hugging Face's form is read by the `tokenizers` package (extra `hf`).  Without a tokenizer, tokens are numbers:
"ids:1,403".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from insitu.base.errors import DataError, ModelError, UsageError

FILE = "tokenizer.json"
NUMBERS = "ids:"


class Tokenizer(Protocol):
    """Both ways; `piece` is what a token adds to a text that is shown as it grows."""

    def encode(self, text: str) -> list[int]: ...
    def piece(self, token: int) -> str: ...


@dataclass(frozen=True)
class ScoredVocabulary:
    """llama2.c's tokenizer."""

    words: tuple[str, ...]
    scores: tuple[float, ...]

    def encode(self, text: str) -> list[int]:
        """A start token, a leading space, characters (or their bytes), merged by score."""
        index = {w: i for i, w in enumerate(self.words)}
        tokens = [1] + ([index[" "]] if text and " " in index else [])
        for letter in text:
            tokens += [index[letter]] if letter in index else [3 + b for b in letter.encode()]
        while True:
            pairs = [(self.scores[at], -i, at) for i in range(1, len(tokens) - 1)
                     if (at := index.get(self.words[tokens[i]] + self.words[tokens[i + 1]])) is not None]  # fmt: skip
            if not pairs:
                return tokens
            _, place, merged = max(pairs)
            tokens[-place : -place + 2] = [merged]

    def piece(self, token: int) -> str:
        """The token's text; tokens for single bytes give the byte, start and end nothing."""
        word = self.words[token]
        if token in (1, 2):
            return ""
        if word.startswith("<0x") and word.endswith(">"):
            return bytes([int(word[3:-1], 16)]).decode("latin-1")
        return word


@dataclass(frozen=True)
class Library:
    """A tokenizer of the `tokenizers` package."""

    inner: Any

    def encode(self, text: str) -> list[int]:
        return [int(i) for i in self.inner.encode(text).ids]

    def piece(self, token: int) -> str:
        word = str(self.inner.id_to_token(token) or "")
        return str(self.inner.decode([token])) if "\u2581" not in word else word.replace("\u2581", " ")


@dataclass(frozen=True)
class Numbers:
    """Tokens as numbers."""

    vocab: int

    def encode(self, text: str) -> list[int]:
        words = text.removeprefix(NUMBERS).replace(",", " ").split()
        if not text.startswith(NUMBERS) or not words or not all(w.isdecimal() for w in words):
            need = f"token numbers: {NUMBERS}1,403,407"
            raise UsageError("--prompt", f"{text[:40]!r}, and the model brings no tokenizer", need)
        return [int(w) for w in words]

    def piece(self, token: int) -> str:
        return f" {token}"


def read_tokenizer(folder: Path, vocab: int) -> Tokenizer:
    """The tokenizer of a folder; numbers where it has none."""
    path = folder / FILE if folder.is_dir() else folder.with_name(FILE)
    if not path.is_file():
        return Numbers(vocab)
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(str(path), str(error)[:100], "a tokenizer's JSON") from None
    if isinstance(data, dict) and "scores" in data and "vocab" in data:
        words, scores = tuple(data["vocab"]), tuple(data["scores"])  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if len(words) != len(scores) or not all(isinstance(w, str) for w in words):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            raise ModelError(str(path), f"{len(words)} words, {len(scores)} scores", "a score for each word")  # pyright: ignore[reportUnknownArgumentType]
        return ScoredVocabulary(words, scores)  # pyright: ignore[reportUnknownArgumentType]
    try:
        from tokenizers import Tokenizer as Inner  # pyright: ignore[reportMissingImports, reportUnknownVariableType]
    except ImportError:
        return Numbers(vocab)
    return Library(Inner.from_file(str(path)))  # pyright: ignore[reportUnknownMemberType]


def prompt_tokens(tokenizer: Tokenizer, text: str, vocab: int) -> list[int]:
    """The tokens of a prompt, each below the vocabulary's size."""
    numbers = text.startswith(NUMBERS)
    tokens = (Numbers(vocab) if numbers else tokenizer).encode(text)
    if not tokens or max(tokens) >= vocab:
        raise UsageError("--prompt", f"token {max(tokens, default=-1)}", f"tokens from 0 to {vocab - 1}")
    return tokens


def text_tokens(tokenizer: Tokenizer, path: Path, vocab: int) -> list[list[int]]:
    """The texts of a file as tokens: .npz with `ids` (and `offset`), or plain text."""
    if path.suffix.lower() == ".npz":
        return _stored(path, vocab)
    if isinstance(tokenizer, Numbers):
        raise DataError(str(path), "text, and the model brings no tokenizer", "an .npz with `ids` and `offset`")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(path), str(error)[:80], "UTF-8 text, or .npz") from None
    parts = [p.strip() for p in text.split("<|endoftext|>")]
    return [prompt_tokens(tokenizer, p, vocab) for p in parts if p]


def _stored(path: Path, vocab: int) -> list[list[int]]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            ids = np.asarray(file["ids"], np.int64).reshape(-1)
            cuts = np.asarray(file["offset"], np.int64) if "offset" in file else np.array([0, len(ids)])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(str(path), str(error)[:80], "`ids`, and `offset` where each text starts") from None
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= vocab or (np.diff(cuts) < 1).any() or cuts[-1] > len(ids):
        raise DataError(str(path), "tokens or offsets out of range", f"tokens 0..{vocab - 1}, offsets that grow")
    return [[int(i) for i in ids[a:b]] for a, b in pairwise(cuts)]


def windows(texts: Sequence[Sequence[int]], length: int) -> list[list[int]]:
    """Texts cut to pieces of at most `length` tokens, each of two at least."""
    return [list(t[i : i + length]) for t in texts for i in range(0, len(t), length) if len(t[i : i + length]) > 1]
