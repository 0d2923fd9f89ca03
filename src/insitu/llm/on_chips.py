"""A language model of any size on chips of one kind, in closed form: weights stay in arrays or banks.

Per token and layer (docs/design/language.md): every matrix is one read of its macros, all at once (banks: its weights
at the banks' rate); attention and what lies between run on the vector units; values move through the chip's memory.
What is counted is what a compiled step counts; tests hold both against each other.  A layer that needs several chips is
spread over them (two all-reduces); a chip that holds several layers runs them in turn.  Weights that no chip may hold
are read from the weight store for every token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil

from insitu.arch import cost as arch_cost
from insitu.arch.spec import Chip
from insitu.base.errors import Infeasible, InfeasibleError
from insitu.llm.attention import Choice, Units, choices
from insitu.llm.shapes import Shape

TABLES, TABLE_BYTES = 4, 90112  # look-up tables of a layer: two norms (2^14 entries), activation, softmax; their bytes
MATRICES = 4  # products of a layer that wait for each other: queries to values, output, up, down
STORES = tuple(("weights", kind) for kind in ("sram", "edram", "dram"))  # weight stores that may hold caches: no flash
CODE, WIDE = 1, 2  # bytes of an array's input, of a value between layers
PARTS = ("weights", "attention", "kv", "vector", "memory", "links", "stream")


@dataclass(frozen=True)
class Cards:
    """Chips on a card; what joins cards (bytes a second, seconds); watts of a card and of what all share."""

    chips: int = 0  # 0: all chips on one
    bandwidth: float = 0.0
    latency: float = 0.0
    power: float = 0.0
    shared: float = 0.0

    def of(self, chips: float) -> int:
        """Cards that so many chips fill."""
        return ceil(chips / self.chips) if self.chips else 1


ALONE = Cards()


@dataclass(frozen=True)
class OnChips:
    """A shape on as many chips as its weights need, or on `limit` at most."""

    shape: Shape
    chip: Chip
    weight_bits: float = 8
    cache_bits: float = 8
    limit: int = 0  # most chips; 0: as many as it takes
    reserve: float = 0.0  # bytes of caches that have to fit as well
    cores: int = 0  # of each chip that share a layer's vector work; 0: all (today's compiler takes one)
    tensor: int = 0  # chips that share each layer; 0: as few as hold one
    cards: Cards = ALONE  # how chips stand together

    @property
    def fits_per_chip(self) -> float:
        """Weights that a chip holds: fewer bits take fewer slices (bytes in banks)."""
        held = float(self.chip.capacity)
        if self.chip.capabilities.gemv:
            return held * 8 / self.weight_bits
        slices = self.chip.macro.weights.slices
        need = max(1, ceil(self.weight_bits / self.chip.array.bits_per_cell))
        return held * slices / min(need, slices) if slices > 1 else held

    @property
    def needed(self) -> int:
        """Chips that hold all product weights, and the caches asked for."""
        weights = self.shape.stored_weights / self.fits_per_chip
        if "banks" in self.chip.memories:  # weights and caches share them
            weights += self.reserve / self.chip.memories["banks"].size
            return max(1, ceil(weights))
        return max(1, ceil(weights), ceil(self.reserve / max(self._room, 1)))

    @property
    def _room(self) -> float:
        """Bytes for caches in one chip's memories: its own, and the weight store beside it."""
        held = {n: m for n, m in self.chip.memories.items() if n in ("ram", "cache") or (n, m.kind) in STORES}
        return float(sum(m.size for m in held.values()))

    @property
    def _store(self) -> float:
        """Bytes for weights that are loaded, and for caches."""
        weights = self.chip.memories.get("weights")
        flash = weights.size if weights is not None and weights.kind == "flash" else 0
        return self._room + flash

    @cached_property
    def count(self) -> int:
        """Chips used; InfeasibleError where a limit is too small and weights cannot be loaded at run time."""
        if not self.limit or self.needed <= self.limit:
            return max(self.needed, min(self.tensor, self.limit or self.tensor))
        room = self.limit * self._store
        if self.chip.capabilities.wload and self.reserve + self.shape.stored_weights * self.weight_bits / 8 <= room:
            return self.limit
        if self.chip.capabilities.wload:
            ways = (f"--max-chips {self.needed}", "a shorter --context", "--cache-bits 4")
            need = self.reserve + self.shape.stored_weights * self.weight_bits / 8
            raise InfeasibleError([Infeasible("weights and caches", need, room, "B", (), ways)], self.chip.name)
        ways = (f"--max-chips {self.needed}", "a shape with fewer weights", "--weight-bits 4")
        held = self.limit * self.fits_per_chip
        raise InfeasibleError(
            [Infeasible("weights", float(self.shape.stored_weights), held, "weights", (), ways)], self.chip.name
        )

    @property
    def streamed(self) -> float:
        """Weights that are loaded anew for every token."""
        return max(0.0, self.shape.stored_weights - self.count * self.fits_per_chip)

    @property
    def spread(self) -> float:
        """Chips that share one layer."""
        return max(1.0, self.count / self.shape.layers, min(self.tensor, self.count))

    @property
    def resident_bytes(self) -> float:
        """Bytes of all weights."""
        return self.shape.stored_weights * self.weight_bits / 8

    @property
    def token_bytes(self) -> float:
        """Cached bytes of one token over all layers."""
        return self.shape.cached_elements * self.cache_bits / 8

    @property
    def cache_room(self) -> float:
        """Bytes that all chips have for caches: their memory, and what weights leave in banks or the weight store."""
        banks = self.chip.memories.get("banks")
        if banks is not None:
            return float(max(banks.size * self.count - self.resident_bytes, 0))
        beside = 0.0 if self._store > self._room else self.streamed * self.weight_bits / 8  # in the same memory
        return max(self._room * self.count - beside, 0.0)

    @property
    def cache_bandwidth(self) -> float:
        """Bytes a second at which one chip reads its caches."""
        memories = self.chip.memories
        for name in ("cache", "banks"):
            if name in memories:
                return float(memories[name].bandwidth)
        inside = self.reserve <= memories["ram"].size * self.count or "weights" not in memories
        return float(memories["ram" if inside else "weights"].bandwidth)

    @property
    def array_rate(self) -> float:
        """Products a second of one chip's macros, all busy."""
        return (arch_cost.peak_tops(self.chip).value or 0.0) * 1e12 / 2

    @property
    def vector_rate(self) -> float:
        """Elements a second of one chip's vector units."""
        return (self.cores or self.chip.cores) * self.chip.core.vector.lanes * self.chip.chip.clock

    @property
    def table_bytes(self) -> float:
        """Bytes of look-up tables that a token loads: all, where vector units have too few places for them."""
        each = TABLES * self.shape.layers / (self.count * (self.cores or self.chip.cores))
        return float(self.shape.layers * TABLE_BYTES) if each > self.chip.core.vector.luts else 0.0

    @property
    def free_macros(self) -> int:
        """Macros without weights on the chips of a layer, of the cores that share its vector work."""
        if self.chip.capabilities.gemv or self.streamed:
            return 0
        share = 1 - self.shape.stored_weights / (self.count * self.fits_per_chip)
        cores = (self.cores or self.chip.cores) / self.chip.cores
        return int(share * self.chip.macros * cores) * int(self.spread)

    def attention(self, *, keys: float, queries: int = 1) -> Mapping[str, Choice]:
        """Where the products of `queries` tokens' attention go; of a prompt, `keys` counts all of it."""
        lanes = int((self.cores or self.chip.cores) * self.chip.core.vector.lanes * self.spread)
        units = Units(self.chip, lanes, self.free_macros, self.count)
        return choices(self.shape, units, keys=max(keys, 1), queries=queries, cache_bits=self.cache_bits)

    @property
    def read_time(self) -> float:
        """Seconds of one use of every macro."""
        return self.chip.capacity / self.array_rate


