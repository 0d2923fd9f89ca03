"""Real networks in ONNX Runtime's quantized forms, with inputs and labels where there are some."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
CALIBRATION = 48
# form, per channel, weights, activations; ONNX Runtime's own integer kernels saturate sums of uint8 times int8 pairs
FORMS = (("QDQ", True, "QInt8", "QInt8"), ("QDQ", False, "QUInt8", "QUInt8"), ("QDQ", True, "QInt8", "QUInt8"),
         ("QOperator", True, "QInt8", "QInt8"), ("QOperator", False, "QUInt8", "QUInt8"))  # fmt: skip


@dataclass(frozen=True)
class Real:
    """A float network and its samples."""

    path: Path
    x: Array
    y: Array | None


def _keywords(data: Path) -> Real:
    z = np.load(data / "mlperf_tiny" / "kws01.npz")
    x = ((z["mfcc_q"].astype(np.float32) - z["zero_point"]) * z["scale"]).astype(np.float32)
    return Real(data / "mlperf_tiny" / "kws_dscnn.onnx", x, z["y"])


def _images(data: Path) -> Real:
    z = np.load(data / "cifar10" / "test.npz")
    return Real(data / "mlperf_tiny" / "ic_resnet8.onnx", z["x"][:500].astype(np.float32), z["y"][:500])


def _residual(data: Path) -> Real:
    z = np.load(data / "cifar10" / "test.npz")
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = ((z["x"][:500] / 255 - mean) / deviation).transpose(0, 3, 1, 2).astype(np.float32)
    return Real(data / "cifar_resnet" / "resnet20.onnx", x, z["y"][:500])


def _machines(data: Path) -> Real:
    x = (np.random.default_rng(0).normal(size=(128, 640)) * 8 - 20).astype(np.float32)
    return Real(data / "mlperf_tiny" / "ad_autoencoder.onnx", x, None)


REAL: dict[str, Callable[[Path], Real]] = {
    "kws_dscnn": _keywords, "ic_resnet8": _images, "resnet20": _residual, "ad_autoencoder": _machines,
}  # fmt: skip


def session(path: Path, *, optimized: bool = False) -> Any:
    """The network in ONNX Runtime; without optimizations it computes in float between Q and DQ."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def quantize(real: Real, form: tuple[str, bool, str, str], folder: Path) -> Path:
    """The network quantized by ONNX Runtime from its first samples."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    name = session(real.path).get_inputs()[0].name
    rows = iter([{name: shaped(real)[i : i + 16]} for i in range(0, CALIBRATION, 16)])

    class Reader(CalibrationDataReader):
        def get_next(self) -> Any:
            return next(rows, None)

    kind, per_channel, weights, activations = form
    target = folder / f"{real.path.stem}-{kind}-{int(per_channel)}-{weights}-{activations}.onnx"
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            real.path, target, Reader(), quant_format=QuantFormat[kind], per_channel=per_channel,
            weight_type=QuantType[weights], activation_type=QuantType[activations],
        )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return target


def shaped(real: Real) -> Array:
    """The samples as the network's input takes them."""
    shape = [int(d) for d in session(real.path).get_inputs()[0].shape[1:]]
    return real.x.reshape(len(real.x), *shape)


def answers(path: Path, x: Array) -> Array:
    """ONNX Runtime's outputs."""
    found = session(path)
    return np.concatenate(
        [found.run(None, {found.get_inputs()[0].name: x[i : i + 16]})[0] for i in range(0, len(x), 16)]
    )
