"""How near a quantized language model is to its float one: perplexity, agreement, divergence on given texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Logits = Callable[[Array], Array]  # ids (texts, tokens) -> logits (texts, tokens, vocab)
BLOCK = 8  # texts at once
MOST = 1 << 23  # logits at once


@dataclass(frozen=True)
class Score:
    """Teacher-forced over `tokens` predicted tokens; divergences are from the float model's distributions, in nats."""

    tokens: int
    perplexity_float: float
    perplexity: float
    agreement: float  # top-1 choices that equal the float model's
    divergence: float  # mean KL(float || this)

    @property
    def worse(self) -> float:
        """Perplexity over the float one's, less 1."""
        return self.perplexity / self.perplexity_float - 1


def log_softmax(logits: Array) -> npt.NDArray[np.float64]:
    """Over the last axis, in float64."""
    x = np.asarray(logits, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def score(
    texts: Sequence[Sequence[int]], length: int, reference: Logits, other: Logits, *,
    vocab: int = 1, done: Callable[[int, int], None] | None = None,
) -> Score:  # fmt: skip
    """Both models on the same texts, none longer than `length`; shorter ones are filled up behind, uncounted."""
    sums, count, seen = np.zeros(4), 0, 0
    for ids, mask in blocks(texts, length, max(1, min(BLOCK, MOST // (length * vocab)))):
        ours, theirs = (log_softmax(f(ids)[:, :-1]) for f in (other, reference))
        target, keep = ids[:, 1:, None], mask[:, 1:]
        nll = [-np.take_along_axis(p, target, axis=-1)[..., 0] for p in (theirs, ours)]
        same = theirs.argmax(axis=-1) == ours.argmax(axis=-1)
        far = (np.exp(theirs) * (theirs - ours)).sum(axis=-1)
        sums += [float(v[keep].sum()) for v in (*nll, same, far)]
        count, seen = count + int(keep.sum()), seen + len(ids)
        if done is not None:
            done(seen, len(texts))
    mean = sums / max(count, 1)
    return Score(count, float(np.exp(mean[0])), float(np.exp(mean[1])), float(mean[2]), float(mean[3]))


def blocks(texts: Sequence[Sequence[int]], length: int, size: int = BLOCK) -> Iterator[tuple[Array, Array]]:
    """(ids, which of them are real) of `size` texts at a time."""
    for start in range(0, len(texts), size):
        part = texts[start : start + size]
        ids = np.zeros((len(part), length), np.int64)
        mask = np.zeros((len(part), length), bool)
        for row, text in enumerate(part):
            ids[row, : len(text)], mask[row, : len(text)] = text, True
        yield ids, mask
