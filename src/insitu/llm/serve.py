"""Continuous batching: requests that come and go, tokens of all that are there step by step, waiting times counted.

An engine says how long a prompt takes and how long one token of so many sequences takes.  Between two tokens it lets
waiting requests in, in order, while their prompts and answers have room in the caches.  Prompts are worked on before
the next token, or, where another machine does them, beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np

from insitu.base.errors import UsageError

PERCENTILES = (50, 90, 99)
MOST_STEPS = 2_000_000


@dataclass(frozen=True)
class Request:
    """When it comes (seconds), tokens of its prompt, tokens of its answer."""

    arrival: float
    prompt: int
    answer: int


@dataclass(frozen=True)
class Engine:
    """Seconds of a prompt, seconds of one token of `batch` sequences that see `keys` on average, and room."""

    prefill: Callable[[int], float]
    step: Callable[[int, float], float]
    room: float  # bytes of caches
    token_bytes: float
    page: int = 1  # tokens of a page: caches grow by whole pages
    cap: int = 512
    apart: bool = False  # prompts are done by another machine
    hand_over: Callable[[int], float] = lambda prompt: 0.0  # seconds to bring a prompt's cache over

    def held(self, request: Request) -> float:
        """Bytes of the pages that a request takes until it ends."""
        return paged(request.prompt + request.answer, self.page) * self.token_bytes


@dataclass(frozen=True)
class Served:
    """What requests saw: seconds to the first token and between tokens, tokens a second of all."""

    first: Sequence[float]
    between: Sequence[float]
    whole: Sequence[float]
    tokens_per_s: float
    mean_batch: float
    refused: int
    unused: float = 0.0  # share of the pages' bytes that no token fills

    def to_json(self) -> dict[str, Any]:
        """Percentiles of each."""
        rows = {"ttft_s": self.first, "tpot_s": self.between, "latency_s": self.whole}
        shown: dict[str, Any] = {
            name: {f"p{p}": float(np.percentile(values, p)) for p in PERCENTILES} if len(values) else None
            for name, values in rows.items()
        }
        return {**shown, "tokens_per_s": self.tokens_per_s, "mean_batch": self.mean_batch, "refused": self.refused,
                "unused_pages": self.unused}  # fmt: skip


@dataclass
class _Running:
    request: Request
    ready: float  # when its prompt is done
    done: int = 0
    first: float = 0.0


def paged(tokens: float, page: int) -> int:
    """Tokens that the pages of so many tokens have room for."""
    return ceil(tokens / page) * page


def parse_trace(text: str, *, prompt: int, answer: int, seed: int = 0) -> list[Request]:
    """Requests of "COUNT@RATE": so many, so many a second at random, lengths around `prompt` and `answer`."""
    count, at, rate = text.partition("@")
    try:
        number, speed = int(count), float(rate)
    except ValueError:
        number, speed = 0, 0.0
    if not at or not 0 < number <= 100_000 or not 0 < speed < 1e6:
        raise UsageError(f"--requests {text}", "not COUNT@RATE", "such as 200@4: 200 requests, 4 a second")
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1 / speed, number))
    lengths = [np.maximum(1, np.rint(rng.gamma(2.0, mean / 2.0, number))).astype(int) for mean in (prompt, answer)]
    return [Request(float(t), int(p), int(a)) for t, p, a in zip(times, *lengths, strict=True)]


def serve(engine: Engine, requests: Sequence[Request]) -> Served:
    """Run all requests to their ends."""
    waiting, running, finished = deque(sorted(requests, key=lambda r: r.arrival)), list[_Running](), list[_Running]()
    ends: list[float] = []
    now = held = busy = weighed = 0.0
    refused = steps = 0
    while waiting or running:
        if not running and waiting and waiting[0].arrival > now:
            now = waiting[0].arrival
        while waiting and waiting[0].arrival <= now and len(running) < engine.cap:
            need = engine.held(waiting[0])
            if need > engine.room:
                refused += 1
                waiting.popleft()
                continue
            if held + need > engine.room:
                break
            request = waiting.popleft()
            held += need
            spent = engine.prefill(request.prompt)
            now += 0.0 if engine.apart else spent
            ready = (now + spent if engine.apart else now) + engine.hand_over(request.prompt)
            running.append(_Running(request, ready))
        active = [r for r in running if r.ready <= now]
        if not active:
            now = min((r.ready for r in running), default=now)
            continue
        keys = sum(r.request.prompt + r.done for r in active) / len(active)
        spent = engine.step(len(active), keys)
        now, busy, weighed = now + spent, busy + spent, weighed + spent * len(active)
        for r in active:
            r.done += 1
            r.first = r.first or now
            if r.done >= r.request.answer:
                held -= engine.held(r.request)
                finished.append(r)
                ends.append(now)
        running = [r for r in running if r.done < r.request.answer]
        steps += 1
        if steps > MOST_STEPS:
            raise UsageError("--requests", f"more than {MOST_STEPS:,} steps", "fewer or shorter requests")
    served = _served(finished, ends, busy, weighed, refused)
    filled = sum(r.request.prompt + r.request.answer for r in finished) * engine.token_bytes
    whole = sum(engine.held(r.request) for r in finished)
    return replace(served, unused=1 - filled / whole if whole else 0.0)


def _served(finished: list[_Running], ends: list[float], busy: float, weighed: float, refused: int) -> Served:
    first = [r.first - r.request.arrival for r in finished]
    pairs = list(zip(finished, ends, strict=True))
    between = [(end - r.first) / (r.request.answer - 1) for r, end in pairs if r.request.answer > 1]
    whole = [end - r.request.arrival for r, end in pairs]
    tokens = sum(r.request.answer for r in finished)
    start = min((r.request.arrival for r in finished), default=0.0)
    span = max(ends, default=0.0) - start
    return Served(first, between, whole, tokens / span if span else 0.0, weighed / busy if busy else 0.0, refused)


def speculative(draft_step: float, verify_step: float, *, ahead: int, accepted: float) -> float:
    """Tokens a second of a pair: a small model writes `ahead` tokens, a large one checks them in one step.

    `accepted` is the chance that one drafted token is kept, alike for all (Leviathan et al., ICML 2023, eq. 1): a round
    gives (1 - a**(k + 1)) / (1 - a) tokens on average.
    """
    kept = ahead + 1.0 if accepted >= 1 else (1 - accepted ** (ahead + 1)) / (1 - accepted)
    return kept / (ahead * draft_step + verify_step)
