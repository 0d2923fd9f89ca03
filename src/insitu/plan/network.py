"""What is to be deployed, as work for machines and layers for chips: a network's graph, or a language model's shape."""

from __future__ import annotations

from dataclasses import dataclass

from insitu.cost.layers import Layer, layers_of
from insitu.cost.roofline import Work, works_of
from insitu.graph.graph import Graph
from insitu.llm.shapes import Shape
from insitu.plan.claim_serving import works_of_shape


@dataclass(frozen=True)
class Network:
    """`layers` and how often each follows; `runtime_macs` of two run-time operands; bytes a step keeps in memory."""

    name: str
    works: tuple[Work, ...]
    layers: tuple[tuple[Layer, int], ...]
    weights: float
    runtime_macs: float
    memory: float
    weight_bits: float | None = None


def of_graph(graph: Graph) -> Network:
    """A network whose sizes are bound, its values kept as bytes; the largest operator's values must fit at once."""
    works = works_of(graph)
    layers = layers_of(graph)
    inside = sum(layer.macs for layer in layers)
    largest = max((w.inputs + w.outputs for w in works), default=0.0)
    weights = sum(layer.rows * layer.cols * layer.groups for layer in layers)
    return Network(
        graph.name, works, tuple((layer, 1) for layer in layers), float(weights),
        max(0.0, sum(w.macs for w in works) - inside), largest,
    )  # fmt: skip


def of_shape(name: str, shape: Shape, *, context: int, weight_bits: int) -> Network:
    """One token of a language model; keys and values of its context lie in memory."""
    wide, narrow = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    head = [(Layer("head", shape.width, shape.vocab, 1), 1)] if shape.head_weights else []
    fired = shape.moe.expert_ffn * (shape.moe.top_k + shape.moe.shared) if shape.moe else shape.ffn
    layers = [
        (Layer("queries, keys, values", shape.width, wide + 2 * narrow, 1), shape.layers),
        (Layer("attention's output", wide, shape.width, 1), shape.layers),
        (Layer("feed-forward in", shape.width, fired * (shape.ffn_matrices - 1), 1), shape.layers),
        (Layer("feed-forward out", fired, shape.width, 1), shape.layers),
        *head,
    ]
    return Network(
        name, tuple(works_of_shape(shape, context)), tuple(layers), float(shape.stored_weights),
        float(shape.attention_macs(context)), float(context * shape.cached_elements), float(weight_bits),
    )  # fmt: skip
