"""Every family computes what the transformers package computes: its logits are kept in reference_logits.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from insitu.frontend.huggingface import read_language_model
from insitu.frontend.language_graph import text_graph
from insitu.graph.export import float_session
from tests.llm.folders import write_folder
from tests.llm.references import CASES, FILE, TOKENS, ids_of

KNOWN = json.loads(FILE.read_text())["logits"]


@pytest.mark.parametrize("case", CASES)
def test_logits(case: str, tmp_path: Path) -> None:
    family, changes = CASES[case]
    model = read_language_model(write_folder(tmp_path / case, family, changes=changes))
    logits = next(iter(float_session(text_graph(model, TOKENS))({"ids": ids_of(TOKENS)[None, None]}).values()))
    np.testing.assert_allclose(logits[0, 0, -1, :8], KNOWN[case], rtol=1e-4, atol=2e-5)
