"""Precision transforms on random layers and every readout: interpreter, instruction set and simulator agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from insitu.algo import ptq
from insitu.arch.load import load_chip
from insitu.base.errors import ConfigError, InfeasibleError
from insitu.compiler import precision
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.plan import LayerPlan, Precision, QuantPlan
from insitu.flow.check import compare
from insitu.flow.precision import read_precision, requested
from insitu.graph.graph import Graph
from insitu.graph.interpret import interpret
from insitu.graph.text import parse_graph, print_graph, same_graph
from insitu.graph.verify import verify
from insitu.isa.assembler import parse_section, print_section
from insitu.isa.check import check_program
from insitu.runtime.session import Session
from tests.flow.line import captured, check_semantics, inputs_of
from tests.graph.networks import model, node

CHIPS: Mapping[str, tuple[str, tuple[str, ...]]] = {
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
    program = compile_graph(made, chip)
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
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
