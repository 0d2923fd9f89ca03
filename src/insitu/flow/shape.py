"""`insitu run shape:NAME`: a language model of any size without weights, on chips or on a conventional machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from insitu.arch.spec import Chip
from insitu.base.errors import InfeasibleError, UsageError
from insitu.base.metrics import Metric
from insitu.llm.beside import Beside, points, prefill_seconds
from insitu.llm.on_chips import ALONE, OnChips, batch_rate, prefill, token
from insitu.llm.serve import Engine, paged, parse_trace, serve, speculative
from insitu.llm.shapes import Shape, load_shape
from insitu.llm.systems import ChipSystem
from insitu.llm.systems import to_json as system_json
from insitu.report.result import Coverage, ModelFacts, Result

CONTEXTS = (128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
BESIDE = ("nvidia-h100-80g-sxm",)


@dataclass(frozen=True)
class ShapeOptions:
    """What is asked of a shape."""

    context: int = 2048  # tokens before the one that is timed
    prompt: int = 512
    batch: int = 1
    weight_bits: float = 8
    cache_bits: float = 8
    max_chips: int = 0
    beside: tuple[str, ...] = BESIDE
    requests: str = ""  # COUNT@RATE
    answer: int = 128  # tokens of an answer, on average
    hybrid: str = ""  # the machine that does the prompts
    draft: str = ""  # the shape of a small model that writes ahead
    ahead: int = 4
    accepted: float = 0.7  # assumed
    seed: int = 0
    page: int = 16  # tokens of a cache's page (the default block of vLLM)
    tensor: int = 0  # chips that share a layer; 0: as few as hold one
    system: ChipSystem | None = None


@dataclass(frozen=True)
class ShapeRun:
    """A result, curves over context and batch, where time and energy of a token go, and a machine beside."""

    result: Result
    curves: dict[str, list[dict[str, float]]] = field(default_factory=dict[str, list[dict[str, float]]])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    joules: dict[str, float] = field(default_factory=dict[str, float])
    beside: Sequence[Beside] = ()
    served: dict[str, Any] | None = None
    pair: dict[str, float] | None = None
    splits: Sequence[dict[str, float]] = ()  # the same chips with more or fewer of them on a layer
    system: ChipSystem | None = None
    attention: dict[str, Any] = field(default_factory=dict[str, Any])  # decode and prompt: where products go, and why

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`: the form of every run, and these beside."""
        more = {"attention": self.attention, "curves": self.curves,
                "seconds_per_token": self.seconds, "joules_per_token": self.joules,
                "beside": [asdict(b) for b in self.beside],
                "serving": self.served, "speculative": self.pair, "splits": list(self.splits),
                "system": None if self.system is None else system_json(self.system)}  # fmt: skip
        return {**self.result.to_json(), **more}


def run_shape(name: str, shape: Shape, chip: Chip, options: ShapeOptions) -> ShapeRun:
    """Everything in closed form; a shape that does not fit comes back as such."""
    facts = ModelFacts(name, shape.parameters, shape.macs_per_token)
    keys = min(options.context, shape.context)
    held = shape.cached_elements * options.cache_bits / 8 * paged(keys, options.page) * options.batch
    system = options.system
    limit, layout = (options.max_chips or system.chips, system.layout) if system else (options.max_chips, ALONE)
    on = OnChips(shape, chip, options.weight_bits, options.cache_bits, limit, held, tensor=options.tensor,
                 cards=layout)  # fmt: skip
    try:
        metrics, one = _metrics(on, options)
    except InfeasibleError as error:
        whole = Result(facts, _title(chip, system), 0, "random", fits=False, infeasible=tuple(error.items))
        return ShapeRun(whole, system=system)
    curves = {"context": _over_context(on, options), "batch": _over_batch(on, keys)}
    share = Coverage(1.0)  # every weight product lies in arrays or banks
    result = Result(facts, _title(chip, system), 0, "random", coverage=share, metrics=metrics)
    bits, cached = _gpu_bits(options.weight_bits), 16 if options.weight_bits > 8 else 8
    other = [
        p for m in options.beside for p in points(shape, m, keys=keys, prompt=options.prompt, weight_bits=bits,
                                                  cache_bits=cached)
    ]  # fmt: skip
    served = _served(on, options) if options.requests else None
    pair = _pair(on, chip, options, keys) if options.draft else None
    return ShapeRun(result, curves, dict(one.seconds), dict(one.joules), tuple(other), served, pair,
                    _splits(on, keys), system, _attention(on, keys, options))  # fmt: skip


