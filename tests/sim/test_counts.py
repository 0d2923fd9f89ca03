from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.arch.load import load_chip
from insitu.base.errors import ProgramError
from insitu.circuit.cost import tile_events
from insitu.sim.counts import EVENTS, count, executions, labels
from insitu.sim.poly import Poly, number, product
from insitu.sim.work import element_bytes


def one_mvm(toy, *, vectors=3, trips=5, kind="exact", **tile):
    descriptors = toy.mvm_operands(vectors, rows=tile.get("rows", 8), cols=tile.get("cols", 4))
    bindings = [toy.binding("fc", tile.pop("macros", (0,)), kind=kind, **tile)]
    return toy.program(
        toy.section(f"LOOP {trips}", "MVM 0 1 0", "ENDL", "HALT", descriptors=descriptors, bindings=bindings)
    )


# closed forms


def test_matrix_events_equal_their_closed_forms(toy):
    chip, n = toy.chip("adc", **{"macro.input.bits_per_pass": 1}), 3 * 5
    total = count(one_mvm(toy, kind="adc", rows=30, cols=6, macros=(0, 1, 1)), chip).total
    assert total == {
        "vectors": n, "array_operations": n * 3 * 8, "array_macs": n * 30 * 6,
        "cell_operations": n * 30 * 6 * 8 * 4 * 2, "macs": n * 30 * 6, "mma_macs": 0, "stored_macs": 0,
        "dac_drives": n * 30,
        "adc_conversions": n * 3 * 6 * 4 * 8,
        "shift_adds": n * 3 * 6 * (4 * 8 - 1), "vector_operations": n * 3 * 6, "ram_read_bytes": n * 30,
        "ram_write_bytes": n * 6, "weight_bits": 0, "store_read_bytes": 0, "bank_read_bytes": 0,
            "link_bytes": 0, "commands": 1 + 5 + 1,
        "host_values": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"), [("wtm2101", "wtm2101"), ("parametric-reram-adc8", "adc"), ("dcim-28nm", "exact")]
)
def test_macro_events_are_those_that_are_costed(toy, name, kind):
    chip = load_chip(name)
    total = count(one_mvm(toy, kind=kind, rows=40, cols=10), chip).total
    costed = tile_events(chip, rows=40, cols=10)
    counted = {"mac": "array_macs", "dac": "dac_drives", "adc": "adc_conversions", "shift_add": "shift_adds"}
    assert {event: total[counted[event]] for event in costed} == {event: 15 * n for event, n in costed.items()}


def test_bias_rows_are_driven_and_no_macs_of_the_network(toy):
    made = one_mvm(toy, kind="wtm2101")
    [section] = made.sections
    [bound] = section.bindings
    tile = toy.Tile(macro=0, row0=0, rows=8, col0=0, cols=4, x=0, y=0, bias0=0, bias_rows=2)
    biased = toy.program(toy.replace(section, bindings=(toy.replace(bound, tiles=(tile,)),)))
    total = count(biased, load_chip("wtm2101"), reads=1).total
    assert (total["dac_drives"], total["array_macs"], total["macs"]) == (15 * 10, 15 * 40, 15 * 32)


def test_averaged_reads_repeat_what_the_array_does(toy):
    chip = load_chip("wtm2101")
    once, own = (count(one_mvm(toy, kind="wtm2101"), chip, reads=reads).total for reads in (1, None))
    repeated = {"array_operations", "array_macs", "cell_operations", "dac_drives", "adc_conversions"}
    assert {e for e in EVENTS if own[e] == 2 * once[e] > 0} == repeated
    assert (once["shift_adds"], own["shift_adds"]) == (0, 15 * 4)


def test_fan_in_leaves_out_the_zeros_of_grouped_layers(toy):
    made = toy.replace(one_mvm(toy, rows=36, cols=4), meta={"fan_in": {"fc": 9}})
    total = count(made, toy.chip()).total
    assert (total["macs"], total["array_macs"]) == (15 * 4 * 9, 15 * 4 * 36)


# bytes


@given(kernel=st.integers(1, 5), stride=st.integers(1, 4), channels=st.integers(1, 6), width=st.integers(1, 9))
def test_a_convolution_row_reads_each_element_of_a_window_row_once(toy, kernel, stride, channels, width):
    line = ((width - 1) * stride + kernel) * channels
    window = toy.Descriptor("x", 0, (width, 3, kernel, channels), (stride * channels, line, channels, 1))
    out = toy.Descriptor("x", 9000, (width, 2), (2, 1))
    bound = toy.binding("conv", rows=3 * kernel * channels, cols=2)
    made = toy.program(toy.section("MVM 0 1 0", descriptors=[out, window], bindings=[bound]))
    touched = {
        i * stride * channels + r * line + k * channels + c
        for i in range(width) for r in range(3) for k in range(kernel) for c in range(channels)
    }  # fmt: skip
    assert count(made, toy.chip()).total["ram_read_bytes"] == len(touched)


def test_a_window_larger_than_the_sram_is_read_again(toy):
    window = toy.Descriptor("x", 0, (5, 16), (4, 1))
    made = toy.program(
        toy.section(
            "MVM 0 1 0",
            descriptors=[toy.Descriptor("x", 900, (5, 4), (4, 1)), window],
            bindings=[toy.binding("fc", rows=16)],
        )
    )
    sizes = {sram: count(made, toy.chip(**{"core.sram": sram})).total["ram_read_bytes"] for sram in (15, 16)}
    assert sizes == {15: 5 * 16, 16: 16 + 4 * 4}


