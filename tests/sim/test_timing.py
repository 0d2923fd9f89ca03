import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.base.errors import ProgramError
from insitu.sim import timing as timing_
from insitu.sim.clock.layout import SPAN
from insitu.sim.counts import count
from insitu.sim.timing import check_trace, simulate_time
from tests.sim import obvious_clock

NS = 1000
SLOW_READ = {"macro.t_read": "30 ns"}


def run(program, chip, **options):
    timing = simulate_time(program, chip, **options)
    traced = simulate_time(program, chip, trace=True, **options)
    assert check_trace(traced.spans) == []
    assert traced.latency_ps == timing.latency_ps >= timing.lower_bound_ps
    assert timing.counts == count(program, chip, **{k: v for k, v in options.items() if k == "reads"})
    assert_obvious(program, chip, timing, traced, options)
    held = np.bincount(traced.spans["resource"], traced.spans["end"] - traced.spans["start"], len(traced.units))
    assert all(held[i] >= timing.busy_ps[unit] for i, unit in enumerate(traced.units))
    return timing


def assert_obvious(program, chip, timing, traced, options):
    """The event loop of kernels is the one of plain Python, span by span."""
    options = {name: value for name, value in options.items() if name != "skip"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing_, "Machine", Obvious)
        plain = simulate_time(program, chip, skip=False, **options)
        shown = simulate_time(program, chip, trace=True, **options)
    for name in ("latency_ps", "layers", "busy_ps", "counts", "commands", "last_ps"):
        assert getattr(timing, name) == getattr(plain, name), name
    np.testing.assert_array_equal(np.sort(traced.spans), np.sort(shown.spans))


class Obvious(obvious_clock.Machine):
    """Its spans in the form of the kernels'."""

    def run(self, starts):
        super().run(starts)
        self.spans = np.array(self.spans, SPAN)


def one_mvm(toy, vectors, macros=(0,), *, kind="exact", core=0, rows=8, code=("MVM 0 1 0",)):
    return toy.section(
        *code,
        core=core,
        descriptors=toy.mvm_operands(vectors, rows=rows),
        bindings=[toy.binding("fc", macros, kind=kind, rows=rows)],
    )


# latencies worked out by hand


def test_one_vector_passes_every_stage_in_turn(toy):
    # issue 1, 8 bytes in 8, read 10, 4 columns on 4 lanes 1, 4 bytes out 4
    assert run(toy.program(one_mvm(toy, 1)), toy.chip()).latency_ps == 24 * NS


def test_further_vectors_cost_the_slowest_stage(toy):
    # the array, 10 ns, is slower than 8 ns of loads: 3 more vectors, 10 ns each
    assert run(toy.program(one_mvm(toy, 4)), toy.chip()).latency_ps == (24 + 3 * 10) * NS


def test_the_port_is_the_slowest_stage_where_rows_are_many(toy):
    # issue 1, 4 vectors of 32 bytes in 128; stores follow loads on the one port, and find 3 of 4 results ready
    assert run(toy.program(one_mvm(toy, 4, rows=32)), toy.chip()).latency_ps == (1 + 128 + 16) * NS


def test_tiles_on_one_macro_take_turns_and_on_two_work_together(toy):
    # two row tiles: 8 partial sums on 4 lanes take 2 cycles
    alone, turns, together = (
        run(toy.program(one_mvm(toy, 1, macros)), toy.chip()).latency_ps for macros in ((0,), (0, 0), (0, 1))
    )
    assert (alone, turns, together) == (24 * NS, (24 + 10 + 1) * NS, (24 + 1) * NS)


def test_adc_converts_the_columns_that_share_it_in_turn(toy):
    # 4 slices x 4 columns = 16 bitlines on one ADC, 2 ns each
    timing = run(toy.program(one_mvm(toy, 1, kind="adc")), toy.chip("adc"))
    assert timing.latency_ps == (24 + 32) * NS
    wider = run(toy.program(one_mvm(toy, 1, kind="adc")), toy.chip("adc", **{"macro.columns_per_adc": 2}))
    assert wider.latency_ps == (24 + 4) * NS
    more = run(toy.program(one_mvm(toy, 3, kind="adc")), toy.chip("adc"))
    assert more.latency_ps == (24 + 32 + 2 * 32) * NS  # the ADC is the slowest stage


def test_without_a_time_of_its_own_the_adc_is_held_with_its_array(toy):
    from insitu.arch.load import load_chip

    timing = simulate_time(toy.program(one_mvm(toy, 2, kind="wtm2101")), load_chip("wtm2101"), reads=1)
    assert timing.busy_ps["chip0.core0.macro0.array"] == timing.busy_ps["chip0.core0.macro0.adc"] == 2 * 37_000_000


def test_input_passes_and_averaged_reads_repeat_the_array_operation(toy):
    serial = toy.chip(**{"macro.input.bits_per_pass": 1})
    assert run(toy.program(one_mvm(toy, 1)), serial).latency_ps == (24 + 70) * NS
    assert run(toy.program(one_mvm(toy, 1)), toy.chip(), reads=3).latency_ps == (24 + 20) * NS