def _attention(on: OnChips, keys: int, options: ShapeOptions) -> dict[str, Any]:
    """Both figures of each product of attention, for a token that follows and for one of a prompt."""
    prompt = min(options.prompt, on.shape.context)
    ways = {"decode": on.attention(keys=keys), "prefill": on.attention(keys=prompt, queries=prompt)}
    found = {name: {n: c.to_json() for n, c in choices.items()} for name, choices in ways.items()}
    return {"free_macros": on.free_macros, **found}


def _title(chip: Chip, system: ChipSystem | None) -> str:
    return chip.name if system is None else f"{chip.name} ({system.name})"


def _splits(on: OnChips, keys: int) -> list[dict[str, float]]:
    """The same chips with 1, 2, 4 ... of them on each layer: one sequence faster, all of them slower or not."""
    if on.count == 1:
        return []
    rows: list[dict[str, float]] = []
    for degree in (1 << i for i in range(on.count.bit_length())):
        if degree < on.count / on.shape.layers:
            continue  # fewer stages than chips: each layer has several
        split = replace(on, tensor=degree, limit=on.count)
        one, (rate, _) = token(split, keys=keys), batch_rate(split, keys=keys, batch=BATCHES[-1])
        rows.append({"chips_per_layer": degree, "tokens_per_s_per_sequence": 1 / one.latency, "most_tokens_per_s": rate,
                     "links_share": one.seconds["links"] / one.latency})  # fmt: skip
    return rows


def _served(on: OnChips, options: ShapeOptions) -> dict[str, Any]:
    """Requests on the chips; with `hybrid` a conventional machine does the prompts and hands their caches over."""
    trace = parse_trace(options.requests, prompt=options.prompt, answer=options.answer, seed=options.seed)
    first: Callable[[int], float] = lambda tokens: prefill(on, tokens=tokens)[0]  # noqa: E731
    hand_over: Callable[[int], float] = lambda tokens: 0.0  # noqa: E731
    if options.hybrid:
        found = points(on.shape, options.hybrid, keys=options.context, prompt=1)
        if not found:
            got = "too little memory for the shape"
            raise UsageError(f"--prompts-on {options.hybrid}", got, "a machine that holds it on 64 devices")
        first = lambda tokens: prefill_seconds(on.shape, options.hybrid, tokens, found[0].devices)  # noqa: E731
        link = on.chip.system.links.bandwidth * on.count
        hand_over = lambda tokens: on.token_bytes * tokens / link  # noqa: E731
    engine = Engine(
        first, lambda batch, keys: batch / batch_rate(on, keys=keys, batch=batch)[0], on.cache_room, on.token_bytes,
        options.page, apart=bool(options.hybrid), hand_over=hand_over,
    )  # fmt: skip
    return {
        "requests": len(trace),
        "page_tokens": options.page,
        "prompts_on": options.hybrid or on.chip.name,
        **serve(engine, trace).to_json(),
    }


