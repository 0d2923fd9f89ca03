"""From the wafer to the bill: dies, yield, package, test, masks by volume, servers, power and what a result costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from insitu.base.errors import RangeError
from insitu.base.metrics import Metric
from insitu.cost.book import CASES, Book, Case, UnknownError, valued

MM = 1e-3
WAFER_MM = 300.0
KILO = 1e3


def dies_per_wafer(area_mm2: float, *, edge_mm: float = 3.0) -> float:
    """Whole square dies of a 300 mm wafer: pi r^2 / A - pi d / sqrt(2 A); RangeError below one."""
    if area_mm2 <= 0:
        raise RangeError("die", f"{area_mm2:g} mm2", "an area above 0")
    across = WAFER_MM - 2.0 * edge_mm
    found = math.pi * across**2 / (4.0 * area_mm2) - math.pi * across / math.sqrt(2.0 * area_mm2)
    if found < 1.0:
        raise RangeError("die", f"{area_mm2:g} mm2", "an area of which a 300 mm wafer holds at least one")
    return found


def die_yield(area_mm2: float, defects_per_mm2: float, *, clustering: float = 3.0) -> float:
    """Share of good dies: negative binomial, (1 + A D / alpha)^-alpha."""
    return (1.0 + area_mm2 * defects_per_mm2 / clustering) ** -clustering


@dataclass(frozen=True)
class ChipBill:
    """US dollars of one chip, and what is paid once."""

    die: float
    package: float
    test: float
    memory: float
    nre: float
    volume: float
    good_dies: float
    yield_: float

    @property
    def unit(self) -> float:
        """Each further chip."""
        return self.die + self.package + self.test + self.memory

    @property
    def each(self) -> float:
        """Each chip with its share of what is paid once."""
        return self.unit + self.nre / self.volume

    def parts(self) -> dict[str, float]:
        """What `each` is made of."""
        return {
            "die": self.die, "package": self.package, "test": self.test, "memory": self.memory,
            "nre": self.nre / self.volume,
        }  # fmt: skip


def chip_bill(
    book: Book, *, area_mm2: float, node: float, memory: Mapping[str, float] | None = None, volume: float | None = None
) -> ChipBill:
    """What a chip costs to make.  `memory`: kind -> gigabytes beside it (`hbm3`, `lpddr5x`, `nand` ...)."""
    good, share = good_dies(book, area_mm2=area_mm2, node=node)
    die = wafer_price(book, node) / good
    packaged = book("package_2d_share")
    package = die * packaged / (1.0 - packaged)
    beside = sum(book(f"{kind}_usd_per_gb") * size for kind, size in (memory or {}).items())
    return ChipBill(
        die=die,
        package=package,
        test=(die + package) * book("test_share"),
        memory=beside,
        nre=design_cost(book, node),
        volume=book("volume") if volume is None else volume,
        good_dies=good,
        yield_=share,
    )


def chip_cost(book: Book, *, area_mm2: float | None, node: float, chips: int = 1) -> Metric:
    """Dollars to make the chips of a run, masks and design spread over `volume`; null where it cannot be said."""
    if area_mm2 is None or area_mm2 <= 0:
        return Metric("cost_usd", None, "USD", "assumed", "not known: the die's area is not known")
    try:
        dies_per_wafer(area_mm2)
    except RangeError as fault:
        return Metric("cost_usd", None, "USD", "assumed", f"not known: {fault}")
    return valued("cost_usd", "USD", lambda b: chips * chip_bill(b, area_mm2=area_mm2, node=node).each, book)


def wafer_price(book: Book, node: float) -> float:
    """Dollars of a processed 300 mm wafer."""
    return book.at_node("wafer_300mm", node) * (book("mature_depreciation") if node >= 28e-9 else 1.0)


def good_dies(book: Book, *, area_mm2: float, node: float) -> tuple[float, float]:
    """(good dies of a wafer, yield)."""
    weak = area_mm2 * (1.0 - book("repairable_share"))
    share = die_yield(weak, book.at_node("defect_density", node), clustering=book("yield_clustering"))
    return dies_per_wafer(area_mm2, edge_mm=book("wafer_edge_mm")) * share, share


def design_cost(book: Book, node: float) -> float:
    """What is paid once: a mask set and the design."""
    return book.at_node("mask_set", node) * book("inflation_2016") + book("design_nre")


def break_even(dear_once: ChipBill, dear_each: ChipBill) -> float | None:
    """Volume from which the first is cheaper: more paid once, less each.  0: always; None: never."""
    once, each = dear_once.nre - dear_each.nre, dear_each.unit - dear_once.unit
    if once <= 0:
        return 0.0 if each >= 0 else None
    return once / each if each > 0 else None


@dataclass(frozen=True)
class Hour:
    """US dollars of an hour of a machine: what was paid for it, and its electricity with cooling."""

    capital: float
    electricity: float

    @property
    def total(self) -> float:
        return self.capital + self.electricity


def electricity_hour(
    book: Book, *, watts: float, pue: str = "pue_average", tariff: str = "electricity_generic"
) -> float:
    """Dollars of an hour at `watts`, cooling and losses of the building in it (PUE)."""
    return watts / KILO * book(pue) * book(tariff)


def hour(
    book: Book, *, price: float, watts: float, years: float | None = None, pue: str = "pue_average",
    tariff: str = "electricity_generic", around: str = "server_share",
) -> Hour:  # fmt: skip
    """An hour of a machine bought at `price`, `around` times that with what it stands in."""
    life = book("server_amortisation") if years is None else years
    capital = price * book(around) / (life * book("hours_per_year"))
    return Hour(capital, electricity_hour(book, watts=watts, pue=pue, tariff=tariff))


def per_result(book: Book, an_hour: float, *, per_second: float) -> float:
    """Dollars of one result where a machine gives `per_second` while it works, and works for a share of the time."""
    return an_hour / (3600.0 * per_second * book("utilization"))


def own_years(book: Book, *, price: float, watts: float, years: float) -> float:
    """Dollars of owning: the price, and the electricity of a machine that is on all the time."""
    return price + electricity_hour(book, watts=watts) * book("hours_per_year") * years


def in_cases(compute: Callable[[Book], float], book: Book) -> dict[Case, float | None]:
    """Floor, typical and pessimistic; None where a fact is not known."""
    found: dict[Case, float | None] = {}
    for case in CASES:
        try:
            found[case] = compute(book.for_case(case))
        except UnknownError:
            found[case] = None
    return found


def sensitivity(compute: Callable[[Book], float], book: Book, *, names: Iterable[str] = ()) -> list[tuple[str, float]]:
    """(fact, percent that the result moves when the fact grows by 1 percent), the largest first."""
    reading = book.for_case(book.case)
    base = compute(reading)
    found: list[tuple[str, float]] = []
    for name in list(names) or list(reading.used):
        value = reading.fact(name).at(book.case)
        if not value or not base:
            continue
        moved = compute(reading.with_value(name, value * 1.01))
        found.append((name, 100.0 * (moved / base - 1.0)))
    return sorted(found, key=lambda row: -abs(row[1]))
