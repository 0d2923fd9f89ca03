"""Hugging Face folders (config.json and safetensors) of decoder and encoder families -> LanguageModel.

One reader per naming scheme; `model_type` picks it.  What a family adds is in its entry of FAMILIES.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from insitu.base.errors import ModelError, did_you_mean
from insitu.frontend.checkpoint import CONFIG, Checkpoint, open_checkpoint
from insitu.frontend.language import ACTIVATIONS, Architecture, Array, LanguageModel, scaled_queries
from insitu.frontend.llama2c import is_llama2c, read_llama2c

MOST_LAYERS = 1000


def read_language_model(folder: Path) -> LanguageModel:
    """The model of a folder; ModelError with one line for what is missing, misshapen or unknown."""
    point = open_checkpoint(folder)
    if is_llama2c(point):
        return read_llama2c(point)
    kind = point.config.get("model_type")
    reader = FAMILIES.get(kind) if isinstance(kind, str) else None
    if reader is None:
        got = f"model_type {kind!r}" if kind is not None else "no model_type"
        close = did_you_mean(str(kind), FAMILIES)
        raise ModelError(str(folder / CONFIG), got, f"one of {', '.join(sorted(FAMILIES))}", try_=close)
    return reader(_Folder(point, str(kind)))


@dataclass
class _Folder:
    """A checkpoint while its tensors are renamed."""

    point: Checkpoint
    family: str
    weights: dict[str, Array] = field(default_factory=dict[str, Array])

    def setting(self, name: str, default: Any = None) -> Any:
        value = self.point.config.get(name)
        return default if value is None else value

    def base(self, **more: Any) -> Architecture:
        """What all configs say, under the names that families use."""
        c = self.point
        width, heads = c.integer("hidden_size", "n_embd"), c.integer("num_attention_heads", "n_head")
        layers = c.integer("num_hidden_layers", "n_layer")
        kv, size = (
            c.integer("num_key_value_heads", default=heads),
            c.integer("head_dim", default=max(width // heads, 1)),
        )
        if layers > MOST_LAYERS or heads % kv:
            raise self.fault(
                "num_key_value_heads", f"{kv} for {heads} heads, {layers} layers", "a divisor of the heads"
            )
        if "head_dim" not in c.config and width % heads:
            raise self.fault("num_attention_heads", f"{heads} for a width of {width}", "a divisor of the width")
        name = self.setting(
            "hidden_act", self.setting("hidden_activation", self.setting("activation_function", "silu"))
        )
        if name not in ACTIVATIONS:
            raise self.fault("hidden_act", repr(name)[:40], f"one of {', '.join(ACTIVATIONS)}")
        values: dict[str, Any] = {
            "family": self.family, "layers": layers, "width": width, "heads": heads, "kv_heads": kv, "head_size": size,
            "ffn": c.integer("intermediate_size", "ffn_dim", "n_inner", default=4 * width),
            "vocab": c.integer("vocab_size"),
            "context": c.integer("max_position_embeddings", "n_positions", default=2048),
            "epsilon": c.number("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", default=1e-5),
            "activation": ACTIVATIONS[name], "tied": bool(self.setting("tie_word_embeddings", False)),
        }  # fmt: skip
        return Architecture(**{**values, **more})

    def rotary(self, arch: Architecture) -> Architecture:
        """Rotary positions as the config has them."""
        rope: Mapping[str, Any] = self.setting("rope_parameters", self.setting("rope_scaling", {})) or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", "linear", "llama3"):
            raise self.fault("rope_scaling", f"type {kind!r}", "default, linear or llama3")
        theta = self.point.number("rope_theta", default=float(rope.get("rope_theta", 10000.0)))
        part = self.point.number("partial_rotary_factor", default=float(rope.get("partial_rotary_factor", 1.0)))
        numbers = {k: float(v) for k, v in rope.items() if isinstance(v, int | float) and k != "rope_theta"}
        scaling = numbers if kind != "default" else None
        return replace(arch, rotary=int(arch.head_size * part) // 2 * 2, theta=theta, rope_scaling=scaling)

    def fault(self, setting: str, got: str, need: str) -> ModelError:
        return ModelError(f"{self.point.folder / CONFIG}: {setting}", got, need)

    # tensors

    def take(self, ours: str, theirs: str, *shape: int) -> None:
        self.weights[ours] = self.point.tensor(theirs, shape)

    def linear(self, ours: str, theirs: str, inputs: int, outputs: int, *, turned: bool = True) -> None:
        """A product's weights as [inputs, outputs], and its bias where there is one."""
        shape = (outputs, inputs) if turned else (inputs, outputs)
        w = self.point.tensor(f"{theirs}.weight", shape)
        self.weights[f"{ours}.w"] = np.ascontiguousarray(w.T) if turned else w
        self.bias(ours, theirs, outputs)

    def bias(self, ours: str, theirs: str, outputs: int) -> None:
        if self.point.has(f"{theirs}.bias"):
            self.take(f"{ours}.b", f"{theirs}.bias", outputs)

    def norm(self, ours: str, theirs: str, size: int, *, offset: float = 0.0) -> None:
        self.take(f"{ours}.w", f"{theirs}.weight", size)
        if offset:
            self.weights[f"{ours}.w"] = self.weights[f"{ours}.w"] + np.float32(offset)
        self.bias(ours, theirs, size)

    def fused(self, ours: list[str], theirs: str, inputs: int, outputs: list[int], *, turned: bool = True) -> None:
        """One matrix of several products, cut up."""
        self.linear("#fused", theirs, inputs, sum(outputs), turned=turned)
        w, bias, at = self.weights.pop("#fused.w"), self.weights.pop("#fused.b", None), 0
        for name, count in zip(ours, outputs, strict=True):
            self.weights[f"{name}.w"] = np.ascontiguousarray(w[:, at : at + count])
            if bias is not None:
                self.weights[f"{name}.b"] = bias[at : at + count]
            at += count

    def head(self, arch: Architecture, theirs: str, embed: str) -> Architecture:
        """The head of its own, or the embeddings turned."""
        self.take("embed", embed, arch.vocab, arch.width)
        if self.point.has(f"{theirs}.weight") and not arch.tied:
            self.linear("head", theirs, arch.width, arch.vocab)
            return arch
        self.weights["head.w"] = np.ascontiguousarray(self.weights["embed"].T)
        self.bias("head", theirs, arch.vocab)
        return replace(arch, tied=True)

    def finished(self, arch: Architecture, factor: float | None = None) -> LanguageModel:
        model = LanguageModel(self.point.folder.name, arch, self.weights)
        return scaled_queries(model, arch.head_size**-0.5 if factor is None else factor)

    def projections(self, arch: Architecture, at: str, theirs: Mapping[str, str]) -> None:
        """Queries, keys, values and the output of attention."""
        wide, narrow = arch.heads * arch.head_size, arch.kv_heads * arch.head_size
        for name, inputs, outputs in (("q", arch.width, wide), ("k", arch.width, narrow), ("v", arch.width, narrow),
                                      ("o", wide, arch.width)):  # fmt: skip
            self.linear(f"{at}{name}", theirs[name], inputs, outputs)


