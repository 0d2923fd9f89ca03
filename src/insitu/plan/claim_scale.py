"""Claims about processes, sizes, training, demand, video and the edge."""

from __future__ import annotations

import math
from collections.abc import Sequence

from insitu.circuit.cost import energy_scale
from insitu.cost.book import Book
from insitu.cost.machines import load_machine
from insitu.cost.money import wafer_price
from insitu.cost.roofline import spend
from insitu.llm.shapes import load_shape
from insitu.plan.claim_serving import works_of_shape
from insitu.plan.ladder import GB, MB, TB, sustained
from insitu.plan.ledger import Point

DAY = 86400.0
BOLTZMANN_EV = 8.617e-5
KELVIN = 273.15
OLD, NEW = 28e-9, 5e-9


def per_square(book: Book) -> float:
    """Price of a square millimetre at 5 nm over that at 28 nm."""
    return wafer_price(book, NEW) / wafer_price(book, OLD)


def mature_area(book: Book) -> Sequence[Point]:
    """Arrays whose cells shrink with the process, and those whose cells hold charge and do not."""
    return [
        Point("flash array, its cells as large at any node", per_square(book) * book("flash_shrink")),
        Point("SRAM array", per_square(book) * book("sram_um2_5nm") / book("sram_um2_28nm")),
        Point("a square millimetre", per_square(book)),
    ]


def dearer_transistor(book: Book) -> float:
    """Price of a logic transistor at 28 nm over that at 5 nm."""
    return book.at_node("density", NEW) / book.at_node("density", OLD) / per_square(book)


def mature_transistor(book: Book) -> Sequence[Point]:
    """Logic."""
    return [Point("logic, 28 against 5 nm", 1.0 / dearer_transistor(book))]


def compute_grows(book: Book) -> Sequence[Point]:
    """From one rung of the family to another, and from NOR to NAND."""
    steps = (
        ("NOR 2 MB to 64 MB", ("nor", 2 * MB), ("nor", 64 * MB)),
        ("NOR 64 MB to 1 GB", ("nor", 64 * MB), ("nor", 1 * GB)),
        ("NAND 1 TB to 256 TB", ("nand", 1 * TB), ("nand", 256 * TB)),
        ("NOR 64 MB to NAND 1 TB", ("nor", 64 * MB), ("nand", 1 * TB)),
    )
    found: list[Point] = []
    for label, small, large in steps:
        less, more = sustained(book, *small), sustained(book, *large)
        grown = more.rate / less.rate / (large[1] / small[1]) if less.rate else 0.0
        found.append(Point(f"{label} (stopped by {more.stops})", grown))
    return found


def run_dollars(book: Book, flop: str) -> float:
    """Dollars of a training run."""
    hours = book(flop) / (book("a100_flop_per_s") * book("train_mfu")) / 3600.0
    return hours * book("train_usd_per_gpu_hour")


def training_cost(book: Book) -> Sequence[Point]:
    """Three runs."""
    runs = (("GPT-3", "flop_gpt3"), ("PaLM", "flop_palm"), ("GPT-4 class", "flop_gpt4"))
    return [Point(name, run_dollars(book, flop) / 1e6) for name, flop in runs]


def training_fleet(book: Book) -> Sequence[Point]:
    """A100s that finish in the days a run lasts."""
    one = book("a100_flop_per_s") * book("train_mfu") * DAY
    return [
        Point("in the days of the leak", book("flop_gpt4") / (one * book("train_days"))),
        Point("in 150 days", book("flop_gpt4") / (one * book("train_days_patient"))),
    ]


def compute_demand(book: Book) -> Sequence[Point]:
    """Largest training runs, by two counts of their doubling, and chips."""
    months = 12.0 * book("claimed_years")
    rows = (
        ("all models 2012 to 2022 (Epoch)", "compute_doubling_epoch"),
        ("largest runs 2012 to 2018 (OpenAI)", "openai_months_per_doubling"),
        ("transistors of a chip", "chip_months_per_doubling"),
    )
    return [Point(label, 2.0 ** min(months / book(name), 300.0)) for label, name in rows]


def video_8k(book: Book) -> Sequence[Point]:
    """Super-resolution networks to 8K, from the lightest."""
    rate = book("claimed_ops") * book("array_use") / book("passes_12bit") / 2.0
    pixels = book("pixels_8k") * book("frames_per_s")
    return [Point(n.upper(), rate / (pixels * book(f"{n}_macs"))) for n in ("fsrcnn", "espcn", "edsr")]


def edge(book: Book) -> Sequence[Point]:
    """A word, a picture, an answer: cloud over device."""
    there = book("round_trip_s") + book("cloud_start_s")
    send = book("uplink_bytes_per_s")
    answer = book("answer_tokens")
    phone = ufs_tokens_per_s(book)
    quick = spend(works_of_shape(load_shape("llama-3-8b")[1], 0.0), load_machine("snapdragon-8-gen-3"), weight_bits=4)
    assert quick.latency is not None
    talk = there + book("prompt_bytes") / send + answer / book("cloud_tokens_per_s")
    rows = (
        ("keyword", "keyword_bytes", book("keyword_edge_s")),
        ("picture", "image_bytes", book("image_edge_s")),
    )
    found = [
        Point(f"{name}, {book(size) / 1e3:.0f} kB kept off the network", (there + book(size) / send) / own)
        for name, size, own in rows
    ]
    return [
        *found,
        Point("answer of an 8B model in a phone's DRAM, 2 kB kept off", talk / (answer * quick.latency)),
        Point("answer of an 8B model streamed from UFS 4.0", talk / (answer / phone)),
    ]


def mature_heat(book: Book) -> Sequence[Point]:
    """Energy of the same logic at 28 over 7 nm, the same a square millimetre, and how long flash keeps its charge."""
    at = {"from_node": 7e-9, "from_supply": book("logic_supply_7nm")}
    watts = energy_scale(28e-9, book("logic_supply_28nm"), **at)
    larger = book.at_node("density", 7e-9) / book.at_node("density", 28e-9)
    years = retention_years(book, book("cell_celsius"))
    return [
        Point("watts a square millimetre", watts / larger),
        Point("watts", watts),
        Point(f"ten years over the {years:.3g} that flash keeps its charge", 10.0 / years),
    ]


def retention_years(book: Book, celsius: float) -> float:
    """Years that flash cells keep their charge: Arrhenius from the qualification at 85 C."""
    exponent = book("retention_ev") / BOLTZMANN_EV * (1.0 / (celsius + KELVIN) - 1.0 / (85.0 + KELVIN))
    return book("retention_years_at_85c") * math.exp(exponent)


def ufs_tokens_per_s(book: Book) -> float:
    """Rate of an 8B model of 4-bit weights that are read from UFS 4.0 for every token."""
    return book("ufs_4_0_bytes_per_s") / (load_shape("llama-3-8b")[1].parameters * 0.5)
