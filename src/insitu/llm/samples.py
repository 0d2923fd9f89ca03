"""Texts that a float language model writes itself: what its values look like, where nobody gives calibration texts."""

from __future__ import annotations

import numpy as np

from insitu.frontend.language import Array, LanguageModel
from insitu.frontend.language_graph import step_graph, text_graph
from insitu.graph.export import float_session
from insitu.llm.score import log_softmax

PASSES = 24  # times that all tokens are drawn anew after those before them
TEXTS, LENGTH = 16, 128
WHOLE = 1 << 21  # logits of all texts: beyond, tokens are drawn one by one, which computes each logit once
MOST, FEWEST = 1 << 24, 4  # logits that calibration looks at, texts at least


def affordable_texts(vocab: int, *, texts: int = TEXTS, length: int = LENGTH) -> int:
    """Texts to calibrate on: fewer where the vocabulary is large, for memory and time."""
    return min(texts, max(FEWEST, MOST // (vocab * length)))


def written(model: LanguageModel, *, seed: int = 0, texts: int = TEXTS, length: int = LENGTH) -> Array:
    """Texts [texts, length] drawn from the model.

    Small vocabularies: all tokens are drawn at once after the ones of the pass before, which is exact for the first
    PASSES tokens and near for others.  Large ones: token by token.
    An encoder predicts nothing: its texts are random tokens.
    """
    rng = np.random.default_rng(seed)
    arch = model.arch
    length = max(2, min(length, arch.context))
    ids = rng.integers(0, arch.vocab, (texts, length))
    ids[:, 0] = model.begin
    if "head.w" not in model.weights:
        return ids
    if ids.size * arch.vocab > WHOLE:
        return _one_by_one(model, ids, rng)
    run = float_session(text_graph(model, length))
    for _ in range(min(PASSES, length)):
        logits = next(iter(run({"ids": ids[:, None, :]}).values()))[:, 0]
        noise = rng.gumbel(size=logits.shape)  # the largest of log p + noise is a draw from p
        ids[:, 1:] = (log_softmax(logits) + noise).argmax(axis=-1)[:, :-1]
    return ids


def _one_by_one(model: LanguageModel, ids: Array, rng: np.random.Generator) -> Array:
    """Each token drawn after all before it, keys and values kept."""
    graph = step_graph(model, ids.shape[1])
    run, name = float_session(graph), graph.outputs[0]
    kept = {s.input: np.zeros((len(ids), *graph.type(s.input).sizes()), np.float32) for s in graph.states}
    for at in range(ids.shape[1] - 1):
        given: dict[str, Array] = {"ids": ids[:, at, None, None], "position": np.full((len(ids), 1), at, np.int64)}
        found = run({**{n: given[n] for n in graph.inputs}, **kept})
        kept = {s.input: found[s.output] for s in graph.states}
        logits = log_softmax(found[name][:, 0, 0])
        ids[:, at + 1] = (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)
    return ids