def _pair(on: OnChips, chip: Chip, options: ShapeOptions, keys: int) -> dict[str, float]:
    """A small model on as many chips as it needs writes ahead; the large one checks all of it in one pass."""
    small = OnChips(load_shape(options.draft)[1], chip, options.weight_bits, options.cache_bits)
    drafted = token(small, keys=keys).latency
    checked = token(on, keys=keys).latency + options.ahead / batch_rate(on, keys=keys, batch=options.ahead + 1)[0]
    rate = speculative(drafted, checked, ahead=options.ahead, accepted=options.accepted)
    alone = 1 / token(on, keys=keys).latency
    return {"tokens_per_s": rate, "alone_tokens_per_s": alone, "speedup": rate / alone, "ahead": float(options.ahead),
            "accepted": options.accepted, "draft_chips": float(small.count)}  # fmt: skip


def _gpu_bits(bits: float) -> float:
    """GPUs multiply 8 or 16 bits; narrower weights are unpacked."""
    return 16 if bits > 8 else bits


def _metrics(on: OnChips, options: ShapeOptions) -> tuple[dict[str, Metric], Any]:
    shape, keys = on.shape, min(options.context, on.shape.context)
    one = token(on, keys=keys)
    first, _ = prefill(on, tokens=min(options.prompt, shape.context))
    rate, joules = batch_rate(on, keys=keys, batch=options.batch)
    note = f"closed form, batch {options.batch}, {keys} tokens before; heads spread over all cores of a chip"
    held = on.token_bytes * paged(keys, options.page) * options.batch
    rows = [
        ("tokens_per_s", rate, "1/s", note), ("tokens_per_s_per_sequence", 1 / one.latency, "1/s", note),
        ("energy_per_token_j", joules, "J", note), ("ttft_s", first, "s", f"a prompt of {options.prompt} tokens"),
        ("chips", float(on.count), "1", f"{on.needed} would hold all weights"),
        ("cards", float(on.cards.of(on.count)), "1", "that these chips fill"),
        ("chips_per_layer", on.spread, "1", "that share one layer"),
        ("weight_bytes", on.resident_bytes, "B", f"{options.weight_bits:g} bits a weight"),
        ("kv_cache_bytes", held, "B",
         f"{options.cache_bits:g} bits an element, batch {options.batch}, pages of {options.page} tokens"),
        ("kv_cache_bytes_per_token", on.token_bytes, "B", f"{options.cache_bits:g} bits an element"),
        ("kv_cache_room_bytes", on.cache_room, "B", "what all chips' memories hold"),
        ("memory_bytes", on.resident_bytes + held, "B", "weights and caches"),
        ("streamed_bytes_per_token", one.counts["streamed_bytes"], "B", "weights that are loaded for every token"),
        ("stream_bandwidth", on.chip.store_bandwidth * on.count, "B/s", "of the weight stores of all chips"),
        ("macs_per_token", one.counts["array_macs"] + one.counts["mma_macs"] + one.counts["stored_macs"], "1",
         "weights and attention"),
    ]  # fmt: skip
    return {n: Metric(n, v, unit, "modelled", text) for n, v, unit, text in rows}, one


def _over_context(on: OnChips, options: ShapeOptions) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for keys in (c for c in CONTEXTS if c <= on.shape.context):
        one, (first, _) = token(on, keys=keys), prefill(on, tokens=keys)
        rows.append({
            "context": keys, "tokens_per_s": 1 / one.latency, "energy_per_token_j": one.energy, "ttft_s": first,
            "kv_cache_bytes": on.token_bytes * keys * options.batch,
        })  # fmt: skip
    return rows


def _over_batch(on: OnChips, keys: int) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for batch in BATCHES:
        rate, joules = batch_rate(on, keys=keys, batch=batch)
        fits = float(on.token_bytes * keys * batch <= on.cache_room)
        rows.append({"batch": batch, "tokens_per_s": rate, "energy_per_token_j": joules, "cache_fits": fits})
    return rows


def shares(parts: dict[str, float], *, least: float = 0.01) -> list[tuple[str, float]]:
    """Parts with their share of the sum, largest first."""
    whole = sum(parts.values()) or 1.0
    return [(n, v / whole) for n, v in sorted(parts.items(), key=lambda p: -p[1]) if v / whole >= least]