def test_commands_of_one_core_do_not_overlap(toy):
    twice = toy.program(one_mvm(toy, 1, code=("MVM 0 1 0", "MVM 0 1 0", "HALT")))
    assert run(twice, toy.chip()).latency_ps == (24 + 24 + 1) * NS


def test_vector_commands_stream_and_copies_use_the_port_twice(toy):
    a, b = (toy.Descriptor("x", at, (10,), (1,)) for at in (0, 100))
    code = {"ADD 1 0 0 0": 1 + 20 + 10, "DMA 1 0": 1 + 10 + 10, "FILL 1 7": 1 + 10, "SOFTMAX 1 0 0": 1 + 10 + 8 + 10}
    for line, nanoseconds in code.items():
        made = toy.program(toy.section(line, descriptors=[a, b], vectors=[toy.Vector(label="v")]))
        # ADD: two of its three groups of lanes are done when its last operand is in
        assert run(made, toy.chip()).latency_ps == nanoseconds * NS, line


# several cores


def test_two_cores_share_the_port_in_order_of_arrival(toy):
    both = toy.program(one_mvm(toy, 1, (0,)), one_mvm(toy, 1, (2,), core=1))
    # the second loads 8 ns later, and its stores are free then
    assert run(both, toy.chip()).latency_ps == (24 + 8) * NS


def test_the_port_is_not_held_while_results_are_made(toy):
    # 40 vectors at 30 ns: loads hold the port to 321, stores from 1060; a second core's copy slips in between
    copy, chip = toy.section("DMA 0 1", core=1, descriptors=toy.mvm_operands(1, rows=4)), toy.chip(**SLOW_READ)
    alone = run(toy.program(one_mvm(toy, 40)), chip).latency_ps
    both = run(toy.program(one_mvm(toy, 40), copy), chip)
    assert both.latency_ps == alone == (24 + 20 + 39 * 30) * NS
    assert both.layers["move"].end_ps == (1 + 320 + 4 + 4) * NS


def test_tokens_make_a_core_wait(toy):
    first = one_mvm(toy, 1, code=("MVM 0 1 0", "SIG 5"))
    second = one_mvm(toy, 1, (2,), core=1, code=("AWAIT 5 1", "MVM 0 1 0"))
    assert run(toy.program(first, second), toy.chip()).latency_ps == (24 + 1 + 24) * NS


def test_cores_leave_a_barrier_together(toy):
    first = one_mvm(toy, 1, code=("MVM 0 1 0", "BAR", "HALT"))
    second = toy.section("BAR", "HALT", core=1)
    timing = run(toy.program(first, second), toy.chip())
    assert timing.latency_ps == 26 * NS
    assert timing.layers["control"].busy_ps == (1 + 25 + 1 + 1) * NS


@pytest.mark.parametrize(
    ("left", "right", "what"),
    [
        (("AWAIT 1 1", "SIG 2"), ("AWAIT 2 1", "SIG 1"), "a token"),
        (("BAR", "BAR"), ("BAR",), "a barrier"),
        (("SIG 1",), ("AWAIT 1 2",), "core 1 at command 0"),
    ],
)
def test_waiting_forever_is_an_error(toy, left, right, what):
    with pytest.raises(ProgramError, match=what):
        simulate_time(toy.program(toy.section(*left), toy.section(*right, core=1)), toy.chip())


def test_a_size_that_is_not_bound_is_an_error(toy):
    made = toy.program(toy.section("LOOP n", "ENDL"), sizes={"n": 4})
    with pytest.raises(ProgramError, match="n is not bound"):
        simulate_time(made, toy.chip())
    assert run(made.bind({"n": 3}), toy.chip()).counts == count(made, toy.chip()).at({"n": 3})


# loops


def test_a_steady_loop_is_skipped_exactly(toy):
    made = toy.program(one_mvm(toy, 2, code=("LOOP 1000", "LOOP 500", "MVM 0 1 0", "ENDL", "ENDL", "HALT")))
    timing = simulate_time(made, toy.chip())
    assert timing.latency_ps == (1 + 1000 * (1 + 500 * 34) + 1) * NS
    assert timing.commands > 1_000_000 > 1000 > timing.stepped
    assert timing.counts == count(made, toy.chip())


def equal(a, b):
    for name in ("latency_ps", "layers", "busy_ps", "counts", "units", "commands"):
        assert getattr(a, name) == getattr(b, name), name


lengths = st.integers(1, 9)


@st.composite
def bodies(draw, core):
    """Commands with loops; descriptors 2i and 2i + 1 are a store and a load of 2i + 1 vectors."""
    code = []

    def block(depth):
        for _ in range(draw(st.integers(1, 3))):
            kind = draw(st.sampled_from(("work", "work", "loop", "loop") if depth < 3 else ("work",)))
            if kind == "loop":
                code.append(f"LOOP {draw(st.integers(1, 12))}")
                block(depth + 1)
                code.append("ENDL")
            else:
                i = draw(st.integers(0, 2))
                code.append(draw(st.sampled_from((f"MVM {2 * i} {2 * i + 1} 0", f"DMA {2 * i} {2 * i}"))))

    block(0)
    return code


