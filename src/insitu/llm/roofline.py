"""Time of a language model's steps on conventional machines: bytes over bandwidth, operations over rate, overheads.

One step takes `tokens` new tokens of each of `batch` sequences.  Parts: `weights` (products with weights), `attention`
(queries times keys, shares times values), `cache` (its reading and writing), `links` (all-reduces between devices),
`host` (kernel launches), `unpack` (weights of fewer bits to what is multiplied).  No part is fitted; a factor of the
device and software class stretches the sum (fit.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from insitu.cost.machines import Machine
from insitu.llm.shapes import Shape
from insitu.llm.software import Software, habits

PARTS = ("weights", "attention", "links", "host", "unpack")
LAYER_BYTES = 24  # bytes a token and element of the width that a layer moves between its operators, at 16 bits


@dataclass(frozen=True)
class Serving:
    """A model on machines: how many share it, in what precision, by what software."""

    shape: Shape
    machine: Machine
    software: Software
    count: int = 1  # devices that share one copy
    split: str = "tensor"
    weight_bits: float = 16
    activation_bits: float = 16
    cache_bits: float = 16
    threads: int | None = None

    @property
    def bandwidth(self) -> float | None:
        """Bytes per second of one device's memory, as far as its threads ask for them."""
        given = self.machine.memory.bandwidth
        if given is None or self.threads is None:
            return given
        small = self.machine.kind in habits().small_kinds
        each = habits().small_thread_bandwidth if small else habits().thread_bandwidth
        return min(given, self.threads * each)

    @property
    def rate(self) -> float | None:
        """Operations per second in the precision that is multiplied; not known for a processor's threads."""
        if self.threads is not None:
            return None
        if self.activation_bits <= 4:
            found = self.machine.rate("fp4", "int4", "fp8", "int8")
        elif self.activation_bits <= 8:
            found = self.machine.rate("fp8", "int8", "fp16", "bf16")
        else:
            found = self.machine.rate("fp16", "bf16", "fp32")
        return found

    @property
    def parallel(self) -> int:
        """Devices that work on one token at a time."""
        return self.count if self.split == "tensor" else 1

    @property
    def weight_bytes(self) -> float:
        """Bytes of all product weights, and of the table of embeddings at 16 bits."""
        shape = self.shape
        table = 0 if shape.tied else 2 * shape.vocab * shape.width
        return shape.stored_weights * self.weight_bits / 8 + table

    @property
    def sequence_bytes(self) -> float:
        """Cached bytes of one token."""
        return self.shape.cached_elements * self.cache_bits / 8

    def batch_that_fits(self, context: float) -> int:
        """Sequences of `context` tokens that fit beside the weights; 0 where the weights alone do not."""
        size = self.machine.memory.size
        if size is None:
            return 0
        room = self.count * size * self.software.margin - self.weight_bytes
        return max(0, min(self.software.cap, int(room // (self.sequence_bytes * context))))


def step(serving: Serving, *, tokens: float, batch: float, keys: float) -> dict[str, float]:
    """Seconds by part of one step; `keys` counts the keys that a token sees on average.

    KeyError-free: what a machine does not say (its rate, its bandwidth) bounds nothing.
    """
    shape, many = serving.shape, tokens * batch
    fired = shape.fired_share(many) * shape.stored_weights
    weights = _longer(
        serving, fired * serving.weight_bits / 8 + many * shape.layers * shape.width * LAYER_BYTES,
        2 * shape.product_weights * many,
    )  # fmt: skip
    head = shape.head_weights * max(many - batch, 0) * 2  # only each sequence's last token goes through the head
    weights -= 0.0 if serving.rate is None else head / serving.rate / serving.parallel * (weights > 0)
    reread = 1 if serving.software.reuse or shape.mla is not None else shape.heads // shape.kv_heads
    read = batch * keys * serving.sequence_bytes * (reread if tokens == 1 else 1)
    attention = _longer(serving, read, 2 * shape.attention_macs(1) * keys * many)
    return {
        "weights": max(weights, 0.0), "attention": attention, "links": _links(serving, many),
        "host": shape.layers * serving.software.launches * serving.software.launch * _launched(serving),
        "unpack": _unpacked(serving, fired),
    }  # fmt: skip


def _longer(serving: Serving, data: float, operations: float) -> float:
    """The longer of moving and computing, shared by the devices that work together."""
    bounds = [0.0]
    if serving.bandwidth:
        bounds.append(data / serving.bandwidth)
    if serving.rate:
        bounds.append(operations / serving.rate)
    return max(bounds) / serving.parallel


def _launched(serving: Serving) -> bool:
    """Whether kernels are launched from a host: not where a processor computes itself."""
    return serving.threads is None


def _links(serving: Serving, many: float) -> float:
    """Two all-reduces a layer over tensor-parallel devices, one way of the links; hand-overs cost next to nothing."""
    if serving.parallel == 1:
        return 0.0
    n, one_way = serving.parallel, (serving.machine.link or 6.4e10) / 2
    data = 2 * many * serving.shape.width * 2 * (n - 1) / n
    steps = 1 + 0.25 * ceil(n / 2 - 1)  # longer rings take longer
    return serving.shape.layers * 2 * (habits().all_reduce * steps + data / 2 / one_way)


def _unpacked(serving: Serving, weights: float) -> float:
    """Weights of fewer bits than what is multiplied, turned into it on the vector units."""
    rate = serving.machine.rate("fp32", "fp16")
    if serving.weight_bits >= serving.activation_bits or not rate or serving.threads is not None:
        return 0.0
    return weights * serving.software.dequantize / rate / serving.parallel


def total(parts: Mapping[str, float]) -> float:
    """Seconds of a step."""
    return sum(parts.values())


def prefill(serving: Serving, *, tokens: float, batch: float = 1) -> float:
    """Seconds until the first token of a prompt; a token sees half of the prompt on average."""
    return total(step(serving, tokens=tokens, batch=batch, keys=tokens / 2))


def decode(serving: Serving, *, keys: float, batch: float = 1) -> float:
    """Seconds of one token of every sequence."""
    return total(step(serving, tokens=1, batch=batch, keys=keys))


def end_to_end(serving: Serving, *, tokens_in: float, tokens_out: float, batch: float) -> float:
    """Seconds for a batch of prompts and answers, one phase after the other."""
    return prefill(serving, tokens=tokens_in, batch=batch) + tokens_out * decode(
        serving, keys=tokens_in + tokens_out / 2, batch=batch
    )


def throughput(serving: Serving, *, tokens_in: float, tokens_out: float, batch: float = 0) -> tuple[float, int]:
    """(output tokens per second, sequences at once) of an endless queue; the most that fit without `batch`.

    Sequences at different places share the memory: half of the answers is written on average, where room is not
    reserved for all of it.
    """
    held = tokens_in + tokens_out * (1 if serving.software.reserve else 0.5)
    many = int(batch) or serving.batch_that_fits(held)
    if many == 0:
        return 0.0, 0
    spent = end_to_end(serving, tokens_in=tokens_in, tokens_out=tokens_out, batch=many)
    return many * tokens_out / spent, many
