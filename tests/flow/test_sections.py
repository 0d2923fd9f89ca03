"""Sections per core with tokens: what the compiler orders, the static check accepts and any interleaving gives."""

from __future__ import annotations

import numpy as np
import pytest

from insitu.base.errors import ProgramError
from insitu.flow.chain import capture
from insitu.flow.check import compare, reference
from insitu.isa import semantics
from insitu.isa.check import check_program, find_faults
from insitu.runtime.session import Session
from insitu.sim.functional import load, run
from tests.flow.corrupt import find, without
from tests.flow.line import build, captured, check_network, chip_of, cores_of, inputs_of, ops_of
from tests.graph.networks import model, node

DATA = {"resnet20": "cifar_resnet/resnet20.onnx"}


def residual(rng):
    """Two stages of residual blocks, a downsampling shortcut between them."""
    shapes = {
        "a": (6, 3, 3, 3),
        "b": (6, 6, 3, 3),
        "c": (6, 6, 3, 3),
        "d": (8, 6, 3, 3),
        "e": (8, 8, 3, 3),
        "f": (8, 6, 1, 1),
    }
    nodes = [
        node("Conv", ["x", "a"], ["a0"], pads=[1, 1, 1, 1]),
        node("Relu", ["a0"], ["a1"]),
        node("Conv", ["a1", "b"], ["b0"], pads=[1, 1, 1, 1]),
        node("Relu", ["b0"], ["b1"]),
        node("Conv", ["b1", "c"], ["c0"], pads=[1, 1, 1, 1]),
        node("Add", ["c0", "a1"], ["s0"]),
        node("Relu", ["s0"], ["s1"]),
        node("Conv", ["s1", "d"], ["d0"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["d0"], ["d1"]),
        node("Conv", ["d1", "e"], ["e0"], pads=[1, 1, 1, 1]),
        node("Conv", ["s1", "f"], ["f0"], strides=[2, 2]),
        node("Add", ["e0", "f0"], ["t0"]),
        node("Relu", ["t0"], ["t1"]),
        node("GlobalAveragePool", ["t1"], ["g"]),
        node("Flatten", ["g"], ["h"]),
        node("Gemm", ["h", "w"], ["y"], transB=1),
    ]
    tensors = {n: rng.standard_normal(s).astype(np.float32) / np.sqrt(np.prod(s[1:])) for n, s in shapes.items()}
    tensors["w"] = rng.standard_normal((5, 8)).astype(np.float32)
    return captured(model(nodes, inputs={"x": ["N", 3, 6, 6]}, outputs=["y"], tensors=tensors))


@pytest.mark.parametrize("chip", ["exact", "exact-small", "exact-joined", "adc"])
def test_a_residual_network_lies_on_several_cores(chip, tmp_path):
    program = check_network(residual(np.random.default_rng(0)), chip_of(chip), tmp_path)
    assert len(cores_of(program)) >= 2
    assert {"SIG", "AWAIT"} <= ops_of(program)
    tokens = [int(c.args[0]) for s in program.sections for c in s.code if c.op == "SIG"]
    assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize("chip", ["exact", "exact-joined"])
def test_no_interleaving_changes_the_result(chip):
    """The reference tries sections in several orders; one that starts late meets memory that others used again."""
    graph = residual(np.random.default_rng(1))
    quantized, program = build(graph, chip_of(chip))
    codes = Session(program).codes(inputs_of(graph, 1))
    wanted = reference(quantized, codes)["y"][0]
    count = len(program.sections)
    rng = np.random.default_rng(0)
    for order in (range(count), range(count - 1, -1, -1), rng.permutation(count)):
        got = semantics.run(program, {"x": codes["x"][0]}, order=[int(i) for i in order])
        assert np.array_equal(got["y"], wanted)


def test_the_static_check_and_the_simulator_agree_on_a_missing_signal():
    _, program = build(residual(np.random.default_rng(2)), chip_of("exact"))
    section, index = find(program, "SIG")[0]
    broken = without(program, section=section, index=index)
    assert "T1" in {f.rule for f in find_faults(broken)}
    with pytest.raises(ProgramError, match="deadlock"):
        run(load(broken), {"x": np.zeros((1, 1, 3, 6, 6), np.int64)})


def test_resnet20_on_several_cores_is_exact(shared_data):
    """CIFAR ResNet-20, two images, all values; 0 differ."""
    path = shared_data / DATA["resnet20"]
    if not path.exists():
        pytest.skip(f"needs {path}")
    graph = capture(path)
    quantized, program = build(graph, chip_of("exact"))
    assert len(cores_of(program)) >= 2
    check_program(program)
    session = Session(program, graph=quantized)
    exact = compare(session, session.codes(inputs_of(graph, 2)))
    assert exact.checked_values >= 100_000
    assert exact.mismatches == 0, exact.first