@dataclass(frozen=True)
class Token:
    """What one token costs: seconds and joules by part, products, bytes moved."""

    seconds: Mapping[str, float]
    joules: Mapping[str, float]
    counts: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def latency(self) -> float:
        """Seconds through all layers."""
        return sum(self.seconds.values())

    @property
    def energy(self) -> float:
        """Joules, leakage of the time one token takes included."""
        return sum(self.joules.values())


def counts(shape: Shape, keys: float, cache_bytes: float) -> dict[str, float]:
    """Operations and bytes of one token with `keys` keys: what a step's commands would count."""
    d, wide, narrow = shape.width, shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    gates = shape.ffn_matrices - 1
    ffn = sum(_active_ffn(shape, i) for i in range(shape.layers)) / shape.layers
    scores = shape.heads * keys
    vector = 9 * d + 5 * (wide + narrow) + narrow + (2 * gates) * ffn + 4 * scores
    moved = 22 * d + 6 * d * CODE + 20 * (wide + narrow) + 12 * d + (7 * gates) * ffn + 6 * WIDE * scores
    return {
        "array_macs": float(shape.product_weights), "mma_macs": float(shape.attention_macs(1)) * keys,
        "vector_operations": vector * shape.layers + 3 * d + shape.head_weights / max(d, 1),
        "moved_bytes": moved * shape.layers + 11 * d + WIDE * shape.head_weights / max(d, 1),
        "cache_bytes": keys * cache_bytes,
    }  # fmt: skip


