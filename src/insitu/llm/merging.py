"""Byte pair encoding: neighbours merge, the best pair first, until no pair has a merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

Rank = Callable[[str, str], float | None]  # smaller merges first; None: not at all


def merged(parts: Sequence[str], rank: Rank) -> list[str]:
    """The parts after all merges; equal ranks merge from the left.  O(n log n)."""
    words, after = list(parts), list(range(1, len(parts) + 1))
    before, alive = list(range(-1, len(parts) - 1)), [True] * len(parts)
    heap = [(r, i, a, b) for i, (a, b) in enumerate(pairwise(parts)) if (r := rank(a, b)) is not None]
    heapify(heap)

    def offer(left: int, right: int) -> None:
        if left >= 0 and right < len(words) and (r := rank(words[left], words[right])) is not None:
            heappush(heap, (r, left, words[left], words[right]))

    while heap:
        _, left, a, b = heappop(heap)
        right = after[left]
        if not alive[left] or words[left] != a or right >= len(words) or words[right] != b:
            continue  # one of the two has merged since
        words[left], alive[right], after[left] = a + b, False, after[right]
        if after[right] < len(words):
            before[after[right]] = left
        offer(before[left], left)
        offer(left, after[left])
    return [w for w, here in zip(words, alive, strict=True) if here]
