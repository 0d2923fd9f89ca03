"""The classic networks on a chip that holds them and on ones that do not: compiled, checked, every integer compared."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.algo import ptq
from insitu.arch.load import load_chip
from insitu.arch.spec import Chip
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.quantize import quantize
from insitu.flow.chain import capture
from insitu.flow.check import compare
from insitu.flow.figures import array_share
from insitu.frontend.onnx import import_model
from insitu.isa.check import check_program
from insitu.isa.program import Program
from insitu.runtime.session import Session
from tests.flow.classics import NETWORKS

SIZES = {"vgg16": 32, "tc_resnet8": 98, "unet": 32}  # of the input; others 64
LARGE = ("chip.tiles=320", "memories.ram.size=32 MiB")  # 168 M weights: holds each of them
CHIPS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "holds": ("dcim-28nm", LARGE, 1),
    "reload": ("dcim-28nm", ("memories.ram.size=4 MiB",), 1),
    "chips": ("dcim-28nm", ("memories.ram.size=4 MiB",), 80),
    "adc-chips": ("parametric-reram-adc8", ("memories.ram.size=4 MiB",), 80),
}
QUICK = ("tc_resnet8", "squeezenet", "mobilenet_v2")
SLOW = ("resnet18", "googlenet", "unet")
LONG = ("vgg16", "densenet121", "resnet50")
KINDS = ("holds", "reload", "chips")
EVERY = ("tc_resnet8-holds", "tc_resnet8-reload", "tc_resnet8-chips", "squeezenet-reload")


def marks(name: str, kind: str) -> tuple[pytest.MarkDecorator, ...]:
    """A few turn up in `make test`; all networks in all kinds where the acceptance points run."""
    return () if f"{name}-{kind}" in EVERY else (pytest.mark.long,)


CASES = [
    *(pytest.param(n, c, id=f"{n}-{c}", marks=marks(n, c)) for n in (*QUICK, *SLOW, *LONG) for c in KINDS),
    *(pytest.param(n, "adc-chips", id=f"{n}-adc", marks=pytest.mark.long) for n in ("mobilenet_v2", "resnet18")),
]


def built(name: str, chip: Chip, most: int) -> tuple[Program, int, float]:
    """The program, and the mismatches and share of MACs on arrays of one sample."""
    graph = capture(import_model(NETWORKS[name](SIZES.get(name, 64)), name=name))
    shape = graph.type("x").sizes()
    data = {"x": np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)}
    quantized = quantize(graph, chip, plan=ptq.plan(graph, chip, data=data))
    program = compile_graph(quantized, chip, max_chips=most)
    check_program(program)
    session = Session(program, graph=quantized)
    result = compare(session, session.codes({"x": data["x"][:1]}))
    share = array_share(quantized)
    assert share is not None
    return program, result.mismatches, share


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_classic(name: str, kind: str) -> None:
    preset, overrides, most = CHIPS[kind]
    program, mismatches, share = built(name, load_chip(preset, overrides=overrides), most)
    assert mismatches == 0
    assert share >= 0.9
    assert sum(len(s.code) for s in program.sections) < 30_000
    small = program.meta["weights"] < 2_000_000
    if kind == "reload":
        assert small or program.meta["segments"] > 1
    else:
        assert "segments" not in program.meta
        assert program.chips == 1 if kind == "holds" else small or program.chips > 1
