"""The real networks of the acceptance runs, each with an .npz that `insitu run --data` takes.

    python tools/acceptance_data.py kws      prints the model's and the data's path

Data goes to .cache/acceptance, made once.  The raw sets lie in INSITU_SHARED_DATA, else in shared/data beside the
repository.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from insitu.base.store import write_npz

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("INSITU_SHARED_DATA") or ROOT.parent / "shared" / "data")
CACHE = ROOT / ".cache" / "acceptance"
Arrays = dict[str, NDArray[np.generic]]


def kws() -> Arrays:
    z = np.load(SHARED / "mlperf_tiny" / "kws01.npz")
    return {"x": ((z["mfcc_q"].astype("f4") - z["zero_point"]) * z["scale"]).astype("f4"), "y": z["y"]}


def ic() -> Arrays:
    z = np.load(SHARED / "cifar10" / "test.npz")
    return {"x": z["x"][:1000].astype("f4"), "y": z["y"][:1000]}


def vww() -> Arrays:
    z = np.load(SHARED / "vww_coco" / "vww96.npz")
    return {"x": z["x"].astype("f4") / 255, "y": z["y"]}


def ad() -> Arrays:
    return {"x": np.concatenate([log_mel_windows(SHARED / "denoise16k" / f"noisy_{n}dB.flac") for n in (0, 5, 10)])}


def dnn_s() -> Arrays:
    z = np.load(SHARED / "kws_arm" / "dnn_s_features.npz")
    return {"x": z["x"], "y": z["y"]}


def cnn_s() -> Arrays:
    z = np.load(SHARED / "kws_arm" / "cnn_s_features.npz")
    return {"x": z["x"], "y": z["y"]}


def resnet20() -> Arrays:
    z = np.load(SHARED / "cifar10" / "test.npz")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = ((z["x"][:1000] / 255 - mean) / std).transpose(0, 3, 1, 2).astype("f4")
    return {"x": x, "y": z["y"][:1000]}


NETWORKS: dict[str, tuple[str, Callable[[], Arrays]]] = {
    "kws": ("mlperf_tiny/kws_dscnn.onnx", kws),
    "ic": ("mlperf_tiny/ic_resnet8.onnx", ic),
    "vww": ("mlperf_tiny/vww_mobilenet_025_96.onnx", vww),
    "ad": ("mlperf_tiny/ad_autoencoder.onnx", ad),
    "dnn_s": ("kws_arm/dnn_s.onnx", dnn_s),
    "cnn_s": ("kws_arm/cnn_s.onnx", cnn_s),
    "resnet20": ("cifar_resnet/resnet20.onnx", resnet20),
}


def log_mel_windows(path: Path, *, frames: int = 5, bands: int = 128, step: int = 5) -> NDArray[np.float32]:
    """Windows of consecutive log-mel frames in dB, flattened; 1024-sample frames, hop 512, as the benchmark's own."""
    import soundfile

    audio, rate = soundfile.read(path, dtype="float64")
    starts = np.arange(0, len(audio) - 1024, 512)
    pieces = audio[starts[:, None] + np.arange(1024)] * np.hanning(1025)[:-1]
    power = np.abs(np.fft.rfft(pieces, axis=1)) ** 2
    decibels = 10 * np.log10(power @ mel_bands(rate, bands).T + 1e-10)
    first = np.arange(0, len(starts) - frames + 1, step)
    return decibels[first[:, None] + np.arange(frames)].reshape(len(first), -1).astype("f4")


def mel_bands(rate: int, bands: int) -> NDArray[np.float64]:
    """Triangular bands of equal width on the mel scale of O'Shaughnessy, each of unit area."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(1024, 1 / rate)
    rising = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def prepare(name: str) -> tuple[Path, Path]:
    """The model file and the data file of one network."""
    model, make = NETWORKS[name]
    data = CACHE / f"{name}.npz"
    if not data.exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        write_npz(data, make(), compress=False)
    return SHARED / model, data


if __name__ == "__main__":
    print(*prepare(sys.argv[1]))
