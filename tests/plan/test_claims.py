"""The ledger: anchors come out, verdicts follow the facts, and every figure is computed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from insitu.base.errors import InsituError
from insitu.cost.book import Book
from insitu.plan.claims import ANCHORS, COMPUTED, anchors, ledger, ledger_json
from insitu.plan.claims_page import page
from insitu.plan.facts import plan_book
from insitu.plan.ladder import GB, MB, TB, ladder, rung
from insitu.plan.ledger import Finding, claims, evaluate, turning


@pytest.fixture(scope="module")
def whole() -> tuple[Finding, ...]:
    return ledger(plan_book())


IDS = [claim.id for claim in claims()]
WANTED = {
    "a100_decode_pj_per_mac_7b": (46, 0.5), "a100_decode_pj_per_mac_70b": (18, 0.5),
    "h100_electricity_usd_per_hour": (0.13, 0.005), "mm2_5nm_over_28nm": (5.9, 0.05),
    "transistor_28nm_over_5nm": (1.54, 0.005), "ufs_8b_int4_tokens_per_s": (1.05, 0.005),
    "cent_tokens_per_usd": (5.19, 0.005),
}  # fmt: skip


def found(name: str, *sets: str) -> Finding:
    return evaluate(next(c for c in claims() if c.id == name), COMPUTED[name], plan_book(overrides=sets))


def test_anchors_come_out() -> None:
    assert set(ANCHORS) == set(WANTED)
    for metric in anchors(plan_book()):
        value, within = WANTED[metric.name]
        assert metric.value == pytest.approx(value, abs=within), metric.name


@pytest.mark.parametrize(
    ("name", "sets", "before", "after"),
    [
        ("efficiency", ["dcim_28nm_pj_per_mac=0.001", "cache_pj_per_bit=0.001"], "holds only if", "holds"),
        ("efficiency", ["dcim_28nm_pj_per_mac=1000"], "holds only if", "does not hold"),
        ("system-cost", ["dcim_28nm_mm2_per_mb=1e9", "cent_usd_per_hour=9"], "holds only if", "does not hold"),
        ("mature-area", ["wafer_300mm_28nm=1000"], "holds only if", "holds"),
        ("mature-transistor", ["mature_depreciation=0.6"], "does not hold", "holds"),
        ("weight-stationary", ["cache_bits=5000"], "holds only if", "does not hold"),
        ("compute-grows", ["nand_planes_per_tb=1e6", "nand_link_bytes_per_s=1e15", "nand_pj_per_mac=1e-6"],
         "holds only if", "holds"),
        ("electricity", ["electricity_generic=1.3"], "does not hold", "holds only if"),
        ("training-cost", ["train_usd_per_gpu_hour=1000"], "holds only if", "does not hold"),
        ("training-fleet", ["flop_gpt4=2e26"], "holds", "does not hold"),
        ("compute-demand", ["compute_doubling_epoch=6.45"], "does not hold", "holds only if"),
        ("video-8k", ["claimed_ops=1e16"], "holds only if", "holds"),
        ("edge", ["round_trip_s=1000"], "holds only if", "holds"),
        ("mature-heat", ["cell_celsius=105"], "holds only if", "does not hold"),
    ],
)  # fmt: skip
def test_verdicts_follow_the_facts(name: str, sets: list[str], before: str, after: str) -> None:
    assert found(name).verdict == before
    assert found(name, *sets).verdict == after


def test_every_claim_of_the_list_and_what_computes_it() -> None:
    assert set(IDS) == set(COMPUTED)
    assert len(IDS) == 13


@pytest.mark.parametrize("name", IDS)
def test_what_would_have_to_be_true_makes_it_true(name: str) -> None:
    """The value that a lever is told to take makes the first failing point hold, and a little less does not."""
    claim, book = next(c for c in claims() if c.id == name), plan_book()
    finding = evaluate(claim, COMPUTED[name], book)
    assert finding.rests_on
    failing = [i for i, p in enumerate(finding.points) if not claim.met(p.value)]
    assert bool(failing) == (finding.verdict != "holds")
    for lever in claim.levers if failing else ():
        at = turning(claim, COMPUTED[name], book, lever=lever, index=failing[0])
        if at is None:
            continue
        now = book.fact(lever).at("typical")
        assert now is not None
        short = at * (now / at) ** 0.01
        values = [COMPUTED[name](book.with_value(lever, v))[failing[0]].value for v in (at, short)]
        assert claim.met(values[0])
        assert not claim.met(values[1])


def test_json_is_the_contract(whole: tuple[Finding, ...]) -> None:
    data = json.loads(json.dumps(ledger_json(whole, anchors(plan_book()))))
    keys = {"id", "statement", "verdict", "value", "range", "assumptions", "sources", "would_hold_if"}
    for row in data["claims"]:
        assert keys <= set(row)
        assert row["verdict"] in ("holds", "holds only if", "does not hold")
        assert row["range"][0] <= row["value"] <= row["range"][1]
        assert row["assumptions"] or row["sources"]


def test_batch_1_and_the_best_batch_are_both_there() -> None:
    for name in ("efficiency", "system-cost"):
        labels = " ".join(p.label for p in found(name).points)
        assert "batch 1" in labels
        assert "best batch" in labels


def test_statements_hold_no_computed_figure(whole: tuple[Finding, ...]) -> None:
    """Texts quote the claim's own number (5 x, 12 M$, 24 TOPS ...) and nothing that the ledger computes."""
    text = (Path(__file__).parents[2] / "src/insitu/plan/claims.yaml").read_text()
    numbers = {float(n.replace(",", "")) for n in re.findall(r"(?<![\w.])\d[\d,]*\.?\d*", text)}
    values = {float(f"{p.value:.3g}") for f in whole for p in f.points}
    assert not {n for n in numbers & values if n not in (1.0, 10.0)}


def test_an_unknown_fact_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def needs(book: Book):  # type: ignore[no-untyped-def]
        book("lpddr5x_usd_per_gb")
        return ()

    finding = evaluate(claims()[0], needs, plan_book())
    assert finding.verdict == "not known"
    assert "--set lpddr5x_usd_per_gb=NUMBER" in finding.would_hold_if[0]
    with pytest.raises(InsituError, match="electricity_generic"):
        plan_book(overrides=["electricity_generics=1"])


def test_the_ladder() -> None:
    book = plan_book()
    rungs = ladder(book)
    assert rungs[0].size == 2 * MB
    assert rungs[-1].size == 256 * TB
    for step in rungs:
        assert 0 < step.sustained <= step.peak
        assert step.celsius <= 85.0001
        assert (step.stops == "nothing") == (step.sustained == step.peak)
        assert step.price is not None or "--set" in step.price_note
    assert rung(plan_book(overrides=["nand_usd_per_gb=0.07"]), "nand", TB).price == pytest.approx(70)
    hot = rung(plan_book(overrides=["nand_pj_per_mac=50"]), "nand", TB)
    assert hot.stops == "heat"
    assert hot.celsius == pytest.approx(85)
    thin = rung(plan_book(overrides=["products_per_result=64"]), "nand", TB)
    assert thin.stops == "bandwidth"
    assert rung(book, "nor", GB).peak > rung(book, "nand", GB).peak


def test_the_page_stands_alone(whole: tuple[Finding, ...]) -> None:
    book = plan_book()
    text = page(whole, anchors(book), book)
    assert len(text.encode()) < 500_000
    assert text.count("<section") == len(IDS) + 1
    assert 'type="range"' in text
    assert "http" not in re.sub(r"<td>[^<]*</td>", "", text)
