"""GPT-2, GPT-Neo, GPT-NeoX, OPT, Phi and BERT folders: layer norms, plain feed-forward networks, their own names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from insitu.frontend.folder import Folder
from insitu.frontend.language import ACTIVATIONS, LanguageModel


def read_phi(folder: Folder) -> LanguageModel:
    """Phi-1 and 2: one layer norm in front of attention and feed-forward, part of each head rotated."""
    arch = folder.rotary(folder.base(norm="layer", gated=False, parallel=True))
    arch = folder.head(arch, "lm_head", "model.embed_tokens.weight")
    folder.norm("norm", "model.final_layernorm", arch.width)
    for layer in range(arch.layers):
        at, own = f"{layer}.", f"model.layers.{layer}."
        folder.norm(f"{at}attn_norm", f"{own}input_layernorm", arch.width)
        names = {n: f"{own}self_attn.{n}_proj" for n in "qkv"} | {"o": f"{own}self_attn.dense"}
        folder.projections(arch, at, names)
        folder.linear(f"{at}up", f"{own}mlp.fc1", arch.width, arch.ffn)
        folder.linear(f"{at}down", f"{own}mlp.fc2", arch.ffn, arch.width)
    return folder.finished(arch)


def read_gpt2(folder: Folder) -> LanguageModel:
    arch = folder.base(norm="layer", gated=False, learned_positions=True, activation=ACTIVATIONS["gelu_new"])
    arch = replace(arch, tied=bool(folder.setting("tie_word_embeddings", True)))
    chosen, plain = folder.setting("activation_function", "gelu_new"), folder.setting("scale_attn_weights") is False
    arch = replace(arch, activation=ACTIVATIONS[chosen])
    prefix = "transformer." if folder.point.has("transformer.wte.weight") else ""
    arch = folder.head(arch, "lm_head", f"{prefix}wte.weight")
    folder.take("positions", f"{prefix}wpe.weight", arch.context, arch.width)
    folder.norm("norm", f"{prefix}ln_f", arch.width)
    for layer in range(arch.layers):
        at, own = f"{layer}.", f"{prefix}h.{layer}."
        folder.norm(f"{at}attn_norm", f"{own}ln_1", arch.width)
        names = [f"{at}{n}" for n in "qkv"]
        folder.fused(names, f"{own}attn.c_attn", arch.width, [arch.width] * 3, turned=False)
        folder.linear(f"{at}o", f"{own}attn.c_proj", arch.width, arch.width, turned=False)
        folder.norm(f"{at}mlp_norm", f"{own}ln_2", arch.width)
        folder.linear(f"{at}up", f"{own}mlp.c_fc", arch.width, arch.ffn, turned=False)
        folder.linear(f"{at}down", f"{own}mlp.c_proj", arch.ffn, arch.width, turned=False)
    return _layer_factors(folder, folder.finished(arch, 1.0 if plain else None))


def _layer_factors(folder: Folder, model: LanguageModel) -> LanguageModel:
    """Scores of deeper layers divided by their number, where the config says so."""
    if not folder.setting("scale_attn_by_inverse_layer_idx", False):
        return model
    ends = [(n, int(n.split(".")[0])) for n in model.weights if n.split(".")[1:2] == ["q"]]
    return replace(model, weights={**model.weights, **{n: model.weights[n] / np.float32(i + 1) for n, i in ends}})


def read_gpt_neo(folder: Folder) -> LanguageModel:
    """GPT-Neo: GPT-2 with projections apart, every other layer with a window, and scores without a factor."""
    arch = folder.base(norm="layer", gated=False, learned_positions=True)
    window, kinds = folder.point.integer("window_size", default=256), _kinds_of(folder, arch.layers)
    arch = replace(arch, tied=bool(folder.setting("tie_word_embeddings", True)),
                   windows=tuple(window if k == "local" else 0 for k in kinds))  # fmt: skip
    prefix = "transformer." if folder.point.has("transformer.wte.weight") else ""
    arch = folder.head(arch, "lm_head", f"{prefix}wte.weight")
    folder.take("positions", f"{prefix}wpe.weight", arch.context, arch.width)
    folder.norm("norm", f"{prefix}ln_f", arch.width)
    for layer in range(arch.layers):
        at, own = f"{layer}.", f"{prefix}h.{layer}."
        folder.norm(f"{at}attn_norm", f"{own}ln_1", arch.width)
        names = {n: f"{own}attn.attention.{n}_proj" for n in "qkv"} | {"o": f"{own}attn.attention.out_proj"}
        folder.projections(arch, at, names)
        folder.norm(f"{at}mlp_norm", f"{own}ln_2", arch.width)
        folder.linear(f"{at}up", f"{own}mlp.c_fc", arch.width, arch.ffn)
        folder.linear(f"{at}down", f"{own}mlp.c_proj", arch.ffn, arch.width)
    return folder.finished(arch, 1.0)


def _kinds_of(folder: Folder, layers: int) -> list[str]:
    """Kinds of all layers, "global" or "local": named one by one, or as a pattern with its repetitions."""
    named: Any = folder.setting("attention_layers")
    if named is None:
        rows: Any = folder.setting("attention_types", [[["global", "local"], (layers + 1) // 2]])
        named = [kind for row in rows for _ in range(row[1]) for kind in row[0]] if isinstance(rows, list) else []
    if not isinstance(named, list) or len(named) < layers or not {"global", "local"}.issuperset(named):
        raise folder.fault("attention_types", repr(named)[:40], f"global or local for each of {layers} layers")
    return named[:layers]


def read_gpt_neox(folder: Folder) -> LanguageModel:
    """GPT-NeoX and Pythia: attention and feed-forward beside each other, each with its norm; heads fused one by one."""
    parallel = bool(folder.setting("use_parallel_residual", True))
    arch = folder.rotary(folder.base(norm="layer", gated=False, parallel=parallel))
    if "rotary_pct" not in folder.point.config and "rope_parameters" not in folder.point.config:
        arch = replace(arch, rotary=arch.head_size // 4 // 2 * 2)  # the family's default
    base = "gpt_neox." if folder.point.has("gpt_neox.embed_in.weight") else ""
    arch = folder.head(arch, "embed_out", f"{base}embed_in.weight")
    folder.norm("norm", f"{base}final_layer_norm", arch.width)
    for layer in range(arch.layers):
        at, own = f"{layer}.", f"{base}layers.{layer}."
        folder.norm(f"{at}attn_norm", f"{own}input_layernorm", arch.width)
        folder.norm(f"{at}mlp_norm", f"{own}post_attention_layernorm", arch.width)
        names = [f"{at}{part}#{head}" for head in range(arch.heads) for part in "qkv"]
        folder.fused(names, f"{own}attention.query_key_value", arch.width, [arch.head_size] * len(names))
        for part in "qkv":
            folder.joined(f"{at}{part}", [f"{at}{part}#{head}" for head in range(arch.heads)])
        folder.linear(f"{at}o", f"{own}attention.dense", arch.width, arch.width)
        folder.linear(f"{at}up", f"{own}mlp.dense_h_to_4h", arch.width, arch.ffn)
        folder.linear(f"{at}down", f"{own}mlp.dense_4h_to_h", arch.ffn, arch.width)
    return folder.finished(arch)


def read_opt(folder: Folder) -> LanguageModel:
    before = bool(folder.setting("do_layer_norm_before", True))
    narrow = folder.setting("word_embed_proj_dim", folder.setting("hidden_size"))
    if narrow != folder.setting("hidden_size"):
        raise folder.fault("word_embed_proj_dim", repr(narrow)[:40], "embeddings as wide as the layers")
    arch = folder.base(norm="layer", gated=False, learned_positions=True, post_norm=not before,
                       tied=bool(folder.setting("tie_word_embeddings", True)))  # fmt: skip
    arch = replace(arch, activation=ACTIVATIONS[folder.setting("activation_function", "relu")], final_norm=before)
    base = "model.decoder." if folder.point.has("model.decoder.embed_tokens.weight") else "decoder."
    arch = folder.head(arch, "lm_head", f"{base}embed_tokens.weight")
    folder.take("positions", f"{base}embed_positions.weight", arch.context + 2, arch.width)
    folder.weights["positions"] = folder.weights["positions"][2:]  # its two first rows stand for padding
    if before:
        folder.norm("norm", f"{base}final_layer_norm", arch.width)
    for layer in range(arch.layers):
        at, own = f"{layer}.", f"{base}layers.{layer}."
        folder.norm(f"{at}attn_norm", f"{own}self_attn_layer_norm", arch.width)
        names = {n: f"{own}self_attn.{n}_proj" for n in "qkv"} | {"o": f"{own}self_attn.out_proj"}
        folder.projections(arch, at, names)
        folder.norm(f"{at}mlp_norm", f"{own}final_layer_norm", arch.width)
        folder.linear(f"{at}up", f"{own}fc1", arch.width, arch.ffn)
        folder.linear(f"{at}down", f"{own}fc2", arch.ffn, arch.width)
    return folder.finished(arch)


def read_bert(folder: Folder) -> LanguageModel:
    """An encoder: hidden states of a text; token types are all 0."""
    arch = folder.base(
        norm="layer", gated=False, learned_positions=True, causal=False, post_norm=True, final_norm=False
    )
    arch = replace(arch, activation=ACTIVATIONS[folder.setting("hidden_act", "gelu")],
                   epsilon=folder.point.number("layer_norm_eps", default=1e-12))  # fmt: skip
    prefix = "bert." if folder.point.has("bert.embeddings.word_embeddings.weight") else ""
    own = f"{prefix}embeddings."
    folder.take("embed", f"{own}word_embeddings.weight", arch.vocab, arch.width)
    folder.take("positions", f"{own}position_embeddings.weight", arch.context, arch.width)
    types = folder.point.integer("type_vocab_size", default=2)
    folder.weights["types"] = folder.point.tensor(f"{own}token_type_embeddings.weight", (types, arch.width))[0]
    folder.norm("embed_norm", f"{own}LayerNorm", arch.width)
    for layer in range(arch.layers):
        at, own = f"{layer}.", f"{prefix}encoder.layer.{layer}."
        names = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}
        folder.projections(arch, at, {n: f"{own}attention.{v}" for n, v in names.items()})
        folder.norm(f"{at}attn_norm", f"{own}attention.output.LayerNorm", arch.width)
        folder.linear(f"{at}up", f"{own}intermediate.dense", arch.width, arch.ffn)
        folder.linear(f"{at}down", f"{own}output.dense", arch.ffn, arch.width)
        folder.norm(f"{at}mlp_norm", f"{own}output.LayerNorm", arch.width)
    return folder.finished(arch)
