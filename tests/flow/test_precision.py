"""Precision transforms on random layers and every readout: interpreter, instruction set and simulator agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from insitu.algo import ptq
from insitu.arch.load import load_chip
from insitu.base.errors import ConfigError, InfeasibleError
from insitu.circuit.effects import Physics
from insitu.compiler import precision
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.plan import LayerPlan, Precision, QuantPlan, plan_from_json, plan_to_json
from insitu.flow.chain import deploy
from insitu.flow.check import compare
from insitu.flow.physics import instance_session
from insitu.flow.precision import read_precision, requested
from insitu.graph.graph import Graph
from insitu.graph.interpret import interpret
from insitu.graph.text import parse_graph, print_graph, same_graph
from insitu.graph.verify import verify
from insitu.isa.assembler import parse_section, print_section
from insitu.isa.check import check_program
from insitu.numeric.affine import quantize as to_codes
from insitu.runtime.session import Session
from insitu.sim.counts import count as counts_of
from insitu.sim.macro import MacroModel
from insitu.sim.timing import simulate_time
from tests.flow.line import captured, check_semantics, inputs_of
from tests.graph.networks import model, node

CHIPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "exact": ("dcim-28nm", ("array.rows=40", "array.cols=12", "core.macros=40")),
    "exact-unsigned": ("dcim-28nm", ("array.rows=40", "array.cols=12", "core.macros=40", "macro.input.signed=false")),
    "adc": ("parametric-reram-adc8", ("array.rows=40", "array.cols=12", "macro.columns_per_adc=48", "core.macros=40")),
    "adc-unsigned": (
        "parametric-reram-adc8",
        ("array.rows=40", "array.cols=12", "macro.columns_per_adc=48", "core.macros=40", "macro.input.signed=false"),
    ),
    "adc-unipolar": (
        "parametric-reram-adc8",
        (
            "array.rows=40", "array.cols=12", "macro.columns_per_adc=48", "core.macros=40",
            "macro.readout.signed=false", "macro.input.bits_per_pass=8",
        ),
    ),
    "adc-joined": (
        "parametric-reram-adc8",
        ("array.rows=18", "array.cols=6", "macro.columns_per_adc=24", "core.macros=6", "chip.tiles=40"),
    ),
    "wtm2101": ("wtm2101", ("array.rows=60", "array.cols=160", "macro.bias_rows=64")),
}  # fmt: skip
LAYERS = ("matmul", "tall", "conv", "conv1d", "grouped", "depthwise")


def network(kind: str, seed: int, after: bool = False) -> Graph:
    """One weight layer, or two where another one reads its output."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    if kind in ("matmul", "tall"):
        rows = 50 if kind == "tall" else 9
        tensors = {"w": normal(rows, 5), "b": normal(5), "v": normal(5, 3), "c": normal(3)}
        nodes = [node("Gemm", ["x", "w", "b"], ["y"]), node("Relu", ["y"], ["z"])]
        nodes += [node("Gemm", ["z", "v", "c"], ["out"])] if after else []
        return captured(model(nodes, inputs={"x": ["N", rows]}, outputs=["out" if after else "z"], tensors=tensors))
    channels, group, out = {"conv": (3, 1, 5), "conv1d": (4, 1, 3), "grouped": (4, 2, 6), "depthwise": (4, 4, 4)}[kind]
    kernel = (3,) if kind == "conv1d" else (3, 2)
    size = (7,) if kind == "conv1d" else (5, 4)
    tensors = {
        "w": normal(out, channels // group, *kernel),
        "b": normal(out),
        "v": normal(3, out, 1, 1),
        "c": normal(3),
    }
    pads = [1, 1] if kind == "conv1d" else [1, 0, 1, 1]
    nodes = [node("Conv", ["x", "w", "b"], ["y"], pads=pads, group=group)]
    return captured(model(nodes, inputs={"x": ["N", channels, *size]}, outputs=["y"], tensors=tensors))


def planned(graph: Graph, name: str, wanted: Precision, *, room: bool = False, **more: Any) -> tuple[Any, QuantPlan]:
    """A chip and a plan with the same transforms for every layer; with `room`, drivers and cells are half used."""
    chip = load_chip(CHIPS[name][0], overrides=CHIPS[name][1])
    plan = ptq.plan(graph, chip, data=inputs_of(graph, 6), seed=0)
    if room:
        plan = requested(plan, graph, chip, wanted=read_precision({"*": {"activation_bits": 7}}))
        plan = replace(plan, layers={n: halved(p) for n, p in plan.layers.items()})
        if name == "wtm2101":
            plan = plan.with_output_scale(graph.outputs[0], 2.0)
    if more:
        plan = requested(plan, graph, chip, wanted=read_precision({"*": more}))
    return chip, replace(plan, layers={n: replace(p, precision=wanted) for n, p in plan.layers.items()})


def halved(layer: LayerPlan) -> LayerPlan:
    return replace(layer, weight_scale=tuple(2.2 * s for s in layer.weight_scale))


def built(graph: Graph, chip: Any, plan: QuantPlan) -> tuple[Graph, Session]:
    made = verify(precision.apply_plan(graph, chip, plan=plan))
    program = compile_graph(made, chip, objective="cells")
    check_program(program)
    return made, Session(program, graph=made)


def agree(graph: Graph, made: Graph, session: Session) -> None:
    """Interpreter, simulator and instruction set on inputs that leave the calibrated range; files keep everything."""
    assert same_graph(parse_graph(print_graph(made, weights=True)), made)
    assert all(parse_section(print_section(s)) == s for s in session.program.sections)
    codes = session.codes({k: v * 1.5 for k, v in inputs_of(graph, 3, seed=5).items()})
    exact = compare(session, codes)
    assert exact.mismatches == 0, exact.first
    assert exact.checked_values > 0
    check_semantics(session.program, made, {n: c[0] for n, c in codes.items()})


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, Precision]:
    """A chip and transforms that it may be asked for."""
    name = draw(st.sampled_from(sorted(CHIPS)))
    signed = ("", "pn", "shift") if name in ("exact-unsigned", "adc-unsigned", "wtm2101") else ("",)
    analog = not name.startswith("exact")
    return name, Precision(
        input_shift=draw(st.sampled_from([0, 1])),
        weight_shift=draw(st.sampled_from([0, 1])),
        copies=draw(st.sampled_from([1, 2, 4])),
        apart=draw(st.booleans()),
        reads=draw(st.sampled_from([0, 3])) if analog else 0,
        signed=draw(st.sampled_from(signed)),
        finer=draw(st.sampled_from([(), (), (1,), (0, 1), (2, 0), (-1,)])) if analog else (),
        finer_columns=draw(st.sampled_from([(), (), (0, 2), (1, -1, 0)])) if name.startswith("adc") else (),
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), st.sampled_from(LAYERS), st.integers(0, 99))
def test_all_agree(case: tuple[str, Precision], kind: str, seed: int) -> None:
    name, wanted = case
    graph = network(kind, seed)
    try:
        made, session = built(graph, *planned(graph, name, wanted, room=True))
    except (ConfigError, InfeasibleError) as error:
        event(f"{name}: {type(error).__name__} {error.where[-24:]}")
        return
    event(f"{name}: compared")
    agree(graph, made, session)


