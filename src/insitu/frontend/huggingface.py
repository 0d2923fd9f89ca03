"""Hugging Face folders (config.json and safetensors) of decoder and encoder families -> LanguageModel.

One reader per naming scheme; `model_type` picks it.  What a family adds is in its entry of FAMILIES.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from insitu.base.errors import ModelError, did_you_mean
from insitu.frontend.checkpoint import CONFIG, open_checkpoint
from insitu.frontend.folder import Folder
from insitu.frontend.gpt import read_bert, read_gpt2, read_gpt_neo, read_gpt_neox, read_opt, read_phi
from insitu.frontend.language import Architecture, LanguageModel
from insitu.frontend.llama2c import is_llama2c, read_llama2c


def read_language_model(folder: Path) -> LanguageModel:
    """The model of a folder; ModelError with one line for what is missing, misshapen or unknown."""
    point = open_checkpoint(folder)
    if is_llama2c(point):
        return read_llama2c(point)
    kind = point.config.get("model_type")
    if point.config.get("quantization_config"):
        need = "plain weights (F32, F16 or BF16); the chip's own quantization follows"
        raise ModelError(str(folder / CONFIG), "weights that are quantized already (quantization_config)", need)
    reader = FAMILIES.get(kind) if isinstance(kind, str) else None
    if reader is None:
        got = f"model_type {kind!r}" if kind is not None else "no model_type"
        close = did_you_mean(str(kind), FAMILIES)
        raise ModelError(str(folder / CONFIG), got, f"one of {', '.join(sorted(FAMILIES))}", try_=close)
    return reader(Folder(point, str(kind)))


# Llama and what follows its names


def _llama(folder: Folder, *, offset: float = 0.0, **more: Any) -> LanguageModel:
    arch = folder.rotary(folder.base(**more))
    prefix = (
        "model." if folder.point.has("model.embed_tokens.weight") or not folder.point.has("embed_tokens.weight") else ""
    )
    arch = folder.head(arch, "lm_head", f"{prefix}embed_tokens.weight")
    folder.norm("norm", f"{prefix}norm", arch.width, offset=offset)
    for layer in range(arch.layers):
        _llama_layer(folder, arch, f"{layer}.", f"{prefix}layers.{layer}.", offset)
    if any(n.endswith("q_norm.w") for n in folder.weights):
        arch = replace(arch, qk_norm=True)
    return folder.finished(arch, _score_factor(folder, arch))


def _score_factor(folder: Folder, arch: Architecture) -> float:
    usual = 256.0 if folder.family in ("gemma2", "gemma3_text") else float(arch.head_size)
    return folder.point.number("query_pre_attn_scalar", default=usual) ** -0.5


def _llama_layer(folder: Folder, arch: Architecture, at: str, own: str, offset: float) -> None:
    folder.norm(f"{at}attn_norm", f"{own}input_layernorm", arch.width, offset=offset)
    if folder.point.has(f"{own}self_attn.qkv_proj.weight"):
        wide, narrow = arch.heads * arch.head_size, arch.kv_heads * arch.head_size
        names = [f"{at}{n}" for n in "qkv"]
        folder.fused(names, f"{own}self_attn.qkv_proj", arch.width, [wide, narrow, narrow])
        folder.linear(f"{at}o", f"{own}self_attn.o_proj", wide, arch.width)
    else:
        folder.projections(arch, at, {n: f"{own}self_attn.{n}_proj" for n in "qkvo"})
    for name in ("q_norm", "k_norm"):
        if folder.point.has(f"{own}self_attn.{name}.weight"):
            folder.norm(f"{at}{name}", f"{own}self_attn.{name}", arch.head_size, offset=offset)
    second = "mlp_norm"
    if arch.sandwich:
        folder.norm(f"{at}post_attn_norm", f"{own}post_attention_layernorm", arch.width, offset=offset)
        folder.norm(f"{at}post_mlp_norm", f"{own}post_feedforward_layernorm", arch.width, offset=offset)
        folder.norm(f"{at}{second}", f"{own}pre_feedforward_layernorm", arch.width, offset=offset)
    else:
        folder.norm(f"{at}{second}", f"{own}post_attention_layernorm", arch.width, offset=offset)
    if arch.experts:
        return _experts(folder, arch, at, own)
    if folder.point.has(f"{own}mlp.gate_up_proj.weight"):
        folder.fused([f"{at}gate", f"{at}up"], f"{own}mlp.gate_up_proj", arch.width, [arch.ffn, arch.ffn])
    else:
        folder.linear(f"{at}gate", f"{own}mlp.gate_proj", arch.width, arch.ffn)
        folder.linear(f"{at}up", f"{own}mlp.up_proj", arch.width, arch.ffn)
    return folder.linear(f"{at}down", f"{own}mlp.down_proj", arch.ffn, arch.width)


def _experts(folder: Folder, arch: Architecture, at: str, own: str) -> None:
    folder.linear(f"{at}router", f"{own}block_sparse_moe.gate", arch.width, arch.experts)
    for e in range(arch.experts):
        theirs = f"{own}block_sparse_moe.experts.{e}."
        folder.linear(f"{at}{e}.gate", f"{theirs}w1", arch.width, arch.ffn)
        folder.linear(f"{at}{e}.up", f"{theirs}w3", arch.width, arch.ffn)
        folder.linear(f"{at}{e}.down", f"{theirs}w2", arch.ffn, arch.width)


def _windowed(folder: Folder) -> LanguageModel:
    """Mistral, Phi-3 and Qwen: layers with one window, where the config turns it on."""
    window, layers = folder.setting("sliding_window"), folder.point.integer("num_hidden_layers")
    if type(window) is not int or not folder.setting("use_sliding_window", not folder.family.startswith("qwen")):
        return _llama(folder)
    whole = int(folder.setting("max_window_layers", 28)) if folder.family.startswith("qwen") else 0
    local = _local(folder, [i >= whole for i in range(layers)])
    return _llama(folder, windows=tuple(window if at else 0 for at in local))


def _local(folder: Folder, otherwise: list[bool]) -> list[bool]:
    """Which layers have a window: as `layer_types` says, where it does."""
    kinds = folder.setting("layer_types")
    if kinds is None:
        return otherwise
    if not isinstance(kinds, list) or not {"sliding_attention", "full_attention"}.issuperset(kinds):  # pyright: ignore[reportUnknownArgumentType]
        need = "sliding_attention or full_attention for each layer"
        raise folder.fault("layer_types", repr(kinds)[:40], need)  # pyright: ignore[reportUnknownArgumentType]
    if len(kinds) != len(otherwise):  # pyright: ignore[reportUnknownArgumentType]
        raise folder.fault("layer_types", f"{len(kinds)} kinds", f"{len(otherwise)}, one for each layer")  # pyright: ignore[reportUnknownArgumentType]
    return [k == "sliding_attention" for k in kinds]  # pyright: ignore[reportUnknownVariableType]


def _mixtral(folder: Folder) -> LanguageModel:
    experts, active = folder.point.integer("num_local_experts"), folder.point.integer("num_experts_per_tok")
    if active > experts:
        raise folder.fault("num_experts_per_tok", str(active), f"at most {experts}")
    return _llama(folder, experts=experts, active=active)


def _gemma(folder: Folder) -> LanguageModel:
    """Norms multiply by 1 + w, embeddings by the root of the width, the head is tied."""
    width, layers = folder.point.integer("hidden_size"), folder.point.integer("num_hidden_layers")
    more: dict[str, Any] = {"embed_scale": math.sqrt(width), "tied": bool(folder.setting("tie_word_embeddings", True))}
    window = folder.setting("sliding_window")
    if folder.family != "gemma":
        more["sandwich"] = True
        every = int(folder.setting("sliding_window_pattern", 2 if folder.family == "gemma2" else 6))
        local = _local(folder, [bool((i + 1) % every) for i in range(layers)])
        more["windows"] = tuple(int(window) if at and window else 0 for at in local)
        names = ("attn_logit_softcapping", "final_logit_softcapping")
        more["caps"] = tuple(folder.point.number(n, default=0.0) for n in names)
    if folder.family == "gemma3_text":
        rope = (folder.setting("rope_parameters") or {}).get("sliding_attention", {})
        named = float(rope.get("rope_theta", 10000.0))
        more["local_theta"] = folder.point.number("rope_local_base_freq", default=named)
    return _llama(folder, offset=1.0, **more)


Reader = Callable[[Folder], LanguageModel]
FAMILIES: Mapping[str, Reader] = {
    "llama": _llama, "mistral": _windowed, "qwen2": _windowed, "qwen3": _windowed, "phi3": _windowed,
    "mixtral": _mixtral, "gemma": _gemma, "gemma2": _gemma, "gemma3_text": _gemma, "phi": read_phi, "gpt2": read_gpt2,
    "gpt_neo": read_gpt_neo, "gpt_neox": read_gpt_neox, "opt": read_opt, "bert": read_bert,
}  # fmt: skip
