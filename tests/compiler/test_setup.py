"""What the compiler sets up: tables, calibration, verified writes and memory in arrays, each run and compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.base.errors import InfeasibleError
from insitu.bench.networks import Network
from insitu.circuit.effects import Physics
from insitu.compiler.commands import Code
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.setup import set_up
from insitu.device.cell import load_cell
from insitu.flow.check import compare
from insitu.flow.figures import space_bytes
from insitu.graph.graph import Graph
from insitu.isa.check import find_faults
from insitu.isa.program import Command, Program, Vector
from insitu.isa.setup import memory_macros, setup_length
from insitu.isa.stream import can_take_turns
from insitu.runtime.session import Session
from insitu.sim.counts import count
from insitu.sim.functional import load, run
from insitu.sim.macro import MacroModel
from insitu.sim.timing import simulate_setup, simulate_time
from tests.compiler.test_segment import TINY, checked, quantized
from tests.flow.line import build, captured, check_semantics, inputs_of

CURVES = ("Tanh", "Sigmoid", "Elu")


def net_of(names: tuple[str, ...], chip: Chip, width: int = 6) -> tuple[Graph, Program]:
    """A chain of layers, each behind another activation, compiled."""
    net = Network("curves", (1, width))
    x = "x"
    for name in names:
        x = net.dense(x, width, name)
    return build(captured(net.model(x)), chip)


def compared(graph: Graph, program: Program) -> None:
    """Reference, simulator and interpreter give the same integers, and the clock the same with every trip."""
    session = Session(program, graph=graph)
    codes = session.codes(inputs_of(graph, 3)) if graph.type(graph.inputs[0]).quant is None else random_codes(graph)
    result = compare(session, codes)
    assert result.mismatches == 0, result.first
    check_semantics(program, graph, {n: c[0] for n, c in codes.items()})


def random_codes(graph: Graph) -> dict[str, np.ndarray]:
    quant = graph.type(graph.inputs[0]).quant
    assert quant is not None
    rng = np.random.default_rng(3)
    shape = (3, *graph.type(graph.inputs[0]).sizes())
    return {graph.inputs[0]: rng.integers(quant.lo, quant.hi + 1, shape).astype(np.int8 if quant.signed else np.uint8)}


def places(program: Program, op: str) -> list[int]:
    return [i for s in program.sections for i, c in enumerate(s.code) if c.op == op]


def test_tables_that_fit_are_loaded_once_before_all_runs() -> None:
    chip = load_chip("dcim-28nm", overrides=("chip.tiles=1",))
    graph, program = net_of(CURVES, chip)
    loads = places(program, "LUTLD")
    assert loads == list(range(len(loads)))
    assert loads
    compared(graph, program)
    setup = simulate_setup(program, chip)
    tables = {v.lut for s in program.sections for v in s.vectors if v.lut}
    assert setup.counts.total["ram_read_bytes"] == sum(program.weight(t).size for t in tables)  # a byte an entry
    assert setup.latency_ps > 0
    bare = replace(program, sections=tuple(replace(s, code=s.code[setup_length(s.code) :]) for s in program.sections))
    assert simulate_time(program, chip).latency_ps == simulate_time(bare, chip).latency_ps
    assert {f.rule for f in find_faults(bare)} == {"U3"}


def test_more_tables_than_places_take_turns() -> None:
    chip = load_chip("dcim-28nm", overrides=("chip.tiles=1", "core.vector.luts=2"))
    graph, program = net_of((*CURVES, "Softplus"), chip)
    section = program.sections[0]
    inside = [i for i in places(program, "LUTLD") if i >= setup_length(section.code)]
    assert len(inside) >= 2
    compared(graph, program)
    timing = simulate_time(program, chip)
    assert timing.counts == count(program, chip)
    assert simulate_time(program, chip, skip=False).latency_ps == timing.latency_ps
    assert not can_take_turns(program)


def test_a_block_with_two_tables_that_take_turns_is_cut() -> None:
    """Between the parts the block is left and entered again: tables do not depend on data."""
    vectors = {Vector(lut=name, label=name): i for i, name in enumerate("abc")}
    code = Code(vectors=vectors)
    code.commands = [Command("LUT", (0, 0, 0)), Command("PRED", (1, 1)), Command("LUT", (0, 0, 1))]
    code.commands += [Command("LOOP", (2,)), Command("LUT", (0, 0, 2)), Command("ENDL"), Command("ENDP")]
    code.commands += [Command("LUT", (0, 0, 0)), Command("HALT")]
    set_up(code, load_chip("dcim-28nm", overrides=("core.vector.luts=2",)), ())
    shown = [c.op + "".join(f" {a}" for a in c.args[-1:]) if c.op in ("LUT", "LUTLD") else c.op for c in code.commands]
    loads = [c.args for c in code.commands if c.op == "LUTLD"]
    assert loads == [(0, 0), (1, 1), (2, 1)]
    assert shown == [
        "LUTLD 0", "LUT 0", "LUTLD 1", "PRED", "LUT 1", "ENDP", "LUTLD 1", "PRED", "LOOP", "LUT 2", "ENDL", "ENDP",
        "LUT 0", "HALT",
    ]  # fmt: skip


def test_columns_are_calibrated_by_command_and_only_by_command() -> None:
    """Without its CAL a layer keeps the offsets of its columns; an ideal chip does not care."""
    chip = load_chip("wtm2101")
    graph, program = net_of(("Relu", "Relu"), chip)
    assert len(places(program, "CAL")) == sum(len(s.bindings) for s in program.sections) > 0
    compared(graph, program)
    setup = simulate_setup(program, chip).counts.total
    assert setup["adc_conversions"] == sum(b.cols * 2 for s in program.sections for b in s.bindings)  # two reads
    assert setup["macs"] == 0
    without = replace(
        program, sections=tuple(replace(s, code=tuple(c for c in s.code if c.op != "CAL")) for s in program.sections)
    )
    codes = random_codes(graph)
    physics = Physics.parse("column_offset", chip)
    uncorrected = load_chip("wtm2101", overrides=("calibration.column_offset=false",))
    models = [MacroModel(chip, physics), MacroModel(uncorrected, physics)]
    with_it, bare, none = (
        run(load(p, model=m), codes)[graph.outputs[0]]
        for p, m in ((program, models[0]), (without, models[0]), (program, models[1]))
    )
    assert np.array_equal(bare, none)  # nobody asked: as if the chip had no such procedure
    assert not np.array_equal(with_it, bare)


def test_loaded_cells_are_verified_where_they_need_it() -> None:
    chip = load_chip("dcim-28nm", overrides=TINY)
    digital = {"programming": None, "read_sd": 0.0, "noise": None}  # bits are sensed, as adder trees ask for
    mram = chip.model_copy(update={"cell": load_cell("mram-stt").model_copy(update=digital)})
    graph = quantized()
    plain, program = (compile_graph(graph, c) for c in (chip, mram))
    loads, checks = places(program, "WLOAD"), places(program, "WVERIFY")
    assert not places(plain, "WVERIFY")
    assert [i + 1 for i in loads] == checks
    checked(graph, program)
    times = [simulate_time(plain, chip), simulate_time(program, mram)]
    assert times[1].latency_ps > times[0].latency_ps
    assert times[1].counts == count(program, mram)
    section = program.sections[0]
    late = tuple(c for c in section.code if c.op != "WVERIFY")
    broken = replace(program, sections=(replace(section, code=late), *program.sections[1:]))
    assert {f.rule for f in find_faults(broken)} == {"W3"}


def test_arrays_serve_as_memory_where_ram_is_too_small() -> None:
    """The same network: refused with this ram, held with macros beside it, and the same integers."""
    small = ("chip.tiles=1", "core.macros=16", "memories.ram.size=2 KiB")
    net = Network("maps", (1, 4, 16, 16))
    graph = captured(net.model(net.conv(net.conv("x", 4, 3, pad=1), 4, 3, pad=1)))
    with pytest.raises(InfeasibleError, match="memory ram"):
        build(graph, load_chip("dcim-28nm", overrides=small))
    chip = load_chip("dcim-28nm", overrides=(*small, "capabilities.dual_mode=true"))
    quant, program = build(graph, chip)
    used = sum(len(memory_macros(s)) for s in program.sections)
    assert used == -(-(program.spaces["ram"] - 2048) // chip.macro_bytes) > 0
    compared(quant, program)
    assert space_bytes(program, chip, "ram") == 2048 + used * 16384
    assert simulate_setup(program, chip).latency_ps > 0
