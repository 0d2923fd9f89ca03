"""What the name of an operating point says, as papers write them: "8b_0.85v", "4b x 8b @ 0.9 V", "i4_w1", "INT8"."""

from __future__ import annotations

import re

MOST = 16  # bits; "64x64" in a name is an array
_WORD = r"(?<![a-z0-9.])"
_SUPPLY = re.compile(_WORD + r"(\d+(?:\.\d+)?) *(m?)v(?![a-z0-9])")
_PAIR = (
    re.compile(
        _WORD + r"(\d+) *b(?:its?)?(?: *(?:in|a|i))?[ x/*,-]{0,3}(\d+) *b(?:its?)?(?! *out)"
    ),  # 8b/4b, 1b_in_2b_w
    re.compile(_WORD + r"(\d+) *[x/] *(\d+)(?![\d.])"),  # 8x8
    re.compile(_WORD + r"(?:in|i|a|x)(\d+)[ x/,-]*w(\d+)"),  # i4_w1, a8w4
)
_SWAPPED = re.compile(_WORD + r"w(\d+)[ x/,-]*(?:in|i|a|x)(\d+)")  # w4a8
_ONE = re.compile(_WORD + r"(?:u?int *(\d+)|(\d+)[ -]*b(?:its?)?)(?![a-z0-9])")
_FLOAT = re.compile(_WORD + r"(?:bf|fp|float|tf) *\d+")
_NORMALIZED = re.compile(r"normali[sz]ed|\bnorm\b|per bit|\bper b\b")
_SPARSE = re.compile(r"spars|toggle")


def supply_of(label: str) -> float | None:
    """Volts that a point's name states."""
    match = _SUPPLY.search(_plain(label))
    return float(match[1]) * (1e-3 if match[2] else 1.0) if match else None


def bits_of(label: str) -> tuple[int, int | None] | None:
    """(bits of an input, bits of a weight or None where the name gives one number) that a point's name states."""
    text = _SUPPLY.sub(" ", _plain(label))
    for pattern in _PAIR:
        if (match := pattern.search(text)) and max(int(match[1]), int(match[2])) <= MOST:
            return int(match[1]), int(match[2])
    if match := _SWAPPED.search(text):
        return int(match[2]), int(match[1])
    if match := _ONE.search(text):
        return int(match[1] or match[2]), None
    return None


def refusal(label: str) -> str | None:
    """Why no description can make a point of this name comparable."""
    text = _plain(label)
    if _FLOAT.search(text):
        return "format (only products of integers are modelled)"
    if _NORMALIZED.search(text):
        return "bits (a figure normalized to other bits: give it at the stated bits, 2 operations a MAC)"
    return None


def speaks_of_sparsity(label: str) -> bool:
    """Whether the figure depends on a sparsity that the point's description then has to give."""
    return _SPARSE.search(_plain(label)) is not None


def _plain(label: str) -> str:
    return re.sub(r"[\s_()]+", " ", label.lower()).replace("×", "x")
