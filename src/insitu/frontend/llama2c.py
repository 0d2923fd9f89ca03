"""llama2.c checkpoints: its settings with stacked tensors in a folder, or its own .bin file (version 0, float32)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from insitu.base.errors import ModelError
from insitu.frontend.checkpoint import Checkpoint
from insitu.frontend.language import Architecture, Array, LanguageModel, halves, scaled_queries

BEGIN, END = 1, 2  # tokens: a new text begins where one ends
STACKED = ("attn_norm", "ffn_norm", "wq", "wk", "wv", "wo", "w1", "w2", "w3")


def is_llama2c(point: Checkpoint) -> bool:
    """Whether settings and tensors have llama2.c's names."""
    return "n_layers" in point.config and "hidden_dim" in point.config and "model_type" not in point.config


def read_llama2c(point: Checkpoint) -> LanguageModel:
    """The model of a folder with llama2.c's names."""
    arch = _architecture(
        point.integer("dim"), point.integer("hidden_dim"), point.integer("n_layers"), point.integer("n_heads"),
        point.integer("n_kv_heads", default=point.integer("n_heads")), point.integer("vocab_size"),
        point.integer("max_seq_len"), where=str(point.folder / "config.json"),
        tied=bool(point.config.get("tied_embeddings", True)), epsilon=point.number("norm_eps", default=1e-5),
        theta=point.number("rope_theta", default=10000.0),
    )  # fmt: skip
    shapes = _shapes(arch)
    if not arch.tied:
        shapes["output"] = (arch.vocab, arch.width)
    return _model(point.folder.name, arch, {n: point.tensor(n, s) for n, s in shapes.items()})


def read_llama2c_file(path: Path) -> LanguageModel:
    """The model of a .bin file: seven int32 settings, then the tensors; a negative vocabulary has a head of its own."""
    raw = path.read_bytes()
    if len(raw) < 28:
        raise ModelError(str(path), f"{len(raw)} bytes", "a llama2.c checkpoint: seven integers, then float32 weights")
    dim, hidden, layers, heads, kv, vocab, context = (int(v) for v in np.frombuffer(raw[:28], "<i4"))
    if min(dim, hidden, layers, heads, kv, context) < 1 or vocab == 0 or layers > 1000:
        raise ModelError(str(path), "settings that are no sizes", "a llama2.c checkpoint, version 0")
    arch = _architecture(dim, hidden, layers, heads, kv, abs(vocab), context, where=str(path), tied=vocab > 0)
    body, shapes, half = np.frombuffer(raw[28:], "<f4"), _shapes(arch), arch.head_size // 2
    order = ["tok_embeddings", "attn_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w2", "w3", "norm"]
    spare = 2 * context * half  # tables of the rotations
    need = sum(int(np.prod(s)) for s in shapes.values()) + spare + (0 if arch.tied else arch.vocab * dim)
    if len(body) != need:
        raise ModelError(str(path), f"{len(body)} weights", f"{need}, as its settings say")
    tensors, at = dict[str, Array](), 0
    for name in order:
        count = int(np.prod(shapes[name]))
        tensors[name] = body[at : at + count].reshape(shapes[name])
        at += count
    if not arch.tied:
        tensors["output"] = body[at + spare :].reshape(arch.vocab, dim)
    if not all(np.isfinite(t).all() for t in tensors.values()):
        raise ModelError(str(path), "NaN or infinity among the weights", "finite numbers")
    return _model(path.stem, arch, tensors)


def _architecture(
    dim: int, hidden: int, layers: int, heads: int, kv: int, vocab: int, context: int, *, where: str, **more: Any
) -> Architecture:  # fmt: skip
    if dim % heads or heads % kv or (dim // heads) % 2:
        raise ModelError(where, f"a width of {dim} with {heads} and {kv} heads", "even heads that divide the width")
    size = dim // heads
    return Architecture("llama2.c", layers, dim, heads, kv, size, hidden, vocab, context, rotary=size, **more)


def _shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
    n, d, h, narrow = arch.layers, arch.width, arch.ffn, arch.kv_heads * arch.head_size
    return {
        "tok_embeddings": (arch.vocab, d), "norm": (d,), "attn_norm": (n, d), "ffn_norm": (n, d), "wq": (n, d, d),
        "wk": (n, narrow, d), "wv": (n, narrow, d), "wo": (n, d, d), "w1": (n, h, d), "w2": (n, d, h), "w3": (n, h, d),
    }  # fmt: skip


def _model(name: str, arch: Architecture, tensors: dict[str, Array]) -> LanguageModel:
    """Rows of one matrix per layer; rotary pairs, neighbours there, become halves."""
    weights = {"embed": tensors["tok_embeddings"], "norm.w": tensors["norm"]}
    weights["head.w"] = np.ascontiguousarray(tensors.get("output", tensors["tok_embeddings"]).T)
    names = {"attn_norm": "attn_norm.w", "ffn_norm": "mlp_norm.w", "wq": "q.w", "wk": "k.w", "wv": "v.w", "wo": "o.w",
             "w1": "gate.w", "w2": "down.w", "w3": "up.w"}  # fmt: skip
    for theirs in STACKED:
        for layer, table in enumerate(tensors[theirs]):
            if theirs in ("wq", "wk"):
                table = halves(table, arch.heads if theirs == "wq" else arch.kv_heads)
            weights[f"{layer}.{names[theirs]}"] = np.ascontiguousarray(table.T) if table.ndim == 2 else table
    ends = tuple(t for t in (BEGIN, END) if t < arch.vocab)
    return scaled_queries(LanguageModel(name, arch, weights, ends[0] if ends else 0, ends), arch.head_size**-0.5)