@st.composite
def programs(draw, toy):
    """Two cores that contend for the port and, where drawn, hand tokens over in loops or share a macro."""
    macros = draw(st.sampled_from(((0, 2), (0, 0))))
    tokens = draw(st.booleans())
    trips, rate = draw(st.integers(2, 30)), draw(st.sampled_from((1, 2, 3)))
    sections = []
    for core in (0, 1):
        code = draw(bodies(core))
        if tokens and core == 0:
            code = [*code, f"LOOP {trips * rate}", "MVM 0 1 0", "SIG 1", "ENDL"]
        elif tokens:
            code = [f"LOOP {trips}", f"AWAIT 1 {rate}", "MVM 2 3 0", "ENDL", *code]
        descriptors = [d for i in range(3) for d in toy.mvm_operands(2 * i + 1)]
        bindings = [toy.binding(f"fc{core}", (macros[core],))]
        sections.append(toy.section(*code, "HALT", core=core, descriptors=descriptors, bindings=bindings))
    return toy.program(*sections)


@given(data=st.data())
def test_skipping_changes_nothing(toy, data):
    made, chip = data.draw(programs(toy)), toy.chip()
    slow = run(made, chip, skip=False)
    equal(slow, simulate_time(made, chip))


def test_two_cores_in_step_are_skipped(toy):
    code = ("LOOP 400", "MVM 0 1 0", "ENDL", "HALT")
    made = toy.program(one_mvm(toy, 2, code=code), one_mvm(toy, 1, (2,), core=1, code=("LOOP 300", *code[1:])))
    skipped, slow = (simulate_time(made, toy.chip(), skip=skip) for skip in (True, False))
    equal(skipped, slow)
    assert skipped.stepped < slow.stepped / 2


def test_a_pipeline_of_tokens_is_skipped(toy):
    source = one_mvm(toy, 1, code=("LOOP 500", "MVM 0 1 0", "SIG 1", "AWAIT 2 1", "ENDL"))
    sink = one_mvm(toy, 3, (2,), core=1, code=("LOOP 500", "AWAIT 1 1", "SIG 2", "MVM 0 1 0", "ENDL"))
    made = toy.program(source, sink)
    skipped, slow = (simulate_time(made, toy.chip(), skip=skip) for skip in (True, False))
    equal(skipped, slow)
    assert skipped.stepped < 200


# bounds and order


@given(data=st.data())
def test_nothing_is_held_twice_and_no_unit_outdone(toy, data):
    run(data.draw(programs(toy)), toy.chip())


@given(data=st.data(), slower=st.sampled_from(("macro.t_adc=3 ns", "macro.t_read=11 ns", "core.vector.lanes=3")))
def test_a_slower_unit_never_makes_one_core_faster(toy, data, slower):
    code, kind = data.draw(bodies(0)), "adc"
    descriptors = [d for i in range(3) for d in toy.mvm_operands(2 * i + 1)]
    made = toy.program(toy.section(*code, descriptors=descriptors, bindings=[toy.binding("fc", (0, 1), kind=kind)]))
    path, value = slower.split("=")
    fast, slow = toy.chip("adc"), toy.chip("adc", **{path: value})
    assert simulate_time(made, fast).latency_ps <= simulate_time(made, slow).latency_ps


def test_the_checker_finds_an_overlap():
    rows = [(0, 0, 0, 0, 10), (1, 0, 0, 5, 15), (0, 1, 0, 10, 20), (0, 1, 1, 19, 25), (1, 0, 2, 15, 15)]
    spans = np.array(rows, SPAN)
    assert check_trace(spans) == [(2, 3)]
    assert check_trace(spans[:3]) == [] == check_trace(spans[:0])


def test_layers_say_when_and_how_long(toy):
    made = toy.program(
        toy.section(
            "FILL 0 0", "MVM 0 1 0", "MVM 0 1 1", "DMA 0 0",
            descriptors=toy.mvm_operands(1), bindings=[toy.binding("a"), toy.binding("b", (1,))],
        )
    )  # fmt: skip
    layers = run(made, toy.chip()).layers
    assert [(name, t.start_ps, t.end_ps, t.busy_ps) for name, t in layers.items()] == [
        ("a", 0, 29 * NS, 29 * NS), ("b", 29 * NS, 53 * NS, 24 * NS), ("move", 53 * NS, 62 * NS, 9 * NS),
    ]  # fmt: skip


def test_utilization_is_work_over_latency(toy):
    timing = run(toy.program(one_mvm(toy, 10)), toy.chip(**SLOW_READ))
    assert timing.latency_ps == (44 + 9 * 30) * NS
    assert timing.utilization["chip0.core0.macro0.array"] == pytest.approx(300 / 314)
    assert timing.utilization["chip0.ram"] == pytest.approx(120 / 314)
