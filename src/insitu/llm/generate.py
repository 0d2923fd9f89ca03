"""Tokens from a compiled program: one step a token, its keys and values kept, greedy or drawn.

for token in generate(session, [1, 403], count=20):
    print(token.id, token.probability)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import DataError
from insitu.graph.graph import Graph
from insitu.llm.score import log_softmax
from insitu.runtime.session import Session

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen: the most probable one at temperature 0, else drawn among the `top_p` likeliest."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Token:
    """A token that a program chose; `position` is where it stands, `probability` what the program gave it."""

    id: int
    position: int
    probability: float


def generate(
    session: Session, prompt: Sequence[int], *, count: int, sampling: Sampling | None = None, stop: Sequence[int] = (),
) -> Iterator[Token]:  # fmt: skip
    """Up to `count` tokens after a prompt; ends at a token of `stop`, or where the cache is full."""
    for [token] in generate_batch(session, [prompt], count=count, sampling=sampling):
        yield token
        if token.id in stop:
            return


def generate_batch(
    session: Session, prompts: Sequence[Sequence[int]], *, count: int, sampling: Sampling | None = None
) -> Iterator[list[Token]]:
    """The same for several prompts of one length, a token of each at a time."""
    sampling = sampling or Sampling()
    length, room = len(prompts[0]), room_of(session)
    if any(len(p) != length for p in prompts) or not 0 < length < room:
        lengths = sorted({len(p) for p in prompts})
        raise DataError(
            "prompt", f"lengths {lengths}", f"one length from 1 to {room - 1}, what the cache holds less one"
        )
    rng = np.random.default_rng(sampling.seed)
    session.reset()
    logits = [fed(session, [p[at] for p in prompts], at) for at in range(length)][-1]
    for at in range(length, min(length + count, room)):
        said = [chosen(row, sampling, rng) for row in logits]
        yield [Token(token, at, share) for token, share in said]
        if at + 1 < min(length + count, room):
            logits = fed(session, [token for token, _ in said], at)


def room_of(session: Session) -> int:
    """Tokens that the caches hold."""
    graph = session.graph
    if "slot" in graph.inputs:
        return setting(graph, "context")
    return int(graph.type(graph.states[0].input).sizes()[2])


def setting(graph: Graph, name: str) -> int:
    """A number of a paged step graph: context, page_tokens, pool_pages or lanes."""
    value = graph.meta[name]
    assert isinstance(value, int), name
    return value


def fed(session: Session, tokens: Sequence[int], position: int) -> Array:
    """Logits (prompts, vocab) after one more token of each; in a paged program each has the first lane of its own."""
    codes: dict[str, npt.NDArray[np.int64]] = {"ids": np.asarray(tokens, np.int64).reshape(-1, 1, 1)}
    if "position" in session.inputs:
        codes["position"] = np.full((len(tokens), 1), position, np.int64)
    if "slot" in session.inputs:
        codes = _first_lane(session, codes, position)
    name = session.outputs[0]
    return session.real(name, session.step_codes(codes)[name])[:, 0, 0]


def _first_lane(session: Session, codes: dict[str, npt.NDArray[np.int64]], position: int) -> dict[str, Any]:
    """One token for the first lane, whose pages are the first ones in order; the others have none."""
    graph, samples = session.graph, len(codes["ids"])
    page, count = setting(graph, "page_tokens"), setting(graph, "pool_pages")
    if position >= (count - 1) * page:
        need = f"{(count - 1) * page}, what a pool of {count - 1} pages of {page} tokens holds"
        raise DataError("text", f"{position + 1} tokens", need, try_=["--pool-pages N"])
    full = {n: np.zeros((samples, *graph.type(n).sizes()), np.int64) for n in session.inputs}
    full["ids"][:, 0, 0], full["slot"][:, 0] = codes["ids"][:, 0, 0], page + position
    full["position"][:, 0] = position
    each = min(full["pages"].shape[1] // full["slot"].shape[1], count - 1)
    full["pages"][:, :each] = np.arange(1, each + 1)
    return full


def chosen(logits: Array, sampling: Sampling, rng: np.random.Generator) -> tuple[int, float]:
    """(token, its probability at temperature 1)."""
    share = np.exp(log_softmax(logits))
    if sampling.temperature <= 0:
        token = int(share.argmax())
        return token, float(share[token])
    drawn = np.exp(log_softmax(logits / sampling.temperature))
    order = np.argsort(-drawn, kind="stable")
    kept = order[: int(np.searchsorted(np.cumsum(drawn[order]), sampling.top_p) + 1)]
    token = int(rng.choice(kept, p=drawn[kept] / drawn[kept].sum()))
    return token, float(share[token])
