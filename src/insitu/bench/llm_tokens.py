"""`insitu bench llm-tokens`: tokens per second of the simulator for a model of stories260K's size, full physics.

Random weights of that size on an analog chip.  One stream (each token waits for the one before), sixteen at once, and
whole texts; wall time, median of five runs, the first step of a stream left out.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np

from insitu.bench.result import BenchResult, Case

RUNS, TOKENS, CONTEXT, TEXT = 5, 48, 128, 128
LEAST = 200.0
CHIP = "parametric-sonos-adc12"


def random_model(*, seed: int = 0) -> Any:
    """A Llama-like model of 260 thousand weights, as wide and deep as stories260K."""
    from insitu.frontend.language import Architecture, LanguageModel

    arch = Architecture("llama2.c", 5, 64, 8, 4, 8, 172, 512, 512, rotary=8, tied=True)
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> Any:
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

    weights = {"embed": rng.standard_normal((512, 64)).astype(np.float32), "norm.w": np.ones(64, np.float32)}
    weights["head.w"] = np.ascontiguousarray(weights["embed"].T) / np.float32(8)
    for layer in range(arch.layers):
        shapes = {"q": (64, 64), "k": (64, 32), "v": (64, 32), "o": (64, 64), "gate": (64, 172), "up": (64, 172)}
        weights |= {f"{layer}.{n}.w": drawn(*s) for n, s in {**shapes, "down": (172, 64)}.items()}
        weights |= {f"{layer}.{n}.w": np.ones(64, np.float32) for n in ("attn_norm", "mlp_norm")}
    return LanguageModel("random-260k", arch, weights)


def run() -> BenchResult:
    """Tokens per second of three ways to run it."""
    from insitu.arch.load import load_chip
    from insitu.compiler.pipeline import compile_graph
    from insitu.llm.build import prepare
    from insitu.llm.generate import generate_batch
    from insitu.runtime.session import Session

    chip, model = load_chip(CHIP), random_model()
    rng = np.random.default_rng(1)
    ready = prepare(model, chip, rng.integers(0, 512, (8, 64)))
    step, text = ready.step(CONTEXT), ready.text(TEXT)
    session = Session(compile_graph(step, chip), graph=step, physics="full")
    whole = Session(compile_graph(text, chip), graph=text, physics="full")
    cases: list[Case] = []
    for name, streams in (("one stream", 1), ("16 streams", 16)):
        prompts = rng.integers(0, 512, (streams, 1)).tolist()
        rates = [_streamed(list, generate_batch(session, prompts, count=TOKENS)) for _ in range(RUNS + 1)][1:]
        cases.append(_case(name, rates, LEAST))
    ids = rng.integers(0, 512, (8, 1, TEXT))
    rates = [_texts(whole, ids) for _ in range(RUNS + 1)][1:]
    cases.append(_case("8 texts of 128", rates, LEAST))
    return BenchResult("llm-tokens", tuple(cases), f"{LEAST:g} tokens per second, full physics")


def _case(name: str, rates: list[float], least: float) -> Case:
    return Case(name, median(rates), "tokens/s", runs=tuple(rates), least=least)


def _streamed(collect: Any, tokens: Any) -> float:
    next(tokens)
    start = time.perf_counter()
    rest = collect(tokens)
    return sum(len(t) for t in rest) / (time.perf_counter() - start)


def _texts(session: Any, ids: Any) -> float:
    start = time.perf_counter()
    session.run_codes({"ids": ids})
    return ids.size / (time.perf_counter() - start)
