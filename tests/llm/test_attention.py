"""Attention in arrays: written where it pays, the same integers, counted as the closed form says, never on weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from insitu.arch.cost import event_energy
from insitu.arch.load import load_chip
from insitu.arch.stored import Product, able, dealt, events, in_arrays, on_vector_unit, pays
from insitu.compiler.pipeline import compile_graph
from insitu.flow.check import compare
from insitu.frontend.huggingface import read_language_model
from insitu.isa.check import check_program
from insitu.llm.build import prepare
from insitu.llm.on_chips import OnChips, prefill, token
from insitu.llm.shapes import shapes
from insitu.runtime.session import Session
from insitu.sim.counts import count
from insitu.sim.timing import simulate_time
from tests.llm.folders import WORDS, write_folder

CHIP = load_chip("dcim-28nm")


def test_a_prompt_goes_through_arrays(tmp_path: Path) -> None:
    """Of the same text on a chip that loads no weights all products are on the lanes: integers equal, time longer."""
    model = read_language_model(write_folder(tmp_path / "m", "llama"))
    ids = np.random.default_rng(1).integers(0, WORDS, (2, 32))
    text = prepare(model, CHIP, ids).text(32)
    program = compile_graph(text, CHIP)
    check_program(program)
    rows = program.meta["products"]
    assert [r["node"] for r in rows if r["where"] == "arrays"]
    for row in rows:
        assert row["uses"] == 64  # two heads to a key, 32 tokens
        pair = row["vector_unit"], row["arrays"]
        better = pair[1]["seconds"] * pair[1]["joules"] < pair[0]["seconds"] * pair[0]["joules"]
        assert (row["where"] == "arrays") == better
    result = compare(Session(program, graph=text), {"ids": ids[:, None]})
    assert (result.mismatches, result.first) == (0, None)
    total, macs = count(program, CHIP).total, sum(r["macs"] for r in rows if r["where"] == "arrays")
    assert total["stored_macs"] == macs
    assert total["mma_macs"] == sum(r["macs"] for r in rows) - macs
    still = load_chip("dcim-28nm", overrides=("capabilities.wload=false",))
    plain = compile_graph(text, still)
    assert "products" not in plain.meta
    assert count(plain, still).total["stored_macs"] == 0
    assert simulate_time(program, CHIP).latency < simulate_time(plain, still).latency


def test_the_closed_form_is_what_is_counted(tmp_path: Path) -> None:
    """Events of all products of a program, their energy by the chip's constants, and the figure that decided."""
    model = read_language_model(write_folder(tmp_path / "m", "llama"))
    ids = np.random.default_rng(1).integers(0, WORDS, (2, 32))
    program = compile_graph(prepare(model, CHIP, ids).text(32), CHIP)
    cost = {n: m.value or 0.0 for n, m in event_energy(CHIP).items()}
    layers = count(program, CHIP).layers
    for row in (r for r in program.meta["products"] if r["where"] == "arrays"):
        seen = {event: int(str(n)) for event, n in layers[row["node"]].items()}
        spent = (seen["weight_bits"] * cost["weight_bits"] + seen["array_macs"] * cost["mac"]
                 + seen["vector_operations"] * cost["vector_op"])  # fmt: skip
        leaked = row["arrays"]["joules"] - spent
        assert seen["stored_macs"] == row["macs"]
        assert 0 < leaked < row["arrays"]["joules"]
        assert leaked / row["arrays"]["seconds"] == pytest.approx(_watts(), rel=1e-6)


def _watts() -> float:
    way = on_vector_unit(Product(1, 1, 64, 64), CHIP)
    return way.leaked / way.seconds


def test_writing_pays_with_use() -> None:
    """256 values of 64 elements: one query does not pay for writing them, a prompt's queries do."""
    few, many = Product(1, 1, 256, 64, 16), Product(1, 128, 256, 64, 16)
    assert not pays(on_vector_unit(few, CHIP), in_arrays(few, CHIP, 8))
    assert pays(on_vector_unit(many, CHIP), in_arrays(many, CHIP, 8))
    per_use = [in_arrays(replace(few, vectors=n), CHIP, 1).dynamic / n for n in (1, 4, 16, 64)]
    assert per_use == sorted(per_use, reverse=True)


def test_events_of_a_product_by_hand() -> None:
    """Two matrices [300, 70] of 8-bit codes, ten vectors of 16 bits, both with zero points: 2 x 2 tiles each."""
    product = Product(2, 10, 300, 70, 16, ones_vector=True, ones_column=True)
    found = events(product, CHIP)
    assert found["weight_bits"] == 2 * 300 * 71 * 8
    assert found["vectors"] == 2 * 11
    assert found["array_operations"] == 2 * 11 * 16 * 4
    assert found["array_macs"] == 2 * 11 * 2 * 300 * 71
    assert found["stored_macs"] == 2 * 10 * 300 * 70
    assert found["vector_operations"] == 2 * 10 * 70 * (2 + 2)  # sums of two tiles, two corrections
    assert dealt(product, CHIP, 26).copies == 3  # of 26 macros, matrices take 8
    assert events(dealt(product, CHIP, 26), CHIP)["weight_bits"] == 3 * 2 * 300 * 71 * 8


def test_chips_that_cannot() -> None:
    assert [able(load_chip(n)) for n in ("dcim-28nm", "wtm2101", "parametric-sonos-adc12", "aim-gddr6")] == [
        True, False, False, False,
    ]  # fmt: skip


def test_shapes_say_where_attention_goes() -> None:
    """A shape with macros to spare writes a prompt's keys and values; one whose weights fill its chips does not."""
    shape = shapes()["stories260k"]
    roomy, full = OnChips(shape, CHIP), OnChips(shapes()["llama-3-8b"], CHIP)
    assert (roomy.free_macros, full.free_macros) == (112, 0)
    ways = roomy.attention(keys=256, queries=256)
    assert all(c.stored and c.product.vectors == 512 for c in ways.values())
    lanes = OnChips(shape, load_chip("dcim-28nm", overrides=("capabilities.wload=false",)))
    one, other = (token(on, keys=256, queries=256) for on in (roomy, lanes))
    assert one.counts["mma_macs"] == 0
    assert one.counts["stored_macs"] == other.counts["mma_macs"]
    assert one.seconds["attention"] < other.seconds["attention"]
    assert prefill(roomy, tokens=256)[1] < prefill(lanes, tokens=256)[1]
    assert not any(c.stored for c in full.attention(keys=100).values())
