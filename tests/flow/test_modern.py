"""Networks of today on three kinds of readout: compiled, checked, every integer compared, near the float network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from insitu.algo import ptq
from insitu.arch.load import load_chip
from insitu.compiler import adapt
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.quantize import quantize
from insitu.flow.chain import capture
from insitu.flow.check import compare
from insitu.flow.data import random_inputs
from insitu.flow.figures import array_share
from insitu.flow.quality import Closeness
from insitu.frontend.onnx import import_model
from insitu.graph.export import float_session
from insitu.graph.verify import verify
from insitu.isa.check import check_program
from insitu.runtime.session import Session
from tests.flow import modern
from tests.graph.networks import model, node

SMALL: dict[str, Callable[[], Any]] = {
    "bert": lambda: modern.bert(2, 32, 2, 8, 50), "vit": lambda: modern.vit(1, 32, 2, 16, 8, 10),
    "gpt": lambda: modern.gpt(1, 32, 4, 2, 8, 40), "lstm2": lambda: modern.lstm2(5, 12, 16),
    "unet": lambda: modern.unet(16, 4, 2), "unet-resize": lambda: modern.unet(16, 4, 2, resize=True),
    "tc_resnet": lambda: modern.tc_resnet(32, 20),
}  # fmt: skip
WIDE: dict[str, Callable[[], Any]] = {
    "bert-base": modern.bert,
    "vit-b": modern.vit,
    "lstm2": lambda: modern.lstm2(64),
    "unet": modern.unet,
}
LARGE = ("chip.tiles=320", "memories.ram.size=32 MiB")
LEAST = {"dcim-28nm": 22.0, "parametric-reram-adc8": 20.0, "wtm2101": 15.0}  # dB over random inputs, any network here


def built(
    proto: Any, preset: str, overrides: tuple[str, ...] = (), *, samples: int = 8
) -> tuple[Session, dict[str, Any], Any]:
    """A session, its inputs, and the captured graph."""
    chip = load_chip(preset, overrides=overrides)
    graph = verify(adapt.run(capture(import_model(proto, name="net")), chip))
    data = random_inputs(graph, samples, seed=1)
    quantized = verify(quantize(graph, chip, plan=ptq.plan(graph, chip, data=data)))
    program = compile_graph(quantized, chip)
    check_program(program)
    return Session(program, graph=quantized), data, graph


QUICK = ("bert", "gpt", "lstm2")
CASES = [
    pytest.param(n, c, id=f"{n}-{c}", marks=[] if c == "dcim-28nm" and n in QUICK else [pytest.mark.slow])
    for n in SMALL
    for c in LEAST
]


@pytest.mark.parametrize(("name", "chip"), CASES)
def test_small(name: str, chip: str) -> None:
    session, data, graph = built(SMALL[name](), chip, () if chip == "dcim-28nm" else ("memories.ram.size=4 MiB",))
    codes = session.codes({n: a[:2] for n, a in data.items()})
    result = compare(session, codes)
    assert result.mismatches == 0, result.first
    assert array_share(session.graph) == 1.0
    hosted = {n.attr("operator") for n in session.graph.nodes if n.op == "Host"}
    assert hosted <= ({"MatMul", "Norm"} if chip == "wtm2101" else set())
    near, floats = Closeness(), float_session(graph)(data)
    outputs = session.run_codes(session.codes(data))
    for value in session.outputs:
        near.add(floats[value], session.real(value, outputs[value]))
    assert near.sqnr_db is not None
    assert near.sqnr_db > LEAST[chip]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["holds", "reload"])
@pytest.mark.parametrize("name", WIDE)
def test_full_width(name: str, kind: str) -> None:
    session, data, _ = built(
        WIDE[name](), "dcim-28nm", LARGE if kind == "holds" else ("memories.ram.size=16 MiB",), samples=2
    )
    result = compare(session, session.codes({n: a[:1] for n, a in data.items()}))
    assert result.mismatches == 0, result.first
    share = array_share(session.graph)
    assert share is not None
    assert share >= 0.9


def test_steps_of_a_recurrent_layer_share_their_cells() -> None:
    session, _, _ = built(modern.lstm2(6, 12, 16), "dcim-28nm")
    layers = [n for n in session.graph.nodes if n.op == "MatMul"]
    names = {n.inputs[1] for n in layers}
    assert len(layers) == 2 * (1 + 5) + 1  # all inputs at once, a product with the state from the second step on
    assert len(names) == 2 * 2 + 1
    cells = sum(int(np.prod(session.graph.constants[v].shape)) for v in names)
    assert session.program.meta["cells_used"] == cells


def siamese() -> Any:
    """One convolution, with its ReLU, on two inputs: its outputs share codes but meet in no sum."""
    rng = np.random.default_rng(0)
    w, b = (rng.standard_normal(s).astype(np.float32) for s in ((8, 3, 3), (8,)))
    nodes = [node("Conv", [x, "w", "b"], [f"a_{x}"]) for x in ("x", "z")]
    nodes += [node("Relu", [f"a_{x}"], [f"r_{x}"]) for x in ("x", "z")]
    nodes += [node("ReduceMax", [f"r_{x}"], [f"y_{x}"], axes=[2], keepdims=0) for x in ("x", "z")]
    shapes = {"x": (1, 3, 10), "z": (1, 3, 10)}
    return model(nodes, inputs=shapes, outputs=["y_x", "y_z"], tensors={"w": w, "b": b}, opset=17)


@pytest.mark.parametrize("chip", list(LEAST))
def test_a_layer_shared_by_two_branches(chip: str) -> None:
    session, data, _ = built(siamese(), chip)
    assert compare(session, session.codes(data)).mismatches == 0
