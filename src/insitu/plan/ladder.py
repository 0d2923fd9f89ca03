"""One parametric family of NOR and NAND chips from 2 MB to 256 TB: what compute gets from storage, what stops it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from insitu.cost.book import Book, UnknownError
from insitu.cost.money import chip_bill
from insitu.report.text import quantity

MB, GB, TB = 1e6, 1e9, 1e12
SIZES = (2 * MB, 16 * MB, 128 * MB, 1 * GB, 16 * GB, 128 * GB, 1 * TB, 16 * TB, 64 * TB, 256 * TB)
NOR_UP_TO = 1 * TB  # thousands of dies: price has stopped it long before


@dataclass(frozen=True)
class Rung:
    """One size.  `peak` and `sustained` in operations a second; `stops` says what keeps the one below the other."""

    kind: str
    size: float
    peak: float
    sustained: float
    watts: float
    celsius: float
    price: float | None
    price_note: str
    packages: float
    stops: str

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def ladder(book: Book) -> tuple[Rung, ...]:
    """The family, smallest first; NOR and NAND side by side where they meet."""
    nor = [rung(book, "nor", s) for s in SIZES if s <= NOR_UP_TO]
    return (*nor, *(rung(book, "nand", s) for s in SIZES if s >= 1 * GB))


def rung(book: Book, kind: str, size: float) -> Rung:
    """One chip or system of the family, all its arrays at work where heat and links let them."""
    work = sustained(book, kind, size)
    price, note = _price(book, kind, size, work.packages)
    celsius = book("ambient_c") + book("package_k_per_w") * work.watts / work.packages
    return Rung(
        kind, size, work.peak, work.rate, work.watts, celsius, price, note, work.packages, work.stops
    )  # fmt: skip


@dataclass(frozen=True)
class Sustained:
    """Operations a second at the peak and for good, what keeps them apart, the watts of all packages."""

    peak: float
    rate: float
    stops: str
    watts: float
    packages: float


def sustained(book: Book, kind: str, size: float) -> Sustained:
    """The rate that heat and links allow."""
    peak, energy, packages, idle = (_nor if kind == "nor" else _nand)(book, size)
    room = max(book("cell_limit_c") - book("ambient_c"), 0.0) / book("package_k_per_w")
    by_heat = max(room - idle, 0.0) * packages / energy * 2.0
    by_link = book("nand_link_bytes_per_s") * packages * book("products_per_result") * 2.0
    rate = min(peak, by_heat, by_link)
    stops = "nothing" if rate == peak else "heat" if by_heat <= by_link else "bandwidth"
    return Sustained(peak, rate, stops, rate / 2.0 * energy + idle * packages, packages)


def _nor(book: Book, size: float) -> tuple[float, float, float, float]:
    """(peak operations a second, joules a MAC, packages, idle watts each)."""
    packages = max(1.0, size / (book("nor_die_mb") * MB))
    return size * book("nor_ops_per_byte"), book("nor_pj_per_mac") * 1e-12, packages, 0.0


def _nand(book: Book, size: float) -> tuple[float, float, float, float]:
    """Planes read at once; each bitline adds the cells of `nand_rows` strings."""
    planes = max(1.0, size / TB * book("nand_planes_per_tb"))
    products = planes * book("nand_bitlines") * book("nand_rows") / book("nand_cells_per_weight")
    packages = max(1.0, size / (book("nand_package_tb") * TB))
    return (
        2.0 * products / book("nand_read_s"),
        book("nand_pj_per_mac") * 1e-12,
        packages,
        book("nand_watts_per_package"),
    )


def _price(book: Book, kind: str, size: float, packages: float) -> tuple[float | None, str]:
    """US dollars of the silicon; what no source prices is null, with the `--set` that supplies it."""
    try:
        if kind == "nand":
            return size / GB * book("nand_usd_per_gb"), "USD, price of the storage alone"
        bill = chip_bill(book, area_mm2=size / packages / MB * book("nor_mm2_per_mb"), node=book("nor_node_nm") * 1e-9)
        return packages * bill.unit + bill.nre / bill.volume, "USD, made, packaged, tested; design over its volume"
    except UnknownError as lack:
        return None, f"not known: supply {lack.try_[0]}"


def ladder_text(rungs: tuple[Rung, ...], weights: float | None) -> str:
    """A line a rung; with a network's weights (a byte each), its rate where the rung holds them."""
    head = f"{'':4} {'size':>9} {'peak':>12} {'sustained':>12} {'stops':>10} {'power':>9} {'cells':>6} {'price':>14}"
    lines = [head + ("   results a second" if weights is not None else "")]
    for r in rungs:
        price = "not known" if r.price is None else f"{r.price:,.4g} USD"
        line = (
            f"{r.kind:4} {quantity(r.size, 'B'):>9} {_ops(r.peak):>12} {_ops(r.sustained):>12} {r.stops:>10} "
            f"{quantity(r.watts, 'W'):>9} {r.celsius:4.0f} C {price:>14}"
        )
        if weights is not None:
            line += f"   {r.sustained / (2 * weights):,.3g}" if r.size >= weights else "   does not fit"
        lines.append(line)
    unknown = next((r.price_note for r in rungs if r.price is None), None)
    return "\n".join([*lines, *([f"Price {unknown}"] if unknown else [])])


def _ops(rate: float) -> str:
    return f"{rate / 1e12:,.3g} TOPS"
