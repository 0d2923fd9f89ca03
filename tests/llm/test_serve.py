"""Continuous batching against what can be said beforehand, and pairs of a small and a large model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from insitu.base.errors import UsageError
from insitu.cli.main import main
from insitu.llm.serve import Engine, Request, parse_trace, serve, speculative


def _engine(**more: object) -> Engine:
    given = {"prefill": lambda n: 0.5, "step": lambda batch, keys: 0.1, "room": 1e6, "token_bytes": 1.0}
    return Engine(**{**given, **more})  # type: ignore[arg-type]


def test_one_request_alone() -> None:
    found = serve(_engine(), [Request(2.0, 10, 5)])
    assert found.first == pytest.approx([0.6])
    assert found.between == pytest.approx([0.1])
    assert found.whole == pytest.approx([1.0])
    assert found.tokens_per_s == pytest.approx(5.0)


def test_two_share_a_step_and_a_prompt_delays_it() -> None:
    found = serve(_engine(), [Request(0.0, 1, 10), Request(0.75, 1, 10)])
    assert found.mean_batch > 1
    assert found.whole[0] == pytest.approx(0.5 + 1.0 + 0.5)
    apart = serve(_engine(apart=True), [Request(0.0, 1, 10), Request(0.75, 1, 10)])
    assert apart.whole[0] == pytest.approx(0.5 + 1.0)


def test_without_room_requests_wait_or_are_refused() -> None:
    trace = [Request(0.0, 5, 5), Request(0.0, 5, 5), Request(0.0, 50, 5)]
    found = serve(_engine(room=12.0), trace)
    assert found.refused == 1
    assert sorted(found.first) == pytest.approx([0.6, 1.6])


def test_caches_grow_by_pages() -> None:
    trace = [Request(0.0, 5, 4), Request(0.0, 5, 4)]
    assert serve(_engine(room=18.0), trace).mean_batch == pytest.approx(2.0)
    found = serve(_engine(room=31.0, page=16), trace)  # two pages of 16 have no room beside each other
    assert found.mean_batch == pytest.approx(1.0)
    assert found.unused == pytest.approx(7 / 16)


def test_traces() -> None:
    trace = parse_trace("2000@4", prompt=100, answer=50)
    assert np.diff([r.arrival for r in trace]).mean() == pytest.approx(0.25, rel=0.1)
    assert np.mean([r.prompt for r in trace]) == pytest.approx(100, rel=0.1)
    with pytest.raises(UsageError, match="COUNT@RATE"):
        parse_trace("many", prompt=1, answer=1)


def test_pairs() -> None:
    """Nothing kept: one token a round.  Everything kept: all drafted ones and one more."""
    assert speculative(1.0, 10.0, ahead=4, accepted=0.0) == pytest.approx(1 / 14)
    assert speculative(1.0, 10.0, ahead=4, accepted=1.0) == pytest.approx(5 / 14)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["run", "shape:llama-3-8b", "--chip", "aim-gddr6", "--requests", "20@1", "--tokens", "16", "--json"]
    argv += [
        "--max-chips",
        "64",
        "--prompts-on",
        "h100",
        "--draft",
        "llama-3.2-1b",
        "--context",
        "4096",
        "--batch",
        "8",
    ]
    assert main(argv) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["serving"]["requests"] == 20
    assert shown["serving"]["ttft_s"]["p50"] <= shown["serving"]["ttft_s"]["p99"]
    assert shown["speculative"]["draft_chips"] >= 1
