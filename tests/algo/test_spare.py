"""Empty rows hold copies of a layer: less error for no array more, and the same integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import insitu
from insitu.arch.load import load_chip
from insitu.base.errors import InsituError
from insitu.circuit.effects import Physics
from insitu.flow.chain import build
from insitu.flow.check import compare
from insitu.flow.physics import instance_session
from insitu.runtime.session import Session
from tests.flow.line import captured, check_semantics, inputs_of
from tests.graph.networks import model, node

FINE = (  # one cell a weight, one conversion an output, whose rounding is no part of the error
    "cell=pcm-hermes", "array.bits_per_cell=8", "macro.weights.slices=1", "macro.input.bits_per_pass=8",
    "macro.readout.bits=14",
)  # fmt: skip
ON, OFF, PRESET = "calibration.spare_rows=true", "calibration.spare_rows=false", "parametric-reram-adc8"


def dense(rows: int, columns: int = 24) -> Any:
    w = (np.random.default_rng(0).standard_normal((rows, columns)) / rows**0.5).astype(np.float32)
    gemm = node("Gemm", ["x", "w"], ["y"])
    return captured(model([gemm], inputs={"x": ["N", rows]}, outputs=["y"], tensors={"w": w}))


def grouped(channels: int) -> Any:
    w = np.random.default_rng(0).standard_normal((channels, 1, 3, 3)).astype(np.float32) / 3
    layer = node("Conv", ["x", "w"], ["y"], group=channels, kernel_shape=[3, 3])
    return captured(model([layer], inputs={"x": ["N", channels, 8, 8]}, outputs=["y"], tensors={"w": w}))


def line(graph: Any, *overrides: str) -> tuple[Any, Any, Session]:
    chip = load_chip(PRESET, overrides=overrides)
    plan, quantized, program = build(graph, chip, calibration=inputs_of(graph, 32, seed=1))
    return chip, plan, Session(program, graph=quantized)


def copies(plan: Any) -> int:
    (layer,) = plan.layers.values()
    return layer.precision.copies


def arrays(session: Session) -> int:
    """Those with a tile of the first copy that serves the layer."""
    return len(session.program.sections[0].bindings[0].tiles)


@pytest.mark.parametrize(
    ("graph", "many"),
    [(dense(64), 4), (dense(85), 2), (dense(128), 2), (dense(129), 1), (dense(300), 1), (dense(3), 64),
     (grouped(8), 2), (grouped(16), 1), (grouped(64), 1)],
)  # fmt: skip
def test_a_layer_has_the_copies_that_its_arrays_have_rows_for(graph: Any, many: int) -> None:
    (_, bare, before), (_, plan, after) = line(graph, OFF), line(graph)
    assert (copies(bare), copies(plan)) == (1, many)
    assert arrays(after) == arrays(before)


@pytest.mark.parametrize("graph", [dense(64), grouped(8)])
def test_errors_of_cells_shrink_and_integers_stay(graph: Any) -> None:
    found: list[float] = []
    for rows in (OFF, ON):
        chip, plan, session = line(graph, *FINE, rows)
        codes = session.codes(inputs_of(graph, 24, seed=2))
        assert compare(session, codes).mismatches == 0
        check_semantics(session.program, session.graph, {n: c[0] for n, c in codes.items()})
        ideal, total = next(iter(session.run_codes(codes).values())).astype(float), 0.0
        physics = Physics.parse("programming_noise", chip)
        for instance in range(8):
            noisy = instance_session(session, physics, instance=instance, seed=1).run_codes(codes)
            total += float(((next(iter(noisy.values())) - ideal) ** 2).mean())
        found.append(total * copies(plan))
    assert found[1] == pytest.approx(found[0], rel=0.2)  # of n copies the mean square is an nth


def test_layers_that_share_arrays_have_no_rows_to_spare() -> None:
    small = ("chip.tiles=1", "core.macros=1")
    _, plan, _ = line(dense(64, 64), *small)
    assert copies(plan) == 4
    _, plan, _ = line(dense(64, 192), *small)  # three rectangles for one array
    assert copies(plan) == 1


def test_only_converters_take_copies_for_nothing() -> None:
    with pytest.raises(InsituError, match=r"calibration.spare_rows"):
        load_chip("dcim-28nm", overrides=[ON])


@pytest.mark.parametrize("asked", [{"signed": "pn"}, {"apart": True}])
def test_rows_that_are_asked_for_otherwise_are_free(asked: dict[str, Any]) -> None:
    """Four copies of 40 rows leave none for the negative ones; without it this would fit no array."""
    chip = load_chip(PRESET, overrides=["macro.input.signed=false"])
    x = {"x": np.random.default_rng(0).standard_normal((32, 40)).astype(np.float32)}
    found = insitu.deploy(dense(40), chip, data=x, precision={"*": asked}, physics="ideal")
    assert found.plan is not None
    assert copies(found.plan) == 1
    assert found.result.bit_exact is not None
    assert found.result.bit_exact.mismatches == 0