def _active_ffn(shape: Shape, layer: int) -> float:
    """Elements between the feed-forward's products for one token."""
    if shape.is_mixture(layer) and shape.moe is not None:
        return shape.moe.expert_ffn * (shape.moe.top_k + shape.moe.shared)
    return shape.ffn


def token(on: OnChips, *, keys: float, queries: int = 1) -> Token:
    """One token of one sequence after `keys` others, nothing else running; one of a prompt of `queries` tokens."""
    shape, chip = on.shape, on.chip
    found = counts(shape, keys, on.token_bytes)
    found["moved_bytes"] += on.table_bytes
    share, halves = on.spread, on.attention(keys=keys if queries == 1 else queries, queries=queries)
    inside = [c for c in halves.values() if c.stored]
    found["stored_macs"] = found["mma_macs"] * len(inside) / len(halves)
    found["mma_macs"] -= found["stored_macs"]
    attention = found["mma_macs"] / (on.vector_rate * share) + sum(c.seconds for c in inside)
    matrices = MATRICES + (1 if shape.moe else 0)
    if chip.capabilities.gemv:
        read = found["array_macs"] * on.weight_bits / 8 / chip.memories["banks"].bandwidth
        weights = max(found["array_macs"] / on.array_rate, read) / share
    else:
        weights = (shape.layers * matrices + 1) * on.read_time
    memory = found["moved_bytes"] / (chip.memories["ram"].bandwidth * share)
    cache = found["cache_bytes"] / (on.cache_bandwidth * share)
    link_bytes, link_seconds = _links(on)
    seconds = {  # a command reads its caches before it computes
        "weights": weights, "attention": attention, "kv": cache,
        "vector": found["vector_operations"] / (on.vector_rate * share), "memory": memory, "links": link_seconds,
        "stream": on.streamed * on.weight_bits / 8 / (chip.store_bandwidth * on.count),
    }  # fmt: skip
    found |= {
        "link_bytes": link_bytes,
        "streamed_bytes": on.streamed * on.weight_bits / 8,
        "weight_bytes": on.resident_bytes,
    }
    joules = _joules(on, found, sum(seconds.values()))
    joules["attention"] += sum(c.joules for c in inside)
    return Token(seconds, joules, found)


def _links(on: OnChips) -> tuple[float, float]:
    """(bytes between chips, seconds) of one token: two all-reduces a layer among the chips that share it, and the way
    from stage to stage; what leaves a card goes over the link between cards.
    """
    if on.count == 1:
        return 0.0, 0.0
    links, width, share = on.chip.system.links, float(on.shape.width * WIDE), on.spread
    stages = max(1, round(on.count / share))
    inside = not on.cards.chips or share <= on.cards.chips
    bandwidth, latency = _slower(links.bandwidth, links.latency, on.cards, crosses=not inside)
    reduces = on.shape.layers * 2 * 2.0 if share > 1 else 0.0
    moved = reduces * width * (share - 1)
    seconds = reduces * latency + moved / share / bandwidth
    crossing = min(on.cards.of(on.count) - 1, stages - 1) if on.cards.chips else 0
    for hops, crosses in ((stages - 1 - crossing, False), (crossing, True)):
        bandwidth, latency = _slower(links.bandwidth, links.latency, on.cards, crosses=crosses)
        moved, seconds = moved + hops * width, seconds + hops * (latency + width / share / bandwidth)
    return moved, seconds


