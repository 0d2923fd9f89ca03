"""Models whose whole texts have no room on a chip are scored by steps: the same integers, so the same figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from insitu.flow.language import LanguageDeployment, LanguageOptions, deploy_language, result_of
from insitu.llm import samples
from insitu.llm.samples import affordable_texts, written
from tests.llm.folders import WORDS, write_folder


def test_by_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = deploy_language(write_folder(tmp_path / "m", "llama"), "dcim-28nm", options=LanguageOptions(context=16))
    texts = [[int(t) for t in np.random.default_rng(i).integers(0, WORDS, 14)] for i in range(3)]
    whole, first = made.score(texts), result_of(made, prompt=[1, 2, 3]).metrics["ttft_s"]
    monkeypatch.setattr(LanguageDeployment, "holds", lambda self, tokens: False)
    assert made.score(texts) == whole
    slow = result_of(made, prompt=[1, 2, 3]).metrics["ttft_s"]
    assert "token by token" in str(slow.note)
    assert (slow.value or 0) > (first.value or 0)
    assert made.score([t * 3 for t in texts]).tokens == 3 * (15 + 15 + 9)  # windows of what the cache holds


def test_large_vocabularies_are_drawn_token_by_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert affordable_texts(512) == 16
    assert affordable_texts(32_000) == 4
    made = deploy_language(write_folder(tmp_path / "m", "llama"), "dcim-28nm", options=LanguageOptions(context=8))
    monkeypatch.setattr(samples, "WHOLE", 0)
    ids = written(made.model, texts=3, length=9)
    assert ids.shape == (3, 9)
    assert (ids[:, 0] == made.model.begin).all()
    assert len({tuple(r) for r in ids.tolist()}) == 3
