"""Folders of every family with small random weights, as Hugging Face writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

Array = np.ndarray[Any, Any]
Shapes = dict[str, tuple[int, ...]]
D, LAYERS, HEADS, KV, FFN, WORDS, ROOM = 32, 2, 4, 2, 48, 60, 32


def _norms(names: list[str], *, bias: bool = False) -> Shapes:
    ends = ("weight", "bias") if bias else ("weight",)
    return {f"{n}.{e}": (D,) for n in names for e in ends}


def _linear(name: str, inputs: int, outputs: int, *, bias: bool = False) -> Shapes:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def _attention(own: str, *, bias: bool = False, size: int = D // HEADS, out: str = "o_proj") -> Shapes:
    found = _linear(f"{own}q_proj", D, HEADS * size, bias=bias)
    for name in ("k_proj", "v_proj"):
        found |= _linear(f"{own}{name}", D, KV * size, bias=bias)
    return found | _linear(f"{own}{out}", HEADS * size, D, bias=bias and out != "o_proj")


def _llama(
    *, bias: bool = False, head: bool = True, sandwich: bool = False, qk_norm: bool = False, size: int = D // HEADS,
    experts: int = 0, fused: bool = False,
) -> Shapes:  # fmt: skip
    found: Shapes = {"model.embed_tokens.weight": (WORDS, D), **_norms(["model.norm"])}
    found |= {"lm_head.weight": (WORDS, D)} if head else {}
    for layer in range(LAYERS):
        own = f"model.layers.{layer}."
        names = ["input_layernorm", "post_attention_layernorm"]
        names += ["pre_feedforward_layernorm", "post_feedforward_layernorm"] if sandwich else []
        found |= _norms([own + n for n in names])
        if fused:
            found |= _linear(f"{own}self_attn.qkv_proj", D, (HEADS + 2 * KV) * size)
            found |= _linear(f"{own}self_attn.o_proj", HEADS * size, D)
            found |= _linear(f"{own}mlp.gate_up_proj", D, 2 * FFN) | _linear(f"{own}mlp.down_proj", FFN, D)
            continue
        found |= _attention(f"{own}self_attn.", bias=bias, size=size)
        if qk_norm:
            found |= {f"{own}self_attn.{n}.weight": (size,) for n in ("q_norm", "k_norm")}
        if experts:
            found |= _linear(f"{own}block_sparse_moe.gate", D, experts)
            for e in range(experts):
                at = f"{own}block_sparse_moe.experts.{e}."
                found |= _linear(f"{at}w1", D, FFN) | _linear(f"{at}w2", FFN, D) | _linear(f"{at}w3", D, FFN)
        else:
            for name, a, b in (("gate_proj", D, FFN), ("up_proj", D, FFN), ("down_proj", FFN, D)):
                found |= _linear(f"{own}mlp.{name}", a, b)
    return found


def _gpt2() -> Shapes:
    found: Shapes = {"wte.weight": (WORDS, D), "wpe.weight": (ROOM, D), **_norms(["ln_f"], bias=True)}
    for layer in range(LAYERS):
        own = f"h.{layer}."
        found |= _norms([f"{own}ln_1", f"{own}ln_2"], bias=True)
        for name, a, b in (
            ("attn.c_attn", D, 3 * D),
            ("attn.c_proj", D, D),
            ("mlp.c_fc", D, 4 * D),
            ("mlp.c_proj", 4 * D, D),
        ):
            found |= {f"{own}{name}.weight": (a, b), f"{own}{name}.bias": (b,)}
    return found


def _gpt_neo() -> Shapes:
    base = "transformer."
    found: Shapes = {f"{base}wte.weight": (WORDS, D), f"{base}wpe.weight": (ROOM, D)}
    found |= _norms([f"{base}ln_f"], bias=True)
    for layer in range(LAYERS):
        own = f"{base}h.{layer}."
        found |= _norms([f"{own}ln_1", f"{own}ln_2"], bias=True)
        for name in ("q_proj", "k_proj", "v_proj"):
            found |= _linear(f"{own}attn.attention.{name}", D, D)
        found |= _linear(f"{own}attn.attention.out_proj", D, D, bias=True)
        found |= _linear(f"{own}mlp.c_fc", D, FFN, bias=True) | _linear(f"{own}mlp.c_proj", FFN, D, bias=True)
    return found


def _gpt_neox() -> Shapes:
    base = "gpt_neox."
    found: Shapes = {f"{base}embed_in.weight": (WORDS, D), "embed_out.weight": (WORDS, D)}
    found |= _norms([f"{base}final_layer_norm"], bias=True)
    for layer in range(LAYERS):
        own = f"{base}layers.{layer}."
        found |= _norms([f"{own}input_layernorm", f"{own}post_attention_layernorm"], bias=True)
        for name, a, b in (("attention.query_key_value", D, 3 * D), ("attention.dense", D, D),
                           ("mlp.dense_h_to_4h", D, FFN), ("mlp.dense_4h_to_h", FFN, D)):  # fmt: skip
            found |= _linear(own + name, a, b, bias=True)
    return found


def _opt() -> Shapes:
    base = "model.decoder."
    found: Shapes = {f"{base}embed_tokens.weight": (WORDS, D), f"{base}embed_positions.weight": (ROOM + 2, D)}
    found |= _norms([f"{base}final_layer_norm"], bias=True)
    for layer in range(LAYERS):
        own = f"{base}layers.{layer}."
        found |= _norms([f"{own}self_attn_layer_norm", f"{own}final_layer_norm"], bias=True)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= _linear(f"{own}self_attn.{name}", D, D, bias=True)
        found |= _linear(f"{own}fc1", D, FFN, bias=True) | _linear(f"{own}fc2", FFN, D, bias=True)
    return found


def _phi() -> Shapes:
    found: Shapes = {"model.embed_tokens.weight": (WORDS, D), **_linear("lm_head", D, WORDS, bias=True)}
    found |= _norms(["model.final_layernorm"], bias=True)
    for layer in range(LAYERS):
        own = f"model.layers.{layer}."
        found |= _norms([f"{own}input_layernorm"], bias=True)
        for name in ("q_proj", "k_proj", "v_proj", "dense"):
            found |= _linear(f"{own}self_attn.{name}", D, D, bias=True)
        found |= _linear(f"{own}mlp.fc1", D, FFN, bias=True) | _linear(f"{own}mlp.fc2", FFN, D, bias=True)
    return found


def _bert() -> Shapes:
    own = "embeddings."
    found: Shapes = {
        f"{own}word_embeddings.weight": (WORDS, D), f"{own}position_embeddings.weight": (ROOM, D),
        f"{own}token_type_embeddings.weight": (2, D), **_norms([f"{own}LayerNorm"], bias=True),
    }  # fmt: skip
    for layer in range(LAYERS):
        own = f"encoder.layer.{layer}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            found |= _linear(f"{own}{name}", D, D, bias=True)
        found |= _norms([f"{own}attention.output.LayerNorm", f"{own}output.LayerNorm"], bias=True)
        found |= _linear(f"{own}intermediate.dense", D, FFN, bias=True) | _linear(
            f"{own}output.dense", FFN, D, bias=True
        )
    return found


_MODERN = {
    "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV,
    "intermediate_size": FFN, "vocab_size": WORDS, "max_position_embeddings": ROOM, "hidden_act": "silu",
}  # fmt: skip
_OLD = {k: v for k, v in _MODERN.items() if k != "num_key_value_heads"}
FAMILIES: dict[str, tuple[dict[str, Any], Shapes]] = {
    "llama": ({**_MODERN, "model_type": "llama", "rms_norm_eps": 1e-5}, _llama()),
    "llama3": (
        {**_MODERN, "model_type": "llama", "rope_theta": 500000.0, "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}}, _llama()),
    "mistral": ({**_MODERN, "model_type": "mistral", "sliding_window": 8}, _llama()),
    "qwen2": ({**_MODERN, "model_type": "qwen2", "tie_word_embeddings": True}, _llama(bias=True, head=False)),
    "qwen3": ({**_MODERN, "model_type": "qwen3", "head_dim": 16}, _llama(qk_norm=True, size=16)),
    "phi3": ({**_MODERN, "model_type": "phi3"}, _llama(fused=True)),
    "phi": ({**_OLD, "model_type": "phi", "hidden_act": "gelu_new", "partial_rotary_factor": 0.5}, _phi()),
    "gemma": ({**_MODERN, "model_type": "gemma", "hidden_act": "gelu_pytorch_tanh", "head_dim": 8}, _llama(head=False)),
    "gemma2": (
        {**_MODERN, "model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh",
         "head_dim": 8, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 8,
         "query_pre_attn_scalar": 16}, _llama(head=False, sandwich=True)),
    "gemma3": (
        {**_MODERN, "model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh",
         "hidden_act": "gelu_pytorch_tanh",
         "head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"],
         "rope_local_base_freq": 10000.0, "rope_theta": 1e6}, _llama(head=False, sandwich=True, qk_norm=True)),
    "mixtral": (
        {**_MODERN, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}, _llama(experts=4)),
    "gpt2": (
        {"model_type": "gpt2", "n_embd": D, "n_layer": LAYERS, "n_head": HEADS, "vocab_size": WORDS,
         "n_positions": ROOM, "activation_function": "gelu_new"}, _gpt2()),
    "gpt_neo": (
        {"model_type": "gpt_neo", "hidden_size": D, "num_layers": LAYERS, "num_heads": HEADS, "vocab_size": WORDS,
         "max_position_embeddings": ROOM, "intermediate_size": FFN, "attention_types": [[["global", "local"], 1]],
         "window_size": 8, "activation_function": "gelu_new"}, _gpt_neo()),
    "gpt_neox": (
        {**_OLD, "model_type": "gpt_neox", "hidden_act": "gelu", "rotary_pct": 0.25, "layer_norm_eps": 1e-5,
         "tie_word_embeddings": False}, _gpt_neox()),
    "opt": ({**_OLD, "model_type": "opt", "ffn_dim": FFN, "activation_function": "relu", "hidden_act": "relu"}, _opt()),
    "bert": ({**_OLD, "model_type": "bert", "hidden_act": "gelu", "type_vocab_size": 2}, _bert()),
}  # fmt: skip


def write_folder(
    place: Path, family: str, *, seed: int = 0, shards: int = 1, spread: float = 1.0,
    changes: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """A folder with a family's settings and random weights; norms near 1 (gemma: near 0)."""
    config, shapes = FAMILIES[family]
    config = {**config, **(changes or {})}
    rng = np.random.default_rng(seed)
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(json.dumps(config))
    tensors = {n: _drawn(n, s, rng, spread, offset=family.startswith("gemma")) for n, s in shapes.items()}
    if shards == 1:
        save_file(tensors, place / "model.safetensors")
        return place
    names, files = sorted(tensors), dict[str, str]()
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file({n: tensors[n] for n in names[i::shards]}, place / file)
        files |= dict.fromkeys(names[i::shards], file)
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return place


def _drawn(name: str, shape: tuple[int, ...], rng: np.random.Generator, spread: float, *, offset: bool) -> Array:
    if "norm" in name.lower() or ".ln_" in name or name.startswith("ln_"):
        middle = 0.0 if name.endswith("bias") or offset else 1.0
        return (middle + 0.1 * rng.standard_normal(shape)).astype(np.float32)
    scale = 0.02 if name.endswith("bias") else spread / np.sqrt(shape[-1])
    scale = 1.0 if "embed" in name or name.startswith("wte") else 0.1 if name.startswith("wpe") else scale
    return (scale * rng.standard_normal(shape)).astype(np.float32)
