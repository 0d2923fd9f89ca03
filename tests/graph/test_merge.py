"""Several networks as one graph: each computes what it did alone."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from insitu.arch.load import load_chip
from insitu.base.errors import ModelError
from insitu.compiler.pipeline import compile_graph
from insitu.compiler.placement_file import blocks_of
from insitu.frontend.onnx import import_model
from insitu.graph.graph import Graph
from insitu.graph.interpret import interpret
from insitu.graph.merge import merge
from insitu.graph.verify import verify
from insitu.isa.check import check_program
from insitu.runtime.session import Session
from tests.frontend.vendor import layer, network, tensor, weights
from tests.graph.networks import model, node


def one(seed: int, name: str, *, memory: bool = False) -> Graph:
    rng = np.random.default_rng(seed)
    nodes = layer("Gemm", "x", "y", relu=True)
    tensors = {"y.w": weights(rng, 8, 5), "y.b": np.zeros(5)}
    if memory:
        offsets = tensor("o", np.array([-1, 0]))
        nodes += [helper.make_node("Tdnn", ["y", "t"], ["z"], name="late", time_offsets=offsets, scale_params=256)]
        tensors["t"] = weights(rng, 10, 3)
    proto = network(nodes, inputs={"x": [1, 8]}, outputs=["z" if memory else "y"], tensors=tensors)
    return verify(import_model(proto, name=name))


def test_networks_with_the_same_names_share_one_array() -> None:
    parts = [one(1, "left"), one(2, "right", memory=True)]
    whole = verify(merge(parts))
    assert whole.inputs == ("left.x", "right.x")
    assert whole.outputs == ("left.y", "z")
    assert whole.name == "left+right"
    program = compile_graph(whole, load_chip("wtm2101"))
    check_program(program)
    assert [n for n, _ in blocks_of(program)] == ["left.y", "right.y", "late"]
    x = np.random.default_rng(3).integers(0, 256, (6, 1, 8))
    got = Session(program, graph=whole).stream({"left.x": x, "right.x": x})
    assert np.array_equal(got["left.y"], interpret(parts[0], {"x": x})["y"])
    alone = Session(compile_graph(parts[1], load_chip("wtm2101")), graph=parts[1]).stream({"x": x})
    assert np.array_equal(got["z"], alone["z"])


def test_the_same_network_twice() -> None:
    assert merge([one(1, "net"), one(1, "net")]).outputs == ("net1.y", "net2.y")


def test_float_and_quantized_do_not_mix() -> None:
    float_ = import_model(model([node("Relu", ["x"], ["y"])], inputs={"x": ["N", 4]}, outputs=["y"]))
    with pytest.raises(ModelError, match="levels captured, quantized"):
        merge([float_, one(1, "net")])