@pytest.mark.parametrize(
    ("line", "work", "read", "written"),
    [
        ("ADD 0 1 1 0", 24, 48, 24),
        ("MUL 0 2 1 0", 24, 6 + 24, 24),  # a broadcast operand is read once
        ("REQ 0 1 1", 24, 24 + 4 * 24, 24),  # a multiplier of 4 bytes per element
        ("SUM 2 1 0", 24, 24, 6),
        ("MAX 2 1 0", 24, 24, 6),
        ("SOFTMAX 0 1 0", 72, 24, 24),
        ("FILL 0 9", 0, 0, 24),
        ("DMA 3 1", 0, 24, 96),
        ("ACC 3 3", 24, 192, 96),
        ("MMA 5 1 4 0", 4 * 3 * 6, 24 + 18, 12),
    ],
)
def test_vector_and_transfer_events(toy, line, work, read, written):
    d = toy.Descriptor
    operands = (
        d("x", 0, (4, 6), (6, 1)), d("x", 64, (4, 6), (6, 1)), d("x", 128, (4, 6), (0, 1)),
        d("wide", 0, (4, 6), (6, 1)), d("x", 256, (6, 3), (3, 1)), d("x", 300, (4, 3), (3, 1)),
    )  # fmt: skip
    if line.startswith(("SUM", "MAX")):
        operands = (operands[0], operands[1], d("x", 128, (6,), (1,)), *operands[3:])
    vectors = (toy.Vector(label="v"), toy.Vector(label="v", multiplier=3))
    total = count(toy.program(toy.section(line, descriptors=operands, vectors=vectors)), toy.chip()).total
    assert (total["vector_operations"], total["ram_read_bytes"], total["ram_write_bytes"]) == (work, read, written)
    assert total["mma_macs"] == (work if line.startswith("MMA") else 0)


def test_weights_are_held_once_and_tiles_counted_by_place(toy):
    made = one_mvm(toy, rows=20, macros=(0, 1, 1))
    counts = count(made, toy.chip())
    assert counts.weight_bytes == 20 * 4
    assert counts.tiles == {(0, 0, 0, 0, 0): 15, (0, 0, 1, 0, 6): 15, (0, 0, 1, 0, 13): 15}
    assert sum(counts.tiles.values()) == counts.total["array_operations"]


# labels, names, sizes


def test_moves_belong_to_the_layer_they_prepare(toy):
    section = toy.section(
        "FILL 0 0", "LOOP 2", "DMA 0 0", "MVM 0 1 0", "ENDL", "ACC 0 0", "REQ 0 0 0", "REQ 0 0 1", "DMA 0 0", "HALT",
        descriptors=toy.mvm_operands(1), bindings=[toy.binding("a")], vectors=[toy.Vector(label="b"), toy.Vector()],
    )  # fmt: skip
    assert labels(section) == ["a", "control", "a", "a", "control", "b", "b", "move", "move", "control"]
    assert executions(section.code) == [1, 1, 2, 2, 2, 1, 1, 1, 1, 1]


def test_named_sizes_stay_in_the_counts(toy):
    out, window = toy.Descriptor("x", 900, ("t", 4), (4, 1)), toy.Descriptor("x", 0, ("t", 8), (2, 1))
    section = toy.section(
        "LOOP n", "MVM 0 1 0", "LOOP 3", "DMA 0 0", "ENDL", "ENDL", "HALT",
        descriptors=[out, window], bindings=[toy.binding("fc")],
    )  # fmt: skip
    made = toy.program(section, sizes={"t": 20, "n": 9})
    counts = count(made, toy.chip())
    assert counts.total["macs"] == Poly({("n", "t"): 32})
    assert str(counts.total["ram_read_bytes"]) == "6*n + 14*n*t"  # 8 + 2(t - 1), and 3 * 4t
    for sizes in ({"t": 1, "n": 1}, {"t": 20, "n": 9}, {"t": 7, "n": 2}):
        assert counts.at(sizes) == count(made.bind(sizes), toy.chip())


names = st.sampled_from("abc")
polys = st.lists(st.lists(st.one_of(names, st.integers(0, 5)), max_size=3), min_size=1, max_size=4)


@given(a=polys, b=polys, at=st.fixed_dictionaries({n: st.integers(0, 7) for n in "abc"}))
def test_polynomials_calculate_as_their_values_do(a, b, at):
    def value(x):
        return x.at(at) if isinstance(x, Poly) else x

    def build(terms):
        return sum((product(t) for t in terms), start=0)

    x, y = build(a), build(b)
    assert value(x) == sum(prod(at.get(f, f) for f in term) for term in a)
    assert (value(x + y), value(x * y)) == (value(x) + value(y), value(x) * value(y))
    assert x + y == y + x
    assert x * (y + -1) == x * y + x * -1
    assert number("a") * 0 == 0


def test_element_types_have_a_width():
    assert [element_bytes(t) for t in ("int8", "u8", "i16", "uint16", "int32", "f32", "int64", "bool")] == [
        1, 1, 2, 2, 4, 4, 8, 1,
    ]  # fmt: skip


def test_an_unknown_instruction_is_an_error(toy):
    with pytest.raises(ProgramError, match="instruction NOP"):
        count(toy.program(toy.section("NOP")), toy.chip())
