"""Text to tokens and back: the vocabulary a model folder brings.

tokenizer.json of Hugging Face's form with byte pairs, vocab.json with merges.txt (`bpe`), llama2.c's JSON or
tokenizer.bin and SentencePiece's tokenizer.model (`pieces`) are read here; other kinds of tokenizer.json by the
`tokenizers` package (extra `hf`).  Without a tokenizer, tokens are numbers: "ids:1,403".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from insitu.base.errors import DataError, ModelError, UsageError
from insitu.llm.bpe import pairs_of_files, read_byte_pairs
from insitu.llm.pieces import ScoredVocabulary, read_llama2c_vocabulary, read_sentencepiece
from insitu.llm.pretokens import ForeignError

FILE, PIECES, SETTINGS = "tokenizer.json", "tokenizer.model", "tokenizer_config.json"
WORDS, MERGES, LLAMA2C = "vocab.json", "merges.txt", "tokenizer.bin"
NUMBERS = "ids:"


class Tokenizer(Protocol):
    """Both ways."""

    def encode(self, text: str) -> list[int]: ...
    def text(self, tokens: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Library:
    """A tokenizer of the `tokenizers` package."""

    inner: Any

    def encode(self, text: str) -> list[int]:
        return [int(i) for i in self.inner.encode(text).ids]

    def text(self, tokens: Sequence[int]) -> str:
        return str(self.inner.decode(list(tokens)))


@dataclass(frozen=True)
class Numbers:
    """Tokens as numbers; `why` no text can be read."""

    vocab: int
    why: str = "the model brings no tokenizer"
    remedy: tuple[str, ...] = ()

    def encode(self, text: str) -> list[int]:
        words = text.removeprefix(NUMBERS).replace(",", " ").split()
        if not text.startswith(NUMBERS) or not words or not all(w.isdecimal() for w in words):
            need = f"token numbers: {NUMBERS}1,403,407"
            raise UsageError("--prompt", f"{text[:40]!r}, and {self.why}", need, try_=self.remedy)
        return [int(w) for w in words]

    def text(self, tokens: Sequence[int]) -> str:
        return "".join(f" {t}" for t in tokens)


def read_tokenizer(folder: Path, vocab: int) -> Tokenizer:
    """The tokenizer of a folder, or of the folder that a file lies in; numbers where it has none."""
    place = folder if folder.is_dir() else folder.parent
    for name, reader in READERS:
        if (place / name).is_file() and str(folder):
            return reader(place / name, vocab)
    return Numbers(vocab)


def _tokenizer_json(path: Path, vocab: int) -> Tokenizer:
    data = _object(path)
    if "scores" in data and "vocab" in data:
        words, scores = tuple(data["vocab"]), tuple(data["scores"])
        if len(words) != len(scores) or not all(isinstance(w, str) for w in words):
            raise ModelError(str(path), f"{len(words)} words, {len(scores)} scores", "a score for each word")
        return ScoredVocabulary(words, scores)
    try:
        return read_byte_pairs(data)
    except ForeignError as reason:
        return _by_library(path, vocab, str(reason))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ModelError(str(path), f"{type(error).__name__}: {error}"[:100], "a tokenizer's JSON") from None


def _by_library(path: Path, vocab: int, reason: str) -> Tokenizer:
    """By the package, or numbers with the reason why."""
    try:
        from tokenizers import Tokenizer as Inner  # pyright: ignore[reportMissingImports, reportUnknownVariableType]
    except ImportError:
        return Numbers(vocab, f"its {path.name} ({reason}) needs the package tokenizers", ('pip install "insitu[hf]"',))
    try:
        return Library(Inner.from_file(str(path)))  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:  # noqa: BLE001  (the package raises nothing narrower)
        raise ModelError(str(path), str(error)[:100], "a tokenizer's JSON") from None


def _words_and_merges(path: Path, vocab: int) -> Tokenizer:
    merges = path.with_name(MERGES)
    if not merges.is_file():
        return Numbers(vocab, f"its {path.name} comes without {MERGES}")
    return pairs_of_files(_object(path), merges.read_text(encoding="utf-8", errors="replace"))


def _sentencepiece(path: Path, vocab: int) -> Tokenizer:
    settings = path.with_name(SETTINGS)
    begin = _object(settings).get("add_bos_token", True) if settings.is_file() else True
    return read_sentencepiece(path, begin=bool(begin))


READERS: tuple[tuple[str, Callable[[Path, int], Tokenizer]], ...] = (
    (FILE, _tokenizer_json), (PIECES, _sentencepiece), (WORDS, _words_and_merges), (LLAMA2C, read_llama2c_vocabulary),
)  # fmt: skip


def _object(path: Path) -> dict[str, Any]:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(str(path), str(error)[:100], "a tokenizer's JSON") from None
    if not isinstance(data, dict):
        raise ModelError(str(path), "no JSON object", "a tokenizer's JSON")
    return data  # pyright: ignore[reportUnknownVariableType]


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
        got = f"text, and {tokenizer.why}"
        raise DataError(str(path), got, "an .npz with `ids` and `offset`", try_=tokenizer.remedy)
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
