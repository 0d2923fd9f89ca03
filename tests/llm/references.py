"""Cases whose logits the transformers package has computed (tools/reference_logits.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.llm.folders import FAMILIES, WORDS

FILE = Path(__file__).with_name("reference_logits.json")
TOKENS = 20
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "rope_theta": 10000.0}
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0] * 4, "rope_theta": 1e4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in FAMILIES if name != "bert"},
    "llama-yarn": ("llama", {"rope_scaling": YARN, "rope_parameters": YARN}),
    "llama-linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
    "phi3-longrope": ("phi3", {"rope_scaling": LONG, "original_max_position_embeddings": 32}),
    "qwen2-windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "gpt2-inverse": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "activation_function": "relu"}),
    "gpt_neox-serial": ("gpt_neox", {"use_parallel_residual": False}),
}  # fmt: skip


def ids_of(tokens: int) -> npt.NDArray[np.int64]:
    """The tokens of a case."""
    return np.random.default_rng(5).integers(3, WORDS, tokens)
