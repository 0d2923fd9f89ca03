"""The money of a plan: price in three cases, what it is made of, what moves it, when a chip of one's own pays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from insitu.arch.cost import area
from insitu.arch.load import load_chip, presets
from insitu.base.errors import InsituError
from insitu.cost.book import Book, dates
from insitu.cost.money import ChipBill, break_even, chip_bill, electricity_hour, in_cases, sensitivity
from insitu.plan.candidates import Candidate
from insitu.plan.requirements import Requirements

SHOWN = 5


def bill_of(system: str, wanted: Requirements, book: Book) -> ChipBill | None:
    """What one chip of a candidate costs to make; None for machines, and where the chip's area is not modelled."""
    name = system.partition("x")[2] if system.partition("x")[0].isdigit() else system
    if name not in presets():
        return None
    chip = load_chip(name)
    square = area(chip).value
    if square is None or chip.capabilities.gemv:
        return None
    return chip_bill(book, area_mm2=square * 1e6, node=chip.technology.node, volume=wanted.volume)


def money(
    chosen: Candidate | None, found: Sequence[Candidate], wanted: Requirements, book: Book
) -> dict[str, Any] | None:
    """Price of a candidate in three cases, its parts, what weighs, owning it for years, and break-even volumes."""
    if chosen is None:
        return None
    reading = book.for_case(book.case)
    try:
        bill = bill_of(chosen.system, wanted, reading)
    except InsituError:
        bill = None
    count, price = chosen.value("chips") or 1.0, chosen.value("price_usd")
    shown: dict[str, Any] = {"system": chosen.system, "currency": "USD", "price_usd": price, "owning": None}
    if bill is not None:

        def each(b: Book) -> float:
            made = bill_of(chosen.system, wanted, b)
            assert made is not None
            return made.each * count

        shown |= {
            "dates": dates(reading),
            "cases": in_cases(each, book),
            "parts": {name: value * count for name, value in bill.parts().items()},
            "yield": bill.yield_,
            "percent_for_one_percent": dict(sensitivity(each, book)[:SHOWN]),
            "break_even": _break_even(chosen, bill, found, count),
        }
    watts = chosen.value("power_w")
    if price is not None and watts is not None:
        years = book("device_years")
        current = electricity_hour(book, watts=watts) * book("hours_per_year") * years
        shown["owning"] = {"years": years, "price_usd": price, "electricity_usd": current, "total_usd": price + current}
    return shown


def _break_even(chosen: Candidate, bill: ChipBill, found: Sequence[Candidate], count: float) -> list[dict[str, Any]]:
    """From how many pieces on the chip is cheaper than each machine that meets all and has a price, cheapest first."""
    rivals = sorted(
        (p, c.system) for c in found if c.feasible and c.machine and (p := c.value("price_usd")) is not None
    )
    rows: list[dict[str, Any]] = []
    for price, name in rivals[:SHOWN]:
        bought = ChipBill(price / count, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
        rows.append({"against": name, "price_usd": price, "volume": break_even(bill, bought)})
    return rows


def money_text(shown: dict[str, Any] | None) -> list[str]:
    """Two or three lines."""
    if shown is None or shown["price_usd"] is None:
        return []
    lines = [f"Money of {shown['system']}: {shown['price_usd']:,.4g} USD"]
    if "cases" in shown:
        ends = [shown["cases"][k] for k in ("floor", "pessimistic")]
        words = " to ".join("not known" if v is None else f"{v:,.4g}" for v in ends)
        weighs = ", ".join(f"{n} {v:+.2f} %" for n, v in list(shown["percent_for_one_percent"].items())[:3])
        lines[0] += f" to make ({words} from floor to pessimistic; {shown['dates']}); a percent more of: {weighs}"
        for row in shown["break_even"][:1]:
            volume = "at no volume" if row["volume"] is None else f"from {row['volume']:,.0f} pieces on"
            lines.append(f"Cheaper than {row['against']} ({row['price_usd']:,.4g} USD) {volume}")
    if shown["owning"] is not None:
        own = shown["owning"]
        lines.append(
            f"Owning it {own['years']:g} years: {own['total_usd']:,.4g} USD, electricity {own['electricity_usd']:,.3g}"
        )
    return lines