def codes_of(made: Graph, chip: Any, graph: Graph) -> Any:
    """Outputs of the interpreter on inputs that leave the calibrated range."""
    inputs = {}
    for name, real in inputs_of(graph, 16, seed=3).items():
        quant = made.type(name).quant
        assert quant is not None
        inputs[name] = to_codes(real, quant)
    return interpret(made, inputs)[graph.outputs[0]]


WHOLE = {  # chips whose readout sees whole codes and weights, so that a scale in front of it changes no code
    **{name: CHIPS[name] for name in ("exact", "exact-unsigned", "wtm2101")},
    "adc-whole": (
        "parametric-reram-adc8",
        (
            "array.rows=40", "array.cols=12", "core.macros=40", "macro.input.bits_per_pass=8",
            "array.bits_per_cell=7", "macro.weights.slices=1", "cell=nor-flash-8b", "macro.columns_per_adc=12",
        ),
    ),
}  # fmt: skip
SAME = {
    "input": Precision(input_shift=1), "weight": Precision(weight_shift=1), "copies": Precision(copies=4),
    "apart": Precision(copies=2, apart=True), "reads": Precision(reads=4),
    "all": Precision(input_shift=1, weight_shift=1, copies=2, apart=True, reads=2),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("what", SAME)
def test_codes_stay(name: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is driven, programmed or read more often scales the step with it: the same integers when ideal."""
    monkeypatch.setitem(CHIPS, name, WHOLE[name])
    wanted, graph = SAME[what], network("depthwise" if what in ("copies", "all") else "matmul", 1)
    chip, plan = planned(graph, name, Precision(), room=True)
    plain = verify(precision.apply_plan(graph, chip, plan=plan))
    if wanted.reads and name.startswith("exact"):
        wanted = replace(wanted, reads=0)
    if name == "wtm2101" and wanted.input_shift:  # ptq drives signed codes moved up, ReLU codes doubled: no room
        plan = replace(plan, layers={n: replace(p, input_shift=0) for n, p in plan.layers.items()})
        plain = verify(precision.apply_plan(graph, chip, plan=plan))
    plan = replace(plan, layers={n: replace(p, precision=wanted) for n, p in plan.layers.items()})
    made, session = built(graph, chip, plan)
    codes = codes_of(plain, chip, graph)
    assert np.unique(codes).size > 10
    assert np.array_equal(codes_of(made, chip, graph), codes)
    agree(graph, made, session)


@pytest.mark.parametrize("name", ["exact-unsigned", "adc-unsigned"])
def test_pn_gives_the_sums_of_a_shift(name: str) -> None:
    """Rows x and -x hold what codes moved up hold; on an exact readout the integers are the same."""
    graph = network("conv", 2)
    outs = []
    for wanted in (Precision(), Precision(signed="pn")):
        made, session = built(graph, *planned(graph, name, wanted))
        agree(graph, made, session)
        outs.append(codes_of(made, session, graph))
        placed = sum(t.rows * t.cols for s in session.program.sections for b in s.bindings for t in b.tiles)
        assert placed == made.constants[f"{made.nodes[0].name}.weight"].size * (2 if wanted.signed else 1)
    if name.startswith("exact"):
        assert np.array_equal(*outs)


@pytest.mark.parametrize(("bits", "kind"), [(9, "conv"), (12, "matmul"), (15, "depthwise")])
@pytest.mark.parametrize("name", [n for n in CHIPS if n != "wtm2101"])
def test_wide_activations(name: str, bits: int, kind: str) -> None:
    """Codes wider than the drivers take more passes and give the numbers of the wide codes."""
    graph = network(kind, 3)
    chip, plan = planned(graph, name, Precision(), activation_bits=bits)
    made, session = built(graph, chip, plan)
    quant = made.type(graph.inputs[0]).quant
    assert quant is not None
    assert quant.bits == bits
    agree(graph, made, session)
    plain = built(graph, *planned(graph, name, Precision()))[1]
    passes = [counts_of(s.program, chip).total["array_operations"] for s in (plain, session)]
    step = chip.macro.input.bits_per_pass
    step -= 1 if chip.macro.input.signed and step == chip.macro.input.bits else 0
    assert passes[1] * chip.macro.passes == passes[0] * -(-bits // step)


def test_wide_codes_mean_what_they_say() -> None:
    """An exact chip with 8-bit rows reads 12-bit codes as one with 12-bit rows does."""
    graph = network("conv", 4)
    chip, plan = planned(graph, "exact", Precision(), activation_bits=12)
    wide = load_chip(CHIPS["exact"][0], overrides=(*CHIPS["exact"][1], "macro.input.bits=12"))
    here, there = (built(graph, c, plan)[0] for c in (chip, wide))
    assert here.nodes[0].attr("input_bits") == 12
    assert there.nodes[0].attr("input_bits") is None
    assert np.array_equal(codes_of(here, chip, graph), codes_of(there, wide, graph))


# what they cost, and what they are for


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", ["adc", "adc-unipolar", "adc-joined"])
def test_every_column_tile_has_its_own_range(name: str, kind: str) -> None:
    """Codes of a column are those that the whole layer has at that column's range."""
    graph = network(kind, 4)
    steps = (-1, 0, 2)
    made, session = built(graph, *planned(graph, name, Precision(finer_columns=steps)))
    agree(graph, made, session)
    layer = next(n for n in made.nodes if n.attr("readout", "") == "adc")
    columns = made.constants[layer.inputs[2]].size
    each = [len(part) for part in np.array_split(np.arange(columns), 3)]
    codes, axis = codes_of(made, None, graph), 2 if layer.op == "Conv" else -1
    for step, part in zip(steps, np.array_split(np.arange(columns), 3), strict=True):
        chip, plan = planned(graph, name, Precision(finer=(step,)) if step else Precision())
        alike = precision.apply_plan(graph, chip, plan=plan)
        assert np.array_equal(np.take(codes, part, axis), np.take(codes_of(alike, None, graph), part, axis))
    bound = {b.readout.shift for s in session.program.sections for b in s.bindings}
    assert sum(each) == columns
    assert len(bound) == len(steps) or min(bound) == 0, "a binding has one range"


def test_copies_and_reads_are_counted() -> None:
    graph = network("conv", 5)
    found = {}
    for what, wanted in {
        "none": Precision(),
        "copies": Precision(copies=2, apart=True),
        "reads": Precision(reads=3),
    }.items():
        chip, plan = planned(graph, "adc", wanted)
        program = built(graph, chip, plan)[1].program
        found[what] = counts_of(program, chip).total, simulate_time(program, chip).latency, program.meta["cells_used"]
    none, copies, reads = (found[w] for w in ("none", "copies", "reads"))
    for event_ in ("array_operations", "adc_conversions", "dac_drives", "array_macs"):
        assert copies[0][event_] == 2 * none[0][event_]
        assert reads[0][event_] == 3 * none[0][event_]
    assert copies[0]["macs"] == none[0]["macs"] == reads[0]["macs"]
    assert copies[2] == 2 * none[2] == 2 * reads[2]
    assert reads[1] > none[1]


def positive(graph: Graph, samples: int, *, seed: int = 0) -> dict[str, Any]:
    """Inputs that need no zero point, whose bias would fill the array's bias rows."""
    return {n: np.abs(x) for n, x in inputs_of(graph, samples, seed=seed).items()}


def dense(name: str, wanted: Precision) -> Session:
    """One dense layer of 40 by 64 on a preset chip."""
    rng = np.random.default_rng(0)
    w, b = (rng.standard_normal((40, 64)) / 6).astype(np.float32), np.zeros(64, np.float32)
    layer = node("Gemm", ["x", "w", "b"], ["y"])
    graph = captured(model([layer], inputs={"x": ["N", 40]}, outputs=["y"], tensors={"w": w, "b": b}))
    chip = load_chip(name)
    plan = ptq.plan(graph, chip, data=positive(graph, 16), seed=0)
    plan = replace(plan, layers={n: replace(p, precision=wanted) for n, p in plan.layers.items()})
    return built(graph, chip, plan)[1]


def errors(name: str, wanted: Precision, effects: str, *, samples: int = 6, instances: int = 6) -> float:
    """Mean square error of output codes over chips with these effects."""
    session, chip = dense(name, wanted), load_chip(name)
    codes = session.codes({n: np.abs(x) for n, x in inputs_of(session.graph, samples, seed=9).items()})
    ideal = session.run_codes(codes)["y"].astype(np.float64)
    physics = Physics.parse(effects, chip)
    total = 0.0
    for instance in range(instances):
        noisy = instance_session(session, physics, instance=instance, seed=1).run_codes(codes)["y"]
        total += float(((noisy - ideal) ** 2).mean())
    return total / instances


@pytest.mark.parametrize("name", ["parametric-reram-adc8", "wtm2101"])
@pytest.mark.parametrize("apart", [False, True])
def test_copies_average_programming_errors(name: str, apart: bool) -> None:
    """Independent errors of cells: a quarter of the variance with four copies, beside what rounding adds to both."""
    one, four = (errors(name, Precision(copies=n, apart=apart), "programming_noise") - 1 / 6 for n in (1, 4))
    assert one > 0.2
    assert 0.15 < four / one < 0.4


@pytest.mark.parametrize("apart", [False, True])
def test_copies_are_cells_of_their_own(apart: bool) -> None:
    """What four copies hold on average misses the weights with a quarter of one copy's variance."""
    chip, missed = load_chip("wtm2101"), {}
    for count in (1, 4):
        session = dense("wtm2101", Precision(copies=count, apart=apart))
        section = session.program.sections[0]
        [binding] = section.bindings
        model_ = MacroModel(chip, Physics.parse("programming_noise", chip), seed=3)
        parts = model_.bind(session.program, section, binding, dtype=np.int8).analog
        held = np.concatenate([arrays[0][1].cells for arrays in parts]).reshape(count, 40, 64)
        wanted = session.program.weight(binding.weight).reshape(count, 40, 64)
        missed[count] = float((held - wanted).mean(axis=0).var())
    assert 0.22 < missed[4] / missed[1] < 0.28


def test_reads_average_noise() -> None:
    """The noise of reads falls as 1/n: the chip's own two reads against eight."""
    two, eight = (errors("wtm2101", Precision(reads=n), "adc_noise") for n in (2, 8))
    assert two > 0.1
    assert 0.1 < eight / two < 0.5


# what a person asks for


def test_what_does_not_fit_is_an_answer() -> None:
    graph = network("matmul", 6)
    with pytest.raises(InfeasibleError, match=r"rows of .* in one reading: needs 72 rows, has 40 rows"):
        built(graph, *planned(graph, "adc", Precision(copies=8)))
    tall = network("tall", 6)
    few, plan = planned(tall, "adc", Precision(copies=64, apart=True))
    few = load_chip(CHIPS["adc"][0], overrides=(*CHIPS["adc"][1], "core.macros=4"))
    with pytest.raises(InfeasibleError, match="cells of one chip: needs 16,000 cells, has 7,680"):
        built(tall, few, plan)


@pytest.mark.parametrize(
    ("name", "wanted", "match"),
    [
        ("exact", Precision(reads=2), "digital sums have no noise"),
        ("exact", Precision(finer=(1,)), "converter"),
        ("exact", Precision(signed="pn"), "rows driven with codes from 0"),
        ("adc", Precision(input_shift=1), "codes that rows take, -128 to 127"),
        ("wtm2101", Precision(finer=(1,)), "row parts, or copies apart"),
        ("adc", Precision(finer=(1, 2)), "one, or one for each of its 1 row parts"),
        ("wtm2101", Precision(weight_shift=3), "what a cell holds"),
        ("wtm2101", Precision(finer_columns=(1, 0)), "a readout of kind wtm2101"),
        ("adc", Precision(finer_columns=(1,) * 99), "99 tiles of"),
    ],
)
def test_what_a_chip_cannot_do_is_refused(name: str, wanted: Precision, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        built(network("matmul", 7), *planned(network("matmul", 7), name, wanted))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("layers: {y*: {copys: 2}}", r"copys: unknown key.*\n?.*copies"),
        ("layers: {y*: {copies: 3}}", "copies = 3"),
        ("layers: {y*: {reads: 0}}", "reads = 0"),
        ("layers: {z*: {copies: 2}}", "no layer"),
        ("layer: {}", "unknown key"),
    ],
)
def test_files_are_strict(text: str, match: str, tmp_path: Path) -> None:
    file = tmp_path / "precision.yaml"
    file.write_text(text)
    graph = network("matmul", 8)
    chip, plan = planned(graph, "adc", Precision())
    with pytest.raises(ConfigError, match=match):
        requested(plan, graph, chip, wanted=read_precision(file))


def test_plans_keep_their_transforms() -> None:
    graph = network("matmul", 8)
    wanted = Precision(copies=2, apart=True, reads=4, finer=(1, 0), signed="pn", finer_columns=(0, 2))
    plan = planned(graph, "adc", wanted)[1]
    assert plan_from_json(plan_to_json(plan)) == plan


def test_deploy_takes_transforms() -> None:
    graph = network("conv", 9)
    chip = load_chip(CHIPS["adc"][0], overrides=CHIPS["adc"][1])
    wanted = {"*": {"reads": 2, "copies": 4}, "y*": {"activation_bits": 12, "copies": 2}}
    made = deploy(graph, chip, physics="ideal", precision=wanted)
    assert made.result.bit_exact is not None
    assert made.result.bit_exact.mismatches == 0
    assert made.plan is not None
    assert [p.precision for p in made.plan.layers.values()] == [Precision(reads=2, copies=2)]
    assert made.plan.values["x"].bits == 12
