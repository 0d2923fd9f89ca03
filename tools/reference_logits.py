"""Logits that the transformers package computes for the tests' random folders -> tests/llm/reference_logits.json.

python tools/reference_logits.py     (needs torch and transformers; the tests read what it wrote)
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
import transformers

from tests.llm.folders import write_folder
from tests.llm.references import CASES, FILE, TOKENS, ids_of


def main() -> None:
    """Every case: the last logits of a text."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        for name, (family, changes) in CASES.items():
            folder = write_folder(Path(place) / name, family, changes=changes)
            kinds = transformers.AutoModelForCausalLM
            model = kinds.from_pretrained(folder, pad_token_id=0, dtype=torch.float32).eval()
            with torch.no_grad():
                logits = model(torch.tensor(ids_of(TOKENS)[None])).logits[0].numpy()
            found[name] = [round(float(v), 6) for v in logits[-1, :8]]
    FILE.write_text(json.dumps({"transformers": transformers.__version__, "logits": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
