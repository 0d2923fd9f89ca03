"""A tokenizer.json of byte pair encoding, or vocab.json with merges.txt, read without any package.

Texts are split at added tokens, normalized, cut (`pretokens`), merged (`merging`) and put between special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from insitu.llm.merging import merged
from insitu.llm.pretokens import Change, Cut, ForeignError, byte_letters, normalizer, pre_tokenizer

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "\u2581"


@dataclass(frozen=True)
class BytePairs:
    """Words, merges in their order, and what stands around them."""

    vocab: Mapping[str, int]
    ranks: Mapping[tuple[str, str], int]
    added: Mapping[str, int]
    silent: frozenset[int]
    change: Change
    cut: Cut
    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    byte_level: bool = True
    byte_fallback: bool = False
    unknown: int | None = None
    whole_words: bool = False  # a piece that is a word is not built from pairs
    words: dict[int, str] = field(default_factory=dict[int, str])
    known: dict[str, list[int]] = field(default_factory=dict[str, list[int]])  # pieces seen before

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, between the special ones that stand around it."""
        tokens, at = list(self.before), 0
        for found in self._marks().finditer(text) if self.added else ():
            tokens += [*self._plain(text[at : found.start()]), self.added[found[0]]]
            at = found.end()
        return [*tokens, *self._plain(text[at:]), *self.behind]

    def _marks(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(w) for w in sorted(self.added, key=len, reverse=True)))

    def _plain(self, text: str) -> list[int]:
        pieces = self.cut([self.change(text)]) if text else []
        return [t for piece in pieces if piece for t in self._piece(piece)]

    def _piece(self, piece: str) -> list[int]:
        if piece not in self.known:
            self.known[piece] = self._merged(piece)
        return self.known[piece]

    def _merged(self, piece: str) -> list[int]:
        if self.whole_words and piece in self.vocab:
            return [self.vocab[piece]]
        parts: list[str] = []
        for letter in piece:
            spelled = [f"<0x{b:02X}>" for b in letter.encode()] if self.byte_fallback else []
            parts += spelled if letter not in self.vocab and all(b in self.vocab for b in spelled) else [letter]
        found = [self.vocab.get(w, self.unknown) for w in merged(parts or [piece], self._rank)]
        return [t for t in found if t is not None]

    def _rank(self, a: str, b: str) -> float | None:
        return self.ranks.get((a, b))

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens say; special ones say nothing."""
        if not self.words:
            self.words.update({i: w for w, i in self.vocab.items()} | {i: w for w, i in self.added.items()})
        shown = [self.words.get(t, "") for t in tokens if t not in self.silent]
        if self.byte_level:
            place = {letter: b for b, letter in enumerate(byte_letters())}
            raw = b"".join(bytes([place[c]]) if c in place else c.encode() for word in shown for c in word)
            return raw.decode("utf-8", "replace")
        raw = b"".join(bytes([int(m[1], 16)]) if (m := BYTE.fullmatch(w)) else w.replace(SPACE, " ").encode()
                       for w in shown)  # fmt: skip
        return raw.decode("utf-8", "replace").removeprefix(" ")


def read_byte_pairs(data: Mapping[str, Any]) -> BytePairs:
    """The tokenizer of a tokenizer.json; ForeignError names what is not known here."""
    model = data.get("model") or {}
    if model.get("type", "BPE" if "merges" in model else None) != "BPE":
        raise ForeignError(f"kind {model.get('type')}")
    if model.get("end_of_word_suffix") or model.get("continuing_subword_prefix"):
        raise ForeignError("marks at ends of words")
    vocab: dict[str, int] = model["vocab"]
    rows = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    extra = data.get("added_tokens") or []
    added = {str(t["content"]): int(t["id"]) for t in extra}
    before, behind = _around(data.get("post_processor"))
    kinds = _kinds(data.get("pre_tokenizer")) | _kinds(data.get("decoder"))
    unknown = model.get("unk_token")
    return BytePairs(
        vocab, {(a, b): i for i, (a, b) in enumerate(rows)}, added,
        frozenset(int(t["id"]) for t in extra if t.get("special")), normalizer(data.get("normalizer")),
        pre_tokenizer(data.get("pre_tokenizer")), before, behind, "ByteLevel" in kinds,
        bool(model.get("byte_fallback")), vocab.get(unknown) if unknown else None,
        bool(model.get("ignore_merges")),
    )  # fmt: skip


def pairs_of_files(vocab: Mapping[str, int], merges: str) -> BytePairs:
    """The byte-level tokenizer of vocab.json and merges.txt, as GPT-2 brought it."""
    rows = [line.split(" ") for line in merges.splitlines() if line and not line.startswith("#version")]
    model = {"type": "BPE", "vocab": vocab, "merges": [r for r in rows if len(r) == 2]}
    ends = [{"content": w, "id": i, "special": True} for w, i in vocab.items() if w.startswith("<|")]
    return read_byte_pairs({"model": model, "added_tokens": ends, "pre_tokenizer": {"type": "ByteLevel"}})


def _kinds(data: Mapping[str, Any] | None) -> set[str]:
    """The kinds of a part and of what it is made of."""
    if not data:
        return set()
    inner = [p for name in ("pretokenizers", "decoders", "processors") for p in data.get(name, ())]
    return {str(data.get("type"))}.union(*(_kinds(p) for p in inner))


def _around(data: Mapping[str, Any] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Special tokens in front of a text and behind it."""
    kind = (data or {}).get("type")
    if not data or kind == "ByteLevel":
        return (), ()
    if kind == "Sequence":
        found = [_around(part) for part in data["processors"]]
        return next((f for f in found if f != ((), ())), ((), ()))
    if kind in ("RobertaProcessing", "BertProcessing"):
        return (int(data["cls"][1]),), (int(data["sep"][1]),)
    if kind != "TemplateProcessing":
        raise ForeignError(f"post-processor {kind}")
    parts: Sequence[Mapping[str, Any]] = data["single"]
    text = next((i for i, p in enumerate(parts) if "Sequence" in p), len(parts))
    pick: Callable[[Sequence[Mapping[str, Any]]], tuple[int, ...]] = lambda rows: tuple(  # noqa: E731
        int(i) for p in rows if "SpecialToken" in p for i in data["special_tokens"][p["SpecialToken"]["id"]]["ids"]
    )
    return pick(parts[:text]), pick(parts[text:])