# Llama and what follows its names


def _llama(folder: _Folder, *, offset: float = 0.0, **more: Any) -> LanguageModel:
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


def _score_factor(folder: _Folder, arch: Architecture) -> float:
    return folder.point.number("query_pre_attn_scalar", default=float(arch.head_size)) ** -0.5


def _llama_layer(folder: _Folder, arch: Architecture, at: str, own: str, offset: float) -> None:
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


def _experts(folder: _Folder, arch: Architecture, at: str, own: str) -> None:
    folder.linear(f"{at}router", f"{own}block_sparse_moe.gate", arch.width, arch.experts)
    for e in range(arch.experts):
        theirs = f"{own}block_sparse_moe.experts.{e}."
        folder.linear(f"{at}{e}.gate", f"{theirs}w1", arch.width, arch.ffn)
        folder.linear(f"{at}{e}.up", f"{theirs}w3", arch.width, arch.ffn)
        folder.linear(f"{at}{e}.down", f"{theirs}w2", arch.ffn, arch.width)


def _windowed(folder: _Folder) -> LanguageModel:
    """Mistral and Qwen: all layers with one window, where the config turns it on."""
    window = folder.setting("sliding_window")
    on = type(window) is int and bool(folder.setting("use_sliding_window", True))
    return _llama(folder, windows=(int(window),) * folder.point.integer("num_hidden_layers") if on else ())


def _mixtral(folder: _Folder) -> LanguageModel:
    experts, active = folder.point.integer("num_local_experts"), folder.point.integer("num_experts_per_tok")
    if active > experts:
        raise folder.fault("num_experts_per_tok", str(active), f"at most {experts}")
    return _llama(folder, experts=experts, active=active)


def _gemma(folder: _Folder) -> LanguageModel:
    """Norms multiply by 1 + w, embeddings by the root of the width, the head is tied."""
    width, layers = folder.point.integer("hidden_size"), folder.point.integer("num_hidden_layers")
    more: dict[str, Any] = {"embed_scale": math.sqrt(width), "tied": bool(folder.setting("tie_word_embeddings", True))}
    window = folder.setting("sliding_window")
    if folder.family != "gemma":
        more["sandwich"] = True
        kinds = folder.setting("layer_types")
        every = int(folder.setting("sliding_window_pattern", 2 if folder.family == "gemma2" else 6))
        local = [k == "sliding_attention" for k in kinds] if kinds else [bool((i + 1) % every) for i in range(layers)]
        more["windows"] = tuple(int(window) if at and window else 0 for at in local)
        names = ("attn_logit_softcapping", "final_logit_softcapping")
        more["caps"] = tuple(folder.point.number(n, default=0.0) for n in names)
    if folder.family == "gemma3_text":
        more["local_theta"] = folder.point.number("rope_local_base_freq", default=10000.0)
    return _llama(folder, offset=1.0, **more)


# others


def _phi(folder: _Folder) -> LanguageModel:
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


def _gpt2(folder: _Folder) -> LanguageModel:
    arch = folder.base(norm="layer", gated=False, learned_positions=True, activation=ACTIVATIONS["gelu_new"])
    arch = replace(arch, tied=bool(folder.setting("tie_word_embeddings", True)))
    chosen = folder.setting("activation_function", "gelu_new")
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
    return folder.finished(arch)


def _opt(folder: _Folder) -> LanguageModel:
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


def _bert(folder: _Folder) -> LanguageModel:
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


Reader = Callable[[_Folder], LanguageModel]
FAMILIES: Mapping[str, Reader] = {
    "llama": _llama, "mistral": _windowed, "qwen2": lambda f: _qwen(f), "qwen3": lambda f: _qwen(f), "phi3": _windowed,
    "mixtral": _mixtral, "gemma": _gemma, "gemma2": _gemma, "gemma3_text": _gemma, "phi": _phi, "gpt2": _gpt2,
    "opt": _opt, "bert": _bert,
}  # fmt: skip


def _qwen(folder: _Folder) -> LanguageModel:
    return _windowed(folder) if folder.setting("use_sliding_window", False) else _llama(folder)
