"""Image generators: published counts, and a small U-Net with its sampler's step, integer by integer."""

from __future__ import annotations

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
from insitu.frontend.onnx import import_model
from insitu.graph.verify import verify
from insitu.llm.images import draw, load_image_shape
from insitu.runtime.session import Session
from tests.flow.modern import Writer


def test_the_unets_parameters() -> None:
    """859,520,964 is what its authors' checkpoint holds."""
    assert load_image_shape("sd-1.5-unet").parameters == 859_520_964


def test_the_transformers_counts() -> None:
    """675 M parameters and 118.64 G multiply-adds a pass (arXiv 2212.09748, table 1; positions are not learned)."""
    shape = load_image_shape("shape:dit-xl-2")
    assert shape.parameters == pytest.approx(675e6, rel=0.005)
    assert shape.macs_per_pass == pytest.approx(118.64e9, rel=0.01)


def test_an_image_on_chips_beside_a_gpu() -> None:
    shape = load_image_shape("sd-1.5-unet")
    found = draw(shape, load_chip("aim-gddr6"))
    assert found.seconds == pytest.approx(sum(found.parts.values()))
    assert found.chips >= 1
    assert found.beside_seconds is not None
    assert found.beside_seconds == pytest.approx(2 * shape.macs_per_image / 9.89e14 / 0.698, rel=0.01)


def _denoiser(size: int = 8, width: int = 8) -> object:
    """A U-Net of one level with a time embedding, and DDIM's step around it: 0.9 x - 0.3 noise."""
    w = Writer()

    def conv(x: str, a: int, b: int, *, stride: int = 1) -> str:
        return w.op("Conv", x, w.weight(b, a, 3, 3, fan=9 * a), w.vector(b), pads=[1] * 4, strides=[stride] * 2)

    def block(x: str, c: int) -> str:
        x = w.op("InstanceNormalization", x, w.vector(c, 1.0), w.vector(c))
        return w.op("Mul", x, w.op("Sigmoid", x))

    time = w.dense(w.op("Gather", w.weight(10, width, fan=1), "t"), width, 2 * width)
    top = block(conv("x", 4, width), width)
    low = conv(top, width, 2 * width, stride=2)
    low = block(w.op("Add", low, w.reshape(time, 1, 2 * width, 1, 1)), 2 * width)
    up = w.op("Resize", conv(low, 2 * width, width), "", w.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    noise = conv(w.op("Concat", up, top, axis=1), 2 * width, 4)
    kept = w.op("Mul", "x", w.const(np.float32(0.9)))
    step = w.op("Sub", kept, w.op("Mul", noise, w.const(np.float32(0.3))))
    return w.model({"x": (1, 4, size, size), "t": (1,)}, [step], t=7)


@pytest.mark.slow
def test_a_step_of_a_small_unet_with_its_sampler() -> None:
    chip = load_chip("dcim-28nm")
    graph = verify(adapt.run(capture(import_model(_denoiser(), name="denoiser")), chip))
    data = random_inputs(graph, 8, seed=1)
    quantized = verify(quantize(graph, chip, plan=ptq.plan(graph, chip, data=data)))
    session = Session(compile_graph(quantized, chip), graph=quantized)
    result = compare(session, session.codes({n: a[:4] for n, a in data.items()}))
    assert (result.mismatches, result.first) == (0, None)
    assert result.checked_values > 10_000
