"""Sequences of different lengths in the lanes of one step program, their caches in one pool of pages.

    pool = Pool.of(session.graph)
    for number, token in generate_paged(session, prompts, count=20, pool=pool):
        print(number, token.id, pool.used)

A sequence gets a page when it reaches it, and gives all back when it ends; it begins only when the pages it may come
to need are there, so that a sequence that has begun never waits.  The page table is an input of the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import DataError
from insitu.graph.graph import Graph
from insitu.llm.generate import Sampling, Token, chosen, room_of, setting
from insitu.runtime.session import Session

Ints = npt.NDArray[np.int64]
Codes = dict[str, Ints]


@dataclass
class Pool:
    """Pages of `page` tokens, numbered from 1; page 0 is nobody's.  `tables` holds the pages of each lane."""

    page: int
    count: int  # page 0 included
    tables: Ints  # [lanes, pages of a lane]
    free: list[int] = field(default_factory=list[int])
    held: dict[int, int] = field(default_factory=dict[int, int])  # lane: pages it has
    promised: dict[int, int] = field(default_factory=dict[int, int])  # lane: pages it may come to have
    peak: int = 0  # pages in use at once, at most
    peak_tokens: int = 0  # tokens in them then

    @classmethod
    def of(cls, graph: Graph) -> Pool:
        """The empty pool of a paged step graph."""
        lanes, count = setting(graph, "lanes"), setting(graph, "pool_pages")
        each = graph.type("pages").count() // lanes
        tables = np.zeros((lanes, each), np.int64)
        return cls(setting(graph, "page_tokens"), count, tables, list(range(count - 1, 0, -1)))

    @property
    def used(self) -> int:
        """Pages in use."""
        return sum(self.held.values())

    def pages(self, tokens: int) -> int:
        """Pages of so many tokens."""
        return -(-tokens // self.page)

    def takes(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens can begin now."""
        return self.pages(tokens) <= self.count - 1 - sum(self.promised.values())

    def begin(self, lane: int, tokens: int) -> None:
        """A sequence of at most so many tokens begins in a lane."""
        self.promised[lane], self.held[lane] = self.pages(tokens), 0

    def slot(self, lane: int, position: int) -> int:
        """Where a lane's token at `position` goes; its page is taken when its first token comes."""
        if position // self.page == self.held[lane]:
            self.tables[lane, self.held[lane]] = self.free.pop()
            self.held[lane] += 1
        return int(self.tables[lane, position // self.page]) * self.page + position % self.page

    def end(self, lane: int) -> None:
        """A sequence gives its pages back."""
        self.free += self.tables[lane, : self.held[lane]].tolist()[::-1]
        self.tables[lane] = 0
        del self.held[lane], self.promised[lane]

    def note(self, tokens: int) -> None:
        """Keep what is held where it is the most so far."""
        if self.used > self.peak:
            self.peak, self.peak_tokens = self.used, tokens


@dataclass
class Text:
    """A sequence on its way: its tokens so far, how many it may have, and how many of them were read."""

    number: int
    tokens: list[int]
    most: int
    read: int = 0


def lane_steps(pool: Pool, texts: Iterable[Text]) -> Iterator[tuple[Codes, Mapping[int, Text]]]:
    """(input codes of a step, who is in which lane) until all texts are read; the caller may add tokens to a text.

    Texts begin in order, as lanes and pages become free.
    """
    waiting, active = iter(texts), dict[int, Text]()
    following = next(waiting, None)
    while True:
        for lane in range(len(pool.tables)):
            if lane not in active and following is not None and pool.takes(following.most):
                pool.begin(lane, following.most)
                active[lane], following = following, next(waiting, None)
        if not active:
            return
        yield _codes(pool, active), active
        for lane, text in list(active.items()):
            text.read += 1
            if text.read >= len(text.tokens):
                pool.end(lane)
                del active[lane]


def _codes(pool: Pool, active: Mapping[int, Text]) -> Codes:
    ids, position, slot = (np.zeros(len(pool.tables), np.int64) for _ in range(3))
    for lane, text in active.items():
        ids[lane], position[lane] = text.tokens[text.read], text.read
        slot[lane] = pool.slot(lane, text.read)
    pool.note(sum(text.read + 1 for text in active.values()))
    return {"ids": ids[None, None], "position": position[None], "slot": slot[None],
            "pages": pool.tables.reshape(1, -1).copy()}  # fmt: skip


def generate_paged(
    session: Session, prompts: Sequence[Sequence[int]], *, count: int, pool: Pool | None = None,
    sampling: Sampling | None = None, stop: Sequence[int] = (),
) -> Iterator[tuple[int, Token]]:  # fmt: skip
    """(number of the prompt, its next token), up to `count` of each, as `generate` gives them for each alone.

    DataError for a prompt that the pool cannot hold.
    """
    pool, sampling = pool or Pool.of(session.graph), sampling or Sampling()
    texts = [_text(session, pool, n, list(prompt), count) for n, prompt in enumerate(prompts)]
    draws = [np.random.default_rng(sampling.seed) for _ in prompts]
    session.reset()
    for codes, active in lane_steps(pool, texts):
        logits = step_logits(session, codes)[0]
        for lane, text in active.items():
            at = text.read + 1
            if at < len(text.tokens):
                continue
            token, share = chosen(logits[lane], sampling, draws[text.number])
            yield text.number, Token(token, at, share)
            if token not in stop and at + 1 < text.most:
                text.tokens.append(token)


def _text(session: Session, pool: Pool, number: int, prompt: list[int], count: int) -> Text:
    room = room_of(session)
    if not 0 < len(prompt) < room:
        raise DataError(f"prompt {number + 1}", f"{len(prompt)} tokens",
                        f"1 to {room - 1}, what the cache holds less one")  # fmt: skip
    most = min(len(prompt) + count, room)
    if not pool.pages(most) < pool.count:
        got = f"{most} tokens, {pool.pages(most)} pages of {pool.page}"
        need = f"at most {pool.count - 1} pages, all that the pool has"
        raise DataError(f"prompt {number + 1} with its answer", got, need,
                        try_=[f"--pool-pages {pool.pages(most)} or more", "a smaller --tokens"])  # fmt: skip
    return Text(number, prompt, most)


def step_logits(session: Session, codes: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Logits (samples, lanes, vocab) of a step."""
    name = session.outputs[0]
    return session.real(name, session.step_codes({n: codes[n] for n in session.inputs})[name])[:, 0]


def forced_steps(graph: Graph, tokens: Sequence[int], steps: int) -> Codes:
    """Input codes (steps, *shape) of texts of several lengths in all lanes, cut from `tokens`; for checks."""
    pool = Pool.of(graph)
    most = min(pool.tables.shape[1], pool.count - 1) * pool.page
    texts = (Text(n, [tokens[(7 * n + i) % len(tokens)] for i in range(size)], size)
             for n in range(steps) for size in [max(1, most >> n % 3)])  # fmt: skip
    rows = [codes for codes, _ in zip((c for c, _ in lane_steps(pool, texts)), range(steps), strict=False)]
    return {name: np.concatenate([row[name] for row in rows]) for name in graph.inputs}
