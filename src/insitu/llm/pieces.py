"""Vocabularies whose words have scores: llama2.c's (JSON or tokenizer.bin) and SentencePiece's tokenizer.model.

Characters, or their bytes where a character has no word, merge to the best-scored word first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from insitu.base.errors import ModelError
from insitu.llm.merging import merged

SPACE = "\u2581"  # how SentencePiece writes a space
UNKNOWN, CONTROL, BPE = 2, 3, 2
MOST_WORD = 1 << 16  # bytes


@dataclass(frozen=True)
class ScoredVocabulary:
    """Words by token, with their scores; `space` is how words write a space, `silent` what no text shows."""

    words: tuple[str, ...]
    scores: tuple[float, ...]
    begin: int | None = 1
    unknown: int = 0
    space: str = " "
    silent: frozenset[int] = frozenset((0, 1, 2))

    @cached_property
    def index(self) -> dict[str, int]:
        """Token of a word; of equal words the first."""
        return {w: i for i, w in reversed(list(enumerate(self.words)))}

    def encode(self, text: str) -> list[int]:
        """The token that begins texts, a leading space, characters or their bytes, merged by score."""
        start = [] if self.begin is None else [self.begin]
        if not text:
            return start
        parts: list[str] = []
        for letter in (" " + text).replace(" ", self.space):
            parts += [letter] if letter in self.index else [f"<0x{b:02X}>" for b in letter.encode()]
        return start + [self.index.get(w, self.unknown) for w in merged(parts, self._rank)]

    def _rank(self, a: str, b: str) -> float | None:
        at = self.index.get(a + b)
        return None if at is None else -self.scores[at]

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens say; the space in front of a text is none."""
        raw = b"".join(self._bytes(t) for t in tokens).decode("utf-8", "replace")
        return raw.removeprefix(" ")

    def _bytes(self, token: int) -> bytes:
        word = self.words[token]
        if token in self.silent:
            return b""
        if len(word) == 6 and word.startswith("<0x") and word.endswith(">"):
            return bytes([int(word[3:5], 16)])
        return word.replace(self.space, " ").encode()


def read_llama2c_vocabulary(path: Path, vocab: int) -> ScoredVocabulary:
    """llama2.c's tokenizer.bin: the longest word's length, then score, length and bytes of each word."""
    raw, at, words, scores = path.read_bytes(), 4, list[str](), list[float]()
    try:
        for _ in range(vocab):
            score, size = struct.unpack_from("<fi", raw, at)
            if not 0 <= size <= MOST_WORD or at + 8 + size > len(raw):
                raise struct.error(f"a word of {size} bytes")
            words.append(raw[at + 8 : at + 8 + size].decode("utf-8", "replace"))
            scores.append(score)
            at += 8 + size
    except struct.error as error:
        got = f"{len(words)} words, then {error}"
        raise ModelError(str(path), got, f"{vocab} words, as the model has them") from None
    return ScoredVocabulary(tuple(words), tuple(scores))


def read_sentencepiece(path: Path, *, begin: bool = True) -> ScoredVocabulary:
    """SentencePiece's tokenizer.model (a protocol buffer) of kind BPE; ModelError for others."""
    words, scores, kinds, model, first = list[str](), list[float](), list[int](), 1, 1
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1 and isinstance(value, bytes):  # a piece: its text, score and kind
                piece = dict(_fields(value))
                words.append(bytes(piece.get(1, b"")).decode("utf-8", "replace"))
                scores.append(struct.unpack("<f", bytes(piece.get(2, b"\0\0\0\0")))[0])
                kinds.append(int(piece.get(3, 1)))
            elif number == 2 and isinstance(value, bytes):  # how it was trained
                spec = dict(_fields(value))
                model, first = int(spec.get(3, 1)), int(spec.get(41, 1))
    except (ValueError, struct.error, IndexError, TypeError) as error:
        raise ModelError(
            str(path), str(error)[:60] or "no protocol buffer", "SentencePiece's tokenizer.model"
        ) from None
    if not words:
        raise ModelError(str(path), "no words", "SentencePiece's tokenizer.model")
    if model != BPE:
        raise ModelError(str(path), "a SentencePiece model that does not merge pairs", "kind BPE, or tokenizer.json")
    silent = frozenset(i for i, kind in enumerate(kinds) if kind in (UNKNOWN, CONTROL))
    unknown = next((i for i, kind in enumerate(kinds) if kind == UNKNOWN), 0)
    return ScoredVocabulary(tuple(words), tuple(scores), first if begin else None, unknown, SPACE, silent)


def _fields(raw: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(number, value) of each field of a protocol buffer."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(raw, at)
            yield key >> 3, value
            continue
        size, at = (_varint(raw, at)) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), at)
        if size < 0 or at + size > len(raw):
            raise ValueError(f"a field of {size} bytes at byte {at}")
        yield key >> 3, raw[at : at + size]
        at += size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """(value, where the next field begins)."""
    value = shift = 0
    while shift < 64:
        byte = raw[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError(f"a number too long at byte {at}")
