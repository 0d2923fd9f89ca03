"""How a Hugging Face tokenizer cuts a text into pieces before pairs merge: normalizers and pre-tokenizers.

What is not known here raises ForeignError: the `tokenizers` package then reads the file.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

Cut = Callable[[list[str]], list[str]]  # pieces of one text -> finer pieces
Change = Callable[[str], str]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class ForeignError(Exception):
    """A part of a tokenizer that is not known here."""


@cache
def byte_letters() -> tuple[str, ...]:
    """The printable letter that stands for each byte in byte-level vocabularies."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return tuple(chr(b) if b in kept else chr(next(spare)) for b in range(256))


@cache
def _members(category: str) -> str:
    """The characters of a Unicode category as the inside of a character class."""
    out, start = list[str](), -1
    for code in range(sys.maxunicode + 2):
        inside = code <= sys.maxunicode and unicodedata.category(chr(code)).startswith(category)
        if inside and start < 0:
            start = code
        elif not inside and start >= 0:
            out.append(f"\\U{start:08x}-\\U{code - 1:08x}")
            start = -1
    return "".join(out)


def pattern(text: str) -> re.Pattern[str]:
    """A pattern of such a file for Python, which has no classes of Unicode categories."""
    out, inside, at = list[str](), False, 0
    while at < len(text):
        found = re.compile(r"\\([pP])\{(\^?)(\w+)\}").match(text, at)
        if found:
            negated = (found[1] == "P") != bool(found[2])
            if inside and negated:
                raise ForeignError(f"{found[0]} within brackets")
            members = _members(found[3])
            out.append(members if inside else f"[{'^' if negated else ''}{members}]")
            at = found.end()
            continue
        letter = text[at : at + 2] if text[at] == "\\" else text[at]
        inside = letter == "[" or (inside and letter != "]")
        out.append(letter)
        at += len(letter)
    try:
        return re.compile("".join(out))
    except re.error as error:
        raise ForeignError(f"a pattern: {error}") from None


def normalizer(data: Mapping[str, Any] | None) -> Change:
    """What is done to a text first."""
    if data is None:
        return lambda text: text
    kind = data.get("type")
    if kind == "Sequence":
        return _in_turn([normalizer(part) for part in data["normalizers"]])
    if kind in ("NFC", "NFD", "NFKC", "NFKD"):
        return lambda text: unicodedata.normalize(kind, text)
    if kind == "Prepend":
        return lambda text: data["prepend"] + text if text else text
    if kind == "Lowercase":
        return str.lower
    if kind == "Replace":
        found = _wanted(data["pattern"])
        return lambda text: found.sub(lambda _: str(data["content"]), text)
    raise ForeignError(f"normalizer {kind}")


def _in_turn(changes: Sequence[Change]) -> Change:
    def run(text: str) -> str:
        for change in changes:
            text = change(text)
        return text

    return run


def _wanted(data: Mapping[str, str]) -> re.Pattern[str]:
    return pattern(data["Regex"]) if "Regex" in data else re.compile(re.escape(data["String"]))


def pre_tokenizer(data: Mapping[str, Any] | None) -> Cut:
    """How a text is cut; pairs merge within pieces only."""
    if data is None:
        return lambda pieces: pieces
    kind = data.get("type")
    if kind == "Sequence":
        cuts = [pre_tokenizer(part) for part in data["pretokenizers"]]
        return lambda pieces: _all_cuts(cuts, pieces)
    if kind == "ByteLevel":
        return _byte_level(bool(data.get("add_prefix_space")), bool(data.get("use_regex", True)))
    if kind == "Split":
        return _split(_wanted(data["pattern"]), str(data["behavior"]), bool(data.get("invert")))
    if kind == "Digits":
        return _split(pattern(r"\p{N}" if data.get("individual_digits") else r"\p{N}+"), "Isolated", False)
    if kind == "Whitespace":
        return _split(re.compile(r"\w+|[^\w\s]+"), "Removed", True)
    if kind == "WhitespaceSplit":
        return _split(re.compile(r"\s+"), "Removed", False)
    if kind == "Metaspace":
        return _metaspace(data)
    raise ForeignError(f"pre-tokenizer {kind}")


def _all_cuts(cuts: Sequence[Cut], pieces: list[str]) -> list[str]:
    for cut in cuts:
        pieces = cut(pieces)
    return pieces


def _byte_level(prefix: bool, cut: bool) -> Cut:
    """Bytes as letters; the pattern of GPT-2 unless another one has cut the text already."""
    finer = _split(pattern(GPT2), "Isolated", False) if cut else None

    def run(pieces: list[str]) -> list[str]:
        if prefix:
            pieces = [p if p[:1].isspace() else " " + p for p in pieces]
        pieces = finer(pieces) if finer is not None else pieces
        letters = byte_letters()
        return ["".join(letters[b] for b in p.encode()) for p in pieces]

    return run


def _split(found: re.Pattern[str], behavior: str, invert: bool) -> Cut:
    if behavior not in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext"):
        raise ForeignError(f"split behavior {behavior}")

    def one(text: str) -> list[str]:
        out, joins = list[str](), False
        for piece, match in _segments(found, text):
            delimits = match != invert
            if behavior == "Removed" and delimits:
                continue
            if joins or (behavior == "MergedWithPrevious" and delimits and out):
                out[-1] += piece
            else:
                out.append(piece)
            joins = behavior == "MergedWithNext" and delimits
        return out

    return lambda pieces: [p for piece in pieces for p in one(piece)]


def _segments(found: re.Pattern[str], text: str) -> list[tuple[str, bool]]:
    """(piece, whether it is a match), in order, none empty."""
    out, at = list[tuple[str, bool]](), 0
    for match in found.finditer(text):
        out += [(text[at : match.start()], False), (match[0], True)]
        at = match.end()
    return [(piece, is_match) for piece, is_match in [*out, (text[at:], False)] if piece]


def _metaspace(data: Mapping[str, Any]) -> Cut:
    mark = str(data.get("replacement", "\u2581"))
    scheme = data.get("prepend_scheme", "always" if data.get("add_prefix_space", True) else "never")
    cut = _split(re.compile(re.escape(mark)), "MergedWithNext", False) if data.get("split", True) else None

    def run(pieces: list[str]) -> list[str]:
        marked = [p.replace(" ", mark) for p in pieces]
        marked = [mark + p if scheme == "always" and not p.startswith(mark) else p for p in marked]
        if scheme == "first" and marked and not marked[0].startswith(mark):
            marked[0] = mark + marked[0]
        return cut(marked) if cut is not None else marked

    return run
