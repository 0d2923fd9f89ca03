"""Language models as shapes: parameters, cached elements and products per token in closed form, without weights."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field

from insitu.base.errors import ModelError, did_you_mean
from insitu.base.schema import Config, load_config, validate
from insitu.base.yaml import parse_yaml

PREFIX = "shape:"


class Experts(Config):
    """A mixture: how many experts, how many of them a token takes, shared ones beside, and layers without."""

    experts: int = Field(ge=1)
    top_k: int = Field(ge=1)
    shared: int = Field(0, ge=0)
    expert_ffn: int = Field(ge=1)
    first_dense_layers: int = Field(0, ge=0)


class Latent(Config):
    """Multi-head latent attention: what is cached is one latent vector and one rotated key for all heads."""

    q_lora_rank: int = Field(ge=1)
    kv_lora_rank: int = Field(ge=1)
    qk_nope: int = Field(ge=1)
    qk_rope: int = Field(ge=1)
    v_dim: int = Field(ge=1)


class Shape(Config):
    """A transformer's sizes."""

    family: str = ""
    kind: Literal["decoder_only", "encoder"] = "decoder_only"
    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_size: int = Field(ge=1)
    ffn: int = Field(ge=1)
    ffn_matrices: int = Field(3, ge=1, le=3)
    vocab: int = Field(ge=1)
    context: int = Field(ge=1)
    tied: bool = False
    qkv_bias: bool = False
    linear_bias: bool = False
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    position_rows: int = 0
    moe: Experts | None = None
    mla: Latent | None = None
    published: float | None = None
    source: str = ""
    checked: str = ""
    note: str = ""

    # per layer

    @property
    def attention_weights(self) -> int:
        """Weights of one layer's projections."""
        if self.mla is not None:
            return _latent_weights(self, self.mla)
        wide, narrow = self.heads * self.head_size, self.kv_heads * self.head_size
        return self.width * (2 * wide + 2 * narrow)

    def feed_weights(self, layer: int) -> int:
        """Weights of one layer's feed-forward networks, all experts and the router included."""
        if self.is_mixture(layer):
            assert self.moe is not None
            each = self.ffn_matrices * self.width * self.moe.expert_ffn
            return each * (self.moe.experts + self.moe.shared) + self.width * self.moe.experts
        return self.ffn_matrices * self.width * self.ffn

    def fired_weights(self, layer: int) -> int:
        """Of them, those that one token takes."""
        if self.is_mixture(layer):
            assert self.moe is not None
            each = self.ffn_matrices * self.width * self.moe.expert_ffn
            return each * (self.moe.top_k + self.moe.shared) + self.width * self.moe.experts
        return self.feed_weights(layer)

    def is_mixture(self, layer: int) -> bool:
        """Whether a layer has experts."""
        return self.moe is not None and layer >= self.moe.first_dense_layers

    # the whole

    @property
    def head_weights(self) -> int:
        """Weights of the head's product; an encoder has none."""
        return self.vocab * self.width if self.kind == "decoder_only" else 0

    @property
    def parameters(self) -> int:
        """All weights, biases, norms and tables."""
        tables = self.vocab * self.width * (1 if self.tied or not self.head_weights else 2)
        tables += self.position_rows * self.width
        return tables + self._norms() + self._biases() + sum(self._layer(i) for i in range(self.layers))

    def _layer(self, layer: int) -> int:
        return self.attention_weights + self.feed_weights(layer)

    def _norms(self) -> int:
        each = self.width * (2 if self.norm == "layernorm" else 1)
        return each * (2 * self.layers + 1)

    def _biases(self) -> int:
        wide, narrow = self.heads * self.head_size, self.kv_heads * self.head_size
        each = (wide + 2 * narrow) * self.qkv_bias
        if self.linear_bias:
            each += self.width + (self.ffn_matrices - 1) * self.ffn + self.width
        return each * self.layers

    @property
    def product_weights(self) -> int:
        """Weights that a token's products take: what a step has to read at batch 1."""
        return self.head_weights + sum(self.attention_weights + self.fired_weights(i) for i in range(self.layers))

    @property
    def stored_weights(self) -> int:
        """Weights of all products, experts that rest included."""
        return self.head_weights + sum(self._layer(i) for i in range(self.layers))

    @property
    def macs_per_token(self) -> int:
        """Multiply-adds with weights for one token."""
        return self.product_weights

    def attention_macs(self, keys: int) -> int:
        """Multiply-adds of one token with `keys` cached ones, over all layers."""
        if self.mla is not None:
            return self.layers * keys * self.heads * (2 * self.mla.kv_lora_rank + self.mla.qk_rope)
        return self.layers * keys * self.heads * 2 * self.head_size

    @property
    def cached_elements(self) -> int:
        """Elements that a token leaves in the caches of all layers."""
        if self.mla is not None:
            return self.layers * (self.mla.kv_lora_rank + self.mla.qk_rope)
        return self.layers * 2 * self.kv_heads * self.head_size

    def fired_share(self, tokens: float) -> float:
        """Share of all product weights that `tokens` tokens together take, experts drawn evenly."""
        if self.moe is None:
            return 1.0
        each = self.ffn_matrices * self.width * self.moe.expert_ffn
        mixed = sum(self.is_mixture(i) for i in range(self.layers))
        met = 1 - (1 - self.moe.top_k / self.moe.experts) ** tokens
        resting = mixed * each * self.moe.experts * (1 - met)
        return 1 - resting / self.stored_weights


def _latent_weights(shape: Shape, latent: Latent) -> int:
    q = shape.width * latent.q_lora_rank + latent.q_lora_rank * shape.heads * (latent.qk_nope + latent.qk_rope)
    kv = shape.width * (latent.kv_lora_rank + latent.qk_rope)
    kv += latent.kv_lora_rank * shape.heads * (latent.qk_nope + latent.v_dim)
    return q + kv + shape.heads * latent.v_dim * shape.width


class Shapes(Config):
    """The file of all shapes."""

    models: dict[str, Shape]


@cache
def shapes() -> dict[str, Shape]:
    """Shapes that ship with the package, by name."""
    text = (files("insitu.llm") / "shapes.yaml").read_text("utf-8")
    return validate(parse_yaml(text, label="shapes.yaml"), Shapes).models


def load_shape(spec: str) -> tuple[str, Shape]:
    """(name, shape) of "shape:llama-3-70b", a bare name, or a YAML file of one shape."""
    word = spec.removeprefix(PREFIX)
    if word.endswith((".yaml", ".yml")) and Path(word).is_file():
        return Path(word).stem, load_config(Path(word), Shape)
    if word not in shapes():
        from insitu.llm.images import image_shapes

        close = tuple(f"{PREFIX}{n}" for n in did_you_mean(word, [*shapes(), *image_shapes()]))
        raise ModelError(spec, "no shape has this name", "a shape", try_=close or (f"{PREFIX}llama-3-8b",))
    return word, shapes()[word]
