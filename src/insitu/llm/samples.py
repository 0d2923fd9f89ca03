"""Texts that a float language model writes itself: what its values look like, where nobody gives calibration texts."""

from __future__ import annotations

import numpy as np

from insitu.frontend.language import Array, LanguageModel
from insitu.frontend.language_graph import text_graph
from insitu.graph.export import float_session
from insitu.llm.score import log_softmax

PASSES = 24  # times that all tokens are drawn anew after those before them
TEXTS, LENGTH = 16, 128


def written(model: LanguageModel, *, seed: int = 0, texts: int = TEXTS, length: int = LENGTH) -> Array:
    """Texts [texts, length] drawn from the model.

    All tokens are drawn at once after the ones of the pass before: exact for the first PASSES tokens, near for others.
    An encoder predicts nothing: its texts are random tokens.
    """
    rng = np.random.default_rng(seed)
    arch = model.arch
    length = max(2, min(length, arch.context))
    ids = rng.integers(0, arch.vocab, (texts, length))
    ids[:, 0] = model.begin
    if "head.w" not in model.weights:
        return ids
    run = float_session(text_graph(model, length))
    for _ in range(min(PASSES, length)):
        logits = next(iter(run({"ids": ids[:, None, :]}).values()))[:, 0]
        noise = rng.gumbel(size=logits.shape)  # the largest of log p + noise is a draw from p
        ids[:, 1:] = (log_softmax(logits) + noise).argmax(axis=-1)[:, :-1]
    return ids
