"""A pair that speaks: a small model writes some tokens ahead, a large one checks them all and keeps those it would say.

Both keep their caches; a token that was not kept is written over, for steps see positions up to their own only.  What
comes out is exactly what the large model says alone, greedily (Leviathan et al., ICML 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from insitu.base.errors import DataError
from insitu.llm.generate import fed, room_of
from insitu.runtime.session import Session


@dataclass(frozen=True)
class Spoken:
    """Tokens that came out, rounds of drafting and checking, tokens drafted and of those kept."""

    tokens: tuple[int, ...]
    rounds: int
    drafted: int
    kept: int

    @property
    def accepted(self) -> float:
        """Share of drafted tokens that the large model kept."""
        return self.kept / self.drafted if self.drafted else 0.0

    @property
    def per_round(self) -> float:
        """Tokens that a round gives."""
        return len(self.tokens) / self.rounds if self.rounds else 0.0


def speculate(
    large: Session, draft: Session, prompt: Sequence[int], *, count: int, ahead: int = 4, stop: Sequence[int] = ()
) -> Spoken:
    """Up to `count` tokens after a prompt; `ahead` are drafted in a round."""
    room = min(room_of(large), room_of(draft))
    if not 0 < len(prompt) < room:
        raise DataError("prompt", f"{len(prompt)} tokens", f"1 to {room - 1}, what the caches hold less one")
    text, said = list(prompt), 0
    for session in (large, draft):
        session.reset()
    seen = _read(large, text[:-1], 0)
    behind = _read(draft, text[:-1], 0)
    rounds = drafted = kept = 0
    end = min(len(prompt) + count, room)
    while len(text) < end and (not said or text[-1] not in stop):
        guesses = _guesses(draft, text, behind, min(ahead, end - len(text) - 1))
        answers = _checked(large, text[-1], guesses, seen)
        agreed = len(answers) - 1
        behind = len(text) + min(agreed, max(len(guesses) - 1, 0))  # the last guess was not read
        text += _until(answers, stop)
        seen, said = len(text) - 1, len(text) - len(prompt)
        behind = min(behind, seen)
        rounds, drafted, kept = rounds + 1, drafted + len(guesses), kept + agreed
    return Spoken(tuple(text[len(prompt) :]), rounds, drafted, kept)


def _read(session: Session, tokens: Sequence[int], start: int) -> int:
    """Tokens into the cache; returns how many it holds."""
    for at, token in enumerate(tokens, start):
        fed(session, [token], at)
    return start + len(tokens)


def _guesses(draft: Session, text: Sequence[int], behind: int, count: int) -> list[int]:
    """What the small model would say next; it first reads what it has not seen."""
    if count < 1:
        return []
    at = _read(draft, text[behind:-1], behind)
    found, token = list[int](), text[-1]
    for place in range(at, at + count):
        token = int(fed(draft, [token], place)[0].argmax())
        found.append(token)
    return found


def _checked(large: Session, token: int, guesses: Sequence[int], at: int) -> list[int]:
    """What the large model says: its own words as long as guesses equal them, and one more."""
    said = [int(fed(large, [token], at)[0].argmax())]
    for place, guess in enumerate(guesses, at + 1):
        if guess != said[-1]:
            break
        said.append(int(fed(large, [guess], place)[0].argmax()))
    return said


def _until(tokens: Sequence[int], stop: Sequence[int]) -> list[int]:
    """Tokens up to the first that ends a text."""
    for at, token in enumerate(tokens):
        if token in stop:
            return list(tokens[: at + 1])
    return list(tokens)
