"""A Hugging Face folder while its tensors are renamed: settings under all their names, products, norms, the head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from insitu.base.errors import ModelError
from insitu.frontend.checkpoint import CONFIG, Checkpoint
from insitu.frontend.language import ACTIVATIONS, Architecture, Array, LanguageModel, scaled_queries
from insitu.frontend.rotary import KINDS, stretched

MOST_LAYERS = 1000
DEFAULT_EPSILON: dict[str, float] = dict.fromkeys(
    ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), 1e-6
)
DEFAULT_THETA = {"gemma3_text": 1e6, "mixtral": 1e6}  # where a config leaves its family's own out


@dataclass
class Folder:
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
        width, heads = c.integer("hidden_size", "n_embd"), c.integer("num_attention_heads", "n_head", "num_heads")
        layers = c.integer("num_hidden_layers", "n_layer", "num_layers")
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
            "epsilon": c.number("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon",
                                default=DEFAULT_EPSILON.get(self.family, 1e-5)),
            "activation": ACTIVATIONS[name], "tied": bool(self.setting("tie_word_embeddings", False)),
        }  # fmt: skip
        return Architecture(**{**values, **more})

    def rotary(self, arch: Architecture) -> Architecture:
        """Rotary positions as the config has them."""
        rope: Mapping[str, Any] = self.setting("rope_parameters", self.setting("rope_scaling", {})) or {}
        rope = rope.get("full_attention", rope)
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in KINDS:
            raise self.fault("rope_scaling", f"type {str(kind)[:40]!r}", f"one of {', '.join(KINDS)}")
        theta = self.point.number(
            "rope_theta",
            "rotary_emb_base",
            default=float(rope.get("rope_theta", DEFAULT_THETA.get(self.family, 10000.0))),
        )
        named = float(rope.get("partial_rotary_factor", 1.0))
        part = self.point.number("partial_rotary_factor", "rotary_pct", "rope_pct", default=named)
        arch = replace(arch, rotary=int(arch.head_size * part) // 2 * 2, theta=theta)
        return arch if kind == "default" else self._stretched(arch, str(kind), rope)

    def _stretched(self, arch: Architecture, kind: str, rope: Mapping[str, Any]) -> Architecture:
        """Positions of a model that was stretched to a longer context."""
        old = self.setting("original_max_position_embeddings", rope.get("original_max_position_embeddings"))
        rope = {**rope, "original_max_position_embeddings": old} if old else rope
        try:
            rates, gain = stretched(kind, rope, arch.theta, arch.rotary, arch.context)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise self.fault(
                "rope_scaling", f"{type(error).__name__} {error}"[:60], f"all of {kind}'s settings"
            ) from None
        if len(rates) != arch.rotary // 2 or not np.isfinite([*rates, gain]).all():
            raise self.fault("rope_scaling", f"{len(rates)} rates", f"{arch.rotary // 2} finite ones")
        context = min(arch.context, int(old)) if kind == "longrope" and old else arch.context
        return replace(arch, rates=tuple(float(r) for r in rates), turn_gain=gain, context=context)

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

    def joined(self, ours: str, parts: list[str]) -> None:
        """One matrix of several that lie beside each other."""
        for end in ("w", "b"):
            found = [self.weights.pop(f"{p}.{end}") for p in parts if f"{p}.{end}" in self.weights]
            if found:
                self.weights[f"{ours}.{end}"] = np.ascontiguousarray(np.concatenate(found, axis=-1))

    def head(self, arch: Architecture, theirs: str, embed: str) -> Architecture:
        """The head of its own, or the embeddings turned."""
        self.take("embed", embed, arch.vocab, arch.width)
        if self.point.has(f"{theirs}.weight") and not arch.tied:
            self.linear("head", theirs, arch.width, arch.vocab)
            return arch
        if not arch.tied and self.setting("tie_word_embeddings") is False:
            need = f"{theirs}.weight, or tie_word_embeddings: true in {CONFIG}"
            raise ModelError(str(self.point.folder), f"no tensor '{theirs}.weight' and no tied embeddings", need)
        self.weights["head.w"] = np.ascontiguousarray(self.weights["embed"].T)
        self.bias("head", theirs, arch.vocab)
        return replace(arch, tied=True)

    def finished(self, arch: Architecture, factor: float | None = None) -> LanguageModel:
        begin, ends = text_ends(self.point, arch.vocab)
        model = LanguageModel(self.point.folder.name, arch, self.weights, begin, ends)
        return scaled_queries(model, arch.head_size**-0.5 if factor is None else factor)

    def projections(self, arch: Architecture, at: str, theirs: Mapping[str, str]) -> None:
        """Queries, keys, values and the output of attention."""
        wide, narrow = arch.heads * arch.head_size, arch.kv_heads * arch.head_size
        for name, inputs, outputs in (("q", arch.width, wide), ("k", arch.width, narrow), ("v", arch.width, narrow),
                                      ("o", wide, arch.width)):  # fmt: skip
            self.linear(f"{at}{name}", theirs[name], inputs, outputs)


def text_ends(point: Checkpoint, vocab: int) -> tuple[int, tuple[int, ...]]:
    """The token that begins a text (where none is named, the one that ends texts), and those that end one."""
    ends = point.tokens("eos_token_id", vocab)
    return next(iter((*point.tokens("bos_token_id", vocab), *ends)), min(1, vocab - 1)), ends
