"""The book of a plan: prices, the facts of facts.yaml, and what the chips and language models that ship give."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from insitu.arch.cost import area, peak_efficiency
from insitu.arch.load import load_chip
from insitu.base.schema import load_yaml
from insitu.cost.book import Book, Fact, facts_of, load_book
from insitu.cost.machines import load_machine, machine_names

CHIPS = ("dcim-28nm", "wtm2101", "parametric-reram-adc8")


def plan_book(*, overrides: Sequence[str] = ()) -> Book:
    """Every fact, with `overrides` ("name=number") in place of theirs."""
    return load_book(overrides=overrides, more=_more())


@cache
def _more() -> tuple[Fact, ...]:
    text = (files("insitu.plan") / "facts.yaml").read_text(encoding="utf-8")
    shipped = facts_of(load_yaml("facts.yaml", text=text).data).values()
    return (*shipped, *(f for c in CHIPS for f in _of_chip(c)), *(_of_machine(m) for m in machine_names()))


def _of_machine(name: str) -> Fact:
    """What a machine is sold for; most are not known."""
    price = load_machine(name).price
    return Fact(f"price_{name}", price.value, price.currency, price.date or "", price.what or "not found")


def _of_chip(name: str) -> tuple[Fact, ...]:
    """Energy of a MAC in its macros, area of a megabyte of weights, time of a vector: of the preset's file."""
    chip, stem = load_chip(name), name.replace("-", "_")
    capacity = chip.macros * chip.weight_rows * chip.weight_cols
    efficiency, square = peak_efficiency(chip).value, area(chip).value
    source = f"derived: chip preset {name}, modelled"
    facts = [
        Fact(f"{stem}_pj_per_mac", None if not efficiency else 2.0 / efficiency, "pJ", "2026", source),
        Fact(f"{stem}_mm2_per_mb", None if not square else square * 1e6 / capacity * 1e6, "mm2", "2026", source),
        Fact(f"{stem}_vector_s", chip.t_vector, "s", "2026", source),
        Fact(f"{stem}_node_nm", chip.technology.node * 1e9, "nm", "2026", source),
    ]
    return tuple(facts)
