"""What commands that follow data, and products in memory banks, ask of a chip: by hand."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.base.errors import UsageError
from insitu.isa.program import Binding, Descriptor, Program, Symbol, weight_ref
from insitu.sim.arms import conditions
from insitu.sim.counts import count
from insitu.sim.timing import check_trace, simulate_time

NS = 1000


def built(toy, *code: str, descriptors: list[Descriptor], bindings: tuple[Binding, ...] = ()) -> Program:
    symbols = (
        Symbol("b", "scratch", "ram", "i8", 1024, 0), Symbol("f", "scratch", "ram", "f32", 1024, 1024),
        Symbol("w", "weight", "banks", "i8", 32, 0, weight="w"),
    )  # fmt: skip
    section = toy.section(*code, descriptors=descriptors, bindings=bindings)
    weights = {"w": weight_ref(np.zeros((8, 4), np.int8))}
    return Program("toy", {}, "", symbols, (section,), weights, {})


def both(program: Program, chip) -> tuple[dict[str, int], int]:
    """(events, latency in ps); the timing simulator runs each command as often as the closed form says."""
    counts, timing = count(program, chip), simulate_time(program, chip)
    traced = simulate_time(program, chip, trace=True)
    assert timing.counts == counts
    assert check_trace(traced.spans) == []
    assert traced.latency_ps == timing.latency_ps >= timing.lower_bound_ps
    return dict(counts.total), timing.latency_ps


def test_a_product_in_the_banks_reads_its_matrix_for_every_position(toy) -> None:
    ends = [
        Descriptor("b", 512, (3, 4), (4, 1)),
        Descriptor("b", 0, (3, 8), (8, 1)),
        Descriptor("w", 0, (8, 4), (4, 1)),
    ]
    binding = Binding("fc", "w", "", 8, 4, 0, ())
    chip = toy.chip(**{"array.rows": 4})
    events, latency = both(built(toy, "GEMV 0 1 2 0", descriptors=ends, bindings=(binding,)), chip)
    assert (events["bank_read_bytes"], events["array_macs"], events["macs"]) == (96, 96, 96)
    assert (events["vectors"], events["vector_operations"], events["ram_read_bytes"]) == (3, 12, 24)
    assert events["array_operations"] == events["dac_drives"] == events["adc_conversions"] == 0
    # 2 banks take 4 rows each 10 ns: 4 columns x 8 rows are 2 x 2 reads a position
    # issue 1, load 8, three positions, lanes 1, store 4
    assert latency == (1 + 8 + 3 * 40 + 1 + 4) * NS


@pytest.mark.parametrize("when", [0, 1])
def test_a_block_counts_as_run(toy, when: int) -> None:
    ends = [Descriptor("b", 0, (1,), (1,)), Descriptor("b", 64, (8,), (1,)), Descriptor("b", 128, (8,), (1,))]
    program = built(toy, f"PRED 0 {when}", "DMA 1 2", "ENDP", descriptors=ends)
    events, latency = both(program, toy.chip())
    assert (events["commands"], events["ram_read_bytes"], events["ram_write_bytes"]) == (2, 9, 8)
    assert latency == (1 + 1 + 1 + 8 + 8) * NS  # the condition, then the copy; the end is free


def test_of_two_arms_the_longer_one_runs_or_the_one_that_the_value_says(toy) -> None:
    ends = [Descriptor("b", 0, (1,), (1,)), Descriptor("b", 64, (8,), (1,)), Descriptor("b", 128, (8,), (1,))]
    short, long = ("PRED 0 1", "DMA 1 2", "ENDP"), ("PRED 0 0", "LOOP 3", "DMA 1 2", "ENDL", "ENDP")
    program, chip = built(toy, *short, *long, descriptors=ends), toy.chip()
    reads = {v: simulate_time(program, chip, taken={("b", 0): v}).counts.total["ram_read_bytes"] for v in (0, 1)}
    assert reads == {1: 2 + 8, 0: 2 + 3 * 8}  # the condition is read once for each arm
    longer = simulate_time(program, chip)
    assert longer.counts == simulate_time(program, chip, taken={("b", 0): 0}).counts
    assert longer.latency_ps > simulate_time(program, chip, taken={("b", 0): 1}).latency_ps
    assert count(program, chip).total["ram_read_bytes"] == 2 + 4 * 8
    traced = simulate_time(program, chip, trace=True)
    assert traced.spans is not None
    assert {*traced.spans["command"].tolist()} == {0, 3, 4, 5}, "numbered as in the whole program"
    assert [n for n, ps in enumerate(traced.last_ps[0]) if ps == 0] == [1, 2]
    with pytest.raises(UsageError, match="no condition"):
        simulate_time(program, chip, taken={("f", 0): 1})


def test_of_nested_arms_the_longest_way_is_taken(toy) -> None:
    """1: (2 or 5 copies); 0: 4 copies.  The inner choice makes 1 the longer one, 5 + 1 being more than 4."""
    ends = [Descriptor("b", i, (1,), (1,)) for i in (0, 1)]
    ends += [Descriptor("b", 64, (8,), (1,)), Descriptor("b", 128, (8,), (1,))]

    def copies(n: int) -> tuple[str, ...]:
        return ("DMA 2 3",) * n

    inner = ("PRED 1 1", *copies(2), "ENDP", "PRED 1 0", *copies(5), "ENDP")
    program = built(toy, "PRED 0 1", *inner, "ENDP", "PRED 0 0", *copies(4), "ENDP", descriptors=ends)
    assert conditions(program) == (("b", 0), ("b", 1))
    written = {
        values: simulate_time(program, toy.chip(), taken=dict(values)).counts.total["ram_write_bytes"] // 8
        for values in ((), ((("b", 1), 1),), ((("b", 0), 1), (("b", 1), 1)), ((("b", 0), 0),))
    }
    assert list(written.values()) == [5, 4, 2, 4]


def test_moving_a_descriptor_reads_its_value(toy) -> None:
    ends = [Descriptor("b", 0, (1,), (1,)), Descriptor("b", 64, (8,), (1,))]
    events, latency = both(built(toy, "SETD 1 0 0 9", descriptors=ends), toy.chip())
    assert (events["commands"], events["ram_read_bytes"], events["ram_write_bytes"]) == (1, 1, 0)
    assert latency == 2 * NS


def test_a_scatter_moves_what_comes_in(toy) -> None:
    ends = [
        Descriptor("b", 0, (1, 32, 4), (128, 4, 1)),
        Descriptor("b", 256, (1, 2, 4), (8, 4, 1)),
        Descriptor("f", 0, (2,), (1,)),
    ]
    events, latency = both(built(toy, "SCATTER 0 1 2", descriptors=ends), toy.chip())
    assert (events["ram_read_bytes"], events["ram_write_bytes"], events["vector_operations"]) == (8 + 8, 8, 0)
    assert latency == (1 + 16 + 8) * NS


def test_a_range_of_the_data_takes_three_passes(toy) -> None:
    ends = [
        Descriptor("b", 0, (2, 4), (4, 1)), Descriptor("f", 0, (2,), (1,)), Descriptor("b", 64, (2,), (1,)),
        Descriptor("f", 64, (2, 4), (4, 1)),
    ]  # fmt: skip
    events, latency = both(built(toy, "QDYN 0 1 2 3", descriptors=ends), toy.chip())
    assert (events["ram_read_bytes"], events["ram_write_bytes"], events["vector_operations"]) == (32, 8 + 8 + 2, 24)
    assert latency == (1 + 32 + 24 // 4 + 18) * NS


def test_codes_read_their_scale_and_zero(toy) -> None:
    ends = [
        Descriptor("f", 0, (2, 4), (4, 1)), Descriptor("b", 0, (2, 4), (4, 1)), Descriptor("f", 64, (2,), (1,)),
        Descriptor("b", 64, (2,), (1,)),
    ]  # fmt: skip
    events, _ = both(built(toy, "DQ 0 1 2 3", descriptors=ends), toy.chip())
    assert (events["ram_read_bytes"], events["ram_write_bytes"], events["vector_operations"]) == (8 + 8 + 2, 32, 8)
