"""One layer's output scale times or over 64: the diagnosis names that layer, and nobody in a healthy network."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from insitu.algo import ptq
from insitu.compiler.plan import QuantPlan
from insitu.flow import Deployment, deploy
from insitu.flow.chain import Options, capture
from insitu.flow.quality import range_ratio
from insitu.graph.graph import Graph, Node
from insitu.numeric.affine import QuantSpec
from insitu.report.diagnose import broken_layer, broken_text
from tests.flow.line import captured, chip_of
from tests.flow.test_sections import residual
from tests.graph.networks import model, node

QUICK = Options(physics="ideal", instances=1, check=1)
MOVED = ("Reshape", "Transpose", "Slice", "MaxPool", "Pad", "Softmax")  # their codes mean what their input's mean


def chain(rng, blocks, *, channels=12):
    """A network of conv blocks, a mean and a classifier; a block is a list of (channels out, kernel, group)."""
    nodes, tensors, value, width = [], {}, "x", 3
    for i, (out, kernel, group) in enumerate(blocks):
        out, group = out or width, width if group == "depthwise" else 1
        w = rng.standard_normal((out, width // group, kernel, kernel)) * np.sqrt(2 / (width // group * kernel**2))
        w *= np.exp(0.4 * rng.standard_normal((out, 1, 1, 1)))  # unequal channels
        tensors |= {f"w{i}": w.astype(np.float32), f"b{i}": (0.1 * rng.standard_normal(out)).astype(np.float32)}
        nodes.append(node("Conv", [value, f"w{i}", f"b{i}"], [f"c{i}"], pads=[kernel // 2] * 4, group=group))
        nodes.append(node("Relu", [f"c{i}"], [f"r{i}"]))
        value, width = f"r{i}", out
    tensors["fc"] = (rng.standard_normal((6, width)) / np.sqrt(width)).astype(np.float32)
    nodes += [node("GlobalAveragePool", [value], ["g"]), node("Flatten", ["g"], ["h"])]
    nodes.append(node("Gemm", ["h", "fc"], ["y"], transB=1))
    return captured(model(nodes, inputs={"x": ["N", 3, 8, 8]}, outputs=["y"], tensors=tensors))


def plain():
    return chain(np.random.default_rng(0), [(12, 3, ""), (12, 3, ""), (16, 1, ""), (16, 3, "")])


def depthwise():
    block = [(0, 3, "depthwise"), (16, 1, "")]
    return chain(np.random.default_rng(1), [(16, 3, ""), *block, *block])


NETWORKS = {"plain": plain, "residual": lambda: residual(np.random.default_rng(3)), "depthwise": depthwise}


@cache
def planned(network: str, chip: str) -> tuple[Graph, QuantPlan, np.ndarray]:
    graph = NETWORKS[network]()
    (name,) = graph.inputs
    x = np.random.default_rng(0).standard_normal((24, *graph.type(name).sizes())).astype(np.float32)
    return graph, ptq.plan(graph, chip_of(chip), data={name: x}), x


def deployed(network: str, chip: str, value: str = "", factor: float = 1.0) -> Deployment:
    graph, plan, x = planned(network, chip)
    plan = plan.with_output_scale(value, factor) if value else plan
    return deploy(graph, chip_of(chip), data={"x": x}, plan=plan, options=QUICK)


def layers_of(graph: Graph) -> list[Node]:
    """Nodes that have an output scale of their own."""
    return [n for n in graph.nodes if n.op not in MOVED]


@pytest.mark.parametrize("chip", ["exact", "wtm2101"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_healthy_network_has_no_culprit(network, chip):
    result = deployed(network, chip).result
    assert broken_layer(result.layers) is None
    assert broken_text(result) is None


@pytest.mark.parametrize("factor", [64, 1 / 64])
@pytest.mark.parametrize("chip", ["exact", "wtm2101"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_layer_with_the_wrong_scale_is_named(network, chip, factor):
    graph, _, _ = planned(network, chip)
    for layer in layers_of(graph)[:: 3 if chip == "wtm2101" else 1 if factor == 64 else 2]:
        result = deployed(network, chip, layer.output, factor).result
        assert result.bit_exact.mismatches == 0  # the wrong scale is computed rightly
        assert broken_layer(result.layers) == layer.name
        row = next(r for r in result.to_json()["layers"] if r["name"] == layer.name)
        assert row["sqnr_local_db"] < 20
        assert layer.name in broken_text(result)


REAL = {"cnn": "mlperf_tiny/kws_dscnn.onnx", "resnet": "mlperf_tiny/ic_resnet8.onnx"}


@pytest.mark.parametrize("chip", ["exact", "wtm2101"])
@pytest.mark.parametrize("name", REAL)
def test_in_real_networks_too(name, chip, shared_data):
    """MLPerf Tiny keywords (depthwise) and image classification (residual), on random inputs."""
    path = shared_data / REAL[name]
    if not path.exists():
        pytest.skip(f"needs {path}")
    graph = capture(path)
    (value,) = graph.inputs
    x = np.random.default_rng(0).standard_normal((16, *graph.type(value).sizes())).astype(np.float32)
    x = 100 * x + 100 if name == "resnet" else 20 * x
    plan = ptq.plan(graph, chip_of(chip), data={value: x})
    layers = layers_of(graph)
    for layer, factor in ((layers[len(layers) // 2], 1 / 64), (layers[-1], 64)):
        wrong = plan.with_output_scale(layer.output, factor)
        result = deploy(graph, chip_of(chip), data={"x": x}, plan=wrong, options=QUICK).result
        assert broken_layer(result.layers) == layer.name


def test_the_range_ratio_is_the_factor_of_the_scale():
    real, layer = np.linspace(-1, 1, 51).reshape(1, 51), Node("n", "Conv", (), ("y",), {"lo": -127, "hi": 127})
    for factor in (1 / 64, 0.5, 1, 64):
        spec = QuantSpec(8, signed=True, scale=(factor / 127,))
        assert range_ratio(real[None], spec, layer) == pytest.approx(factor)
    relu = Node("n", "Conv", (), ("y",), {"lo": 0, "hi": 127})
    assert range_ratio(np.maximum(real, 0)[None], QuantSpec(8, signed=True, scale=(1 / 127,)), relu) == pytest.approx(1)
    assert range_ratio(0 * real[None], spec, layer) is None
    channels = np.array([1.0, 100.0, 0.0])
    spec = QuantSpec(8, signed=True, scale=(64 / 127, 6400 / 127, 1.0), axis=1)
    assert range_ratio(np.stack([channels, -channels])[:, None], spec, layer) == pytest.approx(64)