def _slower(bandwidth: float, latency: float, cards: Cards, *, crosses: bool) -> tuple[float, float]:
    """The link that a transfer sees: the slower of both where it leaves a card."""
    if not crosses or not cards.bandwidth:
        return bandwidth, latency
    return min(bandwidth, cards.bandwidth), latency + cards.latency


def _joules(on: OnChips, found: Mapping[str, float], seconds: float) -> dict[str, float]:
    cost = {n: m.value or 0.0 for n, m in arch_cost.event_energy(on.chip).items()}
    macs, bits = found["array_macs"], on.weight_bits
    per_row = on.chip.array.rows
    conversions = macs / per_row * _converted(on.chip)
    array = (
        macs * cost["mac"] + macs / on.chip.weight_cols * cost["dac"] + conversions * (cost["adc"] + cost["shift_add"])
    )
    moved = (cost["ram_read_byte"] + cost["ram_write_byte"]) / 2
    cached = cost["bank_read_byte"] if on.chip.capabilities.gemv else cost["ram_read_byte"]
    leak, host = (arch_cost.leakage(on.chip).value or 0.0), (arch_cost.host_idle(on.chip).value or 0.0) * on.count
    host += on.cards.power * on.cards.of(on.count) + on.cards.shared
    return {
        "weights": array + (macs * bits / 8 * cost["bank_read_byte"] if on.chip.capabilities.gemv else 0.0),
        "attention": found["mma_macs"] * cost["vector_op"], "kv": found["cache_bytes"] * cached,
        "vector": found["vector_operations"] * cost["vector_op"], "memory": found["moved_bytes"] * moved,
        "links": found["link_bytes"] * cost["link_byte"],
        "stream": found["streamed_bytes"] * (cost["store_read_byte"] + 8 * cost["weight_bits"]),
        "leakage": leak * seconds * on.count, "host": host * seconds,
    }  # fmt: skip


def _converted(chip: Chip) -> float:
    """Conversions of one output of one array: slices times input passes; none where sums are exact."""
    if chip.macro.readout.kind == "exact":
        return 0.0
    return float(len(chip.slice_bits) * len(chip.plane_bits))


def batch_rate(on: OnChips, *, keys: float, batch: int, queries: int = 1) -> tuple[float, float]:
    """(tokens per second of all sequences, joules a token) with `batch` sequences in flight.

    Sequences fill the pipeline of chips; the busiest unit of a chip bounds the rate.  Leakage is shared.
    """
    one = token(on, keys=keys, queries=queries)
    stages = on.count / on.spread
    busy = one.seconds["attention"] + one.seconds["kv"] + one.seconds["vector"]
    busiest = max(busy, one.seconds["memory"], _array_time(on)) / max(stages, 1.0)
    shared = batch / one.seconds["stream"] if one.seconds["stream"] else float("inf")  # one load serves all sequences
    rate = min(batch / one.latency, 1 / busiest, shared)
    idle = one.joules["leakage"] + one.joules["host"]
    dynamic = one.energy - idle - one.joules["stream"] * (1 - 1 / batch)
    leak = idle / one.latency / rate
    return rate, dynamic + leak


def _array_time(on: OnChips) -> float:
    """Time that one token holds the arrays of all stages."""
    if on.chip.capabilities.gemv:
        read = on.weight_bits / 8 / on.chip.memories["banks"].bandwidth
        return on.shape.product_weights * max(1 / on.array_rate, read) / on.spread
    return on.read_time * on.count / on.spread


def prefill(on: OnChips, *, tokens: int) -> tuple[float, float]:
    """(seconds to the first token, joules) of a prompt: its tokens follow each other through the pipeline."""
    one = token(on, keys=tokens / 2, queries=max(tokens, 1))
    rate, joules = batch_rate(on, keys=tokens / 2, batch=max(tokens, 1), queries=max(tokens, 1))
    return one.latency + (tokens - 1) / rate, joules * tokens
