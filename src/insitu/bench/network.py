"""`insitu bench network`: whole networks, ideal and under full physics, over ONNX Runtime's float of the same model.

The residual network for CIFAR (ResNet-20) and a 6-layer encoder of width 384 on 128 tokens, random weights, on the
benchmarks' analog chip.  A program is compiled and its arrays programmed once, before the clock starts; each call runs
all samples from codes to codes.  Ideal runs are of the same chip with nothing of its physics on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.bench.pairs import case, paired
from insitu.bench.result import BenchResult, Case

Array = npt.NDArray[Any]
BARS = {"ideal": 0.25, "full": 0.12}  # of ONNX Runtime's speed
SAMPLES = {"resnet20": 128, "encoder": 16}


def run() -> BenchResult:
    """Both networks, both kinds of physics."""
    cases: list[Case] = []
    for name, samples in SAMPLES.items():
        model, program = built(name)
        x = np.random.default_rng(1).standard_normal((samples, *input_shape(model)), np.float32)
        baseline = onnxruntime_run(model, x)
        for physics, least in BARS.items():
            cases.append(case(f"{name}, {physics}", paired(simulated(program, physics, x), baseline), least))
    return BenchResult("network", tuple(cases), "of ONNX Runtime float: ideal 0.25, full physics 0.12")


def built(name: str) -> tuple[Any, Any]:
    """The ONNX model and its program."""
    from insitu.bench import networks
    from insitu.bench.layer import bench_chip
    from insitu.flow.chain import build, capture
    from insitu.frontend.onnx import import_model

    model, chip = getattr(networks, name)(), bench_chip()
    graph = capture(import_model(model))
    data = {"x": np.random.default_rng(0).standard_normal((4, *input_shape(model)), np.float32)}
    return model, build(graph, chip, calibration=data)[2]


def input_shape(model: Any) -> tuple[int, ...]:
    """Shape of the model's input, its own batch of one included."""
    return tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)


def simulated(program: Any, physics: str, x: Array) -> Callable[[], Any]:
    """A call that runs all samples x [samples, *shape] on one chip instance."""
    from insitu.runtime.session import Session

    session = Session(program, physics=physics)
    codes = session.codes(x)
    return lambda: session.run_codes(codes)


def onnxruntime_run(model: Any, x: Array) -> Callable[[], Any]:
    """The same in float: all samples as one batch, on all cores."""
    import onnxruntime

    from insitu.runtime.parallel import threads

    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    batch = x.reshape(-1, *x.shape[2:])
    return lambda: session.run(None, {"x": batch})
