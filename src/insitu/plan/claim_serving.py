"""Claims about serving language models: energy, money, what stays in place, electricity."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from insitu.cost.book import Book
from insitu.cost.machines import System, load_machine
from insitu.cost.money import chip_bill, hour, per_result
from insitu.cost.roofline import Work, spend
from insitu.llm.shapes import Shape, load_shape
from insitu.plan.ledger import Point

PJ = 1e-12


def works_of_shape(shape: Shape, context: float) -> list[Work]:
    """One token of a language model with `context` tokens before it, as work for any machine."""
    layers, head = shape.layers, float(shape.head_weights)
    body = (shape.product_weights - shape.head_weights) / layers
    passed = 7.0 * shape.width
    block = Work("block", body, body, passed, passed, context * shape.cached_elements / layers, layers)
    return [block, Work("head", head, head, shape.width, shape.vocab)] if head else [block]


def context(book: Book) -> float:
    """Tokens that a decoding step looks back on, in the mean of an answer."""
    return book("serving_tokens_in") + book("serving_tokens_out") / 2.0


def cache_bytes(book: Book, shape: Shape) -> float:
    """Bytes of keys and values that one decoding step reads."""
    return context(book) * shape.cached_elements * book("cache_bits") / 8.0


def pj_per_mac(book: Book, size: str) -> float:
    """Picojoules of a MAC of decoding on A100s, largest batch, as measured (`size`: 7b or 70b)."""
    return book(f"a100_{size}_j_per_token") / load_shape(f"llama-2-{size}")[1].macs_per_token / PJ


def alone(book: Book, shape: Shape, machine: str, count: int = 1) -> tuple[float, float]:
    """(seconds, joules) of a token at batch 1, modelled: no measured row has the watts."""
    spent = spend(works_of_shape(shape, context(book)), System(load_machine(machine), count), precision="fp16")
    assert spent.latency is not None
    assert spent.energy is not None
    return spent.latency, spent.energy


def efficiency(book: Book) -> Sequence[Point]:
    """GPUs over compute-in-memory, joules a token: the whole chip with its caches, and the macros alone."""
    found: list[Point] = []
    for size, count in (("70b", 4), ("7b", 1)):
        shape = load_shape(f"llama-2-{size}")[1]
        _, single = alone(book, shape, "a100", count)
        for batch, joules in (("best batch", book(f"a100_{size}_j_per_token")), ("batch 1", single)):
            macros = shape.macs_per_token * book("dcim_28nm_pj_per_mac") * PJ
            kept = 8.0 * cache_bytes(book, shape) * book("cache_pj_per_bit") * PJ
            whole = macros * book("cim_system_factor") + kept
            found.append(Point(f"{size.upper()}, A100 at {batch}, whole chip with caches", joules / whole))
            found.append(Point(f"{size.upper()}, A100 at {batch}, macros alone", joules / macros))
    return found


def system_cost(book: Book) -> Sequence[Point]:
    """Dollars a token: GPUs owned or rented, best batch and batch 1, over arrays that hold all weights."""
    shape = load_shape("llama-2-70b")[1]
    seconds, _ = alone(book, shape, "h100", 2)
    best = book("h100_70b_tokens_per_s")
    owned = 2.0 * hour(book, price=book("h100_usd"), watts=book("h100_watts")).total
    rented = 2.0 * book("cloud_h100_sxm")
    full, single = cim_dollars(book, shape)
    return [
        Point("70B, two H100 owned, best batch; arrays full", per_result(book, owned, per_second=best) / full),
        Point("70B, two H100 rented, best batch; arrays full", rented / (3600.0 * best) / full),
        Point(
            "70B, two H100 owned, batch 1; arrays at batch 1", per_result(book, owned, per_second=1 / seconds) / single
        ),
        Point("CENT's own inputs, 7B to 70B", cent(book)),
    ]


def cim_dollars(book: Book, shape: Shape) -> tuple[float, float]:
    """(dollars of a token with every array busy, at batch 1) of digital arrays at 28 nm that hold 8-bit weights.

    Tokens follow each other through the layers; keys and values lie in HBM, whose bandwidth bounds the rate.
    """
    square = shape.stored_weights / 1e6 * book("dcim_28nm_mm2_per_mb")
    chips = square / book("cim_die_mm2")
    each = chip_bill(book, area_mm2=book("cim_die_mm2"), node=book("dcim_28nm_node_nm") * 1e-9)
    made = chips * each.unit + each.nre / each.volume * chips + book("cache_gb") * book("hbm3_usd_per_gb")
    price = made / (1.0 - book("cim_margin"))
    read = cache_bytes(book, shape) / book("cache_bytes_per_s")
    stage = book("dcim_28nm_vector_s")
    joules = shape.macs_per_token * book("dcim_28nm_pj_per_mac") * PJ * book("cim_system_factor")
    joules += 8.0 * cache_bytes(book, shape) * book("cache_pj_per_bit") * PJ
    full, single = 1.0 / max(read, stage), 1.0 / (read + 4.0 * shape.layers * stage)
    return (
        per_result(book, hour(book, price=price, watts=joules * full).total, per_second=full),
        per_result(book, hour(book, price=price, watts=joules * single).total, per_second=single),
    )


def cent(book: Book) -> float:
    """CENT's tokens a dollar over A100s', geometric mean of three models, from its own rates and prices."""
    into, out = book("serving_tokens_in"), book("serving_tokens_out")
    ratios: list[float] = []
    for size, gpus in (("7b", 1), ("13b", 2), ("70b", 4)):
        spent = into / book(f"a100_{size}_prefill_tokens_per_s") + out / book(f"a100_{size}_tokens_per_s")
        rate = (into + out) / spent
        per_gpu = book("cent_gpu_tco") * gpus / 4.0
        per_cent = book("cent_usd_per_hour") * book(f"cent_{size}_devices") / 32.0
        ratios.append(book(f"cent_{size}_tokens_per_s") / rate * per_gpu / per_cent)
    return prod(ratios) ** (1.0 / len(ratios))


def weight_stationary(book: Book) -> Sequence[Point]:
    """Share of weights in the bytes of a step: batch 1, and the batch that fits one to four 80 GB GPUs beside them."""
    found: list[Point] = []
    room = float(load_machine("a100").memory.size or 0)
    for name, gpus in (("llama-2-7b", 1), ("llama-3-8b", 1), ("llama-2-70b", 4), ("llama-3-70b", 4)):
        shape = load_shape(name)[1]
        weights, kept = 2.0 * shape.product_weights, cache_bytes(book, shape)
        fits = max(1.0, (gpus * room - 2.0 * shape.parameters) // kept)
        for batch in (1.0, fits):
            found.append(Point(f"{name}, batch {batch:.0f}", weights / (weights + batch * kept)))
    return found


def electricity(book: Book) -> Sequence[Point]:
    """What electricity is of an hour, owned and rented, in a data center and at home."""
    owned = hour(book, price=book("h100_usd"), watts=book("h100_watts"))
    home = hour(
        book,
        price=book("h100_usd"),
        watts=book("h100_watts"),
        pue="pue_hyperscale",
        tariff="electricity_us_residential",
    )
    return [
        Point("H100 owned, average data center", owned.electricity / owned.total),
        Point("H100 rented", owned.electricity / book("cloud_h100_sxm")),
        Point("H100 owned, household tariff", home.electricity / home.total),
    ]
