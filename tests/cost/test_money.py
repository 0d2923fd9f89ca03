"""Money: closed forms, published anchors, and what is not known stays so."""

from __future__ import annotations

import math

import pytest

from insitu.base.errors import InsituError
from insitu.cost.book import UnknownError, load_book, valued
from insitu.cost.money import (
    break_even,
    chip_bill,
    die_yield,
    dies_per_wafer,
    electricity_hour,
    good_dies,
    hour,
    in_cases,
    per_result,
    sensitivity,
    wafer_price,
)


def test_dies_and_yield() -> None:
    across = 294.0
    assert dies_per_wafer(100.0) == pytest.approx(math.pi * across**2 / 400 - math.pi * across / math.sqrt(200))
    assert die_yield(0.0, 0.001) == 1.0
    assert die_yield(100.0, 0.001, clustering=1e9) == pytest.approx(math.exp(-0.1), rel=1e-6)
    assert die_yield(200.0, 0.001) < die_yield(100.0, 0.001)
    with pytest.raises(InsituError, match="at least one"):
        dies_per_wafer(80_000.0)


def test_published_anchors() -> None:
    book = load_book()
    old, new = wafer_price(book, 28e-9), wafer_price(book, 5e-9)
    assert new / old == pytest.approx(5.9, abs=0.05)
    dear = (old / book.at_node("density", 28e-9)) / (new / book.at_node("density", 5e-9))
    assert dear == pytest.approx(1.54, abs=0.005)
    assert electricity_hour(book, watts=700.0) == pytest.approx(0.13, abs=0.005)


def test_the_logic_of_an_h100() -> None:
    """814 mm2 sold with a twelfth of its parts off; about 300 USD in one bill of materials, 200 in another."""
    book = load_book(overrides=["wafer_300mm_5nm=13400", "repairable_share=0.8"])
    good, _ = good_dies(book, area_mm2=814.0, node=5e-9)
    assert 200 < wafer_price(book, 5e-9) / good < 320


def test_volume_spreads_what_is_paid_once() -> None:
    book = load_book()
    few, many = (chip_bill(book, area_mm2=20.0, node=40e-9, volume=v) for v in (1e4, 1e7))
    assert few.unit == many.unit
    assert few.each - many.each == pytest.approx(few.nre * (1e-4 - 1e-7))
    assert sum(few.parts().values()) == pytest.approx(few.each)
    fine = chip_bill(book, area_mm2=1.0, node=7e-9, volume=1e4)
    volume = break_even(fine, chip_bill(book, area_mm2=30.0, node=40e-9))
    assert volume is not None
    at = [chip_bill(book, area_mm2=a, node=n, volume=volume).each for a, n in ((1.0, 7e-9), (30.0, 40e-9))]
    assert at[0] == pytest.approx(at[1])
    assert break_even(few, few) == 0.0


def test_cases_are_ordered_and_dated() -> None:
    found = in_cases(lambda book: chip_bill(book, area_mm2=20.0, node=40e-9).each, load_book())
    assert None not in found.values()
    assert found["floor"] < found["typical"] < found["pessimistic"]  # type: ignore[operator]
    shown = valued("cost_usd", "USD", lambda b: chip_bill(b, area_mm2=20.0, node=40e-9).each, load_book())
    assert shown.value == pytest.approx(found["typical"])
    assert "USD, 2016 to 2025" in shown.note


def test_a_price_that_nobody_has_is_null_with_what_supplies_it() -> None:
    def bill(book):  # type: ignore[no-untyped-def]
        return chip_bill(book, area_mm2=20.0, node=40e-9, memory={"lpddr5x": 8.0}).each

    shown = valued("cost_usd", "USD", bill, load_book())
    assert shown.value is None
    assert "--set lpddr5x_usd_per_gb=NUMBER" in shown.note
    known = valued("cost_usd", "USD", bill, load_book(overrides=["lpddr5x_usd_per_gb=4"]))
    plain = chip_bill(load_book(), area_mm2=20.0, node=40e-9).each
    assert known.value == pytest.approx(plain + 32)
    with pytest.raises(UnknownError):
        bill(load_book())
    with pytest.raises(InsituError, match="wafer_300mm_28nm"):
        load_book(overrides=["wafer_300mm_28=1"])
    with pytest.raises(InsituError, match="a number"):
        load_book(overrides=["volume=many"])


def test_an_hour_and_a_result() -> None:
    book = load_book()
    spent = hour(book, price=28_000.0, watts=700.0)
    assert spent.capital == pytest.approx(28_000 * 1.5 / (4 * 8766))
    assert per_result(book, spent.total, per_second=1000.0) == pytest.approx(spent.total / 3600 / 1000 / 0.5)


def test_sensitivity_finds_what_weighs() -> None:
    rows = dict(sensitivity(lambda b: electricity_hour(b, watts=700.0), load_book()))
    assert rows["pue_average"] == pytest.approx(1.0)
    assert rows["electricity_generic"] == pytest.approx(1.0)
    area = sensitivity(lambda b: chip_bill(b, area_mm2=20.0, node=40e-9).each, load_book())
    assert area[0][0] in ("volume", "design_nre")


def test_between_nodes() -> None:
    book = load_book()
    assert wafer_price(book, 16e-9) < wafer_price(book, 12e-9) < wafer_price(book, 10e-9)
    assert wafer_price(book, 3e-9) == wafer_price(book, 5e-9), "outside the table its end holds"
